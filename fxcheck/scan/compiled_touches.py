"""Touches with numba: one pass over memory. Tensors with gaps go to the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from math import nan
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fxcheck.scan import reference
from fxcheck.scan.dense import FLOATS, flat, order_of, row_major, widened
from fxcheck.scan.reference import CLEAR, Touches
from fxcheck.scan.threads import pieces

_LEAST = 1 << 16  # entries per thread
_LEAST_LISTED = 1 << 19  # where pieces begin in Python


def touched(y: Tensor, kinks: Sequence[float]) -> Touches:
    """As ``reference.touched``."""
    if is_clear(y, tuple(kinks)):
        return CLEAR
    order = order_of(y) if y.dtype in FLOATS else None
    if order is None:
        return reference.touched(y, kinks)
    entries = flat(widened(y), order)
    scan = partial(_touched, entries, _rounded(tuple(kinks), y.dtype, entries.dtype))
    indices, which, finite = zip(*pieces(scan, entries.size, _LEAST_LISTED), strict=True)
    if not any(part.size for part in indices):
        return replace(CLEAR, finite=all(finite))
    places, kind = row_major(np.concatenate(indices), y, order), np.concatenate(which)
    if order != tuple(range(y.ndim)):
        ascending = np.argsort(places)
        places, kind = places[ascending], kind[ascending]
    return Touches(torch.from_numpy(places), torch.from_numpy(kind), all(finite))


def is_clear(y: Tensor, kinks: tuple[float, ...]) -> bool:
    """Whether one look shows a tensor without gaps to be finite and off all kinks: the common case, as cheap as can be.

    Where it says no, a closer look may find nothing: a number and its negative, 0 and subnormals are one to it.
    """
    look = _look_for(kinks, y.dtype)
    if look is None or not (y.is_contiguous() or order_of(y) is not None):
        return False
    number = y.numel()
    if number < 2 * _LEAST:
        return bool(look.alone(y.data_ptr(), number, look.address, look.number))
    return not look.together(number, _LEAST, y.data_ptr(), look.address, look.number, 0)[-1]


class _Look(NamedTuple):
    """How a tensor of one dtype is looked at for some kinks."""

    alone: Callable[..., int]
    """By one thread, see ``touch_loops.clear``."""
    together: Callable[..., Any]
    """By several, see ``touch_loops.pieces_clear``."""
    kinks: Any
    """Rounded, by magnitude."""
    address: int
    """Of those."""
    number: int


@lru_cache(maxsize=256)
def _look_for(kinks: tuple[float, ...], dtype: torch.dtype) -> _Look | None:
    width = _WIDTHS.get(dtype)
    if width is None:
        return None
    held = _rounded(tuple(sorted(kinks, key=abs)), dtype, np.dtype(f"f{width}"))
    return _Look(_loops().clear[width].compile(), _loops().pieces_clear[width], held, held.ctypes.data, len(held))


@lru_cache(maxsize=1)
def _loops() -> ModuleType:
    from fxcheck.scan import touch_loops  # imports numba

    return touch_loops


_WIDTHS = {torch.float32: 4, torch.float64: 8}


def _touched(entries: Any, kinks: Any, first: int, last: int) -> Any:
    return _loops().touched(entries, kinks, first, last)


@lru_cache(maxsize=256)
def _rounded(kinks: tuple[float, ...], dtype: torch.dtype, compared: np.dtype[Any]) -> Any:
    # Nothing equals NaN: it stands for no kink.
    return np.array(reference.rounded(kinks or (nan,), dtype), compared)
