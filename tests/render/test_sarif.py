"""SARIF: valid, stable under moved lines, and honest about what failed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fxcheck.records.finding import Diagnostic, Verdict
from fxcheck.records.gate import GateFinding, Standing
from fxcheck.render import sarif
from tests.render import made

SCHEMA = json.loads((Path(__file__).parent / "sarif_schema.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("\n" * 20, encoding="utf-8")


def _run(text: str) -> dict[str, Any]:
    document = json.loads(text)
    jsonschema.validate(document, SCHEMA)
    run: dict[str, Any] = document["runs"][0]
    return run


def _print(*findings: GateFinding) -> list[str]:
    run = _run(sarif.render_gate(made.gate(made.gated(*findings))))
    return [r["partialFingerprints"]["primaryLocationLineHash"] for r in run["results"]]


def test_what_analyze_and_the_gate_write_is_valid() -> None:
    one = made.report(made.layer(0), made.flawed(1), made.layer(2, Verdict.RUNTIME))
    run = _run(sarif.render([one, made.FAILED]))
    assert [(r["ruleId"], r["level"]) for r in run["results"]] == [("FX101", "warning"), ("runtime", "note")]
    assert _run(sarif.render_gate(made.every_standing()))["results"]
    assert _run(sarif.render([made.report()]))["results"] == []


def test_the_schema_refuses_a_broken_document() -> None:
    document = json.loads(sarif.render([made.report(made.flawed(0))]))
    document["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] = "/root/net.py"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_a_fingerprint_outlives_moved_lines_and_new_words() -> None:
    assert _print(made.finding()) == _print(made.finding(line=17, message="other words", source="y"))


@pytest.mark.parametrize("change", [{"code": "FX102"}, {"layer": "x"}, {"op": "relu6"}, {"model": "other"}])
def test_a_fingerprint_tells_findings_apart(change: dict[str, str]) -> None:
    assert _print(made.finding()) != _print(made.finding(**change))


def test_equal_findings_are_numbered() -> None:
    first, second = _print(made.finding(), made.finding())
    assert first.endswith(":1") and second == first[:-1] + "2"


def test_new_findings_are_errors_and_the_others_suppressed_with_the_reason() -> None:
    run = _run(sarif.render_gate(made.every_standing()))
    assert [r["level"] for r in run["results"]] == ["error", "note", "note"]
    assert "suppressions" not in run["results"][0]
    assert all(r["suppressions"][0]["justification"] == "agreed on Monday" for r in run["results"][1:])


def test_a_failed_model_is_a_notification_and_an_unsuccessful_execution() -> None:
    invocation = _run(sarif.render_gate(made.every_standing()))["invocations"][0]
    assert not invocation["executionSuccessful"]
    first, *rest = invocation["toolExecutionNotifications"]
    assert first["descriptor"] == {"id": "FX601"} and "gone.py: no such file" in first["message"]["text"]
    assert ["FX999" in n["message"]["text"] for n in rest] == [True, False]
    assert _run(sarif.render_gate(made.gate(made.gated())))["invocations"][0]["executionSuccessful"]


def test_rules_carry_the_pages_of_explain() -> None:
    rule = _run(sarif.render([made.report(made.flawed(0))]))["tool"]["driver"]["rules"][0]
    assert rule["id"] == "FX101" and rule["help"]["markdown"].startswith("# FX101")
    assert "No trainable bias is added" in rule["fullDescription"]["text"]


def test_a_place_outside_the_folder_is_shown_at_the_model_and_said() -> None:
    for path in ("resnet.py", "/elsewhere/resnet.py", "../resnet.py"):
        away = (Diagnostic("FX301", "a max", "", f"{path}:94"),)
        one = made.report(made.layer(0, Verdict.RUNTIME, diagnostics=away))
        result = _run(sarif.render([one]))["results"][0]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "net.py"
        assert f"(at {path}:94)" in result["message"]["text"]
        named = _run(sarif.render([replace(one, target="torchvision.models:resnet18")]))["results"][0]
        assert "physicalLocation" not in named["locations"][0]


def test_paths_are_relative_and_quoted() -> None:
    Path("my models").mkdir()
    Path("my models/net.py").write_text("", encoding="utf-8")
    for path in ("my models/net.py", str(Path("my models/net.py").resolve())):
        run = _run(sarif.render_gate(made.gate(made.gated(made.finding(Standing.NEW, 0, path=path)))))
        physical = run["results"][0]["locations"][0]["physicalLocation"]
        assert physical["artifactLocation"]["uri"] == "my%20models/net.py" and physical["region"]["startLine"] == 1


def test_the_assumptions_are_part_of_the_run() -> None:
    run = _run(sarif.render([made.report(made.layer(0))]))
    assert "smooth criterion: the loss" in run["properties"]["models"][0]["assumptions"][0]
