"""Linear independence of columns, proved by an approximate left inverse and never by a floating-point rank."""

from __future__ import annotations

import numpy as np

from fxcheck.lp import exact
from fxcheck.lp.verify import UNIT

_EXACT_PRODUCTS = 1_000_000
"""Products with more multiplications than this are not checked exactly when the error bound is inconclusive."""
_UNDERFLOW = 2.0**-900


def left_inverse(Z: np.ndarray) -> np.ndarray | None:
    """Prove that the columns of Z are linearly independent.

    Args:
        Z: (N, K) float64; for T5 the columns of z_{l-1}, or those where a neuron is touched.

    Returns:
        R (K, N) such that R Z - I has norm below 1, verified; the norm is induced by a maximum norm with one
        power of two a column as weights, so that columns of any size will do. None when it could not be verified.

    Source: theory, T5: then R Z is invertible, so Z has full column rank.
    """
    Z = np.asarray(Z, np.float64)
    if Z.ndim != 2 or Z.shape[0] < Z.shape[1] or not np.isfinite(Z).all():
        return None
    columns = Z.T
    weights = exact.column_exponents(columns)
    with np.errstate(all="ignore"):
        inverse = _guess(np.ldexp(columns, -weights[:, None]).T, weights)
    return inverse if inverse is not None and is_left_inverse(inverse, columns) else None


def _guess(scaled: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """R for Z from Z W^-1 by Householder QR."""
    try:
        q, r = np.linalg.qr(scaled)
        return np.ldexp(np.linalg.solve(r, q.T), -weights[:, None])
    except np.linalg.LinAlgError:  # exactly singular
        return None


def is_left_inverse(inverse: np.ndarray, columns: np.ndarray) -> bool:
    """Is the weighted norm of R Z - I below 1? Error-bounded; exactly where that is inconclusive and the size small.

    Args:
        inverse: (K, N) float64, R.
        columns: (K, N) float64, the columns of Z, one a row.

    Returns:
        True only when it is proved; the weights are those of ``exact.column_exponents``.
    """
    if inverse.shape != columns.shape or not (np.isfinite(inverse).all() and np.isfinite(columns).all()):
        return False
    if _surely_inverts(inverse, columns):
        return True
    count, size = columns.shape
    return count * count * size <= _EXACT_PRODUCTS and exact.inverts(inverse, columns)


def _surely_inverts(inverse: np.ndarray, columns: np.ndarray) -> bool:
    """|fl(R Z) - R Z| <= gamma_N |R| |Z| entry by entry; the row sums of that are added to those of |fl(R Z) - I|."""
    count, size = columns.shape
    weights = exact.column_exponents(columns)[:, None]
    with np.errstate(all="ignore"):  # what overflows compares as False
        left, right = np.ldexp(inverse, weights), np.ldexp(columns, -weights)
        residual = np.abs(left @ right.T - np.eye(count)).sum(axis=1)
        rounding = 1.1 * (size + count + 16) * UNIT * (np.abs(left) @ np.abs(right).sum(axis=0) + residual + 1)
        largest = np.max(residual + rounding, initial=0.0)
        underflow = size * count * (1 + np.abs(left).max(initial=0.0)) * _UNDERFLOW
        return bool(largest * (1 + 16 * UNIT) + underflow < 1)
