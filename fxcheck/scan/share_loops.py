"""The compiled scans of float32 and float64 for maxima that share the gradient: look first, and list only at a hit."""

from __future__ import annotations

import numpy as np

from fxcheck.scan.jit import Kernel, inlined, outlined

_CHUNK = 4096  # entries of two tensors: they stay in the first-level cache


@inlined
def _begin(outer, number):  # type: ignore[no-untyped-def]
    """Where a line of outputs begins: in the operand's and the result's memory, and as row-major indices into both."""
    source, best, entry, output = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for d in range(outer.shape[0] - 1, -1, -1):
        at = number % outer[d, 0]
        number //= outer[d, 0]
        source += at * outer[d, 1]
        best += at * outer[d, 2]
        entry += at * outer[d, 3]
        output += at * outer[d, 4]
    return source, best, entry, output


@inlined
def _compare(x, at, step, values, counts, into, number):  # type: ignore[no-untyped-def]
    """Count for outputs side by side one entry each that equals the extremum; whether one is NaN or infinite."""
    wild = False
    for j in range(number):
        entry = x[at + j * step]
        counts[into + j] += np.int32(entry == values[into + j])
        wild |= entry - entry != 0
    return wild


@inlined
def _compare_four(x, source, step, taps, k, values, counts, into, number):  # type: ignore[no-untyped-def]
    """The same for four entries each."""
    wild = False
    one, two = source + np.uint64(taps[k, 0]), source + np.uint64(taps[k + 1, 0])
    three, four = source + np.uint64(taps[k + 2, 0]), source + np.uint64(taps[k + 3, 0])
    for j in range(number):
        a, b, c, d, value = x[one + j * step], x[two + j * step], x[three + j * step], x[four + j * step], values[into + j]
        counts[into + j] += np.int32(a == value) + np.int32(b == value) + np.int32(c == value) + np.int32(d == value)
        wild |= (a - a != 0) | (b - b != 0) | (c - c != 0) | (d - d != 0)
    return wild


@inlined
def _count_line(x, source, step, taps, run, values, counts, into, number):  # type: ignore[no-untyped-def]
    """Count for outputs side by side the entries that equal the extremum, one or four of each output at a time."""
    wild = False
    for j in range(number):
        counts[into + j] = 0
    for r in range(run[0]):
        at, k = np.uint64(source + r * run[1]), 0
        while k + 4 <= taps.shape[0]:
            wild |= _compare_four(x, at, step, taps, k, values, counts, into, number)
            k += 4
        while k < taps.shape[0]:
            wild |= _compare(x, at + np.uint64(taps[k, 0]), step, values, counts, into, number)
            k += 1
    return wild


@inlined
def _count_pairs(x, source, taps, run, values, counts, into, number):  # type: ignore[no-untyped-def]
    """The same for every second place, taps being neighbours by twos: what is read then has no gaps."""
    wild, one, two = False, np.uint64(1), np.uint64(2)
    for j in range(number):
        counts[into + j] = 0
    for r in range(run[0]):
        for k in range(0, taps.shape[0], 2):
            at = np.uint64(source + r * run[1] + taps[k, 0])
            for j in range(number):
                a, b, value = x[at + two * j], x[at + two * j + one], values[into + j]
                counts[into + j] += np.int32(a == value) + np.int32(b == value)
                wild |= (a - a != 0) | (b - b != 0)
    return wild


@outlined
def _count_across(x, source, rows, line, taps, run, values, counts, high, wide, paired):  # type: ignore[no-untyped-def]
    """Count for lines of outputs side by side."""
    wild, number = False, np.uint64(wide)
    for i in range(high):
        at, into = source + i * rows[1], np.uint64(i * wide)
        if paired:
            wild |= _count_pairs(x, at, taps, run, values, counts, into, number)
        elif line[1] == 1:
            wild |= _count_line(x, at, np.uint64(1), taps, run, values, counts, into, number)
        else:
            wild |= _count_line(x, at, np.uint64(line[1]), taps, run, values, counts, into, number)
    return wild


@inlined
def _count_along(x, source, rows, line, taps, run, values, counts, high, wide):  # type: ignore[no-untyped-def]
    """Count for each output in turn; its entries lie in runs without gaps."""
    wild = False
    for i in range(high):
        for j in range(wide):
            count, value = np.int32(0), values[i * wide + j]
            for t in range(taps.shape[0]):
                at = np.uint64(source + i * rows[1] + j * line[1] + taps[t, 0])
                for r in range(np.uint64(run[0])):
                    entry = x[at + r]
                    count += np.int32(entry == value)
                    wild |= entry - entry != 0
            counts[i * wide + j] = count
    return wild


@outlined
def _fill(values, out, best, down, step, high, wide):  # type: ignore[no-untyped-def]
    """Copy lines of extrema one behind the other."""
    for i in range(high):
        into, at = np.uint64(i * wide), np.uint64(best + i * down)
        if step == 1:
            for j in range(np.uint64(wide)):
                values[into + j] = out[at + j]
        else:
            for j in range(np.uint64(wide)):
                values[into + j] = out[at + j * np.uint64(step)]


@outlined
def _is_hit(counts, values, number, skip, floor):  # type: ignore[no-untyped-def]
    """Reduce counts to 0 where ties do not count; whether some output is tied where they do."""
    hit = False
    for j in range(number):
        hit |= counts[j] >= 2
    if hit:
        for j in range(number):
            counts[j] *= np.int32(not values[j] <= floor)
        for flat in skip:
            for j in range(number):
                counts[j] *= np.int32(values[j] != flat)
        hit = False
        for j in range(number):
            hit |= counts[j] >= 2
    return hit


def _shared(x, out, outer, rows, line, tile, taps, run, along, paired, skip, floor, limit, first, last):  # type: ignore[no-untyped-def]
    """The entries that attain an extremum with others, of the tiles ``first`` to ``last`` (exclusive) of outputs.

    Dimensions that are kept are rows (size, steps in the memory of ``x`` and of ``out``, row-major steps in both):
    ``outer`` ones, and the two that are cut into tiles, ``rows`` of a ``line`` each. An output's entries are ``taps``
    (place in memory, row-major index) of a ``run`` (size, step in memory, row-major step). The loop goes ``along`` the
    run, or across outputs, whose taps may be ``paired``.

    Returns:
        Outputs and entries, at most ``limit`` of them and those of one more output; whether all of ``x`` is finite.
    """
    outputs, entries = [first for _ in range(0)], [first for _ in range(0)]
    size = tile[0] * tile[1]
    values, counts = np.empty(size, x.dtype), np.empty(size, np.int32)
    wild, across, down = False, -(-line[0] // tile[1]), -(-rows[0] // tile[0])
    for at in range(first, last):
        source, best, entry, output = _begin(outer, at // across // down)
        row, start = at // across % down * tile[0], at % across * tile[1]
        high, wide = min(tile[0], rows[0] - row), min(tile[1], line[0] - start)
        source, best = source + row * rows[1] + start * line[1], best + row * rows[2] + start * line[2]
        _fill(values, out, best, rows[2], line[2], high, wide)
        if along:
            wild |= _count_along(x, source, rows, line, taps, run, values, counts, high, wide)
        else:
            wild |= _count_across(x, source, rows, line, taps, run, values, counts, high, wide, paired)
        if not _is_hit(counts, values, np.uint64(high * wide), skip, floor):
            continue
        for k in range(high * wide):
            if counts[k] < 2 or len(outputs) > limit:
                continue
            i, j = row + k // wide, start + k % wide
            inside = source + (i - row) * rows[1] + (j - start) * line[1]
            for t in range(taps.shape[0]):
                for r in range(run[0]):
                    if x[inside + taps[t, 0] + r * run[1]] == values[k]:
                        entries.append(entry + i * rows[3] + j * line[3] + taps[t, 1] + r * run[2])
                        outputs.append(output + i * rows[4] + j * line[4])
    return np.array(outputs), np.array(entries), not wild


shared = Kernel(_shared)


@inlined
def _look(a, b, start, number):  # type: ignore[no-untyped-def]
    """Whether entries in the same place are equal somewhere, and whether some entry is NaN or infinite."""
    hit, wild = False, False
    for i in range(number):
        one, other = a[start + i], b[start + i]
        hit |= one == other
        wild |= (one - one != 0) | (other - other != 0)
    return hit, wild


@inlined
def _is_counted(value, skip, floor):  # type: ignore[no-untyped-def]
    counted = not value <= floor
    for flat in skip:
        counted &= value != flat
    return counted


def _equal(a, b, out, skip, floor, limit, first, last):  # type: ignore[no-untyped-def]
    """The places in [first, last) where both operands are equal, and whether all entries are finite."""
    places = [first for _ in range(0)]
    finite = True
    for start in range(first, last, _CHUNK):
        number = min(_CHUNK, last - start)
        hit, wild = _look(a, b, np.uint64(start), np.uint64(number))
        finite = finite and not wild
        if hit:
            for i in range(start, start + number):
                if a[i] == b[i] and len(places) <= limit and _is_counted(out[i], skip, floor):
                    places.append(i)
    return np.array(places), finite


equal = Kernel(_equal)
