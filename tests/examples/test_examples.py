"""The examples run as a user would run them, and show what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy outside the checkout, where nothing but the installed fxcheck is importable."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=ignored))


def test_static(examples: Path) -> None:
    ran = run(examples, "static.py")
    assert ran.returncode == 0, ran.stderr
    assert "with a max-pool: runtime by T8" in ran.stdout and "FX301" in ran.stdout
    assert "with a strided convolution: certified by T6" in ran.stdout


def test_train_mnist_like_and_verify_its_certificate(examples: Path) -> None:
    ran = run(examples, "train_mnist_like.py", "--save", "kept")
    assert ran.returncode == 0, ran.stderr
    assert "40 of 40 steps certified" in ran.stdout
    assert float(ran.stdout.split("last loss ")[1].split()[0]) < 0.2
    verified = run(examples, "-m", "fxcheck", "verify", "kept/step.json")
    assert verified.returncode == 0 and verified.stdout.startswith("confirmed")


@pytest.mark.parametrize(("names", "status"), [((), 1), (("before",), 1), (("after",), 0)])
def test_the_gate(examples: Path, names: tuple[str, ...], status: int) -> None:
    ran = run(examples / "gate", "-m", "fxcheck", "gate", *names)
    assert ran.returncode == status, ran.stderr
    assert ("FX101" in ran.stdout) == bool(status)
    assert ("nets/before.py:17" in ran.stdout) == bool(status)


def test_the_fix_is_the_biases_and_nothing_else(examples: Path) -> None:
    before, after = (examples.joinpath("gate", "nets", f"{n}.py").read_text() for n in ("before", "after"))
    assert before.partition("class ")[2].replace(", bias=False", "") == after.partition("class ")[2]


def test_every_example_is_run_here_and_named_in_the_overview(examples: Path) -> None:
    overview, here = (examples / "README.md").read_text(), Path(__file__).read_text()
    scripts = [p.name for p in examples.glob("*.py")]
    assert scripts and all(name in overview and f'"{name}"' in here for name in scripts)
