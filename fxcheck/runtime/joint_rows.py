"""The joint condition's rows under AD's choices, as readings of touched and tied entries; none of them is written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fxcheck.runtime.gradients import sign_of_maximum
from fxcheck.runtime.observed import Observed, Ties, Touches
from fxcheck.runtime.operands import Entries, Operand
from fxcheck.runtime.sites import RIGHT, Point, Site


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
class Rows:
    """Rows by number."""

    readings: list[Reading]
    layers: tuple[str, ...]
    """(K,)."""
    mixed: np.ndarray
    """(K,) bool: AD takes neither side, so no direction shows its gradient unless the row vanishes."""

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def are_entries(self) -> bool:
        """Each reads a single entry, and no two read the same."""
        return sum(len(r.group.entries) for r in self.readings) == sum(len(r.rows) for r in self.readings) == len(self)


# Of sites ----------------------------------------------------------------------------------------


def rows_of_sites(sites: Sequence[tuple[Site, Sequence[Operand]]]) -> Rows:
    """The rows of sites.

    Args:
        sites: all of them one-sided, with the operands that they read while the graphs of their forwards live.
    """
    layers: list[str] = []
    readings = [r for site, operands in sites for r in _of_site(site, operands, layers)]
    return Rows(readings, tuple(layers), np.zeros(len(layers), dtype=bool))


def _of_site(site: Site, operands: Sequence[Operand], layers: list[str]) -> list[Reading]:
    triples = [t for p in site.points for t in _terms(site, p, layers)]
    found = []
    for k, operand in enumerate(operands):
        mine = [(row, entry, sign) for row, (o, entry), sign in triples if o == k]
        if operand.edge is not None and mine:
            rows, entries, signs = (np.array(column) for column in zip(*mine, strict=True))
            found.append(_reading(operand, rows, entries, signs))
    return found


def _terms(site: Site, point: Point, layers: list[str]) -> list[tuple[int, tuple[int, int], float]]:
    """(row, member, sign) of the rows of a point, which are numbered on the way."""
    if not site.is_max:
        layers.append(site.check.layer)
        return [(len(layers) - 1, point.members[0], 1.0 if point.ad == RIGHT else -1.0)]
    found = []
    for i, member in enumerate(point.members):
        if i != point.ad:
            layers.append(site.check.layer)
            row = len(layers) - 1
            found += [(row, point.members[point.ad], site.sign), (row, member, -site.sign)]
    return found


def _reading(operand: Operand, rows: np.ndarray, entries: np.ndarray, signs: np.ndarray) -> Reading:
    distinct, places = np.unique(entries, return_inverse=True)
    return Reading(Entries(operand, torch.from_numpy(distinct.astype(np.int64))), rows, places.reshape(-1), signs)


# Of what a forward showed ------------------------------------------------------------------------


def rows_of_forward(observed: Observed) -> Rows | None:
    """The rows of a forward whose graph lives; None where a max splits its gradient.

    Args:
        observed: what its checks saw.
    """
    if observed.splits:
        return None
    layers: list[str] = []
    readings: list[Reading] = []
    mixed: list[np.ndarray] = []
    found: list[Touches | Ties] = [*observed.touches, *observed.ties]
    for held in found:
        first = len(layers)
        reading, sides = _of_touches(held, first) if isinstance(held, Touches) else _of_ties(held, first)
        if len(sides):
            readings.append(reading)
            mixed.append(sides == 0)
            layers += [held.at.check.layer] * len(sides)
    return Rows(readings, tuple(layers), np.concatenate(mixed) if mixed else np.zeros(0, dtype=bool))


def _of_touches(touches: Touches, first: int) -> tuple[Reading, np.ndarray]:
    """The reading, and AD's side of each row; 0 for neither."""
    count = touches.entries.numel()
    sides = np.array([s.direction for s in touches.at.check.sides], dtype=np.float64)[touches.which.numpy()]
    places = np.arange(count)
    return Reading(Entries(touches.at.operand, touches.entries), first + places, places, np.where(sides == 0, 1.0, sides)), sides


def _of_ties(ties: Ties, first: int) -> tuple[Reading, np.ndarray]:
    count, check = ties.winners.numel(), ties.at.check
    signs = np.full(count, sign_of_maximum(check.operator, check.arguments))
    rows, entries = np.tile(first + np.arange(count), 2), torch.cat([ties.winners, ties.losers]).numpy()
    return _reading(ties.at.operand, rows, entries, np.concatenate([signs, -signs])), np.ones(count)
