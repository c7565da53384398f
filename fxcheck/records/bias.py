"""How trainable parameters move the entries of a tensor (theory 4.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any


@dataclass(frozen=True, slots=True)
class Push:
    """How one parameter moves an entry."""

    sign: int
    """+1 or -1: the direction in which the entry moves when the parameter grows."""
    coefficient: float | None
    """The factor, where it is one known number for every entry of the class."""
    reach: float
    """Upper bound on how many entries of the tensor one entry of the parameter reaches."""

    def scaled(self, factor: float | None, positive: bool = True) -> Push:
        if factor is None:
            return Push(self.sign if positive else -self.sign, None, self.reach)
        coefficient = None if self.coefficient is None else self.coefficient * abs(factor)
        return Push(self.sign if factor > 0 else -self.sign, coefficient, self.reach)

    def spread(self, ratio: float) -> Push:
        return Push(self.sign, self.coefficient, self.reach * ratio)


@dataclass(frozen=True, slots=True)
class Moved:
    """Which entries of one parameter may move the entries of one pre-activation: masks with a bit for each entry."""

    up: int
    """Entries under which some pre-activation entry grows with them."""
    down: int
    repeated: int
    """Entries that may move several pre-activation entries of one sample."""

    @property
    def entries(self) -> int:
        return self.up | self.down


ALL = -1
"""A mask of all entries of a parameter, whatever their number: nothing is known of them one by one."""


@dataclass(frozen=True)
class EntryClass:
    """A kind of tensor entry."""

    pushes: Mapping[int, Push] = field(default_factory=dict)
    """By parameter index."""
    lost: int = 0
    """Mask of parameters with an influence of unknown sign."""
    varies: bool = False
    """The entry depends on a trainable parameter (False: a constant entry, whose kinks do not matter)."""

    @property
    def mask(self) -> int:
        return reduce(lambda m, p: m | 1 << p, self.pushes, self.lost)

    def key(self) -> tuple[Any, ...]:
        return (frozenset(self.pushes.items()), self.lost, self.varies)
