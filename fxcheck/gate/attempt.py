"""One target analysed without harm to the others: every failure is an error with a message, and nothing is kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fxcheck.errors import TargetError, explained
from fxcheck.records.report import FailedTarget, Report
from fxcheck.records.target_spec import TargetSpec

if TYPE_CHECKING:
    from fxcheck.records.proxy_table import ProxyTable

_IMPORTED_FILE = "_fxcheck_target_"
"""How ``capture.target`` names the modules of files that a target names."""


def attempt(spec: TargetSpec) -> Report:
    """Analyse one target.

    Raises:
        Exception: whatever the analysis raises; a program that ends itself while it is loaded is a ``TargetError``.
    """
    with _guarded(spec.target):
        from fxcheck.api import analyze_target

        return analyze_target(spec)


def attempt_under(spec: TargetSpec, old: ProxyTable) -> tuple[Report, Report]:
    """Analyse one target under saved proxies and under those of the installed torch, from one capture.

    Raises:
        Exception: as ``attempt``.
    """
    with _guarded(spec.target):
        from fxcheck.api import analyze_target_under

        before, after = analyze_target_under(spec, [old, spec.proxies])
        return before, after


def failed(target: str, error: Exception) -> FailedTarget:
    """The entry of a report for a target that could not be analysed."""
    known = explained(error)
    return FailedTarget(target, known.code, f"{known.message} (try: {known.hint})" if known.hint else known.message)


@contextmanager
def _guarded(target: str) -> Iterator[None]:
    """The end of the program becomes an error; modules of target files are forgotten, with the models they hold."""
    known = set(sys.modules)
    try:
        yield
    except SystemExit as error:
        raise TargetError(
            f"{target} ended the program while it was loaded (SystemExit: {error.code})",
            hint="guard the script's entry with if __name__ == '__main__'",
        ) from error
    finally:
        for name in set(sys.modules) - known:
            if name.startswith(_IMPORTED_FILE):
                del sys.modules[name]
