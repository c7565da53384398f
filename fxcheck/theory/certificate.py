"""The bias certificate: a direction on fresh parameters that moves every pre-activation entry to AD's side.

If such a direction exists for all values of weights and data, the layer's P_l is never empty (theory 4.7, 4.8).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fxcheck.records.bias import EntryClass
from fxcheck.records.layer import Unit, UnitKind


@dataclass(frozen=True)
class Certificate:
    """What the fresh parameters of a group can do for its activations."""

    parameters: tuple[int, ...]
    """Parameter indices that together move every varying entry; empty when some entry has none."""
    signs: tuple[int, ...]
    """For each, whether pre-activations grow (+1) or fall (-1) with it."""
    distinct: bool
    """Each bias entry reaches one neuron only."""
    covers: bool
    consistent: bool
    """One proxy weight in [0, 1] serves all entries under one bias."""

    @property
    def certifies(self) -> bool:
        return self.covers and self.consistent


def weight_of(unit: Unit) -> float | None:
    """The one proxy weight lambda that serves all kinks of the unit's rho; None when there is none."""
    weights = {p.weight for p in unit.points}
    if len(weights) != 1 or None in weights:
        return None
    return weights.pop()


def find_certificate(units: Sequence[Unit], fresh: int, batch: int) -> Certificate:
    """Choose fresh parameters that move every varying entry of every kinked unit to AD's side.

    Args:
        units: members of one group.
        fresh: mask of the parameters that may be moved.
        batch: samples in the captured minibatch, to tell distinct from shared.

    Returns:
        A certificate; ``certifies`` is the hypothesis of T6 for this group (T4 when also ``distinct``).

    Source: Condition 1 and 2, T4, T6 of the paper; theory 4.7. The weight may differ from bias to bias.
    """
    kinked = [u for u in units if u.kind is UnitKind.ACTIVATION]
    entries = [(u, c) for u in kinked for c in u.classes if c.varies]
    lost = _union(c.lost for _, c in entries)
    usable = [p for p in _candidates(entries) if fresh >> p & 1 and not lost >> p & 1]
    agreeing = [p for p in usable if _demand(p, entries) is not None]
    for pool, consistent in ((agreeing, True), (usable, False)):
        chosen = _cover(pool, entries)
        if chosen is not None and (not consistent or _directions_agree(chosen, entries)):
            return _certificate(chosen, entries, kinked, batch, consistent)
    return Certificate((), (), False, False, _whole_layer_is_consistent(kinked))


def _union(masks: Iterable[int]) -> int:
    total = 0
    for mask in masks:
        total |= mask
    return total


def _candidates(entries: Sequence[tuple[Unit, EntryClass]]) -> list[int]:
    counts: dict[int, int] = {}
    for _, c in entries:
        for p in c.pushes:
            counts[p] = counts.get(p, 0) + 1
    return sorted(counts, key=lambda p: (-counts[p], -p))


def _demand(parameter: int, entries: Sequence[tuple[Unit, EntryClass]]) -> float | None:
    """The share of "falls" among the directions that the entries under a parameter need; None if they disagree."""
    demands = set()
    for unit, c in entries:
        push = c.pushes.get(parameter)
        if push is None:
            continue
        weight = weight_of(unit)
        if weight is None or not 0 <= weight <= 1:
            return None
        demands.add(weight if push.sign > 0 else 1 - weight)
    return demands.pop() if len(demands) == 1 else None


def _cover(pool: Sequence[int], entries: Sequence[tuple[Unit, EntryClass]]) -> tuple[int, ...] | None:
    """Greedily, parameters such that every entry is moved by at least one."""
    uncovered = [c for _, c in entries]
    chosen: list[int] = []
    while uncovered:
        best = max(pool, key=lambda p: sum(p in c.pushes for c in uncovered), default=None)
        if best is None or not any(best in c.pushes for c in uncovered):
            return None
        chosen.append(best)
        uncovered = [c for c in uncovered if best not in c.pushes]
    return tuple(sorted(chosen))


def _directions_agree(chosen: tuple[int, ...], entries: Sequence[tuple[Unit, EntryClass]]) -> bool:
    """Entries under several chosen parameters, with a weight strictly between 0 and 1, must not be pulled apart.

    With weight 0 or 1 each parameter has one direction and all of them push an entry to its own side.
    """
    for unit, c in entries:
        present = [p for p in chosen if p in c.pushes]
        if len(present) > 1 and weight_of(unit) not in (0.0, 1.0):
            return False
    return True


def _certificate(
    chosen: tuple[int, ...], entries: Sequence[tuple[Unit, EntryClass]], kinked: Sequence[Unit], batch: int, ok: bool
) -> Certificate:
    signs = tuple(next(c.pushes[p].sign for _, c in entries if p in c.pushes) for p in chosen)
    return Certificate(chosen, signs, all(_reach(p, kinked) <= batch for p in chosen), True, ok)


def _reach(parameter: int, kinked: Sequence[Unit]) -> float:
    """How many pre-activation entries one entry of the parameter reaches, over all members of the group."""
    return sum(
        max((c.pushes[parameter].reach for c in u.classes if parameter in c.pushes), default=0.0) for u in kinked
    )


def _whole_layer_is_consistent(kinked: Sequence[Unit]) -> bool:
    weights = {weight_of(u) for u in kinked}
    return len(weights) <= 1 and None not in weights
