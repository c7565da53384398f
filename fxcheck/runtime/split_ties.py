"""Ties of maxima that share the gradient: over dimensions (amax, max()) and between two tensors (maximum, clamp)."""

from __future__ import annotations

import torch
from torch import Tensor

from fxcheck.records.checks import Check
from fxcheck.runtime.observed import Splits
from fxcheck.runtime.ties_found import counted

_LIMIT = 200_000
"""Tied entries that are followed, per operator and forward."""
_NONE = torch.empty(0, dtype=torch.int64)


def ties_that_split(check: Check, operands: list[Tensor], extrema: Tensor) -> Splits | None:
    """All tied entries of the outputs that have several.

    Args:
        check: the check; outputs at the values that it skips are left out.
        operands: one tensor that is reduced, or two that are compared entry by entry.
        extrema: what the forward computed.

    Returns:
        The entries, by output; None when there are more than are followed.
    """
    if len(operands) == 2:
        return _between(check, operands[0], operands[1], extrema)
    return _over_dimensions(check, operands[0], extrema)


def _between(check: Check, a: Tensor, b: Tensor, extrema: Tensor) -> Splits | None:
    equal = ((a == b) & counted(check, extrema)).expand(extrema.shape).reshape(-1)
    outputs = equal.nonzero().reshape(-1).cpu()
    if outputs.numel() > _LIMIT // 2:
        return None
    pairs = outputs.repeat_interleave(2)
    return Splits(check, pairs, torch.arange(2).repeat(len(outputs)), pairs)


def _over_dimensions(check: Check, x: Tensor, extrema: Tensor) -> Splits | None:
    dims = _dimensions(check, x.dim())
    keep = [d for d in range(x.dim()) if d not in dims]
    order = [*keep, *dims]
    rows = x.permute(order).reshape(extrema.numel(), -1)
    values = extrema.reshape(-1)
    equal = (rows == values[:, None]) & counted(check, values)[:, None]
    equal &= (equal.sum(1) >= 2)[:, None]
    outputs, columns = equal.nonzero(as_tuple=True)
    if outputs.numel() > _LIMIT:
        return None
    if not outputs.numel():
        return Splits(check, _NONE, _NONE, _NONE)
    where = torch.arange(x.numel(), device=x.device).reshape(x.shape).permute(order).reshape(rows.shape)
    return Splits(check, outputs.cpu(), torch.zeros_like(outputs).cpu(), where[outputs, columns].cpu())


def _dimensions(check: Check, rank: int) -> list[int]:
    dim = check.arguments.get("dim")
    if dim is None or dim == () or dim == []:
        return list(range(rank))
    return sorted({int(d) % rank for d in (dim if isinstance(dim, (tuple, list)) else [dim])} if rank else set())
