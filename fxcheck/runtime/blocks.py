"""Rows of a whole step as independent linear systems: split by disjoint coordinates, and by nothing else (theory 4.12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fxcheck.records.system import LinearSystem
from fxcheck.runtime.rows import Row, Slot


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of one layer that share coordinates with one another and with no other row of the layer."""

    group: int
    slots: tuple[Slot, ...]
    rows: tuple[Row, ...]
    system: LinearSystem

    @property
    def labels(self) -> tuple[str, ...]:
        """What its coordinates stand for."""
        return tuple(f"{name}[{index}]" for name, index in self.slots)


def blocks_of(rows: Sequence[Row], size_of: Callable[[str], int]) -> list[Block]:
    """Split rows into blocks.

    Where a row of a layer leaves parameters out, no direction of that layer moves them: all its rows lose those
    coordinates. A row that showed some of them beside another that leaves them out would be a wrong system.

    Args:
        rows: of any layers, forwards and ranks; each layer has its own P_l.
        size_of: how many coordinates one index of a parameter's first dimension holds.
    """
    fixed: dict[int, frozenset[str]] = {}
    for row in rows:
        if row.left_out:
            fixed[row.group] = fixed.get(row.group, frozenset()) | row.left_out
    shown = [(row, *row.without(fixed.get(row.group, frozenset()), size_of)) for row in rows]
    leaders = _Leaders()
    for row, slots, _ in shown:
        for slot in slots[1:]:
            leaders.join((row.group, slots[0]), (row.group, slot))
    found: dict[tuple[int, Slot | None], list[_Shown]] = {}
    for row, slots, values in shown:
        leader = leaders.of((row.group, slots[0])) if slots else (row.group, None)
        found.setdefault(leader, []).append((row, slots, values))
    return [_block(group, members, size_of) for (group, _), members in found.items()]


_Shown = tuple[Row, tuple[Slot, ...], np.ndarray]
"""A row with the coordinates that directions may move."""


def _block(group: int, shown: list[_Shown], size_of: Callable[[str], int]) -> Block:
    rows = tuple(row for row, _, _ in shown)
    first = shown[0][1]
    alike = all(slots == first for _, slots, _ in shown)
    slots = first if alike else tuple(sorted({s for _, held, _ in shown for s in held}))
    errors = np.array([_error(row, values) for row, _, values in shown])
    if not slots:  # rows that vanish on every coordinate that may move
        return Block(group, (), rows, LinearSystem(np.zeros((len(rows), 1)), errors))
    if alike:
        return Block(group, slots, rows, LinearSystem(np.array([v for _, _, v in shown]), errors))
    starts, total = {}, 0
    for slot in slots:
        starts[slot] = total
        total += size_of(slot[0])
    matrix = np.zeros((len(rows), total))
    for k, (_, held, values) in enumerate(shown):
        at = 0
        for slot in held:
            size = size_of(slot[0])
            matrix[k, starts[slot] : starts[slot] + size] = values[at : at + size]
            at += size
    return Block(group, slots, rows, LinearSystem(matrix, errors))


def _error(row: Row, values: np.ndarray) -> float:
    """The row's error relative to what is left of it."""
    if values is row.values or not row.error:
        return row.error
    norm = float(np.linalg.norm(values))
    return row.error * float(np.linalg.norm(row.values)) / norm if norm else 0.0


class _Leaders:
    """Union-find over coordinates; a coordinate of its own needs no entry."""

    def __init__(self) -> None:
        self.parent: dict[tuple[int, Slot], tuple[int, Slot]] = {}

    def of(self, key: tuple[int, Slot]) -> tuple[int, Slot]:
        while key in self.parent:
            key = self.parent[key]
        return key

    def join(self, a: tuple[int, Slot], b: tuple[int, Slot]) -> None:
        a, b = self.of(a), self.of(b)
        if a != b:
            self.parent[b] = a
