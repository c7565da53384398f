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


def blocks_of(rows: Sequence[Row], size_of: Callable[[str], int]) -> list[Block]:
    """Split rows into blocks.

    Args:
        rows: of any layers, forwards and ranks; each layer has its own P_l.
        size_of: how many coordinates one index of a parameter's first dimension holds.
    """
    found: dict[tuple[int, Slot | None], list[Row]] = {}
    leaders = _Leaders()
    for row in rows:
        for slot in row.slots[1:]:
            leaders.join((row.group, row.slots[0]), (row.group, slot))
    for row in rows:
        leader = leaders.of((row.group, row.slots[0])) if row.slots else (row.group, None)
        found.setdefault(leader, []).append(row)
    return [_block(group, members, size_of) for (group, _), members in found.items()]


def _block(group: int, rows: list[Row], size_of: Callable[[str], int]) -> Block:
    alike = all(r.slots == rows[0].slots for r in rows)
    slots = rows[0].slots if alike else tuple(sorted({s for r in rows for s in r.slots}))
    errors = np.array([r.error for r in rows])
    if not slots:  # rows that vanish on every fresh coordinate
        return Block(group, (), tuple(rows), LinearSystem(np.zeros((len(rows), 1)), errors))
    if alike:
        return Block(group, slots, tuple(rows), LinearSystem(np.stack([r.values for r in rows]), errors))
    starts, total = {}, 0
    for slot in slots:
        starts[slot] = total
        total += size_of(slot[0])
    matrix = np.zeros((len(rows), total))
    for k, row in enumerate(rows):
        at = 0
        for slot in row.slots:
            size = size_of(slot[0])
            matrix[k, starts[slot] : starts[slot] + size] = row.values[at : at + size]
            at += size
    return Block(group, slots, tuple(rows), LinearSystem(matrix, errors))


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
