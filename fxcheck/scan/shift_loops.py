"""The compiled steps of ``shifts``, on bytes; the torch steps in ``shift_steps`` say what they mean."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import carray  # type: ignore[import-untyped,import-not-found,unused-ignore]

from fxcheck.scan.jit import inlined, named, outlined
from fxcheck.scan.team import Team, items, next_piece, own_words, pointer


@outlined
def _placed(bits, margins, size, plane):  # type: ignore[no-untyped-def]
    """Copy a channel (D, H, W) into the middle of ``plane``."""
    for i in range(bits.shape[0]):
        for j in range(bits.shape[1]):
            at = np.uint64(((margins[0] + i) * size[1] + margins[1] + j) * size[2] + margins[2])
            for k in range(np.uint64(bits.shape[2])):
                plane[at + k] = bits[i, j, k]


@outlined
def _compared(plane, step, apart):  # type: ignore[no-untyped-def]
    for p in range(np.uint64(plane.size) - step):
        apart[p] |= plane[p + step] ^ plane[p]


@outlined
def _equal_where(apart, exist, equal):  # type: ignore[no-untyped-def]
    for p in range(np.uint64(apart.size)):
        equal[p] = np.uint8(apart[p] == 0) & exist[p]


@inlined
def _three(words, at):  # type: ignore[no-untyped-def]
    return words[at], words[at + 1], words[at + 2]


@inlined
def _product(size):  # type: ignore[no-untyped-def]
    return size[0] * size[1] * size[2]


@lru_cache(maxsize=4)
def of_input(bytes_each: int) -> Team:
    """Loop over samples: ``bits`` (N, C, D, H, W) within margins of zeros to ``equal`` (M, N, P).

    Words: addresses of ``bits``, the shifts' ``offsets`` (M,), ``exist`` (M, P) and ``equal``; M, C; sizes of ``bits``;
    margins; sizes with them.
    """
    kind = np.dtype(f"i{bytes_each}").type

    def loop(block):  # type: ignore[no-untyped-def]
        words = own_words(block, 15)
        samples, number, channels = items(block), words[4], words[5]
        inner, margins, size = _three(words, 6), _three(words, 9), _three(words, 12)
        bits = carray(pointer(words[0]), (samples, channels, inner[0], inner[1], inner[2]), kind)
        offsets = carray(pointer(words[1]), number, np.int64)
        exist = carray(pointer(words[2]), (number, _product(size)), np.uint8)
        equal = carray(pointer(words[3]), (number, samples, _product(size)), np.uint8)
        plane, apart = np.zeros(_product(size), kind), np.empty((number, _product(size)), kind)
        _, first, last = next_piece(block)
        while first >= 0:
            for sample in range(first, last):
                apart[:] = 0
                for channel in range(channels):
                    _placed(bits[sample, channel], margins, size, plane)
                    for m in range(number):
                        if 0 < offsets[m] < plane.size:
                            _compared(plane, np.uint64(offsets[m]), apart[m])
                for m in range(number):
                    _equal_where(apart[m], exist[m], equal[m, sample])
            _, first, last = next_piece(block)

    return Team(named(loop, f"of_input_{bytes_each}"))


@outlined
def _least(cells, other, taps, step):  # type: ignore[no-untyped-def]
    """``other`` becomes the minimum of ``taps`` of ``cells``, each ``step`` from the last; what wraps round is not read."""
    size = np.uint64(cells.size)
    for p in range(size):
        other[p] = cells[p]
    for tap in range(1, taps):
        offset = min(np.uint64(tap * step), size)
        for p in range(size - offset):
            other[p] &= cells[p + offset]


@outlined
def _framed(equal, start, size_in, outside, size, margins, cells):  # type: ignore[no-untyped-def]
    """``cells`` (covered) become the map of one sample, from ``start`` on in ``equal``, within its padding."""
    for p in range(np.uint64(cells.size)):
        cells[p] = outside[p]
    # Beyond are cells that no window reads.
    deep, high = min(size_in[0], size[0] - margins[0]), min(size_in[1], size[1] - margins[1])
    wide = np.uint64(min(size_in[2], size[2] - margins[2]))
    for i in range(deep):
        for j in range(high):
            at = np.uint64(((margins[0] + i) * size[1] + margins[1] + j) * size[2] + margins[2])
            source = np.uint64(start + (i * size_in[1] + j) * size_in[2])
            for k in range(wide):
                cells[at + k] = equal[source + k]


@outlined
def _sampled(cells, size, stride, size_out, exist, result, start):  # type: ignore[no-untyped-def]
    """``result`` from ``start`` on becomes the first cell of each window, where the window and its neighbour exist."""
    into, step, wide = np.uint64(0), np.uint64(stride[2]), np.uint64(size_out[2])
    for i in range(size_out[0]):
        for j in range(size_out[1]):
            at, to = np.uint64((i * stride[0] * size[1] + j * stride[1]) * size[2]), np.uint64(start) + into
            for k in range(wide):
                result[to + k] = cells[at + k * step] & exist[into + k]
            into += wide


def _through_windows(block):  # type: ignore[no-untyped-def]
    """Loop over M * N maps ``equal`` (M * N * cells) to ``result`` (M * N * outputs).

    Words: addresses of ``equal``, ``outside`` (M, covered), ``exist`` (M, outputs) and ``result``; M; sizes of the operand
    and of what windows cover; margins; kernel, stride, dilation; sizes of the result.
    """
    words = own_words(block, 26)
    maps, number = items(block), words[4]
    size_in, size, margins, kernel = _three(words, 5), _three(words, 8), _three(words, 11), _three(words, 14)
    stride, dilation, size_out = _three(words, 17), _three(words, 20), _three(words, 23)
    cells_in, outputs = _product(size_in), _product(size_out)
    equal = carray(pointer(words[0]), maps * cells_in, np.uint8)
    outside = carray(pointer(words[1]), (number, _product(size)), np.uint8)
    exist = carray(pointer(words[2]), (number, outputs), np.uint8)
    result = carray(pointer(words[3]), maps * outputs, np.uint8)
    one, other = np.empty(_product(size), np.uint8), np.empty(_product(size), np.uint8)
    steps = (size[1] * size[2], size[2], 1)
    _, first, last = next_piece(block)
    while first >= 0:
        for at in range(first, last):
            m = at // (maps // number)
            _framed(equal, at * cells_in, size_in, outside[m], size, margins, one)
            for d in range(3):
                if kernel[d] > 1:
                    _least(one, other, kernel[d], dilation[d] * steps[d])
                    one, other = other, one
            _sampled(one, size, stride, size_out, exist[m], result, at * outputs)
        _, first, last = next_piece(block)


@outlined
def _labelled(along, first, cells, dims, real, table, mixed, labels):  # type: ignore[no-untyped-def]
    """The labels (outputs, taps) of one sample, whose cells are from ``first`` on, and ``mixed`` (outputs,)."""
    for output in range(np.uint64(cells.shape[0])):
        steps = np.uint64(0)
        for e in range(np.uint64(cells.shape[1])):
            steps |= np.uint64(along[dims[e], first + cells[output, e]]) << e
        steps &= real[output]
        mixed[output] = steps != real[output]
        for k in range(np.uint64(table.shape[1])):
            labels[output, k] = table[steps, k]


def _labels(block):  # type: ignore[no-untyped-def]
    """Loop over samples: ``along`` (D, N * cells) to ``found`` (N, outputs, taps) and ``mixed`` (N, outputs).

    Per output and step between adjacent taps ``cells`` (outputs, steps) is the one that is compared with the next in
    dimension ``dims`` (steps,); ``real`` (outputs,) has a bit for each step between real cells, and ``table`` (2^steps,
    taps) the labels for each set of steps that lead to equal cells. Words: addresses of ``along``, ``cells``, ``dims``,
    ``real``, ``table``, ``found``, ``mixed``; D, cells of a sample, outputs, steps, taps.
    """
    words = own_words(block, 12)
    samples, number, outputs, steps, taps = items(block), words[8], words[9], words[10], words[11]
    along = carray(pointer(words[0]), (words[7], samples * number), np.uint8)
    cells, dims = carray(pointer(words[1]), (outputs, steps), np.uint64), carray(pointer(words[2]), steps, np.uint64)
    real, table = carray(pointer(words[3]), outputs, np.uint64), carray(pointer(words[4]), (1 << steps, taps), np.uint8)
    found = carray(pointer(words[5]), (samples, outputs, taps), np.uint8)
    mixed = carray(pointer(words[6]), (samples, outputs), np.uint8)
    _, first, last = next_piece(block)
    while first >= 0:
        for sample in range(first, last):
            _labelled(along, np.uint64(sample * number), cells, dims, real, table, mixed[sample], found[sample])
        _, first, last = next_piece(block)


through_windows = Team(_through_windows)
labels = Team(_labels)
