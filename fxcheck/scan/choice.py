"""Plain torch or numba: what the user chose, and what is possible."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from fxcheck.errors import UsageError

Path = Literal["torch", "compiled", "auto"]

_PATHS = ("torch", "compiled", "auto")
_PLAIN = (Tensor, torch.nn.Parameter)
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


def chosen() -> str | None:
    """What ``use`` was last given in this process."""
    return _chosen


def compiles(x: Tensor) -> bool:
    """Whether the compiled loops are chosen and can read this tensor: a plain dense CPU tensor, its signs in memory."""
    if not is_compiled(_chosen):
        return False
    return type(x) in _PLAIN and x.is_cpu and x.layout is torch.strided and not x.is_neg()


@lru_cache(maxsize=8)
def is_compiled(path: str | None) -> bool:
    """Whether a path comes to the compiled loops; None is what the environment says, which is read once.

    Raises:
        UsageError: ``FXCHECK_SCAN`` is an unknown path, or asks for numba where it is not installed.
    """
    return (path or _checked(os.environ.get("FXCHECK_SCAN", "auto"), "FXCHECK_SCAN")) != "torch" and available()


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether numba is installed, and is not told to compile nothing."""
    return find_spec("numba") is not None and os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


def _checked(path: str, where: str) -> str:
    if path not in _PATHS:
        raise UsageError(f"{where} is {path!r}, not one of {', '.join(_PATHS)}.")
    if path == "compiled" and not available():
        raise UsageError(f"{where} asks for the compiled scan, but numba is not installed, or NUMBA_DISABLE_JIT is set.",
                         hint="pip install numba")  # fmt: skip
    return path
