"""The compiled steps of ``classes``, on words of 64 bits; the torch steps in ``class_steps`` say what they mean."""

from __future__ import annotations

import numpy as np

from fxcheck.scan.jit import Kernel, inlined
from fxcheck.scan.words import ROUNDS

_FIRST, _SECOND, _THIRD = (np.uint64(shift) for shift, _ in ROUNDS)
_FACTOR, _OTHER = np.uint64(ROUNDS[0][1]), np.uint64(ROUNDS[1][1])


@inlined
def _mix(word):  # type: ignore[no-untyped-def]
    word = (word ^ (word >> _FIRST)) * _FACTOR
    word = (word ^ (word >> _SECOND)) * _OTHER
    return word ^ (word >> _THIRD)


def _hashed(bits, keys, classes, begin, end):  # type: ignore[no-untyped-def]
    """``bits`` (N, C, P) and ``keys`` (2, C) to ``classes`` (2, N, P), samples ``begin`` to ``end`` (exclusive)."""
    cells = np.empty(bits.shape[2], np.uint64)
    for sample in range(begin, end):
        classes[:, sample] = 0
        for channel in range(bits.shape[1]):
            # Copied side by side first: channels_last has gaps, which the hashing would not vectorise over.
            for i in range(cells.size):
                cells[i] = np.uint64(np.int64(bits[sample, channel, i]))
            for which in range(2):
                words, key = classes[which, sample], keys[which, channel]
                for i in range(words.size):
                    words[i] += _mix(cells[i] + key)
        for which in range(2):
            words = classes[which, sample]
            for i in range(words.size):
                words[i] = _mix(words[i])


def _weighted(x, table, keys, padding, salts, total, begin, end):  # type: ignore[no-untyped-def]
    """``x`` (2, outer, size_in, inner) to ``total`` (2, outer, size_out, inner), for some of ``outer``."""
    inner = total.shape[3]
    for which in range(2):
        for outer in range(begin, end):
            for out in range(total.shape[2]):
                outside = salts[which]
                for i in range(inner):
                    total[which, outer, out, i] = 0
                for tap in range(table.shape[1]):
                    key, cell = keys[which, tap], table[out, tap]
                    if cell < 0:
                        outside += padding[which] * key
                    else:
                        for i in range(inner):
                            total[which, outer, out, i] += x[which, outer, cell, i] * key
                for i in range(inner):
                    total[which, outer, out, i] = _mix(total[which, outer, out, i] + outside)


def _weighted_last(x, table, keys, padding, salts, total, begin, end):  # type: ignore[no-untyped-def]
    """As ``_weighted`` with cells side by side: ``x`` (2, outer, size_in) to ``total`` (2, outer, size_out)."""
    for which in range(2):
        for outer in range(begin, end):
            cells, words = x[which, outer], total[which, outer]
            for out in range(table.shape[0]):
                word = np.uint64(0)
                for tap in range(table.shape[1]):
                    cell = table[out, tap]
                    word += (padding[which] if cell < 0 else cells[cell]) * keys[which, tap]
                words[out] = word
            for out in range(words.size):
                words[out] = _mix(words[out] + salts[which])


def _salted(classes, keys, total, begin, end):  # type: ignore[no-untyped-def]
    """``classes`` (2, P) to ``total`` (2, P), for some of P."""
    for which in range(2):
        for i in range(begin, end):
            total[which, i] = _mix(classes[which, i] + keys[which])


@inlined
def _differ(classes, sample, deep, i, high, j, wide, k):  # type: ignore[no-untyped-def]
    """Whether some real cell of a window has another class than the first one."""
    seen, one, other = False, np.uint64(0), np.uint64(0)
    for d in range(deep.shape[1]):
        for h in range(high.shape[1]):
            x, y = deep[i, d], high[j, h]
            if x >= 0 and y >= 0:
                for w in range(wide.shape[1]):
                    z = wide[k, w]
                    if z >= 0:
                        first, second = classes[0, sample, x, y, z], classes[1, sample, x, y, z]
                        if seen and (first != one or second != other):
                            return True
                        seen, one, other = True, first, second
    return False


def _mixed(classes, deep, high, wide, result, begin, end):  # type: ignore[no-untyped-def]
    """``classes`` (2, N, D, H, W) and the tables of three dimensions to ``result`` (N, *size_out), for some samples."""
    for sample in range(begin, end):
        for i in range(deep.shape[0]):
            for j in range(high.shape[0]):
                for k in range(wide.shape[0]):
                    result[sample, i, j, k] = _differ(classes, sample, deep, i, high, j, wide, k)


hashed = Kernel(_hashed)
weighted = Kernel(_weighted)
weighted_last = Kernel(_weighted_last)
salted = Kernel(_salted)
mixed = Kernel(_mixed)
