"""Look: where Algorithm 2 applies, and at which maxima AD's slope is 0 for every tied entry."""

from __future__ import annotations

from fxcheck.passes.annotate import Annotated

from fxcheck.records.bias import EntryClass
from fxcheck.records.layer import Unit, UnitKind
from fxcheck.records.semantics import Kind, Transfer
from fxcheck.theory.classify import Judged

_CLIPS = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "clip"})
"""Operators that return their operand between two bounds, and a bound elsewhere, exactly."""


def decides_by_algorithm_2(facts: Annotated, judged: Judged) -> bool:
    """Whether moving all biases down satisfies every touch and cancels in every difference (theory 3, 4.7).

    Every activation of the group is ReLU with AD's slope 0 at 0, every maximum is taken over, or fed only into,
    such ReLUs, and one set of fresh biases reaches every entry with one common coefficient.
    """
    kinked = [u for u in judged.units if u.kind is UnitKind.ACTIVATION]
    maxima = [u for u in judged.units if u.is_max]
    if not maxima or not kinked or not all(map(_is_relu, kinked)):
        return False
    feeding = _Feeding(facts, judged.units)
    if not all(feeding.passes_through_relu(u) for u in maxima):
        return False
    entries = [c for u in judged.units if feeding.reads_tau(u) for c in u.classes]
    certificate = judged.certificate
    fresh = [p for p in range(judged.group.fresh.bit_length()) if judged.group.fresh >> p & 1]
    chosen = certificate.parameters if certificate.covers and certificate.parameters else tuple(fresh)
    return _one_coefficient(entries, chosen) or any(_one_coefficient(entries, (p,)) for p in fresh)


def flat_values(facts: Annotated, judged: Judged, unit: Unit) -> tuple[float, ...]:
    """Values of a maximum at which each tied entry sits on a flat piece of its clip, AD's slope there being 0.

    All tied entries then have AD gradient 0 with respect to all parameters, so they are in T_j.
    """
    feeding = _Feeding(facts, judged.units)
    feeders, raw = feeding.of(unit)
    if raw or not feeders or not all(u.name in _CLIPS for u in feeders):
        return ()
    flat = [{p.kink for p in u.points if p.ad == 0 and 0 in (p.left, p.right)} for u in feeders]
    return tuple(sorted(set.intersection(*flat)))


def _is_relu(unit: Unit) -> bool:
    point = unit.points[0] if len(unit.points) == 1 else None
    return point is not None and (point.kink, point.left, point.ad, point.right) == (0.0, 0.0, 0.0, 1.0)


def _one_coefficient(entries: list[EntryClass], chosen: tuple[int, ...]) -> bool:
    """The chosen biases reach every entry with the same known total coefficient, and with one sign."""
    totals = set()
    for entry in entries:
        pushes = [entry.pushes[p] for p in chosen if p in entry.pushes]
        if not pushes or any(entry.lost >> p & 1 for p in chosen) or any(p.coefficient is None for p in pushes):
            return False
        totals.add(tuple(sorted((p.coefficient or 0.0) * p.sign for p in pushes)))
    return len(totals) == 1 and len({t > 0 for t in next(iter(totals))}) == 1


class _Feeding:
    """Which members of a group feed which, through structural operators alone."""

    def __init__(self, facts: Annotated, units: tuple[Unit, ...]) -> None:
        self.facts = facts
        self.units = units
        self.producer = {u.node: u for u in units}

    def of(self, unit: Unit) -> tuple[list[Unit], set[int]]:
        """Members that feed the unit, and other nodes that do."""
        feeders: dict[int, Unit] = {}
        raw: set[int] = set()
        stack, seen = list(unit.inputs), set()
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in self.producer:
                feeders[current] = self.producer[current]
            elif self._is_structural(current) and self.facts.depends[current]:
                stack.extend(self.facts.graph.inputs_of[current])
            else:
                raw.add(current)
        return [feeders[n] for n in sorted(feeders)], raw

    def _is_structural(self, node: int) -> bool:
        semantics = self.facts.semantics[node]
        return semantics.kind is Kind.STRUCTURAL and semantics.transfer is Transfer.KEEP

    def reads_tau(self, unit: Unit) -> bool:
        return bool(self.of(unit)[1])

    def passes_through_relu(self, unit: Unit) -> bool:
        """All its entries come out of ReLUs of the group, or its only use is a ReLU of the group."""
        return self._comes_from_relu(unit) or self._goes_into_relu(unit)

    def _comes_from_relu(self, unit: Unit) -> bool:
        feeders, raw = self.of(unit)
        return not raw and bool(feeders) and all(
            u.kind is UnitKind.ACTIVATION or self._comes_from_relu(u) for u in feeders
        )  # fmt: skip

    def _goes_into_relu(self, unit: Unit) -> bool:
        feeders, raw = self.of(unit)
        users = {u for n in self._outputs_of(unit) for u in self.facts.graph.users_of[n] if self.facts.matters(u)}
        relus = {m for u in self.units if u.kind is UnitKind.ACTIVATION for m in u.members}
        is_output = any(n in self.facts.graph.outputs for n in self._outputs_of(unit))
        return not feeders and bool(raw) and bool(users) and users <= relus and not is_output

    def _outputs_of(self, unit: Unit) -> list[int]:
        """The node, or the values picked out of it where it has several outputs."""
        picked = [u for u in self.facts.graph.users_of[unit.node] if self.facts.graph.nodes[u].op == "fxcheck.getitem"]
        return picked or [unit.node]
