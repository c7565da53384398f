"""Ties with numba: one pass over tensors that are both contiguous or both channels_last. The reference does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import chain
from math import nan, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxcheck.scan import reference
from fxcheck.scan.dense import FLOATS, flat, row_major, widened
from fxcheck.scan.reference import Ties
from fxcheck.scan.threads import items_worth, pieces
from fxcheck.scan.windows import Windows

_LEAST = 1 << 16  # entries per thread
_LEAST_LISTED = 1 << 12  # listed windows per thread
_SHORT = 8  # of fewer outputs side by side in memory, cells are gathered one by one; of 2 x 2 cells, of fewer than half
_LANES = 16  # outputs side by side that are compared as one vector, at most
_MOST_TAPS = 64  # of a window whose cells are gathered
_WIDE = (torch.float32, torch.float64)
_NONE = torch.empty(0, dtype=torch.int64)
_NOTHING_KNOWN = 0, 0, 0, 0
_NO_TABLE = np.zeros((0, 0), np.int64)


def ties(
    x: Tensor,
    out: Tensor,
    windows: Windows,
    skip: tuple[float, ...] = (),
    mixed: Tensor | None = None,
    limit: int = 200_000,
    floor: float | None = None,
    labels: Tensor | None = None,
) -> Ties:
    """As ``reference.ties``."""
    order = _shared_order(x, out) if x.dtype in FLOATS and x.dtype == out.dtype else None
    plan = None if order is None else _plan(tuple(x.shape), x.dtype, order[-1] == 1, windows, skip, floor)
    number = out.numel()
    if order is None or plan is None or not number or not x.numel():
        return reference.ties(x.detach(), out.detach(), windows, skip, mixed, limit, floor, labels)
    cells, maxima = (t if t.dtype in _WIDE else widened(t) for t in (x, out))
    mask, most = _mask(mixed, out), torch.get_num_threads()  # pieces
    seen, listed = np.zeros((most, 4), np.int64), np.empty((most, limit), np.int64)
    addresses = cells.data_ptr(), maxima.data_ptr(), mask.ctypes.data, seen.ctypes.data, listed.ctypes.data
    known = _NOTHING_KNOWN
    if labels is not None:
        known = labels.data_ptr(), windows.places.ctypes.data, *windows.places.shape
    least, shape = items_worth(_LEAST, plan.total, x.numel()), (prod(windows.size_in), x.shape[1], order[-1] == 1)
    plan.loop()(plan.total, least, *addresses, limit, *plan.words, *known, *shape, *plan.numbers)
    tied, found, strange, done = seen.sum(0).tolist()
    if done != plan.total:  # a loop that cannot get memory stops without a word
        raise MemoryError("the scan of a max did not get the memory that it needs")
    if not found:
        return Ties(number, tied, _NONE, False, not strange)
    kept = row_major(np.concatenate([part[:held] for part, held in zip(listed, seen[:, 1].tolist(), strict=True)]), out, order)
    if order[-1] == 1:
        kept.sort()
    return Ties(number, tied, torch.from_numpy(kept[:limit]), found > limit, not strange)


@dataclass(frozen=True)
class _Plan:
    """How ``tie_loops`` scans a max: by which loop, in how many lanes, over how many items.

    Args:
        numbers: sizes, as the loop takes them.
        tables: int64 arrays of two dimensions, at most three.
        blocks: see ``_blocks``.
        values: floor and flat values, as wide as the cells that are compared.
    """

    name: str
    lanes: int
    total: int
    numbers: tuple[int, ...]
    tables: tuple[Any, ...]
    blocks: tuple[Any, Any]
    values: Any

    def loop(self) -> Any:
        """Compiled at its first call."""
        from fxcheck.scan import tie_loops  # imports numba

        return tie_loops.loop(self.name, self.lanes, self.values.itemsize, len(self.numbers))

    @cached_property
    def words(self) -> tuple[int, ...]:
        """Where its arrays are."""
        tables = [(t.ctypes.data, *t.shape) for t in (*self.tables, _NO_TABLE, _NO_TABLE, _NO_TABLE)[:3]]
        columns, fresh = self.blocks
        addresses = columns.ctypes.data, fresh.ctypes.data, self.values.ctypes.data
        return (len(columns), *addresses, *chain.from_iterable(tables))


@lru_cache(maxsize=1024)
def _plan(
    shape: tuple[int, ...], dtype: torch.dtype, last: bool, windows: Windows, skip: tuple[float, ...], floor: float | None
) -> _Plan | None:
    """How to scan an input of this shape, with the channels ``last`` in memory or not; None: not compiled."""
    if len(skip) > 2:
        return None
    cells = np.float64 if dtype is torch.float64 else np.float32
    # No value is at most NaN, so that all windows count, and none equals it.
    values = np.array(reference.rounded((nan if floor is None else floor, *skip, nan, nan)[:3], dtype), cells)
    planes, channels = shape[0] * shape[1], shape[1]
    if last:
        sizes = (channels, *[1] * (5 - len(shape)), *shape[2:])
        lanes, blocks = _blocks(channels)
        return _Plan("pixels", lanes, shape[0] * prod(windows.size_out[:-1]), sizes, windows.three, blocks, values)
    outputs = windows.size_out[-1]
    lanes, blocks = _blocks(outputs)
    if outputs >= _SHORT // 2 and _are_twos(windows):
        numbers = channels, prod(shape[2:]), shape[-1], *windows.size_out
        return _Plan("twos", lanes, planes, numbers, (), blocks, values)
    if outputs < _SHORT and windows.taps <= _MOST_TAPS:
        return _cells(shape, windows, values)
    lines = _lines(windows)
    if lines is None:
        return None
    return _Plan("planes", lanes, planes, (channels, prod(shape[2:-1]), shape[-1], *lines[1]), lines[:1], blocks, values)


def _cells(shape: tuple[int, ...], windows: Windows, values: Any) -> _Plan:
    """Channels are taken several at once, as one, until their outputs fill a vector."""
    channels, plane_in, plane_out = shape[1], prod(shape[2:]), len(windows.places)
    group = next((n for n in range(1, channels) if channels % n == 0 and n * plane_out >= _LANES), channels)
    lanes, blocks = _blocks(group * plane_out)
    places = windows.places[None] + plane_in * np.arange(group)[:, None, None]
    real = np.tile(windows.places >= 0, (group, 1))
    bits = [[int(sum(1 << j for j in range(lanes) if row[column + j])) for column in blocks[0].tolist()] for row in real.T]
    cells = np.ascontiguousarray(np.where(real, places.reshape(real.shape), 0).T)
    numbers = channels // group, group, plane_in
    return _Plan("cells", lanes, shape[0] * channels // group, numbers, (cells, np.array(bits, np.int64)), blocks, values)


def _blocks(number: int) -> tuple[int, tuple[Any, Any]]:
    """How to cut a row into blocks of equally many outputs: how many, where each begins, and the bits of those not in the last.

    The last block of a row begins early enough to end with it.
    """
    lanes = 1 << min(number, _LANES).bit_length() - 1
    even = np.arange(0, number, lanes)
    columns = np.minimum(even, number - lanes)
    fresh = (1 << lanes) - (1 << even - columns)
    return lanes, (columns.astype(np.uint64), fresh.astype(np.uint64))


def rivals(
    x: Tensor, out: Tensor, picks: Tensor, windows: Windows, listed: Tensor, labels: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``reference.rivals``."""
    order = _shared_order(x, out) if x.dtype in (torch.float32, torch.float64) and x.dtype == out.dtype else None
    if order is None or not picks.permute(order).is_contiguous():
        return reference.rivals(x, out, picks, windows, listed, labels)
    tensors = (*(flat(t.detach(), order) for t in (x, out, picks)), x.shape[1], order[1] != 1)
    sizes = prod(windows.size_in), prod(windows.size_out)
    known = _all_different(windows.taps) if labels is None else labels.numpy().reshape(-1, windows.taps)
    scan = partial(_rivals, (*tensors, sizes, windows.places, known, listed.numpy()))
    done = pieces(scan, listed.numel(), _LEAST_LISTED)
    winners, losers, outputs = (torch.from_numpy(np.concatenate(part)) for part in zip(*done, strict=True))
    return winners, losers, outputs


@lru_cache(maxsize=64)
def _all_different(taps: int) -> Any:
    return np.arange(taps, dtype=np.uint8 if taps <= 1 << 8 else np.int64)[None]


def _rivals(tensors_and_numbers: tuple[Any, ...], first: int, last: int) -> Any:
    from fxcheck.scan import rival_loops  # imports numba

    return rival_loops.rivals(*tensors_and_numbers, first, last)


def _shared_order(x: Tensor, out: Tensor) -> tuple[int, ...] | None:
    """The memory order of input and output when both are contiguous, or both channels_last."""
    plain = tuple(range(x.ndim))
    if not 2 < x.ndim < 6 or (x.is_contiguous() and out.is_contiguous()):
        return plain if 2 < x.ndim < 6 else None
    last = (0, *plain[2:], 1)
    return last if x.permute(last).is_contiguous() and out.permute(last).is_contiguous() else None


def _are_twos(windows: Windows) -> bool:
    """Whether windows are 2 x 2 cells side by side, without padding."""
    tables = [np.arange(2 * size).reshape(size, 2) for size in windows.size_out]
    return len(tables) == 2 and all(map(np.array_equal, windows.arrays, tables))


@lru_cache(maxsize=1024)
def _lines(windows: Windows) -> tuple[Any, tuple[int, ...]] | None:
    """How a channel's lines of cells are laid out so that each tap reads neighbours; ``None`` for irregular windows.

    One phase of a line comes after the other, with NaN for padding, and behind all lines one of padding.

    Returns:
        For each row of outputs where each tap begins; (outputs, step, margin, length of a phase).
    """
    along = windows.phases[-1]
    if along is None:
        return None
    places = torch.tensor([phase * along.length + place for phase, place in along.taps])
    starts = _line_numbers(windows)[:, :, None] * along.step * along.length + places
    return np.ascontiguousarray(starts.flatten(1).numpy()), (windows.size_out[-1], along.step, along.margin, along.length)


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
        return _everywhere(out.shape[0] * prod(out.shape[2:]))
    # No operator on the tensor: PyTorch's OpenMP threads spin for milliseconds after one, on the cores that scan next.
    return mixed.view(torch.uint8).reshape(-1).numpy()


@lru_cache(maxsize=64)
def _everywhere(number: int) -> Any:
    return np.ones(number, np.uint8)
