"""The compiled touch scan of float32 and float64: look at chunks, and list places only where one has a hit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[import-untyped,import-not-found,unused-ignore]

from fxcheck.scan.jit import Kernel, Native, inlined, named
from fxcheck.scan.team import Team, items, next_piece, own_words, pointer

_CHUNK = 4096  # entries: they stay in the first-level cache when there are several kinks
_LIMITS = {4: (np.uint32(1 << 24), np.uint32(0xFF << 24)), 8: (np.uint64(1 << 53), np.uint64(0x7FF << 53))}
"""By bytes: the smallest normal number and infinity, their bits shifted by one, which drops the sign."""


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
def _is_clear(y, kinks, normal, infinity, first, last):  # type: ignore[no-untyped-def]
    """Whether the entries in [first, last) are finite and of other magnitudes than all kinks, by their bits.

    Shifting by one drops the sign: 0 and -0 are one, as they are for ``==``, and a kink's mirror image looks like the kink.
    Subnormal entries look like 0, which they equal where the processor is told to flush them.
    Minima and maxima of integers cost the processor less than comparisons of floats, which end in masks.
    """
    word = y.dtype.type
    one, other = word(kinks[0] << 1), word(kinks[kinks.size - 1] << 1)
    close = normal if one == 0 else word(1)
    for start in range(first, last, _CHUNK):
        begin, number = np.uint64(start), np.uint64(min(_CHUNK, last - start))
        largest, least, second = word(0), infinity, infinity
        if one == 0 == other:  # as of a ReLU, which are most
            for i in range(number):
                value = word(y[begin + i] << 1)
                largest, least = max(largest, value), min(least, value)
        else:
            for i in range(number):
                value = word(y[begin + i] << 1)
                largest, least = max(largest, value), min(least, word(value ^ one))
                second = min(second, word(value ^ other))
        for kink in kinks[1:-1]:
            for i in range(number):
                second = min(second, word((y[begin + i] ^ kink) << 1))
        if least < close or second == 0 or largest >= infinity:
            return False
    return True


def _clear(word: Any, normal: Any, infinity: Any) -> Native:
    def clear(y, number, kinks, kinks_number):  # type: ignore[no-untyped-def]
        return _is_clear(carray(y, number, word), carray(kinks, kinks_number, word), normal, infinity, 0, number)

    return Native(named(clear, f"clear_{word.__name__}"), _ADDRESSES)


def _pieces(word: Any, normal: Any, infinity: Any) -> Team:
    """``clear`` in several threads: words are the entries' address, the kinks', their number, and 0, or 1 where one is hit."""

    def loop(block):  # type: ignore[no-untyped-def]
        words = own_words(block, 4)
        y, kinks = carray(pointer(words[0]), items(block), word), carray(pointer(words[1]), words[2], word)
        _, first, last = next_piece(block)
        while first >= 0:
            if not _is_clear(y, kinks, normal, infinity, first, last):
                words[3] = 1
            _, first, last = next_piece(block)

    return Team(named(loop, f"pieces_{word.__name__}"))


_ADDRESSES = types.boolean(types.voidptr, types.intp, types.voidptr, types.intp)
clear = {4: _clear(np.uint32, *_LIMITS[4]), 8: _clear(np.uint64, *_LIMITS[8])}
"""By bytes of an entry: whether all of ``number`` entries at an address are finite and of other magnitudes than all kinks,
the least of which in magnitude comes first."""

pieces_clear = {4: _pieces(np.uint32, *_LIMITS[4]), 8: _pieces(np.uint64, *_LIMITS[8])}
