"""Faults to plant in fxcheck: each makes it certify what the theory does not, and names the test that must notice.

A fault replaces one function by a subtly wrong one, in every module that imported it. With ``FXCHECK_FAULT=name`` in the
environment and ``-p tests.soundness.faults``, pytest runs with that fault in force (``tools/planted_faults.py`` does).
"""

from tests.soundness.faults import decisions, forwards, joint, rows, static
from tests.soundness.faults.plugin import CRASHED, VARIABLE, pytest_configure, pytest_exception_interact
from tests.soundness.faults.record import FAULTS, Fault, found

__all__ = ["CRASHED", "FAULTS", "VARIABLE", "Fault", "found", "pytest_configure", "pytest_exception_interact"]
_THEMES = (static, forwards, rows, decisions, joint)
