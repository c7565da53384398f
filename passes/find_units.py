"""Look: every activation, max, order statistic and singular operation, and every place where the theory ends."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from fxcheck.passes.annotate import Annotated
from fxcheck.passes.find_activations import Activation, Activations, ProxySource

from fxcheck.ops.common import is_floating
from fxcheck.records.finding import Diagnostic
from fxcheck.records.graph import Node, Ref
from fxcheck.records.layer import Unit, UnitKind
from fxcheck.records.proxy import Proxy
from fxcheck.records.semantics import Kind, MaxPick

_FINDINGS = {Kind.UNKNOWN: "FX606", Kind.DISCONTINUOUS: "FX401", Kind.BREAKING: "FX501"}
_KINKED = frozenset({Kind.KINKED, Kind.MAX, Kind.ORDER_STATISTIC, Kind.SINGULAR, Kind.SHARED_WEIGHTS})
_SIZE_FROM_VALUES = ("nonzero", "argwhere", "masked_select", "unique", "_unique", "bincount")
_POSITIVE_CLAMPS = ("aten.clamp_min.", "aten.clamp.", "aten.clip.")
_HINTS = {
    "FX401": "Replace it by a continuous function, or take it out of the part of the model that is trained.",
    "FX404": "Let the index or mask depend on data only, or accept that AD ignores how the choice depends on w. Where a loss "
    "chooses by comparing two tensors, write condition and both branches in one difference, d = a - b.",
    "FX501": "Freeze what is detached (requires_grad=False), or keep it attached; for the function in which the "
    "detached value is a constant the verdict is another one.",
    "FX503": "Use padding_idx=None, max_norm=None and scale_grad_by_freq=False, or freeze the embedding.",
    "FX504": "AD returns a stand-in by design here; no theorem covers it.",
    "FX505": "Write the tensor after backward(), or give the checkpointed function a copy.",
    "FX506": "Compute it with gradients, or from frozen parameters only.",
    "FX606": "Report the operator, or describe it with fxcheck.ops.registry.semantics_for.",
}


@dataclass(frozen=True)
class Units:
    """What was found in a graph."""

    units: tuple[Unit, ...]
    findings: tuple[Diagnostic, ...]
    constant_kinks: int
    dead_kinks: int


def find_units(facts: Annotated, activations: Activations, proxies: ProxySource) -> Units:
    """List the units in execution order, and the findings that no unit can carry.

    Args:
        facts: the annotated graph.
        activations: the scalar activations in it.
        proxies: for a max of a tensor with a constant tensor, which is a scalar activation too (theory 4.2).

    Source: theory 4.1 to 4.4.
    """
    finder = _Finder(facts, activations, proxies)
    by_node = {a.node: finder.from_activation(a) for a in activations.found}
    for node in facts.graph.nodes:
        if node.id not in by_node and facts.matters(node.id) and node.id not in activations.handled:
            unit = finder.unit(node)
            if unit is not None:
                by_node[node.id] = unit
    ordered = sorted(by_node.values(), key=lambda u: u.node)
    return Units(tuple(ordered), tuple(finder.findings()), *finder.unimportant())


class _Finder:
    def __init__(self, facts: Annotated, activations: Activations, proxies: ProxySource) -> None:
        self.facts = facts
        self.graph = facts.graph
        self.activations = activations
        self.proxies = proxies

    # Units -------------------------------------------------------------------------------------

    def from_activation(self, a: Activation) -> Unit:
        node = self.graph.nodes[a.members[0]] if a.members else self.graph.nodes[a.node]
        return Unit(
            0, UnitKind.ACTIVATION, a.node, (a.root,), a.members, a.name, origin=node.origin,
            member_names=self._names(a.members), points=a.points, continuous=a.continuous,
            nondecreasing=a.nondecreasing, smooth_operands=a.smooth_operands, note=a.note, breaks=a.breaks,
            forms=a.forms, is_inside=a.is_inside,
        )  # fmt: skip

    def unit(self, node: Node) -> Unit | None:
        semantics = self.facts.semantics[node.id]
        inputs = tuple(s for s in self.graph.inputs_of[node.id] if self.facts.depends[s])
        match semantics.kind:
            case Kind.MAX if not semantics.trivial:
                if semantics.elementwise and len(inputs) == 1 and not self._reads_twice(node, inputs[0]):
                    return self._max_with_constant(node, inputs[0])
                one_hot = self._is_one_hot(node, inputs)
                return self._plain(node, UnitKind.MAX if one_hot else UnitKind.SPLIT_MAX, inputs)
            case Kind.ORDER_STATISTIC:
                return self._plain(node, UnitKind.ORDER_STATISTIC, inputs)
            case Kind.SHARED_WEIGHTS:
                return self._plain(node, UnitKind.RECURRENT, inputs)
            case Kind.SINGULAR if not self._point_is_clamped_away(node):
                unit = self._plain(node, UnitKind.SINGULAR, inputs)
                return self._infinite_slope(unit) if self._rests_on_its_point(node) else unit
        return None

    def _reads_twice(self, node: Node, operand: int) -> bool:
        """max(y, y), which has no kink where y is 0."""
        return sum(isinstance(v, Ref) and v.id == operand for v in node.arguments.values()) > 1

    def _is_one_hot(self, node: Node, inputs: tuple[int, ...]) -> bool:
        measured = self.proxies.pick(node.op, self.graph.nodes[inputs[0]].dtype or "float32")
        if measured is None:
            return self.facts.semantics[node.id].pick is MaxPick.ONE_HOT
        return measured.startswith("one_hot")

    def _plain(self, node: Node, kind: UnitKind, inputs: tuple[int, ...]) -> Unit:
        note = self.facts.semantics[node.id].note
        return Unit(
            0, kind, node.id, inputs, (node.id,), node.op.split(".")[1], origin=node.origin,
            member_names=self._names((node.id,)), note=note,
        )  # fmt: skip

    def _max_with_constant(self, node: Node, operand: int) -> Unit | None:
        """max(y, c) with constant entries c: rho has its kink where y = c, with the same proxies for every c."""
        name = next(n for n, v in node.arguments.items() if isinstance(v, Ref) and v.id == operand)
        bounds = [n for n, v in node.arguments.items() if isinstance(v, Ref) and n != name]
        if not node.is_shaped_as(self.graph.nodes[operand]) or not 1 <= len(bounds) <= 2:
            return self._plain(node, UnitKind.SPLIT_MAX, (operand,))
        stand_ins = dict(zip(bounds, (0.0,) if len(bounds) == 1 else (-1.0, 1.0), strict=True))
        others = {n: stand_ins.get(n, v) for n, v in node.arguments.items() if n != name}
        kinks = tuple(sorted(stand_ins.values()))
        points = self.proxies.scalar(node.op, others, name, kinks, self.graph.nodes[operand].dtype or "float32")
        return Unit(
            0, UnitKind.ACTIVATION, node.id, (operand,), (node.id,), node.op.split(".")[1], origin=node.origin,
            member_names=self._names((node.id,)), points=points or (), nondecreasing=True,
            note="" if points else "its derivative at the kinks could not be measured",
            may_collapse=len(bounds) == 2 and not self._are_apart(node),
        )  # fmt: skip

    def _are_apart(self, node: Node) -> bool:
        """The lower bound of a clamp is known to lie below the upper one, at every entry."""
        low, high = (node.arguments[n] for n in ("min", "max"))
        return self._upper_bound(low.id) < self.facts.lower.get(high.id, -math.inf)

    def _upper_bound(self, bound: int) -> float:
        node, known = self.graph.nodes[bound], self.facts.constants.get(bound)
        operand = node.arguments.get("self")
        if known is None and node.op == "aten.neg.default" and isinstance(operand, Ref) and is_floating(node.dtype):
            return -self.facts.lower.get(operand.id, -math.inf)
        return math.inf if known is None else known

    def _rests_on_its_point(self, node: Node) -> bool:
        """A root of an activation's output, as sqrt(relu(x)): 0 is not a thin set, and the slope there is infinite."""
        if node.op.split(".")[1] not in ("sqrt", "pow"):
            return False
        activations = {a.node for a in self.activations.found}
        stack, seen = list(self.graph.inputs_of[node.id]), set()
        while stack:
            current = stack.pop()
            if current in activations:
                return True
            simple = self.facts.semantics[current].elementwise or self.facts.semantics[current].kind is Kind.STRUCTURAL
            if simple and self.facts.depends[current] and current not in seen:
                seen.add(current)
                stack.extend(self.graph.inputs_of[current])
        return False

    def _infinite_slope(self, unit: Unit) -> Unit:
        point = Proxy(0.0, math.nan, math.nan, math.inf, None, False)
        return replace(unit, kind=UnitKind.ACTIVATION, points=(point,), note="")

    def _point_is_clamped_away(self, node: Node) -> bool:
        """A norm used only under clamp(min > 0), as in normalize: where it is 0 its value does not matter."""
        users = [u for u in self.graph.users_of[node.id] if u in self.facts.relevant]
        return (
            node.op.startswith("aten.linalg_vector_norm")
            and node.arguments.get("ord") == 2
            and bool(users)
            and node.id not in self.graph.outputs
            and all(self._clamps_above_zero(self.graph.nodes[u]) for u in users)
        )

    def _clamps_above_zero(self, node: Node) -> bool:
        return node.op.startswith(_POSITIVE_CLAMPS) and self.facts.lower.get(node.id, 0.0) > 0

    def _names(self, members: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.graph.nodes[m].name for m in members)

    # Findings ----------------------------------------------------------------------------------

    def findings(self) -> list[Diagnostic]:
        found: dict[tuple[str, str], list[Node]] = {}
        for node in self.graph.nodes:
            code = self._finding(node)
            if code:
                found.setdefault((code, node.op), []).append(node)
        return [d for (code, op), nodes in found.items() for d in self._diagnostics(code, op, nodes)]

    def _finding(self, node: Node) -> str:
        if self._sets_a_size(node):
            return "FX404"
        if node.id in self.graph.reread and node.id in self.facts.relevant:
            return "FX505"
        if not self.facts.matters(node.id):
            return ""
        semantics = self.facts.semantics[node.id]
        if not node.grad_enabled and semantics.kind is not Kind.CONSTANT:
            return "FX506" if self._leaves_no_grad(node) else ""
        if node.id in self.activations.handled:
            return ""
        if semantics.kind is Kind.KINKED:
            return "FX606"
        return semantics.singular_code if semantics.kind in _FINDINGS and semantics.singular_code else _FINDINGS.get(
            semantics.kind, ""
        )

    def _sets_a_size(self, node: Node) -> bool:
        """The number of entries depends on trainable values: it counts even where only the size is used."""
        if not self.facts.depends[node.id] or node.id not in self.graph.live:
            return False
        masks = node.arguments.get("indices")
        by_mask = isinstance(masks, tuple) and any(
            isinstance(m, Ref) and self.facts.depends[m.id] and self.graph.nodes[m.id].dtype == "bool" for m in masks
        )
        base = node.op.split(".")[1] if node.op.startswith("aten.") else ""
        return (base == "index" and by_mask) or base.startswith(_SIZE_FROM_VALUES)

    def _leaves_no_grad(self, node: Node) -> bool:
        """The last node of a no_grad region on its path: used where gradients are recorded, or an output."""
        users = [self.graph.nodes[u] for u in self.graph.users_of[node.id] if u in self.facts.relevant]
        return node.id in self.graph.outputs or any(u.grad_enabled for u in users)

    def _diagnostics(self, code: str, op: str, nodes: list[Node]) -> list[Diagnostic]:
        if code == "FX606":
            reason = self.facts.semantics[nodes[0].id].note or "not covered by the operator table"
            places = ", ".join(dict.fromkeys(_place(n) for n in nodes[:3]))
            more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
            return [_at(nodes[0], code, op, f"unknown operator {op} at {places}{more}: {reason}")]
        return [_at(n, code, _short(op, n), self._sentence(code, op, n)) for n in nodes]

    def _sentence(self, code: str, op: str, node: Node) -> str:
        note = self.facts.semantics[node.id].note
        because = f" ({note})" if note else ""
        what = {
            "FX401": "is not continuous, and its value depends on trainable parameters",
            "FX404": "chooses entries by a value that depends on trainable parameters",
            "FX501": "cuts off gradients of a value that depends on trainable parameters and reaches an output",
            "FX503": "leaves gradient out, so AD is not the derivative of the forward",
            "FX505": "is computed again for its gradient, from a tensor that the forward writes into",
            "FX506": "runs without gradients, but its value depends on trainable parameters and reaches an output",
        }.get(code, "is not differentiated by AD as computed in the forward")
        return f"{_short(op, node)} at {_place(node)} {what}{because}"

    def unimportant(self) -> tuple[int, int]:
        """How many kinks and maxima are constant, and how many reach no output."""
        constant = dead = 0
        for node in self.graph.nodes:
            if self.facts.semantics[node.id].kind in _KINKED and not self.facts.semantics[node.id].trivial:
                if not self.facts.depends[node.id]:
                    constant += 1
                elif node.id not in self.facts.relevant:
                    dead += 1
        return constant, dead


def _place(node: Node) -> str:
    return node.origin.module or "the model's forward"


def _short(op: str, node: Node) -> str:
    """The operator as its user calls it."""
    name = node.called_as or op
    return name.split(".")[1] if name.startswith("aten.") else name


def _at(node: Node, code: str, op: str, message: str) -> Diagnostic:
    origin = node.origin
    return Diagnostic(code, message, _HINTS.get(code, ""), origin.location, origin.module, op, origin.source)
