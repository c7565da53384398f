"""Look: what a reader sees of each unit: its name, the operators of its tau, residuals, fully connected layers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from fxcheck.passes.annotate import Annotated

from fxcheck.records.graph import Node, Ref
from fxcheck.records.layer import Unit, UnitKind
from fxcheck.records.semantics import Kind

_SEVERAL = ("torch.nn.modules.container.", "torch.nn.modules.rnn.")
"""Modules of torch that hold several layers: what runs inside them is named by its operator too."""
_VIEWS = frozenset({"view", "reshape", "flatten", "unsqueeze", "squeeze", "clone", "contiguous", "alias"})


def describe_layers(facts: Annotated, units: tuple[Unit, ...]) -> tuple[Unit, ...]:
    """Name the units and describe their pre-activations.

    Args:
        facts: the annotated graph.
        units: in execution order.

    Returns:
        The units with ``display``, ``pre_activation``, ``residual`` and ``fully_connected`` filled in.
    """
    cuts = {u.node for u in units if u.is_cut}
    connected = _fully_connected(facts, units)
    names = _unique([_display(u) for u in units])
    out = []
    for unit, name in zip(units, names, strict=True):
        region = _region(facts, unit, cuts)
        out.append(replace(
            unit, display=name, pre_activation=_operators(facts, region), residual=_is_residual(facts, region),
            fully_connected=unit.node in connected,
        ))  # fmt: skip
    return tuple(out)


def _display(unit: Unit) -> str:
    origin = unit.origin
    called = f"#{origin.call + 1}" if origin.call else ""
    is_layer = origin.module_type.startswith("torch.nn.modules.") and not origin.module_type.startswith(_SEVERAL)
    if is_layer and origin.module:
        return origin.module + called
    return f"{origin.module}{called}/{unit.name}" if origin.module else unit.name


def _unique(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    out = []
    for name in names:
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return out


def _region(facts: Annotated, unit: Unit, cuts: set[int]) -> list[int]:
    """Nodes of the unit's tau that depend on trainable parameters, in execution order."""
    seen: set[int] = set()
    stack = list(unit.inputs)
    while stack:
        current = stack.pop()
        if current in seen or not facts.depends[current] or current in cuts:
            continue
        seen.add(current)
        stack.extend(facts.graph.inputs_of[current])
    return sorted(seen)


def _operators(facts: Annotated, region: list[int]) -> tuple[str, ...]:
    interesting = []
    for node in region:
        semantics = facts.semantics[node]
        op = facts.graph.nodes[node].op
        if semantics.kind in (Kind.CONSTANT, Kind.STRUCTURAL) or not op.startswith("aten."):
            continue
        interesting.append(op.split(".")[1])
    return tuple(dict.fromkeys(interesting))


def _is_residual(facts: Annotated, region: list[int]) -> bool:
    """Some sum or concatenation in tau joins two computed branches."""
    for node in region:
        if facts.graph.nodes[node].op.split(".")[1:2] not in (["add"], ["cat"], ["stack"]):
            continue
        sources = facts.graph.inputs_of[node]
        if sum(bool(facts.depends[s]) and s not in facts.graph.trainable for s in sources) > 1:
            return True
    return False


# Fully connected networks (T5) ------------------------------------------------------------------


def _fully_connected(facts: Annotated, units: tuple[Unit, ...]) -> frozenset[int]:
    """Outputs of the units, if the whole model is a chain of linear layers and pointwise activations; else none."""
    if any(u.kind is not UnitKind.ACTIVATION or u.smooth_operands for u in units):
        return frozenset()
    activations = {u.node: u for u in units}
    matrices: set[int] = set()
    ends = [o for o in facts.graph.outputs if facts.depends[o]]
    if len(ends) != 1 or not _walk_chain(facts, ends[0], activations, matrices):
        return frozenset()
    return frozenset(activations)


def _walk_chain(facts: Annotated, end: int, activations: dict[int, Unit], matrices: set[int]) -> bool:
    """Walk back from the end; True when every step is a linear layer, an activation or a harmless view."""
    current, visited = end, set()
    while facts.depends[current]:
        node = facts.graph.nodes[current]
        if current in activations:
            unit = activations[current]
            visited.add(current)
            current = unit.inputs[0]
        elif _is_batch_view(facts, node):
            current = node.arguments["self"].id
        elif facts.semantics[current].fully_connected:
            following = _own_matrix(facts, node, matrices)
            if following is None:
                return False
            current = following
        else:
            return False
    return visited == set(activations)


def _is_batch_view(facts: Annotated, node: Node) -> bool:
    source = node.arguments.get("self")
    if not node.op.startswith("aten.") or node.op.split(".")[1] not in _VIEWS or not isinstance(source, Ref):
        return False
    before = facts.graph.nodes[source.id].shape
    return bool(before and node.shape) and before[0] == node.shape[0] == facts.graph.batch  # type: ignore[index]


def _own_matrix(facts: Annotated, node: Node, matrices: set[int]) -> int | None:
    """The input of a linear layer whose weight is a trainable parameter used here only; None otherwise."""
    arguments = node.arguments
    data, weight = (arguments.get("input"), arguments.get("weight")) if "input" in arguments else (None, None)
    if not isinstance(data, Ref) or not isinstance(weight, Ref):
        return None
    bias = arguments.get("bias")
    if isinstance(bias, Ref) and facts.graph.nodes[bias.id].op != "fxcheck.parameter" and facts.depends[bias.id]:
        return None
    trained = weight.id in facts.graph.trainable and len(facts.graph.users_of[weight.id]) == 1
    if not trained or weight.id in matrices:
        return None
    matrices.add(weight.id)
    return data.id
