"""What the positions of a tensor read: which positions of other tensors, along the graph, up to the inputs.

All channels of a tensor (B, C, *S) read alike. Two positions whose receptive fields hold equal bits, laid out alike, are
equal as functions of the parameters, channel by channel (theory 4.10); ``position_classes`` asks which ones do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from fxcheck.passes.annotate import Annotated
from fxcheck.records.graph import Node, Ref
from fxcheck.records.semantics import Kind
from fxcheck.runtime.windows_of import convolution_windows, numbers, pooling_windows
from fxcheck.scan import Windows
from fxcheck.scan.fields import Field, of_input, through

_CONVOLUTIONS = ("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d",
          "adaptive_max_pool2d", "adaptive_avg_pool1d", "adaptive_max_pool1d", "adaptive_avg_pool3d",
          "adaptive_max_pool3d", "max_pool2d_with_indices")  # fmt: skip
_RANDOM = ("dropout", "rrelu", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
_SAME_POSITIONS = ("clone", "contiguous", "to", "_to_copy", "alias", "detach")


@dataclass(frozen=True, eq=False)
class Reads:
    """What each position of a tensor (B, C, *S) depends on, beside what all positions share.

    Args:
        shape: (B, *S), as in this forward.
        operands: graph nodes that are read; none for an input.
        windows: the cells of the only operand that each position reads; None: the same position of each operand.
        zeros: cells of padding are pixels that hold zeros; otherwise padding is like nothing else.
        source: the placeholder of an input.
    """

    shape: tuple[int, ...]
    operands: tuple[int, ...] = ()
    windows: Windows | None = None
    zeros: bool = False
    source: str | None = None


@dataclass
class Positions:
    """The tensors of all forwards with inputs of the same shapes, looked at when they are asked for."""

    facts: Annotated
    shapes: Mapping[str, torch.Size]
    """Of the inputs, by the name of their placeholder."""
    found: dict[int, Reads | None] = field(default_factory=dict)
    fields: dict[int, tuple[str, Field] | None] = field(default_factory=dict)

    def of(self, node: int) -> Reads | None:
        """What the positions of a graph node read; None where they do not all read alike, or that is not known."""
        if node not in self.found:
            self.found[node] = self._reads(self.facts.graph.nodes[node])
        return self.found[node]

    def field_of(self, node: int) -> tuple[str, Field] | None:
        """The placeholder of the only input that a graph node's positions read, and their receptive fields in it.

        None where branches meet, or where nothing is known of the node.
        """
        if node not in self.fields:
            self.fields[node] = self._field(self.of(node))
        return self.fields[node]

    def _field(self, reads: Reads | None) -> tuple[str, Field] | None:
        if reads is None:
            return None
        if reads.source is not None:
            return reads.source, of_input(reads.shape[1:])
        before = self.field_of(reads.operands[0]) if len(reads.operands) == 1 else None
        if before is None or reads.windows is None:
            return before
        return before[0], through(before[1], reads.windows, reads.zeros)

    def _reads(self, node: Node) -> Reads | None:
        if node.op == "fxcheck.input":
            shape = self.shapes.get(node.name, ())
            return Reads((shape[0], *shape[2:]), source=node.name) if len(shape) >= 3 else None
        if node.op == "fxcheck.getitem":
            return self._as(node, "self") if node.arguments.get("index") == 0 else None
        if node.op in _CONVOLUTIONS:
            return self._convolved(node)
        base = node.op.split(".")[1] if node.op.startswith("aten.") else ""
        if base in _POOLS:
            return self._pooled(node)
        if base == "batch_norm":
            return self._as(node, "input")
        if base == "cat" and node.arguments.get("dim") == 1:
            return self._joined([r.id for r in node.arguments["tensors"]])
        return self._entrywise(node, base)

    def _as(self, node: Node, name: str) -> Reads | None:
        """The same positions as an argument."""
        value = node.arguments.get(name)
        return self._joined([value.id]) if isinstance(value, Ref) else None

    def _joined(self, operands: list[int]) -> Reads | None:
        read = [self.of(o) for o in operands]
        shapes = {r.shape for r in read if r is not None}
        return Reads(shapes.pop(), tuple(operands)) if None not in read and len(shapes) == 1 else None

    def _convolved(self, node: Node) -> Reads | None:
        operand, weight = node.arguments.get("input"), node.arguments.get("weight")
        before = self.of(operand.id) if isinstance(operand, Ref) else None
        if before is None or not isinstance(operand, Ref) or not isinstance(weight, Ref):
            return None
        kernel, size = (self.facts.graph.nodes[weight.id].shape or ())[2:], before.shape[1:]
        if len(kernel) != len(size) or isinstance(node.arguments.get("padding"), str):
            return None
        windows = convolution_windows(node.arguments, kernel, size, _convolved_size(node.arguments, kernel, size))
        return None if windows is None else self._through(operand.id, before, windows, zeros=before.source is not None)

    def _pooled(self, node: Node) -> Reads | None:
        operand = node.arguments["self"].id
        before = self.of(operand)
        if before is None or node.arguments.get("divisor_override") is not None:
            return None
        size = self._pooled_size(node, before.shape[1:])
        if size is None:
            return None
        return self._through(operand, before, pooling_windows(node.op, node.arguments, before.shape[1:], size))

    def _through(self, operand: int, before: Reads, windows: Windows, zeros: bool = False) -> Reads:
        return Reads((before.shape[0], *windows.size_out), (operand,), windows, zeros)

    def _pooled_size(self, node: Node, size_in: tuple[int, ...]) -> tuple[int, ...] | None:
        """Actual sizes equal the example's wherever the operand's do: only the batch dimension may vary."""
        operand = self.facts.graph.nodes[node.arguments["self"].id]
        shape = node.shape or (node.outputs[0][0] if node.outputs and node.outputs[0] else None)
        if shape is None or operand.shape is None or operand.shape[2:] != size_in:
            return None
        return shape[2:]

    def _entrywise(self, node: Node, base: str) -> Reads | None:
        """An entry depends on the same position of each operand, and on numbers and per-channel tensors."""
        semantics = self.facts.semantics[node.id]
        if semantics.kind in (Kind.CONSTANT, Kind.UNKNOWN) or base in _RANDOM or not node.shape:
            return None
        if not (semantics.elementwise or base in _SAME_POSITIONS or base in ("add", "sub", "mul", "div")):
            return None
        operands = self.facts.graph.inputs_of[node.id]
        read = [o for o in operands if not self._is_position_free(o, len(node.shape) - 2)]
        if any(self.facts.graph.nodes[o].shape != node.shape for o in read) or not read:
            return None
        if any(not isinstance(a, (Ref, int, float, bool, str, type(None))) for a in node.arguments.values()):
            return None
        return self._joined(read)

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
