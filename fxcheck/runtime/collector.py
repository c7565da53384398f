"""Collects what the check nodes of one forward see.

Maxima are looked at when the forward has ended: one after another, they find the processor's caches as the last one left
them, and other devices are waited for once. That needs their operands and results to be as they were, which the first
forward of a program shows: its maxima are looked at where they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from fxcheck import scan
from fxcheck.errors import NonFiniteError
from fxcheck.ops.singular_points import reaches_singular_point
from fxcheck.records.checks import Check, CheckKind, CheckPlan
from fxcheck.runtime.observed import Observation, Observed, Ties, Touches
from fxcheck.runtime.position_classes import Picks, PositionClasses
from fxcheck.runtime.signature import writes
from fxcheck.runtime.split_ties import shared_extrema, ties_that_split
from fxcheck.runtime.ties_found import Found, Pools, entries_that_win, ties_along, ties_in_windows


@dataclass
class Collector:
    """Sees the tensors of one forward; on devices other than the CPU it looks at them when the forward has ended."""

    plan: CheckPlan
    classes: PositionClasses
    pools: Pools
    """From the forwards before."""
    glances: dict[int, scan.Glance]
    """By check, how its pre-activation may be seen to be off all kinks; learned in the first forward."""
    can_wait: dict[int, bool]
    """By check, whether what it observes is as it was at the end of a forward; learned in the first one."""
    seconds: dict[str, float]
    observed: Observed = field(default_factory=Observed)
    waiting: list[tuple[Check, Tensor | None, Callable[[], None]]] = field(default_factory=list)
    """(check, whether anything was hit, how to look closer)."""
    watched: list[tuple[int, list[Tensor], tuple[int, ...]]] = field(default_factory=list)
    """Checks that have looked at once, what they observed, and how often that had been written to."""
    hits: list[tuple[Check, set[int], set[int]]] = field(default_factory=list)
    """Guards, the entries at which their comparison was met, and those where it should be though nothing happens there."""
    spent: float = 0.0
    """Seconds, until they are booked as ``observation``."""

    def observe(self, check: int, values: list[Tensor]) -> None:
        """Called by the check node of that index."""
        started = time.perf_counter()
        glance = self.glances.get(check)
        entries = 0 if glance is None else glance(values[0])
        if entries:
            seen = self.observed.entries
            seen[check] = seen.get(check, 0) + entries
        else:
            plan = self.plan.checks[check]
            _LOOK[plan.kind](self, plan, values)
        self.spent += time.perf_counter() - started

    def choose(self, check: int, result: Tensor) -> Tensor:
        """AD's own choices stand."""
        return result

    def finish(self) -> Observed:
        """Look at what was put off, with one synchronisation for all layers, and settle the guards.

        Raises:
            NonFiniteError: an observed tensor holds NaN or infinity.
        """
        started = time.perf_counter()
        if self.waiting:
            self._settle_waiting()
        if self.hits:
            self._settle_guards()
        for index, tensors, written in self.watched:
            self.can_wait[index] = self.can_wait.get(index, True) and self._writes(tensors) == written
        self.watched.clear()
        self.observed.problems += self.plan.unobserved
        if len(self.observed.entries) + len(self.plan.unobserved) < len(self.plan.checks):
            self.observed.problems += [
                f"the check of {c.layer} did not run" for c in self.plan.checks
                if c.kind is not CheckKind.UNOBSERVED and c.index not in self.observed.entries
            ]  # fmt: skip
        self.spent += time.perf_counter() - started
        self.seconds["observation"] = self.seconds.get("observation", 0.0) + self.spent
        return self.observed

    def _settle_waiting(self) -> None:
        waiting, self.waiting = self.waiting, []
        flags = [flag for _, flag, _ in waiting if flag is not None]
        answers = iter(torch.stack(flags).tolist() if flags else [])
        for _, flag, look in waiting:
            if flag is None or next(answers):
                look()

    def _look_later(self, check: Check, observed: list[Tensor], look: Callable[[], None]) -> None:
        """Look at the end of the forward, or at once where what is observed may be overwritten before."""
        can_wait, written = self.can_wait.get(check.index), self._writes(observed)
        if can_wait is None:
            self.watched.append((check.index, observed, written))
        if not can_wait:
            look()
            return

        def look_again() -> None:
            if self._writes(observed) == written:
                look()
            else:
                self.can_wait[check.index] = False
                self.observed.problems.append(f"{check.layer} was overwritten before its ties were looked at")

        self.waiting.append((check, None, look_again))

    def _writes(self, observed: list[Tensor]) -> tuple[int, ...]:
        """How often what a check observes, and the inputs that tell equal functions, were written in place."""
        return *writes(observed), *self.classes.writes()

    @staticmethod
    def _is_deferred(value: Tensor) -> bool:
        """Whether looking would wait for another device."""
        return not value.is_cpu

    # Kinks -------------------------------------------------------------------------------------

    def _touch(self, check: Check, live: list[Tensor]) -> None:
        y, kinks = live[0], check.kinks
        self.observed.looked_at(check.index, y.numel())
        if not y.requires_grad:
            return
        if y.is_cpu:
            glanced = check.index in self.glances
            if not glanced:
                glance = scan.glance(y, kinks)
                if glance is not None:
                    self.glances[check.index] = glance
            found = scan.touched(y, kinks, glanced)
            _refuse_non_finite(found.finite, check)
            if found.indices.numel():
                self._record_touches(check, live, found.indices, found.which)
            return
        y = y.detach()
        masks = torch.stack([y == torch.tensor(k, dtype=y.dtype, device=y.device) for k in kinks])
        observation = self._observation(check, live, 1)
        total = y.sum(dtype=torch.float64 if y.dtype == torch.float64 else torch.float32)

        def look() -> None:
            _refuse_non_finite(bool(total.isfinite()), check)
            which, entries = masks.reshape(len(kinks), -1).nonzero(as_tuple=True)
            if entries.numel():
                self._record(observation, entries.cpu(), which.cpu())

        self.waiting.append((check, masks.any() | ~total.isfinite(), look))

    def _bound(self, check: Check, live: list[Tensor]) -> None:
        """A clamp by constant tensors: its kink is the bound's entry. Its sides come with the lower bound first."""
        values = _detached(live)
        y, bounds = values[0], values[1 : 1 + len(check.reads)]
        self.observed.looked_at(check.index, y.numel())
        if not live[0].requires_grad:
            return
        _refuse_non_finite(scan.touched(y, ()).finite, check)
        masks = [(y == b).reshape(-1) for b in bounds]
        if len(bounds) == 2:
            empty = (bounds[0] >= bounds[1]).expand_as(y).reshape(-1)
            if bool(((masks[0] | masks[1]) & empty).any()):
                self.observed.problems.append(f"{check.layer} is clamped between bounds that are equal or the wrong way round")
                return
        for which, mask in enumerate(masks):
            entries = mask.nonzero().reshape(-1).cpu()
            if entries.numel():
                self._record_touches(check, live, entries, torch.full_like(entries, which), skip=1 + len(check.reads))

    def _guard(self, check: Check, live: list[Tensor]) -> None:
        inside = scan.touched(live[0], check.kinks).indices
        root = live[1] if len(live) > 1 and live[1].shape == live[0].shape else None
        cancelled = scan.touched(root, check.harmless).indices.tolist() if root is not None and check.harmless else []
        if root is not None and check.plateaus and inside.numel():
            inside = inside[~_lie_between(check.plateaus, root.detach().reshape(-1)[inside.to(root.device)]).cpu()]
        self.observed.looked_at(check.index, 0)
        self.hits.append((check, set(inside.tolist()), set(cancelled)))

    def _record_touches(
        self, check: Check, live: list[Tensor], entries: Tensor, which: Tensor, skip: int = 1
    ) -> None:
        self._record(self._observation(check, live, skip), entries.cpu(), which.cpu())

    def _record(self, observation: Observation, entries: Tensor, which: Tensor) -> None:
        self.observed.count(observation.check.index).touched += entries.numel()
        self.observed.touches.append(Touches(observation, entries, which))

    def _settle_guards(self) -> None:
        """Inside a chain each comparison must have been met exactly where the pre-activation equals the kink that it makes."""
        for guard, inside, cancelled in self.hits:
            touches = [t for t in self.observed.touches if t.at.check.unit == guard.unit]
            met = {e for t in touches for e, k in zip(t.entries.tolist(), t.which.tolist(), strict=True) if k in guard.meets}
            if met | cancelled != inside:
                self.observed.problems.append(f"rounding moved a kink inside {guard.layer}")

    # Maxima ------------------------------------------------------------------------------------

    def _windows(self, check: Check, live: list[Tensor]) -> None:
        x, maxima, picks = live[:3]
        inner = self.classes.picks_behind(check.operand)
        self.classes.picks[check.node] = Picks(check.operand, picks)

        def find() -> Found:
            if check.feeders:
                self._drop_losers(check, x.detach(), maxima.detach())
            # Where ties are decided jointly, the picks before it may be chosen anew.
            known = None if self.plan.joint and self.observed.ties else inner
            return ties_in_windows(check, x, maxima, picks, self.classes, self.pools, self.seconds, known)

        self._ties(check, live, find)

    def _drop_losers(self, check: Check, x: Tensor, maxima: Tensor) -> None:
        """Touched entries that strictly lose every max, which is their only use, need no row (theory 4.11)."""
        for i, touches in enumerate(self.observed.touches):
            if touches.at.check.unit in check.feeders and touches.at.shape == tuple(x.shape):
                winning = entries_that_win(check, x, maxima, touches.entries)
                self.observed.touches[i] = replace(
                    touches, entries=touches.entries[winning], which=touches.which[winning]
                )  # fmt: skip

    def _dimension(self, check: Check, live: list[Tensor]) -> None:
        values = _detached(live)
        self._ties(check, live, lambda: ties_along(check, *values[:3]))

    def _ties(self, check: Check, live: list[Tensor], find: Callable[[], Found]) -> None:
        self.observed.looked_at(check.index, live[1].numel())
        if not live[0].requires_grad:
            return
        observation = self._observation(check, live, 3) if self._is_deferred(live[0]) else None

        def look() -> None:
            self._record_ties(check, find(), lambda: observation or self._observation(check, live, 3))

        self._look_later(check, live[:3], look)

    def _record_ties(self, check: Check, found: Found, observation: Callable[[], Observation]) -> None:
        _refuse_non_finite(found.finite, check)
        if found.tied:
            self.observed.count(check.index).tied += found.tied
        if found.truncated:
            self.observed.problems.append(f"{check.layer} has more ties than are followed")
        if found.winners.numel():
            self.observed.ties.append(Ties(observation(), found.winners, found.losers, found.outputs))

    def _split(self, check: Check, live: list[Tensor]) -> None:
        values = _detached(live)
        operands, extrema = values[:-1], values[-1]
        self.observed.looked_at(check.index, extrema.numel())
        if not live[-1].requires_grad:
            return

        def look() -> None:
            shared = shared_extrema(check, operands, extrema)
            _refuse_non_finite(shared.finite, check)
            if shared.truncated:
                self.observed.problems.append(f"{check.layer} has more ties than are followed")
                return
            found = ties_that_split(check, shared, self.classes)
            if found.outputs.numel():
                self.observed.count(check.index).tied += int(found.outputs.unique().numel())
                self.observed.splits.append(found)

        self._look_later(check, live, look)

    # Singular points ---------------------------------------------------------------------------

    def _singular(self, check: Check, live: list[Tensor]) -> None:
        values = _detached(live)
        self.observed.looked_at(check.index, values[-1].numel())
        operands = dict(zip(check.reads, values, strict=False))
        answer = reaches_singular_point(check.operator, check.arguments, operands, values[-1])
        if answer is None:
            self.observed.problems.append(f"no rule says where {check.layer} is not differentiable")
        elif answer:
            self.observed.count(check.index).touched += 1
            self.observed.problems.append(f"{check.layer} is at its singular point")

    # -------------------------------------------------------------------------------------------

    def _observation(self, check: Check, live: list[Tensor], skip: int) -> Observation:
        rest = [v.detach() for v in live[skip:]]
        pairs = tuple(zip(rest[::2], rest[1::2], strict=True))
        observed = live[0]
        return Observation(check, get_gradient_edge(observed), tuple(observed.shape), observed.detach().new_zeros(()), pairs)


def _lie_between(intervals: Iterable[tuple[float, float]], y: Tensor) -> Tensor:
    """Which numbers lie inside of one of the open intervals, whose ends are rounded to their dtype."""
    ends = (torch.tensor(interval, dtype=y.dtype, device=y.device) for interval in intervals)
    return torch.stack([(low < y) & (y < high) for low, high in ends]).any(0)


def _detached(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach() for t in tensors]


def _refuse_non_finite(finite: bool, check: Check) -> None:
    if not finite:
        raise NonFiniteError(
            f"the forward computed NaN or infinity at {check.layer}; non-finite numbers have no subgradient",
            hint="look at the inputs and the learning rate; fxcheck gives no verdict on this step",
        )


_LOOK: dict[CheckKind, Callable[[Collector, Check, list[Tensor]], None]] = {
    CheckKind.TOUCH: Collector._touch,
    CheckKind.BOUND: Collector._bound,
    CheckKind.GUARD: Collector._guard,
    CheckKind.WINDOWS: Collector._windows,
    CheckKind.DIMENSION: Collector._dimension,
    CheckKind.SPLIT: Collector._split,
    CheckKind.SINGULAR: Collector._singular,
}
