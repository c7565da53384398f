"""Workflow commands of GitHub Actions: a finding as an annotation at the user's line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fxcheck.records.gate import GatedModel, GateFinding, GateResult, Standing
from fxcheck.records.report import FailedTarget, Report
from fxcheck.render import words
from fxcheck.render.flat import Level, level, models, place, sentence

_COMMANDS = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "notice"}


def render(results: Sequence[Report | FailedTarget]) -> str:
    """Uncovered layers as warnings, others as notices, failed targets as errors."""
    return _lines(models(results))


def render_gate(result: GateResult) -> str:
    """New findings as errors, those of the baseline as notices; ignored ones are left out."""
    remarks = [_command("warning", {"title": "fxcheck: unused ignore"}, text) for text in result.unused_ignores]
    stale = [
        _command("notice", {"title": "fxcheck: stale baseline"}, f"{', '.join(filter(None, key))} was not found again")
        for key in result.stale
    ]
    return _lines(result.models) + "".join(f"{line}\n" for line in (*remarks, *stale))


def _lines(found: Iterable[GatedModel]) -> str:
    """Errors first, as GitHub shows only the first annotations of a step; a verdict for each model last."""
    annotations: list[tuple[Level, str]] = []
    verdicts: list[str] = []
    for model in found:
        annotations += _annotations(model)
        verdicts += [_command("notice", {"title": f"fxcheck {model.name}"}, _verdict(model.report))] if model.report else []
    order = list(Level)
    annotations.sort(key=lambda pair: order.index(pair[0]))
    return "".join(f"{line}\n" for line in (*(line for _, line in annotations), *verdicts))


def _annotations(model: GatedModel) -> Iterator[tuple[Level, str]]:
    if model.error is not None:
        yield Level.ERROR, _command("error", {"title": f"fxcheck {model.name}: not analysed"}, model.error.message)
    for findings in _alike(model):
        yield level(model, findings[0]), _annotation(model, findings)


def _alike(model: GatedModel) -> Iterable[list[GateFinding]]:
    """Findings with one code at one line are one annotation: GitHub shows ten of a level for a step."""
    found: dict[object, list[GateFinding]] = {}
    for finding in model.findings:
        if finding.standing is not Standing.IGNORED:
            key = (finding.code, finding.path, finding.line, level(model, finding))
            found.setdefault(key, []).append(finding)
    return found.values()


def _annotation(model: GatedModel, findings: list[GateFinding]) -> str:
    first, spot = findings[0], place(model, findings[0])
    properties: dict[str, object] = {"file": spot[0], "line": spot[1]} if spot else {}
    more = f" The same holds for {_listed([f.layer for f in findings[1:]])}." if len(findings) > 1 else ""
    known = " (in the baseline)" if first.standing is Standing.BASELINE else ""
    properties["title"] = f"{first.code} {model.name}: {first.verdict}{known}"
    return _command(_COMMANDS[level(model, first)], properties, sentence(first) + more)


def _listed(names: Sequence[str]) -> str:
    named = [n or "the model" for n in names]
    return ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")


def _verdict(report: Report) -> str:
    assumed = "".join(f" Assumes {words.assumption(name)}." for name in report.assumptions)
    return f"{words.headline(report)}. {words.meaning(report)}{assumed}"


def _command(name: str, properties: dict[str, object], message: str) -> str:
    listed = ",".join(f"{key}={_property(str(value))}" for key, value in properties.items())
    return f"::{name}{' ' + listed if listed else ''}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
