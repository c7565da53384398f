"""The compiled touch scan of float32 and float64: look at chunks, and list places only where one has a hit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[import-untyped,import-not-found,unused-ignore]

from fxcheck.scan.jit import Kernel, Native, inlined
from fxcheck.scan.team import HEADER, Team, next_piece, pointer

_CHUNK = 4096  # entries: they stay in the first-level cache when there are several kinks


@inlined
def _look(y, start, number, kinks):  # type: ignore[no-untyped-def]
    """Whether some entry is on a kink, and whether some entry is NaN or infinite."""
    hit, wild = False, False
    if kinks.size == 1:
        kink = kinks[0]
        for i in range(number):
            value = y[start + i]
            wild |= value - value != 0
            hit |= value == kink
    else:
        first, second = kinks[0], kinks[1]
        for i in range(number):
            value = y[start + i]
            wild |= value - value != 0
            hit |= (value == first) | (value == second)
        for kink in kinks[2:]:
            for i in range(number):
                hit |= y[start + i] == kink
    return hit, wild


def _touched(y, kinks, first, last):  # type: ignore[no-untyped-def]
    """The entries in [first, last) on one of at least one kink, which one, and whether all entries are finite."""
    indices = [first for _ in range(0)]
    which = [first for _ in range(0)]
    finite = True
    for start in range(first, last, _CHUNK):
        number = min(_CHUNK, last - start)
        hit, wild = _look(y, np.uint64(start), np.uint64(number), kinks)
        finite = finite and not wild
        if hit:
            for i in range(start, start + number):
                for k in range(kinks.size):
                    if y[i] == kinks[k]:
                        indices.append(i)
                        which.append(k)
                        break
    return np.array(indices), np.array(which), finite


touched = Kernel(_touched)


@inlined
def _all_clear(y, kinks, first, last):  # type: ignore[no-untyped-def]
    for start in range(first, last, _CHUNK):
        hit, wild = _look(y, np.uint64(start), np.uint64(min(_CHUNK, last - start)), kinks)
        if hit or wild:
            return False
    return True


def _clear_32(y, number, kinks, kinks_number):  # type: ignore[no-untyped-def]
    return _all_clear(carray(y, number, np.float32), carray(kinks, kinks_number, np.float32), 0, number)


def _clear_64(y, number, kinks, kinks_number):  # type: ignore[no-untyped-def]
    return _all_clear(carray(y, number, np.float64), carray(kinks, kinks_number, np.float64), 0, number)


def _pieces(kind: Any) -> Team:
    """``clear`` in several threads: words are the entries' address, the kinks', their number, and 0, or 1 where one is hit."""

    def loop(block):  # type: ignore[no-untyped-def]
        words = carray(block, HEADER + 4, np.int64)
        y, kinks = carray(pointer(words[3]), words[2], kind), carray(pointer(words[4]), words[5], kind)
        _, first, last = next_piece(block)
        while first >= 0:
            if not _all_clear(y, kinks, first, last):
                words[6] = 1
            _, first, last = next_piece(block)

    return Team(loop)


_ADDRESSES = types.boolean(types.voidptr, types.intp, types.voidptr, types.intp)
clear = {4: Native(_clear_32, _ADDRESSES), 8: Native(_clear_64, _ADDRESSES)}
"""By bytes of an entry: whether all of ``number`` entries at an address are finite and on none of the kinks."""

pieces_clear = {4: _pieces(np.float32), 8: _pieces(np.float64)}
