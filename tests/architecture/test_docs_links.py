"""Every relative link of the documentation leads to a file, to a heading, and to the name that its text promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_INLINE = re.compile(r"\[([^\[\]]+)\]\(([^)\s]+)\)")
_BY_LABEL = re.compile(r"\[([^\[\]]+)\]\[([^\[\]]+)\]")
_LABEL = re.compile(r"^\[([^\[\]]+)\]: (\S+)$", re.MULTILINE)


def found(pattern: re.Pattern[str], text: str) -> list[tuple[str, str]]:
    """The two groups of every match outside code."""
    prose = _FENCE.sub("", text)
    blank = _CODE.sub(lambda code: "`" * len(code[0]), prose)
    return [(prose[slice(*m.span(1))], m[2]) for m in pattern.finditer(blank)]


def links(text: str) -> list[tuple[str, str]]:
    """(text, target) of each link; the target of a label that is nowhere defined is the empty string."""
    labels = dict(found(_LABEL, text))
    return found(_INLINE, text) + [(shown, labels.get(label, "")) for shown, label in found(_BY_LABEL, text)]


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def names_what_it_shows(shown: str, file: Path) -> bool:
    """A link to Python whose text is one piece of code: a part of the path, or something that the file holds."""
    if file.suffix != ".py" or not _CODE.fullmatch(shown):
        return True
    code = shown.strip("`").replace("\\|", "|")
    return str(file).endswith(code) or code in file.read_text()


def fault(page: Path, shown: str, target: str) -> str:
    """What is wrong with a link; empty when nothing is."""
    if target.startswith(("http:", "https:", "mailto:")):
        return ""
    path, _, anchor = target.partition("#")
    file = page.parent / path if path else page
    if not target:
        return f"[{shown}]: its label is not defined"
    if not file.exists():
        return f"[{shown}]: {path} does not exist"
    if anchor and anchor not in anchors(file.read_text()):
        return f"[{shown}]: {file.name} has no heading #{anchor}"
    return "" if names_what_it_shows(shown, file) else f"[{shown}]: {path} does not hold that name"


def faults(page: Path) -> list[str]:
    return [wrong for shown, target in links(page.read_text()) if (wrong := fault(page, shown, target))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_to_what_it_shows(page: Path) -> None:
    assert not faults(page)


def test_no_label_is_left_without_a_link() -> None:
    for page in PAGES:
        text = page.read_text()
        used = {label for _, label in found(_BY_LABEL, text)}
        assert {label for label, _ in found(_LABEL, text)} == used, page.name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a file](missing.md)", "does not exist"),
        ("[a file][label]\n\n[label]: missing.md", "does not exist"),
        ("[a file][nowhere]", "is not defined"),
        ("[a section](#nothing-here)", "has no heading"),
        ("[`def missing`](code.py)", "does not hold"),
        ("# A `heading`: here\n[a section](#a-heading-here), [`code.py`](code.py), [`def held`](code.py)", ""),
        ("`[x](missing.md) in code`, `D[i][j]`\n```\n[y](missing.md)\n```", ""),
    ],
)
def test_a_planted_fault_is_seen(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "code.py").write_text("def held(): ...\n")
    (tmp_path / "page.md").write_text(text)
    assert [says in f for f in faults(tmp_path / "page.md")] == ([True] if says else [])
