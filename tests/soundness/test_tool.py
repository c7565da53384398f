"""tools/soundness.py as a user runs it: several processes, limits, finds, interruptions, broken workers, bad input."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CREDULOUS = """
from fxcheck.runtime import conclude
def _certify(step, reason, text):
    step.verdict, step.theorem = "certified", "T8"
conclude._refuse = _certify
"""
"""A planted fault: what cannot be certified is certified."""
DYING = """
import multiprocessing, os
from tests.soundness import laboratory
def die(*_):
    os._exit(3)
if multiprocessing.current_process().name != "MainProcess" or "spawn_main" in " ".join(__import__("sys").orig_argv):
    laboratory.point_of = die
"""
"""Processes of the pool end without a word."""
SLOW = """
import pathlib, time
from tests.soundness import laboratory
cases = laboratory._cases
def marked(*args):
    yield from cases(*args)
    pathlib.Path({mark!r}).touch()
laboratory._cases = marked
"""
"""Leave a mark when a network is done."""
SMALL = ("--jobs", "1", "--trials", "3", "--family", "trap:lemma 7")


def _started(tmp_path: Path, *arguments: str, planted: str = "") -> subprocess.Popen[str]:
    """The tool in a process group of its own; ``planted`` runs at the start of each of its processes."""
    startup = tmp_path / "startup"
    startup.mkdir(exist_ok=True)
    (startup / "sitecustomize.py").write_text(planted, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", str(ROOT / "tools" / "soundness.py"), *arguments]
    # A shell's background jobs ignore Ctrl-C, and their children with them.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        command, preexec_fn=heed, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (startup, ROOT))), "COLUMNS": "200"},
    )  # fmt: skip


def _run(tmp_path: Path, *arguments: str, planted: str = "") -> tuple[int, str, str]:
    """Exit status, output, errors."""
    process = _started(tmp_path, *arguments, planted=planted)
    out, errors = process.communicate(timeout=200)
    return process.returncode, out, errors


def _number(text: str, row: str) -> int:
    found = re.search(rf"│ {re.escape(row)} *│ *([\d,]+)", text)
    assert found, text
    return int(found.group(1).replace(",", ""))


def _left(tmp_path: Path) -> set[str]:
    return {p.name for p in tmp_path.iterdir()} - {"startup"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--family", "nonsense"), "no family is called 'nonsense'"),
        (("--minutes", "-1"), "cannot be negative"),
        (("--jobs", "0"), "at least 1"),
        (("--minutes", "soon"), "--minutes"),
        (("--out", __file__), "is a file, not a folder"),
        (("--report", "no/such/folder/report.md"), "does not exist"),
        (("--report", "."), "is a folder, not a file"),
    ],
)
def test_bad_input_is_exit_2_and_a_message(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    status, _, errors = _run(tmp_path, *arguments)
    assert status == 2
    assert message in " ".join(errors.split())
    assert "Traceback" not in errors and not _left(tmp_path)


@pytest.mark.slow
def test_two_processes_count_what_one_counts_and_the_report_holds_the_tables(tmp_path: Path) -> None:
    arguments = ("--cases", "4", "--trials", "4", "--minutes", "3", "--family", "max:max_dim", "--report", "report.md")
    for jobs in ("1", "2"):
        status, out, errors = _run(tmp_path, *arguments, "--jobs", jobs)
        assert status == 0, errors
        assert _number(out, "cases") == 4 and _number(out, "networks") == 1
        text = (tmp_path / "report.md").read_text(encoding="utf-8")
        assert text.startswith("### Summary") and "| max:max_dim |" in text and "### Time" in text
        assert _left(tmp_path) == {"report.md"}


@pytest.mark.slow
def test_the_first_limit_that_is_reached_ends_the_run(tmp_path: Path) -> None:
    status, out, _ = _run(tmp_path, "--cases", "1", "--minutes", "60", *SMALL)
    assert status == 0 and 1 <= _number(out, "cases") <= 3
    before = time.monotonic()
    status, out, _ = _run(tmp_path, "--cases", "1000000", "--minutes", "0.001", *SMALL)
    assert status == 0 and time.monotonic() - before < 60
    assert _number(out, "cases") < 100


@pytest.mark.slow
def test_a_find_is_exit_1_and_a_test_that_fails(tmp_path: Path) -> None:
    status, _, errors = _run(
        tmp_path, "--cases", "6", "--minutes", "2", "--patience", "2", "--out", "found", *SMALL,
        planted=CREDULOUS,
    )  # fmt: skip
    assert status == 1, errors
    assert "FAILED trap:lemma 7" in errors and "wrote found" in errors
    tests = list((tmp_path / "found").iterdir())
    assert tests and all(re.fullmatch(r"test_found_trap_lemma_7_\d+_\d+\.py", t.name) for t in tests)
    names: dict = {}
    exec(compile(tests[0].read_text(encoding="utf-8"), tests[0].name, "exec"), names)
    names["test_backward_is_right_where_the_step_is_certified"]()  # passes where the fault is not planted


@pytest.mark.slow
def test_a_dying_worker_is_told_and_exit_1(tmp_path: Path) -> None:
    status, out, errors = _run(tmp_path, "--cases", "3", "--minutes", "2", *SMALL, planted=DYING)
    assert status == 1
    assert "a worker process died, on one of: trap:lemma 7 0" in errors and "Traceback" not in errors
    assert _number(out, "crashes") == 1


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False])
def test_ctrl_c_prints_the_tables_and_leaves_whole_files(tmp_path: Path, group: bool) -> None:
    mark = tmp_path / "mark"
    process = _started(tmp_path, "--minutes", "0", "--report", "report.md", *SMALL, planted=SLOW.format(mark=str(mark)))
    try:
        until = time.monotonic() + 120
        while not mark.exists() and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT) if group else process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    assert "interrupted" in errors and "Traceback" not in errors
    assert _number(out, "cases") > 0
    assert "### Time" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert _left(tmp_path) == {"report.md", "mark"}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools import soundness

    path = tmp_path / "report.md"
    path.write_text("old", encoding="utf-8")

    def interrupted(source: str, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        soundness._write(path, "new")
    assert path.read_text(encoding="utf-8") == "old" and _left(tmp_path) == {"report.md"}


def test_the_tables_are_kept_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.soundness.laboratory import CaseRecord
    from tools import soundness

    report = tmp_path / "report.md"

    def results(*_: object) -> Iterator[list[CaseRecord]]:
        yield [CaseRecord("certified", oracle="inside", family="kept")]
        assert "| kept |" in report.read_text(encoding="utf-8")
        yield [CaseRecord("certified", oracle="rounding", family="rounded", seed=7)]
        assert "| rounded 7 0 | rounding |" in report.read_text(encoding="utf-8")

    monkeypatch.setattr(soundness, "_results", results)
    hunt = soundness.Hunt(("trap:lemma 7",), 0, 1, 1, 60.0, 0)
    tally = soundness.run(hunt, lambda so_far: soundness._keep(so_far, report), every=0.0)
    assert tally.cases == 2 and _left(tmp_path) == {"report.md"}
    soundness._keep(tally, tmp_path / "no" / "such" / "folder")
