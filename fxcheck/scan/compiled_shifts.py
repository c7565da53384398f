"""The steps of ``shift_steps`` with numba."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxcheck.scan.threads import pieces
from fxcheck.scan.windows import Windows

_LEAST = 1 << 17  # bytes per thread


def of_input(bits: Tensor, offsets: tuple[int, ...], exist: Tensor, margins: tuple[int, ...]) -> Tensor:
    """As ``shift_steps.of_input``."""
    added = (1,) * (5 - bits.dim())
    size = tuple(exist.shape[1:])
    equal = torch.empty(len(offsets), bits.shape[0], *size, dtype=torch.bool)
    cells = bits.numpy().reshape(*bits.shape[:2], *added, *bits.shape[2:])
    frame = (*(0,) * len(added), *margins), (*added, *size)
    tensors = cells, *frame, np.array(offsets), _bytes(exist, len(offsets), -1), _bytes(equal, *equal.shape[:2], -1)
    _run(_loops().of_input, tensors, bits.shape[0], bits.numel() * len(offsets))
    return equal


def through_windows(equal: Tensor, windows: Windows, outside: Tensor | None, exist: Tensor) -> Tensor:
    """As ``shift_steps.through_windows``."""
    spec = windows.spec
    assert spec is not None
    added = 3 - len(spec.kernel)
    size_in = (1,) * added + tuple(equal.shape[2:])
    size = size_in if outside is None else (1,) * added + tuple(outside.shape[1:])
    margins = (0,) * 3 if outside is None else (0,) * added + spec.padding
    kernel, stride, dilation, size_out = ((1,) * added + v for v in (spec.kernel, spec.stride, spec.dilation, windows.size_out))
    result = torch.empty(*equal.shape[:2], *windows.size_out, dtype=torch.bool)
    frame = np.zeros((len(equal), prod(size)), np.uint8) if outside is None else _bytes(outside, len(equal), -1)
    tensors = _bytes(equal.contiguous(), -1), frame, _bytes(exist, len(equal), -1), _bytes(result, -1)
    numbers = size_in, size, margins, (kernel, stride, dilation), size_out
    _run(_loops().through_windows, (*tensors, *numbers), equal.shape[0] * equal.shape[1], equal.numel() * sum(kernel))
    return result


def labels(along: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """As ``shifts.labels``."""
    taps = tuple(table.shape[1] for table in windows.tables)
    samples, size = along.shape[1], windows.size_out
    found = torch.empty(samples, *size, windows.taps, dtype=torch.uint8)
    mixed = torch.empty(samples, *size, dtype=torch.bool)
    tensors = _bytes(along.contiguous(), len(along), -1), *_compared(windows, taps), _table(taps)
    results = found.numpy().reshape(samples, -1, windows.taps), _bytes(mixed, samples, -1)
    _run(_loops().labels, (*tensors, *results), samples, found.numel() * len(along))
    return found, mixed


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


def _run(loop: Any, tensors: tuple[Any, ...], samples: int, work: int) -> None:
    pieces(lambda first, last: loop(*tensors, first, last), samples, -(-_LEAST * samples // max(work, 1)))


def _bytes(x: Tensor, *shape: int) -> Any:
    return x.view(torch.uint8).numpy().reshape(shape)


def _loops() -> ModuleType:
    from fxcheck.scan import shift_loops  # imports numba

    return shift_loops
