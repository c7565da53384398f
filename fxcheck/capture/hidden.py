"""What a captured graph does not show: custom autograd Functions, TorchScript, backward hooks, and shared memory."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import IOBase
from itertools import chain, count, pairwise
from typing import Any
from unittest import mock
from weakref import ProxyTypes

import torch
import torch.fx.traceback
import torch.utils.checkpoint
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import saved_tensors_hooks
from torch.export import ExportedProgram
from torch.overrides import handle_torch_function
from torch.utils._pytree import tree_leaves

from fxcheck.capture import unroll
from fxcheck.capture.held import entries, is_object, places, reached_from, view_of
from fxcheck.capture.origin import user_line_of
from fxcheck.errors import CaptureError
from fxcheck.records.finding import Diagnostic

_HOOK = "FX505"
_ENGINE = torch.autograd._engine_run_backward
_REGISTER = ("register_hook", "register_post_accumulate_grad_hook")
_HARMLESS = ("torch.utils.checkpoint.", "torch.nn.utils.parametrize", "torch.autograd.function.",
             "torch._higher_order_ops", "torch.nn.modules._functions.BackwardHookFunction")  # fmt: skip
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
    return Diagnostic(_HOOK, f"{what}, which may change the gradient that AD computed", _HOOK_HINT, location)


def shared_memory(roots: Iterable[nn.Module]) -> tuple[Diagnostic, ...]:
    """Distinct parameters that hold the same memory: a step on one moves the other, of which its gradient knows nothing."""
    held: dict[Any, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in nn.ModuleList(roots).named_parameters():
        held.setdefault((parameter.untyped_storage()._cdata, parameter.dtype), []).append((name.partition(".")[2], parameter))
    return tuple(chain.from_iterable(map(_overlaps, held.values())))


def _overlaps(sharers: list[tuple[str, nn.Parameter]]) -> Iterator[Diagnostic]:
    """Parameters of one storage that have an entry in the memory of a trainable one."""
    sharers = sorted(sharers, key=lambda named: not named[1].requires_grad)
    if not sharers[0][1].requires_grad or _lie_apart([p for _, p in sharers]):
        return
    first = sharers[0][1]
    owners = torch.zeros(first.untyped_storage().nbytes() // first.element_size(), dtype=torch.int32)
    for i, (name, parameter) in enumerate(sharers, start=1):
        cells = owners.as_strided(parameter.shape, parameter.stride(), parameter.storage_offset())
        if cells.numel() and cells.any():
            other = sharers[int(cells.max()) - 1][0]
            yield Diagnostic(
                "FX507", f"parameters {other!r} and {name!r} share memory, so that the gradient of each leaves out what the "
                "other does with it", f"Use one parameter in both places, or give {name!r} a copy.",
            )  # fmt: skip
        if parameter.requires_grad:
            cells.fill_(i)


def _lie_apart(sharers: list[nn.Parameter]) -> bool:
    """Whether each begins behind the end of the one before, as the pieces of a flat buffer do."""
    spans = sorted((p.storage_offset(), p.storage_offset() + sum((n - 1) * s for n, s in zip(p.shape, p.stride(), strict=True)))
                   for p in sharers if p.numel())  # fmt: skip
    return all(last < first for (_, last), (first, _) in pairwise(spans))


@contextmanager
def recording(model: nn.Module, asked: list[Diagnostic], compiled: bool = False) -> Iterator[list[Diagnostic]]:
    """Record custom Functions, backward hooks and saved-tensor hooks that the forward applies.

    ``Function.apply`` is often bound to a name when the user's file is imported, so what is watched is the context
    that every call of it creates. Torch's own ``checkpoint`` recomputes the same function: its reentrant form, which
    hides the forward in a no_grad region, is replaced by the call that it stands for. User code that asks whether it is
    compiled or exported hears what it hears while it trains, or with ``compiled`` that it is; that it did is put into ``asked``.
    """
    found: list[Diagnostic] = []
    with contextlib.ExitStack() as patches:
        functions = _Functions(patches)
        watched = (*_watched(found, functions), *_watched_modules(found, model), *_answers(asked, compiled))
        for owner, name, replacement in watched:
            patches.enter_context(mock.patch.object(owner, name, replacement))
        yield found
        found.extend(diagnostic for context, diagnostic in functions.contexts if any(context.needs_input_grad or (True,)))


@contextmanager
def watching_attributes(model: nn.Module, found: list[Diagnostic]) -> Iterator[None]:
    """Record values that the forward leaves in attributes with their gradients, where a loss or the next forward may read them.

    What is written before every forward, as the weight that ``weight_norm`` and ``prune`` compute, is no such value.
    """
    before = {id(tensor) for _, tensor in in_attributes(model)}

    def look(*_: Any) -> None:
        left = [name for name, tensor in in_attributes(model) if id(tensor) not in before and not tensor.is_leaf]
        found.extend(Diagnostic(
            "FX508", f"the forward leaves a value with its gradient in {name!r}: what a loss or the next forward makes "
            "of it is not seen", "Store it detached; what is differentiated has to be returned, and passed in.",
        ) for name in dict.fromkeys(left))  # fmt: skip

    handle = model.register_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def watching_iterators(model: nn.Module, found: list[Diagnostic]) -> Iterator[None]:
    """Record that the forward takes a value from an iterator that outlives it: its state cannot be read or restored."""
    held = [(place, key, value) for place in places(model.named_modules()) if not isinstance(place, set)
            for key, value in entries(place) if _holds_iterators(value)]  # fmt: skip
    for place, key, value in held:
        place[key] = _with_watched(value, found)
    try:
        yield
    finally:
        for place, key, value in held:
            place[key] = value


def _holds_iterators(value: Any) -> bool:
    if type(value) is tuple:
        return any(map(_holds_iterators, value))
    return type(value) not in ProxyTypes and isinstance(value, Iterator) and not (isinstance(value, IOBase) or is_object(value))


def _with_watched(value: Any, found: list[Diagnostic]) -> Any:
    if type(value) is tuple:
        return tuple(_with_watched(v, found) for v in value)
    return _WatchedIterator(value, found) if _holds_iterators(value) else value


@contextmanager
def watching_numbers() -> Iterator[dict[int, torch.Tensor]]:
    """Tensors, none of them traced, that are turned into Python numbers, which a program holds without their names."""
    read: dict[int, torch.Tensor] = {}

    def watching(convert: Any) -> Any:
        def watched(tensor: torch.Tensor) -> Any:
            if type(tensor) in (torch.Tensor, nn.Parameter):
                read[id(tensor)] = tensor
            return convert(tensor)

        return watched

    with contextlib.ExitStack() as patches:
        for name in _TO_NUMBERS:
            patches.enter_context(mock.patch.object(torch.Tensor, name, watching(getattr(torch.Tensor, name))))
        yield read


_TO_NUMBERS = ("item", "tolist", "__float__", "__int__", "__bool__", "__index__")


class _WatchedIterator(Iterator[Any]):
    """Stands in for an iterator while the forward runs."""

    def __init__(self, held: Any, found: list[Diagnostic]) -> None:
        self._held, self._found = held, found

    def __next__(self) -> Any:
        self._found.append(_taken())
        return next(self._held)

    def send(self, value: Any) -> Any:
        self._found.append(_taken())
        return self._held.send(value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._held, name)


def _taken() -> Diagnostic:
    location, source = _here()
    return Diagnostic(
        "FX603", "the forward takes a value from an iterator that outlives it, and the next one may make another function",
        "Take it before the forward, and pass it in.", location, source=source,
    )  # fmt: skip


def in_attributes(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that are no parameters and no buffers, in attributes of modules and in whatever they or their code lead to."""
    computed = {f"{path}.{name}".lstrip(".") for path, module in model.named_modules() for name in vars(module)
                if any(known.startswith(f"{name}_") for known in module._parameters)}  # fmt: skip
    return ((path, v) for path, v in reached_from(model.named_modules()) if isinstance(v, torch.Tensor) and path not in computed)


class _Functions:
    """The custom Functions that are applied where gradients are recorded."""

    def __init__(self, patches: contextlib.ExitStack) -> None:
        self.patches = patches
        self.contexts: list[tuple[Any, Diagnostic]] = []
        self.starting: Any = None
        """The context of the one whose forward is about to run; None inside a region without gradients."""
        self.known: set[Any] = set()

    def begin(self, context: Any) -> None:
        cls = context._forward_cls
        self.starting = None
        if torch.is_grad_enabled() and not f"{cls.__module__}.{cls.__qualname__}".startswith(_HARMLESS):
            self.starting = context
            self.contexts.append((context, _custom(cls)))
            if cls not in self.known:
                self.known.add(cls)
                self.patches.enter_context(mock.patch.object(cls, "forward", staticmethod(self._cut_off(cls.forward))))

    def _cut_off(self, forward: Any) -> Any:
        """A forward none of whose arguments needs a gradient as the no_grad region that it is, whatever else it reads."""

        def run(*args: Any, **kwargs: Any) -> Any:
            context, self.starting = self.starting, None
            if context is None or any(context.needs_input_grad):
                return forward(*args, **kwargs)
            torch.set_grad_enabled(True)  # autograd has switched it off, which export does not record
            with torch.no_grad():
                return forward(*args, **kwargs)

        return run


def _watched(found: list[Diagnostic], functions: _Functions) -> list[tuple[Any, str, Any]]:
    enter = saved_tensors_hooks.__enter__

    def watched_node(self: torch.Tensor) -> Any:
        caller = sys._getframe(1).f_code.co_filename
        if isinstance(self, FakeTensor) and (caller == torch.autograd.graph.__file__ or not _inside_torch(caller)):
            found.append(_hook("the forward reaches for grad_fn, where hooks can be put", _here()[0]))
        return _GRAD_FN.__get__(self)

    def watching_hook(register: Any) -> Any:
        def watched_hook(self: torch.Tensor, hook: Any) -> Any:
            found.append(_hook("a tensor hook is registered in the forward", _here()[0]))
            return register(self, hook)

        return watched_hook

    def watched_enter(self: Any) -> Any:
        if not type(self).__module__.startswith("torch.") or type(self) is saved_tensors_hooks:
            found.append(_hook("saved tensors pass through pack and unpack hooks", _here()[0]))
        return enter(self)

    def watched_checkpoint(cls: Any, function: Any, preserve_rng_state: bool, *args: Any) -> Any:
        found.append(_computed_again(preserve_rng_state))
        with _region():
            return _checkpointed(function, *args)

    def watched_generator(function: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(_computed_again(kwargs.get("preserve_rng_state", args[:1] != (False,))))
        with _region():
            yield from without_reentrance(function, *args, **kwargs)

    def watched_engine(outputs: Any, gradients: Any, keep_graph: bool, create_graph: bool, *args: Any, **kwargs: Any) -> Any:
        if not create_graph:
            found.append(Diagnostic(
                "FX501", "the forward differentiates without create_graph=True, so that backward() takes the derivative that it "
                "gets for a constant", location=_here()[0], hint="pass create_graph=True, or write the derivative out",
            ))  # fmt: skip
        return _ENGINE(outputs, gradients, keep_graph, create_graph, *args, **kwargs)

    name = next(n for n in _WITHOUT_REENTRANCE if hasattr(torch.utils.checkpoint, n))
    without_reentrance = getattr(torch.utils.checkpoint, name)
    return [
        *_watched_flags(found),
        *_watched_scripts(found),
        (torch.Tensor, "data", property(_detached, _refuse_assignment)),
        (torch.Tensor, "grad_fn", property(watched_node)),
        (torch.inference_mode, "__enter__", _enter_no_grad),
        (torch.inference_mode, "__exit__", _leave_no_grad),
        (BackwardCFunction, "__init__", lambda context: functions.begin(context)),
        *((torch.Tensor, name, watching_hook(getattr(torch.Tensor, name))) for name in _REGISTER),
        (saved_tensors_hooks, "__enter__", watched_enter),
        (torch.utils.checkpoint.CheckpointFunction, "apply", classmethod(watched_checkpoint)),
        (torch.utils.checkpoint, name, watched_generator),
        (torch.autograd, "_engine_run_backward", watched_engine),
        (nn.functional, "handle_torch_function", _handed_over),
    ]


def _watched_flags(found: list[Diagnostic]) -> list[tuple[Any, str, Any]]:
    def note_flag(tensor: torch.Tensor, value: bool) -> None:
        frees_or_freezes = not value or isinstance(tensor, nn.Parameter)
        if tensor.requires_grad != value and frees_or_freezes:
            found.append(_flag(_here()[0]))

    def watched_flag(tensor: torch.Tensor, value: bool = True) -> torch.Tensor:
        if not _inside_torch(sys._getframe(1).f_code.co_filename):
            note_flag(tensor, value)
        return _SET_REQUIRES_GRAD(tensor, value)

    def watched_assignment(tensor: torch.Tensor, value: bool) -> None:
        if not _inside_torch(sys._getframe(1).f_code.co_filename):
            note_flag(tensor, value)
        _REQUIRES_GRAD.__set__(tensor, value)

    def watched_module(module: nn.Module, requires_grad: bool = True) -> nn.Module:
        for parameter in module.parameters():
            note_flag(parameter, requires_grad)
            _SET_REQUIRES_GRAD(parameter, requires_grad)
        return module

    return [
        (torch.Tensor, "requires_grad_", watched_flag),
        (torch.Tensor, "requires_grad", property(_REQUIRES_GRAD.__get__, watched_assignment)),
        (nn.Module, "requires_grad_", watched_module),
    ]


def _watched_modules(found: list[Diagnostic], model: nn.Module) -> list[tuple[Any, str, Any]]:
    """Calls of modules with hooks that ``standing_hooks`` does not see: taken off again, or on a module that no module holds."""
    shared = torch.nn.modules.module
    tables = [shared._global_backward_hooks, shared._global_backward_pre_hooks]
    tables += chain.from_iterable((m._backward_hooks, m._backward_pre_hooks) for m in model.modules())
    standing = {id(hook) for table in tables for hook in table.values()}

    def watching(hooks_of: Any) -> Any:
        def watched(module: nn.Module) -> Any:
            hooks = hooks_of(module)
            if any(id(hook) not in standing for hook in tree_leaves(hooks)):
                found.append(_hook(f"the forward calls a {type(module).__name__} with a backward hook", _here()[0]))
            return hooks

        return watched

    return [(nn.Module, name, watching(getattr(nn.Module, name))) for name in ("_get_backward_hooks", "_get_backward_pre_hooks")]


def _watched_scripts(found: list[Diagnostic]) -> list[tuple[Any, str, Any]]:
    """Calls of TorchScript, whose operators are captured, but not its own rules for their gradients."""

    def watching(call: Any) -> Any:
        def watched(script: Any, *args: Any, **kwargs: Any) -> Any:
            reads_parameters = isinstance(script, torch._C.ScriptMethod)
            if torch.is_grad_enabled() and (reads_parameters or _needs_gradient(tree_leaves((args, kwargs)))):
                found.append(_script(script.name))
            return call(script, *args, **kwargs)

        return watched

    return [(cls, "__call__", watching(cls.__call__)) for cls in (torch.jit.ScriptFunction, torch._C.ScriptMethod)]


_DATA: Any = torch._C.TensorBase.data
_REQUIRES_GRAD: Any = torch._C.TensorBase.requires_grad
_SET_REQUIRES_GRAD: Any = torch._C.TensorBase.requires_grad_
_GRAD_FN: Any = torch._C.TensorBase.grad_fn


def _flag(location: str) -> Diagnostic:
    return Diagnostic(
        "FX501", "the forward changes requires_grad of a tensor, so gradients are cut off in a part of it",
        "Freeze parameters before the forward, for the whole step.", location,
    )  # fmt: skip


def _enter_no_grad(region: Any) -> None:
    """Inference mode as the no_grad region that it is for gradients: export records those, and not this."""
    region.before = torch.is_grad_enabled()
    torch.set_grad_enabled(region.before and not region.mode)


def _leave_no_grad(region: Any, *exception: Any) -> None:
    torch.set_grad_enabled(region.before)


def _detached(tensor: torch.Tensor) -> torch.Tensor:
    """``.data`` of a traced tensor as the ``detach()`` that it is, so that the value stays in the graph."""
    return tensor.detach() if isinstance(tensor, FakeTensor) else _DATA.__get__(tensor)


def _refuse_assignment(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """But for the alias that ``x.data += y`` reads, writes in place and assigns back."""
    if isinstance(tensor, FakeTensor) and (view_of(tensor), tensor.dtype) == (view_of(value), value.dtype):
        return
    location, source = _here()
    if isinstance(tensor, FakeTensor) and not _inside_torch(sys._getframe(1).f_code.co_filename):
        raise CaptureError(
            f"the forward assigns .data of a tensor at {location} ({source}), which no captured graph shows",
            code="FX604",
            hint="compute a new tensor, or use copy_() under torch.no_grad()",
        )  # fmt: skip
    _DATA.__set__(tensor, value)


def _answers(asked: list[Diagnostic], compiled: bool) -> list[tuple[Any, str, Any]]:
    def answering(truly: Callable[[], bool]) -> Callable[[], bool]:
        def answer() -> bool:
            if _inside_torch(sys._getframe(1).f_code.co_filename):
                return truly()
            asked.append(Diagnostic(
                "FX603", "the forward asks whether it is compiled or exported, and what it does otherwise cannot be captured",
                "Do the same in both cases.", _here()[0],
            ))  # fmt: skip
            return compiled and truly()

        return answer

    return [(torch.compiler, name, answering(getattr(torch.compiler, name))) for name in ("is_compiling", "is_exporting")]


def _inside_torch(file: str) -> bool:
    """Torch's own code, or the mode through which its calls pass while capturing; what a user calls comes here first."""
    return file.startswith(os.path.dirname(torch.__file__) + os.sep) or file == unroll.__file__


_WITHOUT_REENTRANCE = ("_checkpoint_without_reentrant_generator_impl", "_checkpoint_without_reentrant_generator")
"""What ``checkpoint(use_reentrant=False)`` calls, from torch 2.14 on and before."""
_CHECKPOINT, _UNSEEDED = "checkpoint", "checkpoint(preserve_rng_state=False)"


def _computed_again(preserve_rng_state: bool) -> Diagnostic:
    location, source = _here()
    return Diagnostic(
        _HOOK, "checkpointing computes this part of the forward again for its gradient, and draws other random numbers there",
        "Leave preserve_rng_state as it is, and draw from torch's default generator; use no RReLU inside.", location, "",
        _CHECKPOINT if preserve_rng_state else _UNSEEDED, source,
    )  # fmt: skip


_REGION = "fxcheck.checkpoint"
_regions = count(1)


@contextmanager
def _region() -> Iterator[None]:
    """Nodes that are traced in it say that they are computed again, and with which others; older releases of torch cannot."""
    annotate = getattr(torch.fx.traceback, "annotate", None)
    if annotate is None or not torch.is_grad_enabled():
        yield
        return
    with torch.fx.traceback.preserve_node_meta(), annotate({_REGION: next(_regions)}):
        yield


def region_of(node: torch.fx.Node) -> int:
    """The call of ``checkpoint`` that a node is part of; 0 for none."""
    return int((node.meta.get("custom") or {}).get(_REGION, 0))


def random_calls(module: nn.Module) -> list[torch.fx.Node]:
    """The calls in a graph module and its subgraphs that draw random numbers, as far as operators say."""
    graphs = (m.graph for m in module.modules() if isinstance(m, torch.fx.GraphModule))
    return [n for g in graphs for n in g.nodes if torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ())]


def unless_drawn_alike(found: list[Diagnostic], program: ExportedProgram) -> list[Diagnostic]:
    """The findings, less those of checkpointed regions that draw nothing, or the same numbers when they are computed again."""
    calls = random_calls(program.graph_module)
    alike = set() if calls else {_UNSEEDED}
    if not any("rrelu" in str(n.target) or n.kwargs.get("generator") is not None for n in calls):
        alike.add(_CHECKPOINT)
    return [d for d in found if d.code != _HOOK or d.op not in alike]


def _checkpointed(function: Any, *args: Any) -> Any:
    """What reentrant checkpointing computes and differentiates: nothing is differentiated when no argument needs it."""
    if torch.is_grad_enabled() and _needs_gradient(args):
        return function(*args)
    with torch.no_grad():
        return function(*args)


def _handed_over(function: Any, relevant: tuple[Any, ...], *args: Any, **kwargs: Any) -> Any:
    """What a mode is told of a call: ``l1_loss`` leaves out its weight there, so that export records a loss without."""
    if function is nn.functional.l1_loss and len(relevant) > 2:
        kwargs["weight"] = relevant[2]
    return handle_torch_function(function, relevant, *args, **kwargs)


def _needs_gradient(args: Iterable[Any]) -> bool:
    return any(isinstance(v, torch.Tensor) and v.requires_grad for v in args)


def _here() -> tuple[str, str]:
    """The user's line that is running."""
    return user_line_of(traceback.extract_stack())


def _custom(cls: Any) -> Diagnostic:
    location, source = _here()
    return Diagnostic(
        "FX502", f"custom autograd Function {cls.__name__} has a backward of its own, which need not be the derivative "
        "of its forward", "Write the forward with ordinary operators, or accept that no theorem covers it.", location,
        "", cls.__name__, source,
    )  # fmt: skip


def _script(name: str) -> Diagnostic:
    location, source = _here()
    return Diagnostic(
        "FX502", f"TorchScript function {name} is differentiated by rules of its own, which need not be those of the operators "
        "in it", "Call the Python function that it was made from.", location, "", name, source,
    )  # fmt: skip
