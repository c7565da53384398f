"""The two flows as straight-line code: read this first.

``analyze``: module + inputs -> captured program -> graph -> layers -> verdicts -> Report.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fxcheck.capture.export import SAME_AS_OUTPUT, Captured, capture, captured_archive
from fxcheck.capture.inputs import Example, example_inputs, first_accepted, parse_shape
from fxcheck.capture.numeric import compare_numerically
from fxcheck.capture.target import Loaded, load, load_callable
from fxcheck.errors import UsageError
from fxcheck.ops.measured import Measured
from fxcheck.ops.proxies import SavedFirst
from fxcheck.ops.proxies import load as load_proxies
from fxcheck.passes.connect_layers import connect_layers
from fxcheck.passes.pipeline import study
from fxcheck.records.finding import Diagnostic
from fxcheck.records.proxy_table import ProxyTable
from fxcheck.records.report import Report
from fxcheck.records.step import StepResult
from fxcheck.records.target_spec import TargetSpec
from fxcheck.runtime.checked import CheckedModule, Settings, check_policy


def analyze(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    loss: Callable[..., Any] | None = None,
    target: Any = None,
    mode: str = "train",
    batch_size: int | None = None,
    wrt: Iterable[nn.Parameter] | torch.optim.Optimizer | None = None,
    proxies: Any = None,
) -> Report:
    """Decide statically where the gradient that ``backward()`` returns is a Clarke subgradient.

    Args:
        model: any module that ``torch.export`` captures; it is left as it was.
        args: example inputs, a tuple or one tensor; only shapes, dtypes and devices matter.
        kwargs: example keyword inputs.
        loss: from the output (or from output and target) to a scalar; without it, verdicts assume an analytic
            criterion.
        target: example target for ``loss``.
        mode: ``train``, ``eval`` or ``keep``.
        batch_size: the only minibatch size to decide for (samples); None for all. T1 is named only for 1.
        wrt: the parameters that the step updates, or the optimizer; None for all with requires_grad.
        proxies: where proxies come from; None for the installed torch, else the path of a file saved by
            ``fxcheck proxies --format json``.

    Returns:
        The report.

    Raises:
        CaptureError: the model cannot be captured.
        FxcheckError: other bad input; the message says what and what to do.

    Source: Park, Chun, Lee (ICLR 2024), theorems T1, T4, T5, T6, T8.
    """
    started = time.perf_counter()
    _refuse_wrong_kinds(model, kwargs, loss, target)
    args = args if isinstance(args, tuple) else (args,)
    captured = capture(model, args, kwargs, mode=mode, loss=loss, target=target)
    seconds = time.perf_counter() - started
    name = type(model).__name__
    return report_on(captured, name, batch_size=batch_size, wrt=wrt, proxies=proxies, capture_seconds=seconds)


def _refuse_wrong_kinds(model: Any, kwargs: Any, loss: Any, target: Any) -> None:
    """One clear message for what is no model, no keywords or no loss.

    Raises:
        UsageError: which of them, what was found and what is wanted.
    """
    if isinstance(model, CheckedModule):
        raise UsageError("the model is checked already", hint="pass the model that was given to fxcheck.instrument")
    if not isinstance(model, nn.Module):
        raise UsageError(f"the model is {_kind(model)}; wanted an nn.Module", hint="pass an instance, as MyModel(...)")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise UsageError(f"kwargs is {_kind(kwargs)}; wanted a dict of keyword inputs", hint='pass kwargs={"mask": mask}')
    if loss is not None and (isinstance(loss, type) or not callable(loss)):
        raise UsageError(f"the loss is {_kind(loss)}; wanted a function or module", hint="pass an instance, as nn.MSELoss()")
    if target is not None and loss is None:
        raise UsageError("a target was given, but no loss", hint="pass loss=criterion too")


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def instrument(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    loss: Callable[..., Any] | None = None,
    target: Any = None,
    batch_size: int | None = None,
    wrt: Iterable[nn.Parameter] | torch.optim.Optimizer | None = None,
    on_uncertified: str | Callable[[StepResult], Any] = "record",
    allow_uncovered: bool = False,
    exact_ties: bool = False,
    joint_seconds: float = 20.0,
) -> CheckedModule:
    """Rewrite a model so that each of its training steps is checked.

    Args:
        model: any module that ``torch.export`` captures; the result shares its parameters and buffers.
        args: example inputs, a tuple or one tensor, with values: the rewritten model is run on them once.
        kwargs: example keyword inputs.
        loss: from the output (or from output and target) to a scalar; makes its kinks part of what is checked, through
            ``checked.loss``.
        target: example target for ``loss``.
        batch_size: 1 asks for T1, which certifies steps of one forward of one sample.
        wrt: the parameters that the step updates, or the optimizer; None for all with requires_grad.
        on_uncertified: ``record``, ``warn``, ``raise``, or a callable that is given the step.
        allow_uncovered: count touches and ties of a model that no theorem covers; its steps are never certified.
        exact_ties: settle T_j of every tie by exact backward passes, as the paper's Table 2 does.
        joint_seconds: the most time that the joint condition and the decomposition may take at a step that needs them, and at
            all steps together that they leave open, or a tenth of the run where that is more; 0 switches them off.

    Returns:
        The checked module.

    Raises:
        UncoveredModel: no theorem covers the model, and ``allow_uncovered`` is False.
        CaptureError: the model cannot be captured.
        FxcheckError: other bad input, or the rewritten model does not reproduce the original.

    Source: T5, T8, Algorithms 1 and 2 of Park, Chun, Lee (ICLR 2024); the joint condition and the decomposition are ours.
    """
    check_policy(on_uncertified)
    _refuse_wrong_kinds(model, kwargs, loss, target)
    if any(p.is_meta for p in model.parameters()):
        raise UsageError("the model's parameters are on the meta device, and instrument runs it once on the example inputs",
                         hint="build it on a device; fxcheck.analyze needs no values")  # fmt: skip
    args = args if isinstance(args, tuple) else (args,)
    names = _names_of(model, loss, _parameters(wrt))
    settings = Settings(loss, target is not None, batch_size, names, on_uncertified, allow_uncovered, exact_ties, joint_seconds)
    checked = CheckedModule(model, settings)
    checked.prepare(args, kwargs or {}, target)
    return checked


def _names_of(
    model: nn.Module, loss: Callable[..., Any] | None, wrt: list[nn.Parameter] | None
) -> tuple[tuple[int, str], ...] | None:
    """Which root (the model, or a loss that is a module) each parameter belongs to, and its name there."""
    if wrt is None:
        return None
    roots = [model, *([loss] if isinstance(loss, nn.Module) else [])]
    names = {id(p): (k, n) for k, r in enumerate(roots) for n, p in r.named_parameters()}
    if any(id(p) not in names for p in wrt):
        raise UsageError(
            f"wrt holds {sum(id(p) not in names for p in wrt)} tensors that are not parameters of the model",
            hint="give parameters of the model (or of a loss that is a module), or its optimizer",
        )
    return tuple(names[id(p)] for p in wrt)


def analyze_target(spec: TargetSpec) -> Report:
    """What ``fxcheck analyze`` does with one TARGET and its flags; the same flow as ``analyze``.

    Raises:
        FxcheckError: bad target, flag, input or model; the message says what and what to do.
    """
    return analyze_target_under(spec, [spec.proxies])[0]


def analyze_target_under(spec: TargetSpec, proxies: Sequence[Any]) -> list[Report]:
    """One capture of a TARGET, classified under several sources of proxies.

    Args:
        spec: the TARGET and its flags; its own ``proxies`` are not looked at.
        proxies: sources as in ``analyze``.

    Returns:
        A report for each source.

    Raises:
        FxcheckError: as ``analyze_target``.
    """
    started = time.perf_counter()
    loaded = load(spec.target, spec.arguments, meta=spec.meta, allow_pickle=spec.allow_pickle)
    captured, example = _captured_target(spec, loaded)
    seconds = time.perf_counter() - started
    reports = [
        report_on(captured, spec.target, batch_size=spec.batch_size, proxies=source, capture_seconds=seconds)
        for source in proxies
    ]
    if not spec.numeric:
        return reports
    if loaded.module is None or example is None:
        raise UsageError("--numeric needs a model that can be built, not an archive", hint="name the module")
    numeric = compare_numerically(loaded.module, example, spec.mode)
    return [replace(report, numeric=numeric) for report in reports]


def _captured_target(spec: TargetSpec, loaded: Loaded) -> tuple[Captured, Example | None]:
    if loaded.program is not None:
        _refuse_archive_flags(spec)
        return captured_archive(loaded.program), None
    assert loaded.module is not None
    example = first_accepted(loaded.module, example_inputs(loaded, spec.inputs, spec.batch_size))
    loss, target = _loss(spec)
    captured = capture(loaded.module, example.args, example.kwargs, mode=spec.mode, loss=loss, target=target)
    return captured, example


def _refuse_archive_flags(spec: TargetSpec) -> None:
    if spec.mode in ("train", "eval") and spec.mode_was_given:
        raise UsageError(f"an archive has its mode baked in, so --mode {spec.mode} cannot be honoured",
                         hint="drop --mode, or analyse the module itself")  # fmt: skip
    if spec.loss or spec.inputs or spec.arguments:
        raise UsageError("an archive has its arguments, inputs and outputs baked in: --arg, --input and --loss do not apply",
                         hint="export the model as it is to be analysed, together with its loss")  # fmt: skip


def _loss(spec: TargetSpec) -> tuple[Callable[..., Any] | None, Any]:
    """The criterion and its example target; by default a target of the output's shape (``SAME_AS_OUTPUT``)."""
    if spec.loss is None:
        if spec.loss_target is not None:
            raise UsageError("--target says what --loss compares with, but there is no --loss", hint="--loss package.module:name")
        return None, None
    loss = load_callable(spec.loss)
    if spec.loss_target == "none":
        return loss, None
    if spec.loss_target is None:
        return loss, SAME_AS_OUTPUT
    return loss, parse_shape(spec.loss_target, "--target")


def report_on(
    captured: Captured,
    target: str,
    *,
    batch_size: int | None = None,
    wrt: Iterable[nn.Parameter] | torch.optim.Optimizer | None = None,
    proxies: Any = None,
    capture_seconds: float = 0.0,
) -> Report:
    """The static analysis of a captured model; see ``analyze`` for the arguments."""
    started = time.perf_counter()
    source = _proxy_source(proxies)
    origin = source.saved.table.torch if isinstance(source, SavedFirst) else ""
    studied = study(captured, source, wrt=_parameters(wrt), batch_size=batch_size)
    found, layers = studied.classified, connect_layers(studied.graph, studied.classified.layers)
    hidden = ("an archive shows no custom autograd Functions and no hooks",) if captured.mode == "exported" else ()
    timings = {"capture": capture_seconds, "analyse": time.perf_counter() - started}
    return Report(
        target, torch.__version__.partition("+")[0], captured.mode, batch_size, (*found.assumptions, *hidden), found.verdict,
        found.theorem, found.subdifferential, found.conditions, found.structure, layers,
        (*found.diagnostics, *_not_saved(source)),
        origin, "", timings,
    )  # fmt: skip


def _parameters(wrt: Iterable[nn.Parameter] | torch.optim.Optimizer | None) -> list[nn.Parameter] | None:
    if wrt is None:
        return None
    if isinstance(wrt, torch.optim.Optimizer):
        found = [p for group in wrt.param_groups for p in group["params"]]
    else:
        single = not isinstance(wrt, Iterable) or isinstance(wrt, (torch.Tensor, str, Mapping))
        found = [wrt] if single else list(wrt)
    wrong = [p for p in found if not isinstance(p, torch.Tensor)]
    if wrong:
        raise UsageError(f"wrt holds a value of type {type(wrong[0]).__name__}; wanted parameters",
                         hint="pass model.parameters(), a list of parameters, or one optimizer")  # fmt: skip
    if not found:
        raise UsageError("wrt holds no parameter", hint="leave it out for all that are trained")
    return found


def _proxy_source(proxies: Any) -> Measured | SavedFirst:
    if proxies is None:
        return Measured()
    if not isinstance(proxies, (ProxyTable, str, os.PathLike)):
        raise UsageError(f"proxies is {_kind(proxies)}; wanted the path of a saved table",
                         hint="save one with fxcheck proxies --format json -o FILE, or leave it out")  # fmt: skip
    return SavedFirst(proxies if isinstance(proxies, ProxyTable) else load_proxies(os.fspath(proxies)))


def _not_saved(source: Measured | SavedFirst) -> tuple[Diagnostic, ...]:
    """What the saved table did not hold, so that the installed torch was measured instead."""
    if isinstance(source, Measured) or not source.missing:
        return ()
    names = ", ".join(sorted(source.missing)[:5])
    return (Diagnostic(
        "FX204", f"the saved proxies (torch {source.saved.table.torch}) do not settle {names}; the installed torch was "
        "measured instead", "Save them again under that torch with this version of fxcheck.",
    ),)  # fmt: skip
