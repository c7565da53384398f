"""Two positions read alike exactly when they depend on the input in the same way."""

from __future__ import annotations

import itertools
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxcheck.scan import Windows, WindowSpec, adaptive, choice, fields, sliding
from tests.scan.test_classes import Nested, _nested_input
from tests.scan.test_shifts import _nested, stacks

pytestmark = pytest.mark.skipif(not choice.available(), reason="numba is not installed")
FUZZ = settings(max_examples=150, deadline=None)


def _field(size: tuple[int, ...], layers: list[Windows], zeros: bool = False) -> fields.Field:
    field = fields.of_input(size)
    for number, windows in enumerate(layers):
        field = fields.through(field, windows, zeros and not number)
    return field


def _alike(x: Tensor, field: fields.Field) -> Any:
    """For every sample and pair of positions whether they read alike: bool (N, T, T)."""
    positions = prod(field.size)
    pairs = np.array([*itertools.product(range(len(x)), range(positions), range(positions))])
    parts = np.array_split(pairs, 16)  # too many at once are not compared
    found = np.concatenate([fields.equal(x, field, *np.ascontiguousarray(part.T)) for part in parts])
    return found.reshape(len(x), positions, positions)


def _depend_alike(nested: Nested, samples: int) -> Any:
    reads = [*nested.values()]
    size = len(reads) // samples
    return np.array([[[a == b for b in reads[i : i + size]] for a in reads[i : i + size]] for i in range(0, len(reads), size)])


@FUZZ
@given(stacks(), st.booleans())
def test_positions_read_alike_when_they_depend_alike(stack: tuple[Tensor, list[Windows]], last: bool) -> None:
    x, layers = stack
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    found, wanted = _alike(x, _field(tuple(x.shape[2:]), layers)), _depend_alike(_nested(x, layers), len(x))
    assert not (found & ~wanted).any()
    if all((table >= 0).any(1).all() for windows in layers for table in windows.tables):  # no window is all padding
        assert np.array_equal(found, wanted)


@FUZZ
@given(st.integers(0, 999), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2))
def test_padding_by_zeros_is_a_pixel_of_zeros(seed: int, kernel: int, stride: int, padding: int) -> None:
    x = (torch.rand(2, 2, 5, 4, generator=torch.Generator().manual_seed(seed)) < 0.5).float()
    padded = F.pad(x, (padding,) * 4)
    sides = tuple((side - kernel) // stride + 1 for side in padded.shape[2:])
    specs = [WindowSpec((kernel,) * 2, (stride,) * 2, (p,) * 2, (1, 1)) for p in (padding, 0)]
    with_zeros, without = (sliding(spec, tuple(v.shape[2:]), sides) for spec, v in zip(specs, (x, padded), strict=True))
    found = _alike(x, _field((5, 4), [with_zeros], zeros=True))
    assert np.array_equal(found, _depend_alike(_nested(padded, [without]), 2))


@FUZZ
@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 5))
def test_uneven_windows_are_compared_cell_by_cell(seed: int, high: int, wide: int) -> None:
    x = (torch.rand(2, 1, 5, 6, generator=torch.Generator().manual_seed(seed)) < 0.8).double()
    layers = [sliding(WindowSpec((2, 2), (1, 1), (1, 1), (1, 1)), (5, 6), (6, 7)), adaptive((6, 7), (high, wide))]
    assert np.array_equal(_alike(x, _field((5, 6), layers)), _depend_alike(_nested(x, layers), 2))


def test_bits_count_and_all_channels_do() -> None:
    x = torch.tensor([[[0.0, -0.0, 0.0, float("nan"), float("nan")], [1.0, 1.0, 2.0, 1.0, 1.0]]])
    found = _alike(x, fields.of_input((5,)))
    assert found[0].tolist() == [[i == j or {i, j} == {3, 4} for j in range(5)] for i in range(5)]
    assert len(_nested_input(x)) == 5


def test_what_costs_too_much_is_left_to_others() -> None:
    x = torch.zeros(1, 1, 64, 64)
    field = _field((64, 64), [sliding(WindowSpec((64, 64), (1, 1), (0, 0), (1, 1)), (64, 64), (1, 1))])
    many = np.zeros(1 << 13, np.int64)
    assert fields.equal(x, field, many, many, many) is None
    assert fields.equal(x, field, many[:9], many[:9], many[:9]).all()
