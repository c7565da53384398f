"""What must answer without torch: the light commands, the records and the theory."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _imports_torch(code: str) -> bool:
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nsys.stderr.write('torch' if 'torch' in sys.modules else 'free')"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return ran.stderr.endswith("torch")


def _command(*arguments: str) -> str:
    call = f"main({list(arguments)!r})"
    return f"from fxcheck.cli import main\ntry:\n    {call}\nexcept SystemExit as e:\n    assert e.code == 0"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["explain"], ["explain", "t6"], ["analyze", "--help"], ["gate", "--help"]]
)
def test_light_commands_answer_without_importing_torch(arguments: list[str]) -> None:
    assert not _imports_torch(_command(*arguments))


@pytest.mark.parametrize("room", ["records", "theory"])
def test_every_module_of_a_torch_free_room_imports_without_torch(room: str) -> None:
    walk = (
        f"import pkgutil, importlib, fxcheck.{room} as r\n"
        f"for m in pkgutil.iter_modules(r.__path__): importlib.import_module('fxcheck.{room}.' + m.name)"
    )
    assert not _imports_torch(walk + "\nimport fxcheck.errors, fxcheck.render.text")


def test_the_detector_sees_an_import_of_torch() -> None:
    assert _imports_torch("import torch")


def test_help_does_not_import_rich() -> None:
    code = _command("--help") + "\nassert 'rich.console' not in sys.modules"
    assert not _imports_torch(code)
