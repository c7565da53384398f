"""Annotations: escaping, levels and the step's summary."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxcheck.records.finding import Verdict
from fxcheck.render import formats, github
from tests.render import made


@pytest.fixture(autouse=True)
def _beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("\n" * 20, encoding="utf-8")


def test_a_message_keeps_its_colons_and_a_property_does_not() -> None:
    (line,) = [x for x in github.render([made.report(made.flawed(1))]).splitlines() if "FX101" in x]
    assert line == (
        "::warning file=net.py,line=3,title=FX101 net.py%3Amodel%3A uncovered::"
        "blocks.1.relu: no bias, and: no hope. Try: Add a bias."
    )


def test_line_breaks_commas_and_percent_signs_are_escaped() -> None:
    lines = github.render([made.FAILED, made.report(target="a,b:c%d\r\n")]).splitlines()
    assert lines == [
        "::error title=fxcheck gone.py%3A not analysed::no such file%0A  try: another, 100%25 of the time: yes",
        lines[1],
    ]
    assert lines[1].startswith("::notice title=fxcheck a%2Cb%3Ac%25d%0D%0A::smooth. ")


def test_each_model_has_its_verdict_and_its_assumption() -> None:
    assert "Assumes smooth criterion: the loss is an analytic function" in github.render([made.report(made.layer(0))])


def test_new_findings_are_errors_baseline_ones_notices_and_ignored_ones_nothing() -> None:
    lines = github.render_gate(made.every_standing()).splitlines()
    assert [x.split(" ", 1)[0] for x in lines if "FX101 net" in x] == ["::error", "::notice"]
    assert "(in the baseline)" in next(x for x in lines if x.startswith("::notice file"))
    assert not any("blocks.3.relu" in x for x in lines)
    assert lines[0].startswith("::error") and lines[1].startswith("::error")


def test_unused_ignores_warn_and_stale_entries_are_noted() -> None:
    text = github.render_gate(made.every_standing())
    assert "::warning title=fxcheck%3A unused ignore::ignore of FX999" in text
    assert "::notice title=fxcheck%3A stale baseline::net, old.relu, relu, FX101 was not found again" in text


def test_alike_findings_at_one_line_are_one_annotation() -> None:
    found = [made.finding(layer=f"blocks.{i}.relu") for i in range(9)]
    lines = [x for x in github.render_gate(made.gate(made.gated(*found))).splitlines() if "FX101" in x]
    assert len(lines) == 1
    assert "The same holds for blocks.1.relu, blocks.2.relu, blocks.3.relu, blocks.4.relu, blocks.5.relu and 3 more." in lines[0]


def test_code_outside_the_folder_is_annotated_at_the_model() -> None:
    one = made.report(made.layer(0, Verdict.RUNTIME, location="resnet.py:94"))
    assert "::notice file=net.py,line=1,title=runtime" in github.render([one])


def test_the_summary_is_appended_where_github_wants_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("summary.md").write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    formats.write_all([made.report(made.flawed(0))], (), "github")
    assert "::warning" in capsys.readouterr().out
    text = Path("summary.md").read_text(encoding="utf-8")
    assert text.startswith("before\n## net.py:model") and "FX101" in text


def test_other_formats_leave_the_summary_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    formats.write_all([made.report()], ("out.json",))
    assert not Path("summary.md").exists() and capsys.readouterr().out == ""
