"""Where one forward leaves a choice: touched entries, with two sides each, and tied maxima, with a pick each."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from fxcheck.records.checks import Check, CheckKind
from fxcheck.records.graph import Graph
from fxcheck.runtime.gradients import sign_of_maximum
from fxcheck.runtime.observed import Observed, Splits, Ties, Touches
from fxcheck.runtime.operands import Member
from fxcheck.runtime.program import Replayed

LEFT, RIGHT, NEITHER = 0, 1, -1


@dataclass(frozen=True)
class Point:
    """One touched entry or one tied maximum."""

    output: int
    """Flat index into the layer's result."""
    members: tuple[Member, ...]
    """The touched entry, or the tied ones that are not proven to be equal functions; AD's pick first, if it picks one."""
    ad: int
    """AD's choice: LEFT or RIGHT of a touched entry, an index into ``members``; NEITHER for a mixture."""
    slopes: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    """Of a touched entry: left, right, AD's."""
    is_fixed: bool = False
    """Nothing can be put in the place of AD's choice."""


@dataclass(frozen=True, eq=False)
class Site:
    """The points of one check in one forward."""

    check: Check
    points: tuple[Point, ...]
    upstream: frozenset[int]
    """Checks whose choices the gradients of this one's entries may depend on."""
    twins: Mapping[int, int]
    """Further entries of a max that splits, each with the member that is the same function."""

    @property
    def is_max(self) -> bool:
        return self.check.kind not in (CheckKind.TOUCH, CheckKind.BOUND)

    @property
    def sign(self) -> float:
        """-1 for a minimum, whose pick must stay below the others."""
        return sign_of_maximum(self.check.operator, self.check.arguments) if self.is_max else 1.0

    @cached_property
    def members(self) -> tuple[Member, ...]:
        return tuple(dict.fromkeys(m for p in self.points for m in p.members))

    @cached_property
    def references(self) -> Mapping[Member, Member]:
        """For each member of a max one that all its ties lead to: only differences of their gradients matter."""
        found: dict[Member, Member] = {}

        def leader(member: Member) -> Member:
            while found.setdefault(member, member) != member:
                member = found[member]
            return member

        for point in self.points:
            for member in point.members:
                found[leader(member)] = leader(point.members[0])
        return {m: leader(m) for m in found}

    def sum_of(self, member: Member) -> dict[Member, float]:
        """What is differentiated for a member: a touched entry; a tied one less the reference, in one backward pass, in which
        cancels early what they have in common; nothing for the reference itself."""
        if not self.is_max:
            return {member: 1.0}
        reference = self.references[member]
        return {} if member == reference else {member: 1.0, reference: -1.0}

    @cached_property
    def ad_choices(self) -> tuple[int, ...]:
        return tuple(p.ad for p in self.points)


def sites_of(observed: Observed, replayed: Replayed, graph: Graph) -> tuple[Site, ...]:
    """The choices of a forward in execution order.

    Args:
        observed: what its checks saw.
        replayed: the program that ran.
        graph: the graph that its plan speaks of.
    """
    points: dict[int, list[Point]] = {}

    def add(check: Check, found: list[Point]) -> None:
        fixed = check.index not in replayed.chosen
        points.setdefault(check.index, []).extend([replace(p, is_fixed=True) for p in found] if fixed else found)

    for touches in observed.touches:
        add(touches.at.check, _touched(touches, replayed.rests))
    for ties in observed.ties:
        add(ties.at.check, _tied(ties))
    for splits in observed.splits:
        add(splits.check, _split(splits))
    checks = {c.index: c for c in replayed.plan.checks}
    order = sorted((i for i, held in points.items() if held), key=lambda i: (checks[i].result, i))
    upstream = reading(replayed.plan.checks, order, graph)
    twins = {s.check.index: s.twins for s in observed.splits}
    return tuple(Site(checks[i], tuple(points[i]), upstream[i], twins.get(i, {})) for i in order)


def _touched(touches: Touches, rests: Collection[tuple[int, float]]) -> list[Point]:
    found, group = [], touches.at.check.group
    for entry, which in zip(touches.entries.tolist(), touches.which.tolist(), strict=True):
        side = touches.at.check.sides[which]
        ad = {-1: LEFT, 1: RIGHT, 0: NEITHER}[side.direction]
        slopes = (side.left, side.right, side.ad)
        fixed = (group, side.kink) in rests or any(map(math.isnan, slopes))
        found.append(Point(entry, ((0, entry),), ad, slopes, fixed))
    return found


def _tied(ties: Ties) -> list[Point]:
    """Pairs of AD's pick and another entry, gathered by output."""
    members: dict[int, dict[Member, None]] = {}
    for winner, loser, output in zip(ties.winners.tolist(), ties.losers.tolist(), ties.outputs.tolist(), strict=True):
        members.setdefault(output, {(0, winner): None})[0, loser] = None
    return [Point(output, tuple(held), 0) for output, held in members.items()]


def _split(splits: Splits) -> list[Point]:
    members: dict[int, list[Member]] = {}
    columns = (splits.outputs, splits.operands, splits.entries)
    for output, operand, entry in zip(*(c.tolist() for c in columns), strict=True):
        members.setdefault(output, []).append((operand, entry))
    return [Point(output, tuple(sorted(held)), NEITHER) for output, held in members.items()]


def reading(checks: Sequence[Check], active: Collection[int], graph: Graph) -> Mapping[int, frozenset[int]]:
    """For each active check, the active ones whose layer's output its operands are computed from.

    Args:
        checks: of the plan.
        active: indices of those that count.
        graph: the graph that the plan speaks of.
    """
    wanted = [c for c in checks if c.index in active]
    of_result: dict[int, int] = {}
    for k, check in enumerate(wanted):
        of_result[check.result] = of_result.get(check.result, 0) | 1 << k
    masks: list[int] = []
    for node, inputs in enumerate(graph.inputs_of):
        mask = of_result.get(node, 0)
        for source in inputs:
            mask |= masks[source]
        masks.append(mask)
    found = {}
    for check in wanted:
        mask = 0
        for operand in (check.operand, *check.reads):
            mask |= masks[operand]
        found[check.index] = frozenset(c.index for i, c in enumerate(wanted) if mask >> i & 1) - {check.index}
    return found
