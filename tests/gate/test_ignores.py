"""Ignores by module path and by line: each needs a reason, and one that matches nothing is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxcheck.gate.findings import findings_of
from fxcheck.gate.ignores import Comment, Ignores, comment_in
from fxcheck.records.gate import GateFinding
from fxcheck.records.gate_config import Ignore
from tests.gate.made import layer, report


def finding(name: str, code: str = "FX101", model: str = "m", line: int = 1, source: str = "") -> GateFinding:
    return findings_of(model, report(layer(name, "runtime", code, line=line, source=source)))[0]


def applied(ignores: Ignores, *found: GateFinding) -> list[tuple[str, str]]:
    for f in found:
        ignores.look_at(f.path, f.line, f.source)
    return [(str(f.standing), f.reason) for f in ignores.apply(found, {})]


@pytest.mark.parametrize(
    ("pattern", "code", "name", "matches"),
    [
        ("layer1.*", "FX101", "layer1.0/relu", True),
        ("layer1.0", "FX101", "layer1.0/relu", True),
        ("layer1.0.relu", "FX101", "layer1.0.relu", True),
        ("*", "*", "anything", True),
        ("layer1.*", "FX101", "layer10/relu", False),
        ("layer1.*", "FX301", "layer1.0/relu", False),
        ("relu", "FX101", "layer1.0/relu", False),
    ],
)
def test_a_module_path_with_wildcards_ignores(pattern: str, code: str, name: str, matches: bool) -> None:
    ignores = Ignores([Ignore(pattern, code, "because")])
    assert applied(ignores, finding(name)) == [("ignored", "because") if matches else ("new", "")]
    assert bool(ignores.unused()) is not matches


def test_an_entry_of_one_model_leaves_the_others() -> None:
    ignores = Ignores([Ignore("*", "FX101", "because", "m")])
    assert [s for s, _ in applied(ignores, finding("a"), finding("a", model="n"))] == ["ignored", "new"]


def test_an_unused_entry_says_what_it_was() -> None:
    (sentence,) = Ignores([Ignore("gone.*", "FX101", "because", "m")]).unused()
    assert sentence == "ignore of FX101 at gone.* in m matches nothing; remove it"


@pytest.mark.parametrize(
    ("line", "comment"),
    [
        ("x = f(x)  # fxcheck: ignore[FX101] frozen on purpose", Comment(("FX101",), "frozen on purpose")),
        ("x = f(x)  #fxcheck:ignore[FX101,FX301]: both", Comment(("FX101", "FX301"), "both")),
        ("x = f(x)  # noqa  # fxcheck: ignore[certified] why", Comment(("certified",), "why")),
        ("x = f(x)  # fxcheck: ignore[FX101]", Comment(("FX101",), "")),
        ("x = f(x)  # fxcheck: ignore why", Comment((), "why")),
        ("x = f(x)  # fxcheck: ignored", None),
        ("x = f(x)", None),
    ],
)
def test_a_comment_is_read(line: str, comment: Comment | None) -> None:
    assert comment_in(line) == comment


class TestLines:
    TEXT = "a = 1\nx = f(x)  # fxcheck: ignore[FX101, FX301] known\ns = '# fxcheck: ignore[FX1] no comment'\n"

    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def at(self, line: int, text: str, code: str = "FX101") -> GateFinding:
        return finding("a", code, line=line, source=text.splitlines()[line - 1])

    def test_a_comment_ignores_its_codes_on_its_line(self) -> None:
        Path("net.py").write_text(self.TEXT)
        ignores = Ignores([])
        found = [self.at(2, self.TEXT), self.at(2, self.TEXT, "FX201"), self.at(1, self.TEXT)]
        assert [s for s, _ in applied(ignores, *found)] == ["ignored", "new", "new"]
        assert ignores.unused() == ("net.py:2: fxcheck: ignore[FX301] matches nothing; remove it",)

    def test_a_comment_on_the_layers_line_counts_when_the_finding_points_elsewhere(self) -> None:
        Path("net.py").write_text(self.TEXT)
        ignores = Ignores([])
        (one,) = ignores.apply([self.at(1, self.TEXT)], {"a": ("net.py", 2, self.TEXT.splitlines()[1])})
        assert one.reason == "known"

    @pytest.mark.parametrize(("comment", "flaw"), [("ignore[FX101]", "gives no reason"), ("ignore why", "names no code")])
    def test_a_comment_that_lacks_something_ignores_nothing(self, comment: str, flaw: str) -> None:
        text = f"x = f(x)  # fxcheck: {comment}\n"
        Path("net.py").write_text(text)
        ignores = Ignores([])
        assert applied(ignores, self.at(1, text)) == [("new", "")]
        (sentence,) = ignores.unused()
        assert sentence.startswith("net.py:1: ") and flaw in sentence

    def test_a_file_of_the_same_name_with_other_text_is_left_alone(self) -> None:
        Path("net.py").write_text("# fxcheck: ignore[FX101] of somebody else\n")
        ignores = Ignores([])
        assert applied(ignores, finding("a", line=1, source="x = f(x)")) == [("new", "")]
        assert ignores.unused() == ()
