"""Measure how autograd divides the gradient of a max among tied entries (theory 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fxcheck.errors import ProxyError
from fxcheck.ops.probe import ROUNDING, Mode

TieFunction = Callable[[Tensor], Tensor]
"""From the entries (one dimension) to their max, a tensor with one element."""


def measure_tie(
    function: TieFunction, entries: Sequence[float], dtype: torch.dtype, device: str = "cpu", mode: Mode = "backward"
) -> tuple[float, ...]:
    """AD's gradient of ``function`` at the entries.

    Raises:
        ProxyError: it cannot be run or differentiated in this dtype and mode.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.tensor(entries, dtype=dtype, device=device)
        try:
            weights = _backward(function, x) if mode == "backward" else _forward(function, x)
        except (RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            name = str(dtype).removeprefix("torch.")
            raise ProxyError(f"{mode} mode cannot be measured in {name}: {reason}") from error
    return tuple(weights.double().tolist())


def _backward(function: TieFunction, x: Tensor) -> Tensor:
    value = function(x.requires_grad_()).sum()
    return torch.autograd.grad(value, x)[0]


def _forward(function: TieFunction, x: Tensor) -> Tensor:
    weights = torch.zeros_like(x)
    for i in range(x.numel()):
        direction = torch.zeros_like(x)
        direction[i] = 1
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(x, direction)).sum()).tangent
            weights[i] = 0 if tangent is None else tangent
    return weights


def classify_tie(weights: Sequence[float], tied: Sequence[int], dtype: torch.dtype) -> str:
    """Name the rule behind measured weights.

    Args:
        weights: the gradient on every entry.
        tied: indices of the tied entries, ascending.
        dtype: gives the tolerance.

    Returns:
        ``one_hot_first``, ``one_hot_last``, ``one_hot_other``, ``split``, ``other`` (another mixture), or
        ``unsupported``: not a mixture of the tied entries' gradients.

    Source: theory 4.1, 4.2: weights must be >= 0 with sum 1.
    """
    tolerance = ROUNDING[dtype]
    values = [weights[i] for i in tied]
    outside = sum(abs(w) for i, w in enumerate(weights) if i not in tied)
    # Written so that a nan fails.
    if not (outside <= tolerance and min(values) >= -tolerance and abs(sum(values) - 1) <= tolerance * len(values)):
        return "unsupported"
    if max(values) >= 1 - tolerance:
        place = values.index(max(values))
        return {0: "one_hot_first", len(values) - 1: "one_hot_last"}.get(place, "one_hot_other")
    return "split" if max(values) - min(values) <= tolerance else "other"
