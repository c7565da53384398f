"""Ties of one max operator, as pairs of the entry that AD picked and another maximal one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from fxcheck import scan
from fxcheck.records.checks import Check
from fxcheck.runtime.position_classes import Picks, PositionClasses
from fxcheck.runtime.windows_of import pooling_windows
from fxcheck.scan import Windows
from fxcheck.scan.reference import counted

_LIMIT = 200_000
"""Tied windows that are followed, per operator and forward."""
_FEW = 4_096
"""Tied windows that are looked at one by one; with more, classes are computed before they are listed."""
_MOST_POOLS = 1024
_PREFIX_LIMIT = 1 << 26
"""Comparisons that ties of cummax may cost."""


@dataclass(frozen=True, eq=False)
class Found:
    """Pairs that classes do not prove equal, as flat row-major indices on the CPU."""

    winners: Tensor
    losers: Tensor
    outputs: Tensor
    tied: int
    truncated: bool = False
    finite: bool = True


_NONE = torch.empty(0, dtype=torch.int64)


@dataclass
class Pool:
    """One pooling operator over operands of one size, from forward to forward."""

    windows: Windows
    tied: int | None = None
    """Windows of the last forward; with many, classes are worth having before the scan."""


Pools = dict[tuple[int, torch.Size, torch.Size], Pool]
"""By the index of the check and the shapes of operand and result."""


def ties_in_windows(
    check: Check, x: Tensor, maxima: Tensor, picks: Tensor, position_classes: PositionClasses, pools: Pools,
    seconds: dict[str, float], inner: Picks | None = None,
) -> Found:  # fmt: skip
    """Ties of a pooling operator.

    Args:
        check: the check; its operator and arguments say what the windows are.
        x: operand, (B, C, *S_in) or (C, *S_in).
        maxima: what the forward computed, (B, C, *S_out) or (C, *S_out).
        picks: AD's choice for each output, an index into the flattened spatial dimensions.
        position_classes: proves that entries are equal functions.
        pools: what is known of earlier forwards; updated.
        seconds: wall time spent on classes is moved from ``observation`` to ``classes``.
        inner: of the pool that the operand is the result of, if it is one.
    """
    key = check.index, x.shape, maxima.shape
    pool = pools.get(key)
    if pool is None:
        if len(pools) >= _MOST_POOLS:
            pools.clear()
        pool = pools[key] = Pool(_windows_of(check, x, maxima))
    windows, labels, mixed = pool.windows, None, None
    if x.dim() == len(windows.size_in) + 1:
        x, maxima, picks = x[None], maxima[None], picks[None]
    if pool.tied is None or pool.tied > _FEW:
        labels, mixed = _mixed(check, x, windows, position_classes, seconds)
    found = scan.ties(x, maxima, windows, check.skip, mixed, _FEW if mixed is None else _LIMIT, check.floor, labels)
    pool.tied = found.tied
    if found.truncated and mixed is None:
        labels, mixed = _mixed(check, x, windows, position_classes, seconds)
        found = scan.ties(x, maxima, windows, check.skip, mixed, _LIMIT, check.floor, labels)
    if not found.listed.numel():
        return Found(_NONE, _NONE, _NONE, found.tied, found.truncated, found.finite)
    winners, losers, outputs = (r.cpu() for r in scan.rivals(x, maxima, picks, windows, found.listed, labels))
    left = Found(winners, losers, outputs, found.tied, found.truncated, found.finite)
    if not winners.numel():
        return left
    with _classes(seconds):
        if _are_known(check, x, position_classes):
            left = _apart(left, x, check.operand, position_classes)
        return left if inner is None else _of_other_origin(left, x, inner, position_classes)


def _windows_of(check: Check, x: Tensor, maxima: Tensor) -> Windows:
    n = _spatial(check.operator)
    return pooling_windows(check.operator, check.arguments, tuple(x.shape[-n:]), tuple(maxima.shape[-n:]))


def _are_known(check: Check, x: Tensor, position_classes: PositionClasses) -> bool:
    """Whether there are classes of the operand's positions."""
    reads = position_classes.reads(check.operand)
    return reads is not None and reads.shape == (x.shape[0], *x.shape[2:])


def _mixed(
    check: Check, x: Tensor, windows: Windows, position_classes: PositionClasses, seconds: dict[str, float]
) -> tuple[Tensor | None, Tensor | None]:
    """Which taps of each window are equal functions, where windows slide; which windows' taps are not all equal."""
    with _classes(seconds):
        if not _are_known(check, x, position_classes):
            return None, None
        labelled = position_classes.labels(check.operand, windows)
        if labelled is not None:
            return labelled
        classes = position_classes.of(check.operand)
        return None, None if classes is None else scan.mixed(classes, windows)


@contextmanager
def _classes(seconds: dict[str, float]) -> Iterator[None]:
    """Wall time spent here is spent on classes, and not on observation."""
    started = time.perf_counter()
    yield
    spent = time.perf_counter() - started
    seconds["classes"] = seconds.get("classes", 0.0) + spent
    seconds["observation"] = seconds.get("observation", 0.0) - spent


def _pairs(cells: Tensor, chosen: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(winner, loser, output) for every other maximal cell (L, K) of each listed output."""
    others = (cells >= 0) & (cells != chosen[:, None])
    row, column = others.nonzero(as_tuple=True)
    return chosen[row], cells[row, column], outputs[row]


def _apart(found: Found, x: Tensor, operand: int, position_classes: PositionClasses) -> Found:
    """Without the pairs of entries that are equal functions of the parameters."""
    winners, losers, channel, sample = _places(found, x)
    equal = position_classes.are_equal(operand, sample, winners - channel, losers - channel)
    return found if equal is None else _kept(found, ~equal)


def _places(found: Found, x: Tensor) -> tuple[Any, Any, Any, Any]:
    """Winners and losers, the first entry of the channel of both, and the sample: int64 arrays (P,)."""
    plane = prod(x.shape[2:])
    winners = found.winners.numpy()
    channel = winners // plane  # by a number, and never %: that is what numpy has vectors for
    return winners, found.losers.numpy(), channel * plane, channel // x.shape[1]


def _of_other_origin(found: Found, x: Tensor, inner: Picks, position_classes: PositionClasses) -> Found:
    """Without the pairs of pooled values for which AD picked one entry, or entries of one class: equal gradients."""
    if inner.chosen.numel() != x.numel() or not found.winners.numel():
        return found
    picks = inner.chosen.reshape(-1).cpu().numpy()
    winners, losers, _, sample = _places(found, x)
    one, other = picks[winners], picks[losers]
    equal = position_classes.are_equal(inner.operand, sample, one, other)
    return _kept(found, one != other if equal is None else (one != other) & ~equal)


def _kept(found: Found, keep: Any) -> Found:
    """The pairs where a bool array (P,) is true."""
    if keep.all():
        return found
    keep = torch.from_numpy(keep)
    return replace(found, winners=found.winners[keep], losers=found.losers[keep], outputs=found.outputs[keep])


def entries_that_win(check: Check, x: Tensor, maxima: Tensor, entries: Tensor) -> Tensor:
    """Which entries of the operand attain the maximum of at least one window.

    Args:
        check: of a pooling operator.
        x: operand, (B, C, *S_in) or (C, *S_in).
        maxima: result.
        entries: int64 (T,), flat row-major indices into x.

    Returns:
        bool (T,), True too where windows are too irregular to tell.
    """
    windows = _windows_of(check, x, maxima)
    if x.dim() == len(windows.size_in) + 1:
        x, maxima = x[None], maxima[None]
    if any(along is None for along in windows.slices):
        return torch.ones_like(entries, dtype=torch.bool)
    wins = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
    for taps in product(*(along or () for along in windows.slices)):
        cells: Any = (..., *(tap.cells for tap in taps))
        into: Any = (..., *(tap.into for tap in taps))
        wins[cells] |= x[cells] == maxima[into]
    return wins.reshape(-1)[entries.to(x.device)].cpu()


def _spatial(operator: str) -> int:
    """Number of spatial dimensions in an operator's name, as in ``max_pool2d``."""
    return int(next(c for c in operator.split(".")[1] if c.isdigit()))


def ties_along(check: Check, x: Tensor, extrema: Tensor, picks: Tensor) -> Found:
    """Ties of ``max(dim)``, ``min(dim)``, ``cummax`` or ``cummin``.

    Args:
        check: the check.
        x: operand.
        extrema: values that the forward computed.
        picks: AD's choice, an index along the dimension.
    """
    dim = int(check.arguments["dim"]) % max(1, x.dim())
    if check.operator.split(".")[1].startswith("cum"):
        return _ties_of_prefixes(check, x, extrema, picks, dim)
    shared = scan.shared(x, extrema, (dim,) if x.dim() else (), check.skip, x.numel(), check.floor)
    outputs, entries = shared.outputs, shared.entries
    step = prod(x.shape[dim + 1 :])
    along = entries.div(step, rounding_mode="floor") % (x.shape[dim] if x.dim() else 1)
    chosen = picks.reshape(-1)[outputs]
    other = along != chosen
    winners, losers = (entries + (chosen - along) * step)[other], entries[other]
    return Found(winners.cpu(), losers.cpu(), outputs[other].cpu(), int(outputs.unique().numel()), False, shared.finite)


def _ties_of_prefixes(check: Check, x: Tensor, extrema: Tensor, picks: Tensor, dim: int) -> Found:
    """A prefix is tied where an entry of it attains the extremum of those before: only such lines are compared in full."""
    finite = scan.touched(x, ()).finite
    rows, values, chosen = ((t.movedim(dim, -1) if t.dim() else t[None]) for t in (x, extrema, picks))
    hit = (rows[..., 1:] == values[..., :-1]).any(-1)
    if not hit.any():
        return Found(_NONE, _NONE, _NONE, 0, False, finite)
    rows, values, chosen = rows[hit], values[hit], chosen[hit]
    length = rows.shape[-1]
    if rows.numel() * length > _PREFIX_LIMIT:
        return Found(_NONE, _NONE, _NONE, 0, True, finite)
    where = torch.arange(x.numel(), device=x.device).reshape(x.shape).movedim(dim, -1)[hit]
    before = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
    equal = (rows[:, None, :] == values[:, :, None]) & before & counted(values, check.skip, check.floor)[:, :, None]
    tied = equal.sum(2) >= 2
    cells = torch.where(equal, where[:, None, :], -1)[tied]
    winners = where.gather(1, chosen)[tied]
    w, l_, o = _pairs(cells, winners, where[tied])  # the result has the operand's shape
    return Found(w.cpu(), l_.cpu(), o.cpu(), int(tied.sum()), False, finite)
