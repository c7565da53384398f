"""The tests of soundness can fail: planted faults still fit the code, and the tests named for them notice.

All faults are killed for real by ``tools/planted_faults.py``; a few of them here.
"""

from __future__ import annotations

import inspect
from collections import Counter

import pytest

from tests.soundness.faults import FAULTS, Fault, found
from tools.planted_faults import run_tests, try_fault

SAMPLE = ("each-window-alone", "t-j-by-value", "both-signs", "trusted-solver")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
def test_a_fault_can_be_planted_and_is_taken_back(fault: Fault) -> None:
    owner, name, right = found(fault.target)
    with fault.planted():
        wrong = found(fault.target)[2]
        assert wrong is not right and callable(wrong) == callable(right)
    assert found(fault.target)[2] is right and vars(owner)[name] is right


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
def test_a_fault_can_be_called_as_what_it_replaces(fault: Fault) -> None:
    _, _, right = found(fault.target)
    if inspect.isfunction(right):
        parameters = inspect.signature(right).parameters.values()
        named = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
        positional = [None for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        inspect.signature(fault.wrong(right)).bind(*positional, **named)


def test_faults_are_described_and_have_names_of_their_own() -> None:
    assert all(f.what.endswith(".") and f.section for f in FAULTS)
    assert max(Counter(f.name for f in FAULTS).values()) == 1
    assert set(SAMPLE) <= {f.name for f in FAULTS}


@pytest.mark.slow
def test_every_test_that_is_to_notice_a_fault_exists() -> None:
    status, output = run_tests(["--collect-only", *dict.fromkeys(f.killer for f in FAULTS)])
    assert status == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("fault", [f for f in FAULTS if f.name in SAMPLE], ids=lambda f: f.name)
def test_a_planted_fault_is_noticed(fault: Fault) -> None:
    trial = try_fault(fault)
    assert trial.is_killed, f"{trial.outcome}\n{trial.output}"
