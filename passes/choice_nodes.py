"""Touch: let another side or pick be put in the place of AD's, after each layer of a program with check nodes.

1. A layer whose output a node of the program returns: later readers read it through ``choose``.
2. One that writes in place: so do later readers of what it wrote into. Where a view sees that memory too, it is left.
3. One inside a composite (the absolute value in ``l1_loss``): the composite is replaced by its parts.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import fx

from fxcheck.capture.lower import Place
from fxcheck.ops.observe import choose, observe
from fxcheck.records.checks import Check, CheckKind, CheckPlan

if TYPE_CHECKING:
    from fxcheck.passes.insert_checks import Inserter

_CHOICES = (CheckKind.TOUCH, CheckKind.BOUND, CheckKind.WINDOWS, CheckKind.DIMENSION, CheckKind.SPLIT)
Path = tuple[str, ...]


def insert_choice_nodes(inserter: Inserter, plan: CheckPlan) -> frozenset[int]:
    """Pass the output of every layer that can be chosen for through ``choose``; the indices of their checks."""
    chosen: set[int] = set()
    inside: dict[Place, list[Check]] = {}
    for check in plan.checks:
        if check.kind not in _CHOICES or check.is_inside:
            continue
        place = inserter.sources.emitter_of[check.result]
        if check.index not in inserter.extrema and inserter.sources.holder_of.get(check.result) != place:
            inside.setdefault(place, []).append(check)
        elif _choose_after(inserter, check, place):
            chosen.add(check.index)
    for place, checks in inside.items():
        readers = [c for c in plan.checks if c.kind is CheckKind.SPLIT and inserter.sources.emitter_of[c.result] == place]
        if _expand(inserter, place, checks, readers):
            chosen.update(c.index for c in checks)
    inserter.finish()
    return frozenset(chosen)


def _choose_after(inserter: Inserter, check: Check, place: Place) -> bool:
    room = inserter.room(place.path)
    node = inserter.extrema.get(check.index) or inserter.node(place)
    written = written_by(node)
    if written is not None and not _is_seen_once(room.graph, node, written):
        return False
    probe = inserter.after.get(check.index, node)
    with room.graph.inserting_after(probe):
        chosen = room.graph.call_function(choose, (node, check.index))
    for held in (node, *_same_output(node)):
        inserter.chosen[held] = chosen
        held.replace_all_uses_with(chosen, delete_user_cb=lambda user: user is not chosen and user is not probe)
    if written is not None:
        inserter.chosen[written] = chosen
        for user in _later(room.graph, node, written.users):
            user.replace_input_with(written, chosen)
    return True


def _same_output(node: fx.Node) -> list[fx.Node]:
    """Other nodes that take the same output of an operation with several."""
    if node.target is not operator.getitem:
        return []
    source, index = node.args
    return [u for u in source.users if u is not node and u.target is operator.getitem and u.args[1] == index]  # type: ignore[union-attr]


def written_by(node: fx.Node) -> fx.Node | None:
    """What an in-place operation writes into."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable or not node.args:
        return None
    target = node.args[0]
    return target if isinstance(target, fx.Node) else None


def _is_seen_once(graph: fx.Graph, node: fx.Node, written: fx.Node) -> bool:
    """Whether no other name for the same memory is read after the operation."""
    family, stack = {written}, [written]
    while stack:
        current = stack.pop()
        related = [u for u in current.users if _is_view(u, current)]
        related += [a for a in current.all_input_nodes if _is_view(current, a)]
        new = [n for n in related if n not in family and n is not node]
        family.update(new)
        stack += new
    aliases = family - {written}
    return not any(_later(graph, node, alias.users) for alias in aliases)


def _is_view(node: fx.Node, of: fx.Node) -> bool:
    """Whether a node may return memory of its first operand."""
    if node.op != "call_function" or not node.args or node.args[0] is not of:
        return False
    if node.target is operator.getitem:
        return True
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.arguments) and schema.arguments[0].alias_info is not None


def _later(graph: fx.Graph, node: fx.Node, users: Iterable[fx.Node]) -> list[fx.Node]:
    """Those of the users that run after the node."""
    wanted = set(users)
    if not wanted:
        return []
    order = {n: i for i, n in enumerate(graph.nodes)}
    return [u for u in wanted if order[u] > order[node] and u.target is not choose]


def _expand(inserter: Inserter, place: Place, checks: list[Check], readers: list[Check]) -> bool:
    """Replace a composite by its parts, with the outputs of the layers among them passed through ``choose``.

    The parts read what the composite read, the choices of layers before it. What ``readers``, its maxima, are compared by is
    then those parts and no copy of them.
    """
    sources = inserter.sources
    results = [i for i, held in sources.holder_of.items() if held == place]
    layers = {c.result: c for c in checks}
    if len(results) != 1:
        return False
    node = inserter.node(place)
    graph = inserter.room(place.path).graph
    made: dict[int, fx.Node] = {}
    before: dict[int, fx.Node] = {}
    """The parts as they are computed, before anything is put in their place."""
    operands = set(node.all_input_nodes)

    def value(reader: int, read: int, path: Path) -> fx.Node:
        if sources.emitter_of.get(read) != place or sources.holder_of.get(read) is not None:
            found = inserter.value(reader, read, path)
            chosen = inserter.chosen.get(found)
            return chosen if chosen in operands else found
        return part(read)

    def part(id_: int) -> fx.Node:
        if id_ not in made:
            made[id_] = before[id_] = inserter.called_again(id_, place.path, value)
            if id_ in layers:
                made[id_] = graph.call_function(choose, (made[id_], layers[id_].index))
        return made[id_]

    with graph.inserting_before(node):
        whole = part(results[0])
    node.replace_all_uses_with(whole)
    graph.erase_node(node)
    for probe in [n for n in graph.nodes if n.target is observe]:
        for check in readers:
            if probe.args[1] == check.index:
                values = list(probe.args[2])  # type: ignore[arg-type]
                values[:-1] = [value(check.result, read, place.path) for read in check.reads]
                values[-1] = before.get(check.result, values[-1])
                probe.update_arg(2, values)
    return set(layers) <= set(made)
