"""What settles most systems without a linear program: equal and opposite rows, and a perceptron."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from fxcheck.lp.gordan import scatter
from fxcheck.lp.verify import UNIT, are_multipliers, lengths, power_scaled
from fxcheck.records.system import LinearSystem

_ROUNDS = 200
_GRAM_ROWS = 1024
"""Larger Gram matrices are not formed."""
_PAIRS = 16


@dataclass(frozen=True, eq=False)
class DistinctRows:
    """A system without rows that are equal up to a power of two, each row of length about one."""

    system: LinearSystem
    kept: np.ndarray
    """(M,) where each distinct row stands in the system."""
    unit: np.ndarray
    """(M, D) the rows divided by their lengths, rounded: to search with, never to prove with."""
    error: np.ndarray
    """(M,) the largest relative error of the equal rows."""


def distinct_rows(system: LinearSystem) -> DistinctRows:
    """Find the distinct rows of a system without zero rows."""
    scaled = power_scaled(system.rows) + 0.0  # -0.0 becomes 0.0, so that equal rows have equal bytes
    place: dict[bytes, int] = {}
    group = np.array([place.setdefault(row.tobytes(), len(place)) for row in scaled], dtype=np.intp)
    error = np.zeros(len(place))
    np.maximum.at(error, group, system.row_error)
    kept = np.unique(group, return_index=True)[1]
    rows = scaled[kept]
    return DistinctRows(system, kept, rows / lengths(rows)[:, None], error)


def gram(rows: DistinctRows) -> np.ndarray | None:
    """(M, M) cosines between the rows; None when there are too many of them."""
    return rows.unit @ rows.unit.T if len(rows.unit) <= _GRAM_ROWS else None


def opposite_rows(rows: DistinctRows, cosines: np.ndarray) -> tuple[Fraction, ...] | None:
    """Verified multipliers from two rows a and -c a with c > 0, the commonest infeasible case.

    Returns:
        (K,) multipliers of all rows of the system, or None when no two rows are exactly opposite.
    """
    bound = -1 + 8 * (rows.unit.shape[1] + 8) * UNIT
    for i, j in np.argwhere(np.triu(cosines <= bound))[:_PAIRS].tolist():
        pair = rows.kept[[i, j]]
        a, b = rows.system.rows[pair]
        at = int(np.abs(rows.unit[i]).argmax())
        multipliers = (abs(Fraction(float(b[at]))), abs(Fraction(float(a[at]))))
        if are_multipliers(rows.system.rows[pair], multipliers):
            return scatter(multipliers, pair.tolist(), len(rows.system.rows))
    return None


def perceptron(rows: DistinctRows, cosines: np.ndarray) -> np.ndarray | None:
    """Add the most violated row to a sum of rows until none is violated.

    Returns:
        (D,) a direction still to be verified, or None after too many rounds.
    """
    counts = np.ones(len(cosines))
    dots = cosines.sum(axis=1)
    squared = dots.sum()
    for _ in range(_ROUNDS):
        slack = dots - (rows.error + 1e-12) * np.sqrt(max(squared, 0.0))
        worst = int(slack.argmin())
        if slack[worst] > 0:
            return np.asarray(counts @ rows.unit)
        squared += 2 * dots[worst] + cosines[worst, worst]
        counts[worst] += 1
        dots += cosines[worst]
    return None
