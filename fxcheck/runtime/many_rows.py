"""The joint condition without writing rows out: a subspace of directions that grows where the linear program asks for it
(theory 5.2).

For weights y, A^T y is one backward pass from all touched and tied entries together; since a gradient is linear in its seed,
A v is one more for every direction v. Directions are looked for in the span of a few vectors: a sum of all rows, then, as long
as no direction in the span serves, the combination of rows that proves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import compress
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from fxcheck.lp.feasibility import decide
from fxcheck.records.system import Decision, LinearSystem, Outcome
from fxcheck.runtime.derivatives import roundoff_of
from fxcheck.runtime.joint_rows import Rows
from fxcheck.runtime.operands import Tangents, pulled_back
from fxcheck.runtime.rounding import FACTORS, disagreement, random_factors
from fxcheck.runtime.scene import Budget
from fxcheck.runtime.zeros import vanish

_SAFETY = {1: 800.0, 2: 32.0, 8: 3.0}
"""A length estimated by so many random directions is too short by this factor once in a thousand rows (quantiles of the
chi-squared distribution), hardly ever where the error that it scales is largest."""
FEW_PROBES, MANY_PROBES = (1, 2), (8,)
_SAFETY_OF_SUM = 1000.0
"""A random sum of rows is shorter than one of them by this factor less often than once in a thousand rows: the row's own
weight, which is spread over an interval of its size, would have to meet what the others leave along it."""
_SAFETY_OF_DUALITY = float(1 << 16)
"""Two sums in which the errors of rows have random weights, spread over an interval of 2, are by this factor nearer to one
another than one of these errors is large less often than once in as many times."""
_SAFETY_OF_LAGS = 64.0
"""The same for several such differences and other measurements beside them, which hardly all agree by accident."""
_ALIKE = 64
"""More rows than this may be those of dead units, of which none is left, and that takes fewer passes to find out."""
_MANY_COORDINATES = 16
_MARGIN = 1 + 2.0**-20
"""Of rows over their errors, so that whoever checks the certificate finds them larger in floating point too."""
_MOST_VECTORS = 24
_MOST_NUMBERS = 1 << 28
_SEED = 20241208


class Unclear(Exception):
    """It cannot be told whether a row vanishes; the message says which."""


@dataclass(frozen=True, eq=False)
class Subspace:
    """What was found."""

    decision: Decision
    system: LinearSystem | None
    """Rows in an orthonormal basis of the subspace, each divided by a number of about its length."""
    layers: tuple[str, ...]
    """Of the rows."""
    dropped: int
    """Rows that vanish exactly."""


_BY_THE_FIRST = Decision(Outcome.FEASIBLE, np.ones(1), how="first vector")
NO_ROWS = Subspace(Decision(Outcome.FEASIBLE, np.zeros(0), how="no rows"), None, (), 0)


def by_a_sum(rows: Rows, written: np.ndarray, error: float) -> Subspace | None:
    """Rows that are written out, along a sum of them.

    Args:
        rows: none of which is mixed.
        written: (K, coordinates).
        error: how far each may be off.

    Returns:
        None unless every one of them is positive.
    """
    sum_of_rows = _weights(len(rows)) @ written
    length = float(np.linalg.norm(sum_of_rows))
    products = written @ sum_of_rows
    if not (products > _MARGIN * error * length).all():
        return None
    return Subspace(_BY_THE_FIRST, LinearSystem(products[:, None] / length, error * length / products), rows.layers, 0)


class ManyRows:
    """The joint condition's rows under AD's choices, as a linear operator.

    Args:
        rows: what they read, while the graphs of their forwards live.
        parameters: all that gradients are by.
        budget: what may be spent.
        coordinates: those of the parameters that a direction may move; all by default.
        probes: random directions by which lengths are estimated; more of them where fewer do not serve.
        most: vectors of the subspace.
    """

    def __init__(
        self, rows: Rows, parameters: Sequence[Tensor], budget: Budget, *, coordinates: Sequence[Tensor] | None = None,
        probes: Sequence[int] = MANY_PROBES, most: int = _MOST_VECTORS,
    ) -> None:  # fmt: skip
        self.rows = rows
        self.readings = rows.readings
        self.groups = [r.group for r in rows.readings]
        self.parameters = list(parameters)
        self.coordinates = list(parameters if coordinates is None else coordinates)
        self.budget = budget
        self.probes = probes
        self.most = min(most, max(2, _MOST_NUMBERS // max(1, sum(p.numel() for p in self.coordinates))))
        self.kept = np.ones(len(rows), dtype=bool)
        self.multiples: list[Sequence[Tensor | None]] = []
        """A sum of what rows are sums of, times the first of ``FACTORS``."""
        self.lags: list[float] = []
        """Differences of what should be equal: products with vectors of the subspace, and their weighted sums."""
        self.probed: list[list[np.ndarray]] = []
        """Derivatives of entries along random directions."""
        self.weights = _weights(len(rows))
        """(rows,), of the first vector."""

    @cached_property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(_SEED)

    # The operator ------------------------------------------------------------------------------

    def combined(self, weights: np.ndarray, parameters: Sequence[Tensor] | None = None) -> list[Tensor | None]:
        """sum_k y_k a_k, as one tensor a coordinate parameter.

        Args:
            weights: (rows,).
            parameters: others than ``coordinates``.
        """
        self.budget.spend()
        return list(pulled_back(self.groups, self._of_entries(weights), parameters or self.coordinates))

    def _of_entries(self, weights: np.ndarray) -> list[Tensor]:
        sums = [np.bincount(r.places, r.signs * weights[r.rows], len(r.group.entries)) for r in self.readings]
        return [torch.from_numpy(v) for v in sums]

    @cached_property
    def _tangents(self) -> Tangents:
        """At the first vector, times the first of ``FACTORS``."""
        self.budget.spend()
        return Tangents(self.groups, self.coordinates, self._of_entries(FACTORS[0] * self.weights))

    def along(self, direction: Sequence[Tensor]) -> list[np.ndarray]:
        """The derivative of every entry along a direction: float64 (E,) for each reading."""
        self.budget.spend()
        return [t.numpy() for t in self._tangents.along(direction)]

    def read(self, entries: Sequence[np.ndarray], signed: bool = True) -> np.ndarray:
        """Rows from entries: (rows,), differences of entries where signed, else sums."""
        values = np.zeros(len(self.rows))
        for reading, held in zip(self.readings, entries, strict=True):
            np.add.at(values, reading.rows, held[reading.places] * (reading.signs if signed else 1.0))
        return values

    # Deciding ----------------------------------------------------------------------------------

    def decide(self) -> Subspace:
        """Look for a direction on which every row that does not vanish is positive.

        Raises:
            Unclear: a row vanishes along the first vector or a random direction, and not exactly, or AD takes neither side where
                one does not vanish.
            Spent: no time is left.
        """
        if self._is_at_most_one():
            return self._found(*_one_row(len(self.rows)))
        everything = np.ones(len(self.rows), dtype=bool)
        if len(self.rows) > _ALIKE and self._vanish(everything):
            self.kept = ~everything
            return self._found(*_one_row(0))
        first = _orthonormal(self._tangents.pulled, self.coordinates, [])
        slopes = np.zeros(len(self.rows)) if first is None else self._products(first)
        zero = slopes == 0
        if zero.any() and not self._vanish(zero):
            raise Unclear(f"rows of {self._layer(zero)} vanish along a direction, and not exactly")
        self.kept = ~zero
        if self.rows.mixed[self.kept].any():
            raise Unclear(f"AD takes neither side at {self._layer(self.kept & self.rows.mixed)}")
        if first is None or self._is_at_most_one():
            return self._found(*_one_row(int(self.kept.sum())))
        kept = slopes[self.kept]
        for moved, lag, longest in self._estimates(first, slopes):
            error = self._roundoff * _SAFETY_OF_SUM * longest + moved + lag
            if (kept > _MARGIN * error).all():
                return self._found(_BY_THE_FIRST, LinearSystem(kept[:, None], error / kept))
        return self._found(*self._grow(first, slopes, moved))

    def _is_at_most_one(self) -> bool:
        """One row alone has itself for a direction, and if it vanishes it needs none."""
        return int(self.kept.sum()) <= 1 and not self.rows.mixed[self.kept].any()

    def _found(self, decision: Decision, system: LinearSystem | None) -> Subspace:
        layers = tuple(compress(self.rows.layers, self.kept.tolist()))
        return Subspace(decision, system, layers, int((~self.kept).sum()))

    def _vanish(self, wanted: np.ndarray) -> bool:
        """Whether rows do, by all parameters."""
        def random_sum(size: float) -> list[Tensor | None]:
            weights = size * (0.5 + torch.rand(len(wanted), generator=self.generator).numpy()) * wanted
            return self.combined(weights, self.parameters)

        return vanish(random_sum)

    def _layer(self, wanted: np.ndarray) -> str:
        return self.rows.layers[int(np.flatnonzero(wanted)[0])]

    @property
    def _roundoff(self) -> float:
        return max(roundoff_of(r.group.operand.like.dtype) for r in self.readings)

    def _estimates(self, first: Sequence[Tensor], slopes: np.ndarray) -> Iterator[tuple[float, float, float]]:
        """How far rounding may have moved a row, and its product with the first vector; the length of a random sum of what rows
        are sums of. First from what is at hand, then by more passes."""
        if self.rows.are_entries:
            yield 0.0, _SAFETY_OF_DUALITY * self.lags[0], _length(self._tangents.pulled) / FACTORS[0]
        again = self.read(self.along([FACTORS[0] * v for v in first])) / FACTORS[0]
        self.lags.append(float(np.abs(again - slopes).max()))
        for factors in (FACTORS[:2], FACTORS) if self._touch_many_coordinates() else (FACTORS,):
            moved, longest = self._moved(factors)
            yield moved, self._lag, longest

    def _products(self, vector: Sequence[Tensor]) -> np.ndarray:
        """(rows,), A v, whose rounding is seen from <y, A v> = <A^T y, v>: two passes with roundings of their own computed the
        two sides, and the random weights y spread what rounding did to any one product over twice its size or more."""
        products = self.read(self.along(vector))
        pairs = [(g.double(), v.to(g.device, g.dtype).double()) for g, v in zip(self._tangents.pulled, vector, strict=True)
                 if g is not None]  # fmt: skip
        other = sum(float((g * v).sum()) for g, v in pairs)
        self.lags.append(abs(float(self.weights @ products) - other / FACTORS[0]))
        return products

    def _touch_many_coordinates(self) -> bool:
        """Whether the first vector has so many that two multiples of it cannot but show how far rounding moves them."""
        return sum(int(g.count_nonzero()) for g in self._tangents.pulled if g is not None) >= _MANY_COORDINATES

    def _moved(self, factors: Sequence[float]) -> tuple[float, float]:
        """How far rounding may have moved a row, and the length of a random sum of what rows are sums of.

        Args:
            factors: the first of ``FACTORS``, by which sums are multiplied.
        """
        more = factors[len(self.multiples) :]
        if self.rows.are_entries:
            known = [] if self.multiples else [self._tangents.pulled]
            self.multiples += [*known, *(self.combined(f * self.weights) for f in more[len(known) :])]
        else:  # what tied entries have in common cancels in a sum of rows, and not in differences of derivatives
            random = iter(random_factors(sum(len(g.entries) for g in self.groups)))
            weights = [torch.tensor([next(random) for _ in g.entries], dtype=torch.float64) for g in self.groups]
            self.budget.spend(len(more))
            self.multiples += [list(pulled_back(self.groups, [f * w for w in weights], self.coordinates)) for f in more]
        return 2 * disagreement(self.multiples), _length(self.multiples[0]) / FACTORS[0]

    @property
    def _lag(self) -> float:
        """How far rounding may have moved the product of a row with any vector of length 1 in the subspace."""
        return _SAFETY_OF_LAGS * float(np.linalg.norm(self.lags))

    def _grow(self, first: list[Tensor], slopes: np.ndarray, moved: float) -> tuple[Decision, LinearSystem | None]:
        """Add vectors to the subspace until it holds a direction, or nothing more is to be had.

        Args:
            first: a vector of length 1.
            slopes: (rows,), their products with it.
            moved: how far rounding may have moved a row.
        """
        probes = iter(self.probes)
        lengths, error = self._lengths(next(probes), moved)
        basis, columns = [first], [slopes[self.kept]]
        while True:
            system, decision, wanted = _decided(np.stack(columns, 1) / lengths[:, None], (error + self._lag) / lengths)
            if decision.outcome is Outcome.FEASIBLE:
                return decision, system
            if wanted is None or len(basis) >= self.most:
                more = next(probes, None)
                if more is None:
                    return decision, system
                _, error = self._lengths(more, moved)
                continue
            weights = np.zeros(len(self.rows))
            weights[self.kept] = wanted / lengths
            vector = _orthonormal(self.combined(weights), self.coordinates, basis)
            if vector is None:
                return decision, system
            basis.append(vector)
            columns.append(self._products(vector)[self.kept])

    def _lengths(self, probes: int, moved: float) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows that are kept, their estimated lengths, and how far each may be off.

        Args:
            probes: random directions; those of earlier calls count.
            moved: how far rounding may have moved a row.
        """
        while len(self.probed) < probes:
            direction = [torch.randn(p.shape, generator=self.generator).to(p.device, p.dtype) for p in self.coordinates]
            self.probed.append(self.along(direction))
        lengths = _root_mean_square([self.read(entries) for entries in self.probed])
        of_entries = [_root_mean_square(found) for found in zip(*self.probed, strict=True)]
        terms = self.read(of_entries, signed=False)
        error = _SAFETY[probes] * self._roundoff * terms + moved
        return np.where(lengths > 0, lengths, 1.0)[self.kept], error[self.kept]


@lru_cache(maxsize=64)
def _weights(count: int) -> np.ndarray:
    """Positive, so that a sum with these weights is likely to serve; random, so that rows do not cancel in it; 1 or more, so that
    it is as much off as any row is; of 16 bits, which in float32 ``FACTORS`` do not round."""
    drawn = np.random.default_rng(_SEED).integers(1 << 14, 3 << 14, count) / (1 << 14)
    drawn.flags.writeable = False
    return drawn


def _decided(rows: np.ndarray, error: np.ndarray) -> tuple[LinearSystem | None, Decision, np.ndarray | None]:
    """The rows in a subspace as a system, its decision, and the weights of the rows that it has to grow towards, if any.

    Args:
        rows: (K, vectors).
        error: (K,), how far each may be off.
    """
    norms = np.linalg.norm(rows, axis=1)
    seen = norms > error
    if not seen.all():
        return None, Decision(Outcome.UNDECIDED, reason="rows are as good as zero in the subspace"), ~seen
    system = LinearSystem(rows, error / norms)
    decision = decide([system])[0]
    if decision.outcome is not Outcome.INFEASIBLE or decision.multipliers is None:
        return system, decision, None
    most = max(decision.multipliers)  # exact numbers, which may be too large for a float
    return system, decision, np.array([float(m / most) for m in decision.multipliers])


def _root_mean_square(found: Sequence[np.ndarray]) -> np.ndarray:
    return np.asarray(np.sqrt(np.mean(np.square(found), axis=0)))


def _one_row(count: int) -> tuple[Decision, LinearSystem | None]:
    """No row, or one in the basis of its own span."""
    return (_BY_THE_FIRST, LinearSystem(np.ones((1, 1)), np.zeros(1))) if count else (NO_ROWS.decision, None)


def _orthonormal(
    gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], basis: Sequence[Sequence[Tensor]]
) -> list[Tensor] | None:
    """The part of a vector that is orthogonal to a basis, of length 1; None when nothing but rounding is left."""
    vector = [torch.zeros_like(p) if g is None else g.detach() for g, p in zip(gradients, parameters, strict=True)]
    vector = [v.float() if v.dtype in (torch.bfloat16, torch.float16) else v for v in vector]
    before = _length(vector)
    for _ in range(2):
        for other in basis:
            overlap = sum(float((v * o).sum(dtype=torch.float64)) for v, o in zip(vector, other, strict=True))
            vector = [v - overlap * o for v, o in zip(vector, other, strict=True)]
    after = _length(vector)
    return [v / after for v in vector] if after > 1e-4 * before else None


def _length(vector: Sequence[Tensor | None]) -> float:
    return sqrt(sum(float(v.double().square().sum()) for v in vector if v is not None))
