"""Exact piecewise polynomials: composition agrees with evaluation, and AD's slopes follow the chain rule."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from fxcheck.records.piecewise import IDENTITY, Piecewise, apply, combine, constant, multiply, polynomial

numbers = st.fractions(min_value=-5, max_value=5, max_denominator=8)


def clip(low: Fraction, high: Fraction, at_low: Fraction, at_high: Fraction) -> Piecewise:
    pieces = (polynomial(low), polynomial(0, 1), polynomial(high))
    return Piecewise((low, high), pieces, (low, high), (at_low, at_high))


@st.composite
def clips(draw: st.DrawFn) -> Piecewise:
    low = draw(numbers)
    high = low + 1 + abs(draw(numbers))
    return clip(low, high, draw(numbers), draw(numbers))


@st.composite
def lines(draw: st.DrawFn) -> Piecewise:
    return Piecewise((), (polynomial(draw(numbers), draw(numbers)),), (), ())


@given(clips(), lines(), clips(), numbers)
def test_composition_has_the_values_of_the_parts(inner: Piecewise, line: Piecewise, outer: Piecewise, x: Fraction) -> None:
    middle = apply(line, inner)
    assert middle is not None
    whole = apply(outer, middle)
    assert whole is not None
    assert whole.value(x) == outer.value(line.value(inner.value(x)))
    assert whole.is_continuous


@given(clips(), lines(), clips())
def test_slopes_at_breaks_follow_the_chain_rule(inner: Piecewise, line: Piecewise, outer: Piecewise) -> None:
    middle = apply(line, inner)
    whole = apply(outer, middle) if middle is not None else None
    assert whole is not None and middle is not None
    for x, slope in zip(whole.breaks, whole.slopes, strict=True):
        assert slope == outer.slope(middle.value(x)) * middle.slope(x)


@given(clips(), clips(), numbers)
def test_a_product_has_the_value_and_the_slope_of_the_product_rule(a: Piecewise, b: Piecewise, x: Fraction) -> None:
    product = combine([a, b], lambda p, _: multiply(p[0], p[1]), lambda v, s: s[0] * v[1] + v[0] * s[1])
    assert product.value(x) == a.value(x) * b.value(x)
    for k in product.breaks:
        assert product.slope(k) == a.slope(k) * b.value(k) + a.value(k) * b.slope(k)


def test_relu_of_x_minus_relu_of_minus_x_is_x_with_slope_0_at_0() -> None:
    relu = Piecewise((Fraction(0),), ((), polynomial(0, 1)), (Fraction(0),), (Fraction(0),))
    minus = Piecewise((), (polynomial(0, -1),), (), ())
    mirrored = apply(relu, minus)
    assert mirrored is not None
    whole = combine([relu, mirrored], lambda p, _: polynomial(*_minus(p)), lambda v, s: s[0] - s[1])
    assert whole.left_slope(0) == whole.right_slope(0) == 1 and whole.slopes == (0,)


def _minus(p: tuple[tuple[Fraction, ...], ...]) -> list[Fraction]:
    size = max(len(p[0]), len(p[1]))
    padded = [list(q) + [Fraction(0)] * (size - len(q)) for q in p]
    return [a - b for a, b in zip(*padded, strict=True)]


def test_a_kink_of_something_curved_is_not_located() -> None:
    square = combine([IDENTITY, IDENTITY], lambda p, _: multiply(p[0], p[1]), lambda v, s: s[0] * v[1] + v[0] * s[1])
    relu = Piecewise((Fraction(1),), ((), polynomial(0, 1)), (Fraction(0),), (Fraction(0),))
    assert apply(relu, square) is None
    assert apply(square, constant(3)) is not None
