"""Reports of the zoo, analysed once a session."""

from __future__ import annotations

import functools

import torch

from fxcheck import analyze
from fxcheck.errors import FxcheckError
from fxcheck.records.report import Report
from tests.zoo.case import Case
from tests.zoo.models import CASES

_BY_NAME = {case.name: case for case in CASES}


@functools.cache
def _outcome(name: str) -> Report | FxcheckError:
    case = _BY_NAME[name]
    torch.manual_seed(0)
    model = case.build()
    try:
        return analyze(model, case.args(), wrt=case.wrt(model) if case.wrt else None, **case.options)
    except FxcheckError as error:
        return error


def outcome_of(case: Case) -> Report | FxcheckError:
    """The report of a case, or the error that fxcheck raised on purpose."""
    return _outcome(case.name)


def codes_of(report: Report) -> set[str]:
    """All diagnostic codes of a report, of layers and model."""
    return {d.code for d in report.diagnostics} | {d.code for layer in report.layers for d in layer.diagnostics}
