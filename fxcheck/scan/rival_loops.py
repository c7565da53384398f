"""The compiled loop over tied windows, which pairs the entry that AD picked with the other maximal ones."""

from __future__ import annotations

import numpy as np

from fxcheck.scan.jit import Kernel


def _rivals(x, out, picks, channels, last, sizes, places, labels, listed, begin, end):  # type: ignore[no-untyped-def]
    """Pairs of the windows ``begin`` to ``end`` (exclusive) of ``listed``: winners, losers, outputs.

    ``x``, ``out`` and ``picks`` are flat in memory, channels ``last`` or not; ``sizes`` are the cells of one channel in
    ``x`` and in ``out``; ``labels`` (N * outputs, taps) has no rows where none are known.
    """
    winners, losers, outputs = [begin for _ in range(0)], [begin for _ in range(0)], [begin for _ in range(0)]
    size_in, size_out = sizes
    step = channels if last else 1
    for i in range(begin, end):
        plane, place = listed[i] // size_out, listed[i] % size_out
        sample, channel = plane // channels, plane % channels
        source, best = plane * size_in, plane * size_out + place
        if last:
            source, best = sample * channels * size_in + channel, (sample * size_out + place) * channels + channel
        value, picked, of_window = out[best], picks[best], sample * size_out + place
        pick = 0
        for k in range(places.shape[1]):
            pick = k if places[place, k] == picked else pick
        for k in range(places.shape[1]):
            cell = places[place, k]
            if labels.shape[0] and labels[of_window, k] == labels[of_window, pick]:
                continue
            if cell < 0 or cell == picked or x[source + cell * step] != value:
                continue
            winners.append(plane * size_in + picked)
            losers.append(plane * size_in + cell)
            outputs.append(listed[i])
    return np.array(winners), np.array(losers), np.array(outputs)


rivals = Kernel(_rivals)
