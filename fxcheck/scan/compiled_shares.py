"""Ties of maxima that share the gradient, with numba: one pass over the operands as they lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import nan, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxcheck.scan import reference
from fxcheck.scan.dense import FLOATS, flat, order_of, row_major, widened
from fxcheck.scan.reference import Shared
from fxcheck.scan.threads import items_worth, pieces

_LEAST = 1 << 17  # entries per thread
_MOST = 512  # outputs whose counts are kept at a time
_LONG = 16  # entries of a run that is scanned output by output
_FEW = 64  # entries of an output that are listed one by one


def shared(
    x: Tensor, out: Tensor, dims: Sequence[int], skip: tuple[float, ...] = (), limit: int = 200_000,
    floor: float | None = None,
) -> Shared:  # fmt: skip
    """As ``reference.shared``."""
    if x.dtype not in FLOATS or out.dtype != x.dtype or not x.numel() or not out.numel():
        return reference.shared(x, out, dims, skip, limit, floor)
    cells, best = widened(x), widened(out).reshape([1 if d in dims else s for d, s in enumerate(x.shape)])
    plan = _plan(tuple(x.shape), cells.stride(), best.stride(), tuple(dims), (_MOST, _LONG, _FEW))
    scan = partial(_shared, (_memory(cells), _memory(best), *plan.numbers, *_flat_values(skip, floor, x.dtype), limit))
    done = pieces(scan, plan.total, items_worth(_LEAST, plan.total, x.numel()))
    outputs, entries, finite = zip(*done, strict=True)
    places = np.stack([np.concatenate(outputs), np.concatenate(entries)])
    ordered = torch.from_numpy(places[:, np.lexsort(places[::-1])])
    return Shared(ordered[0, :limit], ordered[1, :limit], ordered.shape[1] > limit, all(finite))


@dataclass(frozen=True)
class _Plan:
    """How many tiles of outputs there are, and what the loop is given beside the tensors."""

    total: int
    numbers: tuple[Any, ...]


@lru_cache(maxsize=1024)
def _plan(
    shape: tuple[int, ...], steps: tuple[int, ...], steps_out: tuple[int, ...], dims: tuple[int, ...], sizes: tuple[int, int, int]
) -> _Plan:
    """How to scan an operand with these steps in memory, whose result keeps the reduced dimensions with size one."""
    most, long, few = sizes
    sizes_out = [1 if d in dims else s for d, s in enumerate(shape)]
    axes = list(zip(shape, steps, steps_out, _row_major_steps(shape), _row_major_steps(sizes_out), strict=True))
    *outer, rows, line = [_ONE, *_merged([a for d, a in enumerate(axes) if d not in dims])]
    reduced = _merged([(s, step, 0, index, 0) for d, (s, step, _, index, _) in enumerate(axes) if d in dims])
    along = reduced[-1][1] == 1 and reduced[-1][0] >= long
    run = reduced[-1] if along else max(reduced)  # the longest, so that few taps are listed
    if along or prod(a[0] for a in reduced) > few:
        reduced.remove(run)
    else:
        run = _ONE
    taps = np.zeros((1, 2), np.int64)
    for size, step, _, index, _ in reduced:
        taps = (taps[:, None] + np.arange(size)[:, None] * np.array((step, index))).reshape(-1, 2)
    places = taps[:, 0]
    paired = line[1] == 2 and not len(taps) % 2 and bool((places[1::2] == places[::2] + 1).all())
    wide = min(most, line[0])
    high = min(most // wide, rows[0])
    kept = (np.array(outer, np.int64).reshape(-1, 5), *np.array((rows, line), np.int64), np.array((high, wide), np.int64))
    total = prod(a[0] for a in outer) * -(-rows[0] // high) * -(-line[0] // wide)
    return _Plan(total, (*kept, taps, np.array((run[0], run[1], run[3]), np.int64), along, paired))


_Axis = tuple[int, int, int, int, int]
"""Size, steps in the memory of operand and result, row-major steps in both."""
_ONE: _Axis = (1, 0, 0, 0, 0)


def _merged(axes: list[_Axis]) -> list[_Axis]:
    """The axes from outermost to innermost in memory, neighbours that are one axis merged; at least one."""
    merged: list[_Axis] = []
    for axis in sorted((a for a in axes if a[0] > 1), key=lambda a: a[1], reverse=True):
        last = merged[-1] if merged else None
        if last is not None and last[1:] == tuple(step * axis[0] for step in axis[1:]):
            merged[-1] = (last[0] * axis[0], *axis[1:])
        else:
            merged.append(axis)
    return merged or [_ONE]


def _row_major_steps(shape: Sequence[int]) -> list[int]:
    return [prod(shape[d + 1 :]) for d in range(len(shape))]


def _memory(x: Tensor) -> Any:
    """The memory between a tensor's first and last entry."""
    extent = 1 + sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))
    return x.as_strided((extent,), (1,)).numpy()


@lru_cache(maxsize=256)
def _flat_values(skip: tuple[float, ...], floor: float | None, dtype: torch.dtype) -> tuple[Any, Any]:
    """The values at which ties do not count, and the highest of those below which they do not."""
    cells = np.float64 if dtype is torch.float64 else np.float32
    # No value is at most NaN, so that all outputs count.
    (edge,) = reference.rounded((nan if floor is None else floor,), dtype)
    return np.array(reference.rounded(skip, dtype), cells), cells(edge)


def _shared(tensors_and_numbers: tuple[Any, ...], first: int, last: int) -> Any:
    from fxcheck.scan import share_loops  # imports numba

    return share_loops.shared(*tensors_and_numbers, first, last)


def equal(
    a: Tensor, b: Tensor, out: Tensor, skip: tuple[float, ...] = (), limit: int = 200_000, floor: float | None = None
) -> Shared:
    """As ``reference.equal``."""
    order = order_of(a) if a.dtype in FLOATS and a.dtype == b.dtype == out.dtype else None
    if order is None or not a.shape == b.shape == out.shape or not _are_dense(order, b, out):
        return reference.equal(a, b, out, skip, limit, floor)
    entries = [flat(widened(t), order) for t in (a, b, out)]
    scan = partial(_equal, (*entries, *_flat_values(skip, floor, a.dtype), limit))
    places, finite = zip(*pieces(scan, a.numel(), _LEAST), strict=True)
    indices = torch.from_numpy(np.sort(row_major(np.concatenate(places), a, order)))
    return Shared(indices[:limit], indices[:limit], len(indices) > limit, all(finite))


def _are_dense(order: tuple[int, ...], *tensors: Tensor) -> bool:
    return all(t.permute(order).is_contiguous() for t in tensors)


def _equal(tensors_and_numbers: tuple[Any, ...], first: int, last: int) -> Any:
    from fxcheck.scan import share_loops  # imports numba

    return share_loops.equal(*tensors_and_numbers, first, last)
