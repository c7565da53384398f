"""Several outputs of one run, statistics, and colours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MODEL = "import torch\nfrom torch import nn\nmodel = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU())\n"


def _run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "net.py").write_text(MODEL)
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")} | variables
    command = [sys.executable, "-m", "fxcheck", "analyze", "net.py", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def test_one_run_writes_files_annotations_and_statistics(tmp_path: Path) -> None:
    outputs = ("-o", "a.sarif", "-o", "b.html", "-o", "c.xml", "-o", "github=-")
    ran = _run(tmp_path, *outputs, "--statistics", GITHUB_STEP_SUMMARY="summary.md")
    assert ran.returncode == 0, ran.stderr
    assert all(line.startswith("::") for line in ran.stdout.splitlines())
    assert "verdicts:\n      1  " in ran.stderr and "FX101" in ran.stderr
    assert json.loads((tmp_path / "a.sarif").read_text())["runs"][0]["results"][0]["ruleId"] == "FX101"
    assert (tmp_path / "b.html").read_text().startswith("<!doctype html>")
    assert "<testsuites" in (tmp_path / "c.xml").read_text() and "FX101" in (tmp_path / "summary.md").read_text()


def test_no_color_beats_force_color(tmp_path: Path) -> None:
    assert "\x1b" in _run(tmp_path, FORCE_COLOR="1").stdout
    assert "\x1b" not in _run(tmp_path, FORCE_COLOR="1", NO_COLOR="1").stdout
