"""A plain installation carries the passes and the pages, and works beside a user's own ``passes`` package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("fxcheck", "passes", "pyproject.toml", "README.md", "LICENSE")
MODEL = """
from torch import nn
from passes import WIDTH

model = nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU())
"""


def _run(arguments: list[str], folder: Path, **variables: str) -> str:
    environment = {**os.environ, **variables}
    ran = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package, built from a copy so that the checkout stays as it is."""
    copy, site = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("site")
    for name in SHIPPED:
        source = ROOT / name
        shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy / name)
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(copy)], copy)
    return site


@pytest.mark.slow
def test_an_installed_fxcheck_analyses_a_model_beside_an_unrelated_passes_package(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "passes").mkdir()
    (tmp_path / "passes" / "__init__.py").write_text("WIDTH = 3\n")
    (tmp_path / "model.py").write_text(MODEL)
    command = [sys.executable, "-m", "fxcheck", "analyze", "model.py", "--format", "json"]
    assert json.loads(_run(command, tmp_path, PYTHONPATH=str(installed)))["verdict"] == "certified"


@pytest.mark.slow
def test_an_installation_is_complete(installed: Path, tmp_path: Path) -> None:
    code = "import fxcheck.passes.pipeline as p, fxcheck.theory.explain as e; print(p.__file__, len(e.names()))"
    file, pages = _run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(installed)).split()
    assert Path(file).is_relative_to(installed)
    assert int(pages) == len(list((ROOT / "fxcheck" / "theory" / "pages").glob("*.md")))
    assert (installed / "fxcheck" / "py.typed").exists()
    page = "import fxcheck, sys; from fxcheck.records.step import Summary; fxcheck.save_run(Summary(), sys.argv[1])"
    _run([sys.executable, "-c", page, "run.html"], tmp_path, PYTHONPATH=str(installed))
    assert "</html>" in (tmp_path / "run.html").read_text(encoding="utf-8")
    assert not (installed / "passes").exists()
