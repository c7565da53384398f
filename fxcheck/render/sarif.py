"""SARIF 2.1.0, as code scanning reads it: rules from the pages of ``fxcheck explain``, fingerprints without lines."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from fxcheck.errors import UsageError
from fxcheck.records.gate import GatedModel, GateFinding, GateResult, Standing
from fxcheck.records.report import FailedTarget, Report
from fxcheck.render import json, words
from fxcheck.render.flat import level, models, place, sentence
from fxcheck.render.version import fxcheck_version
from fxcheck.theory import explain

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
ROOT = "%SRCROOT%"

Json = dict[str, Any]


def render(results: Sequence[Report | FailedTarget]) -> str:
    """One run for all targets; a failed one is a notification of the invocation."""
    return json.dump(_document(models(results), ()))


def render_gate(result: GateResult) -> str:
    """One run for all models; known and ignored findings are suppressed, with the reason."""
    stale = (f"stale entry of the baseline: {', '.join(filter(None, key))}" for key in result.stale)
    return json.dump(_document(result.models, (*result.unused_ignores, *stale)))


def _document(found: Sequence[GatedModel], remarks: Sequence[str]) -> Json:
    pairs = [(model, finding) for model in found for finding in model.findings]
    rules = list(dict.fromkeys(finding.code for _, finding in pairs))
    run = {
        "tool": {"driver": _driver(rules)},
        "columnKind": "utf16CodeUnits",
        "originalUriBaseIds": {ROOT: {"description": {"text": "The folder in which fxcheck ran."}}},
        "invocations": [_invocation(found, remarks)],
        "results": list(_results(pairs, rules)),
        "properties": {"models": [_model(m.name, m.require, m.report) for m in found if m.report is not None]},
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _driver(rules: Iterable[str]) -> Json:
    return {"name": "fxcheck", "version": fxcheck_version(), "rules": [_rule(code) for code in rules]}


def _rule(code: str) -> Json:
    """A rule from its page; a verdict that stands for a code has no page."""
    try:
        page = explain.page(code)
    except UsageError:
        return {"id": code, "shortDescription": {"text": f"A layer is {code}"}}
    title = page.title.partition(": ")[2] or page.title
    said = [page.section(heading) for heading in explain.SECTIONS[:3]]
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in title.replace("-", " ").split() if word.isalpha()),
        "shortDescription": {"text": title},
        "fullDescription": {"text": said[0]},
        "help": {"text": "\n\n".join(said), "markdown": page.text},
    }


def _results(pairs: Sequence[tuple[GatedModel, GateFinding]], rules: Sequence[str]) -> Iterator[Json]:
    seen: Counter[str] = Counter()
    for model, finding in pairs:
        digest = hashlib.sha256("\0".join(finding.key).encode()).hexdigest()[:16]
        seen[digest] += 1
        yield _result(model, finding, rules.index(finding.code), f"{digest}:{seen[digest]}")


def _result(model: GatedModel, finding: GateFinding, rule: int, fingerprint: str) -> Json:
    result: Json = {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": str(level(model, finding)),
        "message": {"text": f"{model.name}: {sentence(finding)}"},
        "locations": [_location(model, finding)],
        "partialFingerprints": {"primaryLocationLineHash": fingerprint},
        "properties": {"model": model.name, "layer": finding.layer, "op": finding.op, "verdict": finding.verdict},
    }
    if finding.standing is not Standing.NEW:
        why = finding.reason or f"{finding.standing} finding"
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": why}]
    return result


def _location(model: GatedModel, finding: GateFinding) -> Json:
    name = ".".join(filter(None, (model.name, finding.layer)))
    location: Json = {"logicalLocations": [{"fullyQualifiedName": name, "kind": "module"}]}
    spot = place(model, finding)
    if spot is not None:
        region: Json = {"startLine": spot[1]}
        if finding.source and spot[0] == finding.path:
            region["snippet"] = {"text": finding.source}
        location["physicalLocation"] = {"artifactLocation": {"uri": quote(spot[0]), "uriBaseId": ROOT}, "region": region}
    return location


def _invocation(found: Iterable[GatedModel], remarks: Iterable[str]) -> Json:
    errors = [m.error for m in found if m.error is not None]
    notifications: list[Json] = [
        {"level": "error", "message": {"text": f"{e.target}: {e.message}"}, **({"descriptor": {"id": e.code}} if e.code else {})}
        for e in errors
    ]
    notifications += [{"level": "warning", "message": {"text": remark}} for remark in remarks]
    return {"executionSuccessful": not errors, "toolExecutionNotifications": notifications}


def _model(name: str, require: str, report: Report) -> Json:
    return {
        "name": name, "require": require, "verdict": str(report.verdict), "theorem": report.theorem,
        "holds_for": words.header(report), "assumptions": [words.assumption(a) for a in report.assumptions],
    }  # fmt: skip
