"""The HTML report: well-formed, self-contained, and deaf to hostile names."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fxcheck.records.finding import Diagnostic, Verdict
from fxcheck.records.report import FailedTarget
from fxcheck.render import html
from tests.render import made

VOID = {"meta", "link", "input", "br", "wbr", "img", "hr"}
LOADING = re.compile(
    r"""\s(?:src|href|action|data|poster)=(?:"(?!\#|data:)|'(?!\#|data:)|[^"'\s])|url\(|@import|fetch\(|XMLHttp"""
)


class _Reader(HTMLParser):
    """Checks nesting, and collects tags, ids and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"{tag} closes nothing"


def _pages() -> dict[str, str]:
    plain = made.report(made.layer(0), made.layer(1, Verdict.RUNTIME, proxies=made.RELU6), made.flawed(2))
    return {
        "one": html.render([plain]),
        "smooth": html.render([made.report()]),
        "several": html.render([plain, made.FAILED]),
        "gate": html.render_gate(made.every_standing()),
        "nothing": html.render([]),
    }


@pytest.mark.parametrize("name", list(_pages()))
def test_tags_nest_and_ids_are_unique(name: str) -> None:
    read = _Reader(_pages()[name])
    assert len(read.ids) == len(set(read.ids))
    assert read.tags.count("script") == 1


@pytest.mark.parametrize("name", list(_pages()))
def test_nothing_is_loaded_from_anywhere(name: str) -> None:
    page = _pages()[name]
    assert LOADING.search(page) is None
    assert [x for x in re.findall(r"https?://[^\s\"'<]+", page) if x != "http://www.w3.org/2000/svg"] == []
    assert "default-src 'none'" in page


def test_the_detector_sees_a_page_that_loads_something() -> None:
    assert all(LOADING.search(x) for x in ('<img src="//a.b/c.png">', "<a href=https://a.b>", "a{b:url(c)}"))


def test_hostile_names_are_text_everywhere() -> None:
    bad, away = made.HOSTILE, f"{made.HOSTILE}.py:3"
    why = (Diagnostic("FX101", bad, bad, away), Diagnostic(bad, bad, bad, away))
    one = made.report(
        made.layer(0, Verdict.UNCOVERED, name=bad, activation=bad, location=away, source=bad, pre_activation=(bad,),
                   diagnostics=why),
        target=bad, assumptions=(bad,), torch=bad, numeric=bad, diagnostics=why,
    )  # fmt: skip
    ours = made.gated(made.finding(reason=bad, message=bad), name=bad, report=one)
    for page in (
        html.render([one, FailedTarget(bad, None, bad)]),
        html.render_gate(made.gate(ours, unused_ignores=(bad,), stale=((bad, bad, bad, bad),))),
    ):
        assert _Reader(page).tags.count("script") == 1
        assert bad not in page and "&lt;script&gt;" in page


def test_the_page_says_the_verdict_its_meaning_and_its_assumption() -> None:
    page = _pages()["one"]
    assert "No theorem covers this model (blocks.2.relu)" in page
    assert "Assumes smooth criterion: the loss is an analytic function" in page
    assert "What FX101 means" in page and "No trainable bias is added" in page


def test_an_excerpt_is_quoted_where_the_file_still_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = html.render([made.report(made.flawed(1))])
    assert "above the line" not in one and "x = relu1(x)" in one
    Path("net.py").write_text("# first\n# above the line\nx = relu1(x)\n# below\n", encoding="utf-8")
    assert "above the line" in html.render([made.report(made.flawed(1))])
    Path("net.py").write_text("# first\n# above the line\nx = relu2(x)\n", encoding="utf-8")
    assert "above the line" not in html.render([made.report(made.flawed(1))])


def test_a_gate_says_what_is_new_known_and_ignored() -> None:
    page = _pages()["gate"]
    assert "1 baseline: agreed on Monday" in page and "1 ignored: agreed on Monday" in page and ">1 new<" in page
    assert "not analysed" in page and "ignore of FX999" in page and "old.relu" in page


def test_equal_input_gives_equal_pages() -> None:
    assert _pages() == _pages()


def test_a_model_whose_every_layer_is_flawed_is_drawn_in_full() -> None:
    page = html.render([replace(made.report(*[made.flawed(i) for i in range(40)]))])
    assert page.count('class="node uncovered"') == 40 + 1
