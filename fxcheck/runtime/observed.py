"""What one forward showed: touches and ties, with what is needed to build their rows while the graph lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor
from torch.autograd.graph import GradientEdge

from fxcheck.records.checks import Check
from fxcheck.runtime.operands import Operand


@dataclass(frozen=True, eq=False)
class Observation:
    """The tensor that a check observed, as autograd and closed forms need it."""

    check: Check
    edge: GradientEdge
    """Of the observed tensor, from before any in-place operation that follows."""
    shape: tuple[int, ...]
    like: Tensor
    """Zero-dimensional, with the observed tensor's dtype and device."""
    sources: tuple[tuple[Tensor, Tensor], ...]
    """Operand and result of each affine source of the check, where the program holds them."""

    @property
    def operand(self) -> Operand:
        return Operand(self.edge, self.shape, self.like)


@dataclass(frozen=True, eq=False)
class Touches:
    """Entries of a pre-activation on a kink."""

    at: Observation
    entries: Tensor
    """int64 (T,), flat row-major indices, on the CPU."""
    which: Tensor
    """int64 (T,), for each the index of the kink."""


@dataclass(frozen=True, eq=False)
class Ties:
    """Tied entries of maxima that AD did not pick, each with the one that it picked."""

    at: Observation
    winners: Tensor
    """int64 (P,), flat row-major indices into the operand, on the CPU."""
    losers: Tensor
    outputs: Tensor
    """int64 (P,), flat indices of the maxima."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Tied entries of maxima that share the gradient: all of them, several an output."""

    check: Check
    outputs: Tensor
    """int64 (P,), flat indices of the maxima, on the CPU."""
    operands: Tensor
    """int64 (P,), which operand of the operation each entry is in."""
    entries: Tensor
    """int64 (P,), flat row-major index into the operand, which is broadcast to the result's shape where there are two."""
    twins: Mapping[int, int] = field(default_factory=dict)
    """Tied entries that are left out, with one of ``entries`` that is proven to be the same function."""


@dataclass
class Count:
    """What happened at one check over the forwards of a step."""

    touched: int = 0
    tied: int = 0
    """Max outputs with several maximal entries, those at flat values of a clip left out."""
    nontrivial_outputs: int = 0
    """Max outputs with an entry of S_j outside T_j."""
    nontrivial: int = 0
    """Such entries in all."""

    def add(self, other: Count) -> None:
        self.touched += other.touched
        self.tied += other.tied
        self.nontrivial_outputs += other.nontrivial_outputs
        self.nontrivial += other.nontrivial


@dataclass
class Observed:
    """One forward."""

    touches: list[Touches] = field(default_factory=list)
    ties: list[Ties] = field(default_factory=list)
    splits: list[Splits] = field(default_factory=list)
    entries: dict[int, int] = field(default_factory=dict)
    """By the index of each check that ran: observed entries of a pre-activation, or max outputs."""
    counts: dict[int, Count] = field(default_factory=dict)
    """By check index, where something happened."""
    problems: list[str] = field(default_factory=list)
    """Why the forward cannot be decided; empty when it can."""

    @property
    def is_idle(self) -> bool:
        """No touch and no tie that could matter."""
        return not (self.touches or self.ties or self.splits)

    @property
    def active(self) -> frozenset[int]:
        """Checks with a touch or a tie."""
        touched, tied = (t.at.check.index for t in self.touches), (t.at.check.index for t in self.ties)
        return frozenset((*touched, *tied, *(s.check.index for s in self.splits)))

    def looked_at(self, check: int, entries: int) -> None:
        self.entries[check] = self.entries.get(check, 0) + entries

    def count(self, check: int) -> Count:
        found = self.counts.get(check)
        if found is None:
            found = self.counts[check] = Count()
        return found
