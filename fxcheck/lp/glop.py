"""The only file that talks to the solver. What it returns are claims: ``verify`` decides which of them count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# GLOP solves the dual of these tall programs about three times faster than the program itself.
_PARAMETERS = "solve_dual_problem: ALWAYS_DO"


@dataclass(frozen=True, eq=False)
class Claim:
    """What the solver says about one block; any of it may be wrong."""

    margin: float
    """max t, between 0 and 1."""
    x: np.ndarray
    """(D,) with A x >= t."""
    duals: np.ndarray
    """(K,) of the constraints, >= 0; Gordan multipliers where the margin is 0."""


def solve(blocks: Sequence[np.ndarray], *, limit: float = 20.0) -> list[Claim] | None:
    """Solve one block-diagonal linear program: maximise t_b subject to A_b x_b >= t_b, |x_b| <= 1, 0 <= t_b <= 1.

    It is always feasible and bounded, so that an optimum has a witness for either answer.

    Args:
        blocks: each (K_b, D_b) float64, finite, rows of length about one.
        limit: seconds of the solver.

    Returns:
        One claim a block; None unless the solver reports an optimum with finite values.

    Source: theory, Emptiness.
    """
    from ortools.linear_solver.python import model_builder_helper as api  # the first import takes 150 ms

    model = api.ModelBuilderHelper()
    for rows in blocks:
        _add_block(api, model, rows)
    model.set_maximize(True)
    solver = api.ModelSolverHelper("glop")
    solver.set_solver_specific_parameters(_PARAMETERS)
    solver.set_time_limit_in_seconds(limit)
    solver.solve(model)
    if solver.status() != api.SolveStatus.OPTIMAL:
        return None
    return _split(blocks, np.array(solver.variable_values()), np.array(solver.dual_values()))


def _add_block(api: Any, model: Any, rows: np.ndarray) -> None:
    variables = []
    for lower in [-1.0] * rows.shape[1] + [0.0]:
        index = model.add_var()
        model.set_var_lower_bound(index, lower)
        model.set_var_upper_bound(index, 1.0)
        variables.append(api.Variable(model, index))
    model.set_var_objective_coefficient(index, 1.0)
    for row in np.hstack([rows, np.full((len(rows), 1), -1.0)]).tolist():
        constraint = model.add_linear_constraint()
        model.set_constraint_lower_bound(constraint, 0.0)
        model.set_constraint_upper_bound(constraint, np.inf)
        model.add_terms_to_constraint(constraint, variables, row)


def _split(blocks: Sequence[np.ndarray], values: np.ndarray, duals: np.ndarray) -> list[Claim] | None:
    widths, heights = [b.shape[1] + 1 for b in blocks], [b.shape[0] for b in blocks]
    if values.shape != (sum(widths),) or duals.shape != (sum(heights),):
        return None
    if not (np.isfinite(values).all() and np.isfinite(duals).all()):
        return None
    parts = zip(np.split(values, np.cumsum(widths)[:-1]), np.split(duals, np.cumsum(heights)[:-1]), strict=True)
    # The dual of a >= constraint of a maximisation is <= 0.
    return [Claim(float(v[-1]), v[:-1], np.maximum(-d, 0.0)) for v, d in parts]
