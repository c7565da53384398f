"""Tiny networks as data: a plan is a list of named steps, its ``repr`` is the source that makes it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.soundness.families.losses import LOSSES
from tests.soundness.families.operations import OPS, Clock, Level

_ROUNDING_FREE = {"eps": 1.0, "momentum": 0.0}
"""Of normalisations: with integers, sqrt(variance + eps) is then often an integer."""


@dataclass(frozen=True)
class Step:
    """One operation on named values; the inputs are called ``x0``, ``x1``, ..."""

    name: str
    op: str
    on: tuple[str, ...]
    args: tuple[Any, ...] = ()
    of: str = ""
    """The step whose parameters it uses too; its own when empty."""


@dataclass(frozen=True)
class Plan:
    """A network with what one optimizer step does with it; the last step is the output."""

    shapes: tuple[tuple[int, ...], ...]
    """Of the inputs of one forward, samples first."""
    steps: tuple[Step, ...]
    data: tuple[int, ...] = (-1, 0, 1)
    """Values that inputs take."""
    weights: tuple[int, ...] = (-1, 0, 1)
    """Values that parameters take."""
    forwards: int = 1
    """Micro-batches in one step."""
    frozen: tuple[str, ...] = ()
    """Parameters without a gradient, as ``v3.bias``."""
    left_out: tuple[str, ...] = ()
    """Parameters with a gradient that the step does not update."""
    loss: str = ""
    """A kinked criterion by name; empty for a random linear function of the outputs."""
    dtype: str = "float64"
    one_sample: bool = False
    """Ask for T1: ``batch_size=1``."""
    exact_ties: bool = False
    beside: str = ""
    """A step whose value is returned too, and that no loss uses."""
    unused: int = 0
    """The last so many forwards run, and no loss uses them."""


@dataclass(frozen=True)
class Point:
    """Weights and data of one step, as nested lists."""

    parameters: dict[str, Any]
    inputs: tuple[tuple[Any, ...], ...]
    """Of each forward, of each input."""
    ends: tuple[Any, ...]
    """Of each forward: coefficients (B, N) of the outputs, or the target (2, B, N) of the loss."""
    seed: int = field(default=0)
    """Of dropout."""


class Net(nn.Module):
    """The module of a plan; parameters are float64 zeros until a point is loaded.

    Args:
        plan: what to build.
        double: ignore the plan's dtype.
    """

    def __init__(self, plan: Plan, double: bool = False) -> None:
        super().__init__()
        self.plan = plan
        self.parts = nn.ModuleDict()
        self.dtype = torch.float64 if double else getattr(torch, plan.dtype)
        values = {f"x{i}": torch.zeros(s, dtype=torch.float64) for i, s in enumerate(plan.shapes)}
        for step in plan.steps:
            self.extend(step, values)
        self.width = _rows(values[plan.steps[-1].name]).shape[1] if plan.steps else 0
        self.to(self.dtype)
        self.wind_back()
        for name, p in self.named_parameters():
            p.requires_grad_(short(name) not in plan.frozen)
        self.train()

    def extend(self, step: Step, values: dict[str, Tensor]) -> Tensor:
        """Make the parts of a step and its value for these values; stores the value under the step's name."""
        op, on = OPS[step.op], [values[n] for n in step.on]
        if op.make is not None and not step.of:
            part = op.make(on, *step.args).double()
            for name, value in _ROUNDING_FREE.items():
                if isinstance(getattr(part, name, None), float):
                    setattr(part, name, value)
            if getattr(part, "running_var", None) is not None:
                part.running_var.fill_(3.0)
            self.parts[step.name] = part
        with torch.no_grad():
            values[step.name] = op.run(self._part(step), on, *step.args)
        return values[step.name]

    def _part(self, step: Step) -> nn.Module | None:
        return getattr(self.parts, step.of or step.name, None)

    def wind_back(self) -> None:
        """Have the forwards begin anew."""
        for part in self.modules():
            if isinstance(part, Clock):
                part.count.zero_()
            elif isinstance(part, Level):
                part.level.zero_()

    def raise_levels(self) -> None:
        """Write the buffers that change between the forwards and the end of the step."""
        for part in self.modules():
            if isinstance(part, Level):
                part.level.add_(1)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        values = {f"x{i}": x for i, x in enumerate(inputs)}
        for step in self.plan.steps:
            values[step.name] = OPS[step.op].run(self._part(step), [values[n] for n in step.on], *step.args)
        output = _rows(values[self.plan.steps[-1].name])
        return (output, values[self.plan.beside]) if self.plan.beside else output

    def train(self, mode: bool = True) -> Net:
        super().train(mode)
        for part in self.parts.values():
            if getattr(part, "stays_in_eval", False):
                part.training = False
        return self

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """The coordinates of w, by their full names."""
        return [(n, p) for n, p in self.named_parameters() if p.requires_grad and short(n) not in self.plan.left_out]

    def load(self, point: Point) -> None:
        """Set the parameters; those that the point does not name become 0."""
        with torch.no_grad():
            for name, p in self.named_parameters():
                value = point.parameters.get(short(name))
                p.copy_(torch.zeros_like(p) if value is None else torch.tensor(value, dtype=p.dtype).reshape(p.shape))

    def inputs_of(self, point: Point) -> list[tuple[Tensor, ...]]:
        """The inputs of each forward."""
        return [tuple(torch.tensor(x, dtype=self.dtype) for x in each) for each in point.inputs]


def short(name: str) -> str:
    """``parts.v3.bias`` as ``v3.bias``."""
    return name.removeprefix("parts.")


def loss_of(net: Net, model: Any, point: Point) -> Tensor:
    """The scalar of one step, all forwards together.

    Args:
        net: gives the dtype.
        model: the net, or the checked module in its place.
        point: weights are taken as loaded.
    """
    torch.manual_seed(point.seed)
    net.wind_back()
    ends = [_one_forward(net, model, inputs, torch.tensor(end, dtype=net.dtype))
            for inputs, end in zip(net.inputs_of(point), point.ends, strict=True)]  # fmt: skip
    net.raise_levels()
    return torch.stack(ends[: max(1, len(ends) - net.plan.unused)]).sum()


def main_output(output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Of a network's outputs, the one that losses use."""
    return output[0] if isinstance(output, tuple) else output


def _one_forward(net: Net, model: Any, inputs: Sequence[Tensor], end: Tensor) -> Tensor:
    if not net.plan.loss:
        return (main_output(model(*inputs)) * end).sum()
    if model is net:
        return LOSSES[net.plan.loss](main_output(model(*inputs)), end)
    return model.loss(*inputs, target=end)


def _rows(value: Tensor) -> Tensor:
    """(B, ...) as (B, N)."""
    return value.reshape(value.shape[0], -1)
