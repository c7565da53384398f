"""The operator that check nodes call: it hands tensors to whoever is collecting, and changes none of them.

It says that it mutates a small buffer, so that dead-code elimination and re-export keep it (it does not: that would cost
more than some checks), and it is implicit for autograd, so that the collector sees the tensors with their gradient
functions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor


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


def choose(result: Tensor, check: int) -> Tensor:
    """The output of a layer, or what whoever is collecting puts in its place."""
    collector: Collector | None = getattr(_ACTIVE, "collector", None)
    return result if collector is None else collector.choose(check, result)


@contextmanager
def collecting(collector: Collector) -> Iterator[None]:
    """Send the observations of this thread to a collector."""
    before = getattr(_ACTIVE, "collector", None)
    _ACTIVE.collector = collector
    try:
        yield
    finally:
        _ACTIVE.collector = before
