"""What the documentation says can be typed: its commands parse, its Python compiles."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
import typer.main

from fxcheck.cli import app
from fxcheck.gate.config import read_config
from fxcheck.records.report import Report
from fxcheck.theory import explain

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docs" / "README.md", ROOT / "examples" / "README.md",
         *sorted((ROOT / "docs" / "guide").glob("*.md"))]  # fmt: skip
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`(fxcheck (?:analyze|gate|proxies|explain|verify)\b[^`]*)`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(page.read_text()) if found == language]


def commands(page: Path) -> list[str]:
    """Command lines of fxcheck in blocks and in running text, without their comments."""
    lines = [line.removeprefix("$ ") for text in blocks(page, "") for line in text.splitlines()]
    typed = [part.strip() for line in lines for part in line.split("#")[0].split("&&")]
    return [line for line in typed if line.startswith("fxcheck ")] + INLINE.findall(page.read_text())


def parse(command: str) -> None:
    """Let the command line's own parser read it, without running anything."""
    group = typer.main.get_command(app)
    _, name, *words = shlex.split(command)
    chosen = group.commands[name]  # type: ignore[attr-defined]
    chosen.make_parser(chosen.context_class(chosen, info_name=name)).parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_ones_that_the_command_line_knows(page: Path) -> None:
    for command in commands(page):
        parse(command)


def test_a_flag_that_does_not_exist_is_seen() -> None:
    with pytest.raises(Exception, match="--no-such-flag"):
        parse("fxcheck gate --no-such-flag")
    assert len(commands(ROOT / "README.md")) > 10


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_compiles_and_toml_is_a_configuration(page: Path) -> None:
    for text in blocks(page, "python"):
        compile(text, page.name, "exec")
    for text in blocks(page, "toml"):
        assert read_config(tomllib.loads(text)["tool"]["fxcheck"], "pyproject.toml").entries


def test_the_page_on_fixing_findings_knows_only_codes_that_exist() -> None:
    page = (ROOT / "docs" / "guide" / "fixing-findings.md").read_text()
    assert set(re.findall(r"\bFX\d{3}\b", page)) <= set(explain.names())


def test_every_room_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    rooms = [p.parent.name for p in (ROOT / "fxcheck").glob("*/__init__.py")]
    assert rooms and all(f"`fxcheck/{room}/`" in readme for room in rooms)


@pytest.mark.slow
def test_the_thirty_seconds_are_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    from fxcheck.api import analyze_target
    from fxcheck.records.target_spec import TargetSpec
    from fxcheck.render import text

    readme = (ROOT / "README.md").read_text()
    shown = readme.partition("$ fxcheck analyze torchvision.models:resnet18\n")[2].partition("```")[0]
    monkeypatch.setenv("COLUMNS", "80")
    report: Report = analyze_target(TargetSpec("torchvision.models:resnet18"))
    printed = text.render([report], color=False)
    words = [line for line in shown.splitlines() if line.strip()]
    lines = {line.rstrip() for line in printed.splitlines()}
    missing = [line for line in words if line.rstrip() not in lines and "torch " not in line]
    assert not missing
