"""Run graph nodes on real tensors: how a recognised chain is measured as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fxcheck.records.graph import Node, Ref


def overload(op: str) -> Any:
    """The ATen overload of a name such as ``aten.relu.default``; None where this torch has none."""
    namespace, _, rest = op.partition(".")
    name, _, variant = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace, None), name, None)
    return getattr(packet, variant, None) if packet is not None else None


def chain_function(nodes: Sequence[Node], root: int, constants: dict[int, float]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The chain as a function of its root.

    Args:
        nodes: in execution order; the last one is the result.
        root: the node whose value is the function's argument.
        constants: values of nodes outside the chain whose entries are all equal.

    Returns:
        A function from a tensor of any shape to a tensor of the same shape.

    Raises:
        KeyError: the chain reads a node that is neither in it, nor the root, nor a known constant.
    """

    def run(x: torch.Tensor) -> torch.Tensor:
        values: dict[int, Any] = {root: x}
        for node in nodes:
            arguments = {n: _value(a, values, constants, x) for n, a in node.arguments.items()}
            values[node.id] = _call(node, arguments)
        return values[nodes[-1].id]

    return run


def _value(argument: Any, values: dict[int, Any], constants: dict[int, float], like: torch.Tensor) -> Any:
    if isinstance(argument, Ref):
        if argument.id in values:
            return values[argument.id]
        return torch.full((), constants[argument.id], dtype=like.dtype, device=like.device)
    if isinstance(argument, tuple):
        return [_value(a, values, constants, like) for a in argument]
    return argument


def _call(node: Node, arguments: dict[str, Any]) -> Any:
    function = overload(node.op)
    schema = function._schema.arguments
    positional = [arguments[a.name] for a in schema if not a.kwarg_only and a.name in arguments]
    named = {a.name: arguments[a.name] for a in schema if a.kwarg_only and a.name in arguments}
    return function(*positional, **named)
