"""The two flows as straight-line code: read this first.

``analyze``: module + inputs -> captured program -> graph -> layers -> verdicts -> Report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fxcheck.capture.export import Captured, capture
from fxcheck.capture.lower import lower
from fxcheck.errors import UsageError
from fxcheck.ops.measured import Measured
from fxcheck.passes.pipeline import structure
from fxcheck.records.report import Report
from fxcheck.theory.classify import classify

if TYPE_CHECKING:
    from fxcheck.passes.find_activations import ProxySource


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
    args = args if isinstance(args, tuple) else (args,)
    captured = capture(model, args, kwargs, mode=mode, loss=loss, target=target)
    seconds = time.perf_counter() - started
    name = type(model).__name__
    return report_on(captured, name, batch_size=batch_size, wrt=wrt, proxies=proxies, capture_seconds=seconds)


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
    source, origin = _proxy_source(proxies)
    graph = lower(captured, _parameters(wrt))
    if batch_size is not None and graph.batch != batch_size:
        raise UsageError(
            f"the example minibatch holds {graph.batch} samples, but batch_size is {batch_size}",
            hint="give example inputs whose first dimension is the batch size",
        )
    found = classify(structure(graph, source, captured.hidden), batch_size)
    timings = {"capture": capture_seconds, "analyse": time.perf_counter() - started}
    return Report(
        target, torch.__version__.partition("+")[0], captured.mode, batch_size, found.assumptions, found.verdict,
        found.theorem, found.subdifferential, found.conditions, found.structure, found.layers, found.diagnostics,
        origin, "", timings,
    )  # fmt: skip


def _parameters(wrt: Iterable[nn.Parameter] | torch.optim.Optimizer | None) -> list[nn.Parameter] | None:
    if isinstance(wrt, torch.optim.Optimizer):
        return [p for group in wrt.param_groups for p in group["params"]]
    return None if wrt is None else list(wrt)


def _proxy_source(proxies: Any) -> tuple[ProxySource, str]:
    return Measured(), ""
