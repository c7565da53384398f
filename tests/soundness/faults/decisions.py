"""Wrong decisions about a step, and wrong answers about its linear systems and certificates."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.soundness.faults.record import ATTACKS, NAMED, STEPS, TRAPS, fault


@fault("2, Algorithm 1", "runtime.blocks:blocks_of", f"{TRAPS}[two swapped pixels]")
def each_window_alone(right: Any) -> Any:
    """Max outputs and touches are decided one by one."""

    def wrong(rows: Any, size_of: Any) -> list[Any]:
        apart: dict[Any, list[Any]] = {}
        for row in rows:
            apart.setdefault((row.group, row.kind, row.output, row.entry), []).append(row)
        return [block for part in apart.values() for block in right(part, size_of)]

    return wrong


@fault("4.12", "runtime.session:Session._settle", f"{STEPS}test_rows_of_all_forwards_are_decided_together")
def each_forward_alone(right: Any) -> Any:
    """Micro-batches are decided one by one."""

    def wrong(self: Any, *call: Any) -> None:
        before, held = self.decided, (self.rows, self.columns)
        self.rows, self.columns = [], []
        right(self, *call)
        self.rows, self.columns = held
        for name in ("blocks", "independent", "dependent") if before else ():
            getattr(self.decided, name)[:0] = getattr(before, name)

    return wrong


@fault("4.12", "runtime.program:Program.is_like", f"{ATTACKS}[6b: a submodule's training flag turns the layer around]")
def programs_are_alike(right: Any) -> Any:
    """Rows of forwards that ran different layers are pooled."""
    return lambda self, other: True


@fault(
    "3, T1", "runtime.session:Session.joins", f"{STEPS}test_lemma_3_as_one_minibatch_and_as_two_micro_batches_of_one"
)
def t1_forward_by_forward(right: Any) -> Any:
    """T1 for a step of several samples."""

    def wrong(self: Any, *call: Any) -> None:
        right(self, *call)
        self.forwards = self.samples = 1

    return wrong


@fault(
    "4.12",
    "passes.plan_checks:_carried",
    f"{STEPS}test_a_buffer_that_carries_activations_spoils_steps_of_several_forwards",
)
def buffers_carry_nothing(right: Any) -> Any:
    """A buffer that hands activations to the next forward without gradient is ignored."""
    return lambda facts: ()


@fault("4.12", "runtime.checked:_outside_influence", f"{ATTACKS}[8: a checked parameter as the input]")
def inputs_are_data(right: Any) -> Any:
    """An input that depends on the parameters passes as data."""
    return lambda program, leaves, autocast: []


@fault("3, T5", "runtime.conclude:_without_sides", f"{NAMED}test_t5_says_nothing_about_dependent_columns")
def no_side_is_a_side(right: Any) -> Any:
    """Where T5 fails, touches at which AD took neither side need no row."""
    return lambda session, decided: []


# Linear systems and certificates -------------------------------------------------------------------


@fault(
    "3, Emptiness", "lp.feasibility:_judge", "tests/lp/test_feasibility.py::test_no_lie_of_the_solver_becomes_a_verdict"
)
def trusted_solver(right: Any) -> Any:
    """The solver's direction is believed where it says that its margin is positive."""
    from fxcheck.records.system import Decision, Outcome

    def wrong(rows: Any, basis: Any, claim: Any, clock: Any) -> Any:
        x = claim.x if basis is None else basis @ claim.x
        return Decision(Outcome.FEASIBLE, x) if claim.margin > 0 else right(rows, basis, claim, clock)

    return wrong


@fault("4.13", "lp.verify:clears", "tests/lp/test_feasibility.py::test_a_direction_must_clear_the_error_of_its_rows")
def rows_are_exact(right: Any) -> Any:
    """A direction need not clear the error of the rows."""
    return lambda scaled, error, directions: right(scaled, 0 * error, directions)


@fault(
    "3, Emptiness",
    "lp.recheck:_holds",
    "tests/lp/test_recheck.py::test_a_tampered_block_is_refuted_whatever_the_verdict",
)
def certificates_hold(right: Any) -> Any:
    """A saved certificate is believed."""
    return lambda block: True


@fault("3, T5", "lp.independence:left_inverse", "tests/lp/test_independence.py::"
       "test_dependent_integer_columns_are_never_called_independent")  # fmt: skip
def floating_rank(right: Any) -> Any:
    """T5 by a floating-point rank: no pivot of the QR factorisation is 0."""

    def wrong(columns: np.ndarray) -> np.ndarray | None:
        full = columns.shape[0] >= columns.shape[1] and bool(np.diag(np.linalg.qr(columns)[1]).all())
        return np.linalg.pinv(columns) if full else None

    return wrong
