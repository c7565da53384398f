"""What a gate found, in sentences that the text and the Markdown rendering share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fxcheck.records.gate import GatedModel, GateFinding, GateResult, ModelChange, Standing

HEADINGS = ("model", "requires", "verdict", "by", "findings", "outcome")
_REQUIRED = {
    "smooth": "no kink at all",
    "certified": "certified",
    "runtime": "certified or checkable at run time",
    "never": "nothing",
}


@dataclass(frozen=True)
class Notice:
    """Findings of one model with the same code and hint."""

    code: str
    message: str
    hint: str
    findings: tuple[GateFinding, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f.layer for f in self.findings if f.layer))

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """``file.py:12`` and the line, without repetitions."""
        found = ((f"{f.path}:{f.line}" if f.line else f.path, f.source.strip()) for f in self.findings if f.path)
        return tuple(dict.fromkeys(found))


def notices(model: GatedModel, standing: Standing = Standing.NEW) -> tuple[Notice, ...]:
    """The findings of a model with one standing, alike ones together."""
    found: dict[tuple[str, str], list[GateFinding]] = {}
    for f in model.findings:
        if f.standing is standing:
            found.setdefault((f.code, f.hint), []).append(f)
    return tuple(Notice(code, fs[0].message, hint, tuple(fs)) for (code, hint), fs in found.items())


def line(model: GatedModel) -> tuple[str, ...]:
    """The cells of one model under ``HEADINGS``."""
    if model.report is None:
        return (model.name, model.require, "-", "-", "-", outcome(model))
    by = model.report.theorem or "-"
    return (model.name, model.require, str(model.report.verdict), by, _counts(model.findings), outcome(model))


def outcome(model: GatedModel) -> str:
    if model.error is not None:
        return "not analysed"
    return "falls short" if model.falls_short else "passes"


def summary(result: GateResult) -> str:
    """The last line: how many models, how many of them fall short, and the exit status."""
    models = result.models
    short, broken = sum(m.falls_short for m in models), sum(m.error is not None for m in models)
    parts = [f"{_count(len(models), 'model')}: {len(models) - short - broken} passed"]
    parts += [f"{short} fell short"] if short else []
    parts += [f"{broken} could not be analysed"] if broken else []
    return f"{', '.join(parts)} (exit status {result.status})"


def required(model: GatedModel) -> str:
    """``requires certified, found runtime``."""
    verdict = model.report.verdict if model.report else "nothing"
    return f"requires {_REQUIRED[model.require]}, found {verdict}"


def assumed(result: GateResult) -> tuple[str, ...]:
    """All assumptions of the reports, once each."""
    return tuple(dict.fromkeys(a for m in result.models if m.report for a in m.report.assumptions))


def asides(result: GateResult) -> list[str]:
    """Sentences about ignores, and about entries of the baseline, that matched nothing."""
    stale = [
        f"the baseline lists {code} for {layer or 'the whole model'} of {model}"
        + (f" ({op})" if op else "")
        + ", which was not found again; --update-baseline drops it"
        for model, layer, op, code in result.stale
    ]
    return [*result.unused_ignores, *stale]


def reasons(result: GateResult) -> list[tuple[str, int, str]]:
    """Model, number of ignored findings and the reason for it."""
    found: dict[tuple[str, str], int] = {}
    for f in result.findings:
        if f.standing is Standing.IGNORED:
            found[f.model, f.reason] = found.get((f.model, f.reason), 0) + 1
    return [(model, count, reason) for (model, reason), count in found.items()]


def changed(change: ModelChange) -> str:
    """What another torch does to a model, as a headline."""
    verdict = "" if change.before == change.after else f", verdict {change.before} -> {change.after}"
    return f"{change.model}: {_count(len(change.layers), 'layer')} changed{verdict}"


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first few names, and how many are left out."""
    left = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {left} more" if left > 0 else "")


def _counts(findings: Iterable[GateFinding]) -> str:
    standings = [f.standing for f in findings]
    words = ((Standing.NEW, "new"), (Standing.BASELINE, "in the baseline"), (Standing.IGNORED, "ignored"))
    return ", ".join(f"{standings.count(s)} {word}" for s, word in words if s in standings) or "-"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
