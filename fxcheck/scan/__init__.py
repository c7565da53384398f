"""Scans of computed tensors: entries on a kink, tied windows, and the classes that tell trivial ties from others.

``reference`` and ``class_steps`` in plain torch, with ``numpy_ties`` on the CPU, say what is meant; ``compiled_*`` do the same
with numba where that is installed, through ``*_loops``, the only modules that import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from fxcheck.scan import compiled_shares, compiled_ties, compiled_touches, reference, shifts
from fxcheck.scan.choice import chosen, compiles, is_compiled, use
from fxcheck.scan.classes import combined, mixed, of_input, salted, through_windows
from fxcheck.scan.compiled_touches import Glance
from fxcheck.scan.reference import Shared, Ties, Touches
from fxcheck.scan.windows import Windows, WindowSpec, adaptive, adaptive_tables, sliding, whole

__all__ = [
    "Glance",
    "Shared",
    "Ties",
    "Touches",
    "WindowSpec",
    "Windows",
    "adaptive",
    "adaptive_tables",
    "are_finite",
    "chosen",
    "combined",
    "equal",
    "glance",
    "is_finite",
    "mixed",
    "of_input",
    "rivals",
    "salted",
    "shared",
    "shifts",
    "sliding",
    "through_windows",
    "ties",
    "touched",
    "use",
    "whole",
]


def touched(y: Tensor, kinks: Sequence[float], glanced: bool = False) -> Touches:
    """The entries of ``y`` on a kink; see ``reference.touched``.

    Args:
        glanced: a quick look at ``y`` has shown nothing, so that another is in vain.
    """
    return compiled_touches.touched(y, kinks, glanced) if compiles(y) else reference.touched(y, kinks)


def glance(y: Tensor, kinks: Sequence[float]) -> Glance | None:
    """How to tell quickly of tensors like ``y`` that they are finite and off all kinks; see ``compiled_touches.glance``.

    Returns:
        None where there is no quick way. What it returns holds while the path is not chosen anew by ``use``.
    """
    return compiled_touches.glance(tuple(kinks), y.dtype) if compiles(y) else None


def is_finite(x: Tensor) -> bool:
    """Whether no entry is NaN or infinite."""
    return are_finite((x,))


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no entry of any of them is."""
    compiled = is_compiled(chosen())
    for x in tensors:
        look = compiled_touches.glance((), x.dtype) if compiled else None
        if not (look is not None and look(x)) and not reference.is_finite(x.detach()):
            return False
    return True


def ties(
    x: Tensor,
    out: Tensor,
    windows: Windows,
    skip: tuple[float, ...] = (),
    mixed: Tensor | None = None,
    limit: int = 200_000,
    floor: float | None = None,
    labels: Tensor | None = None,
) -> Ties:
    """The tied windows of one max; see ``reference.ties``."""
    path = compiled_ties if compiles(x) and compiles(out) else reference
    return path.ties(x, out, windows, skip, mixed, limit, floor, labels)


def rivals(
    x: Tensor, out: Tensor, picks: Tensor, windows: Windows, listed: Tensor, labels: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The maximal cells beside AD's pick; see ``reference.rivals``."""
    path = compiled_ties if compiles(x) and compiles(out) and compiles(picks) else reference
    return path.rivals(x, out, picks, windows, listed, labels)


def shared(
    x: Tensor, out: Tensor, dims: Sequence[int], skip: tuple[float, ...] = (), limit: int = 200_000,
    floor: float | None = None,
) -> Shared:  # fmt: skip
    """The entries that share the extremum of a reduction; see ``reference.shared``."""
    path = compiled_shares if compiles(x) and compiles(out) else reference
    return path.shared(x, out, dims, skip, limit, floor)


def equal(
    a: Tensor, b: Tensor, out: Tensor, skip: tuple[float, ...] = (), limit: int = 200_000, floor: float | None = None
) -> Shared:
    """The entries in which two operands are equal; see ``reference.equal``."""
    path = compiled_shares if compiles(a) and compiles(b) and compiles(out) else reference
    return path.equal(a, b, out, skip, limit, floor)
