"""The compiled loop over tied windows, which pairs the entry that AD picked with the other maximal ones."""

from __future__ import annotations

import numpy as np

from fxcheck.scan.jit import Kernel, inlined


@inlined
def _is_rival(x, value, picked, cell, origin, step, classes, of_class):  # type: ignore[no-untyped-def]
    """Whether a cell, or padding, attains the maximum and is of another class than the one that AD picked."""
    real = max(cell, 0)
    found = (cell >= 0) & (cell != picked) & (x[np.uint64(origin + real * step)] == value)
    if classes.shape[1]:
        winner, loser = np.uint64(of_class + picked), np.uint64(of_class + real)
        found &= (classes[0, winner] != classes[0, loser]) | (classes[1, winner] != classes[1, loser])
    return found


@inlined
def _place(window, channels, last, sizes):  # type: ignore[no-untyped-def]
    """Of a window: its channel's number, its output within that, and in memory the output and the channel's first cell."""
    size_in, size_out = sizes
    plane = window // size_out
    place = window - plane * size_out
    if not last:
        return plane, place, window, plane * size_in
    sample = plane // channels
    channel = plane - sample * channels
    return plane, place, (sample * size_out + place) * channels + channel, sample * channels * size_in + channel


def _rivals(x, out, picks, channels, last, sizes, places, classes, listed, begin, end):  # type: ignore[no-untyped-def]
    """Pairs of the windows ``begin`` to ``end`` (exclusive) of ``listed``: winners, losers, outputs.

    ``x``, ``out`` and ``picks`` are flat in memory, channels ``last`` or not; ``sizes`` are the cells of one channel in
    ``x`` and in ``out``; ``classes`` (2, N * cells) has no columns where none are known. Most windows may have no pair
    that counts, or one: a first look finds which have some, without a branch on each cell.
    """
    size_in, step, taps = sizes[0], channels if last else 1, places.shape[1]
    rows, some, number = np.empty(end - begin, np.int64), 0, 0
    for i in range(begin, end):
        plane, place, best, origin = _place(listed[i], channels, last, sizes)
        value, picked, of_class = out[best], picks[best], plane // channels * size_in
        pairs = 0
        for k in range(taps):
            pairs += _is_rival(x, value, picked, places[place, k], origin, step, classes, of_class)
        rows[some] = i
        some += pairs != 0
        number += pairs
    winners, losers, outputs = np.empty(number, np.int64), np.empty(number, np.int64), np.empty(number, np.int64)
    into = 0
    for row in range(some):
        window = listed[rows[row]]
        plane, place, best, origin = _place(window, channels, last, sizes)
        value, picked, of_class = out[best], picks[best], plane // channels * size_in
        for k in range(taps):
            if _is_rival(x, value, picked, places[place, k], origin, step, classes, of_class):
                winners[into], losers[into] = plane * size_in + picked, plane * size_in + places[place, k]
                outputs[into] = window
                into += 1
    return winners, losers, outputs


rivals = Kernel(_rivals)
