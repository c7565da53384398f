"""The compiled loops. Importing this module imports numba, so only ``compiled`` does, at the first scan.

All loops work on the bit patterns of the floats, so that float32, float64, bfloat16 and float16 share three
specialisations and one meaning: equal bits, or both a zero. ``magnitude`` masks off the sign, ``infinity`` is the bit
pattern of +inf. A NaN maximum is sorted out per window, since its bits may equal those of a NaN cell.
The loops are serial and without the GIL; ``compiled`` runs pieces of them side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit  # type: ignore[import-untyped,import-not-found,unused-ignore]

_CHUNK = 4096  # entries looked at before asking whether anything was seen: they stay in the first-level cache
_FULL = 250  # a byte that counts taps is brought back to 2 before it could wrap round


class Kernel:
    """A function compiled at its first call, kept in numba's cache on disk where that can be written.

    Args:
        function: the loop, in the Python that numba compiles.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.compiled: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Run the compiled loop."""
        if self.compiled is None:
            self.compiled = _compile(self.function)
        try:
            return self.compiled(*arguments)
        except OSError:  # the cache was writable when asked, and then was not
            self.compiled = njit(nogil=True)(self.function)
            return self.compiled(*arguments)


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no place to keep its cache in
        return njit(nogil=True)(function)


@njit(inline="always")
def _same(a, b, magnitude):  # type: ignore[no-untyped-def]
    return (a == b) | (((a | b) & magnitude) == 0)


@njit(inline="always")
def _ordered(bits, magnitude):  # type: ignore[no-untyped-def]
    """The bits of a float as an integer that compares as the float does; both zeros give 0."""
    return bits if bits >= 0 else -(bits & magnitude)


# Indices start at 0 on a slice in the loops below: only then does LLVM know that none is negative, and vectorise.
@njit(nogil=True)
def _wild(bits, start, number, magnitude, infinity):  # type: ignore[no-untyped-def]
    """Whether some entry is NaN or infinite."""
    wild = False
    for i in range(number):
        wild |= (bits[start + i] & magnitude) >= infinity
    return wild


@njit(nogil=True)
def _alarm(bits, kinks, magnitude, infinity):  # type: ignore[no-untyped-def]
    """Whether some entry is on a kink, and whether some entry is NaN or infinite."""
    if kinks.size == 0:
        return False, _wild(bits, np.uint64(0), np.uint64(bits.size), magnitude, infinity)
    hit, wild, first = False, False, kinks[0]
    for i in range(bits.size):
        wild |= (bits[i] & magnitude) >= infinity
        hit |= _same(bits[i], first, magnitude)
    for kink in kinks[1:]:
        for i in range(bits.size):
            hit |= _same(bits[i], kink, magnitude)
    return hit, wild


def _touched(bits, first, last, kinks, magnitude, infinity):  # type: ignore[no-untyped-def]
    indices = [first for _ in range(0)]
    which = [first for _ in range(0)]
    finite = True
    for start in range(first, last, _CHUNK):
        part = bits[start : min(start + _CHUNK, last)]
        hit, wild = _alarm(part, kinks, magnitude, infinity)
        finite = finite and not wild
        if not hit:
            continue
        for i in range(part.size):
            for k in range(kinks.size):
                if _same(part[i], kinks[k], magnitude):
                    indices.append(start + i)
                    which.append(k)
                    break
    return np.array(indices), np.array(which), finite


# The loops below take whole arrays and unsigned offsets, and the inner ones are inlined: slicing an array per row, or
# counting references to it per call, would cost more than the row.
@njit(inline="always")
def _compare(x, cell, step, out, best, counts, into, number, magnitude):  # type: ignore[no-untyped-def]
    """Add to ``counts`` where every ``step``-th cell equals the maximum beside it."""
    if step == 1:
        for j in range(number):
            counts[into + j] += _same(x[cell + j], out[best + j], magnitude)
    elif step == 2:  # a constant step compiles to shuffles
        for j in range(number):
            counts[into + j] += _same(x[cell + np.uint64(2) * j], out[best + j], magnitude)
    else:
        for j in range(number):
            counts[into + j] += _same(x[cell + step * j], out[best + j], magnitude)


@njit(inline="always")
def _compare_pairs(x, cell, out, best, counts, number, magnitude):  # type: ignore[no-untyped-def]
    """As ``_compare`` for two neighbouring cells at a step of two, in one go."""
    for j in range(number):
        value, at = out[best + j], cell + np.uint64(2) * j
        counts[j] += _same(x[at], value, magnitude) + _same(x[at + np.uint64(1)], value, magnitude)


@njit(nogil=True, error_model="numpy")
def _settle(out, best, counts, number, skip, floor, magnitude, infinity):  # type: ignore[no-untyped-def]
    """Reduce the counts of one row of outputs to 1 where a tied window counts, else 0; how many do."""
    hit = False
    for j in range(number):
        hit |= counts[j] >= 2
    if not hit:
        return 0
    for j in range(number):
        value = out[best + j]
        real = ((value & magnitude) <= infinity) & (_ordered(value, magnitude) > floor)
        counts[j] = (counts[j] >= 2) & real
    for other in skip:
        for j in range(number):
            counts[j] = counts[j] & ~_same(out[best + j], other, magnitude)
    tied = np.uint32(0)
    for j in range(number):
        tied += np.uint32(counts[j])
    return np.int64(tied)


@njit(nogil=True, error_model="numpy")
def _list(counts, mixed, position, wide, lane, start, listed, found):  # type: ignore[no-untyped-def]
    """List the mixed windows among the tied ones of one row; how many were found so far."""
    for j in range(wide):
        if mixed[position + j] == 0:
            continue
        for k in range(j * lane, (j + 1) * lane):
            if counts[k] != 0:
                if found < listed.size:
                    listed[found] = start + k
                found += 1
    return found


@njit(inline="always")
def _clamp(counts, into, number, used):  # type: ignore[no-untyped-def]
    """Bring the counts back to at most 2 before two more taps could make a byte wrap round; their bound until then."""
    if used < _FULL:
        return used
    for j in range(number):
        counts[into + j] = min(counts[into + j], 2)
    return 2


@njit(inline="always")
def _row(x, line, out, best, counts, taps, pair, magnitude, used):  # type: ignore[no-untyped-def]
    """Add the taps of one row of cells to the counts of one row of outputs, both side by side in memory.

    ``used`` bounds the counts, here and in what is returned.
    """
    for k in range(taps.shape[0]):
        if k == pair + 1 and pair >= 0:
            continue
        low, number, at, step = taps[k, 0], np.uint64(taps[k, 1]), line + taps[k, 2], taps[k, 3]
        used = _clamp(counts, np.uint64(0), np.uint64(counts.size), used)
        if k == pair:
            _compare_pairs(x, np.uint64(at), out, np.uint64(best), counts, number, magnitude)
        else:
            into, start = np.uint64(low), np.uint64(best + low)
            _compare(x, np.uint64(at), np.uint64(step), out, start, counts, into, number, magnitude)
        used += 2 if k == pair else 1
    return used


@njit(nogil=True, error_model="numpy")
def _pixels(x, line, out, best, counts, wide, lane, magnitude, used):  # type: ignore[no-untyped-def]
    """As ``_row`` for channels_last, ``lane`` channels side by side, and for tables that are no strided slices."""
    one, number, most = np.uint64(1), np.uint64(lane), used
    for j in range(wide.shape[0]):
        into, mine = np.uint64(j * lane), used
        for k in range(wide.shape[1]):
            if wide[j, k] >= 0:
                mine = _clamp(counts, into, number, mine) + 1
                at = np.uint64(line + wide[j, k] * lane)
                _compare(x, at, one, out, np.uint64(best) + into, counts, into, number, magnitude)
        most = max(most, mine)
    return most


def _ties(x, out, mixed, sizes, deep, high, wide, taps, pair, skip, floor, magnitude, infinity, first, last, limit):  # type: ignore[no-untyped-def]
    depth, height, length, lane, fold = sizes  # lane: channels side by side; fold: channels in the outermost dimension
    volume, rows, width = depth * height * length * lane, deep.shape[0] * high.shape[0], wide.shape[0] * lane
    counts, listed = np.zeros(width, np.uint8), np.empty(limit, np.int64)
    tied, found, wild = 0, 0, False
    outer, upper, lower = first // rows, first % rows // high.shape[0], first % rows % high.shape[0]
    begin = first * volume // rows
    for row in range(first, last):
        best, used = row * width, 0
        # Every row of outputs looks after its share of the input, so that each cell is asked once if it is finite.
        end = (row + 1) * volume // rows
        wild = wild or _wild(x, np.uint64(begin), np.uint64(end - begin), magnitude, infinity)
        begin = end
        for j in range(counts.size):
            counts[j] = 0
        for i in range(deep.shape[1]):
            for k in range(high.shape[1]):
                d, h = deep[upper, i], high[lower, k]
                if d < 0 or h < 0:
                    continue
                line = ((outer * depth + d) * height + h) * length * lane
                if taps.shape[0]:
                    used = _row(x, line, out, best, counts, taps, pair, magnitude, used)
                else:
                    used = _pixels(x, line, out, best, counts, wide, lane, magnitude, used)
        more = _settle(out, np.uint64(best), counts, np.uint64(width), skip, floor, magnitude, infinity)
        if more:
            tied += more
            position = ((outer // fold * deep.shape[0] + upper) * high.shape[0] + lower) * wide.shape[0]
            found = _list(counts, mixed, position, wide.shape[0], lane, best, listed, found)
        lower += 1
        if lower == high.shape[0]:
            upper, lower = upper + 1, 0
            if upper == deep.shape[0]:
                outer, upper = outer + 1, 0
    return tied, listed[: min(found, limit)], found, not wild


touched = Kernel(_touched)
ties = Kernel(_ties)
