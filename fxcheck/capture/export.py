"""Capture by ``torch.export``: training IR, non-strict, no decompositions, on fake tensors."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from fxcheck.capture.failure import explain_failure
from fxcheck.capture.hidden import recording, standing_hooks
from fxcheck.errors import CaptureError, FxcheckError, UsageError
from fxcheck.records.finding import Diagnostic

_WRAPPED = "model"
SAME_AS_OUTPUT = object()
"""Stands for a target with the shape and dtype of the model's output."""


@dataclass(frozen=True)
class Captured:
    """An exported model, and what its graph does not show."""

    program: ExportedProgram
    parameters: Mapping[str, nn.Parameter]
    """The original parameters by the names that the program uses (tied names all listed)."""
    hidden: tuple[Diagnostic, ...]
    """Custom autograd Functions and hooks met while capturing."""
    mode: str
    batch_dynamic: bool
    smooth_criterion: bool
    strip_prefix: str = ""
    """Put before the user's names by the wrapper around model and loss."""


class _WithLoss(nn.Module):
    """The model followed by its criterion."""

    def __init__(self, model: nn.Module, loss: Callable[..., Any], has_target: bool) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.has_target = has_target

    def forward(self, inputs: tuple[Any, ...], keywords: dict[str, Any], target: Any = None) -> Any:
        output = self.model(*inputs, **keywords)
        return self.loss(output, target) if self.has_target else self.loss(output)


def capture(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, *, mode: str = "train",
    loss: Callable[..., Any] | None = None, target: Any = None,
) -> Captured:  # fmt: skip
    """Export a model (with its loss) and leave it as it was.

    Args:
        model: any module that torch.export captures.
        args: example inputs; only shapes, dtypes and devices matter.
        kwargs: example keyword inputs.
        mode: ``train``, ``eval`` or ``keep`` (each submodule's flag as it is).
        loss: from the output, or from (output, target) when a target is given, to a scalar.
        target: example target.

    Returns:
        The captured program.

    Raises:
        CaptureError: the forward raised, or cannot be captured.
        FxcheckError: the model holds non-finite parameters, or returns nothing that has a gradient.
    """
    if mode not in ("train", "eval", "keep"):
        raise UsageError(f"unknown mode {mode!r}: wanted train, eval or keep", hint="pass --mode train")
    _refuse_non_finite(model)
    with _left_as_it_was(model):
        if mode != "keep":
            model.train(mode == "train")
        if target is SAME_AS_OUTPUT:
            target = _like_output(model, args, dict(kwargs or {}))
        wrapped, call_args, prefix = _with_loss(model, args, dict(kwargs or {}), loss, target)
        hooks = standing_hooks(model)
        with recording(model) as recorded, _quiet():
            program, dynamic = _export(wrapped, call_args, dict(kwargs or {}) if loss is None else {})
    _refuse_without_gradient(program, loss is not None)
    parameters = dict(wrapped.named_parameters(remove_duplicate=False))
    return Captured(program, parameters, (*hooks, *recorded), mode, dynamic, loss is None, prefix)


def captured_archive(program: ExportedProgram) -> Captured:
    """An archive made by ``torch.export.save``: its mode is baked in.

    Raises:
        CaptureError: the program was decomposed, so its kink gradients are not those of the model (FX605).
    """
    if program.dialect != "TRAINING":
        raise CaptureError(
            f"the archive holds a program in the {program.dialect} dialect, whose decompositions change derivatives at "
            "kinks", code="FX605", hint="save the result of torch.export.export without run_decompositions",
        )  # fmt: skip
    _refuse_without_gradient(program, False)
    return Captured(program, dict(program.named_parameters()), (), "exported", False, True)  # type: ignore[arg-type]


def _with_loss(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], loss: Callable[..., Any] | None, target: Any
) -> tuple[nn.Module, tuple[Any, ...], str]:
    if loss is None:
        return model, args, ""
    wrapped = _WithLoss(model, loss, target is not None)
    wrapped.training = model.training
    inputs = (args, kwargs) if target is None else (args, kwargs, target)
    return wrapped, inputs, _WRAPPED + "."


def _like_output(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A target shaped like the output, found by a capture of the model alone."""
    with _quiet():
        program, _ = _export(model, args, kwargs)
    values = [n.meta.get("val") for n in program.graph.output_node().args[0] if isinstance(n, torch.fx.Node)]
    mutated = len(program.graph_signature.buffers_to_mutate)
    first = next((v for v in values[mutated:] if isinstance(v, torch.Tensor)), None)
    if first is None:
        raise UsageError("the model returns no tensor to shape the loss's target after", hint="pass --target SHAPE")
    sizes = [getattr(getattr(s, "node", None), "hint", s) for s in first.shape]
    return torch.zeros([int(s) for s in sizes], dtype=first.dtype, device=first.device)


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[ExportedProgram, bool]:
    args, kwargs = torch.utils._pytree.tree_map(_to_device(model), (args, kwargs))
    dynamic = torch.utils._pytree.tree_map(_batch_dimension, (args, kwargs))
    attempts: list[Any] = [({**dict(zip(_positional(model, args), dynamic[0], strict=False)), **dynamic[1]})
                           if kwargs else dynamic[0], None]  # fmt: skip
    failure: Exception | None = None
    for shapes in attempts:
        try:
            program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
            return program, shapes is not None and _has_symbol(program)
        except Exception as error:
            failure = failure or error
    assert failure is not None
    raise explain_failure(failure) from failure


def _positional(model: nn.Module, args: tuple[Any, ...]) -> list[str]:
    import inspect

    return list(inspect.signature(model.forward).parameters)[: len(args)]


def _batch_dimension(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return None
    return {0: Dim.AUTO} if value.dim() > 0 and value.shape[0] > 1 else None


def _to_device(model: nn.Module) -> Callable[[Any], Any]:
    """Inputs follow the model to its device; only their shapes and dtypes matter."""
    first = next(iter(model.parameters()), next(iter(model.buffers()), None))
    device = torch.device("cpu") if first is None else first.device

    def move(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.device == device:
            return value
        if value.is_meta:
            return torch.zeros(value.shape, dtype=value.dtype, device=device)
        return value.to(device) if device.type == "meta" else value

    return move


def _has_symbol(program: ExportedProgram) -> bool:
    names = set(program.graph_signature.user_inputs)
    inputs = (n for n in program.graph.nodes if n.op == "placeholder" and n.name in names)
    first = next((n.meta["val"] for n in inputs if isinstance(n.meta.get("val"), torch.Tensor)), None)
    return first is not None and first.dim() > 0 and not isinstance(first.shape[0], int)


# What may not be captured ---------------------------------------------------------------------


def _refuse_non_finite(model: nn.Module) -> None:
    bad = [
        name for name, p in model.named_parameters()
        if not p.is_meta and (p.is_floating_point() or p.is_complex()) and not bool(torch.isfinite(p).all())
    ]  # fmt: skip
    if bad:
        names = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise FxcheckError(
            f"the model holds NaN or infinite weights ({names}); non-finite numbers have no subgradient",
            hint="load or initialise the weights first",
        )


def _refuse_without_gradient(program: ExportedProgram, is_loss: bool) -> None:
    outputs = [n for n in program.graph.output_node().args[0] if isinstance(n, torch.fx.Node)]
    mutated = set(program.graph_signature.buffers_to_mutate) | set(program.graph_signature.user_inputs_to_mutate)
    tensors = [n.meta.get("val") for n in outputs if n.name not in mutated]
    values = [v for v in tensors if isinstance(v, torch.Tensor)]
    if any(v.is_complex() for v in values):
        raise FxcheckError(
            "the model returns complex tensors; the theory is about real functions",
            hint="return torch.view_as_real(output), or the real criterion through --loss",
        )
    if not any(v.is_floating_point() for v in values):
        found = ", ".join(str(v.dtype) for v in values) or "no tensor"
        raise FxcheckError(
            f"the model returns no floating-point tensor (found {found}), so there is no gradient to check",
            hint="return the scores before argmax or rounding",
        )
    if is_loss and not (len(values) == 1 and values[0].numel() == 1 and values[0].dim() == 0):
        shapes = ", ".join(str(tuple(v.shape)) for v in values)
        raise FxcheckError(f"the loss returns shape {shapes}; wanted one scalar", hint="reduce it with mean() or sum()")


# Leaving the model alone ------------------------------------------------------------------------


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Restore training flags, buffers, parameters' flags and gradients, plain attributes and the RNG state."""
    flags = [(m, m.training) for m in model.modules()]
    tensors = [(m, dict(m._buffers), dict(m._parameters)) for m in model.modules()]
    contents = [(b, b.clone()) for b in model.buffers() if not b.is_meta]
    state = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    plain = [(m, _plain_attributes(m)) for m in model.modules()]
    rng = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(rng)
        for module, training in flags:
            module.training = training
        for module, buffers, parameters in tensors:
            module._buffers.clear()
            module._buffers.update(buffers)
            module._parameters.clear()
            module._parameters.update(parameters)
        with torch.no_grad():
            for buffer, before in contents:
                if not _same_bits(buffer, before):
                    buffer.copy_(before)
        for parameter, requires_grad, grad in state:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
        for module, attributes in plain:
            _restore_plain(module, attributes)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(torch.nan_to_num(a) if a.is_floating_point() else a,
                       torch.nan_to_num(b) if b.is_floating_point() else b)  # fmt: skip


_SKIPPED = frozenset({"_parameters", "_buffers", "_modules", "training"})


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    saved = {}
    for name, value in module.__dict__.items():
        if name in _SKIPPED:
            continue
        shallow = isinstance(value, (list, dict, set)) and not name.startswith("_")
        saved[name] = copy.copy(value) if shallow else value
    return saved


def _restore_plain(module: nn.Module, before: dict[str, Any]) -> None:
    for name in [n for n in module.__dict__ if n not in before and n not in _SKIPPED]:
        del module.__dict__[name]
    module.__dict__.update(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's warnings and logs out of the user's way while capturing."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
