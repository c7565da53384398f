"""Whether what the backward passes of a step bring adds up in ``.grad``.

Mixtures are about the sum of all gradients that reached outputs. A pass whose gradients went elsewhere, as those of
``torch.autograd.grad``, or were thrown away before the next pass, is no part of what the optimizer sees.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor
from torch.autograd import Variable

from fxcheck import scan
from fxcheck.runtime.stages import book

_Grads = list[tuple[Tensor | None, int]]
_GRADIENT = attrgetter("grad")


@dataclass
class Late:
    """Gradients that came to forwards of a checked module when their step was over."""

    arrivals: int = 0


class Deposits:
    """Looks at the gradients that parameters hold before and after each backward pass.

    Args:
        parameters: the coordinates of the step's gradient.
        seconds: wall times by stage; ``other`` is added to.
        late: what arrives once they are closed is counted there.
    """

    def __init__(self, parameters: Sequence[Tensor], seconds: dict[str, float], late: Late) -> None:
        self.parameters = parameters
        self.late = late
        self.are_closed = False
        self.seconds = seconds  # and not the session, which would live until the garbage is collected
        self.task = -1
        """Autograd's number of the running or last backward pass."""
        self.passes = 0
        self.before: _Grads = []
        self.after: _Grads = []
        self.received: set[tuple[bool, ...]] = set()
        """Which parameters passes left something at."""
        self.was_changed = False
        """Somebody else wrote to gradients between two passes."""
        self.is_finite = True
        """No NaN or infinity arrived at an output, as where a loss scale overflows."""
        self.has_begun = False
        """A gradient arrived at an output."""

    def look_at(self, gradient: Tensor) -> None:
        """See whether what arrives at an output is finite."""
        started = time.perf_counter()
        self.late.arrivals += self.are_closed
        self.has_begun = True
        self.is_finite = self.is_finite and (is_batched(gradient) or scan.is_finite(gradient))
        self.spend(started)

    def arrived(self) -> None:
        """A backward pass, which is running, has reached an output."""
        task = torch._C._current_graph_task_id()
        if task == self.task:
            return
        self.before = self._grads()
        self.was_changed |= self.passes > 0 and any(_differ(self.before, self.after))
        self.task, self.passes = task, self.passes + 1
        Variable._execution_engine.queue_callback(self._ended)

    def _ended(self) -> None:
        started = time.perf_counter()
        self.after = self._grads()
        self.received.add(tuple(_differ(self.after, self.before)))
        self.spend(started)

    def spend(self, since: float) -> None:
        """Book the time that looking has taken."""
        book(self.seconds, "other", since)

    @property
    def add_up(self) -> bool:
        """Whether a single pass brought everything, or all passes left something at the same parameters."""
        if self.passes < 2:
            return True
        return not self.was_changed and len(self.received) == 1 and any(*self.received)

    def reached(self, parameters: Collection[Tensor]) -> bool:
        """Whether every pass left something at each of the parameters."""
        wanted = {id(p) for p in parameters}
        return all(got for left in self.received for got, p in zip(left, self.parameters, strict=True) if id(p) in wanted)

    @property
    def left_non_finite(self) -> bool:
        """Whether a parameter holds NaN or infinity after a backward pass, as 0 times the infinite slope of a logarithm."""
        held = [g for g in map(_GRADIENT, self.parameters) if g is not None] if self.has_begun else []
        return not scan.are_finite(g._values() if g.is_sparse else g for g in held)

    def _grads(self) -> _Grads:
        return [(g, 0 if g is None else g._version) for g in map(_GRADIENT, self.parameters)]


def is_batched(gradient: Tensor) -> bool:
    """Whether it stands for many at once, which ``torch.autograd.grad`` sends through the graph and leaves in no ``.grad``."""
    return torch._C._functorch.is_batchedtensor(gradient) or torch._C._functorch.is_legacy_batchedtensor(gradient)


def _differ(now: _Grads, then: _Grads) -> list[bool]:
    return [a is not b or m != n for (a, m), (b, n) in zip(now, then, strict=True)]
