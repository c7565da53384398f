"""Capture by ``torch.export``: training IR, non-strict, no decompositions, on fake tensors."""

from __future__ import annotations

import io
import logging
import pickle
import random
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from itertools import chain, count
from operator import is_
from typing import Any
from weakref import ProxyTypes

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram, ShapesCollection

from fxcheck.capture.failure import blaming_the_loss, explain_failure
from fxcheck.capture.held import (
    NAMED_PLACES,
    Criterion,
    attributes_of,
    base_of,
    is_object,
    items_of,
    modules_among,
    reached_from,
    reader_of,
    roots_of,
    storage_of,
)
from fxcheck.capture.hidden import (
    in_attributes,
    recording,
    shared_memory,
    standing_hooks,
    unless_drawn_alike,
    watching_attributes,
    watching_iterators,
    watching_numbers,
)
from fxcheck.capture.mentioned import CACHED, Scope
from fxcheck.capture.origin import OriginReader
from fxcheck.capture.unroll import UnrolledRecurrence
from fxcheck.errors import CaptureError, FxcheckError, InputError, UsageError
from fxcheck.records.finding import Diagnostic

_WRAPPED = "model"
_NUMBERS = ("number", "float", "Tensor")
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState)
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
    requires_grad: frozenset[str] = frozenset()
    """Names of the parameters that required gradients while the model ran, in the mode it ran in."""
    buffers: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """The original buffers by name."""
    read: tuple[torch.Tensor, ...] = ()
    """Tensors that are neither, whose entries the forward has turned into numbers."""


class _WithLoss(nn.Module):
    """The model followed by its criterion, under a name that no child of the model has: the model's prefix is stripped."""

    def __init__(self, model: nn.Module, loss: Callable[..., Any], has_target: bool) -> None:
        super().__init__()
        self.model = model
        self.name = next(n for n in chain(["loss"], map("loss_{}".format, count(1))) if n not in model._modules)
        setattr(self, self.name, loss)
        self.has_target = has_target

    def forward(self, inputs: tuple[Any, ...], keywords: dict[str, Any], target: Any = None) -> Any:
        output, loss = self.model(*inputs, **keywords), getattr(self, self.name)
        with blaming_the_loss():
            return loss(output, target) if self.has_target else loss(output)


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
    roots = roots_of(model, loss)
    for root in roots:
        _refuse_unready(root)
    _refuse_inference(roots, (args, kwargs, target))
    for root in roots:
        _refuse_non_finite(root)
    with left_as_it_was(nn.ModuleList(roots)):
        _set_mode(model, mode)
        if target is SAME_AS_OUTPUT:
            target = _like_output(model, args, dict(kwargs or {}))
        if loss is not None:
            _refuse_hidden_parameters(loss, model)
        wrapped, call_args, prefix = _with_loss(model, args, dict(kwargs or {}), loss, target)
        before = [hook for root in roots for hook in standing_hooks(root)]
        drawn = _generators(roots)
        with watching_numbers() as read:
            program, dynamic, recorded = _recorded(wrapped, call_args, dict(kwargs or {}) if loss is None else {})
        recorded = unless_drawn_alike(recorded, program)
        after = [hook for root in roots for hook in standing_hooks(root)]
        if drawn != _generators(roots):
            recorded.append(_draws_outside())
        parameters = dict(wrapped.named_parameters(remove_duplicate=False))
        wanted = frozenset(name for name, p in parameters.items() if p.requires_grad)
        buffers = dict(wrapped.named_buffers(remove_duplicate=False))
    _refuse_without_gradient(program, loss is not None)
    _refuse_traced_constants(program)
    _refuse_derived_constants(program)
    _refuse_unregistered_leaves(program, roots)
    _refuse_mixed_products(program)
    hidden = tuple(dict.fromkeys((*before, *after, *recorded, *shared_memory(roots))))
    return Captured(program, parameters, hidden, mode, dynamic, loss is None, prefix, wanted, buffers, tuple(read.values()))


def _generators(roots: Sequence[nn.Module]) -> list[Any]:
    """The states of the random numbers of Python and numpy, the global ones and those that modules hold."""
    reached = reached_from(("", m) for root in roots for m in root.modules())
    held = [v for _, v in reached if isinstance(v, _GENERATORS)]
    return [random.getstate(), pickle.dumps(np.random.get_state()), *map(pickle.dumps, held)]


def _draws_outside() -> Diagnostic:
    return Diagnostic(
        "FX603", "the forward draws random numbers of Python or numpy, and another draw may make another function",
        "Draw them with torch, or before the forward, and pass them in.",
    )  # fmt: skip


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
    parameters = dict(program.named_parameters())
    _refuse_non_finite_tensors(parameters.items())
    wanted = frozenset(name for name, p in parameters.items() if p.requires_grad)
    return Captured(program, parameters, (), "exported", False, True, "", wanted, dict(program.named_buffers()))


def _set_mode(model: nn.Module, mode: str) -> None:
    if mode == "train":
        model.train()
    elif mode == "eval":
        model.eval()


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


def _recorded(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[ExportedProgram, bool, list[Diagnostic]]:
    """The program, whether it serves any batch size, and what was met: as the model trains, or else as it is compiled."""
    asked: list[Diagnostic] = []
    try:
        with _watching(model, asked) as recorded:
            return (*_export(model, args, kwargs), recorded)
    except CaptureError:
        if not asked:  # to hear something else would change nothing
            raise
    with _watching(model, asked, compiled=True) as recorded:
        found = _export(model, args, kwargs)
    return (*found, [*recorded, *asked])


@contextmanager
def _watching(model: nn.Module, asked: list[Diagnostic], compiled: bool = False) -> Iterator[list[Diagnostic]]:
    """What the forward does that the program will not show, while it is being exported in silence."""
    with (
        recording(model, asked, compiled) as recorded, watching_attributes(model, recorded), watching_iterators(model, recorded),
        _quiet(), UnrolledRecurrence(),
    ):  # fmt: skip
        yield recorded


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[ExportedProgram, bool]:
    if any(isinstance(v, torch.Tensor) and v.is_nested for v in torch.utils._pytree.tree_leaves((args, kwargs))):
        raise InputError("an example input is a nested tensor, which torch.export does not capture",
                         hint="give a padded tensor, and a mask if the model takes one")  # fmt: skip
    args, kwargs = torch.utils._pytree.tree_map(_to_device(model), (args, kwargs))
    failure: Exception | None = None
    for is_fixed in (False, True):
        args, kwargs = torch.utils._pytree.tree_map(of_its_own, (args, kwargs))
        shapes = None if is_fixed else _dynamic_batch(args, kwargs)
        if shapes is None and not is_fixed:
            continue
        try:
            program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
            return program, shapes is not None and _holds_for_every_batch(program)
        except Exception as error:
            failure = error
    assert failure is not None
    raise explain_failure(failure) from failure


def of_its_own(value: Any) -> Any:
    """A tensor of the same entries without a history: torch.export notes on the one that it is given which sizes may vary."""
    return value.detach().requires_grad_(value.requires_grad) if isinstance(value, torch.Tensor) else value


def _dynamic_batch(args: tuple[Any, ...], kwargs: dict[str, Any]) -> ShapesCollection | None:
    """The first dimension of every input, left to vary where it is not 1; None when there is none."""
    shapes = ShapesCollection()
    found = False
    for value in torch.utils._pytree.tree_leaves((args, kwargs)):
        if isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] > 1:
            shapes[value] = {0: Dim.AUTO}
            found = True
    return shapes if found else None


def _to_device(model: nn.Module) -> Callable[[Any], Any]:
    """Inputs follow the model to its device; only their shapes and dtypes matter."""
    first = next(iter(model.parameters()), next(iter(model.buffers()), None))
    device = torch.device("cpu") if first is None else first.device

    def move(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.device == device:
            return value
        if value.is_meta:
            return _zeros(value, device)
        return value.to(device) if device.type == "meta" else value

    return move


def _zeros(like: torch.Tensor, device: torch.device) -> torch.Tensor:
    try:
        return torch.zeros(like.shape, dtype=like.dtype, device=device)
    except RuntimeError as error:
        shape = "x".join(map(str, like.shape))
        raise InputError(f"an example input of shape {shape} does not fit in memory: {error}",
                         hint="give a smaller one; two samples are enough where any batch size is meant") from error  # fmt: skip


def _holds_for_every_batch(program: ExportedProgram) -> bool:
    """The first dimension is a symbol, and no branch of the forward looked at its value."""
    names = set(program.graph_signature.user_inputs)
    inputs = (n for n in program.graph.nodes if n.op == "placeholder" and n.name in names)
    first = next((n.meta["val"] for n in inputs if isinstance(n.meta.get("val"), torch.Tensor)), None)
    if first is None or first.dim() == 0 or not isinstance(first.shape[0], torch.SymInt):
        return False
    bounds = program.range_constraints.get(first.shape[0].node.expr)
    unbounded = bounds is not None and bool(bounds.lower <= 2) and bool(bounds.upper > 2**62)
    return unbounded and getattr(program, "_guards_code", None) == [] and not _computes_with_sizes(program)


def _computes_with_sizes(program: ExportedProgram) -> bool:
    """Some factor, slope, exponent or bound is a number made of sizes: at another size it is another function."""
    modules = (m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule))
    calls = (n for m in modules for n in m.graph.nodes if isinstance(n.target, torch._ops.OpOverload))
    return any(isinstance(value, (torch.SymInt, torch.SymFloat)) for call in calls for value in _numbers_of(call))


def _numbers_of(call: torch.fx.Node) -> Iterator[Any]:
    """Values of the arguments that are numbers to compute with, not sizes or positions."""
    if call.target._schema.name == "aten::arange":  # type: ignore[union-attr]
        return
    for i, argument in enumerate(call.target._schema.arguments):  # type: ignore[union-attr]
        value = call.kwargs.get(argument.name, call.args[i] if i < len(call.args) else None)
        if any(word in str(argument.type) for word in _NUMBERS):
            held = value if isinstance(value, (list, tuple)) else [value]
            yield from (v.meta.get("val") for v in held if isinstance(v, torch.fx.Node))


# What may not be captured ---------------------------------------------------------------------


def _refuse_hidden_parameters(loss: Callable[..., Any], model: nn.Module) -> None:
    """A criterion with parameters that a function merely mentions would be taken for a constant."""
    if isinstance(loss, nn.Module):
        return
    known = {id(p) for p in model.parameters()}
    for name, value in reached_from([("", Criterion(loss))]):
        found = value.parameters() if isinstance(value, nn.Module) else [value] if isinstance(value, torch.Tensor) else []
        if any(p.requires_grad and id(p) not in known for p in found):
            raise UsageError(
                f"the loss uses {name}, which is or has a trainable parameter that the model does not own",
                hint=f"pass a module that owns it as the loss, or register {name.partition(' in ')[0]} in the model",
            )


def _refuse_inference(roots: Sequence[nn.Module], inputs: Any) -> None:
    """Inference mode makes tensors without gradients, of which no backward pass can be told anything."""
    if torch.is_inference_mode_enabled():
        raise UsageError("torch.inference_mode() is on, and gradients are looked at here, which it switches off",
                         hint="call it outside of inference_mode (torch.no_grad() is fine)")  # fmt: skip
    held = (t for root in roots for t in chain(root.parameters(), root.buffers()))
    if any(isinstance(v, torch.Tensor) and v.is_inference() for v in chain(held, torch.utils._pytree.tree_leaves(inputs))):
        raise InputError("a parameter, buffer or example input was made under torch.inference_mode(), so it has no gradient",
                         hint="make it outside of inference_mode, or pass a clone() made outside")  # fmt: skip


def _refuse_unready(model: nn.Module) -> None:
    scripted = next((name for name, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)), None)
    if scripted is not None:
        place = f"module {scripted!r}" if scripted else "the model"
        raise CaptureError(f"{place} is a TorchScript module, which torch.export does not capture", code="FX603",
                           hint="use the nn.Module that it was made from")  # fmt: skip
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise CaptureError(f"the model is wrapped in {type(model).__name__}, which torch.export does not capture", code="FX603",
                           hint="pass the module inside (model.module), and wrap what instrument returns")  # fmt: skip
    lazy = [name for name, p in model.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]
    if lazy:
        raise InputError(f"the model has lazy parameters without a shape ({', '.join(lazy[:3])})",
                         hint="run it once on example inputs before the analysis")  # fmt: skip


def _refuse_non_finite(model: nn.Module) -> None:
    _refuse_non_finite_tensors(model.named_parameters())


def _refuse_non_finite_tensors(parameters: Iterable[tuple[str, torch.Tensor]]) -> None:
    bad = [
        name for name, p in parameters
        if not p.is_meta and (p.is_floating_point() or p.is_complex()) and not bool(torch.isfinite(p).all())
    ]  # fmt: skip
    if bad:
        names = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise FxcheckError(
            f"the model holds NaN or infinite weights ({names}); non-finite numbers have no subgradient",
            hint="load or initialise the weights first",
        )


_PRODUCTS = ("linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "mv", "dot")


def _refuse_mixed_products(program: ExportedProgram) -> None:
    """Products of matrices of two dtypes, which raise, but not on fake tensors; autocast would have cast them."""
    nodes = list(program.graph.nodes)
    if torch._C._is_any_autocast_enabled() or any("autocast" in str(n.target) for n in nodes):
        return
    for node in nodes:
        if getattr(getattr(node.target, "overloadpacket", None), "__name__", "") not in _PRODUCTS:
            continue
        found = {v.dtype for v in (n.meta.get("val") for n in node.all_input_nodes) if isinstance(v, torch.Tensor)}
        if len(found) > 1:
            names = " and ".join(sorted(str(d).removeprefix("torch.") for d in found))
            origin = OriginReader().of(node)
            place = f"in module {origin.module!r}" if origin.module else f"at {origin.location}"
            raise CaptureError(
                f"the model's forward multiplies {names} {place}, which raises", code="FX601",
                hint="give example inputs of the model's dtype, or cast them in the forward",
            )  # fmt: skip


def _refuse_traced_constants(program: ExportedProgram) -> None:
    """Inside of ``torch.func.grad`` export loses track of values, and takes them for constants."""
    tensors = [v for v in program.constants.values() if isinstance(v, torch.Tensor)]
    if any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors)):
        raise CaptureError(
            "the forward differentiates with torch.func, and torch.export loses track of values there", code="FX604",
            hint="write the derivative out, or move it out of the model",
        )  # fmt: skip


def _refuse_derived_constants(program: ExportedProgram) -> None:
    """A value that was computed with gradients before the forward is a constant to export, and none to autograd."""
    derived = [name for name, v in _untrained(program).items() if v.grad_fn is not None]
    if derived:
        what = "a tensor" if derived[0].startswith("lifted_tensor") else f"attribute {derived[0]!r}"
        raise CaptureError(
            f"the forward reads {what} that was computed with gradients before it: backward goes on into what the captured "
            "graph does not show", code="FX604",
            hint="compute it in the forward, or store it detached",
        )  # fmt: skip


def _refuse_unregistered_leaves(program: ExportedProgram, roots: Sequence[nn.Module]) -> None:
    """A trainable tensor that is no parameter gets a gradient from autograd, and is a constant to export."""
    reached = [value for _, value in reached_from(("", m) for root in roots for m in root.modules())]
    modules = [*roots, *modules_among(reached)]
    held = chain(reached, *(chain(m.parameters(), m.buffers()) for m in modules))
    trainable = {storage_of(v) for v in held if isinstance(v, torch.Tensor) and v.requires_grad and v.is_leaf}
    trainable -= {storage_of(p) for root in roots for p in root.parameters()}
    signature, tensors = program.graph_signature, _untrained(program)
    names = {**signature.inputs_to_lifted_tensor_constants, **signature.inputs_to_buffers}
    for node in program.graph.nodes if trainable else ():
        constant = tensors.get(names.get(node.name, ""))
        if constant is not None and storage_of(constant) in trainable and not _is_cut_off(node):
            raise CaptureError(
                "the forward reads a trainable tensor that is no parameter of the model: backward gives it a gradient, of which "
                "the captured graph knows nothing", code="FX604",
                hint="register it as a parameter, a ParameterList holds many; or store it detached",
            )  # fmt: skip


def _untrained(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Its buffers and other constants by name."""
    return {n: v for n, v in chain(program.named_buffers(), program.constants.items()) if isinstance(v, torch.Tensor)}


def _is_cut_off(leaf: torch.fx.Node) -> bool:
    """Read in no_grad regions only, or where it is detached first."""
    return all(user.target is torch.ops.aten.detach.default or
               (getattr(user.target, "__name__", "") == "wrap_with_set_grad_enabled" and user.args[0] is False)
               for user in leaf.users)  # fmt: skip


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
def left_as_it_was(model: nn.Module, inputs: Iterable[torch.Tensor] = ()) -> Iterator[Callable[[], list[str]]]:
    """Restore flags, buffers, gradients, attributes and what they and code hold, and the random number generators; what functions
    have cached meanwhile, which may be no real tensor, is forgotten.

    Args:
        model: all of it.
        inputs: tensors whose entries are restored too.

    Yields:
        Names the attributes that are not what they were, as far as modules and containers in them tell.
    """
    modules = [(m, m.training, _contents(m)) for m in model.modules()]
    reached = reached_from(model.named_modules())
    inner = [(path, v, _copied(_place(v))) for path, v in reached if reader_of(v)]
    caches = [(v, v.cache_info().misses) for _, v in reached if isinstance(v, CACHED)]
    plain = [t for _, t in in_attributes(model) if type(t) is torch.Tensor and t.is_leaf]
    contents = [(b, b.data, _once(b).clone()) for b in (*model.buffers(), *plain, *inputs)
                if not b.is_meta and b.layout is torch.strided]  # fmt: skip
    state = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    rng, python_rng = torch.get_rng_state(), random.getstate()
    numpy_rng = np.random.get_state()
    try:
        yield lambda: [*dict.fromkeys(chain(
            (f"{path}.{name}".lstrip(".") for (path, module), (_, _, attributes) in
             zip(model.named_modules(), modules, strict=False) for name in _written(module, attributes)),
            (path for path, value, before in inner if not _holds(_place(value), before)),
        ))]  # fmt: skip
    finally:
        torch.set_rng_state(rng)
        random.setstate(python_rng)
        np.random.set_state(numpy_rng)
        for _, value, kept in inner:
            _put_back(_place(value), kept)
        for cached, misses in caches:
            if cached.cache_info().misses != misses:
                cached.cache_clear()
        for module, training, attributes in modules:
            _restore_contents(module, attributes)
            module.training = training
        with torch.no_grad():
            for held, data, before in contents:
                if held.is_meta or held.data_ptr() != data.data_ptr():
                    held.data = data
                if not _same_bits(_once(held), before):
                    _once(held).copy_(before)
        for parameter, requires_grad, grad in state:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


def _once(tensor: torch.Tensor) -> torch.Tensor:
    """Without the repetitions of what is expanded, which share one memory."""
    for dim in (d for d, stride in enumerate(tensor.stride()) if stride == 0):
        tensor = tensor.narrow(dim, 0, min(1, tensor.shape[dim]))
    return tensor.detach()


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.numel() == 0:
        return True
    flat_a, flat_b = (t.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(flat_a, flat_b)


def _contents(module: nn.Module) -> list[tuple[str, Any, Any]]:
    """Every attribute: its name, its value, and for a container a shallow copy of what it holds."""
    return [(n, v, None if type(v) in ProxyTypes or isinstance(v, np.ndarray) else _copied(v)) for n, v in vars(module).items()]


def _copied(place: Any) -> Any:
    """What a container holds, in one that no user has made; None for anything else."""
    if isinstance(place, NAMED_PLACES):
        return dict(items_of(place))
    kind = next((k for k in (list, set, deque) if isinstance(place, k)), None)
    return place.copy() if isinstance(place, np.ndarray) else kind and kind(place)


def _written(module: nn.Module, before: list[tuple[str, Any, Any]]) -> list[str]:
    """Attributes that hold other objects than before."""
    known = {name: (value, held) for name, value, held in before}
    return [name for name, now in vars(module).items()
            if name not in known or now is not known[name][0] or not _holds(now, known[name][1])]  # fmt: skip


def _holds(container: Any, before: Any) -> bool:
    """Whether a list, set or dict holds the same objects as the copy of it; True for anything else."""
    if isinstance(container, NAMED_PLACES):
        now = dict(items_of(container))
        return now.keys() == before.keys() and all(v is before[k] for k, v in now.items())
    if isinstance(container, set):  # a copy of which may have another order
        return {*map(id, container)} == {*map(id, before)}
    if isinstance(container, (list, deque)):
        return len(container) == len(before) and all(map(is_, container, before))
    return before is None or not isinstance(container, np.ndarray) or container.tobytes() == before.tobytes()


def _restore_contents(module: nn.Module, before: list[tuple[str, Any, Any]]) -> None:
    attributes = vars(module)
    attributes.clear()
    for name, value, held in before:
        attributes[name] = value
        if held is not None:
            _put_back(value, held)


def _place(value: Any) -> Any:
    """The dict of an object's attributes; anything else itself."""
    return attributes_of(value) if is_object(value) else value


def _put_back(container: Any, before: Any) -> None:
    """Have a list, dict, set or array hold what the copy of it holds, where it does not."""
    if _holds(container, before):
        return
    if isinstance(container, np.ndarray):
        container[...] = before
        return
    if isinstance(container, Scope):
        container.restore(before)
        return
    base = base_of(container)
    base.clear(container)
    (base.extend if base in (list, deque) else base.update)(container, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's warnings, logs and dumps of graphs, and the forward's prints, out of the way while capturing."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
