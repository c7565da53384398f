"""Touches and ties with numba: one fused pass over dense CPU tensors. Everything else goes to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from importlib.util import find_spec
from math import prod
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxcheck.scan import reference
from fxcheck.scan.reference import Ties, Touches
from fxcheck.scan.threads import pieces
from fxcheck.scan.windows import Windows

_BITS = {
    torch.float32: torch.int32,
    torch.float64: torch.int64,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}
_LEAST = 1 << 17  # entries per thread
_SHORT = 12  # with fewer outputs side by side in memory, the calls per row outweigh the comparisons


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether numba is installed."""
    return find_spec("numba") is not None


def takes(x: Tensor) -> bool:
    """Whether the compiled scan reads this tensor itself: a plain dense CPU tensor of a usual float dtype."""
    plain = type(x) in (Tensor, torch.nn.Parameter) and x.device.type == "cpu" and x.layout is torch.strided
    return plain and x.dtype in _BITS and available()


def touched(y: Tensor, kinks: Sequence[float]) -> Touches:
    """As ``reference.touched``, in one pass over memory."""
    order = _dense_order(y) if takes(y) else None
    if order is None:
        return reference.touched(y, kinks)
    bits = _bits(y.detach().permute(order))
    scan = partial(_touched, bits, _rounded_bits(kinks, y), *_masks(y))
    indices, which, finite = zip(*pieces(scan, bits.size, 2 * _LEAST), strict=True)
    places, kind = _logical(np.concatenate(indices), y, order), np.concatenate(which)
    ascending = np.argsort(places)
    return Touches(torch.from_numpy(places[ascending]), torch.from_numpy(kind[ascending]), all(finite))


def ties(
    x: Tensor,
    out: Tensor,
    windows: Windows,
    skip: tuple[float, ...] = (),
    mixed: Tensor | None = None,
    limit: int = 200_000,
    floor: float | None = None,
) -> Ties:
    """As ``reference.ties``, in one pass over ``x`` and ``out``."""
    order = _shared_order(x, out) if takes(x) and takes(out) and x.dtype == out.dtype else None
    last = order is not None and order[-1] == 1
    side = x.shape[1] if last else out.shape[-1]
    if order is None or x.ndim > 5 or side < _SHORT or not out.numel() or not x.numel():
        return reference.ties(x, out, windows, skip, mixed, limit, floor)
    lane, fold = (x.shape[1], 1) if last else (1, x.shape[1])
    deep, high, wide, taps, pair = _tables(windows)
    taps = taps[:0] if last else taps
    sizes = np.array([1] * (5 - x.ndim) + [*x.shape[2:], lane, fold])
    rows = x.shape[0] * fold * len(deep) * len(high)
    edge = np.iinfo(np.int64).min if floor is None else _ordered(_rounded_bits((floor,), x)[0], x)
    scan = partial(
        _ties,
        (_bits(x.detach().permute(order)), _bits(out.detach().permute(order)), _mask(mixed, out)),
        (sizes, deep, high, wide, taps, pair, _rounded_bits(skip, x), edge, *_masks(x)),
        limit,
    )
    done = pieces(scan, rows, -(-_LEAST * rows // x.numel()))
    listed = np.sort(_logical(np.concatenate([listed for _, listed, _, _ in done]), out, order))[:limit]
    found = sum(found for _, _, found, _ in done)
    tied, finite = sum(tied for tied, _, _, _ in done), all(finite for _, _, _, finite in done)
    return Ties(out.numel(), int(tied), torch.from_numpy(listed), found > limit, finite)


def _touched(bits: Any, kinks: Any, magnitude: Any, infinity: Any, first: int, last: int) -> tuple[Any, Any, bool]:
    return _kernels().touched(bits, first, last, kinks, magnitude, infinity)


def _ties(tensors: tuple[Any, ...], numbers: tuple[Any, ...], limit: int, first: int, last: int) -> tuple[Any, ...]:
    return _kernels().ties(*tensors, *numbers, first, last, limit)


def _kernels() -> ModuleType:
    from fxcheck.scan import kernels  # imports numba

    return kernels


def _dense_order(x: Tensor) -> tuple[int, ...] | None:
    """The dimensions from outermost to innermost in memory, ``None`` when the memory has gaps or overlaps."""
    order = tuple(sorted(range(x.ndim), key=lambda axis: (x.stride()[axis], -axis), reverse=True))
    return order if x.permute(order).is_contiguous() else None


def _shared_order(x: Tensor, out: Tensor) -> tuple[int, ...] | None:
    """The memory order of input and output when both are contiguous, or both channels_last."""
    plain = tuple(range(x.ndim))
    for order in (plain, (0, *plain[2:], 1)):
        if x.ndim > 2 and x.permute(order).is_contiguous() and out.permute(order).is_contiguous():
            return order
    return None


def _bits(dense: Tensor) -> Any:
    """The memory of a contiguous tensor as a flat array of integers."""
    return dense.reshape(-1).view(_BITS[dense.dtype]).numpy()


def _rounded_bits(values: Sequence[float], like: Tensor) -> Any:
    return _bits(torch.tensor(list(values), dtype=like.dtype))


def _ordered(bits: Any, like: Tensor) -> Any:
    """An integer that compares with those of other values as the floats do, in 64 bits."""
    return np.int64(bits) if bits >= 0 else -np.int64(bits & _masks(like)[0])


@lru_cache(maxsize=8)
def _dtype_masks(dtype: torch.dtype) -> tuple[Any, Any]:
    infinity = torch.tensor([float("inf")], dtype=dtype).view(_BITS[dtype]).numpy()[0]
    return np.iinfo(infinity.dtype).max + np.zeros_like(infinity), infinity


def _masks(like: Tensor) -> tuple[Any, Any]:
    return _dtype_masks(like.dtype)


@lru_cache(maxsize=1024)
def _tables(windows: Windows) -> tuple[Any, Any, Any, Any, int]:
    """Tables of three dimensions, outer ones added; the last one's taps as rows (first output, outputs, first cell, step).

    The number is the first of two taps that read neighbours at a step of two for every output, or -1.
    """
    added = [np.zeros((1, 1), np.int64)] * (3 - len(windows.tables))
    given = [np.ascontiguousarray(table.numpy()) for table in windows.tables]
    deep, high, wide = added + given
    lanes = [
        (tap.into.start, tap.into.stop - tap.into.start, tap.cells.start, tap.cells.step or 1)
        for tap in windows.slices[-1] or ()
    ]
    taps = np.array(lanes, np.int64).reshape(-1, 4)
    full = [lane[0] == 0 and lane[1] == len(wide) and lane[3] == 2 for lane in lanes]
    pairs = [k for k in range(len(lanes) - 1) if full[k] and full[k + 1] and lanes[k + 1][2] == lanes[k][2] + 1]
    return deep, high, wide, taps, pairs[0] if pairs else -1


def _mask(mixed: Tensor | None, out: Tensor) -> Any:
    """One byte per window position, flat; without a mask all windows are listed."""
    if mixed is None:
        return np.ones(out.shape[0] * prod(out.shape[2:]), np.uint8)
    # No operator on the tensor: PyTorch's OpenMP threads spin for milliseconds after one, on the cores that scan next.
    return mixed.view(torch.uint8).reshape(-1).numpy()


def _logical(memory: Any, x: Tensor, order: tuple[int, ...]) -> Any:
    """Flat row-major indices of entries given by their place in memory."""
    if order == tuple(range(x.ndim)) or not memory.size:
        return memory
    places = np.unravel_index(memory, [x.shape[axis] for axis in order])
    by_axis = dict(zip(order, places, strict=True))
    return np.ravel_multi_index([by_axis[axis] for axis in range(x.ndim)], tuple(x.shape))
