"""Witnesses are accepted only when they are right, whatever the size of the numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxcheck.lp import exact
from fxcheck.lp.verify import are_multipliers, is_direction, mixes_to_zero, surely_positive

_FLOAT = st.floats(allow_nan=False, allow_infinity=False, width=64)
_NO_ERROR = np.zeros(1)


def _fractions(values: np.ndarray) -> list[Fraction]:
    return [Fraction(v) for v in values.tolist()]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_FLOAT, _FLOAT), min_size=1, max_size=5), st.sampled_from([0.0, 1e-17, 0.3, 2.0]))
def test_the_sign_of_any_dot_product_of_floats_is_found(pairs: list[tuple[float, float]], error: float) -> None:
    row, x = (np.array(v) for v in zip(*pairs, strict=True))
    a, v = _fractions(row), _fractions(x)
    dot = sum(p * q for p, q in zip(a, v, strict=True))
    right = Fraction(error) ** 2 * sum(p * p for p in a) * sum(q * q for q in v)
    wanted = dot > 0 and dot * dot > right
    bound = np.array([error])
    assert is_direction(row[None], bound, x) == wanted
    assert not surely_positive(row[None], bound, x)[0] or wanted


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(_FLOAT, min_size=3, max_size=3), min_size=1, max_size=4))
def test_floats_are_integers_times_a_power_of_two(rows: list[list[float]]) -> None:
    stored = np.array(rows)
    whole, exponents = exact.integers(stored)
    for row, numbers, exponent in zip(stored, whole, exponents, strict=True):
        assert _fractions(row) == [n * Fraction(2) ** exponent for n in numbers]


def test_a_wrong_direction_is_rejected() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert is_direction(rows, np.zeros(2), np.array([1.0, 1.0]))
    for wrong in ([1.0, 0.0], [1.0, -1e-300], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [1.0, 1.0, 1.0]):
        assert not is_direction(rows, np.zeros(2), np.array(wrong))


def test_cancellation_below_rounding_is_seen() -> None:
    row = np.array([[2.0**60, 1.0, -(2.0**60)]])
    assert is_direction(row, _NO_ERROR, np.array([1.0, 1.0, 1.0]))
    assert not is_direction(row, _NO_ERROR, np.array([1.0, 0.0, 1.0]))


@pytest.mark.parametrize("scale", [1e-150, 1e150, 5e-324, 1e308])
def test_the_scale_of_rows_and_direction_does_not_matter(scale: float) -> None:
    rows, x = np.array([[1.0, -1.0], [1.0, 0.0]]) * scale, np.array([1.0, 0.0]) * scale
    assert is_direction(rows, np.zeros(2), x)
    assert not is_direction(rows, np.zeros(2), -x)


def test_wrong_multipliers_are_rejected() -> None:
    rows = np.array([[1.0, 2.0], [-3.0, -6.0]])
    assert are_multipliers(rows, (Fraction(3), Fraction(1)))
    for wrong in [(0, 0), (-3, -1), (3, 2), (3,), (3, 1, 0), (Fraction(3) + Fraction(1, 10**40), 1)]:
        assert not are_multipliers(rows, tuple(Fraction(y) for y in wrong))
    assert not are_multipliers(np.array([[np.nan], [1.0]]), (Fraction(1), Fraction(1)))


def test_rows_that_cancel_in_floating_point_only_are_not_cancelled() -> None:
    rows = np.array([[0.1], [0.2], [-0.3]])
    assert rows.sum() != 0 and not are_multipliers(rows, (Fraction(1),) * 3)
    assert not are_multipliers(np.array([[1.0], [1e-30], [-1.0]]), (Fraction(1),) * 3)


@pytest.mark.parametrize("scales", [(2.0**-600, 2.0**-600), (1e-200, 1e-200), (1e200, 1e200), (1.0, 5e-324)])
def test_a_part_alone_does_not_vanish_because_its_products_do_or_overflow(scales: tuple[float, float]) -> None:
    coefficient, row = scales
    one, rows = np.array([1.0]), np.array([[row, 2 * row]])
    assert not mixes_to_zero(one, np.array([[coefficient]]), rows, np.zeros(1))
    with np.errstate(all="raise"):
        mixes_to_zero(one, np.array([[coefficient]]), rows, np.zeros(1))
