"""Touches with numba: one pass over memory. Tensors with gaps go to the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from math import nan
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxcheck.scan import reference
from fxcheck.scan.dense import FLOATS, flat, order_of, row_major, widened
from fxcheck.scan.reference import CLEAR, Touches
from fxcheck.scan.threads import pieces

Glance = Callable[[Tensor], int]
"""See ``glance``."""
_LEAST = 1 << 16  # entries per thread
_LEAST_LISTED = 1 << 19  # where pieces begin in Python


def touched(y: Tensor, kinks: Sequence[float], glanced: bool = False) -> Touches:
    """As ``reference.touched``."""
    look = None if glanced else glance(tuple(kinks), y.dtype)
    if not y.numel() or (look is not None and look(y)):
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


@lru_cache(maxsize=256)
def glance(kinks: tuple[float, ...], dtype: torch.dtype) -> Glance | None:
    """How to look at tensors of one dtype for some kinks: the common case, as cheap as can be.

    Returns:
        A function of a tensor: how many entries it has, where one look shows a plain tensor without gaps, of this dtype, to be
        finite and off all kinks, else 0. Then a closer look may find nothing: a number and its negative (the signs of some
        views are not in memory), 0 and subnormals are one to it. None for dtypes that are not looked at so.
    """
    width = _WIDTHS.get(dtype)
    if width is None:
        return None
    held = _rounded(tuple(sorted(kinks, key=abs)), dtype, np.dtype(f"f{width}"))
    alone, together = _loops().clear(width), _loops().pieces_clear[width]
    address, count = held.ctypes.data, len(held)
    _touched(np.ones(1, held.dtype), held, 0, 1)  # loads the closer look, which takes long, before a step needs it

    def entries_if_clear(y: Tensor) -> int:
        if type(y) is not Tensor or y.dtype is not dtype or not y.is_cpu or y.layout is not torch.strided:
            return 0
        if not y.is_contiguous() and order_of(y) is None:
            return 0
        number, entries = y.numel(), y.data_ptr()
        if not entries:  # zeros that are nowhere, as a backward pass may bring
            return 0
        if number < 2 * _LEAST:
            return number if alone(entries, number, address, count) else 0
        return 0 if together(number, _LEAST, entries, address, count, 0)[-1] else number

    entries_if_clear.kinks = held  # type: ignore[attr-defined]  # whose memory is read
    return entries_if_clear


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
