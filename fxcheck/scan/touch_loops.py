"""The compiled touch scan of float32 and float64: look at chunks, and list places only where one has a hit."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[import-untyped,import-not-found,unused-ignore]

from fxcheck.scan.jit import Kernel, as_builtin, inlined, named
from fxcheck.scan.team import Team, items, next_piece, own_words, pointer

_CHUNK = 4096  # entries: they stay in the first-level cache when there are several kinks
_WORDS: dict[int, Any] = {4: np.uint32, 8: np.uint64}
"""By bytes, as are the limits."""
_LIMITS = {4: (np.uint32(1 << 24), np.uint32(0xFF << 24)), 8: (np.uint64(1 << 53), np.uint64(0x7FF << 53))}
"""The smallest normal number and infinity, their bits shifted by one, which drops the sign."""


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


@lru_cache(maxsize=2)
def clear(width: int) -> Callable[[int, int, int, int], bool]:
    """Whether entries are finite and of other magnitudes than all kinks; compiled at the first call.

    Args:
        width: bytes of an entry.

    Returns:
        A function of the address of the entries, their number, the address of the kinks, of which the least in magnitude comes
        first, and their number.
    """
    word, (normal, infinity) = _WORDS[width], _LIMITS[width]

    def look(y, number, kinks, kinks_number):  # type: ignore[no-untyped-def]
        entries, held = carray(pointer(y), number, word), carray(pointer(kinks), kinks_number, word)
        return _is_clear(entries, held, normal, infinity, 0, number)

    return as_builtin(named(look, f"clear_{word.__name__}"), types.boolean(types.intp, types.intp, types.intp, types.intp))


def _pieces(width: int) -> Team:
    """``clear`` in several threads: words are the entries' address, the kinks', their number, and 0, or 1 where one is hit."""

    word, (normal, infinity) = _WORDS[width], _LIMITS[width]

    def loop(block):  # type: ignore[no-untyped-def]
        words = own_words(block, 4)
        y, kinks = carray(pointer(words[0]), items(block), word), carray(pointer(words[1]), words[2], word)
        _, first, last = next_piece(block)
        while first >= 0:
            if not _is_clear(y, kinks, normal, infinity, first, last):
                words[3] = 1
            _, first, last = next_piece(block)

    return Team(named(loop, f"pieces_{word.__name__}"))


pieces_clear = {width: _pieces(width) for width in _WORDS}
"""By bytes of an entry."""
