"""One entry of the zoo: a tiny model with the verdicts that the theory permits for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

SMOOTH, CERTIFIED, RUNTIME, UNCOVERED = "smooth", "certified", "runtime", "uncovered"
ERROR = "error"
"""fxcheck may refuse to analyse: an FxcheckError with an FX6xx code."""
NOT_CERTIFIED = (RUNTIME, UNCOVERED)
"""A wrong gradient exists: a check per step or a refusal are the only sound answers."""


def flat() -> tuple[Any, ...]:
    """A minibatch of 4 samples with 3 features."""
    return (torch.ones(4, 3),)


def sequence() -> tuple[Any, ...]:
    """A minibatch of 2 sequences, 4 steps of 3 features."""
    return (torch.ones(2, 4, 3),)


def signal() -> tuple[Any, ...]:
    """A minibatch of 2 signals, 2 channels of length 8."""
    return (torch.ones(2, 2, 8),)


def image() -> tuple[Any, ...]:
    """A minibatch of 2 images, 2 channels of 6 by 6."""
    return (torch.ones(2, 2, 6, 6),)


def pair() -> tuple[Any, ...]:
    """Two minibatches for siamese networks."""
    return (torch.ones(4, 3), torch.ones(4, 3))


def tokens() -> tuple[Any, ...]:
    """A minibatch of 2 sequences of 4 token ids below 5."""
    return (torch.tensor([[0, 1, 2, 3], [4, 1, 0, 2]]),)


def nothing() -> tuple[Any, ...]:
    """No data: the loss is a function of the parameters alone."""
    return ()


class Of(nn.Module):
    """Named parameters (numbers or lists) and submodules, with the forward given as a function of them."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            value = part if isinstance(part, nn.Module) else nn.Parameter(torch.tensor(part, dtype=torch.float32))
            setattr(self, name, value)
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


@dataclass(frozen=True)
class Case:
    """A model, how to analyse it, and what may be said about it.

    ``allowed`` lists the sound verdicts, the best one first. ``codes`` must all be reported, each a prefix or
    several alternatives separated by ``|``; they are asked for only with the verdict ``codes_with``.
    """

    name: str
    build: Callable[[], nn.Module]
    allowed: tuple[str, ...]
    args: Callable[[], tuple[Any, ...]] = flat
    theorem: str = ""
    """Alternatives separated by ``|``; checked with the best verdict only."""
    codes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    wrt: Callable[[nn.Module], list[nn.Parameter]] | None = None
    bias: str = ""
    """``bias.kind`` of the first layer, alternatives separated by ``|``; checked with the best verdict only."""
    subdifferential: str = ""
    layers: int | None = None
    guard: bool = True
    """Whether finite sampling around integer parameters can refute a certificate of this model."""

    def __str__(self) -> str:
        return self.name


def linear(bias: bool = True, n: int = 3, m: int = 3) -> nn.Linear:
    return nn.Linear(n, m, bias=bias)


def stack(*modules: nn.Module) -> Callable[[], nn.Module]:
    """A builder of ``nn.Sequential``; a fresh copy each time."""
    import copy

    return lambda: nn.Sequential(*(copy.deepcopy(m) for m in modules))


def after(layer: Callable[[], nn.Module], function: Callable[[torch.Tensor], Any]) -> Callable[[], nn.Module]:
    """A builder of ``function(layer(x))``."""
    return lambda: Of(lambda self, x: function(self.layer(x)), layer=layer())


def of(function: Callable[..., Any], **parts: Any) -> Callable[[], nn.Module]:
    """A builder of ``Of``: numbers and lists become parameters, callables build submodules."""
    return lambda: Of(function, **{k: p() if callable(p) else p for k, p in parts.items()})


def dense() -> nn.Module:
    """A biased fully connected layer."""
    return linear()


def unbiased() -> nn.Module:
    """A fully connected layer without bias."""
    return linear(bias=False)


def conv() -> nn.Module:
    """A biased 3x3 convolution."""
    return nn.Conv2d(2, 2, 3, padding=1)


def unbiased_conv() -> nn.Module:
    """A 3x3 convolution without bias."""
    return nn.Conv2d(2, 2, 3, padding=1, bias=False)
