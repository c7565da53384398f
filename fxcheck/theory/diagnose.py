"""Diagnostics of layers: what is missing, and a change to the model that would supply it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fxcheck.records.bias import Push
from fxcheck.records.finding import Diagnostic
from fxcheck.records.layer import Group, Unit, UnitKind
from fxcheck.theory.certificate import Certificate, find_certificate, weight_of

_PAPER_USES_OTHERS = (
    "The paper's static theorem needs one side at all kinks; PyTorch's {name} takes different sides, so it needs "
    "proxies that PyTorch does not use."
)


def flaw(unit: Unit) -> Diagnostic | None:
    """What takes a unit outside every theorem; None when nothing does."""
    where = unit.origin.location
    if unit.kind is UnitKind.ORDER_STATISTIC:
        return Diagnostic(
            "FX303", f"{unit.name} is an order statistic, which no theorem covers{_because(unit)}",
            "Use a max or min over a dimension, or a fixed selection of entries.", where,
        )  # fmt: skip
    if unit.kind is UnitKind.SPLIT_MAX and "aminmax" in unit.name:
        return Diagnostic(
            "FX302", f"{unit.name} splits the gradient among tied entries of two results, and they are not observed",
            "Use amax and amin, or max(dim) and min(dim).", where,
        )  # fmt: skip
    if unit.kind is UnitKind.RECURRENT:
        return Diagnostic(
            "FX103", f"{unit.name} applies a kinked activation at every time step with the same weights",
            "Analyse the module itself, on the CPU: there each of its steps is a layer. Or use a tanh, GRU or LSTM cell, "
            "which are smooth.", where,
        )  # fmt: skip
    if unit.kind is UnitKind.ACTIVATION:
        return _flawed_activation(unit)
    return None


def _flawed_activation(unit: Unit) -> Diagnostic | None:
    where = unit.origin.location
    if not unit.continuous:
        return Diagnostic("FX401", f"{unit.name} is not continuous", "Make both branches meet at the threshold.", where)
    if unit.note:
        return Diagnostic(
            "FX202", f"{unit.name}: {unit.note}",
            "Use one activation that fxcheck proxies lists, or give each its own pre-activation.", where,
        )  # fmt: skip
    for p in unit.points:
        if not p.stable:
            return Diagnostic(
                "FX403", f"{unit.name} has no finite, settled slope at {p.kink:g}",
                "Keep the argument off that point, for instance by adding a positive constant.", where,
            )  # fmt: skip
        if p.is_wrong_derivative:
            return Diagnostic(
                "FX507", f"{unit.name} is differentiable at {p.kink:g} with slope {p.left:g}, but AD returns {p.ad:g}",
                "Write the same function without the kinks that cancel there.", where,
            )  # fmt: skip
        if p.weight is None or not 0 <= p.weight <= 1:
            return Diagnostic(
                "FX202", f"AD's slope {p.ad:g} of {unit.name} at {p.kink:g} lies outside [{min(p.left, p.right):g}, "
                f"{max(p.left, p.right):g}]", "Use an activation whose slope at the kink lies between its neighbours'.",
                where,
            )  # fmt: skip
    return None


def _because(unit: Unit) -> str:
    return f" ({unit.note})" if unit.note else ""


def singular(unit: Unit) -> Diagnostic:
    note = unit.note or "analytic but at one point, where its slope does not exist"
    return Diagnostic(
        "FX205", f"{unit.name}: {note}",
        "Add a positive constant inside (x * x + eps), so that the point is never reached.", unit.origin.location,
    )  # fmt: skip


def blocked(blocker: Unit) -> Diagnostic:
    """T8 is not available to the undischarged layers, because of another one."""
    splits = blocker.kind is UnitKind.SPLIT_MAX
    what = "splits ties" if splits else "takes a slope strictly between the one-sided ones"
    instead = "max(dim) or a max-pool, which pick one index" if splits else "a form that takes one side at its kink"
    return Diagnostic(
        "FX203", f"T8 needs every layer one-sided, and {blocker.name} at {blocker.display or 'the forward'} {what}",
        f"Replace {blocker.name} by {instead}.", blocker.origin.location,
    )  # fmt: skip


def nothing_fresh(parameters: Sequence[str], group: Group) -> Diagnostic:
    if not group.own:
        return Diagnostic(
            "FX103", "no parameter stands between this layer and the layers before it, so nothing can move it alone",
            "Check it while training (the joint condition), or put a layer with a bias (a convolution, a linear layer or an "
            "affine normalisation) before it.",
        )  # fmt: skip
    names = ", ".join(_names(parameters, group.own)[:3])
    return Diagnostic(
        "FX103", f"all its parameters ({names}) already feed an earlier layer: weights are shared across layers",
        "Check it while training (the joint condition), or give this layer a bias of its own.",
    )  # fmt: skip


def shortfalls(
    parameters: Sequence[str], frozen: frozenset[str], group: Group, units: Sequence[Unit], certificate: Certificate
) -> list[tuple[int | None, Diagnostic]]:
    """Why T4 and T6 do not certify a group: (unit index, diagnostic)."""
    found: list[tuple[int | None, Diagnostic]] = []
    for unit in units:
        where = unit.origin.location
        if unit.kind is UnitKind.MAX:
            found.append((unit.index, Diagnostic(
                "FX301", f"{unit.name} takes a max over several entries: whether a tie is harmless depends on the step",
                "Check it while training (T8), or use average pooling or a strided convolution.", where,
            )))  # fmt: skip
        if unit.kind is UnitKind.SPLIT_MAX:
            found.append((unit.index, Diagnostic(
                "FX302", f"{unit.name} splits the gradient among tied entries, and T8 needs a max that picks one",
                "Check it while training, where the joint condition decides; max(dim) and max-pools pick one index and "
                "are decided faster.", where,
            )))  # fmt: skip
        if unit.kind is UnitKind.ACTIVATION and group.fresh and not certificate.covers:
            found.append((unit.index, _no_bias(parameters, frozen, group, unit)))
        if unit.kind is UnitKind.ACTIVATION and weight_of(unit) is None:
            found.append((unit.index, _inconsistent(unit, group)))
    if certificate.covers and not certificate.consistent and all(weight_of(u) is not None for u in _kinked(units)):
        found.append((None, Diagnostic(
            "FX104", "one bias serves kinks at which AD takes different sides",
            "Give each activation a bias, or features, of its own.", units[0].origin.location,
        )))  # fmt: skip
    return found


def _kinked(units: Sequence[Unit]) -> list[Unit]:
    return [u for u in units if u.kind is UnitKind.ACTIVATION]


def _no_bias(parameters: Sequence[str], frozen: frozenset[str], group: Group, unit: Unit) -> Diagnostic:
    where = unit.origin.location
    if unit.may_collapse:
        return Diagnostic(
            "FX205", f"{unit.name} is constant where its bounds are equal, and AD has a slope there",
            "Clamp by numbers; otherwise each step looks at the bounds.", where,
        )  # fmt: skip
    fixed = _with_bias(unit)
    checked = " (checked: with a bias right before it, T6 certifies this layer)" if fixed else ""
    lost = [n for n in _names(parameters, group.fresh) if n.endswith("bias")]
    if unit.pre_activation and "norm" in unit.pre_activation[-1] and "vector" in unit.pre_activation[-1]:
        return Diagnostic(
            "FX102", f"{unit.name} has its kink where a norm equals a constant, and no bias moves a norm one sure way",
            "Check it while training (T8), or normalise with x * rsqrt(x.pow(2).sum(-1, keepdim=True) + eps), which is "
            "smooth.", where,
        )  # fmt: skip
    if lost:
        return Diagnostic(
            "FX102", f"{lost[-1]} does not move every entry of the pre-activation of {unit.name} the same sure way",
            f"Add an affine bias as the last step before {unit.name}{checked}.", where,
        )  # fmt: skip
    module = (unit.origin.module.rsplit(".", 1)[0] + ".") if "." in unit.origin.module else ""
    near = sorted(n for n in frozen if n.endswith("bias") and n.startswith(module) and module)
    if near:
        return Diagnostic(
            "FX105", f"no trainable bias moves the pre-activation of {unit.name}; {near[0]} is frozen",
            f"Train {near[0]}{checked}.", where,
        )  # fmt: skip
    return Diagnostic(
        "FX101", f"no additive trainable bias reaches every entry of the pre-activation of {unit.name}",
        f"Set bias=True on the layer before {unit.name}, or affine=True on its normalisation{checked}.", where,
    )  # fmt: skip


def _inconsistent(unit: Unit, group: Group) -> Diagnostic:
    sides = ", ".join(f"{p.kink:g}: {_side(p.weight)}" for p in unit.points)
    consistent = replace(unit, points=tuple(replace(p, weight=1.0) for p in unit.points))
    certified = find_certificate([consistent], group.fresh).certifies
    checked = " Checked: with the left slope at every kink, T6 would certify this layer." if certified else ""
    return Diagnostic(
        "FX201", f"{unit.name} is not lambda-consistent: AD takes ({sides})",
        f"Use an activation with one kink (relu) or a smooth one (silu, gelu). "
        f"{_PAPER_USES_OTHERS.format(name=unit.name)}{checked}", unit.origin.location,
    )  # fmt: skip


def _side(weight: float | None) -> str:
    return {1.0: "the left slope", 0.0: "the right slope", None: "neither"}.get(weight, "a slope in between")


def _with_bias(unit: Unit) -> bool:
    """Try the fix: one fresh bias under every entry of the pre-activation."""
    extra = max((c.mask.bit_length() for c in unit.classes), default=0)
    pushed = tuple(
        replace(c, pushes={**c.pushes, extra: Push(1, 1.0, 1)}) if c.varies else c for c in unit.classes
    )  # fmt: skip
    return find_certificate([replace(unit, classes=pushed)], 1 << extra).certifies


def _names(parameters: Sequence[str], mask: int) -> list[str]:
    return [n for i, n in enumerate(parameters) if mask >> i & 1]
