"""Which positions of a tensor are the same function of the parameters: classes, neighbours and pairs (theory 4.10).

A class says what a position of one sample depends on: the bits of the input cells in its receptive field and how they
are laid out. Equal classes prove that the entries of each channel are equal as functions of the parameters. Four ways to
ask, by what they cost: for pairs of positions by the bits that they read, where no branches meet; for a few pairs layer by
layer; for all neighbours; and by a hash of every position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxcheck.ops.evaluate import apply_overload
from fxcheck.passes.annotate import Annotated
from fxcheck.records.graph import Node, Ref
from fxcheck.runtime.positions import Positions, Reads
from fxcheck.runtime.signature import writes
from fxcheck.scan import Windows, classes, fields, shifts
from fxcheck.scan.class_steps import bits_of

_VIEWS = ("aten.unfold.default", "aten.transpose.int", "aten.unsqueeze.default", "aten.squeeze.dim", "aten.flatten.using_ints")
_MOST_PAIRS = 1 << 15
"""Pairs of positions that are compared one by one; with more a hash of every position is cheaper."""


@dataclass(frozen=True, eq=False)
class Picks:
    """AD's choices in one pool: an entry of its result has the gradient of the entry that AD picked."""

    operand: int
    """Graph node that the pool reads."""
    chosen: Tensor
    """Index into the flattened spatial dimensions of the operand, shaped as the result."""


@dataclass
class PositionClasses:
    """The positions of one forward, compared when it is asked for."""

    find: Callable[[Mapping[str, Tensor]], Positions]
    """What entries read, from the inputs' shapes; most forwards never ask."""
    names: Sequence[str]
    """The placeholder of each leaf of the forward's call."""
    leaves: Sequence[Any]
    written: tuple[int, ...]
    """How often each of them had been written in place before it ran."""
    found: dict[int, Tensor | None] = field(default_factory=dict)
    shifted: dict[tuple[int, shifts.Shifts], Tensor | None] = field(default_factory=dict)
    picks: dict[int, Picks] = field(default_factory=dict)
    """Of the pools that have run, by graph node."""

    @cached_property
    def inputs(self) -> Mapping[str, Tensor]:
        """Tensors by the name of their placeholder."""
        return {n: v for n, v in zip(self.names, self.leaves, strict=False) if isinstance(v, Tensor)}

    @cached_property
    def positions(self) -> Positions:
        return self.find(self.inputs)

    def writes(self) -> tuple[int, ...]:
        """How often each input was written in place up to now."""
        return writes(self.leaves)

    def reads(self, node: int) -> Reads | None:
        """What the positions of a graph node read; None where that is not known, or the bits that were read are gone."""
        return self.positions.of(node) if self.writes() == self.written else None

    @property
    def facts(self) -> Annotated:
        """What is known of the graph."""
        return self.positions.facts

    def _input(self, reads: Reads | None) -> Tensor | None:
        """The input whose positions these are, if they are an input's."""
        return None if reads is None or reads.source is None else self.inputs[reads.source]

    def picks_behind(self, node: int) -> Picks | None:
        """The picks of the pool that a node is, or is the first result of; None where it is none that has run."""
        held = self.facts.graph.nodes[node]
        is_first = held.op == "fxcheck.getitem" and held.arguments["index"] == 0
        return self.picks.get(held.arguments["self"].id if is_first else node)

    # A hash of every position --------------------------------------------------------------------

    def of(self, node: int) -> Tensor | None:
        """The class map (2, B, *spatial) of a graph node of shape (B, C, *spatial); None where none is known."""
        if node not in self.found:
            reads = self.reads(node)
            self.found[node] = None if reads is None else self._classes(node, reads)
        return self.found[node]

    def _classes(self, node: int, reads: Reads) -> Tensor | None:
        value = self._input(reads)
        if value is not None:
            return classes.of_input(value)
        maps = [m for m in map(self.of, reads.operands) if m is not None]
        if len(maps) != len(reads.operands):
            return None
        if reads.windows is not None:
            return classes.through_windows(maps[0], reads.windows, node, self._class_of_padding(reads))
        return maps[0] if len(maps) == 1 else classes.combined(maps, node)

    def _class_of_padding(self, reads: Reads) -> Tensor | None:
        """On an input, the padding of a convolution is the same function as a pixel that holds zeros."""
        value = self._input(self.reads(reads.operands[0]))
        if not reads.zeros or value is None:
            return None
        return classes.of_input(value.new_zeros((1, *value.shape[1:2], 1)))[:, 0, 0]

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
        at = _behind(views, (known.shape[1], channels, *known.shape[2:]), entries)
        sample, channel = at.div(channels * plane, rounding_mode="floor"), at.div(plane, rounding_mode="floor") % channels
        classes_of_entries = known.flatten(2).cpu()[:, sample, at % plane]
        return torch.stack([sample, channel, *classes_of_entries])

    # Neighbours ----------------------------------------------------------------------------------

    def equal_neighbours(self, node: int, steps: shifts.Shifts) -> Tensor | None:
        """Where a position of a graph node and the one a step away are equal: bool (M, B, *S); None where not known."""
        if (node, steps) not in self.shifted:
            reads = self.reads(node)
            self.shifted[node, steps] = None if reads is None else self._neighbours(reads, steps)
        return self.shifted[node, steps]

    def _neighbours(self, reads: Reads, steps: shifts.Shifts) -> Tensor | None:
        value = self._input(reads)
        if value is not None:
            return shifts.of_input(value, steps)
        if reads.windows is not None:
            return self._neighbours_through(reads, reads.windows, steps)
        maps = [m for m in (self.equal_neighbours(o, steps) for o in reads.operands) if m is not None]
        if len(maps) != len(reads.operands):
            return None
        every = maps[0]
        for other in maps[1:]:
            every = every & other
        return every

    def _neighbours_through(self, reads: Reads, windows: Windows, steps: shifts.Shifts) -> Tensor | None:
        inner, value = shifts.of_operand(windows, steps), self._input(self.reads(reads.operands[0]))
        if inner is None or windows.spec is None:
            return None
        if reads.zeros and value is not None:
            padded = shifts.of_input(value, inner, windows.spec.padding)
            return shifts.through_windows(padded, windows, steps, is_padded=True)
        equal = self.equal_neighbours(reads.operands[0], inner)
        return None if equal is None else shifts.through_windows(equal, windows, steps)

    def labels(self, node: int, windows: Windows) -> tuple[Tensor, Tensor] | None:
        """``shifts.labels`` of a node; None where windows do not slide or are large, or nothing is known of the node."""
        if windows.spec is None or not shifts.are_small(windows):
            return None
        along = self.equal_neighbours(node, shifts.adjacent(windows.spec))
        return None if along is None else shifts.labels(along, windows)

    # Pairs ---------------------------------------------------------------------------------------

    def are_equal(self, node: int, sample: Any, one: Any, other: Any) -> Any:
        """Whether pairs of positions are equal functions.

        Args:
            node: a graph node of shape (B, C, *S).
            sample: int64 array (P,), the sample of each pair.
            one: int64 array (P,), a flat position of S.
            other: int64 array (P,), another.

        Returns:
            bool array (P,); None where nothing is known of the node.
        """
        found = None if self.reads(node) is None else self.positions.field_of(node)
        equal = None if found is None else fields.equal(self.inputs[found[0]], found[1], sample, one, other)
        return self._equal(node, sample, one, other) if equal is None else equal

    def _equal(self, node: int, sample: Any, one: Any, other: Any) -> Any:
        reads = self.reads(node)
        if reads is None:
            return None
        value = self._input(reads)
        if value is not None:
            return _equal_pixels(value, sample, one, other)
        if reads.windows is not None:
            return self._equal_windows(node, reads, reads.windows, sample, one, other)
        if len(reads.operands) == 1:
            return self._equal(reads.operands[0], sample, one, other)
        # Where branches meet, pairs would be followed along each of them, and twice as often at the next place.
        return self._of_one_class(node, sample, one, other)

    def _equal_windows(self, node: int, reads: Reads, windows: Windows, sample: Any, one: Any, other: Any) -> Any:
        size = prod(reads.shape[1:])
        if sample.size > _MOST_PAIRS or reads.shape[0] * size * size >= 1 << 63:  # a pair has to be one number
            return self._of_one_class(node, sample, one, other)
        pairs, back = np.unique((sample * size + one) * size + other, return_inverse=True)
        sample, one, other = pairs // (size * size), pairs // size % size, pairs % size
        here, there = windows.cells_of(one), windows.cells_of(other)
        equal, differ = here == there, here != there
        if not reads.zeros:
            differ &= (here >= 0) & (there >= 0)  # a cell of padding and another
        below = self._equal(reads.operands[0], sample[np.nonzero(differ)[0]], here[differ], there[differ])
        if below is None:
            return None
        equal[differ] = below
        return equal.all(1)[back]

    def _of_one_class(self, node: int, sample: Any, one: Any, other: Any) -> Any:
        known = self.of(node)
        if known is None:
            return None
        flat = known.flatten(2).cpu().numpy()
        return (flat[:, sample, one] == flat[:, sample, other]).all(0)


def _equal_pixels(value: Tensor, sample: Any, one: Any, other: Any) -> Any:
    """Pairs of positions of an input with equal bits in all channels; -1 is a pixel that holds zeros."""
    bits = bits_of(value).flatten(2)
    pixels = [_pixels(bits, sample, cells) * (cells >= 0)[:, None] for cells in (one, other)]
    return (pixels[0] == pixels[1]).all(1)


def _pixels(bits: Tensor, sample: Any, cells: Any) -> Any:
    if bits.is_cpu:
        return bits.numpy()[sample, :, cells]
    return bits[torch.from_numpy(sample).to(bits.device), :, torch.from_numpy(cells).to(bits.device)].cpu().numpy()


def _behind(views: list[Node], shape: tuple[int, ...], entries: Tensor) -> Tensor:
    """Flat indices into a tensor of this shape of entries of its view, the last of ``views`` being applied first."""
    whole = torch.empty(shape, dtype=torch.uint8)
    view = _applied(views, whole)
    if view.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr():  # one of the operators copies
        return _applied(views, torch.arange(whole.numel()).reshape(shape)).reshape(-1)[entries]
    places = torch.unravel_index(entries, view.shape)
    at = torch.full_like(entries, view.storage_offset())
    for place, step in zip(places, view.stride(), strict=True):
        at += place * step
    return at


def _applied(views: list[Node], x: Tensor) -> Tensor:
    for view in reversed(views):
        x = apply_overload(view.op, {**view.arguments, "self": x}, x)
    return x
