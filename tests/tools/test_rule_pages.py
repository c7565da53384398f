"""The rule pages in docs/ are what ``fxcheck explain`` prints."""

from __future__ import annotations

from pathlib import Path

from tools.rule_pages import FAMILIES, FOLDER, differences, documents, write


def test_the_pages_in_docs_are_up_to_date() -> None:
    assert differences(FOLDER, documents()) == [], "run python tools/rule_pages.py"


def test_a_missing_an_old_and_a_left_over_page_are_seen(tmp_path: Path) -> None:
    wanted = documents()
    write(tmp_path, wanted)
    assert differences(tmp_path, wanted) == []
    (tmp_path / "T6.md").unlink()
    (tmp_path / "FX101.md").write_text("something else")
    (tmp_path / "FX999.md").write_text("# FX999")
    assert differences(tmp_path, wanted) == ["FX101.md is old", "FX999.md is about nothing", "T6.md is missing"]
    write(tmp_path, wanted)
    assert differences(tmp_path, wanted) == []


def test_the_index_links_every_page() -> None:
    wanted = documents()
    assert all(f"]({name})" in wanted["README.md"] for name in wanted if name != "README.md")
    assert all(f"## {heading}" in wanted["README.md"] for heading in FAMILIES.values())
