"""Whether AD takes the same sides in another dtype than the one captured, as under autocast (theory 4.1)."""

from __future__ import annotations

import torch

from fxcheck.ops.measured import Measured
from fxcheck.passes.pipeline import Study
from fxcheck.records.graph import Ref
from fxcheck.records.layer import Unit, UnitKind


def what_differs_in(study: Study, dtype: torch.dtype) -> tuple[str, ...]:
    """Measure every activation again.

    Args:
        study: the captured model.
        dtype: the dtype that activations may have at run time.

    Returns:
        A clause for each activation whose kinks or sides are not the captured ones, or cannot be measured; empty when
        the static findings hold in that dtype too.
    """
    name = str(dtype).removeprefix("torch.")
    units = [u for u in study.structured.units if u.kind is UnitKind.ACTIVATION]
    faults = {u.name for u in units if not _is_alike(study, u, name)}
    return tuple(f"{fault} was not measured to take the same sides in {name}" for fault in sorted(faults))


def _is_alike(study: Study, unit: Unit, dtype: str) -> bool:
    node = study.graph.nodes[unit.node]
    semantics = study.facts.semantics[node.id]
    operand = semantics.operand
    if unit.members != (node.id,) or operand is None or unit.smooth_operands:
        return False
    arguments = {n: v for n, v in node.arguments.items() if n != operand}
    if any(isinstance(v, (Ref, tuple)) for v in arguments.values()):
        return False
    kinks = tuple(p.kink for p in unit.points)
    found = Measured().scalar(node.op, arguments, operand, kinks, dtype)
    if found is None:
        return False
    return [(p.kink, p.weight) for p in found] == [(p.kink, p.weight) for p in unit.points]
