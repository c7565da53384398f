"""The bias certificate: a direction on fresh parameters that moves every pre-activation entry to AD's side.

If such a direction exists for all values of weights and data, the layer's P_l is never empty (theory 4.7, 4.8).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import reduce
from operator import or_

from fxcheck.records.bias import ALL, EntryClass, Moved
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
    """One proxy weight in [0, 1] serves all kinks of all entries under one bias entry."""
    alone: bool = False
    """Where that fails, a bias entry reaches one pre-activation entry of a sample: with a minibatch of one it serves
    whichever kink that entry is on."""
    coins: Mapping[int, Mapping[float, int]] = field(default_factory=dict)
    """By parameter: probabilities of "down", each with the mask of the bias entries that are asked for it."""

    @property
    def certifies(self) -> bool:
        return self.covers and self.consistent

    @property
    def certifies_one_sample(self) -> bool:
        """The hypothesis of T1, generalised (theory 5.5)."""
        return self.covers and (self.consistent or self.alone)


def weight_of(unit: Unit) -> float | None:
    """The one proxy weight lambda that serves all kinks of the unit's rho; None when there is none."""
    weights = {p.weight for p in unit.points}
    if len(weights) != 1 or None in weights:
        return None
    return weights.pop()


def find_certificate(units: Sequence[Unit], fresh: int) -> Certificate:
    """Choose fresh parameters that move every varying entry of every kinked unit to AD's side.

    Args:
        units: members of one group.
        fresh: mask of the parameters that may be moved.

    Returns:
        A certificate; ``certifies`` is the hypothesis of T6 for this group (T4 when also ``distinct``).

    Source: Condition 1 and 2, T1, T4, T6 of the paper; theory 4.7 and 5.5. The weight may differ from bias entry to bias
    entry, and T1's rule is asked for only where weights disagree.
    """
    kinked = [u for u in units if u.kind is UnitKind.ACTIVATION]
    if any(u.may_collapse for u in kinked):
        return Certificate((), (), False, False, _whole_layer_is_consistent(kinked))
    entries = [(u, c) for u in kinked for c in u.classes if c.varies]
    lost = _union(c.lost for _, c in entries)
    usable = [p for p in _candidates(entries) if fresh >> p & 1 and not lost >> p & 1]
    services = {p: _service(p, kinked) for p in usable}
    agreeing = [p for p in usable if services[p] is Service.ALL]
    serving = [p for p in usable if services[p] is not Service.NONE]
    for pool, consistent, alone in ((agreeing, True, False), (serving, False, True), (usable, False, False)):
        chosen = _cover(pool, entries)
        if chosen is not None and (not (consistent or alone) or _directions_agree(chosen, entries)):
            return _certificate(chosen, entries, kinked, consistent, alone)
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


class Service(Enum):
    """What the coins of a parameter's entries can do for the kinks under it."""

    ALL = "all"
    """All kinks under an entry ask for one coin."""
    ALONE = "alone"
    """An entry that is asked for several coins reaches one pre-activation entry of a sample."""
    NONE = "none"


def worth_following(units: Sequence[Unit], batch: int) -> int:
    """Mask of the parameters of which it matters which of their entries moves what.

    Args:
        units: all of the model.
        batch: samples in the captured minibatch; kinks of one rho that disagree can be served only if it is one.
    """
    mask = 0
    for p in _candidates([(u, c) for u in units for c in u.classes]):
        under = [u for u in units if u.kind is UnitKind.ACTIVATION and any(p in c.pushes for c in u.classes)]
        hopeless = batch != 1 and any(weight_of(u) is None for u in under)
        if under and not hopeless and _service(p, under) is not Service.ALL:
            mask |= 1 << p
    return mask


def _service(parameter: int, kinked: Sequence[Unit]) -> Service:
    """A coin is the probability of "down": a kink asks for its weight, or for the rest where the entry falls."""
    coins = _coins(parameter, kinked)
    if coins is None:
        return Service.NONE
    contested = _overlap(coins.values())
    if not contested:
        return Service.ALL
    return Service.NONE if contested & _repeated(parameter, kinked) else Service.ALONE


def _coins(parameter: int, kinked: Sequence[Unit]) -> dict[float, int] | None:
    """The coins asked for, with the entries that are asked; None if one of them is no probability."""
    asked: dict[float, int] = {}
    for unit, moved in _moved_by(parameter, kinked):
        weights = [p.weight for p in unit.points]
        if not weights:
            return None
        for w in weights:
            if w is None or not 0 <= w <= 1:
                return None
            asked[w] = asked.get(w, 0) | moved.up
            asked[1 - w] = asked.get(1 - w, 0) | moved.down
    return {coin: mask for coin, mask in asked.items() if mask}


def _repeated(parameter: int, kinked: Sequence[Unit]) -> int:
    """Mask of the entries that may move several pre-activation entries of one sample."""
    moved = [m for _, m in _moved_by(parameter, kinked)]
    return reduce(or_, (m.repeated for m in moved), _overlap(m.entries for m in moved))


def _moved_by(parameter: int, kinked: Sequence[Unit]) -> list[tuple[Unit, Moved]]:
    """What a parameter moves: entry by entry where it was followed so, else as one whole."""
    found = []
    for unit in kinked:
        signs = {c.pushes[parameter].sign for c in unit.classes if parameter in c.pushes}
        if signs:
            whole = Moved(ALL if 1 in signs else 0, ALL if -1 in signs else 0, ALL)
            found.append((unit, unit.moved.get(parameter, whole)))
    return found


def _overlap(masks: Iterable[int]) -> int:
    seen = overlap = 0
    for mask in masks:
        overlap |= seen & mask
        seen |= mask
    return overlap


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
    chosen: tuple[int, ...], entries: Sequence[tuple[Unit, EntryClass]], kinked: Sequence[Unit], consistent: bool, alone: bool
) -> Certificate:
    coins = {p: _coins(p, kinked) or {} for p in chosen}
    distinct = all(_reach(p, kinked) <= 1 or not _repeated(p, kinked) for p in chosen)
    signs = tuple(next(c.pushes[p].sign for _, c in entries if p in c.pushes) for p in chosen)
    return Certificate(chosen, signs, distinct, True, consistent, alone, coins)


def _reach(parameter: int, kinked: Sequence[Unit]) -> float:
    """How many neurons one entry of the parameter reaches, over all members of the group."""
    return sum(
        max((c.pushes[parameter].reach for c in u.classes if parameter in c.pushes), default=0.0) / u.samples for u in kinked
    )


def _whole_layer_is_consistent(kinked: Sequence[Unit]) -> bool:
    weights = {weight_of(u) for u in kinked}
    return len(weights) <= 1 and None not in weights
