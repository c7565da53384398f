"""Ties of maxima that share the gradient: over dimensions (amax, max()) and between two tensors (maximum, clamp)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fxcheck import scan
from fxcheck.records.checks import Check
from fxcheck.runtime.observed import Splits
from fxcheck.runtime.position_classes import PositionClasses
from fxcheck.scan import Shared

_LIMIT = 200_000
"""Tied entries that are followed, per operator and forward."""


def shared_extrema(check: Check, operands: list[Tensor], extrema: Tensor) -> Shared:
    """All tied entries of the outputs that have several.

    Args:
        check: the check; outputs at the values that it skips are left out.
        operands: one tensor that is reduced, or two that are compared entry by entry.
        extrema: what the forward computed.
    """
    if len(operands) == 2:
        return scan.equal(operands[0], operands[1], extrema, check.skip, _LIMIT // 2, check.floor)
    dims = _dimensions(check, operands[0].dim())
    return scan.shared(operands[0], extrema, dims, check.skip, _LIMIT, check.floor)


def ties_that_split(check: Check, shared: Shared, classes: PositionClasses) -> Splits:
    """Tied entries, one for each function that is not proven equal to another.

    Args:
        check: the check.
        shared: what ``shared_extrema`` found.
        classes: proves that entries are equal functions.

    Returns:
        The entries, by output.
    """
    outputs, entries = shared.outputs.cpu(), shared.entries.cpu()
    if len(check.reads) == 2:
        pairs = outputs.repeat_interleave(2)
        return Splits(check, pairs, torch.arange(2).repeat(len(outputs)), pairs)
    found = Splits(check, outputs, torch.zeros_like(outputs), entries)
    labels = classes.of_entries(check.operand, entries) if entries.numel() else None
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


def _dimensions(check: Check, rank: int) -> list[int]:
    dim = check.arguments.get("dim")
    if dim is None or dim == () or dim == []:
        return list(range(rank))
    return sorted({int(d) % rank for d in (dim if isinstance(dim, (tuple, list)) else [dim])} if rank else set())
