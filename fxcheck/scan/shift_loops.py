"""The compiled steps of ``shifts``, on bytes; the torch steps in ``shift_steps`` say what they mean."""

from __future__ import annotations

import numpy as np

from fxcheck.scan.jit import Kernel, outlined


@outlined
def _placed(bits, margins, size, plane):  # type: ignore[no-untyped-def]
    """Copy a channel (D, H, W) into the middle of ``plane``."""
    for i in range(bits.shape[0]):
        for j in range(bits.shape[1]):
            at = np.uint64(((margins[0] + i) * size[1] + margins[1] + j) * size[2] + margins[2])
            for k in range(np.uint64(bits.shape[2])):
                plane[at + k] = bits[i, j, k]


@outlined
def _compared(plane, step, equal):  # type: ignore[no-untyped-def]
    for p in range(np.uint64(plane.size) - step):
        equal[p] &= np.uint8(plane[p + step] == plane[p])


def _of_input(bits, margins, size, offsets, exist, equal, begin, end):  # type: ignore[no-untyped-def]
    """``bits`` (N, C, D, H, W) within ``margins`` of zeros to ``equal`` (M, N, P), samples ``begin`` to ``end``."""
    plane = np.zeros(size[0] * size[1] * size[2], bits.dtype)
    for sample in range(begin, end):
        for m in range(offsets.size):
            equal[m, sample] = exist[m]
        for channel in range(bits.shape[1]):
            _placed(bits[sample, channel], margins, size, plane)
            for m in range(offsets.size):
                if 0 < offsets[m] < plane.size:
                    _compared(plane, np.uint64(offsets[m]), equal[m, sample])


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


def _through_windows(equal, outside, exist, result, size_in, size, margins, spec, size_out, begin, end):  # type: ignore[no-untyped-def]
    """``equal`` (M * N * cells) to ``result`` (M * N * outputs), for some of M * N; ``outside`` (M, covered)."""
    kernel, stride, dilation = spec
    cells_in, outputs = size_in[0] * size_in[1] * size_in[2], size_out[0] * size_out[1] * size_out[2]
    one, other = np.empty(size[0] * size[1] * size[2], np.uint8), np.empty(size[0] * size[1] * size[2], np.uint8)
    samples = equal.size // cells_in // outside.shape[0]
    steps = (size[1] * size[2], size[2], 1)
    for at in range(begin, end):
        m = at // samples
        _framed(equal, at * cells_in, size_in, outside[m], size, margins, one)
        for d in range(3):
            if kernel[d] > 1:
                _least(one, other, kernel[d], dilation[d] * steps[d])
                one, other = other, one
        _sampled(one, size, stride, size_out, exist[m], result, at * outputs)


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


def _labels(along, cells, dims, real, table, found, mixed, begin, end):  # type: ignore[no-untyped-def]
    """``along`` (D, N * cells) to ``found`` (N, outputs, taps) and ``mixed`` (N, outputs), for some samples.

    Per output and step between adjacent taps ``cells`` (outputs, steps) is the one that is compared with the next in
    dimension ``dims`` (steps,); ``real`` (outputs,) has a bit for each step between real cells, and ``table`` (2^steps,
    taps) the labels for each set of steps that lead to equal cells.
    """
    number = along.shape[1] // found.shape[0]
    for sample in range(begin, end):
        _labelled(along, np.uint64(sample * number), cells, dims, real, table, mixed[sample], found[sample])


of_input = Kernel(_of_input)
through_windows = Kernel(_through_windows)
labels = Kernel(_labels)
