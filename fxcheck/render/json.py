"""A report as the ``fxcheck/report/1`` document."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fxcheck.records.report import FailedTarget, Report


def render(results: Sequence[Report | FailedTarget]) -> str:
    """One object for one target, an array for several; strict JSON (no NaN), ends with a newline."""
    documents = [result.to_dict() for result in results]
    return dump(documents[0] if len(documents) == 1 else documents)


def dump(document: object) -> str:
    """Indented strict JSON."""
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
