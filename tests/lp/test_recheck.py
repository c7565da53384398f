"""A certificate is confirmed when it is right and refuted when a witness or the verdict was tampered with."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from fxcheck.lp.feasibility import decide
from fxcheck.lp.independence import left_inverse
from fxcheck.lp.recheck import recheck
from fxcheck.records.certificate import Block, Certificate
from fxcheck.records.system import LinearSystem, Outcome

_RNG = np.random.default_rng(0)


def _decided(rows: np.ndarray, error: float = 0.0) -> Block:
    system = LinearSystem(rows, np.full(len(rows), error))
    (decision,) = decide([system])
    claim = "direction" if decision.outcome is Outcome.FEASIBLE else "multipliers"
    return Block("l", 0, claim, (), system.rows, system.row_error, decision.direction, decision.multipliers)


def _certificate(verdict: str, *blocks: Block) -> Certificate:
    return Certificate(verdict, "2.14.1", "d", blocks)


def _columns() -> Block:
    columns = _RNG.normal(size=(6, 3))
    return Block("fc", 0, "independent columns", (), columns.T, np.zeros(3), left_inverse=left_inverse(columns))


_DIRECTION = _decided(_RNG.normal(size=(10, 20)), 1e-6)
_MULTIPLIERS = _decided(_RNG.normal(size=(60, 9)))


@pytest.mark.parametrize(
    ("verdict", "blocks"),
    [("certified", (_DIRECTION, _columns())), ("uncertified", (_DIRECTION, _MULTIPLIERS)), ("certified", ())],
)
def test_what_decide_decided_is_confirmed(verdict: str, blocks: tuple[Block, ...]) -> None:
    found = recheck(_certificate(verdict, *blocks))
    assert found.confirmed and found.checked == len(blocks) and not found.problems


def test_a_certified_step_with_multipliers_is_refuted() -> None:
    found = recheck(_certificate("certified", _DIRECTION, _MULTIPLIERS))
    assert not found.confirmed and "yet the verdict is certified" in found.problems[0]


def _tampered() -> list[Block]:
    columns, y = _columns(), list(_MULTIPLIERS.multipliers or ())
    y[int(np.argmax([v > 0 for v in y]))] += 1
    assert _DIRECTION.direction is not None and columns.left_inverse is not None
    return [
        replace(_DIRECTION, direction=-_DIRECTION.direction),
        replace(_DIRECTION, direction=_DIRECTION.direction * 0),
        replace(_DIRECTION, row_error=np.full(10, 0.9)),
        replace(_DIRECTION, rows=-_DIRECTION.rows),
        replace(_MULTIPLIERS, multipliers=tuple(y)),
        replace(_MULTIPLIERS, multipliers=tuple(Fraction(0) for _ in y)),
        replace(_MULTIPLIERS, multipliers=tuple(-v for v in _MULTIPLIERS.multipliers or ())),
        replace(_MULTIPLIERS, rows=np.nextafter(_MULTIPLIERS.rows, 9)),
        replace(columns, left_inverse=columns.left_inverse * 2.5),
        replace(columns, rows=columns.rows[[0, 0, 1]]),
    ]


@pytest.mark.parametrize("block", _tampered())
def test_a_tampered_block_is_refuted_whatever_the_verdict(block: Block) -> None:
    for verdict in ("certified", "uncertified"):
        found = recheck(_certificate(verdict, block))
        assert not found.confirmed and repr(block.layer) in found.problems[0]


_ROWS = np.array([[1.0, 1.0], [-1.0, 1e-9 - 1.0]])
_PART = Block("part", 0, "direction", (), _ROWS[:1], np.zeros(1), direction=np.array([1.0, 0.0]))
_MIXTURE = Block(
    "weights of the parts", 0, "mixture", (), _ROWS, np.full(2, 1e-8), weights=np.full(2, 0.5), coefficients=np.eye(2)
)  # fmt: skip


def test_a_mixture_is_confirmed_behind_the_directions_of_its_parts() -> None:
    assert recheck(_certificate("certified", _PART, _PART, _MIXTURE)).confirmed
    for blocks in ((_MIXTURE,), (_PART, _MIXTURE), (_PART, _MIXTURE, _PART), (_PART, _columns(), _MIXTURE)):
        found = recheck(_certificate("certified", *blocks))
        assert not found.confirmed and "does not follow a direction for each of its 2 parts" in found.problems[0]


def test_no_error_of_the_rows_makes_a_mixture_of_what_does_not_cancel() -> None:
    rows = np.array([[1.0, 1.0], [-1.0, -0.5]])
    for error in (0.0, 1.0, 1e300):
        forged = replace(_MIXTURE, rows=rows, row_error=np.full(2, error))
        assert not recheck(_certificate("certified", _PART, _PART, forged)).confirmed
