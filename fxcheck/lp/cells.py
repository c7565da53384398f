"""The open cells into which hyperplanes through the origin cut a space, each shown by a direction inside it."""

from __future__ import annotations

from math import gcd

import numpy as np

from fxcheck.lp.exact import integers
from fxcheck.lp.feasibility import decide
from fxcheck.records.system import LinearSystem, Outcome


def cells(normals: np.ndarray, most: int) -> list[np.ndarray] | None:
    """A direction in every cell.

    Args:
        normals: (H, D) float64, taken as exact, none of them zero; multiples of one another stand for one hyperplane.
        most: cells that are followed.

    Returns:
        (D,) float64 each, verified to lie in its cell, and no cell is left out; None where there are more, or where it was not
        decided whether there is one.

    Source: one hyperplane after another is added, and each side of it is kept where Gordan's theorem does not exclude it.
    """
    signed = normals[_distinct(normals)]
    found: list[tuple[tuple[float, ...], np.ndarray]] = [((), np.zeros(normals.shape[1]))]
    for h in range(len(signed)):
        sides = [(*signs, side) for signs, _ in found for side in (1.0, -1.0)]
        systems = [LinearSystem(signed[: h + 1] * np.array(s)[:, None], np.zeros(h + 1)) for s in sides]
        decisions = decide(systems)
        if any(d.outcome is Outcome.UNDECIDED for d in decisions):
            return None
        found = [(s, d.direction) for s, d in zip(sides, decisions, strict=True) if d.direction is not None]
        if len(found) > most:
            return None
    return [direction for _, direction in found]


def _distinct(normals: np.ndarray) -> list[int]:
    """The first of those that are multiples of one another, exactly."""
    first: dict[tuple[int, ...], int] = {}
    for k, row in enumerate(integers(normals)[0].tolist()):
        common = gcd(*row) * (1 if next(n for n in row if n) > 0 else -1)
        first.setdefault(tuple(n // common for n in row), k)
    return list(first.values())
