"""The joint condition for many rows: a subspace of directions that grows where the linear program asks for it (theory 5).

Rows are never written out. For weights y, A^T y is one backward pass from all touched and tied entries together; for a
direction v, A v is two, since a gradient is linear in its seed. Directions are looked for in the span of a few vectors: the sum
of all rows, then, as long as no direction in the span serves, the combination of rows that proves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from fxcheck.lp.feasibility import decide
from fxcheck.records.system import Decision, LinearSystem, Outcome
from fxcheck.runtime.derivatives import roundoff_of
from fxcheck.runtime.operands import Entries, Operand, derivatives_along, pulled_back
from fxcheck.runtime.rounding import moved_by_rounding
from fxcheck.runtime.scene import Budget
from fxcheck.runtime.sites import RIGHT, Point, Site
from fxcheck.runtime.zeros import vanish

_PROBES = 8
_SAFETY = 3.0
"""A length estimated by eight random directions is too short by this factor once in a thousand rows, hardly ever
where the error that it scales is largest."""
_MOST_VECTORS = 24
_MOST_NUMBERS = 1 << 28
_SEED = 20241208


class Unclear(Exception):
    """It cannot be told whether a row vanishes; the message says which."""


@dataclass(frozen=True, eq=False)
class Reading:
    """How rows read the entries of one operand."""

    group: Entries
    rows: np.ndarray
    """(N,) for each reading the row that it belongs to."""
    places: np.ndarray
    """(N,) which of the entries it reads."""
    signs: np.ndarray
    """(N,)."""


@dataclass(frozen=True, eq=False)
class Subspace:
    """What was found."""

    decision: Decision
    system: LinearSystem | None
    """Rows in an orthonormal basis of the subspace, each divided by its estimated length."""
    layers: tuple[str, ...]
    """Of the rows."""
    dropped: int
    """Rows that vanish exactly."""


class ManyRows:
    """The joint condition's rows under AD's choices, as a linear operator.

    Args:
        sites: all of them one-sided, with the operands that they read while the graphs of their forwards live.
        parameters: directions are by these.
        budget: what may be spent.
    """

    def __init__(
        self, sites: Sequence[tuple[Site, Sequence[Operand]]], parameters: Sequence[Tensor], budget: Budget
    ) -> None:
        self.parameters = list(parameters)
        self.budget = budget
        self.layers: list[str] = []
        self.readings = [r for site, operands in sites for r in self._readings(site, operands)]
        self.kept = np.ones(len(self.layers), dtype=bool)

    def _readings(self, site: Site, operands: Sequence[Operand]) -> list[Reading]:
        triples = [t for p in site.points for t in self._terms(site, p)]
        found = []
        for k, operand in enumerate(operands):
            mine = [(row, entry, sign) for row, (o, entry), sign in triples if o == k]
            if operand.edge is None or not mine:
                continue
            rows, entries, signs = (np.array(column) for column in zip(*mine, strict=True))
            distinct, places = np.unique(entries, return_inverse=True)
            group = Entries(operand, torch.from_numpy(distinct.astype(np.int64)))
            found.append(Reading(group, rows, places.reshape(-1), signs))
        return found

    def _terms(self, site: Site, point: Point) -> list[tuple[int, tuple[int, int], float]]:
        """(row, member, sign) of the rows of a point, which are numbered on the way."""
        if not site.is_max:
            self.layers.append(site.check.layer)
            return [(len(self.layers) - 1, point.members[0], 1.0 if point.ad == RIGHT else -1.0)]
        found = []
        for i, member in enumerate(point.members):
            if i != point.ad:
                self.layers.append(site.check.layer)
                row = len(self.layers) - 1
                found += [(row, point.members[point.ad], site.sign), (row, member, -site.sign)]
        return found

    # The operator ------------------------------------------------------------------------------

    def combined(self, weights: np.ndarray) -> list[Tensor]:
        """sum_k y_k a_k, as one tensor a parameter.

        Args:
            weights: (rows,).
        """
        self.budget.spend()
        sums = [np.bincount(r.places, r.signs * weights[r.rows], len(r.group.entries)) for r in self.readings]
        found = pulled_back([r.group for r in self.readings], [torch.from_numpy(v) for v in sums], self.parameters)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, self.parameters, strict=True)]

    def along(self, direction: Sequence[Tensor]) -> list[np.ndarray]:
        """The derivative of every entry along a direction: float64 (E,) for each reading."""
        self.budget.spend()
        self.budget.spend()
        found = derivatives_along([r.group for r in self.readings], self.parameters, direction)
        return [t.numpy() for t in found]

    def read(self, entries: Sequence[np.ndarray], signed: bool = True) -> np.ndarray:
        """Rows from entries: (rows,), differences of entries where signed, else sums."""
        values = np.zeros(len(self.layers))
        for reading, held in zip(self.readings, entries, strict=True):
            np.add.at(values, reading.rows, held[reading.places] * (reading.signs if signed else 1.0))
        return values

    # Deciding ----------------------------------------------------------------------------------

    def decide(self) -> Subspace:
        """Look for a direction on which every row that does not vanish is positive.

        Raises:
            Unclear: a row vanishes along random directions, and not exactly.
            Spent: no time is left.
        """
        lengths, terms = self._lengths()
        dropped = int((~self.kept).sum())
        if not self.kept.any():
            return Subspace(Decision(Outcome.FEASIBLE, np.zeros(0), how="no rows"), None, (), dropped)
        scale = np.where(self.kept, 1.0 / np.where(self.kept, lengths, 1.0), 0.0)
        roundoff = max(roundoff_of(r.group.operand.like.dtype) for r in self.readings)
        self.budget.spend()
        entries = [{(k, e): 1.0} for k, r in enumerate(self.readings) for e in r.group.entries.tolist()]
        moved = 2 * moved_by_rounding(entries, [r.group.operand for r in self.readings], self.parameters)
        decision, system = self._grow(scale, ((_SAFETY * roundoff * terms + moved) * scale)[self.kept])
        layers = tuple(layer for layer, keep in zip(self.layers, self.kept, strict=True) if keep)
        return Subspace(decision, system, layers, dropped)

    def _grow(self, scale: np.ndarray, error: np.ndarray) -> tuple[Decision, LinearSystem | None]:
        """Add vectors to the subspace until it holds a direction, or nothing more is to be had.

        Args:
            scale: (rows,), what rows are multiplied by; 0 for those that vanish.
            error: (kept rows,), of the rows so scaled.
        """
        basis: list[list[Tensor]] = []
        columns: list[np.ndarray] = []
        weights = scale
        decision, system = Decision(Outcome.UNDECIDED, reason="no direction was tried"), None
        most = min(_MOST_VECTORS, max(2, _MOST_NUMBERS // max(1, sum(p.numel() for p in self.parameters))))
        while len(basis) < most:
            vector = _orthonormal(self.combined(weights), basis)
            if vector is None:
                break
            basis.append(vector)
            columns.append((self.read(self.along(vector)) * scale)[self.kept])
            rows = np.stack(columns, 1)
            norms = np.linalg.norm(rows, axis=1)
            seen = norms > error
            if seen.all():
                system = LinearSystem(rows, error / norms)
                decision = decide([system])[0]
                if decision.outcome is not Outcome.INFEASIBLE or decision.multipliers is None:
                    break
                wanted = np.array([float(m) for m in decision.multipliers])
                wanted /= wanted.max()
            else:  # some rows are as good as zero in this subspace: it has to grow towards them
                wanted = ~seen
            weights = np.zeros(len(scale))
            weights[self.kept] = wanted * scale[self.kept]
        return decision, system

    def _lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Estimated lengths of the rows, and of the gradients that they are sums of; rows that vanish are not kept."""
        generator = torch.Generator().manual_seed(_SEED)
        squares = np.zeros(len(self.layers))
        of_entries = [np.zeros(len(r.group.entries)) for r in self.readings]
        for _ in range(_PROBES):
            probe = [torch.randn(p.shape, generator=generator).to(p.device, p.dtype) for p in self.parameters]
            found = self.along(probe)
            squares += self.read(found) ** 2
            of_entries = [total + t**2 for total, t in zip(of_entries, found, strict=True)]
        zero = squares == 0

        def random_sum() -> list[Tensor]:
            return self.combined((0.5 + torch.rand(len(zero), generator=generator).numpy()) * zero)

        if zero.any() and not vanish(random_sum):
            layer = self.layers[int(np.flatnonzero(zero)[0])]
            raise Unclear(f"rows of {layer} vanish along random directions, and not exactly")
        self.kept = ~zero
        terms = self.read([np.sqrt(total / _PROBES) for total in of_entries], signed=False)
        return np.sqrt(squares / _PROBES), terms


def _orthonormal(vector: list[Tensor], basis: Sequence[Sequence[Tensor]]) -> list[Tensor] | None:
    """The part of a vector that is orthogonal to a basis, of length 1; None when nothing but rounding is left."""
    vector = [v.detach().float() if v.dtype in (torch.bfloat16, torch.float16) else v.detach() for v in vector]
    before = _length(vector)
    for _ in range(2):
        for other in basis:
            overlap = sum(float((v * o).sum(dtype=torch.float64)) for v, o in zip(vector, other, strict=True))
            vector = [v - overlap * o for v, o in zip(vector, other, strict=True)]
    after = _length(vector)
    return [v / after for v in vector] if after > 1e-4 * before else None


def _length(vector: Sequence[Tensor]) -> float:
    return sqrt(sum(float(v.double().square().sum()) for v in vector))
