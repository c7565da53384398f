"""Certificates survive a round trip unchanged, and what is not a certificate is refused in one message."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fxcheck.errors import FxcheckError
from fxcheck.lp.independence import left_inverse
from fxcheck.records.certificate import Block, Certificate

_RNG = np.random.default_rng(0)


def direction_block() -> Block:
    rows = _RNG.normal(size=(2, 3)) + 3
    return Block("conv1", 0, "direction", ("conv1.weight[3]",), rows, np.full(2, 1e-7), direction=np.ones(3))


def multipliers_block() -> Block:
    rows = np.array([[1.0, -0.0], [-3.0, 0.0], [0.1, 5e-324]])
    return Block("pool", 1, "multipliers", (), rows, np.zeros(3), multipliers=(Fraction(3), Fraction(1), Fraction(0)))


def columns_block() -> Block:
    columns = _RNG.normal(size=(5, 2))
    return Block("fc", 2, "independent columns", (), columns.T, np.zeros(2), left_inverse=left_inverse(columns))


def certificate(verdict: str = "uncertified") -> Certificate:
    blocks = [direction_block(), columns_block()] + ([multipliers_block()] if verdict == "uncertified" else [])
    return Certificate(verdict, "2.14.1", "sha256:00", tuple(blocks), ("a note",))


def test_a_saved_certificate_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    saved = certificate()
    saved.save(path)
    read = Certificate.load(path)
    assert read.to_dict() == saved.to_dict() == json.loads(path.read_text())
    assert (read.verdict, read.notes, read.blocks[0].coordinates) == (saved.verdict, saved.notes, ("conv1.weight[3]",))
    for a, b in zip(read.blocks, saved.blocks, strict=True):
        assert a.rows.tobytes() == b.rows.tobytes() and a.multipliers == b.multipliers


@pytest.mark.parametrize("y", [Fraction(1, 3), Fraction(10**400), Fraction(1, 2**1074), Fraction(2**60 + 1)])
def test_multipliers_of_any_size_are_kept_exactly(y: Fraction) -> None:
    block = Block("l", 0, "multipliers", (), np.ones((1, 1)), np.zeros(1), multipliers=(y,))
    assert Block.from_dict(json.loads(json.dumps(block.to_dict())), "here").multipliers == (y,)


def test_a_certificate_without_blocks_or_rows_survives(tmp_path: Path) -> None:
    block = Block("l", 0, "direction", (), np.zeros((0, 4)), np.zeros(0), direction=np.zeros(4))
    Certificate("certified", "2.14.1", "d", (block,)).save(tmp_path / "c.json")
    assert Certificate.load(tmp_path / "c.json").blocks[0].rows.shape == (0, 4)
    Certificate("certified", "2.14.1", "d", ()).save(tmp_path / "c.json")
    assert Certificate.load(tmp_path / "c.json").blocks == ()


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step.json"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(FxcheckError, match="No space left"):
        certificate().save(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["step.json"]


def test_a_folder_that_does_not_exist_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(FxcheckError, match="cannot write"):
        certificate().save(tmp_path / "no" / "step.json")


@pytest.mark.parametrize(
    "change",
    [
        {"claim": "guess"},
        {"direction": None},
        {"direction": np.ones(2)},
        {"direction": np.array([1.0, np.nan, 1.0])},
        {"row_error": np.array([-1.0, 0.0])},
        {"row_error": np.zeros(3)},
        {"rows": np.ones(3)},
        {"claim": "multipliers", "multipliers": (Fraction(1),)},
        {"claim": "independent columns", "left_inverse": np.ones((2, 3))},
    ],
)
def test_a_block_that_does_not_fit_together_is_refused(change: dict[str, Any]) -> None:
    good = direction_block()
    fields: dict[str, Any] = {name: getattr(good, name) for name in good.__dataclass_fields__}
    with pytest.raises(FxcheckError, match="conv1"):
        Block(**{**fields, **change})


MALFORMED_BLOCKS: list[dict[str, Any]] = [
    {"rows": [["0x1p+0"], ["0x1p+0", "0x1p+0"]]},
    {"rows": [["nan", "0x1p+0", "0x1p+0"]] * 2},
    {"rows": [["inf", "0x1p+0", "0x1p+0"]] * 2},
    {"rows": [[1.0, 1.0, 1.0]] * 2},
    {"rows": [["1.5", "0x1p+0", "0x1p+0"]] * 2},
    {"rows": [["0x1p+9999", "0x1p+0", "0x1p+0"]] * 2},
    {"rows": [["0x1p-9999", "0x1p+0", "0x1p+0"]] * 2},
    {"rows": [["0x1.00000000000001p+0", "0x1p+0", "0x1p+0"]] * 2},
    {"rows": {"0": []}},
    {"rows": None},
    {"columns": 10**12},
    {"columns": True},
    {"columns": -1},
    {"group": "0"},
    {"layer": 7},
    {"coordinates": [1]},
    {"claim": "guess"},
    {"direction": "0x1p+0"},
    {"row_error": ["-0x1p+0", "0x0p+0"]},
    {"claim": "multipliers", "multipliers": ["1/0", "1/1"]},
    {"claim": "multipliers", "multipliers": ["1/" + "9" * 5000, "1/1"]},
    {"claim": "multipliers", "multipliers": ["-1/2", "1/1"]},
    {"claim": "independent columns", "left_inverse": [[]]},
]
MALFORMED: list[Any] = [
    None, [], "text", 3, {}, {"schema": "fxcheck/report/1"}, {"verdict": "maybe"}, {"verdict": 1}, {"blocks": {}},
    {"blocks": [None]}, {"blocks": [[]]}, {"notes": "a"}, {"torch": None}, {"digest": ["a"]},
]  # fmt: skip


def malformed_documents() -> list[Any]:
    good = json.loads(json.dumps(Certificate("certified", "2.14.1", "d", (direction_block(),)).to_dict()))
    whole = [{**good, **m} if isinstance(m, dict) and m else m for m in MALFORMED]
    return whole + [{**good, "blocks": [{**good["blocks"][0], **m}]} for m in MALFORMED_BLOCKS]


@pytest.mark.parametrize("document", malformed_documents())
def test_what_is_not_a_certificate_is_refused(document: Any) -> None:
    with pytest.raises(FxcheckError):
        Certificate.from_dict(document)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"schema": NaN}', "1" * 5000, "\x00"])
def test_files_that_are_not_json_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(FxcheckError):
        Certificate.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FxcheckError, match="not JSON"):
        Certificate.load(path)
