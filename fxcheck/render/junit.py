"""JUnit XML: a test suite for each model, a test case for each layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as Xml

from fxcheck.records.finding import Verdict
from fxcheck.records.gate import GatedModel, GateFinding, GateResult, Standing
from fxcheck.records.report import FailedTarget, Report
from fxcheck.render import words
from fxcheck.render.flat import Level, level, models, sentence

WHOLE = "(model)"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(results: Sequence[Report | FailedTarget]) -> str:
    """Uncovered layers fail, and so does a target that could not be analysed (as an error)."""
    return _document(models(results))


def render_gate(result: GateResult) -> str:
    """What counts against a model fails; findings that are known or ignored are skipped, with the reason."""
    return _document(result.models)


def _document(found: Iterable[GatedModel]) -> str:
    suites = [_suite(model) for model in found]
    totals = {key: str(sum(int(s.get(key, "0")) for s in suites)) for key in ("tests", "failures", "errors", "skipped")}
    root = Xml.Element("testsuites", {"name": "fxcheck", **totals})
    root.extend(suites)
    Xml.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _suite(model: GatedModel) -> Xml.Element:
    suite = _element("testsuite", name=model.name)
    if model.report is not None:
        _properties(suite, model, model.report)
    by_layer: dict[str, list[GateFinding]] = {}
    for finding in model.findings:
        by_layer.setdefault(finding.layer, []).append(finding)
    named = [layer.name for layer in model.report.layers] if model.report else []
    for layer in dict.fromkeys(("", *named, *by_layer)):
        suite.append(_case(model, layer, by_layer.get(layer, [])))
    for key, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(key, str(len(list(suite.iter(tag)))))
    return suite


def _properties(suite: Xml.Element, model: GatedModel, report: Report) -> None:
    listed = _element("properties")
    values = {"target": model.target, "require": model.require, "verdict": str(report.verdict),
              "theorem": report.theorem or "", "meaning": words.meaning(report), "holds for": words.header(report)}  # fmt: skip
    pairs = [*values.items(), *(("assumes", words.assumption(name)) for name in report.assumptions)]
    listed.extend([_element("property", name=name, value=value) for name, value in pairs])
    suite.append(listed)


def _case(model: GatedModel, layer: str, found: Sequence[GateFinding]) -> Xml.Element:
    case = _element("testcase", classname=model.name, name=layer or WHOLE)
    if found and found[0].path:
        case.set("file", _clean(found[0].path))
        case.set("line", str(found[0].line))
    if layer == "" and model.error is not None:
        case.append(_element("error", type=model.error.code or "error", message=model.error.message))
    counting = [f for f in found if level(model, f) is not Level.NOTE]
    known = [f for f in found if f.standing is not Standing.NEW]
    if counting:
        case.append(_outcome("failure", counting, type=_verdict_of(counting)))
    elif known:
        case.append(_outcome("skipped", known))
    elif found:
        _text(case, "system-out", found)
    return case


def _outcome(tag: str, found: Sequence[GateFinding], **attributes: str) -> Xml.Element:
    codes = ", ".join(dict.fromkeys(f.code for f in found))
    reasons = "; ".join(dict.fromkeys(f.reason or str(f.standing) for f in found))
    outcome = _element(tag, message=f"{codes}: {reasons if tag == 'skipped' else found[0].message}", **attributes)
    outcome.text = _clean("\n".join(f"{f.code} {sentence(f)}" for f in found))
    return outcome


def _text(case: Xml.Element, tag: str, found: Sequence[GateFinding]) -> None:
    Xml.SubElement(case, tag).text = _clean("\n".join(f"{f.code} {sentence(f)}" for f in found))


def _verdict_of(found: Sequence[GateFinding]) -> str:
    verdicts = [f.verdict for f in found]
    return str(Verdict.UNCOVERED) if str(Verdict.UNCOVERED) in verdicts else verdicts[0]


def _element(tag: str, **attributes: str) -> Xml.Element:
    return Xml.Element(tag, {key: _clean(value) for key, value in attributes.items()})


def _clean(text: str) -> str:
    """Characters that XML cannot hold as an escape that can be read."""
    return _NOT_XML.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
