"""Rows by biases, written out where nothing but dense layers lies between (theory 5.2).

Linear layers, sums and ReLUs of (samples, features) treat samples one by one, so that the gradient of a touched entry stays in
its own sample. What autograd has saved of these few samples is pulled back in float64, all entries together, which takes a part
of the time of a backward pass through the batch, and rounds by far less.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import Node

from fxcheck.runtime.joint_rows import Rows
from fxcheck.runtime.many_rows import Subspace, by_a_sum
from fxcheck.runtime.operands import Entries
from fxcheck.runtime.rounding import FACTORS

_DTYPES = (torch.float32, torch.float64)
_MOST_ENTRIES = 64
_MOST_WEIGHTS = 1 << 22
"""Of a layer: they are copied to float64."""
_SAFETY = 16.0
_FLOOR = 2.0**-30
"""Of the longest entry: a direction has to show more than that, whatever was measured."""

_Saved = Any
"""A node with what it saved, as attributes that depend on its kind."""


class NotDense(Exception):
    """Other operations lie between the entries and the biases."""


def look_at(rows: Rows, biases: Sequence[Tensor]) -> Subspace | None:
    """Whether a sum of the rows is a direction on which all of them are positive.

    Args:
        rows: what they read, while the graph of the forward lives.
        biases: a direction moves only these.

    Returns:
        The subspace of that direction. None where it does not serve every row, where other operations lie between or AD takes
        neither side, on other devices than the CPU, in low precision, and for many entries; for one row nothing has to be known.

    Raises:
        RuntimeError: what autograd saved was overwritten.
    """
    groups = [r.group for r in rows.readings]
    likes = [g.operand.like for g in groups]
    if len(rows) < 2 or rows.mixed.any() or sum(len(g.entries) for g in groups) > _MOST_ENTRIES:
        return None
    if any(t.device.type != "cpu" or t.dtype not in _DTYPES for t in likes):
        return None
    try:
        entries, moved = measured(groups, biases)
    except NotDense:
        return None
    written, first = np.zeros((len(rows), entries.shape[1])), 0
    for reading in rows.readings:
        np.add.at(written, reading.rows, reading.signs[:, None] * entries[first + reading.places])
        first += len(reading.group.entries)
    return by_a_sum(rows, written, moved + _FLOOR * _longest(entries))


def measured(groups: Sequence[Entries], biases: Sequence[Tensor]) -> tuple[np.ndarray, float]:
    """Gradients of entries by biases, (E, coordinates), and how far rounding may have moved a row of them."""
    factors = FACTORS[:2]
    found = pulled_back(groups, biases, factors).numpy()
    first, second = (part / f for part, f in zip(np.split(found, 2), factors, strict=True))
    return first, _SAFETY * _longest(first - second)


def _longest(vectors: np.ndarray) -> float:
    return float(np.sqrt(np.square(vectors).sum(1).max()))


def pulled_back(groups: Sequence[Entries], biases: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    """Multiples of the gradients of entries by biases.

    Args:
        groups: entries of tensors whose graphs live.
        biases: leaves.
        factors: the multiples.

    Returns:
        float64 (factors * E, coordinates), all entries by the first factor, then by the next.

    Raises:
        NotDense: they cannot be told from the samples that the entries lie in.
    """
    return _Walk(groups, biases, factors).run()


class _Walk:
    """One pass from entries to biases. An adjoint is a tensor (factors * E, features): of each entry in its own sample."""

    def __init__(self, groups: Sequence[Entries], biases: Sequence[Tensor], factors: Sequence[float]) -> None:
        shapes = [g.operand.shape for g in groups]
        if any(len(s) != 2 or s[0] != shapes[0][0] for s in shapes):
            raise NotDense
        self.batch = shapes[0][0]
        ends = np.cumsum([0, *(b.numel() for b in biases)]).tolist()
        self.places = {id(b): slice(*ends[k : k + 2]) for k, b in enumerate(biases)}
        self.order, self.leading = _leading([g.edge.node for g in groups], self.places)
        self.samples = torch.cat([g.entries // g.operand.shape[1] for g in groups]).repeat(len(factors))
        self.found = torch.zeros(len(self.samples), ends[-1], dtype=torch.float64)
        self.adjoints: dict[Node, Tensor] = {}
        self.weights: dict[tuple[object, ...], Tensor] = {}
        first, total = 0, sum(len(g.entries) for g in groups)
        for group in groups:
            seed = torch.zeros(len(factors), total, group.operand.shape[1], dtype=torch.float64)
            rows = torch.arange(first, first + len(group.entries))
            seed[:, rows, group.entries % group.operand.shape[1]] = torch.tensor(factors, dtype=torch.float64)[:, None]
            self.send(group.edge.node, seed.flatten(0, 1))
            first += len(rows)

    def run(self) -> Tensor:
        for node in self.order:
            adjoint, through = self.adjoints.pop(node), _THROUGH.get(node.name())
            if through is None:
                raise NotDense
            through(self, node, adjoint)
        return self.found

    def send(self, node: Node | None, adjoint: Tensor) -> None:
        """Add an adjoint to those of a node, or of a bias."""
        if node is None or node not in self.leading:
            return
        bias = getattr(node, "variable", None)
        if bias is None:
            self.adjoints[node] = adjoint + self.adjoints[node] if node in self.adjoints else adjoint
        elif bias.shape == adjoint.shape[1:]:
            self.found[:, self.places[id(bias)]] += adjoint
        else:
            raise NotDense

    def weight(self, saved: Tensor) -> Tensor:
        """A matrix that was saved, in float64."""
        key = saved.data_ptr(), saved.dtype, saved.shape, saved.stride()
        if key not in self.weights:
            self.weights[key] = saved.detach().double()
        return self.weights[key]


def _leading(roots: Sequence[Node], wanted: Container[int]) -> tuple[list[Node], set[Node | None]]:
    """Nodes that lead to a wanted variable: all but the variables', each before what it leads to; and the set of all."""
    seen: set[Node] = set()
    leading: set[Node | None] = set()
    order: list[Node] = []
    for root in roots:
        stack = [] if root in seen else [(root, iter(root.next_functions))]
        seen.add(root)
        while stack:
            node, later = stack[-1]
            for found, _ in later:
                if found is not None and found not in seen:
                    seen.add(found)
                    if id(getattr(found, "variable", None)) in wanted:
                        leading.add(found)
                    else:
                        stack.append((found, iter(found.next_functions)))
                        break
                if found in leading:
                    leading.add(node)
            else:
                stack.pop()
                if node in leading:
                    order.append(node)
                    leading.update(n for n, _ in stack[-1:])
    return order[::-1], leading


# What a node sends on ----------------------------------------------------------------------------


def _through_linear(walk: _Walk, node: _Saved, adjoint: Tensor) -> None:
    """bias + input @ weight."""
    (bias, _), (operand, _), (weight, _) = node.next_functions
    if node._saved_alpha != 1 or node._saved_beta != 1 or (bias in walk.leading and getattr(bias, "variable", None) is None):
        raise NotDense
    walk.send(bias, adjoint)
    if operand in walk.leading or weight in walk.leading:
        _through_product(walk, node, (operand, weight), node._saved_mat1_sym_sizes, adjoint)


def _through_matmul(walk: _Walk, node: _Saved, adjoint: Tensor) -> None:
    (operand, _), (weight, _) = node.next_functions
    _through_product(walk, node, (operand, weight), node._saved_self_sym_sizes, adjoint)


def _through_product(
    walk: _Walk, node: _Saved, factors: tuple[Node | None, Node | None], sizes: Sequence[int], adjoint: Tensor
) -> None:
    """The gradient by the input, (batch, ...), of its product with a weight that depends on no bias."""
    operand, weight = factors
    if weight in walk.leading or sizes[0] != walk.batch:
        raise NotDense
    saved = node._saved_mat2
    if saved.shape[1] != adjoint.shape[1] or saved.numel() > _MOST_WEIGHTS:
        raise NotDense
    walk.send(operand, adjoint @ walk.weight(saved).t())


def _through_relu(walk: _Walk, node: _Saved, adjoint: Tensor) -> None:
    result = node._saved_result.detach()
    if result.shape != (walk.batch, adjoint.shape[1]):
        raise NotDense
    walk.send(node.next_functions[0][0], adjoint * (result[walk.samples] > 0))


def _through_sum(walk: _Walk, node: _Saved, adjoint: Tensor) -> None:
    """Of two tensors, which are broadcast only if they are biases: other shapes are refused where they come from."""
    if node._saved_alpha != 1:
        raise NotDense
    for operand, _ in node.next_functions:
        walk.send(operand, adjoint)


_THROUGH: dict[str, Callable[[_Walk, Node, Tensor], None]] = {
    "AddmmBackward0": _through_linear,
    "MmBackward0": _through_matmul,
    "ReluBackward0": _through_relu,
    "AddBackward0": _through_sum,
}
