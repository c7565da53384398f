"""Is there a direction on which every row of a system is positive? Three-valued, each answer with a verified witness."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from time import perf_counter

import numpy as np

from fxcheck.lp import glop
from fxcheck.lp.gordan import exact_multipliers, scatter
from fxcheck.lp.prechecks import DistinctRows, distinct_rows, gram, opposite_rows, perceptron
from fxcheck.lp.verify import clears, is_direction, lengths, power_scaled
from fxcheck.records.system import Decision, LinearSystem, Outcome

_BATCH_ENTRIES = 20_000
"""Beyond this, one block-diagonal program takes longer than several smaller ones."""
_LARGEST = 4_000_000
"""Programs with more entries than this are not tried."""
_LARGEST_SPAN = 40_000_000
"""Long rows with more entries than this are not shortened."""


class _Clock:
    def __init__(self, seconds: dict[str, float] | None) -> None:
        self.seconds = {} if seconds is None else seconds

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start


def decide(systems: Sequence[LinearSystem], *, seconds: dict[str, float] | None = None) -> list[Decision]:
    """Decide each of several systems that share no variable.

    Args:
        systems: each with rows (K, D) of any K and D.
        seconds: when given, wall time is added to its keys ``lp`` (pre-checks, solver) and ``verification``.

    Returns:
        One decision a system. FEASIBLE and INFEASIBLE come with a witness that error-bounded or exact arithmetic
        confirmed; multipliers are about the rows as stored. Everything else is UNDECIDED, with a reason.

    Raises:
        FxcheckError: from ``LinearSystem``, when rows are not finite.

    Source: theory 3, Emptiness (Gordan's theorem). The cheap pre-checks before the linear program are ours.
    """
    clock = _Clock(seconds)
    decisions = _settle_in_bulk(systems, clock)
    left: list[tuple[int, DistinctRows]] = []
    for index, decision in enumerate(decisions):
        if decision is None:
            with clock("lp"):
                rows = distinct_rows(systems[index])
            decisions[index] = _settle_alone(rows, clock)
            if decisions[index] is None:
                left.append((index, rows))
    for batch in _batches(left):
        for index, decision in _settle_by_program(batch, clock):
            decisions[index] = decision
    return [d for d in decisions if d is not None]


# The common case: a few rows, many systems ------------------------------------------------------------------------


def _settle_in_bulk(systems: Sequence[LinearSystem], clock: _Clock) -> list[Decision | None]:
    """No rows, a zero row, a single row or the sum of the rows, for all systems of one width at once."""
    decisions: list[Decision | None] = [None] * len(systems)
    by_width: dict[int, list[int]] = defaultdict(list)
    for index, system in enumerate(systems):
        if len(system.rows):
            by_width[system.rows.shape[1]].append(index)
        else:
            decisions[index] = Decision(Outcome.FEASIBLE, np.zeros(system.rows.shape[1]), how="no rows")
    for members in by_width.values():
        for index, decision in zip(members, _settle_width([systems[i] for i in members], clock), strict=True):
            decisions[index] = decision
    return decisions


def _settle_width(systems: Sequence[LinearSystem], clock: _Clock) -> list[Decision | None]:
    with clock("lp"):
        rows = np.concatenate([s.rows for s in systems])
        counts = np.array([len(s.rows) for s in systems])
        starts = np.cumsum(counts) - counts
        scaled = power_scaled(rows)
        length = lengths(scaled)
        zero = length == 0
        if len(rows) == len(systems):  # one row each, which is its own direction
            sums, directions = rows, scaled
        else:
            sums = np.add.reduceat(scaled / np.where(zero, 1.0, length)[:, None], starts)
            sums[counts == 1] = rows[starts[counts == 1]]
            directions = np.repeat(power_scaled(sums), counts, axis=0)
    with clock("verification"):
        errors = np.concatenate([s.row_error for s in systems])
        positive = clears(scaled, errors, directions)
        settled = np.logical_and.reduceat(positive, starts).tolist()
        empty = np.logical_or.reduceat(zero, starts).tolist()
    return [
        _bulk_decision(s, x, ok, has_zero) for s, x, ok, has_zero in zip(systems, sums, settled, empty, strict=True)
    ]


def _bulk_decision(system: LinearSystem, x: np.ndarray, settled: bool, has_zero: bool) -> Decision | None:
    if has_zero:
        at = int(np.flatnonzero(~system.rows.any(axis=1))[0])
        return Decision(Outcome.INFEASIBLE, None, scatter([Fraction(1)], [at], len(system.rows)), "zero row")
    if settled:
        return Decision(Outcome.FEASIBLE, x, how="single row" if len(system.rows) == 1 else "sum of rows")
    return None


# One system at a time ---------------------------------------------------------------------------------------------


def _settle_alone(rows: DistinctRows, clock: _Clock) -> Decision | None:
    with clock("lp"):
        cosines = gram(rows)
    if cosines is None:
        return None
    with clock("verification"):
        multipliers = opposite_rows(rows, cosines)
    if multipliers is not None:
        return Decision(Outcome.INFEASIBLE, None, multipliers, "opposite rows")
    with clock("lp"):
        x = perceptron(rows, cosines)
    return None if x is None else _if_direction(rows, x, "perceptron", clock)


def _if_direction(rows: DistinctRows, x: np.ndarray, how: str, clock: _Clock) -> Decision | None:
    with clock("verification"):
        verified = is_direction(rows.system.rows, rows.system.row_error, x)
    return Decision(Outcome.FEASIBLE, x, how=how) if verified else None


# Linear programs --------------------------------------------------------------------------------------------------


def _batches(left: Sequence[tuple[int, DistinctRows]]) -> Iterator[list[tuple[int, DistinctRows]]]:
    """All systems together when they are small, else as few batches of bounded size as come in order."""
    batch: list[tuple[int, DistinctRows]] = []
    entries = 0
    for index, rows in left:
        size = len(rows.unit) * min(rows.unit.shape)
        if batch and entries + size > _BATCH_ENTRIES:
            yield batch
            batch, entries = [], 0
        batch.append((index, rows))
        entries += size
    if batch:
        yield batch


def _settle_by_program(batch: Sequence[tuple[int, DistinctRows]], clock: _Clock) -> Iterator[tuple[int, Decision]]:
    with clock("lp"):
        shortened = [shorten(rows.unit) for _, rows in batch]
        claims = _claims([block for block, _ in shortened])
    for (index, rows), (_, basis), claim in zip(batch, shortened, claims, strict=True):
        if claim is None:
            size = "{} rows in {} dimensions".format(*rows.unit.shape)
            yield index, Decision(Outcome.UNDECIDED, reason=f"the solver gave no answer for {size}")
        else:
            yield index, _judge(rows, basis, claim, clock)


def shorten(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows in an orthonormal basis of their span when they are longer than many: only the span matters."""
    if unit.shape[1] <= unit.shape[0] or unit.size > _LARGEST_SPAN:
        return unit, None
    basis, triangle = np.linalg.qr(unit.T)
    # Dependent rows leave rounding where zeros belong, and GLOP fails on such numbers.
    return np.where(np.abs(triangle.T) < 1e-13, 0.0, triangle.T), basis


def _claims(blocks: Sequence[np.ndarray]) -> list[glop.Claim | None]:
    """One program for all; each alone when that fails, so that one hard block does not leave all undecided."""
    if any(block.size > _LARGEST for block in blocks):  # a block of that size is alone in its batch
        return [None] * len(blocks)
    together = glop.solve(blocks)
    if together is not None:
        return list(together)
    alone = [glop.solve([block]) for block in blocks] if len(blocks) > 1 else [None]
    return [claim[0] if claim else None for claim in alone]


def _judge(rows: DistinctRows, basis: np.ndarray | None, claim: glop.Claim, clock: _Clock) -> Decision:
    """Believe no claim: a direction or multipliers are verified, and if neither can be, the system is undecided."""
    found = _if_direction(rows, claim.x if basis is None else basis @ claim.x, "linear program", clock)
    if found is not None:
        return found
    with clock("verification"):
        multipliers = exact_multipliers(rows.system.rows[rows.kept], claim.duals)
    if multipliers is not None:
        scattered = scatter(multipliers, rows.kept.tolist(), len(rows.system.rows))
        return Decision(Outcome.INFEASIBLE, None, scattered, "linear program")
    return _if_direction(rows, _equal_margins(rows, claim), "linear program", clock) or _undecided(claim)


def _equal_margins(rows: DistinctRows, claim: glop.Claim) -> np.ndarray:
    """The direction on which the rows that bind have equal margins: better than the solver's when these are tiny."""
    binding = rows.unit[claim.duals > 1e-9 * claim.duals.max(initial=0.0)]
    return np.asarray(np.linalg.lstsq(binding, np.ones(len(binding)), rcond=None)[0])


def _undecided(claim: glop.Claim) -> Decision:
    if claim.margin > 1e-6:
        return Decision(Outcome.UNDECIDED, reason="no direction clears the error bounds of the rows")
    return Decision(Outcome.UNDECIDED, reason="the margin is too small: no direction and no multipliers were verified")
