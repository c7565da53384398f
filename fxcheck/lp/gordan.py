"""Gordan multipliers: from a solver's approximate duals to an exact cancellation of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd

import numpy as np

from fxcheck.lp import exact
from fxcheck.lp.verify import are_multipliers, lengths

_SUPPORT = 60
"""Cancellations of more rows than this are not looked for: the integers of the elimination grow with it."""
_ENTRIES = 200_000
_BITS = 12_000
"""Longer multipliers are given up, so that a certificate stays readable (Python prints 4300 digits at most)."""
_THRESHOLDS = (1e-6, 1e-10)
_RESOLUTION = 2**30


def exact_multipliers(rows: np.ndarray, duals: np.ndarray) -> tuple[Fraction, ...] | None:
    """Gordan multipliers near a solver's duals.

    The rows with a dual that is not tiny are kept; all dependencies among them are found by fraction-free
    elimination; the free multipliers are set to the duals, and the others follow exactly.

    Args:
        rows: (K, D) float64, finite, not zero.
        duals: (K,) >= 0, approximate multipliers of the rows divided by their lengths.

    Returns:
        (K,) whole numbers, verified, or None when these duals lead to none.

    Source: Gordan's theorem (theory 3, Emptiness).
    """
    largest = duals.max(initial=0.0)
    shares = duals / largest if 0 < largest < np.inf else np.zeros_like(duals)
    for threshold in _THRESHOLDS:
        support = np.flatnonzero(shares > threshold)
        if not 0 < len(support) <= _SUPPORT or len(support) * rows.shape[1] > _ENTRIES:
            continue
        found = _cancelling(rows[support], shares[support])
        if found is not None and are_multipliers(rows[support], found):
            return scatter(found, support.tolist(), len(rows))
    return None


def scatter(multipliers: Sequence[Fraction], rows: Sequence[int], count: int) -> tuple[Fraction, ...]:
    """Multipliers of all ``count`` rows: those given at ``rows``, 0 elsewhere."""
    out = [Fraction(0)] * count
    for row, multiplier in zip(rows, multipliers, strict=True):
        out[row] = multiplier
    return tuple(out)


def _cancelling(rows: np.ndarray, duals: np.ndarray) -> tuple[Fraction, ...] | None:
    """y with sum y_k a_k = 0 and the free entries equal to the duals; signs are not looked at."""
    whole, exponents = exact.integers(rows)
    top = exact.column_exponents(rows)
    weights = duals / lengths(np.ldexp(rows, -top[:, None]))  # of the rows times 2**-top
    wanted = [round(w / weights.max() * _RESOLUTION) for w in weights.tolist()]
    # In units of the whole rows; the same power of two for all.
    units = [w << (int(t) - e) for w, t, e in zip(wanted, top, exponents, strict=True)]
    reduced, pivots = _eliminate(_few_equations(whole))
    free = [k for k in range(len(rows)) if k not in pivots]
    if not free:
        return None
    pivot = reduced[0, pivots[0]]
    values = [u * abs(pivot) for u in units]
    sign = 1 if pivot > 0 else -1
    for r, column in enumerate(pivots):
        values[column] = -sign * sum(reduced[r, f] * units[f] for f in free)
    highest = max(exponents)
    return _primitive([v << (highest - e) for v, e in zip(values, exponents, strict=True)])


def _primitive(values: list[int]) -> tuple[Fraction, ...] | None:
    common = gcd(*values)
    small = [v // common for v in values] if common else values
    return tuple(Fraction(v) for v in small) if max(abs(v) for v in small).bit_length() <= _BITS else None


def _few_equations(whole: np.ndarray) -> np.ndarray:
    """Equations, one a row, for the multipliers: the coordinates, or random combinations when there are many.

    As many combinations as unknowns and two more have the same solutions, almost surely; the caller verifies.
    """
    equations = whole[:, whole.any(axis=0)].T
    wanted = len(whole) + 2
    if len(equations) <= wanted:
        return equations
    mix = np.random.default_rng(0).integers(-1, 2, (wanted, len(equations))).astype(object)
    return np.asarray(mix @ equations)


def _eliminate(matrix: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Fraction-free Gauss-Jordan elimination (Bareiss) of a non-zero integer matrix.

    Returns:
        The reduced matrix, all of whose pivots are equal, and the column of the pivot in each of its first rows.
    """
    matrix = matrix.copy()
    previous = 1
    pivots: list[int] = []
    for column in range(matrix.shape[1]):
        row = len(pivots)
        below = np.flatnonzero(matrix[row:, column])
        if not len(below):
            continue
        matrix[[row, row + below[0]]] = matrix[[row + below[0], row]]
        pivot, chosen = matrix[row, column], matrix[row].copy()
        matrix = (matrix * pivot - np.multiply.outer(matrix[:, column], chosen)) // previous
        matrix[row] = chosen
        previous = pivot
        pivots.append(column)
    return matrix, pivots
