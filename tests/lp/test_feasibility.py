"""decide(): every answer has a witness, agrees with an exact oracle, and no lie of the solver becomes a verdict."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxcheck.errors import FxcheckError
from fxcheck.lp import exact, glop
from fxcheck.lp.feasibility import decide
from fxcheck.lp.verify import are_multipliers
from fxcheck.records.system import Decision, LinearSystem, Outcome

_RNG = np.random.default_rng(0)


def _system(rows: object, error: float = 0.0) -> LinearSystem:
    stored = np.array(rows, dtype=np.float64)
    return LinearSystem(stored, np.full(len(stored), error))


def _decide(rows: object, error: float = 0.0) -> Decision:
    system = _system(rows, error)
    (decision,) = decide([system])
    _check(system, decision)
    return decision


def _check(system: LinearSystem, decision: Decision) -> None:
    if decision.outcome is Outcome.FEASIBLE:
        assert decision.direction is not None and decision.multipliers is None
        assert exact.positive_on(system.rows, system.row_error, decision.direction).all()
    elif decision.outcome is Outcome.INFEASIBLE:
        assert decision.multipliers is not None and decision.direction is None
        assert are_multipliers(system.rows, decision.multipliers)
    else:
        assert decision.reason and decision.direction is None and decision.multipliers is None


def _feasible(rows: list[list[int]]) -> bool:
    """Exact oracle: Fourier-Motzkin elimination of strict homogeneous inequalities."""
    width = len(rows[0])
    for column in range(width):
        kept = [r for r in rows if r[column] == 0]
        up, down = [r for r in rows if r[column] > 0], [r for r in rows if r[column] < 0]
        pairs = [[a * -q[column] + b * p[column] for a, b in zip(p, q, strict=True)] for p in up for q in down]
        unique = {tuple(r) for r in [*kept, *pairs]}
        rows = [list(r) for r in unique]
        if any(not any(r) for r in rows):
            return False
    return True


_ROWS = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(st.integers(-3, 3), min_size=width, max_size=width), min_size=1, max_size=6)
)


@settings(max_examples=300, deadline=None)
@given(_ROWS)
def test_small_integer_systems_are_decided_as_the_exact_oracle_decides_them(rows: list[list[int]]) -> None:
    wanted = Outcome.FEASIBLE if _feasible(rows) else Outcome.INFEASIBLE
    assert _decide(rows).outcome is wanted


@settings(max_examples=100, deadline=None)
@given(_ROWS, st.lists(st.integers(-150, 150), min_size=6, max_size=6))
def test_scaling_rows_by_powers_of_ten_never_turns_an_answer(rows: list[list[int]], powers: list[int]) -> None:
    scaled = [[entry * 10.0**p for entry in row] for row, p in zip(rows, powers, strict=False)]
    outcome = _decide(scaled).outcome
    if outcome is Outcome.INFEASIBLE:  # rounding 10**p may perturb a row, so only this direction is certain
        assert not _feasible([[int(Fraction(e) * 2**1200) for e in row] for row in scaled])


@pytest.mark.parametrize(
    ("rows", "how", "outcome"),
    [
        (np.zeros((0, 3)), "no rows", Outcome.FEASIBLE),
        ([[1, 2], [0, 0]], "zero row", Outcome.INFEASIBLE),
        (np.zeros((1, 0)), "zero row", Outcome.INFEASIBLE),
        ([[3, -4]], "single row", Outcome.FEASIBLE),
        ([[1, 0], [0, 1]], "sum of rows", Outcome.FEASIBLE),
        ([[1, 2, 3], [0, 1, 0], [-3, -6, -9]], "opposite rows", Outcome.INFEASIBLE),
        ([[1, 0], [-0.9, 0.1], [-0.9, 0.1], [-0.8, 0.1]], "perceptron", Outcome.FEASIBLE),
        ([[1, 0], [0, 1], [-1, -1]], "linear program", Outcome.INFEASIBLE),
    ],
)
def test_each_kind_of_system_is_settled_by_the_cheapest_check(rows: object, how: str, outcome: Outcome) -> None:
    decision = _decide(rows)
    assert (decision.how, decision.outcome) == (how, outcome)


def test_many_systems_of_different_widths_keep_their_order() -> None:
    systems = [_system(_RNG.normal(size=(k, d))) for k in (0, 1, 4, 40) for d in (1, 3, 27)] * 3
    decisions = decide(systems)
    assert len(decisions) == len(systems)
    for system, decision in zip(systems, decisions, strict=True):
        _check(system, decision)
        assert decision.outcome is not Outcome.UNDECIDED


def test_more_rows_than_one_program_takes_are_solved_in_batches() -> None:
    systems = [_system(_RNG.normal(size=(357, 27))) for _ in range(4)]
    decisions = decide(systems)
    assert [d.outcome for d in decisions] == [Outcome.INFEASIBLE] * 4
    assert all(are_multipliers(s.rows, d.multipliers or ()) for s, d in zip(systems, decisions, strict=True))


def test_duplicate_rows_do_not_hide_a_cancellation() -> None:
    decision = _decide([[1, 0], [0, 1], [-1, -1]] * 50)
    assert decision.outcome is Outcome.INFEASIBLE and decision.multipliers is not None
    assert sum(y > 0 for y in decision.multipliers) == 3


def test_rows_that_fewer_than_cancel_in_many_columns_are_proved_infeasible() -> None:
    rows = _RNG.integers(-9, 10, size=(20, 600))
    assert _decide([*rows, -rows.sum(axis=0)]).outcome is Outcome.INFEASIBLE


def test_dependent_rows_in_many_columns_do_not_defeat_the_solver() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        count = int(rng.integers(6, 21))
        basis = rng.integers(-3, 4, size=(count // 3, 25))
        rows = rng.integers(-2, 3, size=(count, len(basis))) @ basis
        assert _decide(rows[rows.any(axis=1)]).outcome is not Outcome.UNDECIDED


@pytest.mark.parametrize("tiny", [1e-3, 1e-8, 1e-12])
def test_nearly_opposite_rows_are_feasible_and_proved_so(tiny: float) -> None:
    assert _decide([[1.0, 0.0], [-1.0, tiny]]).outcome is Outcome.FEASIBLE


def test_a_margin_beyond_the_solver_is_left_open() -> None:
    assert _decide([[1.0, 0.0], [-1.0, 1e-100]]).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize("tiny", [1e-3, 1e-8, 1e-13])
def test_nearly_cancelling_rows_are_never_called_infeasible(tiny: float) -> None:
    assert _decide([[1, 0, 0], [0, 1, 0], [-1, -1, tiny]]).outcome is not Outcome.INFEASIBLE


def test_a_direction_must_clear_the_error_of_its_rows() -> None:
    rows = [[1.0, 0.0], [-0.9, 0.1]]
    assert _decide(rows, 0.0).outcome is Outcome.FEASIBLE
    assert _decide(rows, 0.04).outcome is Outcome.FEASIBLE
    assert _decide(rows, 0.2).outcome is Outcome.UNDECIDED


def test_a_row_less_certain_than_its_length_is_undecided() -> None:
    assert _decide([[1.0, 2.0]], 1.0).outcome is Outcome.UNDECIDED


def test_the_larger_error_of_two_equal_rows_counts() -> None:
    system = LinearSystem(np.array([[1.0, 0], [1, 0], [-0.9, 0.1]]), np.array([0.0, 0.5, 0.0]))
    assert decide([system])[0].outcome is Outcome.UNDECIDED


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(FxcheckError, match="nan or infinity"):
        _system([[1.0, bad]])


@pytest.mark.parametrize(
    ("rows", "error"), [(np.ones(3), np.zeros(3)), (np.ones((2, 3)), np.zeros(3)), (np.ones((1, 1)), np.array([-1.0]))]
)
def test_shapes_and_errors_are_checked(rows: np.ndarray, error: np.ndarray) -> None:
    with pytest.raises(FxcheckError):
        LinearSystem(rows, error)


def test_wall_time_is_added_to_what_was_there() -> None:
    seconds = {"lp": 100.0}
    decide([_system([[1, 0], [0, 1], [-1, -1]])], seconds=seconds)
    assert seconds["lp"] > 100 and seconds["verification"] > 0


# A solver that lies -----------------------------------------------------------------------------------------------

_CYCLE = [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]
_NARROW = [[1.0, 0.0], [-1.0, 1e-4]]
"""Feasible, but not for the sum of the rows, nor within the rounds of the perceptron."""


@pytest.mark.parametrize("rows", [_CYCLE, _NARROW])
@pytest.mark.parametrize("kind", ["wrong x", "wrong duals", "wrong sign", "nothing", "zeros", "huge"])
def test_no_lie_of_the_solver_becomes_a_verdict(
    monkeypatch: pytest.MonkeyPatch, rows: list[list[float]], kind: str
) -> None:
    def lie(blocks: list[np.ndarray], **_: object) -> list[glop.Claim] | None:
        honest = solve(blocks)
        if kind == "nothing" or honest is None:
            return None
        return [_twist(claim, kind) for claim in honest]

    solve = glop.solve
    monkeypatch.setattr(glop, "solve", lie)
    wrong = Outcome.FEASIBLE if rows is _CYCLE else Outcome.INFEASIBLE
    assert _decide(rows).outcome is not wrong


def _twist(claim: glop.Claim, kind: str) -> glop.Claim:
    if kind == "wrong x":
        return glop.Claim(1.0, np.ones_like(claim.x), np.zeros_like(claim.duals))
    if kind == "wrong duals":
        return glop.Claim(0.0, np.zeros_like(claim.x), np.arange(1.0, 1 + len(claim.duals)))
    if kind == "wrong sign":
        return glop.Claim(claim.margin, -claim.x, -claim.duals)
    if kind == "huge":
        return glop.Claim(1.0, claim.x * 1e308, claim.duals * 1e308)
    return glop.Claim(0.0, claim.x * 0, claim.duals * 0)


def test_a_solver_without_an_answer_leaves_the_system_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glop, "solve", lambda blocks, **_: None)
    decision = _decide(_CYCLE)
    assert decision.outcome is Outcome.UNDECIDED and "solver gave no answer" in decision.reason


def test_a_batch_that_fails_is_solved_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    solve = glop.solve
    monkeypatch.setattr(glop, "solve", lambda blocks, **_: solve(blocks) if len(blocks) == 1 else None)
    decisions = decide([_system(_CYCLE), _system(_CYCLE)])
    assert [d.outcome for d in decisions] == [Outcome.INFEASIBLE] * 2


def test_a_solver_that_runs_out_of_time_gives_no_claim() -> None:
    assert glop.solve([_RNG.normal(size=(300, 60))], limit=0.0) is None
