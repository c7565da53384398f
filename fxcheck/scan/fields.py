"""Receptive fields: the cells of an input that each position reads, through layer after layer, dimension by dimension.

Windows are products of one set of indices per dimension, and so is what a position reads through several of them. Two
positions are the same function of the parameters where padding comes at the same places for both, and where the cells that
one reads hold the bits of those that the other reads, in order (theory 4.10).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from fxcheck.scan import choice
from fxcheck.scan.class_steps import bits_of
from fxcheck.scan.threads import items_worth
from fxcheck.scan.windows import Windows

_LEAST = 1 << 19  # compared cells per thread
_MOST_CELLS = 1 << 24
"""Cells that pairs may read in all; with more a map of all positions is cheaper."""


@dataclass(frozen=True, eq=False)
class Along:
    """Receptive fields along one dimension.

    Args:
        patterns: per position a number; equal ones meet padding at the same places on their way.
        cells: per position the cells of the input that it reads, int64 (L,), in an order that positions of a pattern share;
            -1 is a cell of zeros.
    """

    patterns: tuple[int, ...]
    cells: tuple[Any, ...]

    def through(self, table: Any, zeros: bool) -> Along:
        """Behind windows.

        Args:
            table: int64 array (size_out, taps), the positions that are read; -1 for padding.
            zeros: padding is a cell of zeros; otherwise it is like nothing else.
        """
        numbers: dict[tuple[int, ...], int] = {}
        outside, none = (0, np.full(1, -1)) if zeros else (-1, np.empty(0, np.int64))
        patterns, cells = [], []
        for taps in table.tolist():
            key = tuple(self.patterns[tap] if tap >= 0 else outside for tap in taps)
            patterns.append(numbers.setdefault(key, len(numbers)))
            cells.append(np.concatenate([self.cells[tap] if tap >= 0 else none for tap in taps]))
        for pattern in range(len(numbers)):
            members = [i for i, p in enumerate(patterns) if p == pattern]
            # What every one of them reads twice at the same two places is compared once.
            first = np.sort(np.unique(np.stack([cells[i] for i in members]), axis=1, return_index=True)[1])
            for i in members:
                cells[i] = cells[i][first]
        return Along(tuple(patterns), tuple(cells))

    @cached_property
    def arrays(self) -> tuple[Any, Any, Any]:
        """Patterns (size,), where each position's cells begin and end (size + 1,), and all cells, one after another; int64."""
        starts = np.array([*accumulate(map(len, self.cells), initial=0)], np.int64)
        return np.array(self.patterns, np.int64), starts, np.concatenate(self.cells).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Field:
    """The receptive fields of all positions of one tensor in one input."""

    dimensions: tuple[Along, ...]

    @cached_property
    def cells(self) -> int:
        """The most cells of one channel that a position reads."""
        return prod(max(map(len, along.cells)) for along in self.dimensions)

    @cached_property
    def size(self) -> tuple[int, ...]:
        """Of the tensor, per spatial dimension."""
        return tuple(len(along.patterns) for along in self.dimensions)

    @cached_property
    def words(self) -> tuple[int, ...]:
        """Sizes and addresses for the compiled loop, of three dimensions."""
        dimensions = [*[_ONE] * (3 - len(self.dimensions)), *self.dimensions]
        sizes = [len(along.patterns) for along in dimensions]
        return (*sizes, *(array.ctypes.data for along in dimensions for array in along.arrays))


def of_input(size: tuple[int, ...]) -> Field:
    """The positions of an input of these spatial sizes: each reads itself."""
    return Field(tuple(Along((0,) * side, tuple(np.arange(side)[:, None])) for side in size))


def through(field: Field, windows: Windows, zeros: bool) -> Field:
    """The positions behind windows, over a tensor of this field; see ``Along.through``."""
    pairs = zip(field.dimensions, windows.arrays, strict=True)
    return Field(tuple(along.through(table, zeros) for along, table in pairs))


def equal(x: Tensor, field: Field, sample: Any, one: Any, other: Any) -> Any:
    """Whether pairs of positions read equal bits, laid out alike.

    Args:
        x: the input (N, C, *S), any real dtype of at most eight bytes.
        field: of a tensor with positions T, in ``x``.
        sample: int64 array (P,), the sample of each pair.
        one: int64 array (P,), a flat position of T.
        other: int64 array (P,), another.

    Returns:
        bool array (P,); None where this costs too much or is not compiled.
    """
    if not choice.compiles(x) or x.dim() > 5 or x.element_size() > 8 or len(sample) * field.cells * x.shape[1] > _MOST_CELLS:
        return None
    from fxcheck.scan import field_loops  # imports numba

    bits, pairs = bits_of(x), [np.ascontiguousarray(a, np.int64) for a in (sample, one, other)]
    same = np.zeros(len(sample), bool)  # a loop that fails writes nothing, and false is the careful answer
    strides = *bits.stride()[:2], *(0,) * (5 - bits.dim()), *bits.stride()[2:]
    addresses = bits.data_ptr(), *(a.ctypes.data for a in pairs), same.ctypes.data
    least = items_worth(_LEAST, len(same), len(same) * field.cells * x.shape[1])
    field_loops.equal(bits.element_size())(len(same), least, *addresses, x.shape[1], *strides, *field.words)
    return same


_ONE = Along((0,), (np.zeros(1, np.int64),))
"""A dimension that is not there."""
