"""What check nodes call: it hands tensors to whoever is collecting, and changes none of them.

In a step it is a plain function, since the way through PyTorch's dispatcher costs more than the check of a small layer. Where
nobody is collecting, as when a rewritten module is exported again, it calls the operator ``fxcheck::observe``. That says that
it mutates a small buffer, so that dead-code elimination and export keep it (it does not: that would cost more than some
checks), and it is implicit for autograd, so that a collector sees the tensors with their gradient functions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, fx


class Collector(Protocol):
    """Receives what check nodes observe."""

    def observe(self, check: int, values: list[Tensor]) -> None: ...

    def choose(self, check: int, result: Tensor) -> Tensor: ...


_LIBRARY = torch.library.Library("fxcheck", "DEF")
_LIBRARY.define("observe(Tensor(a!) seen, int check, Tensor[] values) -> ()")
_ACTIVE = threading.local()


def _observe(seen: Tensor, check: int, values: list[Tensor]) -> None:
    collector: Collector | None = getattr(_ACTIVE, "collector", None)
    if collector is not None:
        collector.observe(check, values)


_LIBRARY.impl("observe", _observe, "CompositeImplicitAutograd")


@fx.has_side_effect
def observe(seen: Tensor, check: int, values: list[Tensor]) -> None:
    """A check node's target: ``values`` for the collector of this thread, or the operator's where there is none."""
    observer(seen)(check, values)


def observer(seen: Tensor) -> Callable[[int, list[Tensor]], None]:
    """``observe`` for whoever is collecting now, who is asked for once."""
    collector: Collector | None = getattr(_ACTIVE, "collector", None)
    return partial(torch.ops.fxcheck.observe, seen) if collector is None else collector.observe


def choose(result: Tensor, check: int) -> Tensor:
    """The output of a layer, or what whoever is collecting puts in its place."""
    collector: Collector | None = getattr(_ACTIVE, "collector", None)
    return result if collector is None else collector.choose(check, result)


class collecting:
    """Send the observations of this thread to a collector, as a context; a generator would cost a step some microseconds."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector

    def __enter__(self) -> None:
        self.before = getattr(_ACTIVE, "collector", None)
        _ACTIVE.collector = self.collector

    def __exit__(self, *error: object) -> None:
        _ACTIVE.collector = self.before
