"""The import contract of pyproject.toml names every room, holds, and would notice a violation."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = """
import sys
from importlinter.cli import lint_imports_command
sys.argv = ["lint-imports", *sys.argv[1:]]
lint_imports_command()
"""


def _settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]


def _rooms() -> set[str]:
    folders = {path.parent.name for path in (ROOT / "fxcheck").glob("*/__init__.py")}
    return folders | {"passes"}


def _packages() -> set[str]:
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "fxcheck").rglob("__init__.py")}
    return {".".join(folder.parts) for folder in folders} | {"fxcheck.passes"}


def _sources(tree: Path) -> Path:
    """The sources under their import names, as .ci/lint lays them out."""
    shutil.copytree(ROOT / "fxcheck", tree / "fxcheck", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "passes", tree / "fxcheck" / "passes", ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def _lint(tree: Path) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", LINT, "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    return subprocess.run(arguments, cwd=tree, capture_output=True, text=True, timeout=120)


def test_every_room_is_a_layer_of_the_contract() -> None:
    layers = " ".join(_settings()["importlinter"]["contracts"][0]["layers"])
    assert _rooms() <= set(re.findall(r"\w+", layers))


def test_every_package_is_installed() -> None:
    assert _packages() == set(_settings()["setuptools"]["packages"])


def test_the_contract_holds(tmp_path: Path) -> None:
    ran = _lint(_sources(tmp_path))
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("records/finding.py", "import torch"),
        ("theory/classify.py", "from fxcheck.passes import pipeline"),
        ("passes/annotate.py", "from fxcheck import api"),
        ("ops/registry.py", "import ortools"),
        ("runtime/rows.py", "import transformers"),
    ],
)
def test_a_planted_import_breaks_the_contract(tmp_path: Path, file: str, line: str) -> None:
    planted = _sources(tmp_path) / "fxcheck" / file
    planted.write_text(f"{planted.read_text()}\n{line}\n")
    assert "BROKEN" in _lint(tmp_path).stdout
