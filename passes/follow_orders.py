"""Look: in which order operands and gradients lie in memory, for operators whose backward depends on it (theory 4.3)."""

from __future__ import annotations

from collections.abc import Sequence

from fxcheck.records.graph import Graph, Node, Ref
from fxcheck.records.semantics import OpSemantics, Order

_VIEWS = frozenset({
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "select", "slice", "narrow", "split", "chunk",
    "split_with_sizes", "unbind", "stack",
})  # fmt: skip
"""Strides of sizes 1 are those of the result, not those that torch gives a new tensor."""
_ENTRIES = frozenset({"cat", "dropout", "feature_dropout", "pad", "constant_pad_nd", "getitem", "view_write"})
"""As operators that act entry by entry: the result lies as the operands do, the gradient as the result's."""
_MAPS = frozenset({
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution",
    "_convolution", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "batch_norm", "native_batch_norm", "group_norm", "reflection_pad2d", "replication_pad2d",
})  # fmt: skip
"""Kernels that know two orders, and give result and gradient that of their operands."""
_RESIZED = frozenset({"upsample_nearest2d", "upsample_bilinear2d", "upsample_nearest3d", "upsample_trilinear3d"})
"""The same, but the gradient lies as that of the result."""
_ROWS = frozenset({"layer_norm", "rms_norm", "instance_norm", "softmax", "log_softmax"})
"""They compute row by row, forward and backward."""
_PRODUCTS = frozenset({"linear", "matmul", "addmm", "mm", "bmm"})
"""The result lies row by row, the gradient as the operand does."""
_REDUCTIONS = frozenset({"mean", "sum", "amax", "logsumexp"})
"""The gradient is that of the result, repeated."""


def mixed_orders(graph: Graph, semantics: Sequence[OpSemantics]) -> tuple[int, ...]:
    """Nodes whose operand or gradient may lie in memory in an order with which their backward is not the derivative.

    Inputs may lie in any order, and so may the gradients of outputs that a criterion outside of the graph hands back.
    What is not known to keep an order gives any.

    Args:
        graph: a captured model.
        semantics: facts by node; ``orders`` says what each backward copes with.
    """
    bound = [n for n in graph.nodes if semantics[n.id].orders != (Order.ANY, Order.ANY)]
    if not bound:
        return ()
    values = _values(graph, semantics)
    gradients = _gradients(graph, semantics, values)
    return tuple(n.id for n in bound if not _copes(n, semantics[n.id].orders, values, gradients))


def _copes(node: Node, orders: tuple[Order, Order], values: list[Order], gradients: list[Order]) -> bool:
    operand = node.arguments["input"]
    known = values[operand.id] if isinstance(operand, Ref) else Order.ANY
    return known <= orders[0] and gradients[node.id] <= orders[1]


def _values(graph: Graph, semantics: Sequence[OpSemantics]) -> list[Order]:
    """For each node the orders in which its value may lie."""
    found: list[Order] = []
    for node, sources in zip(graph.nodes, graph.inputs_of, strict=True):
        found.append(Order.ROWS if _has_one_order(node) else _value(node, graph, semantics, [found[s] for s in sources]))
    return found


def _value(node: Node, graph: Graph, semantics: Sequence[OpSemantics], operands: list[Order]) -> Order:
    name = _name(node)
    widest = max(operands, default=Order.ROWS)
    if name in ("parameter", "buffer", "constant"):
        return Order.ANY if node.id in graph.scattered else Order.ROWS
    if name in _ROWS or name in _PRODUCTS:
        return Order.ROWS
    if name in _MAPS or name in _RESIZED:
        return min(widest, Order.CHANNELS_LAST)
    if name in _VIEWS or name in _REDUCTIONS:
        return Order.ROWS if widest == Order.ROWS or _is_a_row_each(node, graph) else Order.ANY
    if name in _ENTRIES or (semantics[node.id].elementwise and not _is_told_an_order(node)):
        return widest
    return Order.ANY


def _gradients(graph: Graph, semantics: Sequence[OpSemantics], values: list[Order]) -> list[Order]:
    """For each node the orders in which the gradient of its value may lie."""
    found = [Order.ROWS] * len(graph.nodes)
    for node in reversed(graph.nodes):
        users = (graph.nodes[u] for u in graph.users_of[node.id])
        handed = [_gradient(u, graph, semantics, found[u.id], _widest(graph, u, values)) for u in users]
        if node.id in graph.outputs:
            handed.append(Order.ANY)
        found[node.id] = Order.ROWS if _has_one_order(node) else max(handed, default=Order.ROWS)
    return found


def _gradient(user: Node, graph: Graph, semantics: Sequence[OpSemantics], given: Order, operands: Order) -> Order:
    """Of an operand of ``user``: from the gradient that it is given, and its operands as they lie."""
    name = _name(user)
    if name in _ROWS:
        return Order.ROWS
    if name in _PRODUCTS:
        return operands
    if name in _MAPS:
        return min(operands, Order.CHANNELS_LAST)
    if name in _RESIZED:
        return min(given, Order.CHANNELS_LAST)
    if name in _VIEWS or name in _REDUCTIONS:
        return Order.ROWS if given == Order.ROWS or _is_a_row_each(user, graph) else Order.ANY
    if name in _ENTRIES or semantics[user.id].elementwise:
        return max(given, operands)
    return Order.ANY


def _widest(graph: Graph, node: Node, values: list[Order]) -> Order:
    return max((values[s] for s in graph.inputs_of[node.id]), default=Order.ROWS)


def _has_one_order(node: Node) -> bool:
    """At most one size is not 1."""
    shape = node.shape
    return shape is not None and not node.is_free and sum(size != 1 for size in shape) <= 1


def _is_a_row_each(node: Node, graph: Graph) -> bool:
    """Of each sample's channels and positions one dimension is left: in no order of it do channels lie last."""
    operand = node.arguments.get("self")
    before = graph.nodes[operand.id].shape if isinstance(operand, Ref) else None
    after = node.shape
    return before is not None and after is not None and len(before) > len(after) == 2 and before[0] == after[0]


def _is_told_an_order(node: Node) -> bool:
    return node.arguments.get("memory_format") is not None


def _name(node: Node) -> str:
    """``relu`` of ``aten.relu.default``."""
    return node.op.split(".")[1]
