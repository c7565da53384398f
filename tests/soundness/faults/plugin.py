"""Pytest with a fault in force, in a process of its own."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import pytest

from tests.soundness.faults.record import FAULTS

VARIABLE = "FXCHECK_FAULT"
CRASHED = 70
"""Exit status of pytest when a test failed by an exception other than its own assertion: the fault is a bad one."""


def pytest_configure(config: pytest.Config) -> None:
    """Plant the fault that the environment names, for the whole run."""
    name = os.environ.get(VARIABLE)
    if name:
        stack = ExitStack()
        stack.enter_context(next(f for f in FAULTS if f.name == name).planted())
        config.add_cleanup(stack.close)


def pytest_exception_interact(call: pytest.CallInfo[Any]) -> None:
    """A fault must be noticed by an assertion: one that merely crashes proves nothing."""
    error = call.excinfo.value if call.excinfo else None
    if os.environ.get(VARIABLE) and not isinstance(error, (AssertionError, pytest.fail.Exception)):
        pytest.exit(f"the fault crashed: {type(error).__name__} {error}", returncode=CRASHED)
