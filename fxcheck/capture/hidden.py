"""What a captured graph does not show: custom autograd Functions and backward hooks."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fxcheck.capture.origin import user_line
from fxcheck.records.finding import Diagnostic

_HARMLESS = ("torch.utils.checkpoint.", "torch.nn.utils.parametrize", "torch.autograd.function.", "torch._functorch",
             "torch._higher_order_ops")  # fmt: skip
_HOOK_HINT = "Remove the hook, or check by hand that it returns the gradient that it was given."


def standing_hooks(model: nn.Module) -> tuple[Diagnostic, ...]:
    """Backward hooks on modules and parameters, and global ones."""
    found = []
    for name, module in model.named_modules():
        if module._backward_hooks or getattr(module, "_backward_pre_hooks", None):
            found.append(_hook(f"module {name or 'model'!r} has a backward hook"))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (parameter._backward_hooks or _post_accumulate(parameter)):
            found.append(_hook(f"parameter {name!r} has a gradient hook"))
    shared = torch.nn.modules.module
    if shared._global_backward_hooks or shared._global_backward_pre_hooks:
        found.append(_hook("a global module backward hook is registered"))
    return tuple(found)


def _post_accumulate(parameter: torch.Tensor) -> bool:
    return bool(getattr(parameter, "_post_accumulate_grad_hooks", None))


def _hook(what: str, location: str = "") -> Diagnostic:
    return Diagnostic("FX505", f"{what}, which may change the gradient that AD computed", _HOOK_HINT, location)


@contextmanager
def recording(model: nn.Module) -> Iterator[list[Diagnostic]]:
    """Record custom Functions and tensor hooks applied to values that need gradients.

    Torch's own ``checkpoint`` is left out: it recomputes the same function.
    """
    found: list[Diagnostic] = []
    apply = torch.autograd.Function.__dict__["apply"]
    register = torch.Tensor.register_hook

    def recorded_apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        owner = f"{cls.__module__}.{cls.__qualname__}"
        if not owner.startswith(_HARMLESS) and not owner.startswith("torch.nn.modules._functions.BackwardHookFunction"):
            if torch.is_grad_enabled() and _needs_gradient(args, kwargs):
                found.append(_custom(cls))
        return apply.__get__(None, cls)(*args, **kwargs)

    def recorded_hook(self: torch.Tensor, hook: Any) -> Any:
        location, _ = user_line(_stack())
        found.append(_hook("a tensor hook is registered in the forward", location))
        return register(self, hook)

    torch.autograd.Function.apply = classmethod(recorded_apply)  # type: ignore[method-assign, assignment]
    torch.Tensor.register_hook = recorded_hook  # type: ignore[method-assign]
    try:
        yield found
    finally:
        torch.autograd.Function.apply = apply  # type: ignore[method-assign]
        torch.Tensor.register_hook = register  # type: ignore[method-assign]
        found[:] = dict.fromkeys(found)


def _needs_gradient(args: Any, kwargs: Any) -> bool:
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    return any(isinstance(v, torch.Tensor) and v.requires_grad for v in leaves)


def _stack() -> str:
    frames = traceback.extract_stack()[:-2]
    return "".join(f'File "{f.filename}", line {f.lineno}, in {f.name}\n  {f.line or ""}\n' for f in frames
                   if "fxcheck/capture" not in f.filename)  # fmt: skip


def _custom(cls: Any) -> Diagnostic:
    location, _ = user_line(_stack())
    return Diagnostic(
        "FX502", f"custom autograd Function {cls.__name__} has a backward of its own, which need not be the derivative "
        "of its forward", "Write the forward with ordinary operators, or accept that no theorem covers it.", location,
    )  # fmt: skip
