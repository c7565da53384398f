"""What verdicts, assumptions and conditions mean, in sentences for someone who has not read the paper."""

from __future__ import annotations

from fxcheck.records.finding import Verdict
from fxcheck.records.report import LayerReport, Report

_ASSUMED = {
    "smooth criterion": "the loss is an analytic function of the outputs; for one with kinks (L1, hinge) give --loss",
}


def headline(report: Report) -> str:
    """``runtime by T8, in the bouligand subdifferential``."""
    by = f" by {report.theorem}" if report.theorem else ""
    kind = f", in the {report.subdifferential.capitalize()} subdifferential" if report.subdifferential else ""
    return f"{report.verdict}{by}{kind if report.verdict is not Verdict.SMOOTH else ''}"


def meaning(report: Report) -> str:
    """What the verdict says about training this model."""
    says = {
        Verdict.SMOOTH: _smooth,
        Verdict.CERTIFIED: _certified,
        Verdict.RUNTIME: _runtime,
        Verdict.UNCOVERED: _uncovered,
    }
    return says[report.verdict](report)


def assumption(name: str) -> str:
    """An assumption with the clause that explains it."""
    return f"{name}: {_ASSUMED[name]}" if name in _ASSUMED else name


def conditions(report: Report) -> list[tuple[str, str]]:
    """Names and answers of the theorems' hypotheses."""
    answers = {True: "yes", False: "no", None: "undecided"}
    return [(name.replace("_", " "), answers[value]) for name, value in report.conditions.to_dict().items()]


def header(report: Report) -> str:
    """Under which torch, mode and batch size the verdict holds."""
    batch = _captured(report) or "any batch size" if report.batch_size is None else f"batch size {report.batch_size}"
    saved = f", proxies saved with torch {report.proxies_from}" if report.proxies_from else ""
    return f"torch {report.torch}, mode {report.mode}, {batch}{saved}"


def _captured(report: Report) -> str:
    """``captured at batch size 4`` where the capture holds for no other (FX607), else empty."""
    found = next((a for a in report.assumptions if "FX607" in a), "")
    return found.partition(" (")[0]


def structure(report: Report) -> str:
    """The counts on one line."""
    s = report.structure
    parts = [
        f"{s.parameters:,} parameters ({s.trainable:,} trainable)",
        f"{_count(s.layers, 'layer')} with kinks or maxes ({s.kinked} kinked, {s.maxpools} max)",
        f"{s.constant_kinks} on constants" if s.constant_kinks else "",
        f"{s.dead_kinks} without effect on an output" if s.dead_kinks else "",
        "residual" if s.residual else "",
        ", ".join(s.normalisation),
    ]
    return "; ".join(p for p in parts if p)


def _smooth(report: Report) -> str:
    return (
        "No kink, tie or finding here depends on a trainable parameter: backward() returns the true gradient, for all "
        f"weights and all data{' of the captured batch size' if _captured(report) else ''}."
    )


def _certified(report: Report) -> str:
    size = " of the captured size" if _captured(report) else ""
    where = "for every step on one sample" if report.theorem == "T1" else f"for all weights and every minibatch{size}"
    return (
        f"backward() always returns a {_kind(report)} subgradient of the loss, {where}, also where a pre-activation "
        "sits exactly on a kink. Nothing needs checking while training."
    )


def _runtime(report: Report) -> str:
    open_ = [layer for layer in report.layers if layer.verdict is Verdict.RUNTIME]
    done = len(report.layers) - len(open_)
    settled = f"{done} of {_count(len(report.layers), 'layer')} can never make it wrong. " if done else ""
    check = f"the check of {report.theorem or 'T8'}"
    if report.theorem == "joint":  # which decides all layers together
        settled, check = "", "the joint condition"
    return (
        "backward() returns the true gradient unless a pre-activation sits exactly on a kink or a max is tied. "
        f"{settled}For {_named(open_)} that depends on weights and data: a step where it happens is right if "
        f"{check} passes at that step. This report does not say that it is ever wrong."
    )


def _uncovered(report: Report) -> str:
    open_ = [layer for layer in report.layers if layer.verdict is Verdict.UNCOVERED]
    where = f" ({_named(open_)})" if open_ else ""
    return (
        f"No theorem covers this model{where}: at some weights backward() may return something that is not a "
        "subgradient of the loss. That is not proof that it does; the diagnostics say what is missing."
    )


def _kind(report: Report) -> str:
    return (report.subdifferential or "clarke").capitalize()


def _named(layers: list[LayerReport]) -> str:
    names = [layer.name or layer.activation or layer.maxpool or "a layer" for layer in layers]
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]}, {names[1]} and {len(names) - 2} more layers"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
