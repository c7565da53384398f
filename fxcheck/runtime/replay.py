"""A forward of a step, remembered so that it can be run again when the step has ended.

It is run again where a step needs more than its first look: with the checks of all layers, and with other sides and picks
than AD's. Nothing of it is kept but references: its inputs, the random numbers' state and the gradient that reached its
output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fxcheck.capture.export import left_as_it_was
from fxcheck.ops.observe import Collector, collecting
from fxcheck.runtime.program import Program

_DEVICES = ("cpu", "cuda")


class NotReproduced(Exception):
    """The forward cannot be run again as it was; the message says why."""


@dataclass(eq=False)
class Forward:
    """What it takes to run a forward again."""

    program: Program
    call: tuple[tuple[Any, ...], dict[str, Any]]
    inputs: tuple[tuple[Tensor, int], ...]
    """Input tensors with their versions."""
    rng: Tensor
    autocast: tuple[tuple[str, torch.dtype], ...]
    """Devices with autocast on, and its dtype."""
    checksums: list[int] = field(default_factory=list)
    """Of the outputs."""
    cotangents: list[Tensor | None] = field(default_factory=list)
    """For each output tensor, the gradient of the step's loss by it; None where none arrived."""
    arrivals: int = 0
    """The most gradients that arrived at one output."""

    @classmethod
    def about_to_run(cls, program: Program, call: tuple[tuple[Any, ...], dict[str, Any]]) -> Forward:
        """Remember a forward before it runs."""
        inputs = tuple((v, v._version) for v in tree_leaves(call) if isinstance(v, Tensor))
        autocast = tuple((d, torch.get_autocast_dtype(d)) for d in _DEVICES if torch.is_autocast_enabled(d))
        return cls(program, call, inputs, torch.get_rng_state(), autocast)

    def has_run(self, output: Any) -> None:
        """Remember what it returned, and listen for the gradient that ``backward()`` brings to it."""
        for leaf in _tensors(output):
            self.checksums.append(checksum(leaf))
            self.cotangents.append(None)
            if leaf.requires_grad:
                leaf.register_hook(self._listener(len(self.cotangents) - 1))

    def _listener(self, index: int) -> Any:
        counts = [0]

        def listen(gradient: Tensor) -> None:
            counts[0] += 1
            self.arrivals = max(self.arrivals, counts[0])
            before = self.cotangents[index]
            self.cotangents[index] = gradient.detach() if before is None else before + gradient.detach()

        return listen

    @property
    def reached(self) -> bool:
        """Whether a gradient came back to it."""
        return any(c is not None for c in self.cotangents)

    @contextmanager
    def again(self, roots: Sequence[nn.Module], collector: Collector) -> Iterator[list[Tensor]]:
        """Run it with the checks of all layers; the graph and the modules' state last as long as the block.

        Args:
            roots: the modules whose buffers and random numbers are restored afterwards.
            collector: receives the observations.

        Yields:
            The output tensors.

        Raises:
            NotReproduced: an input was overwritten, or the outputs differ from those of the first run.
        """
        if any(v._version != version for v, version in self.inputs):
            raise NotReproduced("an input of the forward was overwritten before the step ended")
        with ExitStack() as stack:
            stack.enter_context(left_as_it_was(nn.ModuleList(roots)))
            torch.set_rng_state(self.rng)
            for device, dtype in self.autocast:
                stack.enter_context(torch.autocast(device, dtype))
            stack.enter_context(torch.enable_grad())
            with collecting(collector):
                outputs = _tensors(self.program.replayed.module(*self.call[0], **self.call[1]))
            if [checksum(v) for v in outputs] != self.checksums:
                raise NotReproduced("the forward does not give the same bits when it is run again")
            yield outputs


def _tensors(output: Any) -> list[Tensor]:
    return [v for v in tree_leaves(output) if isinstance(v, Tensor)]


def checksum(tensor: Tensor) -> int:
    """Tells tensors of one shape apart by their bits; no protection against an adversary."""
    return int(torch.hash_tensor(tensor.detach()).view(torch.int64)) if tensor.numel() else 0
