"""Rows of Algorithm 1: what a direction must satisfy at each touch and tie of one forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from fxcheck.runtime.observed import Observation

Slot = tuple[str, int]
"""A parameter and an index of its first dimension: coordinates that always come together."""



class RowKind(StrEnum):
    """Where a row comes from."""

    TOUCH = "touch"
    TIE = "tie"


@dataclass(eq=False)
class Row:
    """One inequality <values, x> > 0 on the coordinates of ``slots``."""

    group: int
    kind: RowKind
    at: Observation | None
    """None once the forward has ended: it would keep the graph alive."""
    layer: str
    entry: int
    """Flat index of the touched entry, or of the picked one."""
    loser: int = -1
    """TIE: flat index of the entry that must lose."""
    output: int = -1
    """TIE: flat index of the maximum."""
    direction: int = 1
    """TOUCH: AD's side; 0 where it took neither."""
    slots: tuple[Slot, ...] = ()
    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    error: float = 0.0
    """The true row lies within error * norm of the stored one."""
    assumed: float = 0.0
    """The part of the error that stands for roundoff nobody measured; a sum that has to vanish is granted less of it."""
    left_out: frozenset[str] = frozenset()
    """Fresh parameters whose coordinates the row does not show, although it may have some: the row holds for
    directions that do not move them."""
    exact: bool = False
    """Its membership in T_j was settled by exact backward passes, or does not arise."""
    factor: tuple[int, int] | None = None
    """(graph node of a normalisation, channel) whose positive scale |gamma| / sigma the values leave out; None: nothing is."""
    forward: int = -1
    """Of the step's forwards, which one it comes from."""
    check: int = -1

    @property
    def is_zero(self) -> bool:
        """It vanishes on all fresh coordinates."""
        return not self.left_out and not self.values.any()

    def without(self, fixed: frozenset[str], size_of: Callable[[str], int]) -> tuple[tuple[Slot, ...], np.ndarray]:
        """(slots, values) on the coordinates of other parameters than the fixed ones."""
        if fixed.isdisjoint(name for name, _ in self.slots):
            return self.slots, self.values
        slots, parts, at = [], [], 0
        for slot in self.slots:
            size = size_of(slot[0])
            if slot[0] not in fixed:
                slots.append(slot)
                parts.append(self.values[at : at + size])
            at += size
        return tuple(slots), np.concatenate(parts) if parts else np.empty(0)


@dataclass(frozen=True, eq=False)
class Columns:
    """Inputs of one neuron of a fully connected layer where it is touched: the columns of T5."""

    group: int
    layer: str
    neuron: Slot
    matrix: np.ndarray
    """(inputs, touched entries), float64."""

