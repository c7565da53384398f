"""Exit statuses and streams of the command line; the analysis itself is replaced."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

import fxcheck
from fxcheck import cli
from fxcheck.errors import CaptureError, TargetError
from fxcheck.records.finding import Verdict
from fxcheck.records.report import Conditions, Report, Structure
from fxcheck.records.target_spec import TargetSpec

_NOTHING = Conditions(True, True, True, True, True, True)
_EMPTY = Structure(1, 1, 0, 0, 0, 0, 0, False, ())


def _answer(spec: TargetSpec) -> Report:
    """Targets are named after what happens to them."""
    print("noise of the model")
    if spec.target == "missing":
        raise TargetError("no file missing", hint="check the path")
    if spec.target == "untraceable":
        raise CaptureError("the forward branches", code="FX602")
    if spec.target == "crash":
        raise ZeroDivisionError("inside the model")
    if spec.target == "ctrl-c":
        raise KeyboardInterrupt
    if spec.target == "exits":
        sys.exit(0)
    verdict = Verdict(spec.target)
    return Report(spec.target, "2.14.1", spec.mode, None, (), verdict, None, None, _NOTHING, _EMPTY, (), ())


def replace_analysis(monkeypatch: pytest.MonkeyPatch, answer: Callable[[TargetSpec], Report]) -> None:
    monkeypatch.setitem(sys.modules, "fxcheck.api", SimpleNamespace(analyze_target=answer))


@pytest.fixture(autouse=True)
def replaced_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_analysis(monkeypatch, _answer)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("targets", "fail_on", "status"),
    [
        (["uncovered"], "never", 0),
        (["uncovered"], "uncovered", 1),
        (["runtime"], "uncovered", 0),
        (["runtime"], "runtime", 1),
        (["certified"], "runtime", 0),
        (["smooth", "uncovered"], "uncovered", 1),
        (["smooth", "missing"], "never", 2),
        (["uncovered", "missing"], "uncovered", 2),
        (["missing"], "never", 2),
        (["crash"], "never", 2),
        (["exits"], "never", 2),
        (["ctrl-c"], "never", 130),
        (["smooth", "ctrl-c"], "never", 130),
    ],
)
def test_two_beats_one_beats_zero(targets: list[str], fail_on: str, status: int) -> None:
    assert run("analyze", *targets, "--fail-on", fail_on) == status


def test_nothing_fails_by_default() -> None:
    assert run("analyze", "uncovered") == 0


@pytest.mark.parametrize("target", ["missing", "crash", "untraceable", "exits"])
def test_a_single_failing_target_is_one_message_without_traceback(
    target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("analyze", target, "--format", "json")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("fxcheck: ") == 1
    assert "try: " in err or target == "untraceable"
    assert "Traceback" not in err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    run("analyze", "crash", "--debug")
    assert "ZeroDivisionError: inside the model" in capsys.readouterr().err


def test_json_is_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    run("analyze", "smooth", "--format", "json")
    out, err = capsys.readouterr()
    assert json.loads(out)["verdict"] == "smooth"
    assert "noise of the model" in err


def test_several_targets_make_an_array_in_which_a_failure_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    run("analyze", "untraceable", "smooth", "--format", "json")
    first, second = json.loads(capsys.readouterr().out)
    assert first == {"target": "untraceable", "error": {"code": "FX602", "message": "the forward branches"}}
    assert second["verdict"] == "smooth"


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyze"],
        ["analyze", "smooth", "--mode", "sideways"],
        ["analyze", "smooth", "--format", "yaml"],
        ["analyze", "smooth", "--batch-size", "0"],
        ["analyze", "smooth", "--arg", "depth"],
        ["analyze", "smooth", "--arg", "depth=x y"],
        ["analyze", "smooth", "--no-such-flag"],
        ["explain", "FX9999"],
        ["nonsense"],
    ],
)
def test_an_unusable_argument_is_status_two_with_one_message(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("fxcheck: "), err.count("try: ")) == ("", 1, 1)


def test_an_output_file_is_left_as_it_was_when_the_analysis_is_interrupted(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text("before")
    assert run("analyze", "ctrl-c", "-o", str(file)) == 130
    assert (file.read_text(), list(tmp_path.iterdir())) == ("before", [file])


def test_an_output_file_holds_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    assert run("analyze", "smooth", "--format", "json", "-o", str(file)) == 0
    assert json.loads(file.read_text())["target"] == "smooth"
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == [file]


def test_an_output_file_in_a_missing_folder_is_status_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("analyze", "smooth", "-o", str(tmp_path / "gone" / "report.json")) == 2
    assert "cannot write" in capsys.readouterr().err


def test_arguments_reach_the_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TargetSpec] = []
    replace_analysis(monkeypatch, lambda spec: seen.append(spec) or _answer(spec))
    run("analyze", "smooth", "--arg", "depth=3", "--arg", "name='a=b'", "--input", "2x3", "--input", "y=4:int64",
        "--loss", "m:l", "--target", "none", "--batch-size", "2", "--proxies", "old.json", "--numeric",
        "--meta")  # fmt: skip
    assert seen == [
        TargetSpec("smooth", {"depth": 3, "name": "a=b"}, ("2x3", "y=4:int64"), "train", "m:l", "none", 2, "old.json",
                   True, True)
    ]  # fmt: skip
    run("analyze", "smooth", "--mode", "train")
    assert seen[1].mode_was_given


def test_names_are_explained_in_any_letter_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "fx101") == 0
    assert capsys.readouterr().out.startswith("# FX101: ")


def test_an_unknown_name_comes_with_close_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "FX110") == 2
    assert "FX101" in capsys.readouterr().err


def test_the_version_names_torch_and_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    python = ".".join(map(str, sys.version_info[:3]))
    assert capsys.readouterr().out == f"fxcheck {fxcheck.__version__} (torch {version('torch')}, Python {python})\n"


@pytest.mark.parametrize(("flags", "shown"), [([], False), (["--debug"], True)])
def test_warnings_of_loggers_set_up_during_the_analysis_are_shown_only_when_debugging(
    flags: list[str], shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(spec: TargetSpec) -> Report:
        logger = logging.Logger("library", logging.NOTSET)
        logger.addHandler(logging.StreamHandler(sys.stderr))
        logger.manager = logging.root.manager
        logger.warning("Traceback of the library")
        return _answer(spec)

    replace_analysis(monkeypatch, answer)
    assert run("analyze", "smooth", *flags) == 0
    assert ("Traceback of the library" in capsys.readouterr().err) is shown
    assert logging.root.manager.disable == logging.NOTSET
