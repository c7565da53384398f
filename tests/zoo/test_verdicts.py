"""Every model of the zoo gets one of the verdicts that the theory permits."""

from __future__ import annotations

import collections

import pytest
import torch

from fxcheck.api import analyze
from fxcheck.errors import FxcheckError
from tests.zoo.case import ERROR, Case
from tests.zoo.models import CASES


def report_of(case: Case):
    """The report of a case; None where fxcheck refuses with an FX6xx code and the case allows that."""
    torch.manual_seed(0)
    model = case.build()
    wrt = case.wrt(model) if case.wrt else None
    try:
        return analyze(model, case.args(), wrt=wrt, **case.options)
    except FxcheckError as error:
        if ERROR in case.allowed and (error.code or "").startswith("FX6"):
            return None
        raise


def codes_of(report) -> set[str]:
    """All diagnostic codes of a report, of layers and model."""
    return {d.code for d in report.diagnostics} | {d.code for layer in report.layers for d in layer.diagnostics}


def reports(codes: set[str], wanted: str) -> bool:
    """Whether one of the alternatives ``A|B`` begins a reported code."""
    return any(code.startswith(tuple(wanted.split("|"))) for code in codes)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_zoo_model_gets_a_verdict_that_the_theory_permits(case: Case) -> None:
    report = report_of(case)
    if report is None:
        return
    assert str(report.verdict) in case.allowed, f"{case.name}: {report.verdict} {report.theorem} {sorted(codes_of(report))}"
    if report.verdict == "uncovered":
        assert codes_of(report), "uncovered without a reason"
    if report.verdict == case.allowed[0]:
        _check_details(case, report)


def _check_details(case: Case, report) -> None:
    if case.theorem:
        assert report.theorem in case.theorem.split("|")
    if case.subdifferential:
        assert report.subdifferential == case.subdifferential
    if case.bias:
        assert report.layers[0].bias.kind in case.bias.split("|")
    if case.layers is not None:
        assert len(report.layers) == case.layers
    for wanted in case.codes:
        assert reports(codes_of(report), wanted), f"{wanted} missing among {sorted(codes_of(report))}"


def test_zoo_names_are_unique() -> None:
    repeated = [n for n, k in collections.Counter(c.name for c in CASES).items() if k > 1]
    assert not repeated


def test_zoo_models_run_and_differentiate_in_eager_mode() -> None:
    """A case that eager PyTorch cannot run would test nothing."""
    broken = []
    for case in CASES:
        try:
            case.build()(*case.args())
        except Exception as error:
            broken.append(f"{case.name}: {error}")
    assert not broken, "\n".join(broken)
