"""Entries whose total gradient is exactly zero, found together: a dead pixel of an L1 loss needs no row of its own.

Two backward passes over all entries give <g_k, v> for one random v and every entry k, since a gradient is linear in its seed.
Where that is exactly 0, and a random combination of all such entries has the gradient 0 too, each of them has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fxcheck.runtime.operands import Operand

_SEED = 20241206
_CONFIRMATIONS = 2


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries of one tensor."""

    operand: Operand
    entries: Tensor
    """int64 (E,), flat row-major indices without repetition."""


def are_zero(groups: Sequence[Entries], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Which entries have a gradient by the parameters that is exactly zero.

    Args:
        groups: entries of several tensors of one forward, whose graph lives.
        parameters: by these.

    Returns:
        bool (E,) for each group, on the CPU; False also where it is not known.
    """
    live = [g for g in groups if g.operand.edge is not None and g.entries.numel()]
    tangents = _tangents(live, parameters)
    if tangents is None:
        candidates = [torch.ones(len(g.entries), dtype=torch.bool) for g in live]
    else:
        candidates = [(t == 0).cpu() for t in tangents]
    generator = torch.Generator().manual_seed(_SEED)
    confirmed = all(_vanish_together(live, candidates, parameters, generator) for _ in range(_CONFIRMATIONS))
    answers = iter(candidates if confirmed else [torch.zeros_like(c) for c in candidates])
    return [
        torch.ones(len(g.entries), dtype=torch.bool) if g.operand.edge is None
        else next(answers) if g.entries.numel() else torch.zeros(0, dtype=torch.bool)
        for g in groups
    ]  # fmt: skip


def _tangents(groups: Sequence[Entries], parameters: Sequence[Tensor]) -> list[Tensor] | None:
    """<gradient of the entry, v> for one random v; None where an operation cannot be differentiated twice."""
    weights = [torch.ones(len(g.entries), dtype=g.operand.like.dtype, device=g.operand.like.device, requires_grad=True)
               for g in groups]  # fmt: skip
    generator = torch.Generator().manual_seed(_SEED)
    with torch.enable_grad():
        seeds = [_seed(g, w) for g, w in zip(groups, weights, strict=True)]
        try:
            found = _gradients(groups, parameters, seeds, create_graph=True)
            total = [
                (g * torch.randn(g.shape, generator=generator).to(g.device, g.dtype)).sum()
                for g in found if g is not None and g.requires_grad
            ]  # fmt: skip
            if not total:
                return [torch.zeros_like(w) for w in weights]
            tangents = torch.autograd.grad(sum(total[1:], total[0]), weights, retain_graph=True, allow_unused=True)
        except (RuntimeError, NotImplementedError):
            return None
    return [torch.zeros_like(w) if t is None else t for t, w in zip(tangents, weights, strict=True)]


def _vanish_together(
    groups: Sequence[Entries], chosen: Sequence[Tensor], parameters: Sequence[Tensor], generator: torch.Generator
) -> bool:
    seeds = []
    for group, mask in zip(groups, chosen, strict=True):
        weights = (0.5 + torch.rand(len(mask), generator=generator)) * mask
        seeds.append(_seed(group, weights.to(group.operand.like.device, group.operand.like.dtype)))
    with torch.enable_grad():
        found = _gradients(groups, parameters, seeds, create_graph=False) if groups else []
    return not any(bool(g.any()) for g in found if g is not None)


def _seed(group: Entries, weights: Tensor) -> Tensor:
    zeros = group.operand.like.new_zeros(group.operand.numel)
    return zeros.index_put((group.entries.to(zeros.device),), weights).reshape(group.operand.shape)


def _gradients(
    groups: Sequence[Entries], parameters: Sequence[Tensor], seeds: Sequence[Tensor], create_graph: bool
) -> Sequence[Tensor | None]:
    edges = [g.operand.edge for g in groups]
    return torch.autograd.grad(
        edges, list(parameters), list(seeds), retain_graph=True, create_graph=create_graph, allow_unused=True  # type: ignore[arg-type]
    )  # fmt: skip
