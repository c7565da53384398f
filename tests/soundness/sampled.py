"""Gradients near a point: where to look for them, whether each is a derivative there, and the hull of those found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tests.soundness.program import record

NEAR = 1e-6
"""Size of a step away from the point."""
_SLOPES = 1e-4
_FLOOR, _NOISE, _UNIT = 1e-15, 1e-6, 2.0**-53
_NOTHING = 1e-14
_FINE = {torch.float64: 5e-7, torch.float32: 3e-7, torch.float16: 1e-2, torch.bfloat16: 4e-2}
"""Errors of backward relative to a coordinate: constants of kernels (a sixth in float32), rounding in low precision."""
_SHORT_SLOPES = {"hardsigmoid": 2.0**-24, "hardswish": 2.0**-24}
"""Operators whose backward multiplies by a sixth of float32, in float64 too: an error of terms, which stays where they cancel."""
_EQUAL = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}


@dataclass(frozen=True, eq=False)
class Sample:
    """The scalar and backward's gradient at the center plus an offset."""

    offset: np.ndarray
    value: float
    gradient: np.ndarray

    @property
    def short(self) -> bool:
        """Not far out along a curve, where gradients differ by their curvature."""
        return bool(np.abs(self.offset).max(initial=0.0) <= 50 * NEAR)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.value) and np.isfinite(self.gradient).all())


class Landscape:
    """A scalar as a function of one vector, with backward's gradient.

    Args:
        parameters: the coordinates; left as they were after each call. Where anything is computed below float64, the
            neighbourhood is read in float64 from the stored values, the center itself as it is computed.
        value: computes the scalar; deterministic.
    """

    def __init__(self, parameters: Sequence[Tensor], value: Callable[[], Tensor]) -> None:
        self.parameters, self.value = list(parameters), value
        self.sizes = [p.numel() for p in parameters]
        self.total = sum(self.sizes)
        self.center = [p.detach().clone() for p in parameters]
        self.recorded = record(parameters, value)
        dtypes = self.recorded.dtypes()
        self.unit = max((torch.finfo(d).eps / 2 for d in dtypes), default=_UNIT)
        self.unit_of_slopes = max([_UNIT, *(_SHORT_SLOPES.get(call.name, _UNIT) for call in self.recorded.calls)])
        self.equal = max((_EQUAL.get(d, 1e-3) for d in dtypes), default=1e-5)
        self.fine = max((_FINE.get(d, 1e-3) for d in dtypes), default=1e-7)
        self.largest = self.recorded.largest()
        self.low = bool(dtypes - {torch.float64})
        self.program = self.recorded if self.low else None
        if self.low:
            self.recorded.refuse_overwritten_constants()

    def here(self) -> Sample:
        """What the program under test computes at the point itself."""
        return self._sample(np.zeros(self.total), self.value(), self.parameters)

    def at(self, offset: np.ndarray) -> Sample:
        """The same at a point nearby."""
        parts = [torch.from_numpy(o).reshape(c.shape) for o, c in zip(self._split(offset), self.center, strict=True)]
        if self.program is not None:
            leaves = [(c.double() + o).requires_grad_() for c, o in zip(self.center, parts, strict=True)]
            return self._sample(offset, self.program.lifted(leaves), leaves)
        try:
            with torch.no_grad():
                for p, c, o in zip(self.parameters, self.center, parts, strict=True):
                    p.copy_(c + o)
            return self._sample(offset, self.value(), self.parameters)
        finally:
            with torch.no_grad():
                for p, c in zip(self.parameters, self.center, strict=True):
                    p.copy_(c)

    def terms(self) -> np.ndarray:
        """The size of the numbers that backward adds up to each coordinate, about, however they cancel: every gradient on the
        way is disturbed by itself."""
        generator = torch.Generator().manual_seed(0)

        def disturbed(g: Tensor | None) -> Tensor | None:
            return None if g is None else g * (1 + _NOISE * torch.randn(g.shape, generator=generator, dtype=g.dtype))

        found = []
        for noise in (None, *[disturbed] * 4):
            leaves = [c.double().requires_grad_() for c in self.center]
            found.append(self._sample(np.zeros(self.total), self.recorded.lifted(leaves, noise), leaves).gradient)
        return np.abs(np.stack(found[1:]) - found[0]).max(axis=0) / _NOISE

    def rounding(self, terms: np.ndarray) -> np.ndarray:
        """How far rounding may have moved each coordinate, as the program computes.

        Args:
            terms: as ``terms`` gives them.
        """
        unit = max(self.unit, self.unit_of_slopes)
        return 4 * unit * terms + _FLOOR * max(1.0, abs(float(self.value().detach())))

    def _sample(self, offset: np.ndarray, value: Tensor, leaves: Sequence[Tensor]) -> Sample:
        if not value.requires_grad:
            return Sample(offset, float(value.detach()), np.zeros(self.total))
        slopes = torch.autograd.grad(value, leaves, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for g, p in zip(slopes, leaves, strict=True)]
        return Sample(offset, float(value.detach()), torch.cat([g.reshape(-1).double() for g in parts]).numpy())

    def _split(self, v: np.ndarray) -> list[np.ndarray]:
        return np.split(v, np.cumsum(self.sizes)[:-1])

    def along_the_ray(self, start: Sample, end: Sample) -> bool:
        """Whether f(end) - f(start) is the slope at the end times the way, as for every semismooth function."""
        way = end.offset - start.offset
        length = float(np.linalg.norm(way))
        error = abs(end.value - start.value - float(end.gradient @ way))
        return error <= max(_SLOPES, 10 * length) * length * scale(start, end) + 1e-13 * abs(end.value)

    def is_blind(self, there: Sample) -> bool:
        """Whether rounding of the values hides a wrong gradient from their differences."""
        return 1e-14 * self.largest / (1e-4 * NEAR) > 0.1 * scale(there)

    def differs(self, there: Sample, along: np.ndarray, step: float) -> bool:
        """Whether central differences contradict backward at a point."""
        measured, slope = self._measured(there, along, step), float(there.gradient @ along)
        noise = 1e-14 * max(abs(there.value), self.largest, 1.0) / step
        return abs(measured - slope) > 1e-3 * max(np.linalg.norm(along) * scale(there), abs(measured)) + noise

    def contradicts(self, there: Sample, along: np.ndarray) -> bool:
        """Whether differences at two steps contradict backward and agree with each other: rounding does not."""
        steps = (1e-3 * NEAR, 1e-4 * NEAR)
        if not all(self.differs(there, along, step) for step in steps):
            return False
        coarse, fine = (self._measured(there, along, step) for step in steps)
        return abs(coarse - fine) <= 0.05 * max(abs(coarse), abs(fine), np.linalg.norm(along) * scale(there))

    def _measured(self, there: Sample, along: np.ndarray, step: float) -> float:
        return (self.at(there.offset + step * along).value - self.at(there.offset - step * along).value) / (2 * step)

    def steepens(self, v: np.ndarray, start: Sample) -> bool:
        """Whether difference quotients along a ray grow without bound: a jump, or an infinite slope."""
        q = [abs(self.at(e * v).value - start.value) / e for e in (1e-3, 1e-5, 1e-7)]
        if not (q[2] > 1.2 * q[1] > 1.44 * q[0] and q[2] - q[0] > 0.1):
            return False
        again = [abs(self.at(1e-7 * k * v).value - start.value) / 1e-7 for k in np.linspace(0.9, 1.1, 9)]
        return max(again) - min(again) < 0.2 * q[2]  # rounding jumps to and fro


def scale(*samples: Sample) -> float:
    """The size that errors are relative to."""
    return max(1.0, *(float(np.abs(s.gradient).max(initial=0.0)) for s in samples))


def directions(
    sizes: Sequence[int], random: np.random.Generator, hints: Sequence[Sequence[np.ndarray]]
) -> Iterator[np.ndarray]:
    """Offsets to try: isotropic, by tensor at different sizes, axes, integer ones, along a curve, along hints.

    Args:
        sizes: numbers of coordinates of the parameters.
        random: where the numbers come from; all offsets are generic reals.
        hints: several proposals, each of directions to mix in at falling sizes.

    Returns:
        Vectors about ``NEAR`` long, or longer ones close to an axis, without end.
    """
    total, normal = sum(sizes), random.standard_normal
    while True:
        blur = 10.0 ** random.uniform(-4, -1) * normal(total)
        axes = np.zeros(total)
        axes[random.integers(total, size=random.integers(1, 3))] = random.choice([-1.0, 1.0])
        yield NEAR * normal(total)
        yield NEAR * (np.concatenate([_push(n, random) for n in sizes]) + 1e-6 * normal(total))
        yield NEAR * np.concatenate([10.0 ** random.uniform(-3.5, 0) * normal(n) for n in sizes])
        yield NEAR * (axes + blur)
        yield 1e3 * NEAR * axes + NEAR * 10.0 ** random.uniform(-2, 0) * normal(total)
        yield NEAR * (random.integers(-1, 2, size=total) + blur)
        if hints:
            sizes_of = 10.0 ** random.uniform(-3, 2.5, len(sizes))
            pushes = [k * _push(n, random) for k, n in zip(sizes_of, sizes, strict=True)]
            for rest in (np.concatenate(pushes), normal(total)):
                yield NEAR * _hinted(rest, random, hints[random.integers(len(hints))])


def _push(count: int, random: np.random.Generator) -> np.ndarray:
    size, sign = 10.0 ** random.uniform(-3, 0), random.choice([-1.0, 1.0])
    return size * (sign + 0.3 * random.standard_normal(count))


def _hinted(rest: np.ndarray, random: np.random.Generator, hints: Sequence[np.ndarray]) -> np.ndarray:
    v, size = np.zeros(len(rest)), 1.0
    for hint in hints:
        v, size = v + size * hint, size * 10.0 ** -random.choice([0.0, 1.0, 2.0])
    return v + size * rest * 10.0 ** random.uniform(-3, 2.5)


def nearest(point: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Weights of the point of a hull that is nearest to ``point``.

    Args:
        point: (D,).
        vertices: (K, D), K at least 1.

    Returns:
        (K,) weights, not negative, with sum 1. Source: Wolfe, Finding the nearest point in a polytope, 1976.
    """
    shifted = vertices - point
    shifted = shifted / (np.abs(shifted).max() or 1.0)
    corral = [int(np.argmin((shifted**2).sum(axis=1)))]
    weights = np.zeros(len(vertices))
    weights[corral] = 1.0
    for _ in range(20 * len(vertices) + 100):
        out = weights @ shifted
        length = float(np.linalg.norm(out))
        slopes = shifted @ (out / (length or 1.0))
        toward = int(np.argmin(slopes))
        if length < _NOTHING or length - slopes[toward] <= _NOTHING or toward in corral:
            break
        corral.append(toward)
        weights = _within(shifted, corral, weights)
    return weights


def _within(shifted: np.ndarray, corral: list[int], weights: np.ndarray) -> np.ndarray:
    """Move to the nearest point of the corral's affine hull, dropping vertices that leave the simplex on the way."""
    while True:
        first, *rest = shifted[corral]
        moves = np.linalg.lstsq(np.stack([r - first for r in rest], axis=1), -first, rcond=1e-13)[0] if rest else np.zeros(0)
        target = np.concatenate([[1.0 - moves.sum()], moves])
        now = weights[corral]
        leaving = target <= 1e-12
        fresh = np.zeros_like(weights)
        if not leaving.any():
            fresh[corral] = target
            return fresh
        steps = np.where(leaving & (now > target), now / np.where(now > target, now - target, 1.0), np.inf)
        moved = now + min(1.0, float(steps.min())) * (target - now)
        kept = moved > 1e-12
        if kept.all():
            kept[int(np.argmin(moved))] = False
        fresh[corral] = np.where(kept, moved, 0.0)
        weights = fresh / fresh.sum()
        corral[:] = [k for k, keep in zip(corral, kept, strict=True) if keep]
