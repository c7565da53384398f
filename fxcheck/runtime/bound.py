"""A module of torch.fx whose forward has its operators, its tensors and who observes them at hand.

What torch.fx writes finds each operator by four attributes, and comes to it through a frame of Python, to each parameter through
a frame at each module on the way, and to the collector through one at each check; in a network of many small operators that
takes as long as the checks.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import Tensor, fx
from torch._ops import OpOverload

from fxcheck.ops.observe import observe, observer
from fxcheck.passes.insert_checks import SEEN


def bound(module: fx.GraphModule) -> Callable[..., Any]:
    """What ``module.forward`` computes, by the same code in which operators, parameters and buffers have names of their own.

    Operators of torch are called as ``OpOverload.__call__`` does (torch 2.9 to 2.14).

    Args:
        module: its forward is the code that torch.fx has written for its graph. Its parameters and buffers are to stay the same
            objects.
    """
    names = {**type(module).forward.__globals__, "_observer": observer}
    tree = ast.parse(module.code.strip())
    if SEEN in module._buffers:
        tree.body[0].body[:0] = ast.parse(f"_observe = _observer(self.{SEEN})").body  # type: ignore[attr-defined]
    tree = _AtHand(names, module).visit(tree)
    exec(compile(ast.fix_missing_locations(tree), f"<operators of {type(module).__name__}>", "exec"), names)
    return MethodType(names["forward"], module)


class _AtHand(ast.NodeTransformer):
    """Puts names in the place of ``torch.ops.aten.relu.default``, ``self.layer.weight`` and ``observe``."""

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

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and self.names.get(node.func.id) is observe:
            node = ast.copy_location(ast.Call(ast.Name("_observe", ast.Load()), node.args[1:], []), node)
        return self.generic_visit(node)

    def _value(self, node: ast.AST) -> Any:
        """Of an attribute of something in torch or of the module; None for anything else."""
        if isinstance(node, ast.Attribute):
            return getattr(self._value(node.value), node.attr, None)
        return self.roots.get(node.id) if isinstance(node, ast.Name) else None
