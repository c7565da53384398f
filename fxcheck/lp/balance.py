"""Which convex combination of vectors vanishes? If none does, a direction on which all of them are positive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fxcheck.lp import glop
from fxcheck.lp.feasibility import shorten
from fxcheck.lp.prechecks import distinct_rows
from fxcheck.lp.verify import mixes_to_zero
from fxcheck.records.system import LinearSystem

_ROUNDS = 8
_TINY = 1e-9


@dataclass(frozen=True, eq=False)
class Balance:
    """One of the two, or neither where the solver gave no answer."""

    weights: np.ndarray | None = None
    """(M,) float64 >= 0 with sum 1, verified: ``mixes_to_zero`` holds."""
    direction: np.ndarray | None = None
    """(D,) on which, the solver claims, all combinations are positive."""


def balance(coefficients: np.ndarray, terms: LinearSystem) -> Balance:
    """Mix vectors to zero, each given as a combination of common terms.

    Args:
        coefficients: (M, K) float64; vector i is the sum over k of coefficients[i, k] times row k.
        terms: the K rows, with their errors.

    Source: Gordan's theorem (theory 3, Emptiness); theory 5, witnessed decomposition.
    """
    vectors = coefficients @ terms.rows
    zero = np.flatnonzero(~coefficients.any(axis=1))
    if len(zero):
        return Balance(np.eye(len(coefficients))[zero[0]])
    if not vectors.any(axis=1).all():  # they cancel in floats, though not term by term
        return _if_mixing(coefficients, terms, (~vectors.any(axis=1)).astype(np.float64)) or Balance()
    rows = distinct_rows(LinearSystem(vectors, np.zeros(len(vectors))))
    unit, basis = shorten(rows.unit)
    claims = glop.solve([unit])
    if claims is None:
        return Balance()
    found = _scattered(vectors, rows.kept, _polished(unit, claims[0].duals))
    x = claims[0].x if basis is None else basis @ claims[0].x
    return _if_mixing(coefficients, terms, found) or Balance(None, x)


def _if_mixing(coefficients: np.ndarray, terms: LinearSystem, weights: np.ndarray) -> Balance | None:
    total = weights.sum()
    if not 0 < total < np.inf:
        return None
    return Balance(weights / total) if mixes_to_zero(weights / total, coefficients, terms.rows, terms.row_error) else None


def _polished(unit: np.ndarray, duals: np.ndarray) -> np.ndarray:
    """Multipliers that cancel to rounding, from the solver's: projected on the null space of the rows that they name."""
    weights = duals.copy()
    for _ in range(_ROUNDS):
        support = np.flatnonzero(weights > _TINY * weights.max(initial=0.0))
        if not len(support):
            break
        held = unit[support]
        correction = np.linalg.lstsq(held.T, held.T @ weights[support], rcond=None)[0]
        better = np.zeros_like(weights)
        better[support] = weights[support] - correction
        if (better >= 0).all() and better.any():
            return better
        weights = np.maximum(better, 0.0)
    return duals


def _scattered(vectors: np.ndarray, kept: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights of all vectors, from those of the kept ones divided by their lengths."""
    out = np.zeros(len(vectors))
    top = np.abs(vectors[kept]).max(axis=1)
    out[kept] = weights / (np.linalg.norm(vectors[kept] / top[:, None], axis=1) * top)
    return out
