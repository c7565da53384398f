"""Look: how each trainable parameter moves each tensor entry, by abstract interpretation (theory 4.7).

A tensor is described by *entry classes*: every entry belongs to one of them. A class says, for some parameters,
that growing all entries of the parameter together moves the entry strictly up or strictly down whatever the values
of everything else, and lists the parameters whose influence is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any

from fxcheck.passes.annotate import Annotated, as_held

from fxcheck.records.bias import EntryClass, Push
from fxcheck.records.graph import Node, Ref, refs_in
from fxcheck.records.semantics import Kind, Transfer

_MAX_CLASSES = 24


Classes = tuple[EntryClass, ...]
_CONSTANT = EntryClass()


def find_biases(facts: Annotated, cuts: Mapping[int, int], wanted: Iterable[int]) -> dict[int, Classes]:
    """Entry classes of the wanted nodes.

    Args:
        facts: the annotated graph.
        cuts: outputs of earlier layers, with the mask of parameters that enter them analytically beside the
            pre-activation (the slope of a PReLU). What lies behind a cut belongs to earlier layers.
        wanted: pre-activations to describe.

    Returns:
        Entry classes of the wanted nodes, and of all nodes that they are computed from.

    Source: theory 4.7. Departs from it in tracking whole parameters, not single bias entries: moving all entries of a
    parameter together is coarser and sound. Where it is too coarse, ``follow_entries`` tells the entries apart.
    """
    interpreter = _Interpreter(facts, cuts)
    wanted = list(wanted)
    for node in interpreter.region(wanted):
        interpreter.classes[node] = interpreter.describe(facts.graph.nodes[node])
    return {**interpreter.classes, **{node: interpreter.of(node) for node in wanted}}


class _Interpreter:
    def __init__(self, facts: Annotated, cuts: Mapping[int, int]) -> None:
        self.facts = facts
        self.cuts = cuts
        self.classes: dict[int, Classes] = {}
        self.parameter = {node: i for i, node in enumerate(facts.graph.trainable)}

    def region(self, wanted: Iterable[int]) -> list[int]:
        """Nodes of the wanted taus, in execution order."""
        seen: set[int] = set()
        stack = [w for w in wanted]
        while stack:
            current = stack.pop()
            if current in seen or not self.facts.depends[current]:
                continue
            seen.add(current)
            if current not in self.cuts:
                stack.extend(self.facts.graph.inputs_of[current])
        return sorted(seen)

    def of(self, node: int) -> Classes:
        return self.classes.get(node, (_CONSTANT,))

    def own(self, nodes: Iterable[int]) -> int:
        """Mask of the parameters that reach any of the nodes through this tau."""
        return reduce(lambda m, n: m | reduce(lambda k, c: k | c.mask, self.of(n), 0), nodes, 0)

    def describe(self, node: Node) -> Classes:
        if node.id in self.parameter:
            return (EntryClass({self.parameter[node.id]: Push(1, 1.0, 1)}, 0, True),)
        if node.id in self.cuts:
            return (EntryClass({}, self.cuts[node.id], True),)
        return _simplified(self._transfer(node), self._lost(node))

    def _lost(self, node: Node) -> Classes:
        return (EntryClass({}, self.own(self.facts.graph.inputs_of[node.id]), True),)

    def _transfer(self, node: Node) -> Classes:
        semantics = self.facts.semantics[node.id]
        if semantics.kind is Kind.DISCONTINUOUS:
            return self._lost(node)
        if semantics.kind is Kind.MAX and semantics.trivial:
            return self._keep(node)
        match semantics.transfer:
            case Transfer.KEEP:
                return self._keep(node)
            case Transfer.PAD:
                return (*self._keep(node), _CONSTANT)
            case Transfer.ADD:
                return self._add(node)
            case Transfer.MULTIPLY:
                return self._multiply(node)
            case Transfer.DIVIDE:
                return self._divide(node)
            case Transfer.AVERAGE:
                return self._average(node)
            case Transfer.INTERPOLATE:
                return self._interpolate(node)
            case Transfer.AFFINE:
                return self._affine(node)
            case Transfer.DROPOUT:
                return self._dropout(node)
        return self._lost(node)

    # One rule per transfer ---------------------------------------------------------------------

    def _varying_inputs(self, node: Node) -> list[int]:
        return [s for s in self.facts.graph.inputs_of[node.id] if self.facts.depends[s]]

    def _keep(self, node: Node) -> Classes:
        inputs = self.facts.graph.inputs_of[node.id]
        tensors = [s for s in inputs if self.facts.graph.nodes[s].shape is not None]
        grows = 1.0 if node.op == "fxcheck.getitem" else _growth(node, sum(self.facts.graph.nodes[s].numel for s in tensors))
        ratio = math.inf if _may_repeat(node.op) else grows
        read = list(refs_in(dict(node.arguments)))  # a tensor that is read twice reaches twice as far
        reach = self._reach_of([s for s in read if self.facts.depends[s]])
        out = [_with_reach(c, reach, ratio) for s in self._varying_inputs(node) for c in self.of(s)]
        given = {s for n, v in node.arguments.items() if n not in _POINTING_ARGUMENTS for s in refs_in({n: v})}
        constants = [s for s in tensors if s in given and not self.facts.depends[s]]
        numbers = any(isinstance(node.arguments.get(name), (int, float, complex)) for name in _ENTRY_ARGUMENTS)
        return (*out, *([_CONSTANT] if constants or numbers else []))

    def _reach_of(self, sources: list[int]) -> dict[int, float]:
        """For each parameter, how many entries of all the sources together one of its entries reaches."""
        total: dict[int, float] = {}
        for source in sources:
            here: dict[int, float] = {}
            for c in self.of(source):
                for p, push in c.pushes.items():
                    here[p] = max(here.get(p, 0.0), push.reach)
            for p, reach in here.items():
                total[p] = total.get(p, 0.0) + reach
        return total

    def _operand(self, node: Node, name: str) -> tuple[Classes, float | None]:
        """Classes of an operand broadcast to the node's shape, and its value when it is a known constant."""
        value = node.arguments.get(name)
        if not isinstance(value, Ref):
            number = float(value) if isinstance(value, (int, float)) else None
            return (_CONSTANT,), as_held(number, node.dtype)
        ratio = _growth(node, self.facts.graph.nodes[value.id].numel)
        classes = tuple(_map(c, lambda push: push.spread(ratio)) for c in self.of(value.id))
        return classes, self.facts.constants.get(value.id)

    def _add(self, node: Node) -> Classes:
        names = [n for n in ("self", "other") if _is_operand(node.arguments.get(n))]
        scales = self.facts.semantics[node.id].scales or (1.0,) * len(names)
        if len(scales) != len(names) or any(isinstance(s, bool) or not as_held(s, node.dtype) for s in scales):
            return self._lost(node)
        total: Classes = (_CONSTANT,)
        for name, scale in zip(names, scales, strict=True):
            classes, _ = self._operand(node, name)
            scaled = tuple(_map(c, lambda push, k=scale: push.scaled(k)) for c in classes)
            total = _simplified(tuple(_sum(a, b) for a in total for b in scaled), self._lost(node))
        return total

    def _multiply(self, node: Node) -> Classes:
        (left, left_value), (right, right_value) = self._operand(node, "self"), self._operand(node, "other")
        left_varies, right_varies = any(c.varies for c in left), any(c.varies for c in right)
        if left_varies and right_varies:
            return self._product(node, left, right)
        varying, value = (left, right_value) if left_varies else (right, left_value)
        return self._scaled(node, varying, value, "other" if left_varies else "self")

    def _divide(self, node: Node) -> Classes:
        if node.arguments.get("rounding_mode") is not None:
            return self._lost(node)
        (left, _), (right, value) = self._operand(node, "self"), self._operand(node, "other")
        if any(c.varies for c in right):
            positive = self._is_positive(node, "other")
            return self._times_positive(left, right) if positive else self._lost(node)
        return self._scaled(node, left, None if not value else 1.0 / value, "other")

    def _is_positive(self, node: Node, name: str) -> bool:
        value = node.arguments.get(name)
        return isinstance(value, Ref) and self.facts.lower.get(value.id, -math.inf) > 0

    def _scaled(self, node: Node, classes: Classes, factor: float | None, name: str) -> Classes:
        if factor == 0:
            return (_CONSTANT,)
        if factor is not None:
            return tuple(_map(c, lambda push: push.scaled(factor)) for c in classes)
        if self._is_positive(node, name):
            return tuple(_map(c, lambda push: push.scaled(None)) for c in classes)
        return self._lost(node)

    def _product(self, node: Node, left: Classes, right: Classes) -> Classes:
        out: list[EntryClass] = []
        if self._is_positive(node, "other"):
            out = list(self._times_positive(left, right))
        elif self._is_positive(node, "self"):
            out = list(self._times_positive(right, left))
        return tuple(out) or self._lost(node)

    def _times_positive(self, kept: Classes, factor: Classes) -> Classes:
        influence = reduce(lambda m, c: m | c.mask, factor, 0)
        out = []
        for c in kept:
            pushes = {p: push.scaled(None) for p, push in c.pushes.items() if not influence >> p & 1}
            out.append(EntryClass(pushes, (c.lost | influence | c.mask & influence), True))
        return tuple(out)

    def _average(self, node: Node) -> Classes:
        classes = tuple(c for s in self._varying_inputs(node) for c in self.of(s))
        varying = [c for c in classes if c.varies]
        if not varying:
            return classes or (_CONSTANT,)
        everything = reduce(lambda m, c: m | c.mask, varying, 0)
        shared = set.intersection(*(set(c.pushes) for c in varying))
        pushes = {
            p: Push(varying[0].pushes[p].sign, None, math.inf)
            for p in shared
            if len({c.pushes[p].sign for c in varying}) == 1 and not any(c.lost >> p & 1 for c in varying)
        }
        kept = reduce(lambda m, p: m | 1 << p, pushes, 0)
        mixed = EntryClass(pushes, everything & ~kept, True)
        return (mixed, _CONSTANT) if len(varying) < len(classes) else (mixed,)

    def _interpolate(self, node: Node) -> Classes:
        classes = tuple(c for s in self._varying_inputs(node) for c in self.of(s))
        if len(classes) != 1:
            return self._lost(node)
        exact = {p: push.spread(math.inf) for p, push in classes[0].pushes.items() if push.coefficient is not None}
        kept = reduce(lambda m, p: m | 1 << p, exact, 0)
        return (EntryClass(exact, classes[0].mask & ~kept, True),)

    def _affine(self, node: Node) -> Classes:
        if self._is_positive_scaling(node):
            data = node.arguments["input"]
            return tuple(_map(c, lambda push: push.scaled(None)) for c in self.of(data.id))
        name = self.facts.semantics[node.id].bias
        bias = node.arguments.get(name) if name else None
        rest = [s for s in self.facts.graph.inputs_of[node.id] if not (isinstance(bias, Ref) and s == bias.id)]
        others = dict(node.arguments)
        if isinstance(bias, Ref):
            others.pop(name or "")
            rest = list(dict.fromkeys([*rest, *(s for s in _refs(others) if s == bias.id)]))
        lost = self.own(rest)
        varies = any(self.facts.depends[s] for s in rest)
        if not isinstance(bias, Ref):
            return (EntryClass({}, lost, varies),)
        ratio = _growth(node, self.facts.graph.nodes[bias.id].numel)
        region = EntryClass({}, lost, varies)
        return tuple(_sum(region, _map(c, lambda push: push.spread(ratio))) for c in self.of(bias.id))

    def _is_positive_scaling(self, node: Node) -> bool:
        """Eval-mode batch normalisation without gamma and beta: (x - mean) / sqrt(var + eps), with constants."""
        a = node.arguments
        if node.op != "aten.batch_norm.default" or a.get("training") or a.get("weight") or a.get("bias"):
            return False
        statistics = (a.get("running_mean"), a.get("running_var"))
        return all(isinstance(s, Ref) and not self.facts.depends[s.id] for s in statistics)

    def _dropout(self, node: Node) -> Classes:
        classes = [c for s in self._varying_inputs(node) for c in self.of(s)]
        return (*(_map(c, lambda push: push.scaled(None)) for c in classes), _CONSTANT)


# Helpers ---------------------------------------------------------------------------------------


def _growth(node: Node, entries: int) -> float:
    """How many entries of a node each of so many entries becomes, at most."""
    return math.inf if node.is_free else max(1.0, node.numel / max(1, entries))


def _refs(arguments: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(v.id for v in arguments.values() if isinstance(v, Ref))


def _is_operand(value: Any) -> bool:
    return isinstance(value, Ref) or _is_number(value)


_ONCE = frozenset({
    "view", "reshape", "_unsafe_view", "permute", "transpose", "t", "numpy_T", "mT", "flatten", "unflatten", "squeeze",
    "unsqueeze", "slice", "select", "narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unbind", "cat", "concat",
    "concatenate", "stack", "hstack", "vstack", "dstack", "flip", "fliplr", "flipud", "roll", "rot90", "movedim", "moveaxis",
    "swapaxes", "swapdims", "clone", "contiguous", "alias", "to", "_to_copy", "type_as", "diagonal", "pixel_shuffle",
    "pixel_unshuffle", "channel_shuffle", "constant_pad_nd", "zero_pad2d", "expand",
})  # fmt: skip
"""Structural operators that place each entry at most once; ``expand`` repeats all of them equally often."""


def _may_repeat(op: str) -> bool:
    """Any other structural operator may read one entry many times while its output is not larger."""
    return op.startswith("aten.") and op.split(".")[1] not in _ONCE


_ENTRY_ARGUMENTS = ("self", "other", "value", "values", "src", "source")
"""Arguments which as numbers a structural operator may copy to its output."""
_POINTING_ARGUMENTS = frozenset({"index", "indices", "mask", "condition", "repeats"})
"""Tensors that say which entries a structural operator copies; the entries of all others may be among them, of any dtype."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _map(c: EntryClass, change: Any) -> EntryClass:
    return EntryClass({p: change(push) for p, push in c.pushes.items()}, c.lost, c.varies)


def _with_reach(c: EntryClass, reach: Mapping[int, float], ratio: float) -> EntryClass:
    pushes = {p: Push(push.sign, push.coefficient, reach[p] * ratio) for p, push in c.pushes.items()}
    return EntryClass(pushes, c.lost, c.varies)


def _sum(a: EntryClass, b: EntryClass) -> EntryClass:
    """The class of ``x + y`` for an entry x of class a and y of class b."""
    pushes: dict[int, Push] = {}
    lost = a.lost | b.lost
    for p in {*a.pushes, *b.pushes}:
        left, right = a.pushes.get(p), b.pushes.get(p)
        if left is not None and right is not None:
            if left.sign != right.sign:
                lost |= 1 << p
                continue
            pushes[p] = Push(left.sign, None, left.reach + right.reach)
        else:
            pushes[p] = left or right  # type: ignore[assignment]
    return EntryClass({p: push for p, push in pushes.items() if not lost >> p & 1}, lost, a.varies or b.varies)


def _simplified(classes: Classes, fallback: Classes) -> Classes:
    """Without duplicates; the fallback (nothing known) when there are too many to follow."""
    distinct = {c.key(): c for c in classes}
    return tuple(distinct.values()) if len(distinct) <= _MAX_CLASSES else fallback
