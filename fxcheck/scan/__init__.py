"""Scans of computed tensors: entries on a kink, tied windows, and the classes that tell trivial ties from others.

``reference`` in plain torch says what is meant; ``compiled`` does the same with numba where that is installed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType
from typing import Literal

from torch import Tensor

from fxcheck.errors import UsageError
from fxcheck.scan import compiled, reference
from fxcheck.scan.classes import combined, mixed, of_input, salted, through_windows
from fxcheck.scan.reference import Ties, Touches, members
from fxcheck.scan.windows import Windows, WindowSpec, adaptive, adaptive_tables, sliding, whole

__all__ = [
    "Ties",
    "Touches",
    "WindowSpec",
    "Windows",
    "adaptive",
    "adaptive_tables",
    "combined",
    "members",
    "mixed",
    "of_input",
    "salted",
    "sliding",
    "through_windows",
    "ties",
    "touched",
    "use",
    "whole",
]

Path = Literal["torch", "compiled", "auto"]

_PATHS = ("torch", "compiled", "auto")
_chosen: str | None = None


def use(path: Path) -> None:
    """Choose between plain torch and numba for this process; ``FXCHECK_SCAN`` does so from outside.

    Args:
        path: ``"torch"``; ``"compiled"``, which insists on numba; or ``"auto"``, numba where it is installed.

    Raises:
        UsageError: an unknown path, or ``"compiled"`` without numba.
    """
    global _chosen
    _chosen = _checked(path, "fxcheck.scan.use")


def touched(y: Tensor, kinks: Sequence[float]) -> Touches:
    """The entries of ``y`` on a kink; see ``reference.touched``."""
    return _path(y).touched(y, kinks)


def ties(
    x: Tensor,
    out: Tensor,
    windows: Windows,
    skip: tuple[float, ...] = (),
    mixed: Tensor | None = None,
    limit: int = 200_000,
    floor: float | None = None,
) -> Ties:
    """The tied windows of one max; see ``reference.ties``."""
    return _path(x).ties(x, out, windows, skip, mixed, limit, floor)


def _path(x: Tensor) -> ModuleType:
    chosen = _chosen or _checked(os.environ.get("FXCHECK_SCAN", "auto"), "FXCHECK_SCAN")
    return reference if chosen == "torch" or not compiled.takes(x) else compiled


def _checked(path: str, where: str) -> str:
    if path not in _PATHS:
        raise UsageError(f"{where} is {path!r}, not one of {', '.join(_PATHS)}.")
    if path == "compiled" and not compiled.available():
        raise UsageError(f"{where} asks for the compiled scan, but numba is not installed.", hint="pip install numba")
    return path
