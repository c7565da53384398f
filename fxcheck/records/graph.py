"""The captured computation in single-assignment form: no torch objects, no mutation, no aliases."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True, slots=True)
class Ref:
    """A use of the value that node ``id`` computes."""

    id: int


class OpenSize(int):
    """A number that depends on a size which the capture left open; its value is that of the example."""


_LARGE = re.compile(r"[s\d+* ]*")


def is_free(symbol: str) -> bool:
    """Whether a size may be 0, 1 or larger, whatever it is in the example.

    Args:
        symbol: as in ``Node.symbols``. Symbols ``s0`` stand for 2 or more; those of sizes that depend on data, and what
            expressions subtract, divide or choose, for anything.
    """
    return not _LARGE.fullmatch(symbol)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where in the user's program a node comes from."""

    module: str = ""
    """Dotted module path, ``""`` for the root."""
    module_type: str = ""
    """Qualified class name of that module."""
    call: int = 0
    """0 for the module's first call in the forward, 1 for its second, ..."""
    location: str = ""
    """``file.py:line`` of the innermost frame outside site-packages, or of the module's own file."""
    source: str = ""
    """The text of that source line, if it was recorded."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation and the one value that it computes.

    ``op`` is an ATen overload such as ``aten.relu.default`` or one of the leaves and helpers below:

    - ``fxcheck.parameter`` / ``fxcheck.buffer`` / ``fxcheck.input`` / ``fxcheck.constant``: leaves;
      ``arguments["name"]`` is the qualified name. A constant whose entries are all equal to a known number
      carries it as ``arguments["value"]``.
    - ``fxcheck.getitem``: output ``arguments["index"]`` of the multi-output node ``arguments["self"]``.
    - ``fxcheck.view_write``: ``arguments["self"]`` with the entries seen by a view replaced by
      ``arguments["source"]``: what is left of an in-place operation on a view.
    - ``fxcheck.running_statistics``: what normalisation over the batch writes into its statistics.
    - ``fxcheck.strided_outside``: ``aten.as_strided`` of a view, which may read memory that the view does not show.
    - ``fxcheck.written``, ``fxcheck.unknown_view``, ``fxcheck.size``, ``fxcheck.arithmetic``, ``higher_order.*`` and
      ``python.*``: values that only their dependence is known of; they have no semantics and stay UNKNOWN.
    """

    id: int
    op: str
    arguments: Mapping[str, Any]
    """By schema name, defaults filled in. Tensors are ``Ref``, possibly inside tuples; None for one that is only written."""
    shape: tuple[int, ...] | None
    """Example shape (symbolic sizes by their hint); None for a value that is not a tensor."""
    dtype: str | None
    """As in ``float32``; None for a value that is not a tensor."""
    name: str = ""
    """The fx node's name."""
    origin: Origin = Origin()
    grad_enabled: bool = True
    """False inside a ``no_grad`` region."""
    outputs: tuple[tuple[tuple[int, ...], str] | None, ...] = ()
    """Shape and dtype of each output of a multi-output operation."""
    called_as: str = ""
    """The overload that ran, where it is an in-place or otherwise rewritten form of ``op``."""
    symbols: tuple[str, ...] = ()
    """For each dimension the symbol or expression of a size that the capture left open, ``""`` for a number."""

    @property
    def is_free(self) -> bool:
        """Some size may be anything (``is_free``)."""
        return any(map(is_free, self.symbols))

    def is_shaped_as(self, other: Node) -> bool:
        """Whether both have one shape, whatever sizes turn out to be."""
        return self.shape == other.shape and (self.symbols == other.symbols or not (self.is_free or other.is_free))

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape or ():
            count *= size
        return count


def refs_in(value: Any) -> Iterator[int]:
    """The ids of every ``Ref`` inside an argument, in order."""
    if isinstance(value, Ref):
        yield value.id
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from refs_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from refs_in(item)


@dataclass(frozen=True)
class Graph:
    """A captured model (with its loss, if one was given).

    ``nodes[i].id == i``; every ``Ref`` points backwards.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    """Floating-point outputs of the model, or the scalar loss."""
    batch: int
    """Samples in the example minibatch (size of the first input's first dimension; 1 without inputs)."""
    batch_dynamic: bool = False
    """True when the capture holds for every batch size."""
    smooth_criterion: bool = True
    """True when no loss was captured, so a verdict assumes an analytic one."""
    written: frozenset[int] = frozenset()
    """Leaf nodes whose tensors the forward writes into: the next forward starts from other values."""
    scattered: frozenset[int] = frozenset()
    """Parameters, buffers and constants that do not lie in memory row by row."""
    overwritten: frozenset[int] = frozenset()
    """Nodes with an operand or a result that is written over later, unseen by autograd, which may have saved it."""
    reread: frozenset[int] = frozenset()
    """Nodes of checkpointed regions that find an operand written when they are computed again."""
    trainable: Mapping[int, str] = field(default_factory=dict)
    """Leaf nodes that are trainable parameters, by qualified name; tied names share a node."""

    @cached_property
    def inputs_of(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the distinct nodes it reads, in argument order."""
        return tuple(tuple(dict.fromkeys(refs_in(dict(n.arguments)))) for n in self.nodes)

    @cached_property
    def users_of(self) -> tuple[tuple[int, ...], ...]:
        users: list[list[int]] = [[] for _ in self.nodes]
        for node, sources in zip(self.nodes, self.inputs_of, strict=True):
            for source in sources:
                users[source].append(node.id)
        return tuple(tuple(u) for u in users)

    @cached_property
    def live(self) -> frozenset[int]:
        """Nodes on a path to an output."""
        return self.behind(self.outputs)

    def behind(self, nodes: Iterable[int]) -> frozenset[int]:
        """These nodes and all that they are computed from."""
        seen: set[int] = set()
        stack = list(nodes)
        while stack:
            current = stack.pop()
            if current not in seen:
                seen.add(current)
                stack.extend(self.inputs_of[current])
        return frozenset(seen)
