"""Systems of strict homogeneous inequalities, and what was decided about them (theory 3, Emptiness)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np

from fxcheck.errors import FxcheckError


@dataclass(frozen=True, eq=False)
class LinearSystem:
    """Rows a_k of which a direction x with <a_k, x> > 0 for all k is wanted.

    Raises:
        FxcheckError: the shapes do not fit, an entry is not finite, or an error is negative.
    """

    rows: np.ndarray
    """(K, D) float64, finite."""
    row_error: np.ndarray
    """(K,) float64 >= 0: the true row lies within row_error[k] * ||a_k||_2 of the stored one; 0: it is the stored one."""

    def __post_init__(self) -> None:
        rows, error = np.asarray(self.rows, np.float64), np.asarray(self.row_error, np.float64)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "row_error", error)
        if rows.ndim != 2 or error.shape != rows.shape[:1]:
            raise FxcheckError(f"a linear system needs rows (K, D) and errors (K,), found {rows.shape}, {error.shape}")
        if not np.isfinite(rows).all():
            raise FxcheckError(
                "a row of the linear system holds nan or infinity, so nothing can be decided",
                hint="look for the first non-finite activation or gradient of this step",
            )
        if not (np.isfinite(error).all() and (error >= 0).all()):
            raise FxcheckError("the error of a row must be a finite number >= 0")


class Outcome(StrEnum):
    """Three-valued: a system that could not be decided is neither feasible nor infeasible."""

    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNDECIDED = "undecided"


@dataclass(frozen=True, eq=False)
class Decision:
    """An outcome with the witness that proves it (Gordan's theorem: exactly one of the two exists)."""

    outcome: Outcome
    direction: np.ndarray | None = None
    """(D,) when feasible: <a_k, x> > row_error[k] * ||a_k|| * ||x|| was verified for all k."""
    multipliers: tuple[Fraction, ...] | None = None
    """(K,) when infeasible: >= 0, not all 0, and sum_k y_k a_k = 0 exactly, of the rows as stored."""
    how: str = ""
    """``no rows``, ``zero row``, ``single row``, ``sum of rows``, ``opposite rows``, ``perceptron`` or
    ``linear program``: what found the witness."""
    reason: str = ""
    """When undecided: one clause that says why."""
