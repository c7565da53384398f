"""`fxcheck verify`: exit status 0, 1 and 2, what it says, and that it needs neither torch nor the solver."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fxcheck import cli
from fxcheck.records.certificate import Block, Certificate


def _saved(path: Path, verdict: str = "certified", sign: float = 1.0, blocks: int = 1) -> str:
    rows = np.array([[1.0, 0.5], [0.25, 1.0]])
    block = Block("layer1.0.relu", 0, "direction", (), rows, np.zeros(2), direction=sign * np.ones(2))
    Certificate(verdict, "2.14.1", "sha256:00", (block,) * blocks).save(path)
    return str(path)


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_right_certificate_is_confirmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("verify", _saved(tmp_path / "c.json", blocks=3)) == 0
    said = capsys.readouterr().out
    assert said.startswith("confirmed") and "blocks 3 (direction: 3)" in said
    assert "not that the rows belong to a model" in said


def test_a_certificate_without_blocks_says_that_nothing_was_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("verify", _saved(tmp_path / "c.json", blocks=0)) == 0
    assert "nothing to check" in capsys.readouterr().out


def test_a_wrong_witness_is_refuted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("verify", _saved(tmp_path / "c.json", sign=-1.0)) == 1
    said = capsys.readouterr().out
    assert said.startswith("refuted") and "'layer1.0.relu'" in said


def test_a_tampered_verdict_is_refuted(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    rows = np.array([[1.0], [-1.0]])
    block = Block("l", 0, "multipliers", (), rows, np.zeros(2), multipliers=(Fraction(1), Fraction(1)))
    Certificate("uncertified", "2.14.1", "d", (block,)).save(path)
    assert _run("verify", str(path)) == 0
    path.write_text(path.read_text().replace('"uncertified"', '"certified"'))
    assert _run("verify", str(path)) == 1


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"schema": "fxcheck/certificate/2"}', "[" * 100_000])
def test_what_cannot_be_read_exits_with_two(
    tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.json"
    if text is not None:
        path.write_text(text)
    assert _run("verify", str(path)) == 2
    said = capsys.readouterr()
    assert not said.out and said.err.startswith("fxcheck: ") and "Traceback" not in said.err


def test_a_malformed_block_exits_with_two(tmp_path: Path) -> None:
    path = Path(_saved(tmp_path / "c.json"))
    document = json.loads(path.read_text())
    document["blocks"][0]["rows"][0] = ["nan", "0x1p+0"]
    path.write_text(json.dumps(document))
    assert _run("verify", str(path)) == 2


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_verify_imports_neither_torch_nor_the_solver(tmp_path: Path, sign: float) -> None:
    path = _saved(tmp_path / "c.json", sign=sign)
    code = (
        f"import sys\nfrom fxcheck.cli import main\ntry:\n    main(['verify', {path!r}])\nexcept SystemExit as e:\n"
        "    status = e.code\nloaded = {'torch', 'ortools'} & set(sys.modules)\nsys.stderr.write(f'{status} {loaded}')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stderr == f"{0 if sign > 0 else 1} set()"
