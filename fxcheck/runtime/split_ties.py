"""Ties of maxima that share the gradient: over dimensions (amax, max()) and between two tensors (maximum, clamp)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fxcheck.records.checks import Check
from fxcheck.runtime.observed import Splits
from fxcheck.runtime.position_classes import PositionClasses
from fxcheck.runtime.ties_found import counted

_LIMIT = 200_000
"""Tied entries that are followed, per operator and forward."""
_NONE = torch.empty(0, dtype=torch.int64)


def ties_that_split(check: Check, operands: list[Tensor], extrema: Tensor, classes: PositionClasses) -> Splits | None:
    """All tied entries of the outputs that have several, one for each function that is not proven equal to another.

    Args:
        check: the check; outputs at the values that it skips are left out.
        operands: one tensor that is reduced, or two that are compared entry by entry.
        extrema: what the forward computed.
        classes: proves that entries are equal functions.

    Returns:
        The entries, by output; None when there are more than are followed.
    """
    if len(operands) == 2:
        return _between(check, operands[0], operands[1], extrema)
    found = _over_dimensions(check, operands[0], extrema)
    if found is None or not found.outputs.numel():
        return found
    labels = classes.of_entries(check.operand, found.entries)
    return found if labels is None else _distinct(found, labels)


def _distinct(found: Splits, labels: Tensor) -> Splits:
    """One entry of each class at each output, at the outputs where there are several classes."""
    keys = torch.cat([found.outputs[None], labels]).numpy()
    order = np.lexsort(keys[::-1])
    new = np.ones(len(order), dtype=bool)
    new[1:] = (keys[:, order[1:]] != keys[:, order[:-1]]).any(0)
    first, group = order[new], np.empty_like(order)
    group[order] = np.cumsum(new) - 1
    outputs = found.outputs.numpy()[first]
    several = np.isin(outputs, outputs[1:][outputs[1:] == outputs[:-1]])  # classes are sorted by output
    entries, representative = found.entries.numpy(), found.entries.numpy()[first][group]
    pairs = zip(entries.tolist(), representative.tolist(), several[group].tolist(), strict=True)
    twins = {e: r for e, r, counts in pairs if counts and e != r}
    kept = torch.from_numpy(first[several])
    return Splits(found.check, found.outputs[kept], found.operands[kept], found.entries[kept], twins)


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
    equal = rows == values[:, None]
    tied = ((equal.sum(1, dtype=torch.int32) >= 2) & counted(check, values)).nonzero().reshape(-1)
    if not tied.numel():
        return Splits(check, _NONE, _NONE, _NONE)
    places, columns = equal[tied].nonzero(as_tuple=True)
    if places.numel() > _LIMIT:
        return None
    outputs = tied[places]
    where = torch.arange(x.numel(), device=x.device).reshape(x.shape).permute(order).reshape(rows.shape)
    return Splits(check, outputs.cpu(), torch.zeros_like(outputs).cpu(), where[outputs, columns].cpu())


def _dimensions(check: Check, rank: int) -> list[int]:
    dim = check.arguments.get("dim")
    if dim is None or dim == () or dim == []:
        return list(range(rank))
    return sorted({int(d) % rank for d in (dim if isinstance(dim, (tuple, list)) else [dim])} if rank else set())
