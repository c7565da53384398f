"""Small models with exact ties and touches, for the runtime tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import fxcheck
from fxcheck.records.step import StepResult
from fxcheck.runtime.checked import CheckedModule


def _clamp_passes_at_its_bound() -> bool:
    x = torch.zeros(1, requires_grad=True)
    x.clamp(max=0).sum().backward()
    return x.grad is not None and bool(x.grad)


CLAMP_PASSES = _clamp_passes_at_its_bound()
"""At its bound clamp has the slope of its operand, to torch 2.13; from 2.14 on it has 0, and half of it between tensors."""


class Scalars(nn.Module):
    """Named float64 parameters and a function of them and the inputs."""

    def __init__(self, function: Callable[..., Tensor], **values: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in values.items():
            setattr(self, name, nn.Parameter(torch.tensor(value, dtype=torch.float64)))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)


def one_step(model: nn.Module, *inputs: Tensor, forwards: int = 1, **options: Any) -> StepResult:
    """Instrument, run one step of ``forwards`` equal forwards, and return it."""
    checked = fxcheck.instrument(model, inputs, **options)
    return step_of(checked, *inputs, forwards=forwards)


def step_of(checked: CheckedModule, *inputs: Tensor, forwards: int = 1) -> StepResult:
    """One step of a checked model."""
    with checked.step() as step:
        for _ in range(forwards):
            checked(*inputs).sum().backward()
    return step


def small_cnn(norm: bool = False, inplace: bool = True, bias: bool = True) -> nn.Sequential:
    """Conv, (BatchNorm,) ReLU, max-pool, twice, and a linear head: 2x8x8 images to 3 scores."""
    def block(cin: int, cout: int) -> list[nn.Module]:
        layers: list[nn.Module] = [nn.Conv2d(cin, cout, 3, padding=1, bias=bias)]
        if norm:
            layers.append(nn.BatchNorm2d(cout))
        return [*layers, nn.ReLU(inplace), nn.MaxPool2d(2)]

    return nn.Sequential(*block(2, 4), *block(4, 4), nn.Flatten(), nn.Linear(16, 3))


def flat_images(batch: int = 4, seed: int = 0) -> Tensor:
    """Images whose rows are constant, so that pools tie inside: (batch, 2, 8, 8) float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 5, (batch, 2, 8, 1), generator=generator).float().expand(-1, -1, 8, 8).contiguous()


def fully_connected(activation: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Two layers with the activation after each, as in the paper's first experiment."""
    return nn.Sequential(nn.Linear(6, 5), activation, nn.Linear(5, 3), activation).to(dtype)
