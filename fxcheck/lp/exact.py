"""Exact arithmetic on floats: each is an integer times a power of two, so signs of sums of products can be known."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import lcm

import numpy as np


def integers(rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Write each row as integers times one power of two.

    Args:
        rows: (K, D) float64, finite.

    Returns:
        (K, D) Python integers, as small as possible, and K exponents: ``rows[k] == integers[k] * 2.0**exponents[k]``.
    """
    mantissa, exponent = np.frexp(np.asarray(rows, np.float64))
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    exponent = exponent.astype(np.int64) - 53
    zeros = np.frexp((whole & -whole).astype(np.float64))[1].astype(np.int64) - 1  # trailing zero bits; -1 for 0
    whole >>= np.maximum(zeros, 0)
    exponent = np.where(whole == 0, 2000, exponent + zeros)
    lowest = exponent.min(axis=1, initial=2000)
    shift = np.where(whole == 0, 0, exponent - lowest[:, None])
    if shift.max(initial=0) <= 9:  # 53 + 9 bits and a sign fit
        return (whole << shift).astype(object), lowest.tolist()
    return np.left_shift(whole.astype(object), shift.astype(object)), lowest.tolist()


def rounded_difference(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Which entries of ``left - right`` are not the exact differences.

    Source: Knuth's error-free transformation of a sum.
    """
    difference = left - right
    shift = difference - left
    return np.asarray((left - (difference - shift)) - (right + shift) != 0)


def positive_on(rows: np.ndarray, row_error: np.ndarray, x: np.ndarray) -> np.ndarray:
    """For each row, is <a_k, x> > row_error[k] * ||a_k|| * ||x||? Compared exactly, through squares.

    Args:
        rows: (K, D) float64, finite.
        row_error: (K,) float64, finite, >= 0.
        x: (D,) float64, finite.

    Returns:
        (K,) bool.
    """
    a, v = integers(rows)[0], integers(x[None])[0][0]  # positive factors change neither side's sign
    squared = sum(t * t for t in v.tolist())
    verdicts = [_exceeds(row, v, squared, error) for row, error in zip(a, row_error.tolist(), strict=True)]
    return np.array(verdicts, dtype=bool)


def _exceeds(a: np.ndarray, v: np.ndarray, squared: int, error: float) -> bool:
    dot = sum((a * v).tolist())
    if dot <= 0 or error == 0:
        return dot > 0
    p, q = error.as_integer_ratio()
    return (dot * q) ** 2 > p * p * sum((a * a).tolist()) * squared


def cancel(rows: np.ndarray, multipliers: Sequence[Fraction]) -> bool:
    """Is sum_k y_k a_k = 0, exactly?

    Args:
        rows: (K, D) float64, finite.
        multipliers: (K,) the y_k.
    """
    used = [k for k, y in enumerate(multipliers) if y]
    if not used:
        return True
    whole, exponents = integers(rows[used])
    lowest = min(exponents)
    common = lcm(*(multipliers[k].denominator for k in used))
    total = np.zeros(rows.shape[1], dtype=object)
    for k, row, exponent in zip(used, whole, exponents, strict=True):
        y = multipliers[k]
        total = total + row * (y.numerator * (common // y.denominator) << (exponent - lowest))
    return not total.any()


def inverts(inverse: np.ndarray, columns: np.ndarray) -> bool:
    """Is ||W (R Z - I) W^-1|| < 1 in the maximum row sum norm, exactly, for the W of ``column_exponents``?

    That is a norm induced by a weighted maximum norm, so R Z is invertible and the columns of Z are independent.

    Args:
        inverse: (K, N) float64, R.
        columns: (K, N) float64, the columns of Z, one a row.

    Source: theory, T5.
    """
    left, left_exponents = integers(inverse)
    right, right_exponents = integers(columns)
    weights = column_exponents(columns).tolist()
    products = left @ right.T
    for i, row in enumerate(products.tolist()):
        total = Fraction(0)
        for j, product in enumerate(row):
            entry = _times_power(product, left_exponents[i] + right_exponents[j]) - (i == j)
            total += abs(_times_power(1, weights[i] - weights[j]) * entry)
        if total >= 1:
            return False
    return True


def column_exponents(columns: np.ndarray) -> np.ndarray:
    """Exponents w with the largest entry of column j below 2**w_j and at least half of it: W = diag(2**w).

    Args:
        columns: (K, N) float64, one column of Z a row.

    Returns:
        (K,) int.
    """
    return np.frexp(np.abs(columns).max(axis=1, initial=0.0))[1].astype(np.int64)


def _times_power(number: int, exponent: int) -> Fraction:
    return Fraction(number << exponent) if exponent >= 0 else Fraction(number, 1 << -exponent)
