"""Which sign patterns occur near a point: open cones of directions, decided in integers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import gcd, lcm

import numpy as np

FINGERPRINTS = 3
"""A column of an exact tensor: value, values of the same polynomial at this many far points, gradient."""
HEAD = 1 + FINGERPRINTS


class Exhausted(Exception):
    """More work than was allowed."""


@dataclass
class Work:
    """What an enumeration may still spend, in exact numbers computed: the same on every machine."""

    left: float = float("inf")

    def spend(self, numbers: int) -> None:
        """Count numbers computed.

        Raises:
            Exhausted: nothing is left.
        """
        self.left -= numbers
        if self.left < 0:
            raise Exhausted


def gordan(rows: np.ndarray, work: Work | None = None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Decide whether some v has ``rows @ v > 0``, by an integer simplex with Bland's rule.

    Args:
        rows: (K, D) of Python integers, K at least 1.
        work: counts the pivots; unlimited when not given.

    Returns:
        ``(y, None)``: y >= 0, not 0, with y @ rows = 0; or ``(None, v)``: integers v with rows @ v > 0. Either is
        checked here. Source: Gordan's theorem; Edmonds' integer pivoting.
    """
    count = len(rows)
    table = np.zeros((count + 2, 2 * count + 2), dtype=object)
    table[:count, :count] = rows.dot(rows.T)
    table[count, :count] = 1
    table[: count + 1, count : 2 * count + 1] = np.eye(count + 1, dtype=int).astype(object)
    table[count, -1] = 1
    table[-1] = -table[: count + 1].sum(axis=0)
    table[-1, count : 2 * count + 1] = 0
    basis, scale = _solved(table, count, work or Work())
    if table[-1, -1] == 0:
        y = np.zeros(count, dtype=object)
        for i, column in enumerate(basis):
            if column < count:
                y[column] = table[i, -1]
        assert (y >= 0).all() and (y != 0).any() and not y.dot(rows).any()
        return y, None
    u = scale - table[-1, count : 2 * count]
    v = _reduced(-u.dot(rows))
    assert (rows.dot(v) > 0).all()
    return None, v


def _solved(table: np.ndarray, count: int, work: Work) -> tuple[list[int], int]:
    """Minimise in place the sum of the artificial variables; the basis and the common denominator."""
    basis, scale = list(range(count, 2 * count + 1)), 1
    while True:
        entering = next((j for j in range(count) if table[-1, j] < 0), None)
        if entering is None:
            return basis, scale
        work.spend(4 * table.size)  # integers grow
        able = [i for i in range(count + 1) if table[i, entering] > 0]
        leaving = min(able, key=lambda i: (Fraction(table[i, -1], table[i, entering]), basis[i]))
        pivot, row = table[leaving, entering], table[leaving].copy()
        table[:] = (table * pivot - np.outer(table[:, entering], row)) // scale
        table[leaving] = row
        basis[leaving], scale = entering, pivot


def _reduced(v: np.ndarray) -> np.ndarray:
    common = gcd(*(int(x) for x in v)) or 1
    return v // common


def whole(column: np.ndarray) -> np.ndarray:
    """A positive multiple of a rational vector, in coprime integers."""
    parts = [Fraction(x) for x in column]
    size = lcm(*(p.denominator for p in parts))
    return _reduced(np.array([p.numerator * (size // p.denominator) for p in parts], dtype=object))


@dataclass(frozen=True)
class Cone:
    """The decisions of one branch: positive functions, known by gradients and fingerprints.

    Attributes:
        rows: integer rows (gradient, then fingerprints) of the functions that are positive.
        proved: whether a direction from the point makes all of them positive to first order.
        pool: such directions, in floats, by which most questions are answered.
        work: of all branches together.
    """

    rows: tuple[np.ndarray, ...] = ()
    proved: bool = True
    pool: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    work: Work = field(default_factory=Work)

    @staticmethod
    def whole_space(dimension: int, work: Work, seed: int = 0) -> Cone:
        """No decision yet."""
        random = np.random.default_rng(seed)
        axes = np.concatenate([np.eye(dimension), -np.eye(dimension)])
        pool = np.concatenate(
            [random.standard_normal((96, dimension)), axes + 1e-3 * random.standard_normal(axes.shape)]
        )
        return Cone(pool=pool, work=work)

    def with_positive(self, column: np.ndarray) -> Cone | None:
        """The branch in which one more function, 0 at the point, is positive nearby.

        Args:
            column: the function, as a column of an exact tensor.

        Returns:
            The smaller cone; None when the function is a negative combination of those that are positive.
        """
        row = whole(np.concatenate([column[HEAD:], column[1:HEAD]]))
        rows, slopes = (*self.rows, row), row[:-FINGERPRINTS]
        if self.proved and slopes.any():
            floats = (slopes / max(abs(s) for s in slopes)).astype(float)
            pool = self.pool[self.pool @ floats > 1e-9 * np.linalg.norm(self.pool, axis=1) * np.linalg.norm(floats)]
            if len(pool):
                return replace(self, rows=rows, pool=pool)
            _, v = gordan(np.stack([r[:-FINGERPRINTS] for r in rows]), self.work)
            if v is not None:
                return replace(self, rows=rows, pool=(v / max(abs(x) for x in v)).astype(float)[None])
        table = np.stack(rows)
        y, _ = gordan(table[:, :-1], self.work)
        if y is not None and y.dot(table[:, -1]) == 0:
            return None
        return replace(self, rows=rows, proved=False)

    def edges(self, random: np.random.Generator) -> Iterator[np.ndarray]:
        """Random directions in the closed cone, along which the decisions that exclude each other are flat."""
        slopes = [r[:-FINGERPRINTS] for r in self.rows if r[:-FINGERPRINTS].any()]
        table = np.stack(slopes) if slopes else np.zeros((0, self.pool.shape[1]), dtype=object)
        floats = (table / np.abs(table).max(axis=1, keepdims=True)).astype(float) if len(table) else table.astype(float)
        y = gordan(table)[0] if len(table) else None
        flat = floats[[bool(k) for k in y]] if y is not None else floats[:0]
        onto = np.eye(self.pool.shape[1]) - np.linalg.pinv(flat) @ flat
        for _ in range(64):
            start = self.pool[random.integers(len(self.pool))] if len(self.pool) else 0.0
            v = onto @ (start + random.standard_normal(len(onto)) * random.choice([0.0, 0.1, 1.0]))
            if (floats @ v > -1e-9).all():
                yield v / max(1.0, float(np.abs(v).max()))
