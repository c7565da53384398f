"""The compiled loop over tied windows, which pairs the entry that AD picked with the other maximal ones."""

from __future__ import annotations

import numpy as np

from fxcheck.scan.jit import Kernel


def _rivals(x, out, picks, channels, last, sizes, places, classes, listed, begin, end):  # type: ignore[no-untyped-def]
    """Pairs of the windows ``begin`` to ``end`` (exclusive) of ``listed``: winners, losers, outputs.

    ``x``, ``out`` and ``picks`` are flat in memory, channels ``last`` or not; ``sizes`` are the cells of one channel in
    ``x`` and in ``out``; ``classes`` (2, N * cells) has no columns where none are known.
    """
    winners, losers, outputs = [begin for _ in range(0)], [begin for _ in range(0)], [begin for _ in range(0)]
    size_in, size_out = sizes
    step, taps = channels if last else 1, places.shape[1]
    rivals = np.empty(taps + 1, np.int64)
    for i in range(begin, end):
        plane, place = listed[i] // size_out, listed[i] % size_out
        sample, channel = plane // channels, plane % channels
        source, best = plane * size_in, plane * size_out + place
        if last:
            source, best = sample * channels * size_in + channel, (sample * size_out + place) * channels + channel
        value, picked, of_class = out[best], picks[best], sample * size_in
        number = 0
        for k in range(taps):  # without a branch, which would be mispredicted
            cell = places[place, k]
            rivals[number] = cell
            number += (cell >= 0) & (cell != picked) & (x[np.uint64(source + max(cell, 0) * step)] == value)
        for k in range(number):
            cell = rivals[k]
            one, other = of_class + picked, of_class + cell
            if classes.shape[1] and classes[0, one] == classes[0, other] and classes[1, one] == classes[1, other]:
                continue
            winners.append(plane * size_in + picked)
            losers.append(plane * size_in + cell)
            outputs.append(listed[i])
    return np.array(winners), np.array(losers), np.array(outputs)


rivals = Kernel(_rivals)
