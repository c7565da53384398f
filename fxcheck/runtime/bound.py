"""A module of torch.fx whose forward has its operators and tensors at hand.

What torch.fx writes finds each operator by four attributes, and comes to it through a frame of Python, and each parameter through
a frame at each module on the way; in a network of many small operators that takes as long as the checks.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import Tensor, fx
from torch._ops import OpOverload


def bound(module: fx.GraphModule) -> Callable[..., Any]:
    """What ``module.forward`` computes, by the same code in which operators, parameters and buffers have names of their own.

    Operators of torch are called as ``OpOverload.__call__`` does (torch 2.9 to 2.14).

    Args:
        module: its forward is the code that torch.fx has written for its graph. Its parameters and buffers are to stay the same
            objects.
    """
    names = dict(type(module).forward.__globals__)
    tree = _AtHand(names, module).visit(ast.parse(module.code.strip()))
    exec(compile(ast.fix_missing_locations(tree), f"<operators of {type(module).__name__}>", "exec"), names)
    return MethodType(names["forward"], module)


class _AtHand(ast.NodeTransformer):
    """Puts names in the place of ``torch.ops.aten.relu.default`` and ``self.layer.weight``."""

    def __init__(self, names: dict[str, Any], module: fx.GraphModule) -> None:
        self.names = names
        self.roots = {"torch": names.get("torch"), "self": module}

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        found = self._value(node)
        if not isinstance(found, (OpOverload, Tensor)):
            return node
        name = f"_at_{id(found)}"
        self.names[name] = found._op if isinstance(found, OpOverload) and found.namespace == "aten" else found
        return ast.copy_location(ast.Name(name, ast.Load()), node)

    def _value(self, node: ast.AST) -> Any:
        """Of an attribute of something in torch or of the module; None for anything else."""
        if isinstance(node, ast.Attribute):
            return getattr(self._value(node.value), node.attr, None)
        return self.roots.get(node.id) if isinstance(node, ast.Name) else None
