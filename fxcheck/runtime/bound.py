"""A module of torch.fx whose forward has its operators at hand.

What torch.fx writes finds each operator by four attributes, and comes to it through a frame of Python; in a network of many small
operators that takes as long as the checks.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import fx
from torch._ops import OpOverload


def bound(module: fx.GraphModule) -> Callable[..., Any]:
    """What ``module.forward`` computes, by the same code in which operators have names of their own.

    Operators of torch are called as ``OpOverload.__call__`` does (torch 2.9 to 2.14).

    Args:
        module: its forward is the code that torch.fx has written for its graph.
    """
    names = dict(type(module).forward.__globals__)
    tree = _Operators(names).visit(ast.parse(module.code.strip()))
    exec(compile(ast.fix_missing_locations(tree), f"<operators of {type(module).__name__}>", "exec"), names)
    return MethodType(names["forward"], module)


class _Operators(ast.NodeTransformer):
    """Puts names in the place of ``torch.ops.aten.relu.default``."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        found = self._value(node)
        if not isinstance(found, OpOverload):
            return node
        name = f"_{found.namespace}_{id(found)}"
        self.names[name] = found._op if found.namespace == "aten" else found
        return ast.copy_location(ast.Name(name, ast.Load()), node)

    def _value(self, node: ast.AST) -> Any:
        """Of an attribute of something in torch; None for anything else."""
        if isinstance(node, ast.Attribute):
            return getattr(self._value(node.value), node.attr, None)
        return self.names.get("torch") if isinstance(node, ast.Name) and node.id == "torch" else None
