"""Which positions of a tensor are the same function of the parameters: position classes, along the graph (theory 4.10).

A class says what a position of one sample depends on: the bits of the input cells in its receptive field and how they
are laid out. Equal classes prove that the entries of each channel are equal as functions of the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from fxcheck.ops.evaluate import apply_overload
from fxcheck.passes.annotate import Annotated
from fxcheck.records.graph import Node, Ref
from fxcheck.records.semantics import Kind
from fxcheck.runtime.windows_of import convolution_windows, numbers, pooling_windows
from fxcheck.scan import Windows, classes

_CONVOLUTIONS = ("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d",
          "adaptive_max_pool2d", "adaptive_avg_pool1d", "adaptive_max_pool1d", "adaptive_avg_pool3d",
          "adaptive_max_pool3d", "max_pool2d_with_indices")  # fmt: skip
_RANDOM = ("dropout", "rrelu", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
_VIEWS = ("aten.unfold.default", "aten.transpose.int", "aten.unsqueeze.default", "aten.squeeze.dim", "aten.flatten.using_ints")
_SAME_POSITIONS = ("clone", "contiguous", "to", "_to_copy", "alias", "detach")


@dataclass(frozen=True, eq=False)
class Picks:
    """AD's choices in one pool: an entry of its result has the gradient of the entry that AD picked."""

    operand: int
    """Graph node that the pool reads."""
    chosen: Tensor
    """Index into the flattened spatial dimensions of the operand, shaped as the result."""


@dataclass
class PositionClasses:
    """Class maps of one forward, computed when they are asked for."""

    facts: Annotated
    inputs: Mapping[str, Tensor]
    """The forward's inputs by the name of their placeholder."""
    found: dict[int, Tensor | None] = field(default_factory=dict)
    picks: dict[int, Picks] = field(default_factory=dict)
    """Of the pools that have run, by graph node."""

    def picks_behind(self, node: int) -> Picks | None:
        """The picks of the pool that a node is, or is the first result of; None where it is none that has run."""
        held = self.facts.graph.nodes[node]
        is_first = held.op == "fxcheck.getitem" and held.arguments["index"] == 0
        return self.picks.get(held.arguments["self"].id if is_first else node)

    def of(self, node: int) -> Tensor | None:
        """The class map (2, B, *spatial) of a graph node of shape (B, C, *spatial); None where none is known."""
        if node not in self.found:
            self.found[node] = self._map(self.facts.graph.nodes[node])
        return self.found[node]

    def of_entries(self, node: int, entries: Tensor) -> Tensor | None:
        """What single entries of a graph node depend on: entries with equal columns are equal functions.

        Args:
            node: one with classes, or a view of one, such as its windows by ``unfold``.
            entries: int64 (P,), flat row-major indices, on the CPU.

        Returns:
            int64 (4, P): sample, channel and class; None where no classes are known.
        """
        views: list[Node] = []
        held = self.facts.graph.nodes[node]
        while self.of(held.id) is None:
            source = held.arguments.get("self")
            fixed = all(not isinstance(v, (Ref, tuple)) for n, v in held.arguments.items() if n != "self")
            if held.op not in _VIEWS or not isinstance(source, Ref) or not fixed:
                return None
            views.append(held)
            held = self.facts.graph.nodes[source.id]
        known = self.of(held.id)
        if known is None or held.shape is None:
            return None
        channels, plane = held.shape[1], prod(known.shape[2:])
        origin = torch.arange(known.shape[1] * channels * plane).reshape(known.shape[1], channels, *known.shape[2:])
        for view in reversed(views):
            origin = apply_overload(view.op, {**view.arguments, "self": origin}, origin)
        at = origin.reshape(-1)[entries]
        sample, channel = at.div(channels * plane, rounding_mode="floor"), at.div(plane, rounding_mode="floor") % channels
        classes_of_entries = known.flatten(2).cpu()[:, sample, at % plane]
        return torch.stack([sample, channel, *classes_of_entries])

    def mixed(self, node: int, windows: Windows) -> Tensor | None:
        """Windows (B, *S_out) over a node whose cells are not all of one class; None where no classes are known."""
        known = self.of(node)
        return None if known is None else classes.mixed(known, windows)

    def _map(self, node: Node) -> Tensor | None:
        if node.op == "fxcheck.input":
            value = self.inputs.get(node.name)
            return classes.of_input(value) if value is not None and value.dim() >= 3 else None
        if node.op == "fxcheck.getitem":
            return self._of(node, "self") if node.arguments.get("index") == 0 else None
        if node.op in _CONVOLUTIONS:
            return self._convolved(node)
        base = node.op.split(".")[1] if node.op.startswith("aten.") else ""
        if base in _POOLS:
            return self._pooled(node)
        if base == "batch_norm":
            return self._of(node, "input")
        if base == "cat" and node.arguments.get("dim") == 1:
            return self._joined(node, [r.id for r in node.arguments["tensors"]])
        return self._entrywise(node, base)

    def _of(self, node: Node, name: str) -> Tensor | None:
        value = node.arguments.get(name)
        return self.of(value.id) if isinstance(value, Ref) else None

    def _convolved(self, node: Node) -> Tensor | None:
        before = self._of(node, "input")
        weight = node.arguments.get("weight")
        if before is None or not isinstance(weight, Ref):
            return None
        kernel = (self.facts.graph.nodes[weight.id].shape or ())[2:]
        if len(kernel) != before.dim() - 2 or isinstance(node.arguments.get("padding"), str):
            return None
        arguments = node.arguments
        if self.facts.graph.nodes[arguments["input"].id].op == "fxcheck.input":
            before, arguments = self._padded_with_zeros(before, arguments)
        size_in = tuple(before.shape[2:])
        size_out = _convolved_size(arguments, kernel, size_in)
        windows = convolution_windows(arguments, kernel, size_in, size_out)
        return None if windows is None else classes.through_windows(before, windows, node.id)

    def _padded_with_zeros(self, before: Tensor, arguments: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """On an input, the padding of a convolution is the same function as a pixel that holds zeros."""
        value = self.inputs[self.facts.graph.nodes[arguments["input"].id].name]
        zero = classes.of_input(value.new_zeros((1, value.shape[1], *(1 for _ in value.shape[2:]))))
        margins = numbers(arguments.get("padding") or 0, value.dim() - 2)
        sizes = [s + 2 * m for s, m in zip(before.shape[2:], margins, strict=True)]
        padded = zero.expand(-1, before.shape[1], *sizes).clone()
        inner = tuple(slice(m, m + s) for s, m in zip(before.shape[2:], margins, strict=True))
        padded[(slice(None), slice(None), *inner)] = before
        return padded, {**arguments, "padding": 0}

    def _pooled(self, node: Node) -> Tensor | None:
        before = self._of(node, "self")
        if before is None or node.arguments.get("divisor_override") is not None:
            return None
        size_in = tuple(before.shape[2:])
        size_out = self._pooled_size(node, size_in)
        if size_out is None:
            return None
        return classes.through_windows(before, pooling_windows(node.op, node.arguments, size_in, size_out), node.id)

    def _pooled_size(self, node: Node, size_in: tuple[int, ...]) -> tuple[int, ...] | None:
        """Actual sizes equal the example's wherever the operand's do: only the batch dimension may vary."""
        operand = self.facts.graph.nodes[node.arguments["self"].id]
        shape = node.shape or (node.outputs[0][0] if node.outputs and node.outputs[0] else None)
        if shape is None or operand.shape is None or operand.shape[2:] != size_in:
            return None
        return shape[2:]

    def _joined(self, node: Node, parts: list[int]) -> Tensor | None:
        maps = [self.of(p) for p in parts]
        known = [m for m in maps if m is not None]
        if len(known) != len(maps) or len({m.shape for m in known}) != 1:
            return None
        return classes.combined(known, node.id)

    def _entrywise(self, node: Node, base: str) -> Tensor | None:
        """An entry depends on the same position of each operand, and on numbers and per-channel tensors."""
        semantics = self.facts.semantics[node.id]
        if semantics.kind in (Kind.CONSTANT, Kind.UNKNOWN) or base in _RANDOM or not node.shape:
            return None
        if not (semantics.elementwise or base in _SAME_POSITIONS or base in ("add", "sub", "mul", "div")):
            return None
        operands = self.facts.graph.inputs_of[node.id]
        mapped = [o for o in operands if not self._is_position_free(o, len(node.shape) - 2)]
        if any(self.facts.graph.nodes[o].shape != node.shape for o in mapped) or not mapped:
            return None
        if any(not isinstance(a, (Ref, int, float, bool, str, type(None))) for a in node.arguments.values()):
            return None
        return self.of(mapped[0]) if len(mapped) == 1 else self._joined(node, mapped)

    def _is_position_free(self, id_: int, spatial: int) -> bool:
        """A number, or a leaf laid out as (1, C, 1, ...): the same at every sample and position."""
        node = self.facts.graph.nodes[id_]
        if node.shape == ():
            return True
        leaf = node.op in ("fxcheck.parameter", "fxcheck.buffer", "fxcheck.constant")
        if not leaf or node.shape is None:
            return False
        samples = node.shape[: max(0, len(node.shape) - spatial - 1)]
        return all(s == 1 for s in (*samples, *node.shape[-spatial:]))


def _convolved_size(
    arguments: Mapping[str, Any], kernel: tuple[int, ...], size_in: tuple[int, ...]
) -> tuple[int, ...]:
    """Spatial sizes of a convolution's result."""
    n = len(kernel)
    strides, margins, dilations = (
        numbers(arguments.get(name) or default, n) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    return tuple(
        (size + 2 * m - (d * (k - 1) + 1)) // s + 1
        for size, m, d, k, s in zip(size_in, margins, dilations, kernel, strides, strict=True)
    )
