"""Is autograd's gradient a Clarke subgradient? An oracle that samples gradients near a point of exact touches and ties."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.soundness.membership import Landscape, distance_to_hull

SCALES = (1e-4, 1e-6)
CLEAR = 1e-3
"""A gradient further than this from the hull of all that was found nearby, relative to their size, is outside."""
_EQUAL = 2e-4
_ROUNDS = 12


class Answer(StrEnum):
    """What the oracle knows about autograd's gradient."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    UNSURE = "unsure"


class Oracle:
    """Membership of autograd's gradient in the Clarke subdifferential of one scalar function.

    Parameters and data should be small integers in float64, so that kinks are hit exactly. Points nearby are the
    center plus a generic direction, so that no kink is hit there.

    Args:
        parameters: the coordinates of w; left as they were.
        value: computes the scalar; deterministic.
        seed: of the directions.
        hints: directions to try among others, one per layer; only where they lead counts, not who proposed them.
    """

    def __init__(
        self, parameters: Sequence[Tensor], value: Callable[[], Tensor], seed: int = 0, hints: Sequence[np.ndarray] = ()
    ) -> None:
        self.hints = hints
        self.landscape = Landscape(list(parameters), value)  # type: ignore[arg-type]
        self.shapes = [p.shape for p in parameters]
        self.sizes = [p.numel() for p in parameters]
        self.random = np.random.default_rng(seed)
        self.found = self.landscape.gradient()
        self.nearby: list[np.ndarray] = []
        self.distance = float("inf")

    @property
    def size(self) -> float:
        return max(1.0, *(float(np.abs(g).max(initial=0.0)) for g in (self.found, *self.nearby)))

    def answer(self, most: int = 400) -> Answer:
        """INSIDE or OUTSIDE where that is clear.

        Args:
            most: random directions before the directed search.
        """
        for count, v in enumerate(self._directions(), 1):
            for scale in SCALES:
                if self._sees(v, scale):
                    self.distance = 0.0
                    return Answer.INSIDE
            if count in (30, 120, most) and self._hull() <= CLEAR / 4:
                return Answer.INSIDE
            if count == most:
                break
        for _ in range(_ROUNDS):
            if self._search() <= CLEAR / 4:
                return Answer.INSIDE
        return Answer.OUTSIDE if self.distance > CLEAR else Answer.UNSURE

    # -------------------------------------------------------------------------------------------

    def _sees(self, v: np.ndarray, scale: float) -> bool:
        """Add the gradient at the center plus scale * v; whether it is autograd's at the center."""
        gradient = self.landscape.gradient(self._split(scale * v))
        if not np.isfinite(gradient).all():
            return False
        if not any(np.abs(gradient - g).max(initial=0.0) < 1e-9 for g in self.nearby[-40:]):
            self.nearby.append(gradient)
        return bool(np.abs(gradient - self.found).max(initial=0.0) <= _EQUAL * self.size)

    def _split(self, v: np.ndarray) -> list[Tensor]:
        parts = np.split(v, np.cumsum(self.sizes)[:-1])
        return [torch.from_numpy(p.copy()).reshape(s) for p, s in zip(parts, self.shapes, strict=True)]

    def _hull(self) -> float:
        unique = np.unique(np.round(np.stack(self.nearby), 7), axis=0)
        self.distance = distance_to_hull(self.found, unique) / self.size
        return self.distance

    def _search(self) -> float:
        """Look for gradients beyond the face of the hull that separates autograd's from it."""
        vertices = np.unique(np.round(np.stack(self.nearby), 7), axis=0)
        nearest = _nearest(self.found, vertices)
        out = self.found - nearest
        out /= np.linalg.norm(out) + 1e-300
        for _ in range(12):
            for sign in (1.0, -1.0):
                noise = self.random.standard_normal(len(out)) * 10.0 ** self.random.uniform(-4, 0.5)
                for scale in SCALES:
                    if self._sees(sign * out + noise, scale):
                        self.distance = 0.0
                        return 0.0
        return self._hull()

    def _directions(self) -> Iterator[np.ndarray]:
        """Isotropic, by tensor at different sizes and signs, axes, pairs, and small integer ones; all a little blurred."""
        total = sum(self.sizes)
        while True:
            normal = self.random.standard_normal
            blur = 10.0 ** self.random.uniform(-4, -1) * normal(total)
            yield normal(total)
            yield np.concatenate([self._push(n) for n in self.sizes]) + 1e-6 * normal(total)
            yield np.concatenate([10.0 ** self.random.uniform(-3.5, 0) * normal(n) for n in self.sizes])
            axes = np.zeros(total)
            axes[self.random.integers(total, size=self.random.integers(1, 3))] = self.random.choice([-1.0, 1.0])
            yield axes + blur
            yield self.random.integers(-1, 2, size=total) + blur
            if self.hints:
                scales = 10.0 ** self.random.uniform(-3, 2.5, len(self.sizes))
                yield self._hinted(np.concatenate([k * self._push(n) for k, n in zip(scales, self.sizes, strict=True)]))
                yield self._hinted(normal(total))

    def _hinted(self, rest: np.ndarray) -> np.ndarray:
        """The hints at falling sizes, with something smaller (or larger, for discharged layers) beside them."""
        v, size = np.zeros(len(rest)), 1.0
        for hint in self.hints:
            v += size * hint
            size *= 10.0 ** -self.random.choice([0.0, 1.0, 2.0])
        return v + size * rest * 10.0 ** self.random.uniform(-3, 2.5)

    def _push(self, count: int) -> np.ndarray:
        size, sign = 10.0 ** self.random.uniform(-3, 0), self.random.choice([-1.0, 1.0])
        return size * (sign + 0.3 * self.random.standard_normal(count))


def _nearest(point: np.ndarray, vertices: np.ndarray, steps: int = 3000) -> np.ndarray:
    """The point of the hull of the vertices that is nearest, by pairwise Frank-Wolfe."""
    gram = (vertices - point) @ (vertices - point).T
    weights = np.zeros(len(vertices))
    weights[int(np.argmin(np.diag(gram)))] = 1.0
    for _ in range(steps):
        slopes = gram @ weights
        toward, away = int(np.argmin(slopes)), int(np.argmax(np.where(weights > 0, slopes, -np.inf)))
        gain = slopes[away] - slopes[toward]
        if gain < 1e-12:
            break
        curvature = gram[toward, toward] - 2 * gram[toward, away] + gram[away, away]
        step = min(weights[away], gain / curvature) if curvature > 0 else weights[away]
        weights[toward] += step
        weights[away] -= step
    return weights @ vertices


def hints_from(certificate: Any, named: Sequence[tuple[str, Tensor]]) -> list[np.ndarray]:
    """The directions of a certificate as vectors over all named parameters: last layers first, since they move most."""
    offsets, total = {}, 0
    for name, p in named:
        offsets[name] = (total, p.numel() // (p.shape[0] if p.dim() else 1))
        total += p.numel()
    layers: dict[int, np.ndarray] = {}
    for block in certificate.blocks:
        if block.direction is None:
            continue
        v, at = layers.setdefault(block.group, np.zeros(total)), 0
        direction = np.asarray(block.direction, float)
        for slot in block.coordinates:
            name, _, index = slot[:-1].rpartition("[")
            start, size = offsets[name]
            v[start + int(index) * size : start + (int(index) + 1) * size] += direction[at : at + size]
            at += size
    return [v / (np.abs(v).max() or 1.0) for _, v in sorted(layers.items(), reverse=True)]


def answer_of(
    parameters: Sequence[Tensor], value: Callable[[], Tensor], seed: int = 0, most: int = 400,
    hints: Sequence[np.ndarray] = (),
) -> Answer:  # fmt: skip
    """The oracle's answer; a doubtful OUTSIDE is asked again with other and more directions."""
    first = Oracle(parameters, value, seed, hints).answer(most)
    if first is not Answer.OUTSIDE:
        return first
    again = Oracle(parameters, value, seed + 1, hints).answer(4 * most)
    return again if again is not Answer.INSIDE else Answer.INSIDE
