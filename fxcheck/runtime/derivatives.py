"""Total gradients of observed entries, as vectors that a linear program can take (theory 5).

A model with few parameters keeps all coordinates. Otherwise a direction v = S^T z with z in R^d is wanted, S a random
sketch: then <a, v> = <S a, z>, so that the rows S a decide, exactly, whether such a v exists. Restricting v is always sound,
and as long as d is at least the rank of the rows it loses none of them, but for accidents of probability zero. Each parameter
entry has a random weight, of either sign, in one of d sums; weights are drawn from a continuum, so that different gradients
have different images, but for such accidents too. Combinations whose weights are chosen afterwards may vanish in the image
alone, so no mixture is judged by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor

SKETCH = 8192
"""d: models with at most as many parameters are not sketched."""
_SEED = 20241204
_SHIFT = 1021
GRANTED = 1 / 16
"""Of the assumed roundoff, what is granted to sums that have to vanish: four units in float32."""
_STRETCH = 3.0
"""No error that does not know the weights of the sketch is stretched by more than this."""


@dataclass(frozen=True, eq=False)
class Vector:
    """A gradient by all trainable parameters."""

    values: np.ndarray
    """(d,) float64."""
    error: float
    """The true gradient's image lies within this distance; from above, so that a direction is none by accident."""
    slack: float
    """By how much a sum that has to vanish may miss it; from below, so that a small term is not taken for rounding."""
    is_zero: bool
    """Exactly zero on all parameters, not only in the sketch."""


class Coordinates:
    """The coordinates in which gradients by the trainable parameters are written.

    Args:
        trainable: the parameters by name.
    """

    def __init__(self, trainable: Mapping[str, Tensor]) -> None:
        self.trainable = dict(trainable)
        self.total = sum(p.numel() for p in self.trainable.values())
        self.is_sketch = self.total > SKETCH
        self.size = SKETCH if self.is_sketch else self.total
        self._weights: dict[str, Tensor] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """What each coordinate stands for."""
        if self.is_sketch:
            return tuple(f"sketch[{i}]" for i in range(self.size))
        return tuple(f"{n}[{i}]" for n, p in self.trainable.items() for i in range(p.numel()))

    def write(self, gradients: Sequence[Tensor | None], roundoff: float, moved: float = 0.0) -> Vector:
        """A gradient in these coordinates.

        Args:
            gradients: one a parameter, in order; None for zero.
            roundoff: relative error of the gradient as a whole, at least.
            moved: how far rounding may have moved it beside that.
        """
        found = {n: g for n, g in zip(self.trainable, gradients, strict=True) if g is not None and bool(g.any())}
        length = sqrt(sum(float(g.double().square().sum()) for g in found.values()))
        values = self._sketched(found) if self.is_sketch else self._listed(found)
        stretch = _STRETCH if self.is_sketch else 1.0
        error, slack = (stretch * (units * length + (moved if found else 0.0)) for units in (roundoff, GRANTED * roundoff))
        return Vector(values, error, slack, not found)

    def _listed(self, found: Mapping[str, Tensor]) -> np.ndarray:
        parts = [
            found[n].detach().double().cpu().reshape(-1).numpy() if n in found else np.zeros(p.numel())
            for n, p in self.trainable.items()
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _sketched(self, found: Mapping[str, Tensor]) -> np.ndarray:
        values = torch.zeros(self.size, dtype=torch.float64)
        for name, gradient in found.items():
            signed = gradient.detach().double().cpu().reshape(-1) * self._weights_of(name)
            whole = signed.numel() // SKETCH * SKETCH
            folded = signed[:whole].reshape(-1, SKETCH).sum(0)
            folded[: signed.numel() - whole] += signed[whole:]
            values += folded.roll(self._place(name) * _SHIFT)  # so that biases do not all meet in the first buckets
        return values.numpy()

    def _place(self, name: str) -> int:
        return list(self.trainable).index(name)

    def _weights_of(self, name: str) -> Tensor:
        """Random numbers between 0.5 and 1.5 with random signs, one a parameter entry, the same in every run."""
        if name not in self._weights:
            generator = torch.Generator().manual_seed(_SEED + self._place(name))
            drawn = 2 * torch.rand(self.trainable[name].numel(), generator=generator) - 1
            self._weights[name] = drawn + 0.5 * drawn.sign()
        return self._weights[name]


def roundoff_of(dtype: torch.dtype) -> float:
    """Assumed relative error of a gradient that autograd computed on a tensor of this dtype."""
    return (64.0 if dtype in (torch.float32, torch.float64) else 8.0) * torch.finfo(dtype).eps
