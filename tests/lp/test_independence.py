"""Independence of columns is proved or left open, never guessed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxcheck.lp import exact, independence
from fxcheck.lp.independence import is_left_inverse, left_inverse

_RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (784, 128), (7, 0)])
def test_random_columns_are_independent(shape: tuple[int, int]) -> None:
    columns = _RNG.normal(size=shape)
    inverse = left_inverse(columns)
    assert inverse is not None and inverse.shape == (shape[1], shape[0])
    if shape[1]:
        assert np.abs(inverse @ columns - np.eye(shape[1])).max() < 1e-6


@pytest.mark.parametrize(
    "columns",
    [
        np.ones((4, 2)),
        np.zeros((3, 1)),
        np.ones((2, 3)),
        np.array([[0.1, 0.2, 0.1 + 0.2], [1.0, 2.0, 3.0]]).T @ np.array([[1.0, 2.0], [2.0, 4.0]]),
        np.array([[np.nan]]),
        np.ones(3),
    ],
)
def test_dependent_or_unusable_columns_have_no_left_inverse(columns: np.ndarray) -> None:
    assert left_inverse(columns) is None


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), st.data())
def test_dependent_integer_columns_are_never_called_independent(width: int, data: st.DataObject) -> None:
    entry = st.integers(-5, 5)
    basis = np.array(data.draw(st.lists(st.lists(entry, min_size=width, max_size=width), min_size=6, max_size=6)))
    mix = np.array(data.draw(st.lists(entry, min_size=width, max_size=width)))
    assert left_inverse(np.column_stack([basis, basis @ mix]).astype(float)) is None


def test_nearly_dependent_columns_are_told_apart() -> None:
    for tiny in (1e-3, 1e-8, 1e-12):
        assert left_inverse(np.array([[1.0, 1.0], [0.0, tiny], [0.0, 0.0]])) is not None


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_columns_of_very_different_sizes_are_independent(scale: float) -> None:
    columns = _RNG.normal(size=(6, 3)) * [1.0, scale, 1 / scale]
    inverse = left_inverse(columns)
    assert inverse is not None and exact.inverts(inverse, columns.T)


def test_a_wrong_left_inverse_is_rejected() -> None:
    columns = _RNG.normal(size=(8, 3))
    inverse = left_inverse(columns)
    assert inverse is not None and is_left_inverse(inverse, columns.T)
    for wrong in (inverse * 3, -inverse, inverse * 0, inverse * np.nan, inverse[:2], inverse * 1e308):
        assert not is_left_inverse(wrong, columns.T)


def test_bound_and_exact_arithmetic_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = _RNG.normal(size=(8, 3))
    inverse = left_inverse(columns)
    monkeypatch.setattr(independence, "_surely_inverts", lambda *_: False)
    assert inverse is not None and is_left_inverse(inverse, columns.T)
