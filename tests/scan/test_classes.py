"""Positions have equal classes exactly when they depend on the inputs in the same way."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxcheck.scan import (
    Windows,
    WindowSpec,
    adaptive,
    choice,
    class_steps,
    combined,
    mixed,
    of_input,
    salted,
    sliding,
    through_windows,
    words,
)
from tests.scan.oracles import Case, cells_of, pools

Nested = dict[tuple[int, ...], Any]  # by (sample, *position)


def _nested_input(x: Tensor) -> Nested:
    places = itertools.product(range(x.shape[0]), *(range(side) for side in x.shape[2:]))
    return {place: tuple(x[(place[0], slice(None), *place[1:])].tolist()) for place in places}


def _nested_through(nested: Nested, windows: Windows, samples: int) -> Nested:
    places = itertools.product(range(samples), *(range(side) for side in windows.size_out))
    return {
        place: tuple("padding" if cell is None else nested[(place[0], *cell)] for cell in cells_of(windows, place[1:]))
        for place in places
    }


def _same_partition(classes: Tensor, nested: Nested) -> bool:
    """Whether equal pairs of hashes and equal dependences are the same thing."""
    pairs = list(zip(*classes.flatten(1).tolist(), strict=True))
    both = list(zip(pairs, nested.values(), strict=True))
    return len(set(both)) == len(set(pairs)) == len(set(nested.values()))


@st.composite
def stacks(draw: Any) -> tuple[Tensor, list[Windows]]:
    """A small integer image and one to three convolutions or pools."""
    dims = draw(st.integers(1, 2))
    size = tuple(draw(st.integers(3, 9 if dims == 1 else 6)) for _ in range(dims))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 2)), *size)
    x = torch.randint(0, 2, shape, generator=generator).to(draw(st.sampled_from((torch.float32, torch.uint8, torch.int64))))
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            layers.append(adaptive(size, tuple(draw(st.integers(1, side)) for side in size)))
        else:
            kernel = tuple(draw(st.integers(1, min(3, side))) for side in size)
            stride, padding = tuple(draw(st.integers(1, 2)) for _ in size), tuple(draw(st.integers(0, 3)) for _ in size)
            spec = WindowSpec(kernel, stride, padding, (1,) * dims)
            numbers = zip(size, kernel, stride, padding, strict=True)
            layers.append(sliding(spec, size, tuple((s + 2 * p - k) // t + 1 for s, k, t, p in numbers)))
        size = layers[-1].size_out
    return x, layers


@settings(max_examples=150, deadline=None)
@given(stacks())
def test_equal_classes_are_equal_receptive_fields(stack: tuple[Tensor, list[Windows]]) -> None:
    x, layers = stack
    classes, nested = of_input(x), _nested_input(x)
    assert _same_partition(classes, nested)
    for salt, windows in enumerate(layers):
        classes, nested = through_windows(classes, windows, salt), _nested_through(nested, windows, x.shape[0])
        assert _same_partition(classes, nested)


@settings(max_examples=150, deadline=None)
@given(stacks())
def test_a_window_is_mixed_when_its_real_cells_differ_in_class(stack: tuple[Tensor, list[Windows]]) -> None:
    x, layers = stack
    nested = _nested_input(x)
    wanted = [
        len(set(cells) - {"padding"}) > 1 for cells in _nested_through(nested, layers[0], x.shape[0]).values()
    ]
    assert mixed(of_input(x), layers[0]).flatten().tolist() == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.uint8, torch.bool])
def test_inputs_of_every_width_are_told_apart_by_all_their_channels(dtype: torch.dtype) -> None:
    x = torch.tensor([[[0, 0, 1, 1, 0]], [[0, 1, 0, 1, 0]]]).movedim(0, 1).to(dtype)
    hashes = of_input(x)[0, 0].tolist()
    assert hashes[0] == hashes[4] and len(set(hashes[:4])) == 4


def test_channels_of_few_bits_are_not_interchangeable() -> None:
    every = torch.arange(256).to(torch.uint8)
    x = torch.stack(torch.meshgrid(every, every, indexing="ij"))[None]
    for one in of_input(x):
        assert one.unique().numel() == 256 * 256


@settings(max_examples=100, deadline=None)
@given(pools(), st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.int64, torch.bool]))
def test_both_paths_give_the_same_classes(case: Case, dtype: torch.dtype) -> None:
    if not choice.available():
        pytest.skip("numba is not installed")
    x = case.x.nan_to_num(0.0).to(dtype)
    answers = []
    for chosen in ("torch", "compiled"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(choice, "_chosen", chosen)
            before = of_input(x)
            after = through_windows(before, case.windows, 1)
            answers.append((before, after, mixed(before, case.windows), salted(before, 2), combined([before] * 2, 3)))
    assert all(torch.equal(*pair) for pair in zip(*answers, strict=True))


def test_branches_and_operators_are_told_apart() -> None:
    first, second = of_input(torch.randn(1, 1, 5)), of_input(torch.randn(1, 1, 5))
    assert not torch.equal(combined([first, second], 0), combined([second, first], 0))
    assert not torch.equal(salted(first, 0), salted(first, 1))
    assert torch.equal(salted(first, 3), salted(first, 3))
    assert not (through_windows(first, adaptive((5,), (5,)), 0) == first).any()


def test_a_map_is_left_as_it_was() -> None:
    before = of_input(torch.randn(2, 3, 6))
    kept = before.clone()
    windows = sliding(WindowSpec((3,), (1,), (1,), (1,)), (6,), (6,))
    through_windows(before, windows, 0), salted(before, 1), combined([before, before], 2), mixed(before, windows)
    assert torch.equal(before, kept)


def test_structured_inputs_do_not_collide() -> None:
    ramp = torch.arange(4096, dtype=torch.float32).view(1, 1, 64, 64)
    windows = sliding(WindowSpec((3, 3), (1, 1), (1, 1), (1, 1)), (64, 64), (64, 64))
    for one in through_windows(of_input(ramp), windows, 0):
        assert one.unique().numel() == 4096


def test_the_finaliser_of_tensors_is_that_of_single_words() -> None:
    numbers = torch.randint(-(2**62), 2**62, (50,)) * 2 + 1
    wanted = [words.signed(words.mixed_word(number)) for number in numbers.tolist()]
    assert class_steps.mix(numbers.clone()).tolist() == wanted
