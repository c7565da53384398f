"""Instrumenting checks itself: the rewritten program against the original, bit for bit, on the example inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fxcheck.capture.export import left_as_it_was
from fxcheck.errors import FxcheckError
from fxcheck.runtime.operands import dense

_SEED = 20240507


def validate(
    roots: nn.ModuleList, original: Callable[[], Any], rewritten: Callable[[], Any], parameters: Mapping[str, Tensor]
) -> str:
    """Run both forms on the same inputs, random numbers and buffers, and compare outputs and gradients.

    Args:
        roots: the modules whose state is restored after each run.
        original: runs the user's model.
        rewritten: runs the program with check nodes.
        parameters: gradients by these are compared.

    Returns:
        An empty text where all agree bit for bit; else what the original's own spread between two runs is.

    Raises:
        FxcheckError: outputs or gradients differ by more than the original differs from itself.
    """
    first, second = _run(roots, original, parameters), _run(roots, original, parameters)
    checked = _run(roots, rewritten, parameters)
    if first.keys() != checked.keys():
        raise _refusal("it returns tensors of another structure")
    spread = 0.0
    for name, value in first.items():
        noise = _distance(value, second[name])
        spread = max(spread, noise)
        if _distance(value, checked[name]) > 2 * noise:
            raise _refusal(f"{name} differ{'s' if 'gradient' in name else ''}")
    if not spread:
        return ""
    return f"the original model differs from itself between two equal runs (by up to {spread:.3g}); compared within that"


def _refusal(what: str) -> FxcheckError:
    return FxcheckError(
        f"the instrumented model does not reproduce the original on the example inputs: {what}, so it was not built",
        hint="look for state that the forward keeps in Python; please report the model",
    )


def _run(roots: nn.ModuleList, run: Callable[[], Any], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs, and gradients of a fixed random combination of them."""
    with left_as_it_was(roots), torch.enable_grad():
        torch.manual_seed(_SEED)
        outputs = [v for v in tree_leaves(run()) if isinstance(v, Tensor)]
        found = {f"output {i}": v.detach().clone() for i, v in enumerate(outputs)}
        generator = torch.Generator().manual_seed(_SEED)
        live = [v for v in outputs if v.requires_grad]
        seeds = [torch.randn(v.shape, generator=generator).to(v.device, v.dtype) for v in live]
        wanted = [p for p in parameters.values() if p.requires_grad]
        if live and wanted:
            gradients = dense(torch.autograd.grad(live, wanted, seeds, allow_unused=True))
            names = [n for n, p in parameters.items() if p.requires_grad]
            found |= {f"the gradient of {n}": g for n, g in zip(names, gradients, strict=True) if g is not None}
    return found


def _distance(a: Tensor, b: Tensor) -> float:
    """Largest difference; infinite for other shapes or dtypes, 0 where both are NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if torch.equal(a, b):
        return 0.0
    difference = (a.double() - b.double()).abs()
    difference = difference.masked_fill(a.isnan() & b.isnan(), 0.0)
    return float(difference.nan_to_num(nan=float("inf")).max()) if difference.numel() else 0.0
