"""Run graph nodes on real tensors: how a recognised chain is measured as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fxcheck.records.graph import Node, Ref


def overload(op: str) -> Any:
    """The ATen overload of a name such as ``aten.relu.default``; None where this torch has none."""
    namespace, _, rest = op.partition(".")
    name, _, variant = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace, None), name, None)
    return getattr(packet, variant, None) if packet is not None else None


def apply_overload(op: str, arguments: Mapping[str, Any], like: Tensor) -> Any:
    """Call an overload by argument name; a number where the schema wants a tensor becomes a tensor full of it.

    Args:
        op: overload, as ``aten.clamp.default``.
        arguments: by schema name; dtypes, layouts, devices and memory formats as text.
        like: gives the shape, dtype and device of tensors made from numbers.
    """
    function = overload(op)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    skipped = False
    for argument in function._schema.arguments:
        if argument.name not in arguments:
            skipped = True
            continue
        value = _as_schema_wants(arguments[argument.name], str(argument.type), like)
        if argument.kwarg_only or skipped:
            named[argument.name] = value
        else:
            positional.append(value)
    return function(*positional, **named)


def chain_function(
    nodes: Sequence[Node], root: int, constants: Mapping[int, float]
) -> Callable[[Tensor], Tensor]:
    """The chain as a function of its root.

    Args:
        nodes: in execution order; the last one is the result.
        root: the node whose value is the function's argument.
        constants: values of nodes outside the chain whose entries are all equal.

    Returns:
        A function from a tensor of any shape to a tensor of the same shape. It raises KeyError when the chain reads
        a node that is neither in it, nor the root, nor a known constant.
    """

    def run(x: Tensor) -> Tensor:
        values: dict[int, Any] = {root: x}
        for node in nodes:
            arguments = {n: _value(a, values, constants, x) for n, a in node.arguments.items()}
            values[node.id] = apply_overload(node.op, arguments, x)
        return values[nodes[-1].id]

    return run


def _value(argument: Any, values: Mapping[int, Any], constants: Mapping[int, float], like: Tensor) -> Any:
    if isinstance(argument, Ref):
        if argument.id in values:
            return values[argument.id]
        return torch.full((), constants[argument.id], dtype=like.dtype, device=like.device)
    if isinstance(argument, tuple):
        return [_value(a, values, constants, like) for a in argument]
    return argument


def _as_schema_wants(value: Any, wanted: str, like: Tensor) -> Any:
    if wanted in ("Tensor", "Optional[Tensor]") and isinstance(value, (int, float)) and not isinstance(value, bool):
        return torch.full_like(like, value, requires_grad=False)
    if isinstance(value, str) and value.startswith("torch."):
        return getattr(torch, value.removeprefix("torch."))
    if isinstance(value, str) and value in ("float32", "float64", "float16", "bfloat16", "bool", "int64", "int32"):
        # A chain measured in float64 must not fall back to the model's dtype on the way.
        return like.dtype if value.startswith(("float", "bfloat")) else getattr(torch, value)
    return value
