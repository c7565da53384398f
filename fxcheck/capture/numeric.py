"""The second line of defence: compare backward with finite differences in a random direction (``--numeric``)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from fxcheck.capture.inputs import Example
from fxcheck.errors import FxcheckError

_STEP = 1e-6
_AGREE = 1e-3


def compare_numerically(model: nn.Module, example: Example, mode: str) -> str:
    """Run a float64 copy of the model at random inputs and compare directional derivatives.

    Args:
        model: left alone; a copy runs.
        example: gives shapes and dtypes; floating-point inputs are drawn at random.
        mode: ``train``, ``eval`` or ``keep``.

    Returns:
        One sentence: what was compared, and the largest relative difference.

    Raises:
        FxcheckError: the model cannot be run (it is on the meta device), or backward is not the derivative.
    """
    if any(p.is_meta for p in model.parameters()):
        raise FxcheckError("--numeric runs the model, but its weights are on the meta device", hint="drop --meta")
    rng = torch.get_rng_state()
    try:
        torch.manual_seed(0)
        twin = copy.deepcopy(model).double()
        if mode != "keep":
            twin.train(mode == "train")
        worst = _largest_difference(twin, *_random_inputs(twin, example))
    finally:
        torch.set_rng_state(rng)
    if worst > _AGREE:
        raise FxcheckError(
            f"backward differs from finite differences by {worst:.1e} (relative) at a random point",
            code="FX507", hint="look for hooks, custom backward functions or detached values",
        )  # fmt: skip
    return f"backward agrees with central differences in a random direction (float64, relative difference {worst:.1e})"


def _random_inputs(model: nn.Module, example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def draw(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if value.is_floating_point():
            return torch.randn(value.shape, dtype=torch.float64, device=device)
        return torch.zeros(value.shape, dtype=value.dtype, device=device) if value.is_meta else value

    return torch.utils._pytree.tree_map(draw, (example.args, dict(example.kwargs)))  # type: ignore[no-any-return]


def _largest_difference(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        return 0.0
    directions = [torch.randn_like(p) for p in parameters]
    loss = _scalar(model, args, kwargs)
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    exact = sum(float((g * d).sum()) for g, d in zip(grads, directions, strict=True) if g is not None)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=sign * _STEP)
            values.append(float(_scalar(model, args, kwargs)))
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=-sign * _STEP)
    difference = (values[0] - values[1]) / (2 * _STEP)
    return abs(difference - exact) / max(1.0, abs(exact), abs(difference))


def _scalar(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """A fixed random combination of the outputs, with the same random numbers inside the model each time."""
    torch.manual_seed(1)
    outputs = torch.utils._pytree.tree_leaves(model(*args, **kwargs))
    torch.manual_seed(2)
    floats = [o for o in outputs if isinstance(o, torch.Tensor) and o.is_floating_point()]
    return sum(((o * torch.randn_like(o)).mean() for o in floats), torch.zeros((), dtype=torch.float64))
