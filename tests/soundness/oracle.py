"""A judge of gradients that knows no theorem: is what backward returns in the Clarke subdifferential?

It looks at gradients nearby, at the exact pieces of the function around the point where the program is rational, and
at nothing else; whether a nearby gradient is a derivative at all is measured by differences of values.

``python -m tests.soundness.oracle FILE.py[:NAME]`` judges a file that defines ``parameters`` and ``value`` (or NAME, an
object or a function without arguments that gives such a pair). The exit status is 0, or 2 for a bad input.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from tests.soundness.exact import Pieces, pieces_of
from tests.soundness.program import Declined
from tests.soundness.sampled import _FINE, NEAR, Landscape, Sample, directions, nearest, scale

CLEAR = 1e-3
"""Relative distance to the hull of all that was found beyond which a gradient is outside."""
_SHORT, _LONG = 1e6, 1.6e7
"""Numbers that the exact pieces may cost at first, and where nothing else helped: about 0.25 and 4 seconds."""
_FIRST = 10
_SPREAD, _LARGE = 1e-3, 1e3
"""Gradients with coordinates that are smaller, beside 1 or beside others, or that are larger, are compared by coordinate."""
BY_COORDINATE = "exact, by coordinate"
"""Who gives a verdict that no look at sizes can give."""
_ROUNDS = 12


class Verdict(StrEnum):
    """What is known about backward's gradient at a point."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    UNSURE = "unsure"
    NOT_AD = "not AD"
    NOT_LIPSCHITZ = "not Lipschitz"
    ROUNDING = "rounding"


@dataclass(frozen=True)
class Judgement:
    """A verdict, how far outside (relative to the gradients' size), who gave it, and a phrase about it."""

    verdict: Verdict
    distance: float = 0.0
    by: str = "sampled"
    note: str = ""


def judge(
    parameters: Sequence[Tensor], value: Callable[[], Tensor], *, seed: int = 0, hints: Sequence[Sequence[np.ndarray]] = (),
    exact: bool = True, most: int = 400,
) -> Judgement:  # fmt: skip
    """Judge what backward returns for a scalar at the current parameters.

    Args:
        parameters: leaf tensors, the coordinates of w; left as they were.
        value: computes the deterministic scalar from them, in however many forwards.
        seed: of the directions.
        hints: directions to try among others, see ``directions``; only where they lead counts, not who proposed them.
        exact: whether to enumerate the exact pieces where sampling does not settle it.
        most: random directions before the directed search; half of them after the pieces declined.

    Returns:
        INSIDE: in the hull of gradients nearby that are derivatives. OUTSIDE: clearly not in the hull of all there are.
        ROUNDING: outside, but computed touches, ties or sides are not the exact ones, or by backward's rounding only.
    """
    try:
        return _Trial(Landscape(parameters, value), np.random.default_rng(seed), hints).judgement(exact, most)
    except Declined as error:
        return Judgement(Verdict.UNSURE, note=f"it cannot be run in float64: {error}")


class _Trial:
    """What is known so far about one gradient."""

    def __init__(self, landscape: Landscape, random: np.random.Generator, hints: Sequence[Sequence[np.ndarray]]) -> None:
        self.land, self.random = landscape, random
        self.found = landscape.here()
        self.start = landscape.at(np.zeros(landscape.total)) if landscape.low else self.found
        self.nearby: list[Sample] = []
        self.fresh: list[Sample] = []
        self.offsets = directions(landscape.sizes, random, hints)
        self.pieces: Pieces | None = None

    @property
    def complete(self) -> bool:
        """Whether the exact pieces are all there are."""
        return self.pieces is not None and self.pieces.complete

    def judgement(self, exact: bool, most: int) -> Judgement:
        """What is found, looked at again coordinate by coordinate where sizes lie far apart: numbers beside large ones show
        in no look at the whole."""
        found = self._judgement(exact, most)
        if exact and (found.verdict is Verdict.OUTSIDE or (found.verdict is Verdict.INSIDE and self._has_scales())):
            return self._fine(found)
        return found

    def _has_scales(self) -> bool:
        """Whether gradients that were met are large, or have coordinates of very different sizes, or values tell nothing."""
        sizes = np.abs(np.stack([self.found.gradient, *(s.gradient for s in self.nearby[:20])])).max(axis=0)
        largest = float(sizes.max(initial=0.0))
        if self.land.is_blind(self.found):
            return True
        small = (sizes > 0) & (sizes < _SPREAD * max(1.0, largest))
        if largest > _LARGE or not small.any():
            return largest > _LARGE
        closer = [self.land.at(s.offset / 16) for s in self.nearby[:20]]
        remaining = np.abs(np.stack([self.found.gradient, *(s.gradient for s in closer)])).max(axis=0)
        return bool((remaining[small] > sizes[small] / 4).any())  # curvature would be gone

    def _fine(self, coarse: Judgement) -> Judgement:
        """The verdict with every coordinate in a unit of its own, which changes nothing about who is in a hull.

        By the exact pieces if they are all there are. Otherwise samples can show that the gradient is inside, and leave a
        ``coarse`` word that it is inside in doubt.
        """
        pieces = self.pieces
        if coarse.verdict is Verdict.INSIDE and (pieces is None or not pieces.complete):
            pieces = pieces_of(self.land.parameters, self.land.value, branches=4000, work=_LONG)
        if pieces is not None and pieces.complete and pieces.rounded:
            return coarse
        if pieces is None or not pieces.complete or not len(pieces.proved):
            if self._fits(self._vertices(possible=False), self.land.equal):
                return Judgement(Verdict.INSIDE, note="in the hull of gradients nearby, by coordinate")
            unsure = Judgement(Verdict.UNSURE, note="inside beside the largest coordinate only")
            return unsure if coarse.verdict is Verdict.INSIDE else coarse
        fine = self.land.fine
        every = np.concatenate([pieces.proved, pieces.possible])
        if self._fits(pieces.proved, fine):
            return Judgement(Verdict.INSIDE, by=BY_COORDINATE, note="in the hull of the exact gradients")
        if self._fits(every, fine):
            unsure = Judgement(Verdict.UNSURE, by=BY_COORDINATE, note="no curve reaches what contains it")
            return unsure if coarse.verdict is Verdict.INSIDE else coarse
        if self._is_rounding(every):
            return Judgement(Verdict.ROUNDING, by=BY_COORDINATE, note="outside by no more than backward's own rounding")
        if coarse.verdict is Verdict.OUTSIDE:
            return coarse
        distance = self._excess(every, fine, self.found.gradient) * fine
        return Judgement(Verdict.OUTSIDE, distance, BY_COORDINATE, "outside in a coordinate, whatever the others' sizes")

    def _is_rounding(self, vertices: np.ndarray) -> bool:
        """Whether backward in float64 is inside, or no further outside than it rounds, and the program's own no further off.

        Exact pieces hold numbers that the program computed before them in its own precision, as a normalisation of its input.
        """
        low = self.land.rounding(self.land.terms())
        near = np.abs(self.found.gradient - self.start.gradient) <= low
        return bool(near.all()) and self._excess(vertices, _FINE[torch.float64], self.start.gradient, low) <= 1.0

    def _fits(self, vertices: np.ndarray, relative: float) -> bool:
        return len(vertices) > 0 and self._excess(vertices, relative, self.found.gradient) <= 1.0

    def _excess(self, vertices: np.ndarray, relative: float, point: np.ndarray, rounding: np.ndarray | float = 0.0) -> float:
        """The distance of a point to the hull in units that are each coordinate's tolerance: more than 1 is outside.

        The weights are looked for in two metrics, and any weights will do: in units of the tolerances, and of the spans of the
        coordinates, in which no large number drowns a small one.
        """
        sizes = np.abs(np.concatenate([vertices, point[None]])).max(axis=0)
        tolerance = relative * np.where(sizes > 0, sizes, 1.0) + rounding
        apart = vertices - point
        spans = np.abs(apart).max(axis=0)
        found = [nearest(np.zeros(len(point)), apart / unit) for unit in (tolerance, np.where(spans > 0, spans, 1.0))]
        return min(float((np.abs(weights @ apart) / tolerance).max(initial=0.0)) for weights in found)

    def _judgement(self, exact: bool, most: int) -> Judgement:
        if not self.found.finite:
            return Judgement(Verdict.NOT_LIPSCHITZ, note="the gradient or the value is not finite")
        if self.land.total == 0:
            return Judgement(Verdict.INSIDE, note="no parameters")
        return (
            self._both_ways()
            or self._random(_FIRST)
            or self._in_hull()
            or (exact and self._exact(150, _SHORT))
            or self._random(40 if self.complete else most)
            or self._in_hull()
            or self._directed()
            or (self.pieces is not None and not self.complete and self._exact(4000, _LONG))
            or self._give_up()
        )

    def _both_ways(self) -> Judgement | None:
        """One generic line through the point: it crosses every hyperplane, so it shows jumps and wrong backwards."""
        v = next(self.offsets)
        return next(filter(None, [self._look(v), self._look(-v)]), None) or self._settled()

    def _random(self, most: int) -> Judgement | None:
        for v in islice(self.offsets, most):
            if judgement := self._look(v) or self._settled():
                return judgement
        return None

    def _look(self, offset: np.ndarray) -> Judgement | None:
        """Add the gradient at an offset if it is a derivative of the piece that the ray runs in."""
        sample = self.land.at(offset)
        if not sample.finite:
            return None
        if self.land.along_the_ray(self.start, sample):
            self.fresh.append(sample)
            self.nearby += [sample] * sample.short
            return None
        if not sample.short:
            return None
        if self.land.steepens(offset / NEAR, self.start):
            return Judgement(Verdict.NOT_LIPSCHITZ, note="difference quotients at the point grow without bound")
        along = self.random.standard_normal(self.land.total)
        if self.land.contradicts(sample, along):
            return Judgement(Verdict.NOT_AD, note="backward contradicts differences of values at a generic point")
        return None

    def _settled(self) -> Judgement | None:
        """Whether the last samples include backward's gradient."""
        fresh, self.fresh = self.fresh, []
        for sample in fresh:
            gap = np.abs(sample.gradient - self.found.gradient).max(initial=0.0)
            if gap <= self.land.equal * scale(self.found, sample) and self._is_derivative(sample):
                return Judgement(Verdict.INSIDE, note="a gradient nearby")
        return None

    def _is_derivative(self, sample: Sample) -> bool:
        if sample in self.nearby[:2]:
            return True  # isotropic
        along = self.random.standard_normal(self.land.total)
        return not self.land.differs(sample, along, 1e-3 * NEAR) or not self.land.differs(sample, -along, 1e-4 * NEAR)

    def _size(self) -> float:
        return scale(self.found, *self.nearby)

    def _vertices(self, possible: bool) -> np.ndarray:
        """Distinct gradients: sampled, and of pieces (proved ones, or all)."""
        rows = [s.gradient for s in self.nearby]
        if self.pieces is not None:
            rows += [*self.pieces.proved, *(self.pieces.possible if possible else ())]
        if not rows:
            return np.zeros((0, self.land.total))
        stacked = np.stack(rows)
        sizes = np.abs(stacked).max(axis=0)
        return stacked[np.unique(np.round(stacked / np.where(sizes > 0, sizes, 1.0), 9), axis=0, return_index=True)[1]]

    def _gap(self, possible: bool = False) -> tuple[float, np.ndarray]:
        """Relative distance to the hull, and the vector from there to backward's gradient."""
        vertices = self._vertices(possible)
        if not len(vertices):
            return float("inf"), self.found.gradient
        out = self.found.gradient - nearest(self.found.gradient, vertices) @ vertices
        return float(np.linalg.norm(out)) / self._size(), out

    def _in_hull(self) -> Judgement | None:
        if self._gap()[0] > self.land.equal:
            return None
        by = "sampled" if self.pieces is None else "exact"
        return Judgement(Verdict.INSIDE, by=by, note="in the hull of gradients nearby")

    def _exact(self, branches: int, work: float) -> Judgement | None:
        self.pieces = pieces_of(self.land.parameters, self.land.value, branches=branches, work=work)
        if self.pieces is None:
            return None
        if inside := self._in_hull():
            return inside
        distance = self._gap(possible=True)[0]
        if self.complete and distance > self.land.equal:  # nothing is left to be found, so that it need not be CLEAR
            return self._outside(distance, "exact", f"{len(self.pieces.proved)} exact gradients")
        return self._along_curves() or self._in_hull()

    def _along_curves(self) -> Judgement | None:
        """Promote the pieces that curves reach."""
        for offset in self.pieces.curves(self.random, 1e3 * NEAR):
            if judgement := self._look(offset):
                return judgement
            for sample in self.fresh:
                self.pieces.promote(sample.gradient, 0.02 * self._size())
            self.fresh = []
        return None

    def _outside(self, distance: float, by: str, note: str) -> Judgement:
        if self.pieces is not None and self.pieces.rounded:
            return Judgement(Verdict.ROUNDING, distance, by, "computed touches, ties or sides are not the exact ones")
        low = self.land.low and np.abs(self.start.gradient - self.found.gradient).max(initial=0.0)
        if self.pieces is None and low > self.land.equal * self._size():
            return Judgement(Verdict.ROUNDING, distance, by, "float64 takes other sides at the same weights")
        return Judgement(Verdict.OUTSIDE, distance, by, note)

    def _directed(self) -> Judgement | None:
        """Look beyond the face of the hull that separates backward's gradient from it."""
        for _ in range(_ROUNDS):
            out = self._gap()[1]
            out = out / (np.linalg.norm(out) + 1e-300)
            best = sorted(self.nearby, key=lambda s: -float(s.gradient @ out))[:3]
            starts = [out, -out, *(s.offset / np.linalg.norm(s.offset) for s in best)]
            for _ in range(4):
                for v in starts:
                    noise = self.random.standard_normal(len(out)) * 10.0 ** self.random.uniform(-4, 0.5)
                    if judgement := self._look(NEAR * (v + noise)) or self._settled():
                        return judgement
            if inside := self._in_hull():
                return inside
        return None

    def _give_up(self) -> Judgement:
        distance = self._gap()[0]
        if distance <= CLEAR or not self.nearby or (self.pieces is not None and not self.complete):
            return Judgement(Verdict.UNSURE, note="neither found nearby nor clearly apart")
        what = (
            f"{len(self.nearby)} gradients nearby" if self.pieces is None else "no curve reaches what might contain it"
        )
        return self._outside(distance, "sampled", what)


def _loaded(target: str) -> tuple[Sequence[Tensor], Callable[[], Tensor]]:
    path, _, name = target.partition(":")
    names = runpy.run_path(path)
    if not name:
        return names["parameters"], names["value"]
    pair = names[name]
    parameters, value = pair() if callable(pair) else pair
    return parameters, value


def main(arguments: Sequence[str]) -> int:
    """Judge the scalar of a file and print the judgement.

    Args:
        arguments: one, ``FILE.py`` or ``FILE.py:NAME``.

    Returns:
        The exit status: 0, or 2 for a bad input.
    """
    if len(arguments) != 1:
        print("usage: python -m tests.soundness.oracle FILE.py[:NAME]", file=sys.stderr)
        return 2
    try:
        parameters, value = _loaded(arguments[0])
        judgement = judge(list(parameters), value)
    except Exception as error:
        print(f"cannot judge {arguments[0]}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(f"{judgement.verdict} (distance {judgement.distance:.3g}, {judgement.by}): {judgement.note}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
