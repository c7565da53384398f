"""Look: gather units into the layers of the theory, order them, and find each layer's fresh parameters.

1. Fuse the inside of sigma: pointwise then max, max of max, max then a non-decreasing rho (theory 4.5).
2. Order the groups by one total order that extends the graph's (theory 4.6); a parameter belongs to the first group
   that it reaches through that group's own tau.
3. Merge parallel groups that share parameters, where the later one has no parameters of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce

from fxcheck.passes.annotate import Annotated
from fxcheck.passes.find_biases import find_biases
from fxcheck.passes.follow_entries import follow_entries

from fxcheck.records.bias import EntryClass
from fxcheck.records.layer import Group, Unit, UnitKind
from fxcheck.records.semantics import Kind, Transfer
from fxcheck.theory.certificate import worth_following

Certified = Callable[[tuple[Unit, ...], int], bool]
"""Whether units taken as one group are certified by a bias among the parameters of a mask."""


def group_layers(
    facts: Annotated, units: tuple[Unit, ...], is_certified: Certified
) -> tuple[tuple[Unit, ...], tuple[Group, ...]]:
    """Group the units.

    Args:
        facts: the annotated graph.
        units: in execution order.
        is_certified: the bias certificate of the theory; asked when two groups may be merged.

    Returns:
        The units, with what moves their pre-activations, and the groups in a total order.
    """
    numbered = tuple(replace(u, index=i) for i, u in enumerate(units))
    described = _describe(facts, numbered)
    grouping = _Grouping(facts, described, is_certified)
    grouping.fuse()
    grouping.merge_shared()
    return described, grouping.groups()


def _describe(facts: Annotated, units: tuple[Unit, ...]) -> tuple[Unit, ...]:
    cuts = {u.node: reduce(lambda m, n: m | facts.depends[n], u.smooth_operands, 0) for u in units if u.is_cut}
    wanted = {n for u in units for n in u.inputs}
    # An input that is itself a cut is described as one: nothing of its parameters is fresh behind it.
    classes = find_biases(facts, cuts, wanted)
    described = tuple(
        replace(u, classes=_joined([classes[n] for n in u.inputs]), samples=_samples_in(facts, u.inputs[0])) for u in units
    )
    for p in _bits(worth_following(described, facts.graph.batch)):
        moved = follow_entries(facts, cuts, classes, p)
        described = tuple(
            replace(u, moved={**u.moved, p: moved[u.inputs[0]]}) if len(u.inputs) == 1 and u.inputs[0] in moved else u
            for u in described
        )
    return described


def _samples_in(facts: Annotated, node: int) -> int:
    """Samples of the minibatch in a tensor; where the capture fixed their number, all if they may be in it."""
    tensor, samples = facts.graph.nodes[node], max(1, facts.graph.batch)
    holds = any(tensor.symbols) if facts.graph.batch_dynamic else tensor.numel % samples == 0
    return samples if holds else 1


def _joined(parts: list[tuple[EntryClass, ...]]) -> tuple[EntryClass, ...]:
    return tuple({c.key(): c for part in parts for c in part}.values())


class _Grouping:
    def __init__(self, facts: Annotated, units: tuple[Unit, ...], is_certified: Certified) -> None:
        self.facts = facts
        self.units = units
        self.is_certified = is_certified
        self.group_of = {u.index: 1 << u.index for u in units if u.is_cut}
        """Unit index -> mask of the units in its group."""
        self.upstream = self._upstream()
        self.before = {u.index: self._before(u) for u in units}
        self.own = {u.index: reduce(lambda m, c: m | c.mask, u.classes, 0) for u in units}

    def _upstream(self) -> list[int]:
        """For each node, the mask of cut units whose output can influence it, itself included."""
        produced = {u.node: 1 << u.index for u in self.units if u.is_cut}
        masks: list[int] = []
        for sources in self.facts.graph.inputs_of:
            node = len(masks)
            mask = produced.get(node, 0)
            for source in sources:
                mask |= masks[source]
            masks.append(mask if self.facts.depends[node] else 0)
        return masks

    def _before(self, unit: Unit) -> int:
        mask = reduce(lambda m, n: m | self.upstream[n], (*unit.inputs, *unit.smooth_operands), 0)
        return mask & ~(1 << unit.index)

    # 1. The inside of sigma --------------------------------------------------------------------

    def fuse(self) -> None:
        producer = {u.node: u for u in self.units if u.is_cut}
        for unit in self.units:
            if not self._may_follow(unit):
                continue
            feeders, raw = self._trace(unit.inputs, producer)
            for feeder in sorted(feeders, key=lambda u: -u.index):
                if self._may_precede(feeder, unit) and self._fits(feeder, unit, feeders, raw):
                    self._join(feeder.index, unit.index)

    def _may_follow(self, unit: Unit) -> bool:
        if unit.kind in (UnitKind.MAX, UnitKind.SPLIT_MAX):
            return True
        return unit.kind is UnitKind.ACTIVATION and unit.nondecreasing and not unit.smooth_operands

    def _may_precede(self, feeder: Unit, unit: Unit) -> bool:
        if feeder.kind in (UnitKind.MAX, UnitKind.SPLIT_MAX):
            return True
        return feeder.kind is UnitKind.ACTIVATION and unit.is_max and not feeder.smooth_operands

    def _trace(self, nodes: tuple[int, ...], producer: dict[int, Unit]) -> tuple[list[Unit], set[int]]:
        """Units whose outputs reach the nodes through structural operators alone, and the other sources."""
        feeders: set[int] = set()
        raw: set[int] = set()
        stack, seen = list(nodes), set()
        while stack:
            current = stack.pop()
            if current in seen or not self.facts.depends[current]:
                continue
            seen.add(current)
            if current in producer:
                feeders.add(producer[current].index)
            elif self._is_structural(current):
                stack.extend(self.facts.graph.inputs_of[current])
            else:
                raw.add(current)
        return [self.units[i] for i in sorted(feeders)], raw

    def _is_structural(self, node: int) -> bool:
        semantics = self.facts.semantics[node]
        if semantics.kind is Kind.MAX:
            return semantics.trivial
        return semantics.kind is Kind.STRUCTURAL and semantics.transfer in (Transfer.KEEP, Transfer.PAD)

    def _fits(self, feeder: Unit, unit: Unit, feeders: list[Unit], raw: set[int]) -> bool:
        """Fusing leaves an antichain but for sigma: no tau between two members, no cycle of groups."""
        left, right = self.group_of[feeder.index], self.group_of[unit.index]
        if left == right:
            return False
        if any(self.upstream[r] & left for r in raw):
            return False
        for other in feeders:
            mask = self.group_of[other.index]
            if mask == left:
                continue
            members = mask & ~(1 << unit.index)  # what reaches the unit itself from left is the inside of sigma
            if self._above(members) & left or (mask == right and self._above(left) & members):
                return False
        return not self._makes_cycle(left | right)

    def _above(self, mask: int) -> int:
        """Units whose output can influence a member of the mask."""
        return reduce(lambda m, u: m | self.before[u], _bits(mask), 0)

    def _before_group(self, mask: int) -> int:
        return self._above(mask) & ~mask

    def _join(self, a: int, b: int) -> None:
        merged = self.group_of[a] | self.group_of[b]
        for u in _bits(merged):
            self.group_of[u] = merged

    def _makes_cycle(self, merged: int) -> bool:
        groups = {merged} | {m for m in set(self.group_of.values()) if not m & merged}
        return _ordered(groups, self._before_group) is None

    # 2. and 3. Order, fresh parameters, merging -------------------------------------------------

    def order(self) -> list[int]:
        ordered = _ordered(set(self.group_of.values()), self._before_group)
        assert ordered is not None, "fusing and merging keep the groups acyclic"
        return ordered

    def merge_shared(self) -> None:
        done = False
        while not done:
            done = not self._merge_one()

    def _merge_one(self) -> bool:
        owner: dict[int, int] = {}
        taken = 0
        for mask in self.order():
            own = self._own(mask)
            fresh = own & ~taken
            if own & taken and self._wants_company(mask, fresh):
                for other in dict.fromkeys(owner[p] for p in _bits(own & taken)):
                    if self._may_merge(mask, other, fresh):
                        self._join(_lowest(mask), _lowest(other))
                        return True
            for p in _bits(fresh):
                owner[p] = mask
            taken |= own
        return False

    def _own(self, mask: int) -> int:
        return reduce(lambda m, u: m | self.own[u], _bits(mask), 0)

    def _members(self, mask: int) -> tuple[Unit, ...]:
        return tuple(self.units[u] for u in _bits(mask))

    def _wants_company(self, mask: int, fresh: int) -> bool:
        return not fresh or not self.is_certified(self._members(mask), fresh)

    def _may_merge(self, mask: int, other: int, fresh: int) -> bool:
        if self._before_group(mask) & other or self._before_group(other) & mask:
            return False
        merged = mask | other
        if fresh and not self.is_certified(self._members(merged), self._fresh_if(merged)):
            return False
        return not self._makes_cycle(merged)

    def _fresh_if(self, merged: int) -> int:
        """What would be fresh for the merged group: its own parameters that no group above it owns."""
        above = self._before_group(merged)
        return self._own(merged) & ~self._own(above)

    def groups(self) -> tuple[Group, ...]:
        taken, found = 0, []
        for i, mask in enumerate(self.order()):
            own = self._own(mask)
            found.append(Group(i, tuple(_bits(mask)), own, own & ~taken))
            taken |= own
        return tuple(found)


# Helpers ---------------------------------------------------------------------------------------


def _bits(mask: int) -> list[int]:
    out = []
    while mask:
        low = mask & -mask
        out.append(low.bit_length() - 1)
        mask ^= low
    return out


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _ordered(groups: set[int], before: Callable[[int], int]) -> list[int] | None:
    """Groups (masks of units) in a topological order, earliest unit first; None when there is a cycle."""
    waiting = sorted(groups, key=_lowest)
    needs = {g: before(g) for g in waiting}
    placed, ordered = 0, []
    while waiting:
        ready = next((g for g in waiting if not needs[g] & ~placed & ~g), None)
        if ready is None:
            return None
        waiting.remove(ready)
        ordered.append(ready)
        placed |= ready
    return ordered
