"""The compiled loop over tied windows, which pairs the entry that AD picked with the other maximal ones."""

from __future__ import annotations

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped,import-not-found,unused-ignore]
from numba import types  # type: ignore[import-untyped,import-not-found,unused-ignore]

from fxcheck.scan.jit import Kernel, generated

_AHEAD = 8  # windows: what one of them reads is strewn over memory, and asked for this much earlier


@generated
def _fetch(_, array, at):  # type: ignore[no-untyped-def]
    """Ask for an entry of a flat array, so that it is near when it is read; harmless where there is none."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        address = builder.gep(context.make_array(array)(context, builder, values[0]).data, [values[1]])
        builder.call(fetch, [builder.bitcast(address, byte), number(0), number(3), number(1)])  # to read data, often
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def _rivals(x, out, picks, channels, last, sizes, places, labels, listed, begin, end):  # type: ignore[no-untyped-def]
    """Pairs of the windows ``begin`` to ``end`` (exclusive) of ``listed``: winners, losers, outputs.

    ``x``, ``out`` and ``picks`` are flat in memory, channels ``last`` or not; ``sizes`` are the cells of one channel in
    ``x`` and in ``out``; ``labels`` (N * outputs, taps) is one row for all windows
    where none are known.
    """
    winners, losers, outputs = [begin for _ in range(0)], [begin for _ in range(0)], [begin for _ in range(0)]
    size_in, size_out = sizes
    step, taps = channels if last else 1, places.shape[1]
    rivals = np.empty(taps + 1, np.int64)
    for i in range(begin, end):
        if not last and i + _AHEAD < end:
            later = listed[i + _AHEAD]
            plane, place = later // size_out, later % size_out
            _fetch(picks, later)
            _fetch(out, later)
            for k in range(0, taps, 2):  # neighbours share a cache line
                _fetch(x, plane * size_in + places[place, k])
        plane, place = listed[i] // size_out, listed[i] % size_out
        sample, channel = plane // channels, plane % channels
        source, best = plane * size_in, plane * size_out + place
        if last:
            source, best = sample * channels * size_in + channel, (sample * size_out + place) * channels + channel
        value, picked, row = out[best], picks[best], sample * size_out + place if labels.shape[0] > 1 else 0
        pick, number = 0, 0
        for k in range(taps):  # without a branch, which would be mispredicted
            pick += k * (places[place, k] == picked)
        label = labels[row, pick]
        for k in range(taps):
            cell = places[place, k]
            rivals[number] = cell
            equal = x[np.uint64(source + max(cell, 0) * step)] == value
            number += (cell >= 0) & (cell != picked) & equal & (labels[row, k] != label)
        for k in range(number):
            winners.append(plane * size_in + picked)
            losers.append(plane * size_in + rivals[k])
            outputs.append(listed[i])
    return np.array(winners), np.array(losers), np.array(outputs)


rivals = Kernel(_rivals)
