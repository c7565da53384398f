"""A position equals its neighbour exactly when they depend on the inputs in the same way."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxcheck.scan import Windows, WindowSpec, adaptive, shifts, sliding
from tests.scan.test_classes import Nested, _nested_input, _nested_through

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def stacks(draw: Any) -> tuple[Tensor, list[Windows]]:
    """A small integer image and one to three convolutions or sliding pools, some of which reach beyond its end."""
    dims = draw(st.integers(1, 3))
    size = tuple(draw(st.integers(3, (9, 6, 4)[dims - 1])) for _ in range(dims))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 2)), *size)
    x = (torch.rand(shape, generator=generator) < 0.8).to(draw(st.sampled_from((torch.float32, torch.uint8, torch.int64))))
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        kernel = tuple(draw(st.integers(1, min(3, side))) for side in size)
        stride, padding = tuple(draw(st.integers(1, 2)) for _ in size), tuple(draw(st.integers(0, 2)) for _ in size)
        dilation = tuple(draw(st.integers(1, 2)) for _ in size)
        numbers = list(zip(size, kernel, stride, padding, dilation, strict=True))
        extra = draw(st.integers(0, 1))  # as ceil_mode: windows partly beyond the end
        sides = tuple((s + 2 * p - d * (k - 1) - 1) // t + 1 + extra for s, k, t, p, d in numbers)
        if min(sides) < 1:
            kernel, stride, dilation = (1,) * dims, (1,) * dims, (1,) * dims
            sides = tuple(s + 2 * p for s, p in zip(size, padding, strict=True))
        layers.append(sliding(WindowSpec(kernel, stride, padding, dilation), size, sides))
        size = layers[-1].size_out
    return x, layers


def _map(x: Tensor, layers: list[Windows], steps: shifts.Shifts) -> Tensor:
    if not layers:
        return shifts.of_input(x, steps)
    inner = shifts.of_operand(layers[-1], steps)
    assert inner is not None
    return shifts.through_windows(_map(x, layers[:-1], inner), layers[-1], steps)


def _nested(x: Tensor, layers: list[Windows]) -> Nested:
    nested = _nested_input(x)
    for windows in layers:
        nested = _nested_through(nested, windows, x.shape[0])
    return nested


def _upward(data: st.DataObject, dims: int) -> tuple[int, ...]:
    return data.draw(st.sampled_from([s for s in itertools.product(range(-2, 3), repeat=dims) if s > (0,) * dims]))


@FUZZ
@given(stacks(), st.data())
def test_equal_neighbours_have_equal_receptive_fields(
    path: ModuleType, stack: tuple[Tensor, list[Windows]], data: st.DataObject
) -> None:
    x, layers = stack
    nested, steps = _nested(x, layers), tuple(_upward(data, x.dim() - 2) for _ in range(2))
    for shift, found in zip(steps, _map(x, layers, steps), strict=True):
        for place, reads in nested.items():
            other = (place[0], *(a + b for a, b in zip(place[1:], shift, strict=True)))
            assert bool(found[place]) == (other in nested and nested[other] == reads), (place, shift)


def _connected(reads: tuple[Any, ...], windows: Windows) -> list[int]:
    """For each tap of a window the first one that steps between equal real cells lead to."""
    taps = list(itertools.product(*(range(table.shape[1]) for table in windows.tables)))
    found = list(range(len(taps)))
    for _ in taps:
        for (i, one), (j, other) in itertools.combinations(enumerate(taps), 2):
            is_step = sum(abs(a - b) for a, b in zip(one, other, strict=True)) == 1
            if is_step and reads[i] == reads[j] != "padding":
                found[i] = found[j] = min(found[i], found[j])
    return found


@FUZZ
@given(stacks())
def test_taps_are_labelled_by_the_first_they_are_connected_with(path: ModuleType, stack: tuple[Tensor, list[Windows]]) -> None:
    x, layers = stack
    pool, reads = layers[-1], _nested(x, layers).values()
    assume(shifts.are_small(pool) and pool.spec is not None)
    labels, mixed = shifts.labels(_map(x, layers[:-1], shifts.adjacent(pool.spec)), pool)
    assert labels.dtype == torch.uint8
    assert labels.flatten(0, -2).tolist() == [_connected(cells, pool) for cells in reads]
    real = [[label for label, cell in zip(_connected(c, pool), c, strict=True) if cell != "padding"] for c in reads]
    assert mixed.flatten().tolist() == [len(set(found)) > 1 for found in real]


def test_windows_of_three_by_three_cells_are_small_and_irregular_ones_are_not() -> None:
    sides = {(3, 3): True, (2, 2, 2): True, (12,): True, (4, 3): False, (3, 3, 2): False}
    for kernel, answer in sides.items():
        spec = WindowSpec(kernel, (1,) * len(kernel), (0,) * len(kernel), (1,) * len(kernel))
        assert shifts.are_small(sliding(spec, kernel, (1,) * len(kernel))) == answer, kernel
    assert not shifts.are_small(adaptive((5,), (3,)))


@FUZZ
@given(stacks(), st.data())
def test_padding_with_zeros_is_a_larger_image(path: ModuleType, stack: tuple[Tensor, list[Windows]], data: st.DataObject) -> None:
    x, _ = stack
    margins = tuple(data.draw(st.integers(0, 2)) for _ in x.shape[2:])
    wide = F.pad(x, [m for p in reversed(margins) for m in (p, p)])
    steps = (_upward(data, x.dim() - 2),)
    assert torch.equal(shifts.of_input(x, steps, margins), shifts.of_input(wide, steps))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.uint8, torch.bool])
def test_all_channels_count_and_signs_of_zero(path: ModuleType, dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = torch.zeros(1, 3, 2, 3).to(dtype)
    x[0, 1, 0, 1] = 1
    x = x.to(memory_format=layout)
    assert shifts.of_input(x, ((0, 1),)).tolist() == [[[[False, False, False], [True, True, False]]]]
    if dtype.is_floating_point:
        signed = torch.tensor([[[0.0, -0.0, 0.0, 0.0]]], dtype=dtype)
        assert shifts.of_input(signed, ((1,),)).tolist() == [[[False, False, True, False]]]
