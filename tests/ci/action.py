"""A runner for the composite action, small enough to trust: it runs the steps' shell, and records what is `uses`."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
SHELLS = (("bash", "--noprofile", "--norc", "-eo", "pipefail"), ("bash", "-e"))


@dataclass
class Ran:
    """What a run of the action did."""

    failed: bool = False
    status: int = 0
    """Exit status of the last step that failed."""
    used: list[dict[str, Any]] = field(default_factory=list)
    """`with` of each step that uses another action, evaluated."""
    log: str = ""
    values: dict[str, str] = field(default_factory=dict)
    """Inputs and outputs, as `inputs.upload` and `steps.gate.outputs.status`."""


def load_action() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "action.yml").read_text())


def run_action(folder: Path, shell: tuple[str, ...] = SHELLS[0], path: str = "", **inputs: str) -> Ran:
    """Run the action's steps in a folder.

    Args:
        folder: the workspace.
        shell: the command that runs a step's script.
        path: folders before the others of PATH.
        inputs: of the action, with _ for -.
    """
    action, ran = load_action(), Ran()
    for name, given in action["inputs"].items():
        ran.values[f"inputs.{name}"] = inputs.get(name.replace("-", "_"), given["default"])
    for step in action["runs"]["steps"]:
        if not _wanted(step.get("if"), ran):
            continue
        if "uses" in step:
            ran.used.append({k: _filled(v, ran) for k, v in step["with"].items()})
            continue
        status = _run_step(step, folder, shell, path, ran)
        if status:
            ran.failed, ran.status = True, status
    return ran


def _run_step(step: dict[str, Any], folder: Path, shell: tuple[str, ...], path: str, ran: Ran) -> int:
    script, output = folder / "step.sh", folder / "step.out"
    script.write_text(step["run"])
    output.write_text("")
    variables = {k: _filled(v, ran) for k, v in step.get("env", {}).items()}
    where = folder / _filled(step.get("working-directory", "."), ran)
    search = f"{path}{os.pathsep}{os.environ['PATH']}" if path else os.environ["PATH"]
    environment = {**os.environ, **variables, "PATH": search, "GITHUB_OUTPUT": str(output),
                   "GITHUB_STEP_SUMMARY": str(folder / "summary.md"), "GITHUB_ACTIONS": "true"}  # fmt: skip
    done = subprocess.run([*shell, str(script)], cwd=where, env=environment, capture_output=True, text=True, timeout=240)
    ran.log += done.stdout + done.stderr
    for line in output.read_text().splitlines():
        name, _, value = line.partition("=")
        ran.values[f"steps.{step.get('id')}.outputs.{name}"] = value
    return done.returncode


def _filled(text: str, ran: Ran) -> str:
    return EXPRESSION.sub(lambda found: ran.values.get(found[1], ""), text)


def _wanted(condition: str | None, ran: Ran) -> bool:
    """Conditions of `==`, `&&`, `||`, brackets and `!cancelled()`; without a status function, no step may have failed."""
    if condition is None:
        return not ran.failed
    text = EXPRESSION.sub(r"\1", condition)
    alive = "cancelled()" in text
    text = text.replace("!cancelled()", "True").replace("&&", " and ").replace("||", " or ")
    text = re.sub(r"(?:inputs|steps)\.[\w.-]+", lambda found: repr(ran.values.get(found[0], "")), text)
    return (alive or not ran.failed) and bool(eval(text, {"__builtins__": {}}))
