"""Ties with numba: one pass over tensors that are both contiguous or both channels_last. The reference does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from math import nan, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxcheck.scan import reference
from fxcheck.scan.dense import FLOATS, flat, row_major, widened
from fxcheck.scan.reference import Ties
from fxcheck.scan.threads import pieces
from fxcheck.scan.windows import Windows

_LEAST = 1 << 23  # entries per thread: beside PyTorch's spinning threads a second one gains nothing below that
_SHORT = 8  # with fewer outputs side by side in memory, filling vectors costs more than it saves
_MOST_TAPS = 64  # of a window that is scanned output by output
_LANES = 8  # outputs side by side are filled up to a multiple of this


def ties(
    x: Tensor,
    out: Tensor,
    windows: Windows,
    skip: tuple[float, ...] = (),
    mixed: Tensor | None = None,
    limit: int = 200_000,
    floor: float | None = None,
) -> Ties:
    """As ``reference.ties``."""
    order = _shared_order(x, out) if x.dtype in FLOATS and x.dtype == out.dtype else None
    last = order is not None and order[-1] == 1
    small = not last and out.shape[-1] < _SHORT and windows.taps <= _MOST_TAPS
    lines = None if last or small else _lines(windows)
    if order is None or not (last or small or lines) or not out.numel() or not x.numel():
        return reference.ties(x, out, windows, skip, mixed, limit, floor)
    tensors = (flat(widened(x), order), flat(widened(out), order), _mask(mixed, out))
    # No value is at most NaN, so that all windows count.
    edge = reference.rounded((nan if floor is None else floor,), x.dtype)
    numbers = _like(reference.rounded(skip, x.dtype), tensors[0]), _like(edge, tensors[0])[0]
    if small:
        scan = partial(_cells, (*tensors, (x.shape[1], prod(x.shape[2:])), *_filled(windows), *numbers), limit)
        total = x.shape[0] * x.shape[1]
    elif lines is None:
        sizes = (x.shape[1], *[1] * (5 - x.ndim), *x.shape[2:])
        scan = partial(_pixels, (*tensors, sizes, *windows.three, *numbers), limit)
        total = x.shape[0] * prod(out.shape[2:-1])
    else:
        scan = partial(_planes, (*tensors, (x.shape[1], prod(x.shape[2:-1]), x.shape[-1]), *lines, *numbers), limit)
        total = x.shape[0] * x.shape[1]
    done = pieces(scan, total, -(-_LEAST * total // x.numel()))
    tied, listed, found, finite = zip(*done, strict=True)
    kept = np.sort(row_major(np.concatenate(listed), out, order))[:limit]
    return Ties(out.numel(), int(sum(tied)), torch.from_numpy(kept), sum(found) > limit, all(finite))


def _planes(tensors_and_numbers: tuple[Any, ...], limit: int, first: int, last: int) -> Any:
    from fxcheck.scan import tie_loops  # imports numba

    return tie_loops.planes(*tensors_and_numbers, first, last, limit)


def _cells(tensors_and_numbers: tuple[Any, ...], limit: int, first: int, last: int) -> Any:
    from fxcheck.scan import tie_loops  # imports numba

    return tie_loops.cells(*tensors_and_numbers, first, last, limit)


def _pixels(tensors_and_numbers: tuple[Any, ...], limit: int, first: int, last: int) -> Any:
    from fxcheck.scan import tie_loops  # imports numba

    return tie_loops.pixels(*tensors_and_numbers, first, last, limit)


def _shared_order(x: Tensor, out: Tensor) -> tuple[int, ...] | None:
    """The memory order of input and output when both are contiguous, or both channels_last."""
    plain = tuple(range(x.ndim))
    for order in (plain, (0, *plain[2:], 1)):
        if 2 < x.ndim < 6 and x.permute(order).is_contiguous() and out.permute(order).is_contiguous():
            return order
    return None


def _like(values: Sequence[float], cells: Any) -> Any:
    return np.array(values, cells.dtype)


@lru_cache(maxsize=1024)
def _lines(windows: Windows) -> tuple[Any, tuple[int, ...]] | None:
    """How a channel's lines of cells are laid out so that each tap reads neighbours; ``None`` for irregular windows.

    Cell ``step * i + p`` of a line goes to ``p * phase + margin + i``, among NaN; behind all lines comes one of padding.

    Returns:
        For each row of outputs where each tap begins; (outputs, step, margin, phase, outputs filled up to full vectors).
    """
    table = windows.tables[-1]
    outputs, size = len(table), windows.size_in[-1]
    taps = [tap for tap in windows.slices[-1] or () if tap.into.stop > tap.into.start]
    step = max((tap.cells.step for tap in taps), default=1)
    firsts = torch.tensor([tap.cells.start - step * tap.into.start for tap in taps], dtype=torch.int64)
    cells = torch.arange(outputs)[:, None] * step + firsts
    real = table[:, (table >= 0).any(0)]
    if not taps or not torch.equal(real, cells.masked_fill((cells < 0) | (cells >= size), -1)):
        return None
    padded = -(-outputs // _LANES) * _LANES
    shifts = firsts.div(step, rounding_mode="floor")
    margin = max(0, -int(shifts.min()))
    phase = margin + max(-(-size // step), padded + int(shifts.max()))
    places = firsts % step * phase + margin + shifts
    starts = _line_numbers(windows)[:, :, None] * step * phase + places
    return starts.flatten(1).numpy().astype(np.uint64), (outputs, step, margin, phase, padded)


@lru_cache(maxsize=1024)
def _filled(windows: Windows) -> tuple[Any, Any]:
    """The places of each output's cells, its first real one first and in the place of padding; and how much padding."""
    ordered = -np.sort(-windows.places, axis=1)  # padding last
    padding = (ordered < 0).sum(1)
    filled = np.maximum(np.where(ordered < 0, ordered[:, :1], ordered), 0)  # 0 for a window of padding alone
    return np.ascontiguousarray(filled.astype(np.uint64)), padding.astype(np.int32)


def _line_numbers(windows: Windows) -> Tensor:
    """For each row of outputs (rows, lines per window) the lines of one channel that it reads, the last for padding."""
    numbers, lines = torch.zeros(1, 1, dtype=torch.int64), prod(windows.size_in[:-1])
    real = numbers >= 0
    for table, size in zip(windows.tables[:-1], windows.size_in[:-1], strict=True):
        numbers = (numbers[:, None, :, None] * size + table[None, :, None, :]).flatten(2).flatten(0, 1)
        real = (real[:, None, :, None] & (table >= 0)[None, :, None, :]).flatten(2).flatten(0, 1)
    return numbers.masked_fill(~real, lines)


def _mask(mixed: Tensor | None, out: Tensor) -> Any:
    """One byte per window position, flat; without a mask all windows are listed."""
    if mixed is None:
        return np.ones(out.shape[0] * prod(out.shape[2:]), np.uint8)
    # No operator on the tensor: PyTorch's OpenMP threads spin for milliseconds after one, on the cores that scan next.
    return mixed.view(torch.uint8).reshape(-1).numpy()
