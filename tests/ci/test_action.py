"""The composite action keeps the exit status, uploads SARIF on 0 and 1 only, and fails on everything else."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.ci.action import ROOT, SHELLS, load_action, run_action

FAKE = """#!/bin/bash
printf '%s\\n' "$@" > arguments.txt
exit {status}
"""
BIN = str(Path(sys.executable).parent)


def fake_fxcheck(folder: Path, status: int) -> str:
    program = folder / "bin" / "fxcheck"
    program.parent.mkdir()
    program.write_text(FAKE.format(status=status))
    program.chmod(0o755)
    return str(program.parent)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("status", "uploads"), [(0, True), (1, True), (2, False), (130, False)])
def test_the_status_is_kept_and_sarif_goes_up_on_0_and_1(
    shell: tuple[str, ...], status: int, uploads: bool, tmp_path: Path
) -> None:
    ran = run_action(tmp_path, shell, fake_fxcheck(tmp_path, status))
    assert ran.values["steps.gate.outputs.status"] == str(status)
    assert ran.used == ([{"sarif_file": "./fxcheck.sarif", "category": "fxcheck"}] if uploads else [])
    assert (ran.failed, ran.status) == (status != 0, status)


def test_nothing_goes_up_where_it_is_not_wanted(tmp_path: Path) -> None:
    ran = run_action(tmp_path, path=fake_fxcheck(tmp_path, 1), upload="false")
    assert ran.used == [] and ran.status == 1


def test_a_missing_fxcheck_fails(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "cat"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or "")
    before, os.environ["PATH"] = os.environ["PATH"], str(tmp_path / "bin")
    try:
        ran = run_action(tmp_path)
    finally:
        os.environ["PATH"] = before
    assert ran.used == [] and ran.failed and ran.status == 127


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, []),
        ({"targets": "a.py b.py:Net", "args": "--fail-on runtime"}, ["a.py", "b.py:Net", "--fail-on", "runtime"]),
        ({"targets": "*"}, ["*"]),
        ({"targets": "$(touch hacked)", "args": "'; touch hacked"}, ["$(touch", "hacked)", "';", "touch", "hacked"]),
        ({"targets": "a.py\nb.py\n"}, ["a.py", "b.py"]),
    ],
)
def test_inputs_are_words_and_never_code(inputs: dict[str, str], words: list[str], tmp_path: Path) -> None:
    run_action(tmp_path, path=fake_fxcheck(tmp_path, 0), **inputs)
    given = (tmp_path / "arguments.txt").read_text().splitlines()
    assert given == ["gate", *words, "-o", "github=-", "-o", "sarif=fxcheck.sarif"]
    assert not (tmp_path / "hacked").exists()


def test_the_folder_of_the_sarif_file_is_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    ran = run_action(tmp_path, path=fake_fxcheck(tmp_path, 0), working_directory="sub", sarif_file="out.sarif")
    assert ran.used[0]["sarif_file"] == "sub/out.sarif" and (tmp_path / "sub" / "arguments.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("targets", "status"), [("", 1), ("after", 0), ("no/such.py", 2)])
def test_the_real_gate_in_the_example_project(targets: str, status: int, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "gate", tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    ran = run_action(tmp_path, SHELLS[0], BIN, working_directory="project", targets=targets)
    assert ran.status == status, ran.log
    if status == 2:
        assert ran.used == []
        return
    sarif = json.loads((tmp_path / ran.used[0]["sarif_file"]).read_text())
    assert sarif["version"] == "2.1.0"
    assert bool(sarif["runs"][0]["results"]) == bool(status)
    assert ("::error" in ran.log) == bool(status)
    assert (tmp_path / "summary.md").read_text()


def test_a_workflow_in_the_documentation_gives_the_action_inputs_that_it_has() -> None:
    known, found = load_action()["inputs"], 0
    for page in (ROOT / "README.md", ROOT / "docs" / "guide" / "gate.md"):
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
            jobs = yaml.safe_load(block).get("jobs", {})
            steps = [s for job in jobs.values() for s in job["steps"] if "fxcheck@" in s.get("uses", "")]
            found += len(steps)
            assert all(set(s.get("with", {})) <= set(known) for s in steps), page
    assert found >= 2


def test_the_pre_commit_hook_runs_the_gate_of_the_environment_once() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert (hook["id"], hook["entry"], hook["language"]) == ("fxcheck-gate", "fxcheck gate", "system")
    assert hook["pass_filenames"] is False and hook["require_serial"] is True
