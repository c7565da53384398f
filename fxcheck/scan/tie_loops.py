"""The compiled tie scans of float32 and float64.

Both walk over rows of windows and count, for outputs side by side in memory, the cells that equal the maximum. LLVM
vectorises the innermost loops because cells are side by side too, offsets are unsigned, counts have 32 bits, and many
taps are compared in one go. NaN equals nothing, so it stands for padding.
"""

from __future__ import annotations

import numpy as np

from fxcheck.scan.jit import Kernel, inlined, outlined


@inlined
def _count_nine(cells, starts, k, out, best, counts, into, number):  # type: ignore[no-untyped-def]
    a, b, c, d, e = starts[k], starts[k + 1], starts[k + 2], starts[k + 3], starts[k + 4]
    f, g, h, i = starts[k + 5], starts[k + 6], starts[k + 7], starts[k + 8]
    for j in range(number):
        value = out[best + j]
        upper = np.int32(cells[a + j] == value) + np.int32(cells[b + j] == value) + np.int32(cells[c + j] == value)
        middle = np.int32(cells[d + j] == value) + np.int32(cells[e + j] == value) + np.int32(cells[f + j] == value)
        lower = np.int32(cells[g + j] == value) + np.int32(cells[h + j] == value) + np.int32(cells[i + j] == value)
        counts[into + j] += upper + middle + lower


@inlined
def _count_four(cells, starts, k, out, best, counts, into, number):  # type: ignore[no-untyped-def]
    a, b, c, d = starts[k], starts[k + 1], starts[k + 2], starts[k + 3]
    for j in range(number):
        value = out[best + j]
        upper = np.int32(cells[a + j] == value) + np.int32(cells[b + j] == value)
        counts[into + j] += upper + np.int32(cells[c + j] == value) + np.int32(cells[d + j] == value)


@inlined
def _count(cells, starts, taps, out, best, counts, into, number):  # type: ignore[no-untyped-def]
    """Count for ``number`` outputs side by side the taps that attain the maximum; each tap's cells begin at its start."""
    for j in range(number):
        counts[into + j] = 0
    k = 0
    while k + 9 <= taps:
        _count_nine(cells, starts, k, out, best, counts, into, number)
        k += 9
    while k + 4 <= taps:
        _count_four(cells, starts, k, out, best, counts, into, number)
        k += 4
    while k < taps:
        start = starts[k]
        for j in range(number):
            counts[into + j] += np.int32(cells[start + j] == out[best + j])
        k += 1


@inlined
def _settle(out, best, counts, number, skip, floor):  # type: ignore[no-untyped-def]
    """Reduce the counts of one row to 1 where a tied window counts, else 0; how many do, and whether a maximum is wild."""
    hit, wild, tied = False, False, np.int32(0)
    for j in range(number):
        value = out[best + j]
        hit |= counts[j] >= 2
        wild |= value - value != 0
    if hit:
        for j in range(number):
            counts[j] = np.int32(counts[j] >= 2) & np.int32(not out[best + j] <= floor)
        for flat in skip:
            for j in range(number):
                counts[j] &= np.int32(out[best + j] != flat)
        for j in range(number):
            tied += counts[j]
    return tied, wild


@inlined
def _list(counts, mixed, position, wide, lane, best, listed, found):  # type: ignore[no-untyped-def]
    """List the mixed windows among the tied ones of one row of pixels; how many were found so far."""
    for j in range(wide):
        if mixed[position + j] != 0:
            for k in range(j * lane, (j + 1) * lane):
                if counts[k] != 0:
                    if found < listed.size:
                        listed[found] = best + k
                    found += 1
    return found


@inlined
def _gather(mixed, position, wide, places):  # type: ignore[no-untyped-def]
    """The places of the mixed windows of one sample, which all its channels share; how many there are."""
    number = np.int64(0)
    for j in range(wide):
        places[number] = j
        number += np.int64(mixed[position + j] != 0)
    return number


@inlined
def _list_at(places, number, counts, best, listed, found):  # type: ignore[no-untyped-def]
    """List the tied windows among these places of one channel; how many were found so far."""
    if found + number <= listed.size:
        for i in range(number):  # without a branch, which would be mispredicted half of the time
            listed[found] = best + places[i]
            found += counts[places[i]]
    else:
        for i in range(number):
            if counts[places[i]] != 0:
                if found < listed.size:
                    listed[found] = best + places[i]
                found += 1
    return found


@inlined
def _unroll(x, source, lines, length, step, cells, into, phase):  # type: ignore[no-untyped-def]
    """Copy lines so that the cells which neighbouring outputs read are neighbours, one phase of the step after another."""
    one, two = np.uint64(1), np.uint64(2)
    for _ in range(lines):
        if step == one:
            for j in range(length):
                cells[into + j] = x[source + j]
        elif step == two:
            odd = into + phase
            for j in range(length // two):
                at = source + two * j
                cells[into + j] = x[at]
                cells[odd + j] = x[at + one]
            if length % two:
                cells[into + length // two] = x[source + length - one]
        else:
            for j in range(length):
                cells[into + j % step * phase + j // step] = x[source + j]
        source += length
        into += step * phase


def _planes(x, out, mixed, sizes, starts, numbers, skip, floor, first, last, limit):  # type: ignore[no-untyped-def]
    """Scan channels ``first`` to ``last`` (exclusive) of contiguous tensors, laid out as ``compiled_ties._lines`` says."""
    channels, lines, length = sizes
    outputs, step, margin, phase, padded = numbers
    line, plane_out = step * phase, starts.shape[0] * outputs
    cells = np.full((lines + 1) * line, np.nan, x.dtype)
    counts, listed = np.empty(plane_out + padded, np.int32), np.empty(limit, np.int64)
    places, number_mixed, sample = np.empty(plane_out + 1, np.int64), 0, -1
    tied, found, wild = 0, 0, False
    for plane in range(first, last):
        source = np.uint64(plane * lines * length)
        _unroll(x, source, lines, np.uint64(length), np.uint64(step), cells, np.uint64(margin), np.uint64(phase))
        best = plane * plane_out
        for row in range(starts.shape[0]):
            into = row * outputs
            # A full vector of outputs is faster than a few: those beyond the row are counted anew with the next one.
            number = np.uint64(min(padded, out.size - best - into))
            _count(cells, starts[row], starts.shape[1], out, np.uint64(best + into), counts, np.uint64(into), number)
        more, odd = _settle(out, np.uint64(best), counts, np.uint64(plane_out), skip, floor)
        wild |= odd
        if more:
            tied += more
            if sample != plane // channels:
                sample = plane // channels
                number_mixed = _gather(mixed, sample * plane_out, plane_out, places)
            found = _list_at(places, number_mixed, counts, best, listed, found)
    return tied, listed[: min(found, limit)], found, not wild


@inlined
def _two(cells, at, value):  # type: ignore[no-untyped-def]
    return np.int32(cells[at] == value) + np.int32(cells[at + np.uint64(1)] == value)


@outlined
def _count_twos(cells, source, length, height, out, best, wide, counts):  # type: ignore[no-untyped-def]
    """Count for the outputs (height, wide) of one channel; whether one is tied, or a maximum that is not finite."""
    two, into, odd = np.uint64(2), np.uint64(0), False
    for _ in range(height):
        for j in range(wide):
            value, at = out[best + into + j], source + two * j
            count = _two(cells, at, value) + _two(cells, at + length, value)
            counts[into + j] = count
            odd |= (count != 1) | (value - value != 0)
        into += wide
        source += two * length
    return odd


def _twos(x, out, mixed, sizes, skip, floor, first, last, limit):  # type: ignore[no-untyped-def]
    """Scan channels ``first`` to ``last`` (exclusive) of contiguous tensors in windows of 2 x 2 cells side by side."""
    channels, plane_in, length, height, wide = sizes
    plane_out = height * wide
    counts, listed = np.empty(plane_out, np.int32), np.empty(limit, np.int64)
    places, number_mixed, sample = np.empty(plane_out + 1, np.int64), 0, -1
    tied, found, wild = 0, 0, False
    for plane in range(first, last):
        source, best = np.uint64(plane * plane_in), np.uint64(plane * plane_out)
        if _count_twos(x, source, np.uint64(length), np.uint64(height), out, best, np.uint64(wide), counts):
            more, odd = _settle(out, best, counts, np.uint64(plane_out), skip, floor)
            wild |= odd
            if more:
                tied += more
                if sample != plane // channels:
                    sample = plane // channels
                    number_mixed = _gather(mixed, sample * plane_out, plane_out, places)
                found = _list_at(places, number_mixed, counts, plane * plane_out, listed, found)
    return tied, listed[: min(found, limit)], found, not wild


def _pixels(x, out, mixed, sizes, deep, high, wide, skip, floor, first, last, limit):  # type: ignore[no-untyped-def]
    """Scan rows of outputs ``first`` to ``last`` (exclusive) of channels_last tensors."""
    channels, depth, height, length = sizes
    outputs = wide.shape[0]
    width, rows = outputs * channels, deep.shape[0] * high.shape[0]
    counts, listed = np.empty(width, np.int32), np.empty(limit, np.int64)
    starts = np.empty(deep.shape[1] * high.shape[1] * wide.shape[1], np.uint64)
    tied, found, wild = 0, 0, False
    for row in range(first, last):
        sample, upper, lower = row // rows, row % rows // high.shape[0], row % high.shape[0]
        for j in range(outputs):
            used = 0
            for i in range(deep.shape[1]):
                for k in range(high.shape[1]):
                    if deep[upper, i] >= 0 and high[lower, k] >= 0:
                        line = ((sample * depth + deep[upper, i]) * height + high[lower, k]) * length
                        for cell in wide[j]:
                            if cell >= 0:
                                starts[used] = np.uint64((line + cell) * channels)
                                used += 1
            into = j * channels
            best = np.uint64(row * width + into)
            _count(x, starts, used, out, best, counts, np.uint64(into), np.uint64(channels))
        more, odd = _settle(out, np.uint64(row * width), counts, np.uint64(width), skip, floor)
        wild |= odd
        if more:
            tied += more
            found = _list(counts, mixed, row * outputs, outputs, channels, row * width, listed, found)
    return tied, listed[: min(found, limit)], found, not wild


def _cells(x, out, mixed, sizes, places, padding, skip, floor, first, last, limit):  # type: ignore[no-untyped-def]
    """Scan channels ``first`` to ``last`` (exclusive) of small images, one output after another.

    ``places`` (outputs, taps) are the cells of each output within a channel; in the place of each of its ``padding``
    (outputs,) taps the first cell stands again.
    """
    channels, plane_in = sizes
    outputs, taps = places.shape
    listed = np.empty(limit, np.int64)
    tied, found, wild = 0, 0, False
    for plane in range(first, last):
        source, best = np.uint64(plane * plane_in), np.uint64(plane * outputs)
        for j in range(np.uint64(outputs)):
            value = out[best + j]
            wild |= value - value != 0
            count = np.int32(0)
            for k in range(np.uint64(taps)):
                count += np.int32(x[source + places[j, k]] == value)
            if count < 2:
                continue
            count -= padding[j] * np.int32(x[source + places[j, np.uint64(0)]] == value)
            counts = count >= 2 and not value <= floor
            for flat in skip:
                counts &= value != flat
            if counts:
                tied += 1
                if mixed[plane // channels * outputs + np.int64(j)] != 0:
                    if found < limit:
                        listed[found] = best + j
                    found += 1
    return tied, listed[: min(found, limit)], found, not wild


planes = Kernel(_planes)
twos = Kernel(_twos)
cells = Kernel(_cells)
pixels = Kernel(_pixels)
