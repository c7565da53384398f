"""Look: which operations a training step must observe, for the layers that the static pass left open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import isfinite, isinf
from typing import Any

import torch
from fxcheck.passes.annotate import OF_ENTRIES, Annotated
from fxcheck.passes.closed_forms import ClosedForms
from fxcheck.passes.common_bias import decides_by_algorithm_2, flat_values

from fxcheck.ops.common import is_floating
from fxcheck.records.checks import Check, CheckKind, CheckPlan, GroupPlan, Side
from fxcheck.records.finding import Diagnostic, Verdict
from fxcheck.records.graph import Ref
from fxcheck.records.layer import Structured, Unit, UnitKind
from fxcheck.records.proxy import Proxy
from fxcheck.records.semantics import Kind, Transfer
from fxcheck.theory.classify import Classified, Judged, judge

_WINDOWS = ("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
            "adaptive_max_pool3d")  # fmt: skip
_DIMENSION = ("max.dim", "min.dim", "cummax", "cummin")
_SPLIT = ("amax", "amin", "max", "min", "maximum", "minimum", "fmax", "fmin", "clamp", "clip", "clamp_min", "clamp_max")
_COMPARES = ("gt", "ge", "lt", "le", "eq", "ne", "greater", "greater_equal", "less", "less_equal")


def plan_checks(
    facts: Annotated, structured: Structured, classified: Classified, fallback: Classified | None = None
) -> CheckPlan:
    """Choose what to observe.

    Args:
        facts: the annotated graph.
        structured: its layers.
        classified: the static verdict.
        fallback: under T1 the verdict without it, which decides steps of more than one sample.

    Returns:
        Checks for exactly the groups that no theorem discharges statically (theory 4.8), with closed forms of
        their rows where there are any.
    """
    deciding = fallback or classified
    uncovered = deciding.verdict is Verdict.UNCOVERED
    static = deciding.verdict in (Verdict.SMOOTH, Verdict.CERTIFIED)
    if static:
        name = deciding.theorem or "smooth"
        return CheckPlan((), (), facts.parameters, name, False, False, _carried(facts), (), classified.assumptions)
    planner = _Planner(facts, structured, deciding.theorem)
    planner.add_all()
    return CheckPlan(
        tuple(planner.checks), tuple(planner.groups), facts.parameters, None, planner.joint, fallback is not None,
        _carried(facts), _reasons(deciding) if uncovered else (), classified.assumptions,
    )  # fmt: skip


def plan_jointly(facts: Annotated, structured: Structured, plan: CheckPlan) -> CheckPlan:
    """The checks of the joint condition, which needs the touches of all groups, discharged ones included.

    Args:
        facts: the annotated graph.
        structured: its layers.
        plan: what was planned for the same program.

    Source: theory 4.8, 5.
    """
    if plan.joint:
        return plan
    planner = _Planner(facts, structured, "joint")
    planner.add_all()
    return replace(plan, checks=tuple(planner.checks), groups=(), joint=True, one_sample=False)


def _carried(facts: Annotated) -> tuple[str, ...]:
    """Written buffers whose values before the forward reach an output."""
    graph = facts.graph
    leaves = (graph.nodes[leaf] for leaf in sorted(graph.written))
    return tuple(str(n.arguments["name"]) for n in leaves if n.op == "fxcheck.buffer" and n.id in facts.relevant)


def _reasons(classified: Classified) -> tuple[Diagnostic, ...]:
    of_layers = (d for layer in classified.layers if layer.verdict is Verdict.UNCOVERED for d in layer.diagnostics)
    return tuple(dict.fromkeys((*classified.diagnostics, *of_layers)))


@dataclass
class _Planner:
    facts: Annotated
    structured: Structured
    theorem: str | None

    @property
    def joint(self) -> bool:
        return self.theorem == "joint"

    def __post_init__(self) -> None:
        self.checks: list[Check] = []
        self.groups: list[GroupPlan] = []
        self.layer_of: dict[int, str] = {}
        self.forms = ClosedForms(self.facts, self.structured.units)

    def add_all(self) -> None:
        for judged in judge(self.structured):
            if self.joint or not judged.is_certified:
                self.add_group(judged)
        for unit in self.structured.units:
            if unit.kind is UnitKind.SINGULAR:
                self.add_singular(unit)

    def add_group(self, judged: Judged) -> None:
        second = not self.joint and decides_by_algorithm_2(self.facts, judged)
        plan = GroupPlan(
            judged.group.index, judged.name, self.facts.names(judged.group.fresh), 2 if second else 1,
            self.theorem == "T5",
        )  # fmt: skip
        if not self.joint:
            self.groups.append(plan)
        self.layer_of |= {u.index: judged.name if judged.is_one_layer else u.display or u.name for u in judged.units}
        for unit in judged.units:
            if unit.kind is UnitKind.ACTIVATION and not second:
                self._touches(unit, plan)
            elif unit.kind is UnitKind.MAX:
                self._ties(unit, plan, judged)
            elif unit.kind is UnitKind.SPLIT_MAX and self.joint:
                self._split_ties(unit, plan, judged)
            elif unit.kind is not UnitKind.ACTIVATION:
                self._add(CheckKind.UNOBSERVED, unit, plan.index, unit.inputs[0], note=f"{unit.name} is outside T8")

    def add_singular(self, unit: Unit) -> None:
        node = self.facts.graph.nodes[unit.node]
        if node.shape is None:
            self._add(CheckKind.UNOBSERVED, unit, -1, unit.inputs[0], note=f"{unit.name} has several results")
            return
        operands = tuple(dict.fromkeys(i for a in node.arguments.values() for i in _refs(a)))
        self._add(CheckKind.SINGULAR, unit, -1, unit.inputs[0], reads=operands)
        for variance in self._variances(unit.inputs[0]) if node.op.startswith(("aten.sqrt.", "aten.pow.")) else ():
            self._add_variance(unit, variance)

    def _add_variance(self, unit: Unit, variance: int) -> None:
        node, source = self.facts.graph.nodes[variance], self.facts.graph.inputs_of[variance][0]
        if node.op.startswith("aten.var_mean."):
            self._add(CheckKind.UNOBSERVED, unit, -1, source, note="var_mean has several results; use var and mean")
        else:
            self._add(CheckKind.SINGULAR, unit, -1, source, node=variance, reads=(source,))

    def _variances(self, node: int) -> Iterable[int]:
        """Variances that are moved, added and scaled to give a node: of equal entries they are often not computed to be 0."""
        seen, stack = set(), [node]
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            if self.facts.graph.nodes[current].op.startswith("aten.var"):
                yield current
            elif self.facts.semantics[current].transfer in (*OF_ENTRIES, Transfer.AVERAGE):
                stack.extend(i for i in self.facts.graph.inputs_of[current] if self.facts.depends[i])

    def _add(self, kind: CheckKind, unit: Unit, group: int, operand: int, node: int | None = None, **extra: Any) -> None:
        at = self.facts.graph.nodes[unit.node if node is None else node]
        self.checks.append(Check(
            len(self.checks), kind, group, unit.index, self.layer_of.get(unit.index, unit.display or unit.name), at.id, operand,
            unit.node, operator=at.op, arguments=at.arguments, is_inside=unit.is_inside, **extra,
        ))  # fmt: skip

    # Kinks ---------------------------------------------------------------------------------------

    def _touches(self, unit: Unit, plan: GroupPlan) -> None:
        sides = tuple(_side(p, bool(unit.smooth_operands) or unit.name.startswith("rrelu")) for p in unit.points)
        root = unit.inputs[0]
        sources = () if self.joint else self.forms.of(root, plan.fresh)
        first = next((m for m in unit.members if root in self.facts.graph.inputs_of[m]), None)
        if first is None:
            first = next(iter(self._chain_readers(unit, root)), unit.node)
        bounds = self._bounds(unit)
        if bounds:
            self._add(CheckKind.BOUND, unit, plan.index, root, node=unit.node, sides=sides, sources=sources, reads=bounds)
            return
        self._add(CheckKind.TOUCH, unit, plan.index, root, node=first, sides=sides, sources=sources)
        for member in unit.members:
            self._guard(unit, plan, member, root)

    def _chain_readers(self, unit: Unit, root: int) -> Iterable[int]:
        """Nodes on the way from the root to the activation that read the root, in execution order."""
        above, stack = set(), [unit.node]
        while stack:
            current = stack.pop()
            if current != root and current not in above and self.facts.depends[current]:
                above.add(current)
                stack.extend(self.facts.graph.inputs_of[current])
        return (n for n in self.facts.graph.users_of[root] if n in above)

    def _bounds(self, unit: Unit) -> tuple[int, ...]:
        """Constant tensors that the pre-activation itself is compared with entry by entry (theory 4.2)."""
        is_max = self.facts.semantics[unit.node].kind is Kind.MAX
        return self._bounds_at(unit.node) if is_max and unit.inputs[0] in self.facts.graph.inputs_of[unit.node] else ()

    def _bounds_at(self, maximum: int) -> tuple[int, ...]:
        """The constant operands of a maximum that are not known to be infinite."""
        constants = (i for i in self.facts.graph.inputs_of[maximum] if not self.facts.depends[i])
        return tuple(i for i in constants if not isinf(self.facts.constants.get(i) or 0.0))

    def _guard(self, unit: Unit, plan: GroupPlan, member: int, root: int) -> None:
        """A member that compares something else than the root may, by rounding, hit where the root does not."""
        found = self._compared(member)
        if found is None or found[0] == root:
            return
        operand, constants = found
        form, points = unit.forms.get(operand), len(unit.points)
        is_met = partial(_is_one_of, constants, self.facts.graph.nodes[operand].dtype)
        meets = tuple(i for i in range(points) if form is None or is_met(form.value(unit.breaks[i])))
        harmless = tuple(float(b) for b in unit.breaks[points:] if form is not None and is_met(form.value(b)))
        plateaus = tuple(form.flat_at(is_met)) if form is not None else ()
        self._add(CheckKind.GUARD, unit, plan.index, operand, node=member, sides=tuple(Side(c, 0) for c in constants),
                  meets=meets, harmless=harmless, plateaus=plateaus, reads=(root,) if harmless or plateaus else ())  # fmt: skip

    def _compared(self, member: int) -> tuple[int, tuple[float, ...]] | None:
        """(operand, constants) of an operator that compares its operand with constants."""
        node, semantics = self.facts.graph.nodes[member], self.facts.semantics[member]
        if semantics.kind is Kind.KINKED and semantics.operand is not None:
            operand = node.arguments.get(semantics.operand)
            return (operand.id, semantics.kinks) if isinstance(operand, Ref) else None
        if semantics.kind is Kind.MAX:
            return self._maximum_with_constants(member)
        base = node.op.split(".")[1] if node.op.startswith("aten.") else ""
        if base not in _COMPARES:
            return None
        left, right = node.arguments.get("self"), node.arguments.get("other")
        value = self._number(right)
        return (left.id, (value,)) if isinstance(left, Ref) and value is not None else None

    def _maximum_with_constants(self, member: int) -> tuple[int, tuple[float, ...]] | None:
        compared = [i for i in self.facts.graph.inputs_of[member] if self.facts.depends[i]]
        values = (self.facts.constants.get(i) for i in self._bounds_at(member))
        return (compared[0], tuple(v for v in values if v is not None)) if len(compared) == 1 else None

    def _number(self, value: Any) -> float | None:
        if isinstance(value, Ref):
            return self.facts.constants.get(value.id)
        return float(value) if isinstance(value, (int, float)) else None

    # Maxima --------------------------------------------------------------------------------------

    def _ties(self, unit: Unit, plan: GroupPlan, judged: Judged) -> None:
        node = self.facts.graph.nodes[unit.node]
        name = node.op.removeprefix("aten.").removesuffix(".default").removesuffix("_with_indices")
        kind = CheckKind.WINDOWS if name in _WINDOWS else CheckKind.DIMENSION if name in _DIMENSION else None
        operand = unit.inputs[0]
        if kind is None:
            self._add(CheckKind.UNOBSERVED, unit, plan.index, operand, note=f"ties of {unit.name} cannot be observed")
            return
        floor = 0.0 if plan.algorithm == 2 else None
        feeders = tuple(
            u.index for u in judged.units
            if u.node == operand and self._users(operand) == {unit.node} and operand not in self.facts.graph.outputs
        )
        self._add(kind, unit, plan.index, operand, floor=floor, skip=flat_values(self.facts, judged, unit),
                  feeders=feeders, sources=() if self.joint else self.forms.of(operand, plan.fresh))  # fmt: skip

    def _split_ties(self, unit: Unit, plan: GroupPlan, judged: Judged) -> None:
        node = self.facts.graph.nodes[unit.node]
        operands = tuple(i for a in node.arguments.values() for i in _refs(a))
        if node.shape is None or node.op.split(".")[1] not in _SPLIT or len(operands) > 2:
            self._add(CheckKind.UNOBSERVED, unit, plan.index, operands[0], note=f"ties of {unit.name} cannot be observed")
            return
        self._add(CheckKind.SPLIT, unit, plan.index, operands[0], reads=operands, skip=flat_values(self.facts, judged, unit))

    def _users(self, node: int) -> set[int]:
        return {u for u in self.facts.graph.users_of[node] if u in self.facts.relevant}


def _is_one_of(constants: Iterable[float], dtype: str | None, value: Fraction) -> bool:
    """Constants are rounded to the dtype, and zero is exact."""
    roundoff = torch.finfo(getattr(torch, str(dtype))).eps if is_floating(dtype) else 0.0
    return any(abs(value - Fraction(c)) <= Fraction(roundoff) * abs(Fraction(c)) for c in constants if isfinite(c))


def _side(proxy: Proxy, varies: bool) -> Side:
    """AD's choice; where a slope is a tensor's (PReLU) or drawn at random (RReLU), the slopes are no known numbers."""
    direction = {1.0: -1, 0.0: 1}.get(proxy.weight, 0) if proxy.weight is not None else 0
    return Side(proxy.kink, direction) if varies else Side(proxy.kink, direction, proxy.left, proxy.ad, proxy.right)


def _refs(value: Any) -> tuple[int, ...]:
    if isinstance(value, Ref):
        return (value.id,)
    return tuple(i for item in value for i in _refs(item)) if isinstance(value, (tuple, list)) else ()
