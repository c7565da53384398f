"""Every diagnostic code that the sources can emit has a page, and no page is about a code that none emits."""

from __future__ import annotations

import re
from pathlib import Path

from fxcheck.theory import explain

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"\bFX\d{3}\b")


def _codes_in(folders: list[Path]) -> set[str]:
    return {code for folder in folders for file in folder.rglob("*.py") for code in CODE.findall(file.read_text())}


def _emitted() -> set[str]:
    return _codes_in([ROOT / "fxcheck", ROOT / "passes"])


def _documented() -> set[str]:
    return {name for name in explain.names() if CODE.fullmatch(name)}


def test_every_code_in_the_sources_has_a_page() -> None:
    assert _emitted() - _documented() == set()


def test_every_page_of_a_code_is_about_one_that_the_sources_emit() -> None:
    assert _documented() - _emitted() == set()


def test_a_planted_code_is_seen(tmp_path: Path) -> None:
    (tmp_path / "rule.py").write_text('CODE = "FX999"\n')
    assert _codes_in([tmp_path]) - _documented() == {"FX999"}
