"""The compiled loop of ``fields``, over pairs of positions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import carray  # type: ignore[import-untyped,import-not-found,unused-ignore]

from fxcheck.scan.jit import inlined, named, outlined
from fxcheck.scan.team import Team, items, next_piece, own_words, pointer


@inlined
def _along(words, dimension):  # type: ignore[no-untyped-def]
    """Patterns, beginnings and cells of one dimension."""
    size, at = words[11 + dimension], 14 + 3 * dimension
    patterns, starts = carray(pointer(words[at]), size, np.int64), carray(pointer(words[at + 1]), size + 1, np.int64)
    return patterns, starts, carray(pointer(words[at + 2]), starts[size], np.int64)


@inlined
def _read(bits, row, cell, step, is_zero):  # type: ignore[no-untyped-def]
    return 0 if is_zero or cell < 0 else bits[row + cell * step]


@outlined
def _same(bits, first, strides, deep, high, wide, one, other):  # type: ignore[no-untyped-def]
    """Whether two positions (three numbers each) of one pattern read equal bits in the channel that begins at ``first``."""
    x, u = deep[1][one[0]], deep[1][other[0]]
    y, v = high[1][one[1]], high[1][other[1]]
    z, w = wide[1][one[2]], wide[1][other[2]]
    for i in range(deep[1][one[0] + 1] - x):
        a, b = deep[2][x + i], deep[2][u + i]
        for j in range(high[1][one[1] + 1] - y):
            c, d = high[2][y + j], high[2][v + j]
            row, rival = first + a * strides[2] + c * strides[3], first + b * strides[2] + d * strides[3]
            for k in range(wide[1][one[2] + 1] - z):
                left = _read(bits, row, wide[2][z + k], strides[4], a < 0 or c < 0)
                if left != _read(bits, rival, wide[2][w + k], strides[4], b < 0 or d < 0):
                    return False
    return True


@inlined
def _placed(position, size):  # type: ignore[no-untyped-def]
    return position // (size[1] * size[2]), position // size[2] % size[1], position % size[2]


@lru_cache(maxsize=4)
def equal(bytes_each: int) -> Team:
    """Loop over pairs: 1 in ``same`` (P,) where both positions read equal bits.

    Words: addresses of the input's bits, ``sample``, ``one``, ``other`` (P,) and ``same``; C; strides of N, C, D, H, W in
    entries; ``Field.words``.
    """
    kind: Any = np.dtype(f"i{bytes_each}").type

    def loop(block):  # type: ignore[no-untyped-def]
        words = own_words(block, 23)
        pairs, channels, strides = items(block), words[5], (words[6], words[7], words[8], words[9], words[10])
        bits = carray(pointer(words[0]), 1, kind)  # as long as the strides say
        sample, one = carray(pointer(words[1]), pairs, np.int64), carray(pointer(words[2]), pairs, np.int64)
        other, same = carray(pointer(words[3]), pairs, np.int64), carray(pointer(words[4]), pairs, np.uint8)
        size = words[11], words[12], words[13]
        deep, high, wide = _along(words, 0), _along(words, 1), _along(words, 2)
        _, first, last = next_piece(block)
        while first >= 0:
            for i in range(first, last):
                a, b = _placed(one[i], size), _placed(other[i], size)
                equal = deep[0][a[0]] == deep[0][b[0]] and high[0][a[1]] == high[0][b[1]] and wide[0][a[2]] == wide[0][b[2]]
                for channel in range(channels):
                    at = sample[i] * strides[0] + channel * strides[1]
                    equal = equal and _same(bits, at, strides, deep, high, wide, a, b)
                same[i] = equal
            _, first, last = next_piece(block)

    return Team(named(loop, f"equal_{bytes_each}"))
