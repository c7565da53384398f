"""The compiled tie scans of float32 and float64.

They compare several outputs side by side in memory with one of their cells each, as one vector, and keep what they see
as bits: which of the outputs some cell attains so far, and which ones two. LLVM's own vectoriser does not find this, so
that the vectors are spelled out; it turns them into what the processor has. NaN equals nothing, so it stands for padding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped,import-not-found,unused-ignore]
from numba import carray, types  # type: ignore[import-untyped,import-not-found,unused-ignore]

from fxcheck.scan.jit import as_tuple, generated, inlined, named, outlined
from fxcheck.scan.team import Team, next_piece, own_words, pointer

_INT = ir.IntType(32)
_WORD = ir.IntType(64)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)


def _address(context: Any, builder: Any, kind: Any, array: Any, at: Any, lanes: int) -> Any:
    """The address of ``lanes`` entries of a flat array from ``at`` on, as that of a vector."""
    start = builder.gep(context.make_array(kind)(context, builder, array).data, [at])
    return builder.bitcast(start, ir.VectorType(context.get_data_type(kind.dtype), lanes).as_pointer())


def _vector(context: Any, builder: Any, kind: Any, array: Any, at: Any, lanes: int) -> Any:
    address = _address(context, builder, kind, array, at, lanes)
    return builder.load(address, align=kind.dtype.bitwidth // 8)


def _lanes_of(builder: Any, vector: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_INT, len(places)), places))


def _filled(builder: Any, number: Any, lanes: int) -> Any:
    one = ir.Constant(ir.VectorType(number.type, 1), ir.Undefined)
    return _lanes_of(builder, builder.insert_element(one, number, _INT(0)), [0] * lanes)


def _bits(builder: Any, mask: Any) -> Any:
    """One bit per lane, the first one lowest."""
    return builder.zext(builder.bitcast(mask, ir.IntType(mask.type.count)), _WORD)


@generated
def _ones(_, word):  # type: ignore[no-untyped-def]
    """How many bits are set."""
    return types.uint64(types.uint64), lambda context, builder, signature, values: builder.ctpop(values[0])


@generated
def _lowest(_, word):  # type: ignore[no-untyped-def]
    """The place of the lowest bit that is set; one is."""
    return types.uint64(types.uint64), lambda context, builder, signature, values: builder.cttz(values[0], ir.IntType(1)(1))


@generated
def _equal(_, cells, at, out, best, lanes):  # type: ignore[no-untyped-def]
    """Which of the outputs from ``best`` on equal the cells from ``at`` on."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        number = lanes.literal_value
        read = _vector(context, builder, cells, values[0], values[1], number)
        value = _vector(context, builder, out, values[2], values[3], number)
        return _bits(builder, builder.fcmp_ordered("==", read, value))

    return types.uint64(cells, types.uint64, out, types.uint64, lanes), generate


@generated
def _equal_pairs(_, cells, at, out, best, lanes):  # type: ignore[no-untyped-def]
    """Which of the outputs from ``best`` on equal the first, and which the second of two cells each, from ``at`` on."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        number = lanes.literal_value
        read = _vector(context, builder, cells, values[0], values[1], 2 * number)
        value = _vector(context, builder, out, values[2], values[3], number)
        phases = [_lanes_of(builder, read, list(range(phase, 2 * number, 2))) for phase in (0, 1)]
        bits = [_bits(builder, builder.fcmp_ordered("==", phase, value)) for phase in phases]
        return context.make_tuple(builder, signature.return_type, bits)

    return types.UniTuple(types.uint64, 2)(cells, types.uint64, out, types.uint64, lanes), generate


@generated
def _counted(_, out, best, floor, one, other, lanes):  # type: ignore[no-untyped-def]
    """Which of the outputs from ``best`` on count when tied, and which are not finite."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        number = lanes.literal_value
        value = _vector(context, builder, out, values[0], values[1], number)
        live = builder.fcmp_unordered(">", value, _filled(builder, values[2], number))
        for flat in values[3:5]:
            live = builder.and_(live, builder.fcmp_unordered("!=", value, _filled(builder, flat, number)))
        nothing = builder.fsub(value, value)
        wild = builder.fcmp_unordered("!=", nothing, nothing)
        return context.make_tuple(builder, signature.return_type, [_bits(builder, live), _bits(builder, wild)])

    kind = out.dtype
    return types.UniTuple(types.uint64, 2)(out, types.uint64, kind, kind, kind, lanes), generate


@generated
def _part(_, x, source, cells, even, odd, lanes):  # type: ignore[no-untyped-def]
    """Copy entries from ``source`` on, by turns to where ``even`` and where ``odd`` begin."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        number = lanes.literal_value
        read = _vector(context, builder, x, values[0], values[1], 2 * number)
        for phase in (0, 1):
            into = _address(context, builder, cells, values[2], values[3 + phase], number)
            every_second = _lanes_of(builder, read, list(range(phase, 2 * number, 2)))
            builder.store(every_second, into, align=cells.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(x, types.uint64, cells, types.uint64, types.uint64, lanes), generate


@generated
def _equal_at(_, cells, source, places, row, column, out, best, lanes):  # type: ignore[no-untyped-def]
    """Which of the outputs from ``best`` on equal the cells at ``places``, of a row from a column on, counted from ``source``."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        number = lanes.literal_value
        held = context.make_array(places)(context, builder, values[2])
        at = builder.add(builder.mul(values[3], builder.extract_value(held.shape, 1)), values[4])
        start = builder.bitcast(builder.gep(held.data, [at]), ir.VectorType(_WORD, number).as_pointer())
        where = builder.load(start, align=8)
        value = _vector(context, builder, out, values[5], values[6], number)
        read = ir.Constant(value.type, ir.Undefined)
        data = builder.gep(context.make_array(cells)(context, builder, values[0]).data, [values[1]])
        for lane in range(number):
            cell = builder.load(builder.gep(data, [builder.extract_element(where, _INT(lane))]))
            read = builder.insert_element(read, cell, _INT(lane))
        return _bits(builder, builder.fcmp_ordered("==", read, value))

    return types.uint64(cells, types.uint64, places, types.uint64, types.uint64, out, types.uint64, lanes), generate


scan: Any = None
"""Each copy of ``run`` in ``loop`` has its own."""


@inlined
def _table(words, at):  # type: ignore[no-untyped-def]
    return carray(pointer(words[at]), (words[at + 1], words[at + 2]), np.int64)


@inlined
def _pack(mixed, start, outputs, wide, columns, lanes, packed):  # type: ignore[no-untyped-def]
    """Note as one bit each which windows of a channel with ``outputs`` are mixed, for every block in rows of ``wide``."""
    for k in range(packed.size):
        at, word = k // columns.size * wide + np.int64(columns[k % columns.size]), _ZERO
        for j in range(lanes):
            word |= np.uint64(mixed[start + (at + j) % outputs] != 0) << np.uint64(j)
        packed[k] = word


@outlined
def _apart(x, out, known, listed, begin, end):  # type: ignore[no-untyped-def]
    """Keep of the outputs ``begin`` to ``end`` of ``listed`` those whose maximal cells have several labels; how many stay.

    They were just scanned, so that what they read is near. Where not all of them could be listed, all stay.
    """
    if end > listed.size:
        return end
    labels, places, size_in, channels, last = known
    size_out, step, kept = np.uint64(places.shape[0]), np.uint64(channels if last else 1), begin
    for i in range(begin, end):
        at = np.uint64(listed[i])
        plane = at // np.uint64(channels) // size_out if last else at // size_out
        place = at // np.uint64(channels) % size_out if last else at % size_out
        source = plane * np.uint64(size_in) * step + (at % np.uint64(channels) if last else _ZERO)
        row = (plane if last else plane // np.uint64(channels)) * size_out + place
        value, label, several = out[at], np.int64(-1), 0
        for k in range(np.uint64(places.shape[1])):
            cell = places[place, k]
            if cell >= 0 and x[source + np.uint64(cell) * step] == value:
                several |= int(label >= 0 and labels[row, k] != label)
                label = np.int64(labels[row, k])
        listed[kept] = listed[i]
        kept += several
    return kept


@inlined
def _list(bits, best, listed, found):  # type: ignore[no-untyped-def]
    """List the outputs whose bit is set, counted from ``best`` on; how many were found so far."""
    while bits != _ZERO:
        if found < listed.size:
            listed[found] = best + _lowest(bits)
        found += 1
        bits &= bits - _ONE
    return found


@lru_cache(maxsize=16)
def twos(lanes: int) -> Callable[..., Any]:
    """The scan of windows of 2 x 2 cells side by side, contiguous, in rows of at least ``lanes`` outputs."""

    def scan(x, out, mixed, numbers, tables, columns, fresh, values, known, listed, first, last):  # type: ignore[no-untyped-def]
        """Scan channels ``first`` to ``last`` (exclusive)."""
        channels, plane_in, length, height, wide = numbers
        rows, line, width, blocks = np.uint64(height), np.uint64(length), np.uint64(wide), np.uint64(columns.size)
        floor, one, other = values
        packed, sample = np.empty(height * columns.size, np.uint64), -1
        tied, found, strange = _ZERO, 0, _ZERO
        for plane in range(first, last):
            source, best, before = np.uint64(plane * plane_in), np.uint64(plane * height * wide), found
            for row in range(rows):
                for k in range(blocks):
                    at, into = source + _TWO * columns[k], best + columns[k]
                    a, b = _equal_pairs(x, at, out, into, lanes)
                    c, d = _equal_pairs(x, at + line, out, into, lanes)
                    live, wild = _counted(out, into, floor, one, other, lanes)
                    strange |= wild
                    bits = (a & b | c & d | (a | b) & (c | d)) & live & fresh[k]
                    if bits != _ZERO:
                        tied += _ones(bits)
                        if sample != plane // channels:
                            sample = plane // channels
                            _pack(mixed, sample * height * wide, height * wide, wide, columns, lanes, packed)
                        found = _list(bits & packed[row * blocks + k], into, listed, found)
                source += _TWO * line
                best += width
            if known[1].size:
                found = _apart(x, out, known, listed, before, found)
        return tied, found, strange

    return outlined(named(scan, f"twos_{lanes}"))


@inlined
def _unroll(x, source, lines, length, step, cells, into, phase, lanes):  # type: ignore[no-untyped-def]
    """Copy lines so that the cells which neighbouring outputs read are neighbours, one phase of the step after another."""
    half = length // _TWO
    for _ in range(lines):
        if step == _TWO and half >= np.uint64(lanes):
            for j in range(_ZERO, half, np.uint64(lanes)):
                shifted = min(j, half - np.uint64(lanes))
                _part(x, source + _TWO * shifted, cells, into + shifted, into + phase + shifted, lanes)
            if length % _TWO:
                cells[into + half] = x[source + length - _ONE]
        elif step == _ONE:
            for j in range(length):
                cells[into + j] = x[source + j]
        else:
            for j in range(length):
                cells[into + j % step * phase + j // step] = x[source + j]
        source += length
        into += step * phase


@lru_cache(maxsize=16)
def planes(lanes: int) -> Callable[..., Any]:
    """The scan of contiguous tensors in rows of at least ``lanes`` outputs, laid out as ``compiled_ties._lines`` says."""

    def scan(x, out, mixed, numbers, tables, columns, fresh, values, known, listed, first, last):  # type: ignore[no-untyped-def]
        """Scan channels ``first`` to ``last`` (exclusive)."""
        channels, lines, length, outputs, step, margin, phase = numbers
        starts = tables[0]
        plane_out = starts.shape[0] * outputs
        rows, taps, blocks = np.uint64(starts.shape[0]), np.uint64(starts.shape[1]), np.uint64(columns.size)
        floor, one, other = values
        cells = np.full((lines + 1) * step * phase, np.nan, x.dtype)
        packed, sample = np.empty(starts.shape[0] * columns.size, np.uint64), -1
        tied, found, strange, width = _ZERO, 0, _ZERO, np.uint64(outputs)
        for plane in range(first, last):
            source, best, before = np.uint64(plane * lines * length), np.uint64(plane * plane_out), found
            _unroll(x, source, lines, np.uint64(length), np.uint64(step), cells, np.uint64(margin), np.uint64(phase), lanes)
            for row in range(rows):
                for k in range(blocks):
                    into, once, twice = best + columns[k], _ZERO, _ZERO
                    for tap in range(taps):
                        bits = _equal(cells, np.uint64(starts[row, tap]) + columns[k], out, into, lanes)
                        twice |= once & bits
                        once |= bits
                    live, wild = _counted(out, into, floor, one, other, lanes)
                    strange |= wild
                    bits = twice & live & fresh[k]
                    if bits != _ZERO:
                        tied += _ones(bits)
                        if sample != plane // channels:
                            sample = plane // channels
                            _pack(mixed, sample * plane_out, plane_out, outputs, columns, lanes, packed)
                        found = _list(bits & packed[row * blocks + k], into, listed, found)
                best += width
            if known[1].size:
                found = _apart(x, out, known, listed, before, found)
        return tied, found, strange

    return outlined(named(scan, f"planes_{lanes}"))


@lru_cache(maxsize=16)
def pixels(lanes: int) -> Callable[..., Any]:
    """The scan of channels_last tensors of at least ``lanes`` channels."""

    def scan(x, out, mixed, numbers, tables, columns, fresh, values, known, listed, first, last):  # type: ignore[no-untyped-def]
        """Scan rows of outputs ``first`` to ``last`` (exclusive)."""
        channels, depth, height, length = numbers
        deep, high, wide = tables
        outputs, rows, blocks = wide.shape[0], deep.shape[0] * high.shape[0], np.uint64(columns.size)
        floor, one, other = values
        lines = np.empty(deep.shape[1] * high.shape[1], np.int64)
        starts = np.empty(lines.size * wide.shape[1], np.uint64)
        tied, found, strange = _ZERO, 0, _ZERO
        for row in range(first, last):
            sample, upper, lower = row // rows, row % rows // high.shape[0], row % high.shape[0]
            number, before = 0, found
            for i in range(deep.shape[1]):
                for k in range(high.shape[1]):
                    lines[number] = ((sample * depth + deep[upper, i]) * height + high[lower, k]) * length
                    number += deep[upper, i] >= 0 and high[lower, k] >= 0
            for j in range(outputs):
                taps = 0
                for i in range(number):
                    for k in range(wide.shape[1]):
                        starts[taps] = np.uint64((lines[i] + wide[j, k]) * channels)
                        taps += wide[j, k] >= 0
                best = np.uint64((row * outputs + j) * channels)
                for k in range(blocks):
                    into, once, twice = best + columns[k], _ZERO, _ZERO
                    for tap in range(np.uint64(taps)):
                        bits = _equal(x, starts[tap] + columns[k], out, into, lanes)
                        twice |= once & bits
                        once |= bits
                    live, wild = _counted(out, into, floor, one, other, lanes)
                    strange |= wild
                    bits = twice & live & fresh[k]
                    if bits != _ZERO:
                        tied += _ones(bits)
                        if mixed[row * outputs + j] != 0:
                            found = _list(bits, into, listed, found)
            if known[1].size:
                found = _apart(x, out, known, listed, before, found)
        return tied, found, strange

    return outlined(named(scan, f"pixels_{lanes}"))


@lru_cache(maxsize=16)
def cells(lanes: int) -> Callable[..., Any]:
    """The scan of contiguous tensors in windows of any shape, in groups of channels of at least ``lanes`` outputs."""

    def scan(x, out, mixed, numbers, tables, columns, fresh, values, known, listed, first, last):  # type: ignore[no-untyped-def]
        """Scan groups ``first`` to ``last`` (exclusive) of ``channels`` channels.

        ``places`` (taps, outputs of a group) are the cells of each output, any one in the place of padding; ``real``
        (taps, blocks) the bits of those that are not padding.
        """
        groups, channels, plane_in = numbers
        places, real, _ = tables
        taps, outputs, blocks = np.uint64(places.shape[0]), places.shape[1], np.uint64(columns.size)
        plane_out = outputs // channels
        floor, one, other = values
        packed, sample = np.empty(columns.size, np.uint64), -1
        tied, found, strange = _ZERO, 0, _ZERO
        for group in range(first, last):
            source, best, before = np.uint64(group * channels * plane_in), np.uint64(group * outputs), found
            for k in range(blocks):
                into, once, twice = best + columns[k], _ZERO, _ZERO
                for tap in range(taps):
                    bits = _equal_at(x, source, places, tap, columns[k], out, into, lanes) & np.uint64(real[tap, k])
                    twice |= once & bits
                    once |= bits
                live, wild = _counted(out, into, floor, one, other, lanes)
                strange |= wild
                bits = twice & live & fresh[k]
                if bits != _ZERO:
                    tied += _ones(bits)
                    if sample != group // groups:
                        sample = group // groups
                        _pack(mixed, sample * plane_out, plane_out, outputs, columns, lanes, packed)
                    found = _list(bits & packed[k], into, listed, found)
            if known[1].size:
                found = _apart(x, out, known, listed, before, found)
        return tied, found, strange

    return outlined(named(scan, f"cells_{lanes}"))


@lru_cache(maxsize=64)
def loop(name: str, lanes: int, bytes_each: int, numbers: int) -> Team:
    """One of the scans over items, of floats of so many bytes each.

    Words: addresses of ``x``, ``out``, ``mixed`` (bytes), of what each piece saw (how many are tied, how many of them are to be
    listed, whether something is not finite, how many items it went through; int64 (pieces, 4)) and of what it listed, int64
    (pieces, limit); ``limit``; the number of blocks and the addresses of ``columns``, ``fresh`` and ``values``; per table its
    address and its two sizes; the addresses of labels, uint8 (N * outputs, taps), and of ``Windows.places`` with its two
    sizes, zero where none are known; cells of one channel, channels, and whether they are last in memory; and ``numbers``.
    """
    kind: Any = np.dtype(f"f{bytes_each}").type

    def run(block):  # type: ignore[no-untyped-def]
        words = own_words(block, 26 + numbers)
        # Nobody asks how long the tensors are.
        x, out = carray(pointer(words[0]), 1, kind), carray(pointer(words[1]), 1, kind)
        mixed, limit, blocks = carray(pointer(words[2]), 1, np.uint8), words[5], words[6]
        columns, fresh = carray(pointer(words[7]), blocks, np.uint64), carray(pointer(words[8]), blocks, np.uint64)
        values = as_tuple(carray(pointer(words[9]), 3, kind), 3)
        sizes, tables = as_tuple(words[26:], numbers), (_table(words, 10), _table(words, 13), _table(words, 16))
        labels = carray(pointer(words[19]), (1, words[22]), np.uint8)
        known = labels, _table(words, 20), words[23], words[24], words[25] != 0
        piece, first, last = next_piece(block)
        while piece >= 0:
            seen = carray(pointer(words[3]), (piece + 1, 4), np.int64)[piece]
            listed = carray(pointer(words[4]), (piece + 1, limit), np.int64)[piece]
            found = scan(x, out, mixed, sizes, tables, columns, fresh, values, known, listed, first, last)
            seen[0], seen[1], seen[2] = found
            seen[3] = last - first
            piece, first, last = next_piece(block)

    scans = {"twos": twos, "planes": planes, "pixels": pixels, "cells": cells}
    return Team(named(run, f"loop_{name}_{lanes}_{bytes_each}_{numbers}", scan=scans[name](lanes)))
