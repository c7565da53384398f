"""Windows as index tables: which input cells each output of a pooling, a convolution or a max over a dimension reads.

A window is a product of one set of indices per spatial dimension, so one table per dimension says it all: padding,
dilation, ``ceil_mode``, overlap and the uneven windows of adaptive pools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Tap:
    """One column of a table as slices: outputs ``into`` read the cells ``cells``, one each; other outputs read none."""

    into: slice
    cells: slice


@dataclass(frozen=True)
class Phases:
    """An order of the cells along one dimension in which neighbouring outputs read neighbours.

    Cell ``step * i + p`` comes to place ``margin + i`` of phase p; other places are padding.

    Args:
        length: places of a phase.
        margin: how many of them come before the first cell.
        step: from one output's cells to the next one's; there are as many phases.
        taps: for each tap the phase that it reads, and where the first output does.
    """

    length: int
    margin: int
    step: int
    taps: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Windows:
    """One max, or one convolution, over sliding windows. Compared by identity.

    Args:
        tables: per spatial dimension an int64 CPU tensor (size_out, taps) of input indices; -1 is padding.
        size_in: the input's spatial sizes.
        spec: the numbers behind sliding windows; None where windows do not slide.
    """

    tables: tuple[Tensor, ...]
    size_in: tuple[int, ...]
    spec: WindowSpec | None = None

    @property
    def size_out(self) -> tuple[int, ...]:
        """The output's spatial sizes."""
        return tuple(table.shape[0] for table in self.tables)

    @property
    def taps(self) -> int:
        """Cells per window, padding included."""
        return prod(table.shape[1] for table in self.tables)

    @cached_property
    def arrays(self) -> tuple[Any, ...]:
        """The tables as contiguous numpy arrays."""
        return tuple(np.ascontiguousarray(table.numpy()) for table in self.tables)

    @cached_property
    def three(self) -> tuple[Any, ...]:
        """The tables of three dimensions, outer ones of a single cell added."""
        return (*[np.zeros((1, 1), np.int64)] * (3 - len(self.tables)), *self.arrays)

    @cached_property
    def places(self) -> Any:
        """Per output the cells of its window within one channel, flat: int64 array (outputs, taps), -1 for padding."""
        places = np.zeros((1, 1), np.int64)
        for table, size in zip(self.arrays, self.size_in, strict=True):
            below = places[:, None, :, None] * size + table[None, :, None, :]
            real = (places >= 0)[:, None, :, None] & (table >= 0)[None, :, None, :]
            places = np.where(real, below, -1).reshape(len(places) * len(table), -1)
        return np.ascontiguousarray(places)

    def cells_of(self, outputs: Any) -> Any:
        """The cells that some outputs read, flat like the outputs, int64 (P,): int64 array (P, taps), -1 for padding."""
        cells, real = np.zeros((len(outputs), 1), np.int64), np.ones((len(outputs), 1), bool)
        for d, (table, size) in enumerate(zip(self.arrays, self.size_in, strict=True)):
            along = table[outputs // prod(self.size_out[d + 1 :]) % self.size_out[d]][:, None, :]
            taps = cells.shape[1] * along.shape[2]
            cells = (cells[:, :, None] * size + along).reshape(len(outputs), taps)
            real = (real[:, :, None] & (along >= 0)).reshape(len(outputs), taps)
        return np.where(real, cells, -1)

    @cached_property
    def everything(self) -> bool:
        """Whether there is one window, over the whole input."""
        pairs = zip(self.tables, self.size_in, strict=True)
        return all(torch.equal(table, torch.arange(size)[None]) for table, size in pairs)

    @cached_property
    def slices(self) -> tuple[tuple[Tap, ...] | None, ...]:
        """Per dimension the taps as strided slices, or ``None`` where a column is not an arithmetic progression."""
        return tuple(_slices(table) for table in self.tables)

    @cached_property
    def phases(self) -> tuple[Phases | None, ...]:
        """Per dimension the order in which taps read neighbours, or ``None`` where outputs do not step regularly."""
        return tuple(_phases(*each) for each in zip(self.arrays, self.slices, self.size_in, strict=True))


@dataclass(frozen=True)
class WindowSpec:
    """The numbers of one pooling or convolution, each per spatial dimension, as PyTorch names them."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def table(self, dimension: int, size_in: int, size_out: int) -> Tensor:
        """The indices read along one dimension.

        Args:
            dimension: which spatial dimension, from 0.
            size_in: the input's size there.
            size_out: the output's actual size there, so that ``ceil_mode`` needs no flag.

        Returns:
            An int64 tensor (size_out, kernel); -1 where the cell is padding or beyond the end.
        """
        starts = torch.arange(size_out) * self.stride[dimension] - self.padding[dimension]
        cells = starts[:, None] + torch.arange(self.kernel[dimension]) * self.dilation[dimension]
        return cells.masked_fill((cells < 0) | (cells >= size_in), -1)


@lru_cache(maxsize=1024)
def sliding(spec: WindowSpec, size_in: tuple[int, ...], size_out: tuple[int, ...]) -> Windows:
    """The windows of a pooling or convolution with these numbers, from ``size_in`` to ``size_out``."""
    sizes = enumerate(zip(size_in, size_out, strict=True))
    return Windows(tuple(spec.table(dimension, *pair) for dimension, pair in sizes), size_in, spec)


@lru_cache(maxsize=1024)
def adaptive(size_in: tuple[int, ...], size_out: tuple[int, ...]) -> Windows:
    """The windows of an adaptive pool from ``size_in`` to ``size_out``."""
    return Windows(adaptive_tables(size_in, size_out), size_in)


@lru_cache(maxsize=1024)
def whole(size_in: tuple[int, ...]) -> Windows:
    """One window over everything: a max over the dimensions of ``size_in``, kept with size 1."""
    return Windows(tuple(torch.arange(size)[None] for size in size_in), size_in)


def adaptive_tables(size_in: Sequence[int], size_out: Sequence[int]) -> tuple[Tensor, ...]:
    """The tables of an adaptive pool: window i is [floor(i in/out), ceil((i+1) in/out)).

    Args:
        size_in: the input's spatial sizes.
        size_out: the output's.

    Returns:
        Per dimension an int64 tensor (size_out, longest window), shorter windows filled up with -1.
    """
    return tuple(_adaptive_table(*pair) for pair in zip(size_in, size_out, strict=True))


def _adaptive_table(size_in: int, size_out: int) -> Tensor:
    index = torch.arange(size_out)
    starts = index * size_in // size_out
    ends = ((index + 1) * size_in + size_out - 1) // size_out
    longest = int((ends - starts).max()) if size_out else 1
    cells = starts[:, None] + torch.arange(longest)
    return cells.masked_fill(cells >= ends[:, None], -1)


def _phases(table: Any, taps: tuple[Tap, ...] | None, size: int) -> Phases | None:
    real = [tap for tap in taps or () if tap.into.stop > tap.into.start]
    if not real:
        return None
    step = max(tap.cells.step for tap in real)
    firsts = np.array([tap.cells.start - step * tap.into.start for tap in real])
    cells = np.arange(len(table))[:, None] * step + firsts
    if not np.array_equal(table[:, (table >= 0).any(0)], np.where((cells < 0) | (cells >= size), -1, cells)):
        return None
    shifts = firsts // step
    margin = max(0, -int(shifts.min()))
    length = margin + max(-(-size // step), len(table) + int(shifts.max()))
    return Phases(length, margin, step, tuple(zip((firsts % step).tolist(), (margin + shifts).tolist(), strict=True)))


def _slices(table: Tensor) -> tuple[Tap, ...] | None:
    taps = [_tap(column) for column in table.t().tolist()]
    return None if None in taps else tuple(tap for tap in taps if tap is not None)


def _tap(column: list[int]) -> Tap | None:
    """The slices of one column, ``None`` when its real cells are not consecutive outputs at a constant step."""
    real = [output for output, cell in enumerate(column) if cell >= 0]
    if not real:
        return Tap(slice(0, 0), slice(0, 0))
    low, high = real[0], real[-1] + 1
    step = column[low + 1] - column[low] if high - low > 1 else 1
    cells = list(range(column[low], column[low] + step * (high - low), step)) if step > 0 else []
    if column[low:high] != cells:
        return None
    return Tap(slice(low, high), slice(cells[0], cells[-1] + 1, step))
