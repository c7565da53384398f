"""The steps of ``shift_steps`` with numba."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxcheck.scan.threads import items_worth
from fxcheck.scan.windows import Windows

_LEAST = 1 << 15  # bytes per thread


def of_input(bits: Tensor, offsets: tuple[int, ...], exist: Tensor, margins: tuple[int, ...]) -> Tensor:
    """As ``shift_steps.of_input``."""
    samples, bits, steps = len(bits), bits.contiguous(), _array(offsets)
    # Not empty: a loop that fails writes nothing, and false is the careful answer.
    equal = torch.zeros(len(offsets), samples, *exist.shape[1:], dtype=torch.bool)
    sizes = *_three(bits.shape[2:]), *_three(margins, 0), *_three(exist.shape[1:])
    addresses = bits.data_ptr(), steps.ctypes.data, exist.data_ptr(), equal.data_ptr()
    loop = _loops().of_input(bits.element_size())
    loop(samples, items_worth(_LEAST, samples, bits.numel() * len(offsets)), *addresses, len(offsets), bits.shape[1], *sizes)
    return equal


def through_windows(equal: Tensor, windows: Windows, outside: Tensor | None, exist: Tensor) -> Tensor:
    """As ``shift_steps.through_windows``."""
    spec, equal = windows.spec, equal.contiguous()
    assert spec is not None
    size, margins = tuple(equal.shape[2:]), (0,) * len(spec.kernel)
    if outside is not None:
        size, margins = tuple(outside.shape[1:]), spec.padding
    frame = _nothing(len(equal), size) if outside is None else outside
    maps = equal.shape[0] * equal.shape[1]
    result = torch.zeros(*equal.shape[:2], *windows.size_out, dtype=torch.bool)
    sizes = *_three(equal.shape[2:]), *_three(size), *_three(margins, 0), *_three(spec.kernel), *_three(spec.stride)
    addresses = equal.data_ptr(), frame.data_ptr(), exist.data_ptr(), result.data_ptr()
    least = items_worth(_LEAST, maps, equal.numel() * sum(spec.kernel))
    _loops().through_windows(maps, least, *addresses, len(equal), *sizes, *_three(spec.dilation), *_three(windows.size_out))
    return result


def labels(along: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """As ``shifts.labels``."""
    taps, along = tuple(table.shape[1] for table in windows.tables), along.contiguous()
    samples, size = along.shape[1], windows.size_out
    found = torch.empty(samples, *size, windows.taps, dtype=torch.uint8)
    mixed = torch.empty(samples, *size, dtype=torch.bool)
    tables = *_compared(windows, taps), _table(taps)
    addresses = along.data_ptr(), *(t.ctypes.data for t in tables), found.data_ptr(), mixed.data_ptr()
    numbers = len(along), prod(along.shape[2:]), prod(size), tables[0].shape[1], windows.taps
    _loops().labels(samples, items_worth(_LEAST, samples, found.numel() * len(along)), *addresses, *numbers)
    return found, mixed


@lru_cache(maxsize=1024)
def _array(numbers: tuple[int, ...]) -> Any:
    return np.array(numbers, np.int64)


@lru_cache(maxsize=64)
def _nothing(number: int, size: tuple[int, ...]) -> Tensor:
    return torch.zeros(number, *size, dtype=torch.bool)


def _three(numbers: Sequence[int], outer: int = 1) -> tuple[int, ...]:
    """The numbers of three dimensions."""
    return (*(outer,) * (3 - len(numbers)), *numbers)


@lru_cache(maxsize=1024)
def _compared(windows: Windows, taps: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """What ``shift_loops._labels`` is given of windows: cells, dimensions, and which steps are between real cells."""
    here, there, dims = _adjacent_taps(taps)
    real = (windows.places[:, here] >= 0) & (windows.places[:, there] >= 0)
    cells = np.where(real, windows.places[:, here], 0).astype(np.uint64)
    bits = (real.astype(np.uint64) << np.arange(len(here), dtype=np.uint64)).sum(1, dtype=np.uint64)
    return np.ascontiguousarray(cells), dims.astype(np.uint64), bits


@lru_cache(maxsize=64)
def _table(taps: tuple[int, ...]) -> Any:
    """For each set of steps, as bits, the first tap that each tap is connected with: uint8 array (sets, taps)."""
    here, there, _ = _adjacent_taps(taps)
    found = np.tile(np.arange(prod(taps), dtype=np.uint8), (1 << len(here), 1))
    sets = np.arange(1 << len(here))[:, None] >> np.arange(len(here)) & 1
    for _ in range(prod(taps)):
        for e, (one, other) in enumerate(zip(here, there, strict=True)):
            least = np.minimum(found[:, one], found[:, other])
            for tap in (one, other):
                found[:, tap] = np.where(sets[:, e], least, found[:, tap])
    return found


def _adjacent_taps(taps: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Pairs of taps side by side in a window: the first, the second, and their dimension."""
    numbers = np.arange(prod(taps)).reshape(taps)
    pairs = [
        [np.take(numbers, range(start, side - 1 + start), axis=d).reshape(-1) for start in (0, 1)] for d, side in enumerate(taps)
    ]
    dims = [np.full(one.size, d) for d, (one, _) in enumerate(pairs)]
    return tuple(np.concatenate(parts) for parts in ([p[0] for p in pairs], [p[1] for p in pairs], dims))  # type: ignore[return-value]


def _loops() -> ModuleType:
    from fxcheck.scan import shift_loops  # imports numba

    return shift_loops
