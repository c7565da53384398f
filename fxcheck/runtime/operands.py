"""Tensors that a layer reads, as autograd knows them while a forward's graph lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fxcheck.records.checks import Check, CheckKind

Member = tuple[int, int]
"""An operand of a layer, and a flat index into it."""


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor whose entries are told apart by flat row-major indices."""

    edge: GradientEdge | None
    """None for a constant."""
    shape: tuple[int, ...]
    like: Tensor
    """Zero-dimensional, with the tensor's dtype and device."""

    @classmethod
    def of(cls, tensor: Tensor) -> Operand:
        edge = get_gradient_edge(tensor) if tensor.requires_grad else None
        return cls(edge, tuple(tensor.shape), tensor.detach().new_zeros(()))

    @property
    def numel(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries of one operand, which is no constant."""

    operand: Operand
    entries: Tensor
    """int64 (E,), flat row-major indices without repetition."""

    @property
    def edge(self) -> GradientEdge:
        assert self.operand.edge is not None
        return self.operand.edge

    def seed(self, weights: Tensor) -> Tensor:
        """A tensor of the operand's shape that holds a weight (E,) at each entry, and 0 elsewhere."""
        like = self.operand.like
        seed = like.new_zeros(self.operand.shape)
        seed.view(-1)[self.entries.to(like.device)] = weights.to(like.device, like.dtype)
        return seed

    def of(self, tensor: Tensor) -> Tensor:
        """(E,), the entries of a tensor of the operand's shape."""
        return tensor.reshape(-1)[self.entries.to(tensor.device)]


def groups_of(
    weights: Mapping[Member, float], operands: Sequence[Operand]
) -> tuple[list[Entries], list[Tensor]]:
    """A weighted sum of entries as ``pulled_back`` takes it; what is constant is left out.

    Args:
        weights: of the members.
        operands: that the members are entries of.

    Returns:
        Entries of each operand that is no constant, and their weights.
    """
    groups, held = [], []
    for k, operand in enumerate(operands):
        mine = {entry: w for (o, entry), w in weights.items() if o == k}
        if operand.edge is not None and mine:
            groups.append(Entries(operand, torch.tensor(list(mine), dtype=torch.int64)))
            held.append(torch.tensor(list(mine.values()), dtype=torch.float64))
    return groups, held


def pulled_back(
    groups: Sequence[Entries], weights: Sequence[Tensor], parameters: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """The gradient of a weighted sum of entries by the parameters: one backward pass.

    Args:
        groups: entries of one or several forwards whose graphs live.
        weights: (E,) for each group.
        parameters: by these.
    """
    return _pulled_back(groups, [g.seed(w) for g, w in zip(groups, weights, strict=True)], parameters)


def _pulled_back(
    groups: Sequence[Entries], seeds: Sequence[Tensor], parameters: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """By the parameters, and with a graph where the seeds, one an operand, ask for one."""
    edges = [g.edge for g in groups]
    if not edges or not parameters:
        return [None for _ in parameters]
    with torch.enable_grad():
        return dense(torch.autograd.grad(
            edges, list(parameters), seeds, retain_graph=True, create_graph=any(s.requires_grad for s in seeds),
            allow_unused=True,
        ))  # fmt: skip


def dense(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Gradients as strided tensors; that of an embedding may be sparse."""
    return [g.to_dense() if g is not None and g.layout is not torch.strided else g for g in gradients]


class Tangents:
    """<gradient of the entry, v> for entries and any directions v: a gradient is linear in its seed, so that one backward pass
    with a graph serves all directions, each of them one more pass.

    Args:
        groups: entries of one or several forwards whose graphs live.
        parameters: gradients are by these.
        weights: (E,) for each group, at which ``pulled`` is taken; 1 by default.

    Raises:
        RuntimeError: an operation cannot be differentiated twice; from ``along``, too.
    """

    def __init__(
        self, groups: Sequence[Entries], parameters: Sequence[Tensor], weights: Sequence[Tensor] | None = None
    ) -> None:
        values = weights or [torch.ones(len(g.entries)) for g in groups]
        self._groups = groups
        self._seeds = [g.seed(w).requires_grad_() for g, w in zip(groups, values, strict=True)]
        self._found = _pulled_back(groups, self._seeds, parameters)

    @property
    def pulled(self) -> list[Tensor | None]:
        """The gradient of the weighted sum of the entries, one tensor a parameter."""
        return [None if g is None else g.detach() for g in self._found]

    def along(self, direction: Sequence[Tensor]) -> list[Tensor]:
        """The derivative of every entry along v.

        Args:
            direction: v, one tensor a parameter.

        Returns:
            float64 (E,) for each group, on the CPU.
        """
        zeros = [torch.zeros(len(g.entries), dtype=torch.float64) for g in self._groups]
        pairs = [(g, v.to(g.device, g.dtype)) for g, v in zip(self._found, direction, strict=True)
                 if g is not None and g.requires_grad]  # fmt: skip
        if not pairs:
            return zeros
        found, along = zip(*pairs, strict=True)
        answers = torch.autograd.grad(found, self._seeds, along, retain_graph=True, allow_unused=True)
        return [z if t is None else g.of(t).double().cpu() for g, t, z in zip(self._groups, answers, zeros, strict=True)]


def derivatives_along(
    groups: Sequence[Entries], parameters: Sequence[Tensor], direction: Sequence[Tensor]
) -> list[Tensor]:
    """As ``Tangents.along``, for a single direction."""
    return Tangents(groups, parameters).along(direction)


def operands_of(check: Check, values: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that hold a layer's entries, among what its check node handed over.

    Two that are compared entry by entry are broadcast to the result's shape.
    """
    if check.kind is not CheckKind.SPLIT:
        return [values[0]]
    operands, extrema = values[:-1], values[-1]
    return [v.expand(extrema.shape) for v in operands] if len(operands) == 2 else list(operands)


def at_entries(tensor: Tensor, entries: Sequence[int]) -> Tensor:
    """The named entries of a tensor, differentiably: (len(entries),)."""
    return tensor.reshape(-1)[torch.tensor(entries, dtype=torch.int64, device=tensor.device)]
