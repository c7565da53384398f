"""JUnit: one suite a model, one case a layer, and text that XML can hold."""

from __future__ import annotations

from xml.etree import ElementTree as Xml

from fxcheck.records.finding import Verdict
from fxcheck.render import junit
from tests.render import made


def _suites(text: str) -> list[Xml.Element]:
    root = Xml.fromstring(text)
    assert root.tag == "testsuites"
    for key, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(root.get(key, "-1")) == len(list(root.iter(tag)))
    return list(root)


def test_each_layer_is_a_case_and_uncovered_ones_fail() -> None:
    (suite,) = _suites(junit.render([made.report(made.layer(0), made.flawed(1), made.layer(2, Verdict.RUNTIME))]))
    assert [c.get("name") for c in suite.iter("testcase")] == ["(model)", "blocks.0.relu", "blocks.1.relu", "blocks.2.relu"]
    (failure,) = suite.iter("failure")
    assert failure.get("type") == "uncovered" and "Add a bias" in (failure.text or "")
    assert [c.get("line") for c in suite.iter("testcase")] == [None, None, "3", "4"]


def test_a_failed_target_is_an_error() -> None:
    (suite,) = _suites(junit.render([made.FAILED]))
    (error,) = suite.iter("error")
    assert error.get("type") == "FX601" and "no such file" in (error.get("message") or "")


def test_known_and_ignored_findings_are_skipped_with_the_reason() -> None:
    first, second = _suites(junit.render_gate(made.every_standing()))
    assert (first.get("failures"), first.get("skipped"), second.get("errors")) == ("1", "2", "1")
    assert all("agreed on Monday" in (s.get("message") or "") for s in first.iter("skipped"))


def test_hostile_and_control_characters_survive_as_text() -> None:
    name = made.HOSTILE + "\x00\x1b[31m\ud800"
    (suite,) = _suites(junit.render([made.report(made.layer(0, name=name))]))
    assert list(suite.iter("testcase"))[1].get("name") == made.HOSTILE + "\\x00\\x1b[31m\\xd800"


def test_the_assumption_is_a_property() -> None:
    (suite,) = _suites(junit.render([made.report(made.layer(0))]))
    values = {p.get("name"): p.get("value") or "" for p in suite.iter("property")}
    assert values["verdict"] == "certified" and "smooth criterion: the loss" in values["assumes"]
