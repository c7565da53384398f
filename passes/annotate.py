"""Look: for each node its semantics, the trainable parameters its value depends on, and a lower bound."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from fxcheck.passes.follow_orders import mixed_orders

from fxcheck.ops import registry
from fxcheck.ops.common import is_floating, is_integral, reduced_sizes, scalar_of
from fxcheck.records.graph import Graph, Node, Ref
from fxcheck.records.semantics import Call, Kind, OpSemantics, Transfer

POSITIVE = math.nextafter(0.0, 1.0)
"""A lower bound that says: greater than zero, by how much is not known."""

_LEAF = OpSemantics(Kind.CONSTANT)
_LEAVES = frozenset({"fxcheck.parameter", "fxcheck.buffer", "fxcheck.input", "fxcheck.constant"})
_KEEP = OpSemantics(Kind.STRUCTURAL, Transfer.KEEP)
_INDEX_OUTPUT = OpSemantics(Kind.DISCONTINUOUS, singular_code="FX404", note="an index chosen by comparing values")
_UPDATED = OpSemantics(
    Kind.BREAKING, Transfer.KEEP, singular_code="FX501",
    note="its running statistics hold activations of this forward, without their gradient",
)  # fmt: skip
_CUT_OUTPUT = OpSemantics(
    Kind.BREAKING, Transfer.LOST, singular_code="FX501", note="autograd takes this output of the operator for a constant"
)
_OUTSIDE = OpSemantics(
    Kind.BREAKING, singular_code="FX501",
    note="as_strided may read memory outside of the view that it is given, and no gradient reaches it; stride the whole tensor",
)  # fmt: skip
_MIXED = OpSemantics(
    Kind.BREAKING, singular_code="FX507",
    note="its backward mixes up row by row and channels last where a batch or a side of a map is 1, and this gradient may "
    "lie either way; take a batch of two or more",
)  # fmt: skip
_OVERWRITTEN = OpSemantics(
    Kind.BREAKING, singular_code="FX507",
    note="what autograd saved for its gradient may be written over later in the forward, through .data, a detached alias or as "
    "running statistics",
)  # fmt: skip
_UNIFORM_FACTORIES = {"full": "fill_value", "full_like": "fill_value", "new_full": "fill_value",
                      "scalar_tensor": "s"}  # fmt: skip
_SAME_UNIFORM_VALUE = ("clone", "detach", "alias", "to", "_to_copy", "lift_fresh_copy", "lift_fresh", "expand", "view",
                       "reshape", "expand_as", "unsqueeze", "contiguous")  # fmt: skip

_GIVES_NO_VALUE = {f"aten.{name}": "other" for name in ("expand_as.default", "view_as.default", "reshape_as.default",
                                                        "type_as.default", "to.other")}  # fmt: skip
"""Operators that read only the shape or the dtype of one argument."""


@dataclass(frozen=True)
class Annotated:
    """A graph with, per node id, what the node is and what it depends on."""

    graph: Graph
    parameters: tuple[str, ...]
    """Names of the trainable parameters; bit i of a mask stands for ``parameters[i]``."""
    semantics: tuple[OpSemantics, ...]
    depends: tuple[int, ...]
    """Bit mask of the trainable parameters that can change the node's value, on any path."""
    constants: dict[int, float | None]
    """Nodes that depend on no trainable parameter, with their value where all entries equal a known number."""
    lower: dict[int, float]
    """Proved lower bounds of all entries."""
    relevant: frozenset[int]
    """Nodes whose value can reach an output (paths through CONSTANT operators do not count)."""

    def matters(self, node: int) -> bool:
        """The node depends on a trainable parameter and reaches an output."""
        return self.depends[node] != 0 and node in self.relevant

    def names(self, mask: int) -> tuple[str, ...]:
        """Parameter names of a mask, in registration order."""
        return tuple(name for i, name in enumerate(self.parameters) if mask >> i & 1)


def annotate(graph: Graph) -> Annotated:
    """Look up every operator and propagate dependence on trainable parameters.

    Args:
        graph: a captured model; ``graph.trainable`` names the coordinates of w.

    Returns:
        The annotated graph. Unknown operators are annotated as UNKNOWN, never skipped.
    """
    bit = {node: 1 << i for i, node in enumerate(graph.trainable)}
    shapes = {n.id: n.shape for n in graph.nodes}
    dtypes = {n.id: n.dtype for n in graph.nodes}
    symbols = {n.id: n.symbols for n in graph.nodes}
    semantics: list[OpSemantics] = []
    depends: list[int] = []
    constants: dict[int, float | None] = {}
    lower: dict[int, float] = {}
    infinite: set[int] = set()
    masks: set[int] = set()
    for node, sources in zip(graph.nodes, graph.inputs_of, strict=True):
        call = Call(node.op, node.arguments, shapes, dtypes, constants, node.shape, lower, node.dtype, symbols)
        facts = _semantics_of(node, call, semantics)
        mask = bit.get(node.id, 0)
        if facts.kind is not Kind.CONSTANT:
            for source in _valued(node, sources):
                mask |= depends[source]
        semantics.append(facts)
        depends.append(mask)
        if mask == 0:
            constants[node.id] = _uniform_value(node, call)
        if _may_hold_infinity(node, facts, call, sources, infinite):
            infinite.add(node.id)
        if _may_be_a_mask(node, facts, sources, masks):
            masks.add(node.id)
        bound = _lower_bound(node, facts, call, sources, lower)
        if bound == POSITIVE and any(s in infinite or s in masks for s in sources):
            bound = 0.0  # exp(-inf) is 0
        if math.isfinite(bound) and bound != POSITIVE:  # an epsilon may be rounded away
            bound = min(bound, as_held(bound, node.dtype) or 0.0)
        if node.dtype == "bool":
            bound = min(bound, 1.0)
        if bound > -math.inf:
            lower[node.id] = bound
    for node_id in mixed_orders(graph, semantics):
        semantics[node_id] = replace(_MIXED, normalisation=semantics[node_id].normalisation)
    for node_id in graph.overwritten:
        if _saves(semantics[node_id], graph.inputs_of[node_id]):
            semantics[node_id] = replace(_OVERWRITTEN, normalisation=semantics[node_id].normalisation)
    return Annotated(graph, tuple(graph.trainable.values()), tuple(semantics), tuple(depends), constants, lower,
                     _relevant(graph, semantics))  # fmt: skip


def _semantics_of(node: Node, call: Call, before: list[OpSemantics]) -> OpSemantics:
    if node.op in _LEAVES:
        return _LEAF
    if node.op == "fxcheck.running_statistics":
        return _UPDATED
    if node.op == "fxcheck.strided_outside":
        return _OUTSIDE
    if node.op == "fxcheck.view_write":
        return _KEEP
    if node.op == "fxcheck.getitem":
        parent = before[node.arguments["self"].id]
        if node.arguments["index"] in parent.discrete_outputs:
            return _INDEX_OUTPUT
        return _CUT_OUTPUT if node.arguments["index"] in parent.cut_outputs else _KEEP
    return registry.lookup(call)


def _saves(facts: OpSemantics, operands: tuple[int, ...]) -> bool:
    """Its gradient may need an operand or the result, as that of a sum, a view or a constant does not."""
    if facts.kind in (Kind.CONSTANT, Kind.BREAKING, Kind.UNKNOWN) or facts.transfer is Transfer.ADD:
        return False
    return facts.kind is not Kind.STRUCTURAL or len(operands) > 1


def _valued(node: Node, sources: tuple[int, ...]) -> tuple[int, ...]:
    """The nodes whose values a node reads."""
    template = node.arguments.get(_GIVES_NO_VALUE.get(node.op, ""))
    if not isinstance(template, Ref) or node.arguments.get("self") == template:
        return sources
    return tuple(s for s in sources if s != template.id)


def _base(node: Node) -> str:
    """The name of torch's operator; empty for others."""
    return node.op.split(".")[1] if node.op.startswith("aten.") else ""


def _uniform_value(node: Node, call: Call) -> float | None:
    """The number that all entries equal, as the node's dtype holds it."""
    if node.op == "fxcheck.constant":
        return node.arguments.get("value")
    base = _base(node)
    if base.startswith(("zeros", "new_zeros")):
        return 0.0
    if base.startswith(("ones", "new_ones")):
        return 1.0
    if base in _UNIFORM_FACTORIES:
        return as_held(call.number(_UNIFORM_FACTORIES[base]), node.dtype)
    same = base in _SAME_UNIFORM_VALUE and node.op != "aten.view.dtype"
    return as_held(call.number("self"), node.dtype) if same else None


def as_held(value: float | None, dtype: str | None) -> float | None:
    """A number after conversion to a dtype: truncated for integers, rounded for floats."""
    kind = getattr(torch, dtype or "", None)
    if value is None or not isinstance(kind, torch.dtype):
        return None
    try:
        return float(torch.tensor(value, dtype=torch.float64).to(kind))
    except (RuntimeError, TypeError, ValueError):
        return None


_BOUNDED = frozenset({"sigmoid", "tanh", "softmax", "_softmax", "erf", "sin", "cos", "atan", "hardsigmoid", "hardtanh",
                      "relu6", "nan_to_num", "softsign"})  # fmt: skip
_FINITE_KINDS = (Kind.STRUCTURAL, Kind.LINEAR, Kind.KINKED, Kind.MAX, Kind.ORDER_STATISTIC, Kind.CONSTANT, Kind.SHARED_WEIGHTS)
_FINITE = _BOUNDED | frozenset({
    "exp", "exp2", "special_exp2", "expm1", "special_expm1", "special_expit", "cosh", "sinh", "asinh", "arcsinh", "arctan",
    "gelu", "silu", "mish", "glu", "elu", "celu", "selu", "softplus", "log_sigmoid", "log_sigmoid_forward", "special_erf",
    "erfc", "special_erfc", "special_erfcx", "special_ndtr", "special_log_ndtr", "sinc", "special_sinc", "i0", "special_i0",
    "special_i1", "special_i1e", "logaddexp", "logaddexp2", "square", "sqrt", "acos", "arccos", "asin", "arcsin", "hypot",
    "atan2", "arctan2", "special_entr", "special_softmax", "log_softmax", "_log_softmax", "special_log_softmax",
    "_safe_softmax", "prod", "cumprod", "logcumsumexp", "linalg_vector_norm", "norm", "frobenius_norm", "norm_except_dim",
    "cdist", "dist", "pdist", "pairwise_distance", "cosine_similarity", "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math", "lstm", "gru", "rnn_tanh", "lstm_cell", "gru_cell", "rnn_tanh_cell", "mse_loss",
    "smooth_l1_loss", "huber_loss", "detach", "alias", "floor", "ceil", "round", "trunc", "sign", "grid_sampler",
})  # fmt: skip
"""Operators of finite numbers that return finite numbers, beside those of the kinds above that divide by nothing."""


def _may_hold_infinity(
    node: Node, facts: OpSemantics, call: Call, sources: tuple[int, ...], infinite: set[int]
) -> bool:
    """Entries may be infinite by construction, as in an attention mask; weights are taken as finite."""
    if node.op in ("fxcheck.buffer", "fxcheck.constant"):
        return call.constants.get(node.id) is None and is_floating(node.dtype)
    if any(isinstance(a, float) and math.isinf(a) for a in node.arguments.values()):
        return True
    value = call.constants.get(node.id)
    if value is not None:
        return math.isinf(value)
    base = _base(node)
    if base in _BOUNDED or is_integral(node.dtype):
        return False
    if base in ("clamp", "clip") and call.number("min") is not None and call.number("max") is not None:
        return False
    if facts.normalisation is not None:
        return any(s in infinite for s in _unnormalised(node, sources))
    keeps = base in _FINITE or (facts.kind in _FINITE_KINDS and facts.transfer is not Transfer.DIVIDE)
    return any(s in infinite for s in sources) or not (keeps or _is_off_pole(base, call))


def _unnormalised(node: Node, sources: tuple[int, ...]) -> tuple[int, ...]:
    """What a normalisation reads but its running statistics, and without its operand where it takes the statistics of that.

    Running statistics are taken as finite, as weights are.
    """
    fixed = "no_training" in node.op or not node.arguments.get("training", node.arguments.get("use_input_stats", True))
    names = {"running_mean", "running_var"} | (set() if fixed else {"input"})
    left_out = {a.id for n, a in node.arguments.items() if n in names and isinstance(a, Ref)}
    return tuple(s for s in sources if s not in left_out)


_CLAMPS = ("aten.clamp_min.", "aten.clamp.")
_OF_MASKS = ("amax", "max", "cummax", "log_softmax", "_log_softmax", "special_log_softmax", "logsumexp", "logcumsumexp")
"""Operators over several entries that a mask goes through."""
OF_ENTRIES = (Transfer.KEEP, Transfer.PAD, Transfer.ADD, Transfer.MULTIPLY, Transfer.DIVIDE)
"""Each entry of the result is made of entries at one place of the operands."""


def _may_be_a_mask(node: Node, facts: OpSemantics, sources: tuple[int, ...], masks: set[int]) -> bool:
    """An input that is added to something may hold -inf; one that meets a matrix of weights is taken as finite."""
    if node.op == "fxcheck.input":
        return is_floating(node.dtype)
    base = _base(node)
    keeps = facts.elementwise or facts.transfer in OF_ENTRIES or facts.transfer is Transfer.DROPOUT or base in _OF_MASKS
    return keeps and base not in ("abs", "square", "pow") and any(s in masks for s in sources)


def _is_off_pole(base: str, call: Call) -> bool:
    """The operand that the operator divides by, or takes a logarithm of, is a known number or provably positive.

    A bound says nothing about how small a value may be, but 1/x of a finite x > 0 is finite.
    """
    if base in ("div", "true_divide", "divide"):
        return call.number("other") not in (None, 0.0) or call.lower_bound("other") > 0
    if base == "var":
        sizes, correction = reduced_sizes(call, dim=call.arg("dim")), scalar_of(call, "correction", 1.0)
        return sizes is not None and correction is not None and math.prod(sizes) > correction
    if base in ("pow", "float_power"):
        exponent = call.number("exponent")
        return exponent is not None and (exponent >= 0 or call.lower_bound("self") > 0)
    return base in ("log", "log2", "log10", "rsqrt", "reciprocal") and call.lower_bound("self") > 0


def _lower_bound(
    node: Node, facts: OpSemantics, call: Call, sources: tuple[int, ...], lower: dict[int, float]
) -> float:
    value = call.constants.get(node.id)
    if value is not None:
        return value
    if _may_wrap(node, facts, call, sources):
        return -math.inf
    known = -math.inf
    if facts.positive:
        known = POSITIVE
    elif facts.nonnegative:
        known = 0.0
    return max(known, _inherited_bound(node, facts, call, sources, lower))


def _may_wrap(node: Node, facts: OpSemantics, call: Call, sources: tuple[int, ...]) -> bool:
    """Whether an operator may leave the range of its integer dtype; sums in int64 are taken not to."""
    if not _is_integer(node.dtype) or facts.kind is Kind.MAX or node.op.startswith(_CLAMPS):
        return False
    if facts.transfer in (Transfer.ADD, Transfer.AVERAGE):
        return node.dtype != "int64"
    kept = facts.transfer in (Transfer.KEEP, Transfer.PAD)
    return not kept or any(not _holds(node.dtype, call.dtypes.get(s)) for s in sources)


def _holds(dtype: str | None, source: str | None) -> bool:
    """Whether an integer dtype holds all numbers of another one."""
    return source in (dtype, "bool") or (dtype == "int64" and _is_integer(source) and source != "uint64")


def _is_integer(dtype: str | None) -> bool:
    return is_integral(dtype) and dtype != "bool"


def _inherited_bound(
    node: Node, facts: OpSemantics, call: Call, sources: tuple[int, ...], lower: dict[int, float]
) -> float:
    bounds = [lower.get(s, -math.inf) for s in sources]
    if not bounds:
        return -math.inf
    floor = call.number("min") if node.op.startswith(_CLAMPS) else None
    if floor is not None:
        return floor if call.arg("max") is None else min(floor, call.lower_bound("max"))
    match facts.transfer:
        case Transfer.KEEP:
            return min(bounds)
        case Transfer.PAD | Transfer.DROPOUT:
            return 0.0 if min(bounds) >= 0 and not call.arg("value") else -math.inf
        case Transfer.AVERAGE:
            return min(min(bounds), POSITIVE) if min(bounds) >= 0 else -math.inf
        case Transfer.ADD:
            return _sum_bound(node, facts, call)
        case Transfer.MULTIPLY:
            return _product_bound(node, call)
    if facts.kind is Kind.MAX and not node.op.startswith(("aten.min", "aten.amin", "aten.fmin", "aten.aminmax")):
        return min(bounds)
    return -math.inf


def _tensor_or_number(call: Call, name: str) -> bool:
    value = call.arg(name)
    return isinstance(value, (Ref, int, float)) and not isinstance(value, bool)


def _sum_bound(node: Node, facts: OpSemantics, call: Call) -> float:
    names = [n for n in ("self", "other") if _tensor_or_number(call, n)]
    scales = facts.scales or (1.0,) * len(names)
    if len(scales) != len(names) or any(s <= 0 for s in scales):
        return -math.inf
    bounds = [call.lower_bound(n) for n in names]
    terms = [s * b for s, b in zip(scales, bounds, strict=True)]
    if min(terms) == -math.inf:
        return -math.inf
    least = POSITIVE if max(bounds) > 0 else 0.0
    total = sum(terms) - _rounding(node.dtype) * max(map(abs, terms))
    return max(total, least) if min(bounds) >= 0 else total


def _rounding(dtype: str | None) -> float:
    """More than what rounding takes from a sum whose terms cancel, relative to the largest of them."""
    kind = getattr(torch, dtype or "", torch.half)
    return 8 * torch.finfo(kind).eps if kind.is_floating_point else 0.0


def _product_bound(node: Node, call: Call) -> float:
    left, right = node.arguments.get("self"), node.arguments.get("other")
    if isinstance(left, Ref) and left == right:
        return POSITIVE if call.lower_bound("self") > 0 else 0.0
    low_left, low_right = (_held_bound(call, name, node.dtype) for name in ("self", "other"))
    if min(low_left, low_right) < 0:
        return -math.inf
    return POSITIVE if min(low_left, low_right) > 0 else 0.0


def _held_bound(call: Call, name: str, dtype: str | None) -> float:
    """A bound of an operand, or a number as the dtype holds it."""
    number = call.arg(name)
    if isinstance(number, Ref):
        return call.lower_bound(name)
    held = as_held(call.lower_bound(name), dtype)
    return -math.inf if held is None else held


def _relevant(graph: Graph, semantics: list[OpSemantics]) -> frozenset[int]:
    seen: set[int] = set()
    stack = list(graph.outputs)
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if semantics[current].kind is not Kind.CONSTANT:
            stack.extend(graph.inputs_of[current])
    return frozenset(seen)
