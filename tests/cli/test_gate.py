"""``fxcheck gate`` through the real console script: the table of exit statuses, and what is left on disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from fxcheck.flags import Format
from fxcheck.render.formats import FORMATS

SCRIPT = Path(sys.executable).with_name("fxcheck")
NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=bias)

    def forward(self, x):
        return torch.relu(self.first(x))

class Raises(Net):
    def forward(self, x):
        raise RuntimeError("not today")
"""
SLOW = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n"
FINE = '{name = "fine", target = "nets:Net", inputs = ["2x3"]}'
SHORT = '{name = "short", target = "nets:Net", inputs = ["2x3"], args = {bias = false}}'
RAISES = '{name = "raises", target = "nets:Raises", inputs = ["2x3"]}'


@dataclass
class Ran:
    status: int
    out: str
    err: str


def command(*arguments: str) -> list[str]:
    found = SCRIPT if SCRIPT.exists() else shutil.which("fxcheck")
    assert found, "the console script is not installed"
    return [str(found), "gate", *arguments]


def gate(*arguments: str, **environment: str) -> Ran:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    ran = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=240, env=env)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)
    return tmp_path


def configure(*models: str, more: str = "") -> None:
    listed = ", ".join(models)
    Path("pyproject.toml").write_text(f'[tool.fxcheck]\nrequire = "certified"\n{more}\nmodels = [{listed}]\n')


def baseline(*layers: str) -> None:
    entries = [
        {"model": "short", "layer": name, "op": "relu", "code": "FX101", "verdict": "runtime", "count": 1} for name in layers
    ]
    Path("known.json").write_text(json.dumps({"schema": "fxcheck/baseline/1", "findings": entries}))


def files() -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in Path().rglob("*") if p.is_file() and "__pycache__" not in p.parts}


TWO_RELUS = NETS.replace("torch.relu(self.first(x))", "torch.relu(self.first(torch.relu(self.first(x))))")
ROWS: dict[str, tuple[Callable[[], object], list[str], int, str]] = {
    "clean": (lambda: configure(FINE), [], 0, ""),
    "findings": (lambda: configure(FINE, SHORT), [], 1, ""),
    "a flag wins": (lambda: configure(SHORT), ["--fail-on", "uncovered"], 0, ""),
    "baseline hit": (lambda: (configure(SHORT), baseline("relu")), ["--baseline", "known.json"], 0, ""),
    "new finding beside a baseline": (
        lambda: (configure(SHORT), baseline("relu"), Path("nets.py").write_text(TWO_RELUS)),
        ["--baseline", "known.json"], 1, ""),
    "ignored": (lambda: configure(SHORT, more='ignore = [{layer = "*", code = "FX101", reason = "old"}]'), [], 0, ""),
    "bad config key": (lambda: configure(FINE, more="requires = 1"), [], 2, "unknown key 'tool.fxcheck.requires'"),
    "config that is no TOML": (lambda: Path("pyproject.toml").write_text("[tool"), [], 2, "pyproject.toml is not TOML"),
    "missing target": (lambda: None, ["nowhere.py"], 2, "no such file: nowhere.py"),
    "missing target beside a good one": (lambda: configure(FINE), ["fine", "nowhere.py"], 2, "no such file: nowhere.py"),
    "model that raises": (lambda: configure(RAISES, FINE), [], 2, "not today"),
    "model that raises beside findings": (lambda: configure(RAISES, SHORT), [], 2, "not today"),
    "empty run": (lambda: None, [], 2, "nothing to analyse"),
    "empty configuration": (lambda: configure(), [], 2, "pyproject.toml lists no models"),
    "broken baseline file": (
        lambda: (configure(FINE), Path("known.json").write_text("{")), ["--baseline", "known.json"], 2, "is not JSON"),
    "missing baseline file": (lambda: configure(FINE), ["--baseline", "gone.json"], 2, "no baseline file gone.json"),
    "update without a file": (lambda: configure(FINE), ["--update-baseline"], 2, "--baseline FILE"),
    "bad flag": (lambda: configure(FINE), ["--fail-on", "sometimes"], 2, "--fail-on"),
    "broken proxies file": (lambda: configure(FINE), ["--torch-proxies", "nets.py"], 2, "nets.py is not JSON"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_exit_status(row: str) -> None:
    prepare, arguments, status, message = ROWS[row]
    prepare()
    before = files()
    ran = gate(*arguments)
    assert (ran.status, "Traceback" in ran.err) == (status, False), ran.err
    assert files() == before
    if status == 2:
        assert message in ran.err and "try: " in ran.err
    else:
        assert ran.err == "" and f"(exit status {status})" in ran.out


@pytest.mark.slow
def test_a_failing_model_is_an_entry_beside_the_findings_of_the_others() -> None:
    configure(RAISES, SHORT, FINE)
    ran = gate("--format", "json")
    found = json.loads(ran.out)
    assert (found["schema"], found["status"], ran.status) == ("fxcheck/gate/1", 2, 2)
    raises, short, fine = found["models"]
    assert raises["error"]["code"] == "FX601" and "not today" in raises["error"]["message"]
    assert [(f["layer"], f["op"], f["code"], f["path"], f["line"]) for f in short["findings"]] == [
        ("relu", "relu", "FX101", "nets.py", 11)
    ]
    assert (fine["verdict"], fine["falls_short"], fine["findings"]) == ("certified", False, [])
    assert fine["report"]["schema"] == "fxcheck/report/1"


@pytest.mark.slow
def test_updating_writes_the_baseline_and_nothing_else() -> None:
    configure(SHORT, more='baseline = "known.json"')
    before = files()
    ran = gate("--update-baseline", "--statistics")
    assert ran.status == 0
    assert "known findings written to known.json: 1" in ran.err and "1  FX101" in ran.err
    assert set(files()) - set(before) == {"known.json"}
    again = gate()
    assert (again.status, again.err) == (0, "")
    assert "1 in the baseline" in again.out


@pytest.mark.slow
def test_a_comment_on_the_line_ignores_and_an_unused_one_is_noted() -> None:
    configure(SHORT)
    ignored = NETS.replace("(self.first(x))", "(self.first(x))  # fxcheck: ignore[FX101, FX301] no bias on purpose")
    Path("nets.py").write_text(ignored)
    ran = gate()
    assert ran.status == 0
    assert "ignored in short: 1, because no bias on purpose" in ran.out
    assert "note: nets.py:11: fxcheck: ignore[FX301] matches nothing" in " ".join(ran.out.split())


@pytest.mark.slow
def test_ctrl_c_leaves_every_file_as_it_was(project: Path) -> None:
    Path("slow.py").write_text(SLOW)
    configure(SHORT, '{target = "slow.py"}')
    baseline("relu")
    Path("out.json").write_text("before")
    before = files()
    flags = ["--baseline", "known.json", "--update-baseline", "-o", "out.json"]
    # A shell's background jobs ignore the signal, and their children with them.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(*flags), text=True, preexec_fn=heed, **pipes) as child:
        deadline = time.monotonic() + 120
        while not Path("begun").exists() and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "", "fxcheck: interrupted\n")
    Path("begun").unlink()
    assert files() == before


@pytest.mark.slow
def test_the_bar_is_drawn_on_a_terminal_only_and_colours_obey_the_environment() -> None:
    import pty

    configure(SHORT, FINE)
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "FORCE_COLOR": "1"}
    env.pop("NO_COLOR", None)
    ran = subprocess.run(command(), stdout=subprocess.PIPE, stderr=theirs, env=env, timeout=240, text=True)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "0/2" in shown and "short" in shown
    assert "\x1b[" in ran.stdout
    plain = gate(FORCE_COLOR="1", NO_COLOR="1")
    assert (plain.err, "\x1b[" in plain.out) == ("", False)


@pytest.mark.slow
def test_proxies_of_another_torch_are_compared_layer_by_layer() -> None:
    Path("nets.py").write_text(NETS.replace("torch.relu(self.first(x))", "self.first(x).clamp(0, 6)"))
    configure(FINE)
    old = Path(__file__).resolve().parents[1] / "golden" / "proxies-2.13.json"
    ran = gate("--torch-proxies", str(old), "--format", "json")
    compared = json.loads(ran.out)["torch_proxies"]
    assert compared["torch"].startswith("2.13")
    (model,) = compared["models"]
    (layer,) = model["layers"]
    assert (layer["layer"], layer["op"]) == ("clamp", "clamp")
    assert layer["what"] == ["gradient at 0: 1 -> 0", "gradient at 6: 1 -> 0"]


def test_every_format_can_be_asked_for() -> None:
    assert {str(form) for form in Format} == set(FORMATS)
