"""The tie scans agree with a naive loop, whatever the pool, the dtype and the memory format."""

from __future__ import annotations

from math import prod
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fxcheck.scan import WindowSpec, numpy_ties, reference, sliding, whole
from tests.scan.oracles import Case, cells_of, laid_out, pools, small_integers, tied_cells

FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def label_of(case: Case, labels: torch.Tensor | None, number: int, cell: int) -> int | None:
    """The label that a cell of the input has in the window of an output, both as flat indices."""
    if labels is None:
        return None
    sample, _, *window = (int(i) for i in torch.unravel_index(torch.tensor(number), case.out.shape))
    size = case.windows.size_in
    read = [None if c is None else int(np.ravel_multi_index(c, size)) for c in cells_of(case.windows, tuple(window))]
    return int(labels[(sample, *window)][read.index(cell % prod(size))])


@FUZZ
@given(pools(), st.sampled_from([(), (2.0,), (0.0, 1.0), (0.0, 1.0, 2.0)]), st.sampled_from([None, 0.0, 1.0]), st.integers(0, 9))
def test_ties_are_those_of_a_naive_loop(
    path: ModuleType, case: Case, skip: tuple[float, ...], floor: float | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.rand(case.out.shape[0], *case.out.shape[2:], generator=generator) < 0.5 if seed else None
    shape = (case.out.shape[0], *case.windows.size_out, case.windows.taps)
    labels = torch.randint(2, shape, generator=generator, dtype=torch.uint8) if seed % 2 else None
    values = case.out.double().reshape(-1).tolist()
    held = tied_cells(case)
    live = [
        number
        for number, cells in held.items()
        if len(cells) >= 2 and values[number] not in skip and (floor is None or values[number] > floor)
    ]
    everywhere = torch.ones_like(case.out, dtype=torch.bool)
    mask = everywhere if mixed is None else everywhere & mixed.unsqueeze(1)
    chosen = mask.reshape(-1).tolist()
    found = path.ties(case.x, case.out, case.windows, skip=skip, mixed=mixed, floor=floor, labels=labels)
    assert (found.outputs, found.tied) == (case.out.numel(), len(live))
    kinds = {number: {label_of(case, labels, number, cell) for cell in held[number]} for number in live}
    assert found.listed.tolist() == [n for n in live if chosen[n] and (labels is None or len(kinds[n]) > 1)]
    assert found.finite == bool(case.out.isfinite().all())
    assert not found.truncated


@FUZZ
@given(pools(), st.sampled_from(["contiguous", "channels_last"]), st.integers(0, 9))
def test_rivals_are_the_other_maximal_cells_of_another_label(path: ModuleType, case: Case, layout: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size, shape = prod(case.windows.size_in), (case.x.shape[0], *case.windows.size_out, case.windows.taps)
    labels = torch.randint(2, shape, generator=generator, dtype=torch.uint8) if seed else None
    cells = {number: found for number, found in tied_cells(case).items() if found}
    picks = torch.zeros(case.out.numel(), dtype=torch.int64)
    wanted = []
    for number, found in cells.items():
        winner = found[int(torch.randint(len(found), (), generator=generator))]
        picks[number] = winner % size
        for loser in found:
            kinds = [label_of(case, labels, number, cell) for cell in (winner, loser)]
            if loser != winner and (labels is None or kinds[0] != kinds[1]):
                wanted.append((winner, loser, number))
    shaped = laid_out(picks.view(case.out.shape), layout)
    listed = torch.tensor(list(cells), dtype=torch.int64)
    rivals = path.rivals(case.x, case.out, shaped, case.windows, listed, labels)
    assert list(zip(*(r.tolist() for r in rivals), strict=True)) == wanted


BLOCKS = [(2, 2, 0, side) for side in (2, 4, 6, 8, 12, 14, 15, 16, 32, 34, 50)]
BLOCKS += [(3, 2, 1, side) for side in (2, 4, 7, 13, 14, 15, 16, 32, 33, 55)]
BLOCKS += [(3, 1, 1, side) for side in (1, 3, 7, 8, 17)] + [(2, 3, 1, side) for side in (9, 23, 25, 49)]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kernel", "stride", "padding", "side"), BLOCKS)
def test_blocks_of_outputs_see_what_the_reference_sees(
    path: ModuleType, kernel: int, stride: int, padding: int, side: int, dtype: torch.dtype, layout: str
) -> None:
    """Rows that are shorter than a vector, longer, or no multiple of one; channels that fill vectors only together."""
    channels = 33 if layout == "channels_last" else 12
    x = small_integers((3, channels, side, side), dtype, seed=side, special=True)
    out = F.max_pool2d(x, kernel, stride, padding)
    windows = sliding(WindowSpec(*((n, n) for n in (kernel, stride, padding, 1))), (side, side), tuple(out.shape[2:]))
    generator = torch.Generator().manual_seed(side)
    mixed = torch.rand(3, *out.shape[2:], generator=generator) < 0.5
    labels = torch.randint(2, (3, *out.shape[2:], kernel * kernel), generator=generator, dtype=torch.uint8)
    for skip, floor, known in (((), None, None), ((2.0,), -1.0, labels), ((2.0, 0.0), None, None), ((), None, labels)):
        wanted = reference.ties(x, out, windows, skip, mixed, floor=floor, labels=known)
        found = path.ties(laid_out(x, layout), laid_out(out, layout), windows, skip, mixed, floor=floor, labels=known)
        assert (found.tied, found.finite, found.listed.tolist()) == (wanted.tied, wanted.finite, wanted.listed.tolist())


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("kernel", "stride", "padding", "side"), [(2, 2, 0, 6), (3, 2, 1, 7), (3, 1, 1, 5), (2, 3, 1, 9)])
def test_numpy_sees_in_blocks_and_threads_what_pytorch_sees_at_once(
    monkeypatch: pytest.MonkeyPatch, kernel: int, stride: int, padding: int, side: int, layout: str
) -> None:
    monkeypatch.setattr(numpy_ties, "_BLOCK", 5 * side * side)  # 12 channels: the last block is a short one
    monkeypatch.setattr(numpy_ties, "_LEAST", 1)
    x = small_integers((3, 12, side, side), torch.float32, seed=side, special=True)
    out = F.max_pool2d(x, kernel, stride, padding)
    windows = sliding(WindowSpec(*((n, n) for n in (kernel, stride, padding, 1))), (side, side), tuple(out.shape[2:]))
    mixed = torch.rand(3, *out.shape[2:], generator=torch.Generator().manual_seed(side)) < 0.5
    for skip, floor, mask in (((), None, None), ((2.0,), -1.0, mixed), ((2.0, 0.0), None, mixed)):
        wanted = reference.ties(laid_out(x, "gaps"), out, windows, skip, mask, floor=floor)
        found = reference.ties(laid_out(x, layout), laid_out(out, layout), windows, skip, mask, floor=floor)
        assert wanted.tied and (found.tied, found.listed.tolist()) == (wanted.tied, wanted.listed.tolist())


def test_a_windows_own_padding_never_ties(path: ModuleType) -> None:
    x = torch.full((1, 1, 4, 4), -float("inf"))
    x[0, 0, 1, 1] = 0.0
    out = F.max_pool2d(x, 3, 2, 1)
    windows = sliding(WindowSpec((3, 3), (2, 2), (1, 1), (1, 1)), (4, 4), (2, 2))
    assert path.ties(x, out, windows).tied == 0


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_only_a_maximum_that_is_not_finite_counts_as_one(path: ModuleType, layout: str, value: float) -> None:
    x = small_integers((2, 8, 16, 16), torch.float32, seed=0, special=False)
    windows = sliding(WindowSpec((2, 2), (2, 2), (0, 0), (1, 1)), (16, 16), (8, 8))
    x[1, 7, 15, 15] = -float("inf")
    lost = laid_out(x, layout)
    assert path.ties(lost, F.max_pool2d(lost, 2), windows).finite
    x[1, 7, 14:, 14:] = value
    won = laid_out(x, layout)
    assert not path.ties(won, F.max_pool2d(won, 2), windows).finite


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_windows_of_more_than_255_cells_do_not_wrap_round(path: ModuleType, layout: str) -> None:
    x = laid_out(torch.ones(2, 3, 16, 16), layout)
    for size in ((16, 16), (1, 256), (256, 1)):
        shaped = x.reshape(2, 3, *size)
        found = path.ties(shaped, torch.ones(2, 3, 1, 1), whole(size))
        assert (found.tied, found.listed.tolist()) == (6, [0, 1, 2, 3, 4, 5])


def test_a_maximum_over_a_dimension_is_one_window(path: ModuleType) -> None:
    x = small_integers((3, 4, 7), torch.float32, seed=0, special=False)
    out = x.amax(2, keepdim=True)
    assert path.ties(x, out, whole((7,))).tied == int(((x == out).sum(2) >= 2).sum())


def test_the_list_stops_at_its_limit_and_says_so(path: ModuleType) -> None:
    x, windows = torch.zeros(4, 16, 8, 8), sliding(WindowSpec((2, 2), (2, 2), (0, 0), (1, 1)), (8, 8), (4, 4))
    found = path.ties(x, F.max_pool2d(x, 2), windows, limit=10)
    assert (found.tied, found.listed.numel(), found.truncated) == (4 * 16 * 16, 10, True)
    assert not path.ties(x, F.max_pool2d(x, 2), windows, limit=1024).truncated


def test_an_empty_batch_has_no_windows(path: ModuleType) -> None:
    x, windows = torch.zeros(0, 3, 8, 8), sliding(WindowSpec((2, 2), (2, 2), (0, 0), (1, 1)), (8, 8), (4, 4))
    found = path.ties(x, torch.zeros(0, 3, 4, 4), windows)
    assert (found.outputs, found.tied, found.listed.numel(), found.finite) == (0, 0, 0, True)


def test_a_floor_that_the_dtype_cannot_hold_is_rounded_to_it(path: ModuleType) -> None:
    x = torch.full((1, 1, 2, 2), 0.1, dtype=torch.bfloat16)
    windows = whole((2, 2))
    assert path.ties(x, x[..., :1, :1].clone(), windows, floor=0.1).tied == 0
    assert path.ties(x, x[..., :1, :1].clone(), windows, skip=(0.1,)).tied == 0
    assert path.ties(x, x[..., :1, :1].clone(), windows, floor=-0.1).tied == 1


def test_tensors_that_need_gradients_are_scanned_without_recording(path: ModuleType) -> None:
    x = torch.zeros(1, 2, 4, 4, requires_grad=True)
    windows = sliding(WindowSpec((2, 2), (2, 2), (0, 0), (1, 1)), (4, 4), (2, 2))
    found = path.ties(x, F.max_pool2d(x, 2), windows)
    assert found.tied == 8 and not found.listed.requires_grad


def test_signs_that_are_not_in_memory_are_read(path: ModuleType) -> None:
    x = torch.view_as_complex(torch.tensor([[0.0, 2.0], [0.0, 2.0], [0.0, -1.0], [0.0, -1.0]])).conj().imag.view(1, 1, 2, 2)
    assert x.is_neg()
    out = F.max_pool2d(x, 2)
    windows = sliding(WindowSpec((2, 2), (2, 2), (0, 0), (1, 1)), (2, 2), (1, 1))
    assert path.ties(x, out, windows).tied == 1
    assert [r.tolist() for r in path.rivals(x, out, torch.tensor([[[[2]]]]), windows, torch.tensor([0]))] == [[2], [3], [0]]
