"""AD's gradient as a mixture of gradients that have a direction each (theory 5, witnessed decomposition).

For choices c of sides and picks let D(c) be backward's gradient with them. Replacing AD's choices by c one layer after
another, last layer first, telescopes:

    D(c) - D_AD = sum over points k of (adjoint of k's output under AD's choices)
                                     * (gradient of what c reads there, under c, less that of what AD reads).

The sum runs over touched entries and tied maxima alone, so it is known relative to its own size, not to that of the whole
gradient. Weights with sum lambda_i (D(c_i) - D_AD) = 0 are Gordan multipliers of these differences; where there are none, a
direction separates them from 0, and its opposite is tried next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fxcheck.lp.balance import balance
from fxcheck.lp.feasibility import decide
from fxcheck.lp.verify import KNOWN, is_direction
from fxcheck.records.system import LinearSystem
from fxcheck.runtime.choices import Choices
from fxcheck.runtime.derivatives import Coordinates, Vector
from fxcheck.runtime.scene import Scene
from fxcheck.runtime.sites import NEITHER, Site

_MOST_COLUMNS = 64
_MOST_TRIES = 96
_SEED = 20241205

Resolved = Callable[[Sequence[Scene], Sequence[Choices], int], LinearSystem]


@dataclass(frozen=True, eq=False)
class Column:
    """Choices that a direction resolves."""

    choices: tuple[Choices, ...]
    direction: np.ndarray
    system: LinearSystem
    """The rows that prove it."""
    terms: Mapping[int, float]
    """D(c) - D_AD: by index of a gradient in the search, its factor."""


@dataclass
class Mixture:
    """Columns, and the weights with which they average to AD's gradient."""

    columns: list[Column]
    weights: np.ndarray | None
    terms: LinearSystem
    """The gradients that differences are made of."""
    coefficients: np.ndarray
    """(columns, terms)."""
    reason: str = ""


def decompose(scenes: Sequence[Scene], coordinates: Coordinates, resolved: Resolved) -> Mixture:
    """Look for columns and weights.

    Args:
        scenes: the forwards that the step's gradient came from.
        coordinates: of the gradients.
        resolved: the rows that a direction must satisfy for given choices.

    Raises:
        Spent: no time is left.
    """
    search = _Search(scenes, coordinates, resolved)
    return search.run()


class _Search:
    def __init__(self, scenes: Sequence[Scene], coordinates: Coordinates, resolved: Resolved) -> None:
        self.scenes = scenes
        self.coordinates = coordinates
        self.resolved = resolved
        self.random = np.random.default_rng(_SEED)
        self.columns: list[Column] = []
        self.vectors: list[Vector] = []
        self.place: dict[bytes, int] = {}
        """By the bits of a gradient: its index in ``vectors``."""
        self.unresolved = 0

    def run(self) -> Mixture:
        separating: np.ndarray | None = None
        for tries in range(_MOST_TRIES):
            added = [self._add(v) for v in self._directions(separating, tries)]
            if not any(added):
                continue
            terms = self._terms()
            apart = self._cancel_one_by_one(terms)
            count = len(self.vectors)
            found = balance(self._coefficients(), LinearSystem(np.eye(count), np.zeros(count)) if apart else terms)
            if found.weights is not None:
                return self._kept(found.weights)
            separating = None if apart else found.direction
            if len(self.columns) >= _MOST_COLUMNS:
                break
        return Mixture(self.columns, None, self._terms(), self._coefficients(), self._why_not())

    def _terms(self) -> LinearSystem:
        rows = np.stack([v.values for v in self.vectors]) if self.vectors else np.zeros((0, self.coordinates.size))
        lengths = np.linalg.norm(rows, axis=1)
        errors = np.array([v.slack for v in self.vectors])
        return LinearSystem(rows, np.divide(errors, lengths, out=np.zeros_like(errors), where=lengths > 0))

    def _cancel_one_by_one(self, terms: LinearSystem) -> bool:
        """Whether weights must cancel each gradient by itself: in a sketch chosen weights may cancel images alone, and what
        rounding leaves open of a gradient shows nothing in a sum."""
        lengths = np.linalg.norm(terms.rows, axis=1)
        return self.coordinates.is_sketch or any(v.error > KNOWN * n for v, n in zip(self.vectors, lengths, strict=True))

    def _coefficients(self) -> np.ndarray:
        found = np.zeros((len(self.columns), len(self.vectors)))
        for i, column in enumerate(self.columns):
            for k, factor in column.terms.items():
                found[i, k] = factor
        return found

    def _directions(self, separating: np.ndarray | None, tries: int) -> Iterator[np.ndarray]:
        """A pair (v, -v): first random ones, then the direction that keeps 0 out of the mixtures, ever more perturbed."""
        noise = self._random_direction()
        if separating is None or tries % 4 == 3:
            v = noise
        else:
            scale = float(np.linalg.norm(separating)) or 1.0
            v = separating / scale + (0.05 * (tries % 4) / (np.linalg.norm(noise) or 1.0)) * noise
        yield -v
        yield v

    def _random_direction(self) -> np.ndarray:
        """In the span of the gradients that are known, where margins are largest, and a little outside of it."""
        known = [v.values for s in self.scenes for v in s.vectors.values() if not v.is_zero]
        v = self.random.standard_normal(self.coordinates.size)
        v *= 0.1 / (np.linalg.norm(v) or 1.0)
        for values in known:
            v += self.random.standard_normal() / np.linalg.norm(values) * values
        return v

    def _add(self, direction: np.ndarray) -> bool:
        """Whether the direction resolves its choices, and they are new."""
        choices = tuple(s.choose_along(direction) for s in self.scenes)
        if any(c.choices == choices for c in self.columns):
            return False
        system = self.resolved(self.scenes, choices, self.coordinates.size)
        if not is_direction(system.rows, system.row_error, direction):  # there may be one with wider margins
            decision = decide([system])[0]
            if decision.direction is None:
                self.unresolved += 1
                return False
            direction = decision.direction
        self.columns.append(Column(choices, direction, system, self._difference(choices)))
        return True

    def _difference(self, choices: Sequence[Choices]) -> dict[int, float]:
        total: dict[int, float] = {}
        for scene, chosen in zip(self.scenes, choices, strict=True):
            for site in scene.sites:
                for factor, vector in _terms(scene, site, chosen):
                    if factor and not vector.is_zero:
                        k = self._place_of(vector)
                        total[k] = total.get(k, 0.0) + factor
        return total

    def _place_of(self, vector: Vector) -> int:
        bits = vector.values.tobytes()
        if bits not in self.place:
            self.place[bits] = len(self.vectors)
            self.vectors.append(vector)
        return self.place[bits]

    def _kept(self, weights: np.ndarray) -> Mixture:
        """The columns that take part."""
        taking = np.flatnonzero(weights)
        columns = [self.columns[i] for i in taking]
        return Mixture(columns, weights[taking], self._terms(), self._coefficients()[taking])

    def _why_not(self) -> str:
        if not self.columns and self.unresolved:
            return "no direction that was tried moves every touched entry beyond rounding"
        fixed = {s.check.layer for c in self.scenes for s in c.sites if any(p.is_fixed for p in s.points)}
        but = f"; at {min(fixed)} no other side or pick than AD's can be tried" if fixed else ""
        return f"{len(self.columns)} gradients that have a direction each were found, and no mixture of them is AD's{but}"


def _terms(scene: Scene, site: Site, choices: Choices) -> Iterator[tuple[float, Vector]]:
    """The summands of D(c) - D_AD at a site: a factor and the gradient that it multiplies."""
    members = scene.members_of(site, choices)
    assert members is not None
    adjoints = scene.adjoints[site.check.index].tolist()
    for point, choice, adjoint in zip(site.points, choices[site.check.index], adjoints, strict=True):
        if choice == point.ad:
            continue
        if not site.is_max:
            yield adjoint * (point.slopes[choice] - point.slopes[2]), members[point.members[0]]
            continue
        yield adjoint, members[point.members[choice]]
        if point.ad != NEITHER:
            yield -adjoint, members[point.members[point.ad]]
    for member, share in scene.shares.get(site.check.index, {}).items():
        yield -share, members[member]
