"""Which format goes where."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxcheck.flags import Format
from fxcheck.render import formats
from tests.render import made


@pytest.mark.parametrize(
    "outputs, form, expected",
    [
        ((), None, [(None, "rich")]),
        ((), "sarif", [(None, "sarif")]),
        (("a.sarif", "b.HTML", "c.xml", "d.md", "e.json"), None,
         [("a.sarif", "sarif"), ("b.HTML", "html"), ("c.xml", "junit"), ("d.md", "markdown"), ("e.json", "json")]),
        (("found.json",), "sarif", [("found.json", "sarif")]),
        (("notes",), None, [("notes", "rich")]),
        (("github=-", "sarif=x.json", "b.html"), None, [(None, "github"), ("x.json", "sarif"), ("b.html", "html")]),
        (("a=b.json",), None, [("a=b.json", "json")]),
        (("sarif=",), None, [("sarif=", "rich")]),
    ],
)  # fmt: skip
def test_the_named_format_beats_the_flag_and_the_flag_the_extension(
    outputs: tuple[str, ...], form: str | None, expected: list[tuple[str | None, str]]
) -> None:
    assert formats.placed(outputs, form) == expected


def test_the_command_line_offers_every_format() -> None:
    assert set(formats.FORMATS) == {str(f) for f in Format}


@pytest.mark.parametrize("name", sorted(formats.FORMATS))
def test_every_format_writes_reports_and_gates_and_ends_with_a_newline(name: str) -> None:
    results = [made.report(made.layer(0), made.flawed(1)), made.FAILED]
    for document in (results, made.every_standing()):
        ((path, text),) = formats.documents(document, (), name, all_layers=True, color=True)
        assert path is None and text.endswith("\n") and "gone" in text


def test_files_have_no_colours(tmp_path: Path) -> None:
    documents = formats.documents([made.report(made.flawed(0))], ("rich=-", "report.txt"), None, color=True)
    assert ["\x1b" in text for _, text in documents] == [True, False]
