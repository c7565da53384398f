"""Look: which entry of a bias moves which entry of a pre-activation, by running structure on labels (theory 5.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
import torch
from fxcheck.passes.annotate import Annotated
from torch import Tensor

from fxcheck.records.bias import EntryClass, Moved
from fxcheck.records.graph import Node, OpenSize, Ref, refs_in
from fxcheck.records.semantics import Kind, Transfer

MOST_LABELS = 2**22
"""Entries of one tensor, or of the parameter, that are followed."""

_SHAPES = frozenset({
    "view.default", "reshape.default", "reshape_as.default", "view_as.default", "flatten.using_ints", "unflatten.int",
    "ravel.default", "_unsafe_view.default", "squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default",
})  # fmt: skip
"""Entries stay in their order; only the shape changes."""
_COPIES = frozenset({
    "clone.default", "contiguous.default", "alias.default", "to.dtype", "to.device", "to.dtype_layout", "to.other",
    "_to_copy.default", "type_as.default", "positive.default",
})  # fmt: skip
_REPEATS = frozenset({"expand.default", "expand_as.default", "broadcast_to.default"})
_PADS = frozenset({"constant_pad_nd.default", "pad.default"})
_MOVES = _PADS | frozenset({
    "permute.default", "transpose.int", "t.default", "numpy_T.default", "mT.default", "movedim.int", "movedim.intlist",
    "moveaxis.int", "moveaxis.intlist", "swapaxes.default", "swapdims.default", "slice.Tensor", "select.int",
    "narrow.default", "split.Tensor", "split.sizes", "split.default", "split_with_sizes.default", "chunk.default",
    "tensor_split.sections", "tensor_split.indices", "unbind.int", "cat.default", "concat.default", "concatenate.default",
    "stack.default", "hstack.default", "vstack.default", "dstack.default", "flip.default", "fliplr.default",
    "flipud.default", "roll.default", "rot90.default", "repeat.default", "tile.default", "repeat_interleave.self_int",
    "pixel_shuffle.default", "pixel_unshuffle.default", "channel_shuffle.default", "reflection_pad1d.default",
    "reflection_pad2d.default", "replication_pad1d.default", "replication_pad2d.default", "upsample_nearest1d.default",
    "upsample_nearest1d.vec", "upsample_nearest2d.default", "upsample_nearest2d.vec",
})  # fmt: skip
"""Operators that put entries elsewhere, whatever the entries are: torch's own operator moves the labels. What reads an
index tensor or a mask is not among them."""
_REFUSED = (RuntimeError, IndexError, TypeError, ValueError)
"""What torch raises where an operator does not fit the labels of one sample."""


class _UnknownError(Exception):
    """Some entry is moved by several entries of the parameter, or in a way that is not followed."""


def follow_entries(
    facts: Annotated, cuts: Mapping[int, int], classes: Mapping[int, tuple[EntryClass, ...]], parameter: int
) -> dict[int, Moved]:
    """Label every entry of a tau with the one entry of a parameter that moves it, and with the direction.

    A label is 0 where no entry of the parameter has an influence, and ``i + 1`` or ``-i - 1`` where entry i is the only
    one that has: growing it never moves the labelled entry down, or never up. (Strict pushes are the classes' business.)
    The minibatch's dimension is always the first, and along it labels repeat; it is held with size 1. So what is found
    holds for every minibatch size. An operator that might mix samples, or whose arguments depend on their number, ends it.

    Args:
        facts: the annotated graph.
        cuts: outputs of earlier layers, as for ``find_biases``.
        classes: entry classes of all nodes of the taus, as ``find_biases`` returns them.
        parameter: index of the parameter to follow.

    Returns:
        What the parameter moves, for each node at which this is known.

    Source: theory 5.5.
    """
    follower = _Follower(facts, cuts, classes, parameter)
    follower.run()
    count = facts.graph.nodes[list(facts.graph.trainable)[parameter]].numel
    return {n: _moved(label, count) for n, label in follower.labels.items() if isinstance(label, Tensor)}


def _moved(labels: Tensor, count: int) -> Moved:
    spread = [stride == 0 and size > 1 for size, stride in zip(labels.shape, labels.stride(), strict=True)]
    once = labels[tuple(slice(1) if s else slice(None) for s in spread)]
    held = once[once != 0].to(torch.int64)
    up, down = (torch.bincount(side - 1, minlength=count) for side in (held[held > 0], -held[held < 0]))
    return Moved(_mask(up > 0), _mask(down > 0), _mask(up + down > (0 if any(spread) else 1)))


def _mask(chosen: Tensor) -> int:
    return int.from_bytes(np.packbits(chosen.numpy(), bitorder="little").tobytes(), "little")


Labels = Tensor | tuple[Tensor, ...]


class _Follower:
    def __init__(
        self, facts: Annotated, cuts: Mapping[int, int], classes: Mapping[int, tuple[EntryClass, ...]], parameter: int
    ) -> None:
        self.facts, self.cuts, self.nodes = facts, cuts, facts.graph.nodes
        self.leaf = list(facts.graph.trainable)[parameter]
        self.influenced = {n for n, held in classes.items() if any(c.mask >> parameter & 1 for c in held)}
        self.labels: dict[int, Labels] = {}
        """Of influenced nodes; one that is missing is not known."""
        self.fed = self._fed_by_inputs()
        first = next((n for n in self.nodes if n.op == "fxcheck.input" and n.shape), None)
        self.samples = first.symbols[0] if first is not None and first.symbols else ""
        """The symbol of the minibatch's size; empty where the capture fixed it."""

    def _fed_by_inputs(self) -> set[int]:
        fed: set[int] = set()
        for node, sources in zip(self.nodes, self.facts.graph.inputs_of, strict=True):
            if node.op == "fxcheck.input" or any(s in fed for s in sources):
                fed.add(node.id)
        return fed

    def run(self) -> None:
        for id_ in sorted(self.influenced):
            try:
                self.labels[id_] = self._describe(self.nodes[id_])
            except (_UnknownError, *_REFUSED):
                continue

    # Shapes and samples --------------------------------------------------------------------------

    def _holds_samples(self, node: Node) -> bool:
        """The first dimension is the minibatch's."""
        if self.samples:
            return node.symbols[:1] == (self.samples,)
        fixed = bool(node.shape) and not any(node.symbols[:1])
        return fixed and node.shape[0] == self.facts.graph.batch and node.id in self.fed  # type: ignore[index]

    def _shape(self, node: Node) -> tuple[int, ...]:
        """Of the node's labels: of one sample."""
        if node.shape is None:
            raise _UnknownError
        several = self._holds_samples(node)
        shape = (1, *node.shape[1:]) if several else node.shape
        if any(node.symbols[1 if several else 0 :]) or math.prod(shape) > MOST_LABELS:
            raise _UnknownError
        return shape

    def _of(self, id_: int) -> Labels:
        if id_ not in self.labels:
            raise _UnknownError
        return self.labels[id_]

    def _tensor(self, id_: int) -> Tensor:
        labels = self._of(id_)
        if not isinstance(labels, Tensor):
            raise _UnknownError
        return labels

    def _aligned(self, id_: int, node: Node, factor: float = 1.0) -> Tensor:
        """Labels of an operand that is broadcast to the node's shape, samples to samples, under a factor's sign."""
        operand, shape = self.nodes[id_], self._shape(node)
        labels, same_rank = self._tensor(id_), len(operand.shape or ()) == len(shape)
        if self._holds_samples(operand):
            aligned = same_rank and self._holds_samples(node)
        else:
            aligned = not (same_rank and self._holds_samples(node) and labels.shape[0] != 1)
        if not aligned:
            raise _UnknownError
        return (labels if factor > 0 else -labels).expand(shape)

    # One rule per transfer -------------------------------------------------------------------------

    def _describe(self, node: Node) -> Labels:
        if node.id == self.leaf:
            shape = self._shape(node)
            return torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).reshape(shape)
        semantics = self.facts.semantics[node.id]
        if node.id in self.cuts or semantics.kind in (Kind.DISCONTINUOUS, Kind.BREAKING):
            raise _UnknownError
        match semantics.transfer:
            case Transfer.KEEP | Transfer.PAD:
                return self._structural(node)
            case Transfer.ADD:
                return self._add(node)
            case Transfer.MULTIPLY | Transfer.DIVIDE:
                return self._scaled(node)
            case Transfer.AFFINE:
                return self._affine(node)
            case Transfer.DROPOUT:
                return self._aligned(self._only(node), node)
        raise _UnknownError

    def _sources(self, node: Node) -> list[int]:
        """The influenced nodes that it reads, as often as it reads them."""
        return [s for s in refs_in(dict(node.arguments)) if s in self.influenced]

    def _only(self, node: Node) -> int:
        sources = self._sources(node)
        if len(sources) != 1:
            raise _UnknownError
        return sources[0]

    def _structural(self, node: Node) -> Labels:
        if node.op == "fxcheck.getitem":
            source = self._only(node)
            return self._checked(node, self._of(source)[node.arguments["index"]], self.nodes[source])
        name = node.op.removeprefix("aten.")
        if name in _MOVES:
            return self._checked(node, self._run(node, name in _PADS), node)
        source = self._only(node)
        if name in _REPEATS:
            return self._aligned(source, node)
        if name in _SHAPES | _COPIES:
            return self._checked(node, self._tensor(source).reshape(self._shape(node)), node)
        raise _UnknownError

    def _checked(self, node: Node, labels: Labels, reader: Node) -> Labels:
        """Samples stay where they are, and what came out has the shape of one sample."""
        if isinstance(labels, Tensor):
            sources = [self.nodes[s] for s in refs_in(dict(reader.arguments))]
            if any(map(self._holds_samples, sources)) and not self._holds_samples(node):
                raise _UnknownError
            if tuple(labels.shape) != self._shape(node):
                raise _UnknownError
        return labels

    def _run(self, node: Node, pads: bool) -> Labels:
        name, overload = node.op.removeprefix("aten.").split(".")
        operator = getattr(getattr(torch.ops.aten, name), overload)
        arguments = {k: self._labelled(v) for k, v in node.arguments.items()}
        if pads:
            arguments["value"] = 0.0
        schema = operator._schema.arguments
        found = operator(
            *(arguments[a.name] for a in schema if not a.kwarg_only),
            **{a.name: arguments[a.name] for a in schema if a.kwarg_only},
        )
        return found if isinstance(found, Tensor) else tuple(found)

    def _labelled(self, value: Any) -> Any:
        """An argument with labels in the place of tensors."""
        if isinstance(value, OpenSize):
            raise _UnknownError
        if isinstance(value, (tuple, list)):
            return [self._labelled(v) for v in value]
        if not isinstance(value, Ref):
            return value
        if value.id in self.influenced:
            return self._tensor(value.id)
        return torch.zeros((), dtype=torch.float64).expand(self._shape(self.nodes[value.id]))

    def _add(self, node: Node) -> Tensor:
        names = [n for n in ("self", "other") if isinstance(node.arguments.get(n), (Ref, int, float))]
        scales = self.facts.semantics[node.id].scales or (1.0,) * len(names)
        if len(scales) != len(names) or any(isinstance(s, bool) or s == 0 for s in scales):
            raise _UnknownError
        values = [(node.arguments[name], scale) for name, scale in zip(names, scales, strict=True)]
        terms = [self._aligned(v.id, node, s) for v, s in values if isinstance(v, Ref) and v.id in self.influenced]
        return reduce(_joined, terms)

    def _scaled(self, node: Node) -> Tensor:
        """Times or over what the parameter does not influence and has one sign."""
        source = self._only(node)
        divides = self.facts.semantics[node.id].transfer is Transfer.DIVIDE
        value, other = node.arguments.get("self"), node.arguments.get("other")
        is_left = isinstance(value, Ref) and value.id == source
        if divides and (node.arguments.get("rounding_mode") is not None or not is_left):
            raise _UnknownError
        return self._aligned(source, node, self._number(other if is_left else value))

    def _number(self, factor: Any) -> float:
        """A factor's value, or 1 for one that is known to be positive."""
        number = self.facts.constants.get(factor.id) if isinstance(factor, Ref) else factor
        if isinstance(factor, Ref) and number is None and self.facts.lower.get(factor.id, -math.inf) > 0:
            return 1.0
        if isinstance(number, bool) or not isinstance(number, (int, float)) or number == 0:
            raise _UnknownError
        return number

    def _affine(self, node: Node) -> Tensor:
        """The bias of a layer whose other operands the parameter does not influence."""
        source, semantics, shape = self._only(node), self.facts.semantics[node.id], self._shape(node)
        bias, axis = node.arguments.get(semantics.bias or ""), semantics.bias_axis % max(1, len(shape))
        labels = self._tensor(source)
        is_bias = isinstance(bias, Ref) and bias.id == source and labels.dim() == 1
        if not is_bias or (axis == 0 and self._holds_samples(node)):
            raise _UnknownError
        return labels.reshape([-1 if i == axis else 1 for i in range(len(shape))]).expand(shape)


def _joined(a: Tensor, b: Tensor) -> Tensor:
    """Labels of a sum: an entry that two entries of the parameter move, or one in both directions, has none."""
    if bool(((a != 0) & (b != 0) & (a != b)).any()):
        raise _UnknownError
    return torch.where(a == 0, b, a)


