"""Witnesses are checked here, with error-bounded or exact arithmetic; nothing here trusts a solver."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from fxcheck.lp import exact

UNIT = 2.0**-53
"""Unit roundoff u of float64."""
_EXACT_ENTRIES = 200_000
"""Rows with more entries than this together are not checked exactly when the error bound is inconclusive."""
KNOWN = 1e-3
"""A vector whose relative error is larger shows nothing in a sum that has to vanish."""
_UNDERFLOW = 2.0**-900
"""More than all underflow can add up to in products of scaled vectors; see ``power_scaled``."""


def power_scaled(rows: np.ndarray) -> np.ndarray:
    """Each row times a power of two that brings its largest entry into [2**-74, 2**24), mostly [1/2, 1).

    No entry is rounded, except that one more than 2**900 times smaller than the largest may underflow.

    Args:
        rows: (K, D) float64.
    """
    top = np.frexp(np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0)))[1]
    return rows * np.ldexp(1.0, np.minimum(np.maximum(-top, -1000), 1000))[:, None]


def lengths(rows: np.ndarray) -> np.ndarray:
    """Computed Euclidean norms of rows that were scaled; (K, D) to (K,)."""
    return np.sqrt(np.einsum("kd,kd->k", rows, rows))


def surely_positive(rows: np.ndarray, row_error: np.ndarray, x: np.ndarray) -> np.ndarray:
    """For each row, is <a_k, x> > row_error[k] * ||a_k|| * ||x|| beyond all rounding? False also when unsure.

    Args:
        rows: (K, D) float64.
        row_error: (K,) float64 >= 0.
        x: (D,) float64.

    Returns:
        (K,) bool.
    """
    return clears(power_scaled(rows), row_error, power_scaled(x[None]))


def clears(scaled: np.ndarray, row_error: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """As ``surely_positive``, of vectors that ``power_scaled`` returned, with one direction or one for each row.

    The computed dot product of n terms is off by at most gamma_n sum|a_j||x_j| <= gamma_n ||a|| ||x||, where
    gamma_n = n u / (1 - n u), in whatever order it was summed; the computed norms by a factor 1 + gamma_n or less.

    Args:
        scaled: (K, D) float64.
        row_error: (K,) float64 >= 0.
        directions: (1, D) or (K, D) float64.

    Returns:
        (K,) bool.
    """
    n = scaled.shape[1]
    with np.errstate(all="ignore"):  # what overflows compares as False
        dots = np.einsum("kd,kd->k", scaled, directions)
        margin = (row_error + 1.1 * (n + 8) * UNIT) * (1 + 1.1 * (n + 16) * UNIT)
        return np.asarray(dots > margin * lengths(scaled) * lengths(directions) + _UNDERFLOW)


def is_direction(rows: np.ndarray, row_error: np.ndarray, x: np.ndarray) -> bool:
    """Does x satisfy <a_k, x> > row_error[k] * ||a_k|| * ||x|| for every k?

    Args:
        rows: (K, D) float64.
        row_error: (K,) float64 >= 0.
        x: (D,) float64.

    Returns:
        True only when that is proved: by an error bound, or exactly where the bound is inconclusive and the rows
        in question are few. False for a wrong shape and for nan or infinity.
    """
    if x.shape != rows.shape[1:] or row_error.shape != rows.shape[:1] or not _finite(rows, row_error, x):
        return False
    unsure = ~surely_positive(rows, row_error, x)
    if not unsure.any():
        return True
    doubtful = rows[unsure]
    if doubtful.size > _EXACT_ENTRIES or surely_positive(-doubtful, np.zeros(len(doubtful)), x).any():
        return False
    return bool(exact.positive_on(doubtful, row_error[unsure], x).all())


def are_multipliers(rows: np.ndarray, multipliers: Sequence[Fraction]) -> bool:
    """Is y >= 0, not all 0, with sum_k y_k a_k = 0 exactly?

    Args:
        rows: (K, D) float64.
        multipliers: (K,) the y_k.

    Returns:
        False also for a wrong length and for nan or infinity.

    Source: Gordan's theorem: then no x has <a_k, x> > 0 for all k.
    """
    if len(multipliers) != len(rows) or not _finite(rows):
        return False
    return all(y >= 0 for y in multipliers) and any(multipliers) and exact.cancel(rows, multipliers)


def mixes_to_zero(weights: np.ndarray, coefficients: np.ndarray, rows: np.ndarray, row_error: np.ndarray) -> bool:
    """Is sum_i w_i sum_k c_ik a_k = 0, up to the errors of the a_k and the rounding of this sum?

    The errors count for what is left of each term when the weights are applied, and coordinate by coordinate, so that a large
    term hides no small one: with q_k = sum_i w_i c_ik, in every coordinate j
    | sum_k q_k a_kj | <= sum_k |q_k| (row_error[k] + rounding) |a_kj|. No error is granted beyond ``KNOWN``.

    Args:
        weights: (M,) float64 >= 0, not all 0.
        coefficients: (M, K) float64.
        rows: (K, D) float64, the a_k.
        row_error: (K,) float64 >= 0, relative to the lengths.

    Returns:
        False also for wrong shapes, for nan or infinity, and for numbers whose products could overflow or vanish.
    """
    if coefficients.shape != (len(weights), len(rows)) or row_error.shape != rows.shape[:1]:
        return False
    if not _finite(weights, coefficients, rows, row_error) or (weights < 0).any() or not weights.any():
        return False
    if not all(map(_is_moderate, (weights, coefficients, rows))):
        return False
    left = weights @ coefficients
    most = weights @ np.abs(coefficients)
    rounding = 4.0 * sum(coefficients.shape) * UNIT
    left = np.where(np.abs(left) <= rounding * most, 0.0, left)
    allowed = (np.abs(left) * (np.minimum(row_error, KNOWN) + rounding)) @ np.abs(rows)
    return bool((np.abs(left @ rows) <= allowed).all())


def _is_moderate(numbers: np.ndarray) -> bool:
    """Products of three such numbers neither overflow nor vanish."""
    sizes = np.abs(numbers[numbers != 0])
    return bool(((sizes > 2.0**-300) & (sizes < 2.0**300)).all())


def _finite(*arrays: np.ndarray) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)
