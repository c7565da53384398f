"""Elementwise operators as exact piecewise polynomials: data for chain recognition (theory 4.3).

Only pieces, breaks and values are written down; AD's slope at each break is measured, never tabulated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from fxcheck.records.piecewise import Piecewise, Polynomial, evaluate, polynomial

Shape = tuple[tuple[Fraction, ...], tuple[Polynomial, ...], tuple[Fraction, ...]]
"""Breaks, pieces, values at the breaks."""

_X = polynomial(0, 1)
_SIXTH = Fraction(1, 6)


def _continuous(breaks: list[float | Fraction], pieces: list[Polynomial]) -> Shape:
    points = tuple(Fraction(b) for b in breaks)
    return points, tuple(pieces), tuple(evaluate(pieces[i], b) for i, b in enumerate(points))


def _clip(low: float | None, high: float | None) -> Shape:
    low = None if low == -math.inf else low
    high = None if high == math.inf else high
    if low is not None and high is not None and low >= high:  # constant, but AD may return a slope at a bound
        bounds = sorted({low, high})
        return _continuous(list(bounds), [polynomial(high)] * (len(bounds) + 1))
    breaks = [b for b in (low, high) if b is not None]
    pieces = [polynomial(low)] if low is not None else []
    pieces.append(_X)
    if high is not None:
        pieces.append(polynomial(high))
    return _continuous(list(breaks), pieces)


def _threshold(a: Mapping[str, Any]) -> Shape:
    t, v = Fraction(a["threshold"]), Fraction(a["value"])
    return (t,), (polynomial(v), _X), (v,)


def _softshrink(a: Mapping[str, Any]) -> Shape:
    h = Fraction(a["lambd"])
    return _continuous([-h, h], [polynomial(h, 1), (), polynomial(-h, 1)]) if h else _continuous([0], [_X, _X])


def _hardshrink(a: Mapping[str, Any]) -> Shape:
    h = Fraction(a["lambd"])
    if h == 0:
        return _continuous([0], [_X, _X])
    return (-h, h), (_X, (), _X), (Fraction(0), Fraction(0))


def _leaky(slope: float) -> Shape:
    return _continuous([0], [polynomial(0, slope), _X])


KINKED: dict[str, Callable[[Mapping[str, Any]], Shape]] = {
    "aten.relu.default": lambda a: _clip(0, None),
    "aten.relu6.default": lambda a: _clip(0, 6),
    "aten.hardtanh.default": lambda a: _clip(a["min_val"], a["max_val"]),
    "aten.clamp.default": lambda a: _clip(a.get("min"), a.get("max")),
    "aten.clip.default": lambda a: _clip(a.get("min"), a.get("max")),
    "aten.clamp_min.default": lambda a: _clip(a["min"], None),
    "aten.clamp_max.default": lambda a: _clip(None, a["max"]),
    "aten.clamp_min.Tensor": lambda a: _clip(a["min"], None),
    "aten.clamp_max.Tensor": lambda a: _clip(None, a["max"]),
    "aten.clamp.Tensor": lambda a: _clip(a.get("min"), a.get("max")),
    "aten.maximum.default": lambda a: _clip(a["other"], None),
    "aten.fmax.default": lambda a: _clip(a["other"], None),
    "aten.max.other": lambda a: _clip(a["other"], None),
    "aten.minimum.default": lambda a: _clip(None, a["other"]),
    "aten.fmin.default": lambda a: _clip(None, a["other"]),
    "aten.min.other": lambda a: _clip(None, a["other"]),
    "aten.abs.default": lambda a: _continuous([0], [polynomial(0, -1), _X]),
    "aten.leaky_relu.default": lambda a: _leaky(a["negative_slope"]),
    "aten.hardsigmoid.default": lambda a: _continuous([-3, 3], [(), polynomial(Fraction(1, 2), _SIXTH), polynomial(1)]),
    "aten.hardswish.default": lambda a: _continuous([-3, 3], [(), polynomial(0, Fraction(1, 2), _SIXTH), _X]),
    "aten.threshold.default": _threshold,
    "aten.softshrink.default": _softshrink,
    "aten.hardshrink.default": _hardshrink,
}
"""Kinked operators of one operand, by overload; from the constant arguments to their shape."""

OPERAND: dict[str, tuple[str, ...]] = {
    name: ("self", "other") for name in KINKED if name.split(".")[1] in ("maximum", "minimum", "fmax", "fmin", "max", "min")
}  # fmt: skip
"""Arguments either of which may hold the operand while the other is constant; ``self`` alone otherwise."""


def _step(left: int, at: int, right: int) -> Piecewise:
    return Piecewise((Fraction(0),), (polynomial(left), polynomial(right)), (Fraction(at),), (Fraction(0),))


COMPARE: dict[str, Piecewise] = {
    "gt": _step(0, 0, 1), "ge": _step(0, 1, 1), "lt": _step(1, 0, 0), "le": _step(1, 1, 0),
    "eq": _step(0, 1, 0), "ne": _step(1, 0, 1), "greater": _step(0, 0, 1), "greater_equal": _step(0, 1, 1),
    "less": _step(1, 0, 0), "less_equal": _step(1, 1, 0), "not_equal": _step(1, 0, 1),
}  # fmt: skip
"""Comparisons as steps of ``self - other``."""

SIGN = {"aten.sign.default": _step(-1, 0, 1), "aten.sgn.default": _step(-1, 0, 1)}
