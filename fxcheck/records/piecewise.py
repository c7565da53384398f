"""Exact piecewise polynomials of one real variable, with the slope that AD's chain rule gives at each break.

An elementwise chain such as ``x * relu6(x + 3) / 6`` is one scalar function of x. This file computes it in
rational arithmetic: its pieces, its value at each break, and the derivative that reverse-mode AD returns there,
which is the chain rule applied to the measured proxies of the operators inside.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf

Polynomial = tuple[Fraction, ...]
"""Coefficients, lowest degree first, no trailing zeros; ``()`` is 0."""


def polynomial(*coefficients: float | Fraction) -> Polynomial:
    """The polynomial with these coefficients, lowest degree first."""
    values = [Fraction(c) for c in coefficients]
    while values and values[-1] == 0:
        values.pop()
    return tuple(values)


def evaluate(p: Polynomial, x: Fraction) -> Fraction:
    total = Fraction(0)
    for c in reversed(p):
        total = total * x + c
    return total


def derivative(p: Polynomial) -> Polynomial:
    return polynomial(*(i * c for i, c in enumerate(p)))[1:] if len(p) > 1 else ()


def add(p: Polynomial, q: Polynomial) -> Polynomial:
    size = max(len(p), len(q))
    return polynomial(*((p[i] if i < len(p) else 0) + (q[i] if i < len(q) else 0) for i in range(size)))


def multiply(p: Polynomial, q: Polynomial) -> Polynomial:
    if not p or not q:
        return ()
    out = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            out[i + j] += a * b
    return polynomial(*out)


def compose(outer: Polynomial, inner: Polynomial) -> Polynomial:
    total: Polynomial = ()
    for c in reversed(outer):
        total = add(multiply(total, inner), polynomial(c))
    return total


@dataclass(frozen=True)
class Piecewise:
    """A function of x: ``pieces[i]`` on the open interval before ``breaks[i]`` (the last one after all)."""

    breaks: tuple[Fraction, ...]
    pieces: tuple[Polynomial, ...]
    values: tuple[Fraction, ...]
    """The function's value at each break."""
    slopes: tuple[Fraction, ...]
    """AD's derivative at each break."""

    @property
    def degree(self) -> int:
        return max((len(p) - 1 for p in self.pieces), default=0)

    @property
    def levels(self) -> set[Fraction]:
        """The values of a function that is constant on each interval."""
        return {*self.values, *(evaluate(p, Fraction(0)) for p in self.pieces)}

    def flat_at(self, is_level: Callable[[Fraction], bool]) -> Iterator[tuple[float, float]]:
        """The open intervals on which it is constant, at a level of some kind."""
        ends = (-inf, *map(float, self.breaks), inf)
        for piece, low, high in zip(self.pieces, ends, ends[1:], strict=False):
            if len(piece) <= 1 and is_level(evaluate(piece, Fraction(0))):
                yield low, high

    @property
    def is_truth(self) -> bool:
        """0 or 1 everywhere, as what a comparison gives."""
        return self.degree == 0 and self.levels <= {0, 1}

    def piece_at(self, x: Fraction) -> Polynomial:
        """The piece of the interval that holds x (the one to the left when x is a break)."""
        return self.pieces[bisect_left(self.breaks, x)]

    def value(self, x: Fraction) -> Fraction:
        i = bisect_left(self.breaks, x)
        if i < len(self.breaks) and self.breaks[i] == x:
            return self.values[i]
        return evaluate(self.pieces[i], x)

    def slope(self, x: Fraction) -> Fraction:
        """AD's derivative at x."""
        i = bisect_left(self.breaks, x)
        if i < len(self.breaks) and self.breaks[i] == x:
            return self.slopes[i]
        return evaluate(derivative(self.pieces[i]), x)

    def left_slope(self, i: int) -> Fraction:
        return evaluate(derivative(self.pieces[i]), self.breaks[i])

    def right_slope(self, i: int) -> Fraction:
        return evaluate(derivative(self.pieces[i + 1]), self.breaks[i])

    def is_continuous_at(self, i: int) -> bool:
        x, value = self.breaks[i], self.values[i]
        return evaluate(self.pieces[i], x) == value == evaluate(self.pieces[i + 1], x)

    @property
    def is_continuous(self) -> bool:
        return all(self.is_continuous_at(i) for i in range(len(self.breaks)))

    @property
    def is_nondecreasing(self) -> bool:
        """Continuous, with no decreasing linear piece (False when a piece is not linear)."""
        return self.is_continuous and self.degree <= 1 and all(len(p) < 2 or p[1] >= 0 for p in self.pieces)


IDENTITY = Piecewise((), (polynomial(0, 1),), (), ())


def constant(value: float | Fraction) -> Piecewise:
    return Piecewise((), (polynomial(value),), (), ())


def _inside(breaks: Sequence[Fraction], i: int) -> Fraction:
    """A point inside the i-th open interval."""
    if not breaks:
        return Fraction(0)
    if i == 0:
        return breaks[0] - 1
    if i == len(breaks):
        return breaks[-1] + 1
    return (breaks[i - 1] + breaks[i]) / 2


def combine(
    parts: Sequence[Piecewise],
    piece: Callable[[tuple[Polynomial, ...], tuple[Fraction, ...]], Polynomial],
    slope: Callable[[tuple[Fraction, ...], tuple[Fraction, ...]], Fraction],
) -> Piecewise:
    """Combine functions of the same x entry by entry.

    Args:
        parts: the operands.
        piece: from the operands' polynomials on an interval (and their values at a point inside it) to the
            result's polynomial there.
        slope: from the operands' values and AD slopes at a point to AD's slope of the result.

    Returns:
        The combination, with the operands' breaks. Its value at a break is ``piece`` of the operands' values.
    """
    breaks = tuple(sorted({b for p in parts for b in p.breaks}))
    pieces = []
    for i in range(len(breaks) + 1):
        x = _inside(breaks, i)
        pieces.append(piece(tuple(p.piece_at(x) for p in parts), tuple(p.value(x) for p in parts)))
    values, slopes = [], []
    for x in breaks:
        at = tuple(p.value(x) for p in parts)
        values.append(evaluate(piece(tuple(polynomial(v) for v in at), at), x))
        slopes.append(slope(at, tuple(p.slope(x) for p in parts)))
    return Piecewise(breaks, tuple(pieces), tuple(values), tuple(slopes))


def apply(outer: Piecewise, inner: Piecewise) -> Piecewise | None:
    """``outer(inner(x))`` with AD's chain rule at the breaks.

    Returns:
        None when ``outer`` has breaks and a piece of ``inner`` is not linear (its crossings are then not
        computed exactly).
    """
    if outer.breaks and inner.degree > 1:
        return None
    breaks = set(inner.breaks)
    for i, p in enumerate(inner.pieces):
        if len(p) == 2:
            low = inner.breaks[i - 1] if i > 0 else None
            high = inner.breaks[i] if i < len(inner.breaks) else None
            crossings = ((b - p[0]) / p[1] for b in outer.breaks)
            breaks |= {x for x in crossings if (low is None or low < x) and (high is None or x < high)}
    ordered = tuple(sorted(breaks))
    pieces = []
    for i in range(len(ordered) + 1):
        x = _inside(ordered, i)
        p, u = inner.piece_at(x), inner.value(x)
        j = bisect_left(outer.breaks, u)
        on_break = j < len(outer.breaks) and outer.breaks[j] == u
        # A piece can rest on an outer break only where inner is constant; then so is the result.
        pieces.append(polynomial(outer.values[j]) if on_break else compose(outer.pieces[j], p))
    values = tuple(outer.value(inner.value(x)) for x in ordered)
    slopes = tuple(outer.slope(inner.value(x)) * inner.slope(x) for x in ordered)
    return Piecewise(ordered, tuple(pieces), values, slopes)
