"""Run a lowered graph on numbers, to compare it with the module that it came from."""

from __future__ import annotations

from typing import Any

import torch

from fxcheck.capture.export import Captured
from fxcheck.records.graph import Graph, Node, Ref

_VIEWS = ("select", "slice", "t", "transpose", "view", "detach", "unsqueeze", "permute", "expand", "alias", "reshape",
          "contiguous", "dropout")  # fmt: skip


def run(graph: Graph, captured: Captured, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """The values of the graph's outputs."""
    leaves = {name: p.detach() for name, p in captured.parameters.items()}
    leaves |= {name: b.detach() for name, b in captured.buffers.items()}
    leaves |= {name: c for name, c in captured.program.constants.items() if isinstance(c, torch.Tensor)}
    values: list[Any] = []
    given = iter(inputs)
    for node in graph.nodes:
        if node.op == "fxcheck.input":
            values.append(next(given).clone())
        elif node.op in ("fxcheck.parameter", "fxcheck.buffer", "fxcheck.constant"):
            values.append(leaves[node.arguments["name"]].clone())
        elif node.id not in graph.live:
            values.append(None)
        else:
            values.append(_evaluate(graph, node, values))
    return [values[i] for i in graph.outputs]


def _evaluate(graph: Graph, node: Node, values: list[Any]) -> Any:
    arguments = {k: _filled(v, values) for k, v in node.arguments.items()}
    if node.op == "fxcheck.getitem":
        return arguments["self"][arguments["index"]]
    if node.op == "fxcheck.view_write":
        base = arguments["self"].clone()
        view = _view_behind(graph, node.arguments["source"].id)
        operand = "self" if "self" in view.arguments else "input"
        seen = _call(view, {k: _filled(v, values) for k, v in view.arguments.items()} | {operand: base})
        seen.copy_(arguments["source"])
        return base
    result = _call(node, arguments)
    return result.clone() if isinstance(result, torch.Tensor) else result


def _view_behind(graph: Graph, written: int) -> Node:
    """The view through which an in-place operation wrote."""
    node = graph.nodes[written]
    while node.op.split(".")[1] not in _VIEWS:
        node = graph.nodes[node.arguments["self"].id]  # an earlier in-place result, or a rewritten inner view
    return node


def _call(node: Node, arguments: dict[str, Any]) -> Any:
    namespace, name, overload = node.op.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)(**arguments)


def _filled(value: Any, values: list[Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.id]
    if isinstance(value, str) and isinstance(getattr(torch, value, None), torch.dtype):
        return getattr(torch, value)
    if isinstance(value, tuple):
        return [_filled(v, values) for v in value]
    return value
