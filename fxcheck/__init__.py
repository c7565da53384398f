"""fxcheck: is the gradient that PyTorch's backward() returns a Clarke subgradient?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fxcheck.api import analyze, instrument
    from fxcheck.errors import FxcheckError, NonFiniteError, StepError, UncoveredModel
    from fxcheck.records.finding import Verdict
    from fxcheck.records.report import Report
    from fxcheck.records.step import StepResult
    from fxcheck.render.run_html import save_run
    from fxcheck.runtime.checked import CheckedModule

__version__ = "0.1.0"
__all__ = ["CheckedModule", "FxcheckError", "NonFiniteError", "Report", "StepError", "StepResult", "UncoveredModel",
           "Verdict", "__version__", "analyze", "instrument", "save_run"]  # fmt: skip

_HOMES = {
    "analyze": "fxcheck.api",
    "instrument": "fxcheck.api",
    "save_run": "fxcheck.render.run_html",
    "FxcheckError": "fxcheck.errors",
    "NonFiniteError": "fxcheck.errors",
    "StepError": "fxcheck.errors",
    "UncoveredModel": "fxcheck.errors",
    "CheckedModule": "fxcheck.runtime.checked",
    "StepResult": "fxcheck.records.step",
    "Report": "fxcheck.records.report",
    "Verdict": "fxcheck.records.finding",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562), so that ``fxcheck --help`` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fxcheck' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
