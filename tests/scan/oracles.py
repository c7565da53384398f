"""Naive answers in plain Python, and random cases: what the scans are tested against."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

from fxcheck.scan import Windows, WindowSpec, adaptive, sliding

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
ADAPTIVE = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
SPECIAL = (float("nan"), float("inf"), -float("inf"), -0.0)


@dataclass
class Case:
    """An input, its maxima and the windows between them."""

    x: Tensor
    out: Tensor
    windows: Windows


def small_integers(shape: tuple[int, ...], dtype: torch.dtype, seed: int, special: bool) -> Tensor:
    """Integers in [-2, 2], so that ties abound; a few entries NaN, infinite or -0.0 if asked for."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, shape, generator=generator).to(dtype)
    if special and x.numel():
        flat = x.view(-1)
        for value in SPECIAL:
            flat[torch.randint(x.numel(), (1 + x.numel() // 40,), generator=generator)] = value
    return x


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same values contiguous, channels_last (or its analogue), or with gaps between the entries."""
    if layout == "channels_last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x.repeat_interleave(2, -1)[..., ::2] if layout == "gaps" else x


@st.composite
def pools(draw: Any) -> Case:
    """A max pool, sliding or adaptive, of a random small input in a random layout."""
    dims = draw(st.integers(1, 3))
    size = tuple(draw(st.integers(2, (40, 18, 6)[dims - 1])) for _ in range(dims))
    shape = (draw(st.integers(1, 3)), draw(st.sampled_from((1, 2, 5, 17))), *size)
    x = small_integers(shape, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 999)), draw(st.booleans()))
    if draw(st.integers(0, 3)) == 0:
        size_out = tuple(draw(st.integers(1, side)) for side in size)
        out, windows = ADAPTIVE[dims](x.float(), size_out).to(x.dtype), adaptive(size, size_out)
    else:
        kernel = tuple(draw(st.integers(1, min(4, side))) for side in size)
        stride, padding = tuple(draw(st.integers(1, 3)) for _ in size), tuple(draw(st.integers(0, k // 2)) for k in kernel)
        dilation = tuple(draw(st.integers(1, 2)) for _ in size)
        reach = zip(size, padding, dilation, kernel, strict=True)
        assume(all(side + 2 * pad >= step * (k - 1) + 1 for side, pad, step, k in reach))
        out = POOLS[dims](x.float(), kernel, stride, padding, dilation, ceil_mode=draw(st.booleans())).to(x.dtype)
        windows = sliding(WindowSpec(kernel, stride, padding, dilation), size, tuple(out.shape[2:]))
    layout = draw(st.sampled_from(("contiguous", "channels_last", "gaps")))
    return Case(laid_out(x, layout), laid_out(out, layout), windows)


def cells_of(windows: Windows, place: tuple[int, ...]) -> list[tuple[int, ...] | None]:
    """The cells of one window in tap order, ``None`` for padding."""
    rows = [table[index].tolist() for table, index in zip(windows.tables, place, strict=True)]
    return [None if min(cell) < 0 else cell for cell in itertools.product(*rows)]


def tied_cells(case: Case) -> dict[int, list[int]]:
    """For every output, in order of its flat index, the flat index in ``x`` of the cells that equal it."""
    x, out = case.x.double().contiguous(), case.out.double().tolist()
    flat, index = x.view(-1).tolist(), torch.arange(x.numel()).view(x.shape).tolist()
    answer = {}
    for number, place in enumerate(itertools.product(*(range(side) for side in case.out.shape))):
        best = _at(out, place)
        cells = [_at(index, (*place[:2], *cell)) for cell in cells_of(case.windows, place[2:]) if cell is not None]
        answer[number] = [cell for cell in cells if flat[cell] == best]
    return answer


def _at(nested: Any, place: tuple[int, ...]) -> Any:
    for index in place:
        nested = nested[index]
    return nested
