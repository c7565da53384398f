"""Build a plan step by step: steps that torch refuses or that grow too large are left out."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from tests.soundness.families.operations import parameters_of
from tests.soundness.families.plan import Net, Plan, Step

MOST_VALUES = 64
"""Entries of one value, all samples together."""
MOST_PARAMETERS = 40


class Draft:
    """A plan that grows, with the shapes of its values.

    Args:
        rng: the source of all choices.
        shapes: of the inputs, samples first.
        options: further fields of the plan.
    """

    def __init__(self, rng: random.Random, *shapes: tuple[int, ...], **options: Any) -> None:
        self.rng, self.options = rng, options
        self.net = Net(Plan(shapes, ()))
        self.values: dict[str, Tensor] = {f"x{i}": torch.zeros(s, dtype=torch.float64) for i, s in enumerate(shapes)}
        self.shapes = shapes
        self.steps: list[Step] = []
        self.made: dict[str, int] = {}
        self.last = "x0"

    def shape(self, name: str = "") -> tuple[int, ...]:
        return tuple(self.values[name or self.last].shape)

    @property
    def names(self) -> list[str]:
        return list(self.values)

    def any(self) -> str:
        """Some value, mostly the last."""
        return self.last if self.rng.random() < 0.7 else self.rng.choice(self.names)

    def try_add(self, op: str, *on: str, args: tuple[Any, ...] = (), of: str = "") -> str:
        """Append a step on values (default: the last one).

        Returns:
            The step's name; empty when it does not fit.
        """
        step = Step(f"v{len(self.made)}", op, on or (self.last,), args, of)
        self.made[step.name] = 0
        try:
            value = self.net.extend(step, self.values)
        except (RuntimeError, IndexError, ValueError, TypeError):
            return self._drop(step)
        size = parameters_of(self.net)
        fits = 0 < value.numel() <= MOST_VALUES and value.isfinite().all() and size <= MOST_PARAMETERS
        if not fits or value.dim() == 0 or value.shape[0] != self.shapes[0][0]:
            return self._drop(step)
        self.steps.append(step)
        self.last = step.name
        return step.name

    def add(self, op: str, *on: str, args: tuple[Any, ...] = (), of: str = "") -> str:
        """As ``try_add``, but without the step the value it would be applied to stands in."""
        return self.try_add(op, *on, args=args, of=of) or (on[0] if on else self.last)

    def _drop(self, step: Step) -> str:
        self.values.pop(step.name, None)
        if step.name in self.net.parts:
            del self.net.parts[step.name]
        return ""

    # Common choices ----------------------------------------------------------------------------

    def affine(self, on: str = "", bias: bool | None = None, width: int = 0) -> str:
        """A linear layer on (B, N), a convolution on (B, C, ...)."""
        rng, source = self.rng, on or self.last
        bias = rng.random() < 0.5 if bias is None else bias
        width = width or rng.choice([1, 2, 2])
        if self.values[source].dim() == 2:
            return self.add("linear", source, args=(width, bias))
        args = (width, rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 1, 2]), rng.choice([0, 0, 1]), bias)
        return self.add("conv", source, args=args)

    def act(self, *kinds: str, on: str = "") -> str:
        return self.add(self.rng.choice(kinds), on or self.last)

    def max_pool(self, on: str = "") -> str:
        rng, source = self.rng, on or self.last
        if rng.random() < 0.2:
            return self.add("adaptive_max", source, args=(rng.choice([1, 2, 3]),))
        kernel = rng.choice([2, 2, 3])
        args = (kernel, rng.choice([1, 2, kernel]), rng.choice([0, 0, 1]), rng.choice([1, 1, 1, 2]), rng.random() < 0.3)
        return self.add("max_pool", source, args=args)

    def avg_pool(self, on: str = "") -> str:
        rng = self.rng
        if rng.random() < 0.25:
            return self.add("adaptive_avg", on or self.last, args=(rng.choice([1, 2, 3]),))
        args = (rng.choice([2, 3]), rng.choice([1, 2]), rng.choice([0, 1]), rng.random() < 0.3, rng.random() < 0.7)
        return self.add("avg_pool", on or self.last, args=args)

    def combine(self, a: str, b: str) -> str:
        """a + k b, or one of them beside the other."""
        if self.rng.random() < 0.8 and (found := self.try_add("add", a, b, args=(self.rng.choice([1, -1, -1, 2]),))):
            return found
        return self.add("cat", a, b, args=(1,))

    # The end -----------------------------------------------------------------------------------

    def plan(self, **options: Any) -> Plan:
        """The finished plan, without steps that the output does not use."""
        beside = {**self.options, **options}.get("beside")
        needed, kept = {self.last, *([beside] if beside else [])}, []
        for step in reversed(self.steps):
            if step.name in needed:
                kept.append(step)
                needed |= {*step.on, *([step.of] if step.of else [])}
        kept.sort(key=lambda step: step.name != self.last)  # the output comes last
        return Plan(self.shapes, tuple(reversed(kept)), **{**self.options, **options})
