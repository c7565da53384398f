"""Look: recognise elementwise chains of one tensor with constants as scalar activations (theory 4.3).

``relu(y)``, ``y * (y > 0)``, ``where(y > 0, y, 0.1 * y)`` and ``y * relu6(y + 3) / 6`` are each one scalar
piecewise-analytic rho of the pre-activation y. A node may be a function of several candidate pre-activations (of
``y`` and of ``silu(y)``); the earliest one for which the function is computed exactly wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Protocol

import torch
from fxcheck.passes.annotate import Annotated

from fxcheck.ops import scalar
from fxcheck.ops.common import is_floating
from fxcheck.records import piecewise
from fxcheck.records.graph import Graph, Node, Ref
from fxcheck.records.piecewise import Piecewise, polynomial
from fxcheck.records.proxy import Proxy
from fxcheck.records.semantics import Kind

_SAME_ENTRIES = frozenset(
    f"aten.{name}" for name in ("clone.default", "alias.default", "contiguous.default", "to.dtype", "to.device",
                                "_to_copy.default", "type_as.default", "to.dtype_layout", "positive.default")
)  # fmt: skip
_ARITHMETIC = frozenset({"add", "sub", "subtract", "rsub", "mul", "multiply", "div", "divide", "true_divide", "neg",
                         "negative", "square", "pow"})  # fmt: skip
_LOGIC = frozenset({"logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or", "bitwise_not",
                    "__and__", "__or__"})  # fmt: skip
_SELECT = frozenset({"where", "masked_fill", "index_put"})
_OPEN_SLOPES: dict[str, dict[str, tuple[float, ...]]] = {"aten.prelu.default": {"weight": (0.25, 2.0, -1.0)}}
"""Operators whose slope may be a parameter: the proxy must be on the same side for every one of these values."""

_MAX_ROOTS = 4
"""Candidate pre-activations kept for one node: the latest ones."""


class ProxySource(Protocol):
    """Where proxies come from: the installed torch, or a saved table."""

    def scalar(
        self, op: str, arguments: Mapping[str, Any], operand: str, points: tuple[float, ...], dtype: str
    ) -> tuple[Proxy, ...] | None: ...

    def pick(self, op: str, dtype: str) -> str | None: ...

    def chain(
        self, nodes: tuple[Node, ...], root: int, points: tuple[float, ...], dtype: str,
        constants: Mapping[int, float],
    ) -> tuple[Proxy, ...] | None: ...  # fmt: skip


@dataclass(frozen=True)
class Form:
    """A node as a function of one candidate pre-activation."""

    exact: Piecewise | None
    """None when the function is not a piecewise polynomial; it is then measured on the chain itself."""
    breaks: tuple[Fraction, ...]
    """Where operators inside the chain compare or have kinks."""


_IDENTITY = Form(piecewise.IDENTITY, ())


@dataclass(frozen=True)
class Activation:
    """A scalar activation with at least one point where AD must choose."""

    node: int
    """The node that holds the activation's value."""
    root: int
    """The pre-activation."""
    members: tuple[int, ...]
    """Nodes of the chain, the pre-activation excluded, in order."""
    name: str
    points: tuple[Proxy, ...]
    """Measured at every candidate kink; points where nothing happens are left out."""
    continuous: bool
    nondecreasing: bool
    smooth_operands: tuple[int, ...] = ()
    """Operands that enter analytically, and are no known numbers: the slope of a PReLU."""
    note: str = ""
    breaks: tuple[Fraction, ...] = ()
    """Of a chain: where the points are, and then those at which its operators have kinks that cancel."""
    forms: Mapping[int, Piecewise] = field(default_factory=dict)
    """By node of a chain, where it is known: the function of the pre-activation that it holds."""
    is_inside: bool = False
    """Other scalar functions of a pre-activation, which are measured as a whole, are computed from it too."""


@dataclass(frozen=True)
class Activations:
    """What chain recognition found."""

    found: tuple[Activation, ...]
    handled: frozenset[int]
    """Nodes that compare or have kinks and are accounted for by an activation, or proved harmless."""


def find_activations(facts: Annotated, proxies: ProxySource) -> Activations:
    """Find every scalar activation that depends on a trainable parameter and reaches an output.

    Args:
        facts: the annotated graph.
        proxies: where the measured derivatives come from.

    Returns:
        The activations in execution order, and the nodes that they account for.

    Source: theory 4.1 (measured proxies) and 4.3 (chains, mask idioms, PReLU).
    """
    chains = _Chains(facts, proxies)
    found = []
    for node in facts.graph.nodes:
        root = chains.root_of(node.id)
        if root is not None and chains.leaves_chain(node.id, root) and not chains.is_smoothed(node.id, root):
            found.append(chains.activation(node, root))
    handled = frozenset(n for n, roots in chains.essential.items() if roots)
    inside = chains.interior()
    return Activations(tuple(replace(a, is_inside=a.node in inside) for a in found if a is not None), handled)


class _Chains:
    def __init__(self, facts: Annotated, proxies: ProxySource) -> None:
        self.facts = facts
        self.proxies = proxies
        self.forms: dict[int, dict[int, Form]] = {}
        self.essential: dict[int, frozenset[int]] = {}
        """For each node, the roots at which it compares, kinks, or joins branches that do."""
        for node in facts.graph.nodes:
            if facts.matters(node.id):
                self._visit(node)

    # Forms of each node ------------------------------------------------------------------------

    def _visit(self, node: Node) -> None:
        operands = [s for s in self.facts.graph.inputs_of[node.id] if self.facts.depends[s]]
        forms: dict[int, Form] = {}
        essential = set()
        if self._may_chain(node, operands):
            for root in self._common_roots(node, operands):
                form = self._form(node, root)
                if form is not None:
                    forms[root] = form
                    if self._is_essential(node, operands, root):
                        essential.add(root)
        # A kink of something curved is found where its operand crosses it, so the operand is a candidate itself.
        if not any(form.exact is not None and form.exact.degree <= 1 for form in forms.values()):
            forms[node.id] = _IDENTITY
        self.forms[node.id] = forms
        self.essential[node.id] = frozenset(essential)

    def _may_chain(self, node: Node, operands: list[int]) -> bool:
        base = _base(node.op)
        known = node.op in _SAME_ENTRIES or base in _ARITHMETIC | _LOGIC | _SELECT or base in scalar.COMPARE
        return bool(operands) and (known or self.facts.semantics[node.id].elementwise)

    def _common_roots(self, node: Node, operands: list[int]) -> list[int]:
        smooth = set(self._smooth_operands(node))
        chained = [o for o in operands if o not in smooth]
        if not chained:
            return []
        common = set(self.forms.get(chained[0], {}))
        for other in chained[1:]:
            common &= set(self.forms.get(other, {}))
        return sorted(r for r in common if node.is_shaped_as(self.facts.graph.nodes[r]))[-_MAX_ROOTS:]

    def _smooth_operands(self, node: Node) -> tuple[int, ...]:
        names = _OPEN_SLOPES.get(node.op, {})
        refs = (node.arguments.get(n) for n in names)
        return tuple(r.id for r in refs if isinstance(r, Ref) and self.facts.constants.get(r.id) is None)

    def _is_essential(self, node: Node, operands: list[int], root: int) -> bool:
        before = [self.forms[o][root].breaks for o in operands if root in self.forms.get(o, {})]
        joined = len(operands) > 1 and any(before)
        return joined or self._chooses(node)

    def _chooses(self, node: Node) -> bool:
        """The operator itself compares its operand with something."""
        kind, base = self.facts.semantics[node.id].kind, _base(node.op)
        decides = base in scalar.COMPARE or base in _SELECT or base in _LOGIC or node.op in scalar.SIGN
        return kind in (Kind.KINKED, Kind.MAX) or decides

    def _form(self, node: Node, root: int) -> Form | None:
        """The node as a function of ``root``; None when it is not one, or its breaks cannot be located."""
        arguments = {name: self._argument(value, root) for name, value in _as_mask_fill(node, self.facts.graph).items()}
        exact = self._exact_form(node, arguments)
        if exact is not None:
            return Form(exact, exact.breaks)
        inner = [a for a in arguments.values() if isinstance(a, Form)]
        breaks = {b for form in inner for b in form.breaks}
        own = self._own_breaks(node, arguments)
        if not is_floating(node.dtype):  # numbers that a measurement does not have in this dtype
            return None
        if own is None or not self._is_runnable(node, arguments):
            return None
        return Form(None, tuple(sorted(breaks | own)))

    def _argument(self, value: Any, root: int) -> Any:
        """A Form for a chained tensor, a float for a number or known constant, else the value itself."""
        if isinstance(value, Ref):
            if value.id in self.facts.constants:
                known = self.facts.constants[value.id]
                return value if known is None else float(known)
            return self.forms.get(value.id, {}).get(root, value)
        return value

    def _is_runnable(self, node: Node, arguments: dict[str, Any]) -> bool:
        slopes = _OPEN_SLOPES.get(node.op, {})
        return all(n in slopes or not isinstance(a, Ref) for n, a in arguments.items())

    def _own_breaks(self, node: Node, arguments: dict[str, Any]) -> set[Fraction] | None:
        """Where this operator's own kinks fall, as points of the root; None when they cannot be located."""
        facts = self.facts.semantics[node.id]
        if facts.kind in (Kind.SMOOTH, Kind.LINEAR):
            return set()
        if _base(node.op) in _SELECT:
            return set() if self._mask_is_exact(node, arguments) else None
        if facts.kind is not Kind.KINKED or facts.operand is None:
            return None
        inner = arguments.get(facts.operand)
        if not isinstance(inner, Form) or inner.exact is None or inner.exact.degree > 1:
            return None
        if not all(map(math.isfinite, facts.kinks)):
            return None
        kinks = tuple(Fraction(k) for k in facts.kinks)
        marker = Piecewise(kinks, ((),) * (len(kinks) + 1), (Fraction(0),) * len(kinks), (Fraction(0),) * len(kinks))
        located = piecewise.apply(marker, inner.exact)
        return None if located is None else set(located.breaks)

    def _mask_is_exact(self, node: Node, arguments: dict[str, Any]) -> bool:
        mask = arguments.get("condition", arguments.get("mask"))
        return isinstance(mask, Form) and mask.exact is not None and mask.exact.degree == 0

    # Exact algebra -----------------------------------------------------------------------------

    def _exact_form(self, node: Node, arguments: dict[str, Any]) -> Piecewise | None:
        if not _is_one_precision(node, self.facts, arguments) or _has_no_number(arguments):
            return None
        values = {n: _as_piecewise(a) for n, a in arguments.items()}
        base = _base(node.op)
        if node.op in _SAME_ENTRIES:
            return values.get("self") if is_floating(node.dtype) else None
        if base in _ARITHMETIC:
            result = _arithmetic(base, arguments, values)
            return result if result is not None and _holds(node.dtype, result) else None
        if base in _LOGIC and node.dtype == "bool":
            return _logic(base, values)
        if base in scalar.COMPARE:
            if not all(v is None or _holds(_dtype_of(node, "self", self.facts), v) for v in values.values()):
                return None
            difference = _arithmetic("sub", {}, {"self": values.get("self"), "other": values.get("other")})
            return None if difference is None else piecewise.apply(scalar.COMPARE[base], difference)
        if base in _SELECT:
            result = _select(base, arguments, values)
            return result if result is not None and _holds(node.dtype, result) else None
        if node.op in scalar.SIGN:
            inner = values.get("self")
            return None if inner is None else piecewise.apply(scalar.SIGN[node.op], inner)
        return self._kinked(node, arguments, values)

    def _kinked(self, node: Node, arguments: dict[str, Any], values: dict[str, Any]) -> Piecewise | None:
        if node.op not in scalar.KINKED or not is_floating(node.dtype):
            return None
        for operand in scalar.OPERAND.get(node.op, ("self",)):
            rest = {("other" if operand == "other" and n == "self" else n): a for n, a in arguments.items() if n != operand}
            inner = values.get(operand)
            if inner is None or any(isinstance(a, (Form, Ref)) for a in rest.values()):
                continue
            if not isinstance(arguments[operand], Form):
                continue
            breaks, pieces, at = scalar.KINKED[node.op](rest)
            constants = {n: a for n, a in arguments.items() if n != operand}
            measured = self.proxies.scalar(
                node.op, constants, operand, tuple(float(b) for b in breaks), _dtype_of(node, operand, self.facts)
            ) if breaks else ()
            shape = Piecewise(breaks, pieces, at, (Fraction(0),) * len(breaks))
            if measured is None or not _agrees(measured, shape):
                return None
            slopes = tuple(_exact_slope(proxy, shape, i) for i, proxy in enumerate(measured))
            return piecewise.apply(Piecewise(breaks, pieces, at, slopes), inner)
        return None

    # Activations -------------------------------------------------------------------------------

    def root_of(self, node: int) -> int | None:
        """The pre-activation of an essential node: the earliest one with an exact form, else the earliest."""
        roots = sorted(self.essential.get(node, ()))
        exact = [r for r in roots if self.forms[node][r].exact is not None]
        return next(iter(exact or roots), None)

    def leaves_chain(self, node: int, root: int) -> bool:
        """Some use of the node's value is not absorbed into another essential node of the same root."""
        stack, seen = [node], set()
        outputs = set(self.facts.graph.outputs)
        while stack:
            current = stack.pop()
            if current in outputs:
                return True
            for user in self.facts.graph.users_of[current]:
                is_constant = self.facts.semantics[user].kind is Kind.CONSTANT
                if user in seen or user not in self.facts.relevant or is_constant:
                    continue
                seen.add(user)
                if root not in self.forms.get(user, {}):
                    return True
                if root not in self.essential[user]:
                    stack.append(user)
                elif self.root_of(user) != root:
                    return True
        return False

    def is_smoothed(self, node: int, root: int) -> bool:
        """Every use of the value is, sooner or later in the chain, a C1 function of the root, as in relu(y) ** 2."""
        users = [u for u in self.facts.graph.users_of[node] if u in self.facts.relevant]
        if node in self.facts.graph.outputs:
            return False
        for user in users:
            form = self.forms.get(user, {}).get(root)
            if form is None:
                return False
            absorbed = root in self.essential[user] and self.root_of(user) == root
            smooth = form.exact is not None and not _has_kinks(form.exact)
            if not absorbed and not smooth and not self.is_smoothed(user, root):
                return False
        return bool(users)

    def activation(self, node: Node, root: int) -> Activation | None:
        form = self.forms[node.id][root]
        members = self._members(node.id, root)
        smooth = self._smooth_operands(node)
        single = members == (node.id,) and root in self.facts.graph.inputs_of[node.id]
        facts = self.facts.semantics[node.id]
        name = _base(node.op) if single else "chain(" + ", ".join(_base(self._node(m).op) for m in members) + ")"
        continuous, nondecreasing = True, single and facts.nondecreasing
        if form.exact is not None:
            continuous, nondecreasing = form.exact.is_continuous, form.exact.is_nondecreasing or nondecreasing
        points = self._measure(node, root, form, members, single)
        note = "" if points is not None else self._unmeasured(members)
        continuous = continuous and all(p.continuous for p in points or ())
        kept = {i: p for i, p in enumerate(points or ()) if p.is_kink or p.is_wrong_derivative or not p.stable}
        if points is not None and not kept and continuous:
            return None
        found = Activation(node.id, root, members, name, tuple(kept.values()), continuous, nondecreasing, smooth, note)
        if single:
            return found
        dropped = [b for i, b in enumerate(form.breaks) if points and i not in kept and _is_held(b, self._node(root).dtype)]
        return replace(found, breaks=(*(form.breaks[i] for i in kept), *dropped), forms=self._exact_forms(node.id, root))

    def _exact_forms(self, node: int, root: int) -> dict[int, Piecewise]:
        forms = {n: self.forms[n][root].exact for n in self._chain_nodes(node, root)}
        return {n: f for n, f in forms.items() if f is not None}

    def _unmeasured(self, members: tuple[int, ...]) -> str:
        trained = any(self._smooth_operands(self._node(m)) for m in members)
        reason = ": they depend on a slope that is trained, and one pre-activation is used several times" if trained else ""
        return f"its derivatives at the kinks could not be measured{reason}"

    def _measure(
        self, node: Node, root: int, form: Form, members: tuple[int, ...], single: bool
    ) -> tuple[Proxy, ...] | None:
        if single and self.facts.semantics[node.id].kind is Kind.KINKED:
            return self._measure_operator(node)
        if form.exact is not None:
            return tuple(_proxy_at(form.exact, i) for i in range(len(form.exact.breaks)))
        if any(Fraction(float(b)) != b for b in form.breaks):
            return None
        nodes = tuple(self._node(m) for m in self._chain_nodes(node.id, root))
        known = {n: v for n, v in self.facts.constants.items() if v is not None}
        return self.proxies.chain(nodes, root, tuple(float(b) for b in form.breaks), self._node(root).dtype or "", known)

    def _measure_operator(self, node: Node) -> tuple[Proxy, ...] | None:
        facts = self.facts.semantics[node.id]
        operand = facts.operand or "self"
        fixed = {n: self._argument(a, -1) for n, a in node.arguments.items() if n != operand}
        open_slopes = {n: s for n, s in _OPEN_SLOPES.get(node.op, {}).items() if isinstance(fixed.get(n), Ref)}
        fixed = {n: 0.0 if isinstance(a, Ref) else a for n, a in fixed.items()}
        dtype = _dtype_of(node, operand, self.facts)
        variants = [fixed]
        for name, slopes in open_slopes.items():
            variants = [{**fixed, name: s} for s in slopes]
        if node.op == "aten.rrelu.default" and fixed.get("training"):
            variants = _at_fixed_slopes(fixed)
        kinks = tuple(k for k in facts.kinks if abs(k) != math.inf)
        results = [self.proxies.scalar(node.op, v, operand, kinks, dtype) for v in variants]
        if any(r is None for r in results):
            return None
        kinked = [r for r in results if any(p.is_kink for p in r or ())] or results[:1]
        weights = {tuple(p.weight for p in r or ()) for r in kinked}
        return kinked[0] if len(weights) == 1 else None

    def _members(self, node: int, root: int) -> tuple[int, ...]:
        nodes = self._chain_nodes(node, root)
        return tuple(n for n in nodes if root in self.essential[n]) or (node,)

    def _chain_nodes(self, node: int, root: int) -> tuple[int, ...]:
        """Every node between the root (excluded) and the node (included), in execution order."""
        seen, stack = set(), [node]
        while stack:
            current = stack.pop()
            if current == root or current in seen or root not in self.forms.get(current, {}):
                continue
            seen.add(current)
            stack.extend(self.facts.graph.inputs_of[current])
        return tuple(sorted(seen))

    def interior(self) -> frozenset[int]:
        """Nodes on the way from a root to what is one function of it: an activation, or a chain whose kinks cancel."""
        found: set[int] = set()
        for node in self.essential:
            root = self.root_of(node)
            if root is not None:
                found.update(n for n in self._chain_nodes(node, root) if n != node)
        return frozenset(found)

    def _node(self, id: int) -> Node:
        return self.facts.graph.nodes[id]


# Helpers ---------------------------------------------------------------------------------------


def _base(op: str) -> str:
    parts = op.split(".")
    return parts[1] if len(parts) > 1 else op


def _at_fixed_slopes(rrelu: dict[str, Any]) -> list[dict[str, Any]]:
    """The call with its random slope at either bound and in the middle, where it may be 1 and have no kink."""
    lower, upper = rrelu["lower"], rrelu["upper"]
    return [{**rrelu, "training": False, "lower": s, "upper": s} for s in (lower, upper, (lower + upper) / 2)]


def _as_mask_fill(node: Node, graph: Graph) -> Mapping[str, Any]:
    """Arguments of ``y[mask] = value`` renamed to those of ``masked_fill``; others, as of ``y[[1]] = value``, unchanged."""
    indices = node.arguments.get("indices")
    if node.op != "aten.index_put.default" or node.arguments.get("accumulate") or not isinstance(indices, tuple):
        return node.arguments
    if len(indices) != 1 or not isinstance(indices[0], Ref) or graph.nodes[indices[0].id].dtype != "bool":
        return node.arguments
    return {"self": node.arguments["self"], "mask": indices[0], "value": node.arguments["values"]}


def _dtype_of(node: Node, operand: str, facts: Annotated) -> str:
    value = node.arguments.get(operand)
    return (facts.graph.nodes[value.id].dtype if isinstance(value, Ref) else node.dtype) or "float32"


def _as_piecewise(value: Any) -> Piecewise | None:
    if isinstance(value, Form):
        return value.exact
    if isinstance(value, (bool, int, float)) and value == value and abs(value) != float("inf"):
        return piecewise.constant(Fraction(value))
    return None


def _is_one_precision(node: Node, facts: Annotated, arguments: Mapping[str, Any]) -> bool:
    """The floating dtype is one from operands to result: another one rounds the constants that it meets to other numbers.

    Truth values are the same in all, and a single number takes the dtype of the tensor that it meets.
    """
    operands = {n: facts.graph.nodes[a.id] for n, a in _as_mask_fill(node, facts.graph).items() if isinstance(a, Ref)}
    met = (a for n, a in operands.items() if not _is_mask(arguments[n]) and (a.shape != () or node.shape == ()))
    dtypes = {a.dtype for a in (*met, node) if is_floating(a.dtype)}
    return len(dtypes) <= 1


def _has_no_number(arguments: Mapping[str, Any]) -> bool:
    """NaN or infinity is among the constants, where that is not a bound of a clamp that bounds nothing."""
    numbers = ((name, a) for name, a in arguments.items() if isinstance(a, float) and not math.isfinite(a))
    return any((name, a) not in (("min", -math.inf), ("max", math.inf)) for name, a in numbers)


def _is_mask(argument: Any) -> bool:
    return isinstance(argument, Form) and argument.exact is not None and argument.exact.is_truth


def _is_held(value: Fraction, dtype: str | None) -> bool:
    """A tensor of the dtype may hold exactly this number."""
    return is_floating(dtype) and Fraction(torch.tensor(float(value), dtype=getattr(torch, str(dtype))).item()) == value


def _holds(dtype: str | None, form: Piecewise) -> bool:
    """The dtype holds every value: sums of truth values are logic, and integers wrap around."""
    if is_floating(dtype):
        return True
    if dtype == "bool":
        return form.is_truth
    kind = getattr(torch, dtype or "", None)
    if form.degree > 0 or not isinstance(kind, torch.dtype) or kind.is_complex:
        return False
    range_ = torch.iinfo(kind)
    return all(v.denominator == 1 and range_.min <= v <= range_.max for v in form.levels)


def _arithmetic(base: str, arguments: dict[str, Any], values: Mapping[str, Piecewise | None]) -> Piecewise | None:
    left, right = values.get("self"), values.get("other")
    if left is None:
        return None
    if base in ("neg", "negative"):
        return _linear([left], [Fraction(-1)])
    if base == "square":
        return _product(left, left)
    if base == "pow":
        return _power(left, arguments.get("exponent"))
    if right is None or arguments.get("rounding_mode") is not None:
        return None
    alpha = Fraction(1 if arguments.get("alpha") is None else arguments["alpha"])
    match base:
        case "add":
            return _linear([left, right], [Fraction(1), alpha])
        case "sub" | "subtract":
            return _linear([left, right], [Fraction(1), -alpha])
        case "rsub":
            return _linear([left, right], [-alpha, Fraction(1)])
        case "mul" | "multiply":
            return _product(left, right)
    number = right.value(Fraction(0)) if not right.breaks and right.degree == 0 else Fraction(0)
    return _linear([left], [1 / number]) if number else None


def _linear(parts: list[Piecewise], factors: list[Fraction]) -> Piecewise:
    def piece(polynomials: tuple[piecewise.Polynomial, ...], _: tuple[Fraction, ...]) -> piecewise.Polynomial:
        total: piecewise.Polynomial = ()
        for p, f in zip(polynomials, factors, strict=True):
            total = piecewise.add(total, piecewise.multiply(p, polynomial(f)))
        return total

    def slope(_: tuple[Fraction, ...], slopes: tuple[Fraction, ...]) -> Fraction:
        return sum((s * f for s, f in zip(slopes, factors, strict=True)), Fraction(0))

    return piecewise.combine(parts, piece, slope)


def _product(left: Piecewise, right: Piecewise) -> Piecewise:
    return piecewise.combine(
        [left, right],
        lambda p, _: piecewise.multiply(p[0], p[1]),
        lambda v, s: s[0] * v[1] + v[0] * s[1],
    )


def _power(left: Piecewise, exponent: Any) -> Piecewise | None:
    if exponent not in (1, 2, 3, 4):
        return None
    result = left
    for _ in range(int(exponent) - 1):
        result = _product(result, left)
    return result


def _logic(base: str, values: Mapping[str, Piecewise | None]) -> Piecewise | None:
    left, right = values.get("self"), values.get("other")
    one = piecewise.constant(1)
    if left is None or not all(v is None or v.is_truth for v in (left, right)):
        return None  # a number that is read as a truth value is compared with 0
    if base in ("logical_not", "bitwise_not"):
        return _linear([one, left], [Fraction(1), Fraction(-1)])
    if right is None:
        return None
    both = _product(left, right)
    if base in ("logical_and", "bitwise_and", "__and__"):
        return both
    return _linear([left, right, both], [Fraction(1), Fraction(1), Fraction(-1)])


def _select(base: str, arguments: dict[str, Any], values: Mapping[str, Piecewise | None]) -> Piecewise | None:
    if base == "where":
        mask, yes, no = values.get("condition"), values.get("self"), values.get("other")
    elif base in ("masked_fill", "index_put") and "mask" in arguments:
        mask, yes, no = values.get("mask"), values.get("value"), values.get("self")
    else:
        return None
    if mask is None or yes is None or no is None:
        return None
    return piecewise.combine(
        [mask, yes, no],
        lambda p, v: p[1] if v[0] else p[2],
        lambda v, s: s[1] if v[0] else s[2],
    )


def _agrees(measured: tuple[Proxy, ...], shape: Piecewise) -> bool:
    """The measurement settled, and found the one-sided slopes that the exact pieces have."""
    if len(measured) != len(shape.breaks):
        return False
    pairs = [(p.left, shape.left_slope(i)) for i, p in enumerate(measured)]
    pairs += [(p.right, shape.right_slope(i)) for i, p in enumerate(measured)]
    close = all(abs(found - float(exact)) <= 1e-2 * max(1.0, abs(float(exact))) for found, exact in pairs)
    return close and all(p.stable for p in measured)


def _exact_slope(proxy: Proxy, shape: Piecewise, i: int) -> Fraction:
    """AD's measured slope at break i, snapped to the exact one-sided slopes when it is a mixture of them."""
    if proxy.weight is None:
        exact = shape.left_slope(i)
        return exact if proxy.ad == proxy.left == proxy.right else Fraction(proxy.ad)
    weight = Fraction(proxy.weight)
    return weight * shape.left_slope(i) + (1 - weight) * shape.right_slope(i)


def _has_kinks(exact: Piecewise) -> bool:
    """The function jumps, or has a kink, or AD is not its derivative, at some break."""
    return any(
        not exact.is_continuous_at(i) or not exact.left_slope(i) == exact.slopes[i] == exact.right_slope(i)
        for i in range(len(exact.breaks))
    )


def _proxy_at(exact: Piecewise, i: int) -> Proxy:
    left, ad, right = exact.left_slope(i), exact.slopes[i], exact.right_slope(i)
    weight = (ad - right) / (left - right) if left != right else None
    if weight is not None and not 0 <= weight <= 1:
        weight = None
    return Proxy(
        float(exact.breaks[i]), float(left), float(ad), float(right), None if weight is None else float(weight)
    )
