"""Ties of CPU tensors without gaps in regular windows, with numpy, whose comparisons are several times faster than PyTorch's.

Cells are sorted into phases (``windows.Phases``), with NaN for padding. The cells that one tap reads are neighbours there as
their outputs are: all of them, row after row and channel after channel, are one run of memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from fxcheck.scan.dense import row_major, widened
from fxcheck.scan.threads import pieces
from fxcheck.scan.windows import Windows

_BLOCK = 1 << 18
"""Cells compared at a time: they stay in the second-level cache with their phases."""
_LEAST = 1 << 19
"""Cells per thread."""
_MOST_TAPS = 255
"""Cells of a window, which are counted in a byte."""


def ties(
    x: Tensor, out: Tensor, order: tuple[int, ...], windows: Windows, skip: Sequence[float], floor: float | None,
    mixed: Tensor | None,
) -> tuple[int, Any] | None:  # fmt: skip
    """The tied windows at an undischarged value.

    Args:
        x: the input (N, C, *S_in).
        out: the maxima (N, C, *S_out).
        order: the dimensions of both in the order of memory: as they are, or with the channels last.
        windows: the cells that each output reads.
        skip: values, of the dtype, at which ties do not count.
        floor: the value, of the dtype, up to which they do not.
        mixed: bool or uint8 (N, *S_out): only windows where it is not zero are listed.

    Returns:
        How many there are, and int64 (L,), ascending, the flat row-major indices of those listed; None: windows are not
        regular.
    """
    if None in windows.phases or windows.taps > _MOST_TAPS:
        return None
    inner = x.shape[1] if order[1] != 1 else 1
    cells, maxima = (widened(t).permute(order).numpy() for t in (x, out))
    cells = cells.reshape(-1, *windows.size_in, inner)
    maxima = maxima.reshape(-1, *windows.size_out, inner)
    masks = None if mixed is None else mixed.cpu().numpy().reshape(x.shape[0], *windows.size_out, 1)
    scan = _Scan(windows, cells, maxima, masks, len(cells) // max(1, x.shape[0]), tuple(skip), floor)
    parts = pieces(scan, len(cells), -(-_LEAST // prod(cells.shape[1:])))
    listed = row_major(np.concatenate([found for _, found in parts]), out, order)
    return sum(number for number, _ in parts), listed if inner == 1 else np.sort(listed)


@dataclass(frozen=True, eq=False)
class _Scan:
    """Ties in channels ``first`` to ``last`` (exclusive), or in samples where channels are last in memory."""

    windows: Windows
    cells: Any
    maxima: Any
    masks: Any
    each: int
    """Channels of a sample, or 1."""
    skip: tuple[float, ...]
    floor: float | None

    def __call__(self, first: int, last: int) -> tuple[int, Any]:
        tied, listed = 0, [np.empty(0, np.int64)]
        with np.errstate(invalid="ignore"):
            for start, hits in self._hits(first, last):
                number = int(np.count_nonzero(hits))
                if number and self.masks is not None:
                    hits &= self.masks[np.arange(start, start + len(hits)) // self.each] != 0
                if number:
                    listed.append(np.flatnonzero(hits) + start * prod(hits.shape[1:]))
                tied += number
        return tied, np.concatenate(listed)

    def _hits(self, first: int, last: int) -> Iterator[tuple[int, Any]]:
        """Block by block the first channel and which of its outputs are tied, bool (channels, *S_out, inner)."""
        along = [phases for phases in self.windows.phases if phases is not None]
        size_in, size_out = self.cells.shape[1:-1], self.maxima.shape[1:-1]
        number = max(1, min(last - first, _BLOCK // prod(self.cells.shape[1:])))
        block = number, *(a.length for a in along), self.cells.shape[-1]
        strides = [prod(block[d + 2 :]) for d in range(len(along))]
        real = tuple(map(slice, size_out))
        phases, runs = {}, []
        for tap in product(*(a.taps for a in along)):
            phase = tuple(p for p, _ in tap)
            if phase not in phases:
                phases[phase] = np.full(block, np.nan, self.cells.dtype)
            runs.append((phases[phase].reshape(-1), sum(place * s for (_, place), s in zip(tap, strides, strict=True))))
        maxima = np.full(block, np.nan, self.cells.dtype)
        counts, hit = np.empty(maxima.size, np.uint8), np.empty(maxima.size, np.bool_)
        for start in range(first, last, number):
            here = min(number, last - start)
            for phase, into in phases.items():
                source = (slice(p, None, a.step) for p, a in zip(phase, along, strict=True))
                sizes = (-(-(n - p) // a.step) for n, p, a in zip(size_in, phase, along, strict=True))
                places = (slice(a.margin, a.margin + n) for n, a in zip(sizes, along, strict=True))
                into[(slice(here), *places)] = self.cells[(slice(start, start + here), *source)]
            maxima[(slice(here), *real)] = self.maxima[start : start + here]
            wanted, end = maxima.reshape(-1), here * prod(block[1:])
            counts[:end] = 0
            for run, offset in runs:
                length = min(end, len(run) - offset)
                np.equal(run[offset : offset + length], wanted[:length], out=hit[:length])
                np.add(counts[:length], hit[:length].view(np.uint8), out=counts[:length])
            tied = (counts >= 2).reshape(block)[(slice(here), *real)]
            yield start, self._counted(tied, self.maxima[start : start + here])

    def _counted(self, tied: Any, maxima: Any) -> Any:
        """Those of the ties that count."""
        if tied.any():
            if self.floor is not None:
                tied &= maxima > self.floor
            for value in self.skip:
                tied &= maxima != value
        return tied
