"""The theorems, written once: from layers and findings to verdicts (theory sections 2 to 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fxcheck.records.finding import Diagnostic, Verdict, weakest
from fxcheck.records.layer import Group, Structured, Unit, UnitKind
from fxcheck.records.report import Bias, Conditions, LayerReport, Structure
from fxcheck.theory import diagnose
from fxcheck.theory.certificate import Certificate, find_certificate


@dataclass(frozen=True)
class Classified:
    """The verdict on a model, without the header of a report."""

    verdict: Verdict
    theorem: str | None
    subdifferential: str | None
    conditions: Conditions
    structure: Structure
    layers: tuple[LayerReport, ...]
    diagnostics: tuple[Diagnostic, ...]
    assumptions: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """A group with what was decided about it."""

    group: Group
    units: tuple[Unit, ...]
    certificate: Certificate
    flaws: dict[int, Diagnostic]
    """By unit index: what takes a unit outside every theorem."""

    @property
    def kinked(self) -> tuple[Unit, ...]:
        return tuple(u for u in self.units if u.kind is UnitKind.ACTIVATION)

    @property
    def has_max(self) -> bool:
        return any(u.is_max for u in self.units)

    @property
    def is_one_layer(self) -> bool:
        """One max and the single activation fused with it are one layer of the report."""
        return len(self.kinked) == 1 and sum(u.is_max for u in self.units) == 1

    @property
    def name(self) -> str:
        """Under the activation's name, as the report lists it."""
        first = self.kinked[0] if self.is_one_layer else self.units[0]
        return first.display or first.name

    @property
    def is_certified(self) -> bool:
        return not self.flaws and not self.has_max and self.certificate.certifies

    @property
    def is_certified_alone(self) -> bool:
        """Certified for a minibatch of one."""
        return not self.flaws and not self.has_max and self.certificate.certifies_one_sample

    @property
    def is_distinct(self) -> bool:
        return self.certificate.covers and self.certificate.distinct

    @property
    def is_one_sided(self) -> bool:
        """Bouligand proxies at every kink, and one-hot maxima: what T8 asks of every layer."""
        one_hot = all(u.kind is not UnitKind.SPLIT_MAX for u in self.units)
        return one_hot and all(p.one_sided for u in self.units for p in u.points)


def classify(model: Structured, batch_size: int | None) -> Classified:
    """Decide each layer and the model.

    Args:
        model: the layers found in a graph, with measured proxies.
        batch_size: the only minibatch size to decide for; None for all.

    Returns:
        Verdicts, the theorem that gives them, and diagnostics for everything that falls short.

    Source: T1, T4, T5, T6, T8 of the paper; static discharge per group is theory 4.8, the joint condition theory 5.
    """
    judged = judge(model)
    singular = tuple(u for u in model.units if u.kind is UnitKind.SINGULAR)
    theorem = _theorem(model, judged, singular, batch_size)
    layers = _layers(model, judged, singular, theorem)
    verdict = weakest([layer.verdict for layer in layers])
    if model.findings:
        verdict = Verdict.UNCOVERED
    named = theorem if verdict in (Verdict.CERTIFIED, Verdict.RUNTIME) else None
    return Classified(
        verdict, named, _subdifferential(verdict, named, judged), _conditions(model, judged), _structure(model, len(layers)),
        layers, model.findings, _assumptions(model),
    )  # fmt: skip


def is_certified(units: tuple[Unit, ...], fresh: int) -> bool:
    """Whether units, taken as one group with these fresh parameters, are certified statically."""
    group = Group(0, tuple(u.index for u in units), fresh, fresh)
    return Judged(group, units, find_certificate(units, fresh), _flaws(units)).is_certified


def judge(model: Structured) -> tuple[Judged, ...]:
    """The groups in their total order, each with its bias certificate and its flaws."""
    return tuple(_judge(model, g) for g in model.groups)


def certified_coins(model: Structured) -> tuple[Mapping[int, Mapping[float, int]], ...]:
    """What the certified groups ask of their biases: forwards of one step must not ask for different things."""
    return tuple(j.certificate.coins for j in judge(model) if j.is_certified)


def _judge(model: Structured, group: Group) -> Judged:
    units = tuple(model.units[i] for i in group.units)
    return Judged(group, units, find_certificate(units, group.fresh), _flaws(units))


def _flaws(units: tuple[Unit, ...]) -> dict[int, Diagnostic]:
    found = {u.index: diagnose.flaw(u) for u in units}
    return {i: d for i, d in found.items() if d is not None}


# The theorem of the model --------------------------------------------------------------------


def _theorem(
    model: Structured, judged: tuple[Judged, ...], singular: tuple[Unit, ...], batch_size: int | None
) -> str | None:
    if not judged and not singular:
        return None
    if not singular and all(j.is_certified for j in judged):
        return "T4" if all(j.is_distinct for j in judged) else "T6"
    if not singular and _t1(model, judged, batch_size):
        return "T1"
    if not singular and _t5(judged):
        return "T5"
    return "joint" if _needs_joint(judged) else "T8"


def _t1(model: Structured, judged: tuple[Judged, ...], batch_size: int | None) -> bool:
    """T1, group by group: a minibatch of one, and proxies in the Clarke subdifferential of rho.

    Source: departs from the paper in asking for distinct biases only where T4 and T6 do not apply (theory 5.5).
    """
    return batch_size == model.batch == 1 and all(j.is_certified_alone for j in judged)


def _t5(judged: tuple[Judged, ...]) -> bool:
    """T5: every layer fully connected with a weight matrix of its own, proxies in the subdifferential of rho."""
    return all(
        not j.flaws and not j.has_max and len(j.units) == 1 and all(u.fully_connected for u in j.units) for j in judged
    )


def _needs_joint(judged: tuple[Judged, ...]) -> bool:
    """T8 asks every open layer for parameters of its own, and all layers for one-sided choices."""
    return bool(_blockers(judged)) or any(not j.is_certified and not j.group.fresh for j in judged)


def _blockers(judged: tuple[Judged, ...]) -> tuple[Unit, ...]:
    """Layers that keep T8 from being named: a proxy or a max that is not one-sided (contract.md)."""
    return tuple(
        u for j in judged for u in j.units
        if u.kind is UnitKind.SPLIT_MAX or any(not p.one_sided for p in u.points)
    )  # fmt: skip


# Layers ----------------------------------------------------------------------------------------


def _layers(
    model: Structured, judged: tuple[Judged, ...], singular: tuple[Unit, ...], theorem: str | None
) -> tuple[LayerReport, ...]:
    blockers = _blockers(judged)
    found: list[tuple[int, LayerReport]] = []
    for j in judged:
        found += [(unit.node, layer) for unit, layer in _group_layers(model, j, theorem, blockers)]
    for i, unit in enumerate(singular):
        notes = (diagnose.singular(unit), *(diagnose.blocked(b) for b in blockers[:1]))
        report = _layer(unit, None, len(judged) + i, Bias(None), Verdict.RUNTIME, theorem, notes)
        found.append((unit.node, report))
    ordered = [layer for _, layer in sorted(found, key=lambda item: item[0])]
    return tuple(replace(layer, index=i) for i, layer in enumerate(ordered))


def _group_layers(
    model: Structured, j: Judged, theorem: str | None, blockers: tuple[Unit, ...]
) -> list[tuple[Unit, LayerReport]]:
    verdict, name, reasons = _decide(model, j, theorem, blockers)
    out = []
    for unit, companion in _fused(j.units):
        diagnostics = tuple(
            d for u in (unit, companion) if u is not None for d in ([j.flaws[u.index]] if u.index in j.flaws else [])
        )
        own = tuple(r for r in reasons if r[0] in (None, unit.index, companion.index if companion else -1))
        out.append((unit, _layer(unit, companion, j.group.index, _bias(model, j, unit), verdict, name,
                                 diagnostics + tuple(d for _, d in own))))  # fmt: skip
    return out


def _decide(
    model: Structured, j: Judged, theorem: str | None, blockers: tuple[Unit, ...]
) -> tuple[Verdict, str | None, list[tuple[int | None, Diagnostic]]]:
    """Verdict and theorem of a group, with diagnostics (unit index, or None for all members)."""
    if j.flaws:
        return Verdict.UNCOVERED, None, []
    if j.is_certified:
        return Verdict.CERTIFIED, "T4" if j.is_distinct else "T6", []
    if theorem == "T1":
        return Verdict.CERTIFIED, "T1", []
    reasons = diagnose.shortfalls(model.parameters, model.frozen, j.group, j.units, j.certificate)
    if theorem == "joint":
        shared = [] if j.group.fresh else [(None, diagnose.nothing_fresh(model.parameters, j.group))]
        blocked = [(None, diagnose.blocked(b)) for b in blockers[:1] if b.index not in j.group.units]
        reasons = [*shared, *reasons, *blocked]
    return Verdict.RUNTIME, theorem, reasons


def _fused(units: tuple[Unit, ...]) -> list[tuple[Unit, Unit | None]]:
    """One report layer for a max and the single activation fused with it; else one each (contract: ``layers``)."""
    maxima = [u for u in units if u.is_max]
    kinked = [u for u in units if u.kind is UnitKind.ACTIVATION]
    if len(maxima) == 1 and len(kinked) == 1:
        return [(kinked[0], maxima[0])]
    return [(u, None) for u in units]


def _bias(model: Structured, j: Judged, unit: Unit) -> Bias:
    if unit.kind is not UnitKind.ACTIVATION:
        return Bias(None)
    certificate = j.certificate
    if not certificate.covers:
        return Bias("none")
    here = [
        (model.parameters[p], s)
        for p, s in zip(certificate.parameters, certificate.signs, strict=True)
        if any(p in c.pushes for c in unit.classes)
    ]
    names, signs = tuple(n for n, _ in here), tuple(s for _, s in here)
    return Bias("distinct" if certificate.distinct else "shared", names, signs)


_TIES = {UnitKind.MAX: "picks one", UnitKind.SPLIT_MAX: "splits"}


def _layer(
    unit: Unit, companion: Unit | None, group: int, bias: Bias, verdict: Verdict, theorem: str | None,
    diagnostics: tuple[Diagnostic, ...],
) -> LayerReport:  # fmt: skip
    largest = unit if unit.is_max or unit.kind in (UnitKind.SINGULAR, UnitKind.RECURRENT) else companion
    members = unit.member_names + (companion.member_names if companion else ())
    return LayerReport(
        0, group, unit.display or unit.name, unit.origin.location, unit.pre_activation,
        unit.name if unit.kind is UnitKind.ACTIVATION else None, largest.name if largest else None, members,
        unit.residual or bool(companion and companion.residual), unit.points, bias, verdict, theorem, diagnostics,
        unit.origin.source, _TIES.get(largest.kind, "") if largest else "",
    )  # fmt: skip


# The model -----------------------------------------------------------------------------------


def _subdifferential(verdict: Verdict, theorem: str | None, judged: tuple[Judged, ...]) -> str | None:
    if verdict is Verdict.UNCOVERED:
        return None
    if verdict is Verdict.SMOOTH or theorem == "T8":
        return "bouligand"
    return "bouligand" if theorem in ("T4", "T6", "joint") and all(j.is_one_sided for j in judged) else "clarke"


def _conditions(model: Structured, judged: tuple[Judged, ...]) -> Conditions:
    if any(d.code == "FX606" or d.code.startswith("FX5") for d in model.findings):
        return Conditions(None, None, None, None, None, None)
    continuous = all(u.continuous and all(p.stable for p in u.points) for u in model.units)
    continuous = continuous and not any(d.code.startswith("FX4") for d in model.findings)
    plain = all(u.kind in (UnitKind.ACTIVATION, UnitKind.MAX, UnitKind.SPLIT_MAX) for u in model.units)
    # A parameter with one use that reaches two groups belongs to an identity layer of its own; reuse breaks w = (w_l).
    partition = continuous and plain and not any(j.group.borrowed & model.reused for j in judged)
    trivial = not any(u.is_max for u in model.units)
    kinked = [j for j in judged if j.kinked]
    return Conditions(
        condition_1=partition and trivial,
        condition_2=partition,
        distinct_bias=all(j.is_distinct for j in kinked),
        shared_bias=all(j.certificate.covers for j in kinked),
        trivial_maxpools=trivial,
        lambda_consistent=all(j.certificate.consistent for j in kinked),
    )


def _structure(model: Structured, layers: int) -> Structure:
    return Structure(
        model.scalar_parameters, model.scalar_trainable, layers,
        sum(u.kind is UnitKind.ACTIVATION for u in model.units), sum(u.is_max for u in model.units),
        model.constant_kinks, model.dead_kinks, any(u.residual for u in model.units), model.normalisation,
    )  # fmt: skip


def _assumptions(model: Structured) -> tuple[str, ...]:
    smooth = ("smooth criterion",) if model.smooth_criterion else ()
    return (*smooth, *model.assumptions)
