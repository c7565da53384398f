"""Whether what the backward passes of a step bring adds up in ``.grad``.

Mixtures are about the sum of all gradients that reached outputs. A pass whose gradients went elsewhere, as those of
``torch.autograd.grad``, or were thrown away before the next pass, is no part of what the optimizer sees.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import attrgetter
from typing import ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.autograd.graph import get_gradient_edge

from fxcheck import scan
from fxcheck.runtime.stages import book

ADDED = "backward() added to gradients of before the step, and its verdict is about what it added alone"
_MOST_ENTRIES = 1 << 16
_GRADIENT = attrgetter("grad")
_NONE = {type(None)}


class Ledger:
    """Counts the gradients that come to outputs of a model's forwards, of those that are in no open step too."""

    _kept: ClassVar[WeakValueDictionary[int, Ledger]] = WeakValueDictionary()
    """By the identity of a model, which lives as long as the checked modules that hold both."""

    def __init__(self) -> None:
        self.arrivals = 0

    @classmethod
    def of(cls, model: nn.Module) -> Ledger:
        """The model's, whichever checked module asks."""
        return cls._kept.setdefault(id(model), cls())

    def count(self, _: Tensor) -> None:
        """One has come."""
        self.arrivals += 1


class Deposits:
    """Looks at the gradients that parameters hold before and after each backward pass.

    Args:
        parameters: the coordinates of the step's gradient.
        seconds: wall times by stage; ``other`` is added to.
        ledger: the model's.
        are_right_everywhere: the gradients of every step are, and so are their sums.
    """

    def __init__(
        self, parameters: Sequence[Tensor], seconds: dict[str, float], ledger: Ledger, are_right_everywhere: bool
    ) -> None:
        self.parameters = parameters
        self.ledger = ledger
        self.seconds = seconds  # and not the session, which would live until the garbage is collected
        grads = () if are_right_everywhere else tuple(map(_GRADIENT, parameters))
        self.held = () if _NONE.issuperset(map(type, grads)) else grads
        """By each parameter when the first forward began; nothing where that is nothing, and once a pass adds to gradients."""
        self.add_to_older = False
        """A parameter still held that when the first such pass came, and it was not zero."""
        self.arrivals = 0
        """At outputs of the step's own forwards."""
        self.arrivals_elsewhere = ledger.arrivals
        """Those, and at other outputs of the model until the first forward began."""
        self.stand_alone = False
        """The forward was a step of its own, whose verdict is about its gradient alone."""
        self.task = -1
        """Autograd's number of the running or last backward pass."""
        self.passes = 0
        self.passes_ended = 0
        """Those that raised no error."""
        self.before: list[_Held] = []
        self.after: list[_Held] = []
        self.received: set[tuple[bool, ...]] = set()
        """Which parameters passes left something at."""
        self.was_changed = False
        """Somebody else wrote to gradients between two passes."""
        self.is_finite = True
        """No NaN or infinity arrived at an output, as where a loss scale overflows."""

    def look_at(self, gradient: Tensor) -> None:
        """See whether what arrives at an output is finite."""
        started = time.perf_counter()
        if self.held:
            self._begin()
        if self.stand_alone and self.ledger.arrivals != self.arrivals_elsewhere + self.arrivals:
            _warn_of_sums()
        self.arrivals += 1
        self.ledger.arrivals += 1
        self.is_finite = self.is_finite and (is_batched(gradient) or scan.is_finite(gradient))
        self.spend(started)

    def _begin(self) -> None:
        """What is held here and was held before is added to, unless it has been set to zero or the pass leaves nothing there."""
        pairs = zip(self.held, self.parameters, strict=True)
        still = [p for held, p in pairs if held is not None and held is p.grad]
        added = [p.grad for p in still if p.grad is not None and _is_added_to(p)]
        self.add_to_older = any(map(_is_nonzero, added))
        if added or not still:
            self.held = ()
        if self.add_to_older:
            _warn_of_sums()

    def arrived(self) -> None:
        """A backward pass, which is running, has reached an output."""
        task = torch._C._current_graph_task_id()
        if task == self.task:
            return
        self.before = self._grads()
        self.was_changed |= self.passes > 0 and self.before != self.after
        self.task, self.passes = task, self.passes + 1
        Variable._execution_engine.queue_callback(self._ended)

    def _ended(self) -> None:
        started = time.perf_counter()
        self.after = self._grads()
        self.received.add(tuple(a != b for a, b in zip(self.after, self.before, strict=True)))
        self.passes_ended += 1
        self.spend(started)

    def spend(self, since: float) -> None:
        """Book the time that looking has taken."""
        book(self.seconds, "other", since)

    @property
    def add_up(self) -> bool:
        """Whether a single pass brought everything, or all passes left something at the same parameters."""
        if self.passes_ended < self.passes:
            return False
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
        return self.arrivals > 0 and not scan.are_finite(g for g in map(_GRADIENT, self.parameters) if g is not None)

    def _grads(self) -> list[_Held]:
        grads = [*map(_GRADIENT, self.parameters)]
        return [_Held(g, 0 if g is None else g._version, n) for g, n in zip(grads, self._norms(grads), strict=True)]

    def _norms(self, grads: Sequence[Tensor | None]) -> list[float]:
        """Of the smallest gradients: what scales or sums all of them past autograd, as a GradScaler, counts no write."""
        norms = [0.0] * len(grads)
        for i in self._smallest:
            gradient = grads[i]
            if gradient is not None and not gradient.is_sparse:
                norms[i] = float(torch.linalg.vector_norm(gradient.detach()))
        return norms

    @cached_property
    def _smallest(self) -> list[int]:
        order = sorted(range(len(self.parameters)), key=lambda i: self.parameters[i].numel())
        sizes = accumulate(self.parameters[i].numel() for i in order)
        return [i for i, size in zip(order, sizes, strict=True) if size <= _MOST_ENTRIES] or order[:1]


@dataclass(eq=False)
class _Held:
    """What a parameter holds for a gradient, as far as it is compared."""

    gradient: Tensor | None
    version: int
    norm: float

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _Held)
        return self.gradient is other.gradient and (self.version, self.norm) == (other.version, other.norm)


def _is_added_to(parameter: Tensor) -> bool:
    """Whether the running backward pass leaves a gradient there."""
    try:
        return torch._C._will_engine_execute_node(get_gradient_edge(parameter).node)
    except RuntimeError:  # it is one of torch.autograd.grad (torch 2.9 to 2.14), which leaves none
        return False


def _warn_of_sums() -> None:
    warnings.warn(f"fxcheck: {ADDED}; have all forwards of an optimizer step in one step(), call zero_grad() before, and leave "
                  "out by wrt=... what no optimizer updates", stacklevel=2)  # fmt: skip


def _is_nonzero(gradient: Tensor) -> bool:
    return bool((gradient._values() if gradient.is_sparse else gradient).any())


def is_batched(gradient: Tensor) -> bool:
    """Whether it stands for many at once, which ``torch.autograd.grad`` sends through the graph and leaves in no ``.grad``."""
    return torch._C._functorch.is_batchedtensor(gradient) or torch._C._functorch.is_legacy_batchedtensor(gradient)

