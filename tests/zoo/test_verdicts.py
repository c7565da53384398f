"""Every model of the zoo gets one of the verdicts that the theory permits."""

from __future__ import annotations

import collections

import pytest

from fxcheck.errors import FxcheckError
from fxcheck.records.report import Report
from tests.zoo.case import ERROR, Case
from tests.zoo.models import CASES
from tests.zoo.reports import codes_of, outcome_of


@pytest.mark.parametrize("case", CASES, ids=str)
def test_zoo_model_gets_a_verdict_that_the_theory_permits(case: Case) -> None:
    report = outcome_of(case)
    if isinstance(report, FxcheckError):
        assert ERROR in case.allowed and (report.code or "").startswith("FX6"), str(report)
        return
    assert report.verdict in case.allowed, f"{case.name}: {report.verdict} {report.theorem} {sorted(codes_of(report))}"
    if report.verdict == "uncovered":
        assert codes_of(report), "uncovered without a reason"
    if report.verdict == case.allowed[0]:
        _check_details(case, report)


def _check_details(case: Case, report: Report) -> None:
    if case.theorem:
        assert report.theorem in case.theorem.split("|")
    if case.subdifferential:
        assert report.subdifferential == case.subdifferential
    if case.bias:
        assert report.layers[0].bias.kind in case.bias.split("|")
    if case.layers is not None:
        assert len(report.layers) == case.layers
    for wanted in case.codes:
        found = codes_of(report)
        assert any(code.startswith(tuple(wanted.split("|"))) for code in found), f"{wanted} missing among {sorted(found)}"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_zoo_report_is_consistent_with_itself(case: Case) -> None:
    """The model's verdict is the weakest of its parts; a theorem goes with the verdicts that have one."""
    report = outcome_of(case)
    if isinstance(report, FxcheckError):
        return
    weakest = max([layer.verdict.rank for layer in report.layers], default=0)
    assert report.verdict.rank >= weakest
    assert (report.theorem is None) == (report.verdict in ("smooth", "uncovered"))
    assert (report.subdifferential is None) == (report.verdict == "uncovered")
    assert ("smooth criterion" in report.assumptions) == ("loss" not in case.options)
    assert all(layer.verdict != "smooth" for layer in report.layers)


def test_zoo_names_are_unique() -> None:
    repeated = [n for n, k in collections.Counter(c.name for c in CASES).items() if k > 1]
    assert not repeated


def test_zoo_models_run_in_eager_mode() -> None:
    """A case that eager PyTorch cannot run would test nothing."""
    broken = []
    for case in CASES:
        try:
            case.build()(*case.args())
        except Exception as error:
            broken.append(f"{case.name}: {error}")
    assert not broken, "\n".join(broken)
