"""Touch: put check nodes into an exported program's module, beside the operations that a plan names.

1. A max-pool without indices is replaced by the operator that it calls, which also returns AD's pick.
2. Guards, bounds and what an operation overwrites are observed before it.
3. Ties and singular points are observed after the operation, with its result; so are touches, which are then in the caches of
   the processor that looks.
4. A pre-activation that exists only inside a composite (the difference inside ``l1_loss``) is computed beside it.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
from fxcheck.passes.choice_nodes import insert_choice_nodes, written_by
from torch import fx
from torch._ops import HigherOrderOperator
from torch.export import ExportedProgram

from fxcheck.capture.lower import Place, Sources
from fxcheck.errors import UncoveredModel
from fxcheck.ops.evaluate import apply_overload, overload
from fxcheck.ops.observe import observe
from fxcheck.records.checks import Check, CheckKind, CheckPlan
from fxcheck.records.graph import Graph, Ref

_OF_FX = frozenset({*dir(fx.GraphModule), "meta"} - {*dir(torch.nn.Module)})
"""Attributes of what a program is made into that no module has."""

SEEN = "_fxcheck_seen"
"""Name of the buffer, in every rewritten (sub)graph, that check nodes say they mutate."""
ValueOf = Callable[[int, int, tuple[str, ...]], fx.Node]
"""(reader, graph node that it reads, path of the subgraph) -> the program's node that holds the value there."""
_MOST = torch.iinfo(torch.int64).max
_OF_OPERANDS = (CheckKind.TOUCH, CheckKind.GUARD, CheckKind.BOUND)
_WITH_INDICES = {
    f"aten.max_pool{d}d.default": getattr(torch.ops.aten, f"max_pool{d}d_with_indices").default for d in (1, 2, 3)
}


def insert_checks(
    program: ExportedProgram, plan: CheckPlan, graph: Graph, sources: Sources
) -> fx.GraphModule:
    """Make a module of the program, with check nodes.

    Args:
        program: the captured program; the module shares its parameters and buffers.
        plan: what to observe.
        graph: the single-assignment graph that the plan speaks of.
        sources: where the program holds the graph's values.

    """
    module = _inserted(program, plan, graph, sources).module
    _drop_whole_slices(module)
    return module


def insert_choices(
    program: ExportedProgram, plan: CheckPlan, graph: Graph, sources: Sources
) -> tuple[fx.GraphModule, frozenset[int]]:
    """Make a module with check nodes whose layers can be given other sides and picks than AD's.

    Args:
        program: the captured program; the module shares its parameters and buffers.
        plan: what to observe.
        graph: the single-assignment graph that the plan speaks of.
        sources: where the program holds the graph's values.

    Returns:
        The module, and the indices of the checks whose layer's output passes through ``fxcheck.ops.observe.choose``. The
        others write into memory that later operations read under another name, so that nothing can be put in its place.
    """
    inserter = _inserted(program, plan, graph, sources)
    return inserter.module, insert_choice_nodes(inserter, plan)


def _inserted(program: ExportedProgram, plan: CheckPlan, graph: Graph, sources: Sources) -> Inserter:
    taken = sorted({name.partition(".")[0] for name in program.state_dict} & _OF_FX)
    if taken:
        raise UncoveredModel(
            f"the model calls a parameter, buffer or submodule {taken[0]!r}, as torch.fx calls something of its own",
            hint="give it another name; the analysis does without",
        )
    module: Any = program.module(check_guards=False)
    inserter = Inserter(module, graph, sources, _leaves(program, module))
    for check in plan.checks:
        if check.kind is not CheckKind.UNOBSERVED:
            inserter.insert(check)
    inserter.finish()
    return inserter


def _leaves(program: ExportedProgram, module: fx.GraphModule) -> dict[str, fx.Node]:
    """The module's nodes for the program's placeholders: inputs in order, the others by what they hold."""
    signature = program.graph_signature
    inputs = [n for n in module.graph.nodes if n.op == "placeholder"]
    found = dict(zip(map(str, signature.user_inputs), inputs, strict=False))
    held = {str(n.target): n for n in reversed(module.graph.nodes) if n.op == "get_attr"}
    lifted = {**signature.inputs_to_parameters, **signature.inputs_to_buffers,
              **signature.inputs_to_lifted_tensor_constants}  # fmt: skip
    return found | {name: held[target] for name, target in lifted.items() if target in held}


class Inserter:
    """Puts nodes into the modules of a program."""

    def __init__(
        self, module: fx.GraphModule, graph: Graph, sources: Sources, leaves: dict[str, fx.Node]
    ) -> None:
        self.leaves = leaves
        self.module = module
        self.graph = graph
        self.sources = sources
        self.extrema: dict[int, fx.Node] = {}
        """By check: the node that returns its maxima."""
        self.after: dict[int, fx.Node] = {}
        """By check: its node, where that comes after the operation."""
        self.chosen: dict[fx.Node, fx.Node] = {}
        """By a layer's output: what passes it through ``choose``."""
        self.rooms: dict[tuple[str, ...], fx.GraphModule] = {}
        self.seen: dict[tuple[str, ...], fx.Node] = {}
        """The node that holds the buffer ``SEEN`` of a room."""
        self.named: dict[tuple[str, ...], dict[str, fx.Node]] = {}

    def finish(self) -> None:
        for room in self.rooms.values():
            room.graph.lint()
            room.recompile()

    # Places ------------------------------------------------------------------------------------

    def room(self, path: tuple[str, ...]) -> fx.GraphModule:
        """The (sub)graph module at a path; subgraphs are copied, since the captured program shares them."""
        if path not in self.rooms:
            room = self.module
            if path:
                outer = self.room(path[:-1])
                room = copy.deepcopy(getattr(outer, path[-1]))
                setattr(outer, path[-1], room)
            room.register_buffer(SEEN, torch.zeros((), dtype=torch.int64), persistent=False)
            self.rooms[path] = room
            with room.graph.inserting_before(next(n for n in room.graph.nodes if n.op != "placeholder")):
                self.seen[path] = room.graph.get_attr(SEEN)
            self.named[path] = {n.name: n for n in room.graph.nodes} | ({} if path else self.leaves)
        return self.rooms[path]

    def node(self, place: Place) -> fx.Node:
        self.room(place.path)
        return self.named[place.path][place.name]

    def value(self, reader: int, read: int, path: tuple[str, ...]) -> fx.Node:
        """The program's node that holds graph node ``read`` when graph node ``reader`` runs."""
        place = self.sources.operand_of.get((reader, read))
        if place is None or place.path != path:
            return self._computed(read, path)
        return self.node(place)

    def _computed(self, id_: int, path: tuple[str, ...]) -> fx.Node:
        """A graph node as a program node: the one that holds it, or its operator called again at this point."""
        holder = self.sources.holder_of.get(id_)
        if holder is not None and holder.path == path:
            return self.node(holder)
        return self.called_again(id_, path, self.value)

    def called_again(self, id_: int, path: tuple[str, ...], value_of: ValueOf) -> fx.Node:
        """A graph node's operator, called at this point on the values that ``value_of`` finds."""
        node = self.graph.nodes[id_]
        if overload(node.op) is None:
            raise LookupError(f"{node.op} has no place in the program")
        tensors: list[fx.Node] = []

        def argument(value: Any) -> Any:
            if isinstance(value, Ref):
                tensors.append(value_of(id_, value.id, path))
                return tensors[-1]
            return [argument(v) for v in value] if isinstance(value, tuple) else value

        arguments = {n: argument(v) for n, v in node.arguments.items() if v is not None}
        return self.room(path).graph.call_function(apply_overload, (node.op, arguments, tensors[0]))

    # Checks ------------------------------------------------------------------------------------

    def insert(self, check: Check) -> None:
        at = self.sources.emitter_of[check.node]
        room, node = self.room(at.path), self.node(at)
        is_one = self.sources.holder_of.get(check.result) == at  # and no part of a composite
        if check.kind in _OF_OPERANDS:
            late = check.kind is CheckKind.TOUCH and is_one and written_by(node) is None
            with room.graph.inserting_before(node.next if late else node):
                values = [self.value(check.node, check.operand, at.path), *self._read_beside(check, node, at.path)]
                probe = self._observe(at.path, check, node, [*values, *self._source_values(check, at.path)])
            if late:
                self.after[check.index] = probe
            return
        single = check.kind in (CheckKind.SINGULAR, CheckKind.SPLIT)
        overwrites = check.kind is CheckKind.SPLIT and written_by(node) is not None
        if overwrites or (single and not is_one):  # the program has no place for its operands and its result side by side
            with room.graph.inserting_before(node if overwrites else node.next):
                values = [self.value(check.node, i, at.path) for i in check.reads]
                self._observe(at.path, check, node, [*values, self.called_again(check.node, at.path, self.value)])
            if overwrites:
                self.extrema[check.index] = node
            return
        results = [node] if single else self._maxima_and_picks(room, node, at)
        self.extrema[check.index] = results[0]
        with room.graph.inserting_before(results[-1].next):
            values = [self.value(check.node, i, at.path) for i in (check.reads or (check.operand,))]
            observed = [*values, *results, *self._source_values(check, at.path)]
            self.after[check.index] = self._observe(at.path, check, results[0], observed)

    def _read_beside(self, check: Check, node: fx.Node, path: tuple[str, ...]) -> list[fx.Node]:
        """What a check reads beside its operand; a guard does without where the program may have overwritten it since."""
        if check.kind is not CheckKind.GUARD or all((check.node, i) in self.sources.operand_of for i in check.reads):
            return [self.value(check.node, i, path) for i in check.reads]
        held = [self.sources.holder_of.get(i) for i in check.reads]
        found = [self.node(h) for h in held if h is not None and h.path == path]
        return found if len(found) == len(held) and not any(_writes_between(f, node) for f in found) else []

    def _observe(self, path: tuple[str, ...], check: Check, beside: fx.Node, values: list[fx.Node]) -> fx.Node:
        probe = self.room(path).graph.call_function(observe, (self.seen[path], check.index, values))
        for key in ("stack_trace", "nn_module_stack"):
            if key in beside.meta:
                probe.meta[key] = beside.meta[key]
        return probe

    def _maxima_and_picks(self, room: fx.GraphModule, node: fx.Node, at: Place) -> list[fx.Node]:
        """The two results of a max operator, which is replaced where it returns maxima alone."""
        target = _WITH_INDICES.get(str(node.target))
        both = node
        if target is not None:
            with room.graph.inserting_before(node):
                both = room.graph.call_function(target, node.args, dict(node.kwargs))
            both.meta = dict(node.meta)
        with room.graph.inserting_before(both.next):
            maxima = room.graph.call_function(operator.getitem, (both, 0))
            picks = room.graph.call_function(operator.getitem, (both, 1))
        if target is not None:
            maxima.meta = dict(node.meta)
            node.replace_all_uses_with(maxima)
            room.graph.erase_node(node)
            self.named[at.path][at.name] = maxima
        return [maxima, picks]

    def _source_values(self, check: Check, path: tuple[str, ...]) -> list[fx.Node]:
        """Operand and result of each affine source: two tensors a source, none where the program holds them elsewhere."""
        found = []
        for source in check.sources:
            operand = self.sources.operand_of.get((source.layer, source.operand))
            result = self.sources.holder_of.get(source.layer)
            if operand is None or result is None or operand.path != path or result.path != path:
                return []
            found += [self.node(operand), self.node(result)]
        return found


def _drop_whole_slices(module: fx.GraphModule) -> None:
    """Eager indexing makes no view for the colon in ``x[:, 0]``, and export writes one down: a node in each direction.

    Where anything else comes between it and its only reader, it stays: gradients are added up in the order of such nodes.
    """
    slices = module.graph.find_nodes(op="call_function", target=torch.ops.aten.slice.Tensor)
    whole = [n for n in slices if _is_whole(*n.args[1:]) and [*n.users] == [n.next] and _only_reads(n.next)]
    for node in whole:
        node.replace_all_uses_with(node.args[0])
        module.graph.erase_node(node)
    if whole:
        module.recompile()


def _is_whole(dim: Any = 0, start: Any = None, end: Any = None, step: Any = 1) -> bool:
    return start in (None, 0) and end in (None, _MOST) and step == 1


def _only_reads(node: fx.Node) -> bool:
    """An operator that writes nothing; no check, and not the end of the program."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and not schema.is_mutable


def _writes_between(first: fx.Node, last: fx.Node) -> bool:
    """Whether an operation between two nodes may write into memory; check nodes do not."""
    current = first.next
    while current is not last:
        is_write = current.target is not observe and getattr(getattr(current.target, "_schema", None), "is_mutable", False)
        if is_write or isinstance(current.target, HigherOrderOperator):
            return True
        current = current.next
    return False
