"""Cells of hyperplanes through the origin: none is missed, none is invented."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fxcheck.lp.cells import cells
from fxcheck.lp.exact import rounded_difference

vectors = st.integers(2, 4).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(-3, 3), min_size=size, max_size=size).filter(any), min_size=1, max_size=5
    )
)  # fmt: skip


def sides(normals: np.ndarray, direction: np.ndarray) -> tuple[bool, ...]:
    return tuple((normals @ direction > 0).tolist())


@given(vectors, st.integers(0, 2**32 - 1))
def test_every_cell_has_one_direction(rows: list[list[int]], seed: int) -> None:
    normals = np.array(rows, dtype=np.float64)
    found = cells(normals, 1000)
    assert found is not None
    assert all((normals @ x != 0).all() for x in found)
    patterns = [sides(normals, x) for x in found]
    assert len(set(patterns)) == len(patterns)
    drawn = np.random.default_rng(seed).standard_normal((200, normals.shape[1]))
    assert {sides(normals, x) for x in drawn} <= set(patterns)


def test_lines_of_a_plane_make_twice_as_many_cells() -> None:
    assert len(cells(np.array([[1.0, 0], [0, 1], [1, 1], [-2, -2], [3, 1]]), 100) or []) == 8


def test_a_plane_and_almost_the_same_one_are_two() -> None:
    assert len(cells(np.array([[1.0, 1.0], [1.0, 1.0 + 2.0**-20]]), 100) or []) == 4
    assert cells(np.array([[1.0, 1.0], [1.0, 1.0 + 2.0**-52]]), 100) is None  # the region between them is too small to be shown


def test_too_many_are_not_followed() -> None:
    assert cells(np.eye(5), 31) is None and len(cells(np.eye(5), 32) or []) == 32


floats = st.floats(-1e30, 1e30, allow_subnormal=False)


@given(floats, floats)
def test_rounding_of_a_difference_is_seen(left: float, right: float) -> None:
    rounds = Fraction(left) - Fraction(right) != Fraction(left - right)
    assert rounded_difference(np.array([left]), np.array([right])) == rounds
