"""Decide the pooled rows of a step, layer by layer: T5 where it applies, then the linear systems of T8."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fxcheck.lp.feasibility import decide
from fxcheck.lp.independence import left_inverse
from fxcheck.records.system import Decision, Outcome
from fxcheck.runtime.blocks import Block, blocks_of
from fxcheck.runtime.gradients import Gradients
from fxcheck.runtime.rows import Columns, Row, RowKind, Slot
from fxcheck.runtime.stages import book


@dataclass(frozen=True, eq=False)
class Independent:
    """A neuron whose touched input columns are linearly independent (T5)."""

    columns: Columns
    inverse: np.ndarray


@dataclass
class Decided:
    """What became of all rows of a step."""

    blocks: list[tuple[Block, Decision]] = field(default_factory=list)
    independent: list[Independent] = field(default_factory=list)
    dependent: list[Columns] = field(default_factory=list)
    """Touched neurons of a fully connected layer on which T5 does not hold (or could not be verified)."""

    def of_group(self, index: int) -> list[tuple[Block, Decision]]:
        return [(b, d) for b, d in self.blocks if b.group == index]

    @property
    def infeasible(self) -> list[tuple[Block, Decision]]:
        return [(b, d) for b, d in self.blocks if d.outcome is Outcome.INFEASIBLE]


def decide_rows(
    rows: Sequence[Row], columns: Sequence[Columns], size_of: Callable[[str], int], seconds: dict[str, float]
) -> Decided:
    """Decide every layer's P_l.

    Args:
        rows: of all forwards and ranks of the step.
        columns: touched input columns of fully connected layers.
        size_of: coordinates under one index of a parameter's first dimension.
        seconds: wall times by stage; added to.
    """
    started = time.perf_counter()
    decided = Decided()
    settled: set[tuple[int, Slot]] = set()
    for pooled in _by_neuron(columns):
        inverse = left_inverse(pooled.matrix)
        if inverse is None:
            decided.dependent.append(pooled)
        else:
            decided.independent.append(Independent(pooled, inverse))
            settled.add((pooled.group, pooled.neuron))
    book(seconds, "verification", started)
    open_rows = [r for r in rows if not r.slots or (r.group, r.slots[0]) not in settled]
    started = time.perf_counter()
    blocks = blocks_of(open_rows, size_of)
    book(seconds, "rows", started)
    decided.blocks = list(zip(blocks, decide([b.system for b in blocks], seconds=seconds), strict=True))
    return decided


def _by_neuron(columns: Sequence[Columns]) -> list[Columns]:
    """The columns of one neuron from all forwards together."""
    found: dict[tuple[int, Slot], list[Columns]] = {}
    for held in columns:
        found.setdefault((held.group, held.neuron), []).append(held)
    return [
        Columns(group, parts[0].layer, neuron, np.concatenate([p.matrix for p in parts], axis=1))
        for (group, neuron), parts in found.items()
    ]


def refine(
    rows: list[Row], decided: Decided, gradients: Gradients, fresh: Callable[[int], Sequence[str]]
) -> bool:
    """Look again at the rows that prove emptiness, while the graph lives.

    A row that leaves coordinates out is computed on all fresh ones; a tie whose two entries have the same total gradient
    is in T_j and needs no row (theory 4.10).

    Args:
        rows: the rows of this forward; those found in T_j are removed.
        decided: the last decision.
        gradients: autograd on this forward's graph.
        fresh: the fresh parameters of a layer.

    Returns:
        Whether anything changed.
    """
    changed = False
    mine = {id(r) for r in rows}
    for block, decision in decided.infeasible:
        for row, weight in zip(block.rows, decision.multipliers or (), strict=True):
            if not weight or id(row) not in mine or gradients.are_spent:
                continue
            if _fill_what_is_left_out(row, rows, gradients, fresh(row.group)):
                changed = True
            elif is_in_t_j(row, gradients):
                rows.remove(row)
                changed = True
    return changed


def _fill_what_is_left_out(row: Row, rows: list[Row], gradients: Gradients, fresh: Sequence[str]) -> bool:
    """Compute on all fresh coordinates the row, or else the rows that keep some of its coordinates from moving."""
    names = {name for name, _ in row.slots}
    partial = [row] if row.left_out else [r for r in rows if r.group == row.group and not r.left_out.isdisjoint(names)]
    for other in partial:
        if not gradients.are_spent:
            gradients.fill(other, fresh)
    return bool(partial)


def is_in_t_j(row: Row, gradients: Gradients) -> bool:
    """Whether a tie that was not looked at before turns out to be between entries of equal total gradient."""
    if row.kind is not RowKind.TIE or row.exact or row.at is None or gradients.are_spent:
        return False
    row.exact = True
    return gradients.are_equal(row.at, row.entry, row.loser)
