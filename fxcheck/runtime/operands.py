"""Tensors that a layer reads, as autograd knows them while a forward's graph lives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fxcheck.records.checks import Check, CheckKind


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

    def gradients(self, entries: Sequence[int], wanted: Sequence[Tensor]) -> Iterator[list[Tensor | None]]:
        """AD's gradients of single entries by the wanted tensors, one after another.

        Args:
            entries: flat indices; the operand is no constant.
            wanted: by these.
        """
        assert self.edge is not None
        for entry in entries:
            seed = self.like.new_zeros(self.numel)
            seed[entry] = 1.0
            with torch.enable_grad():
                found = torch.autograd.grad(
                    [self.edge], list(wanted), [seed.reshape(self.shape)], retain_graph=True, allow_unused=True
                )  # fmt: skip
            yield list(found)


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
