"""A forward of a step, remembered so that it can be run again when the step has ended.

It is run again where a step needs more than its first look: with the checks of all layers, and with other sides and picks
than AD's. Nothing of it is kept but references: its inputs, the random numbers' state and the gradients that reached its
outputs.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from fxcheck.ops.observe import Collector, collecting
from fxcheck.runtime.deposits import Deposits, is_batched
from fxcheck.runtime.program import Program
from fxcheck.runtime.signature import checksum, writes

if TYPE_CHECKING:
    from fxcheck.runtime.many_rows import Subspace


class NotReproduced(Exception):
    """The forward cannot be run again as it was; the message says why."""


@dataclass(eq=False)
class Forward:
    """What it takes to run a forward again."""

    program: Program
    call: tuple[tuple[Any, ...], dict[str, Any]]
    rng: Tensor | None
    """State of the random numbers before it ran; None where it draws none."""
    autocast: tuple[tuple[str, torch.dtype], ...]
    """Devices with autocast on, and its dtype."""
    written: tuple[int, ...]
    """How often each input tensor had been written to in place before it ran."""
    deposits: Deposits
    """Of all forwards of the step."""
    inputs: tuple[int, ...] | None = None
    """Checksums of the input tensors, once they may be needed."""
    outputs: list[int] = field(default_factory=list)
    """Checksums of the output tensors; 0 where those of the inputs are not kept, without which it is not run again."""
    weights: tuple[int, ...] | None = None
    """Checksums of parameters and buffers, once something was seen that may need another look."""
    cotangents: list[Tensor | None] = field(default_factory=list)
    """For each output tensor, the gradient of the step's loss by it, other outputs held fixed; None where none arrived, and where
    the inputs are not kept."""
    arrivals: int = 0
    """The most gradients that arrived at one output."""
    is_differentiated_twice: bool = False
    was_overwritten: bool = False
    """A gradient came to what an output is a view of past the output, which had been written to in place since."""
    first_look: Subspace | None = None
    """What the joint condition says of its rows, from the graph of the first run; None where that was not asked for."""

    def has_run(self, leaves: Sequence[Tensor]) -> None:
        """Remember the tensors that it returned, and listen for the gradients that ``backward()`` brings to them."""
        for leaf in leaves:
            self.outputs.append(0 if self.inputs is None else checksum(leaf))
            self.cotangents.append(None)
            if leaf.requires_grad:
                listen(leaf, self._listener(len(self.cotangents) - 1), self._is_passed_by)

    def _look_at(self, gradient: Tensor) -> None:
        self.deposits.look_at(gradient)
        # Backward passes that can be differentiated themselves run with gradients switched on.
        self.is_differentiated_twice |= gradient.requires_grad or torch.is_grad_enabled()

    def _is_passed_by(self, gradient: Tensor) -> None:
        self._look_at(gradient)
        self.was_overwritten = True

    def _listener(self, index: int) -> Callable[[Tensor], None]:
        if self.inputs is None:  # it is not run again, so nobody asks for more
            return self._look_at
        counts = [0]

        def remember(gradient: Tensor) -> None:
            self._look_at(gradient)
            started = time.perf_counter()
            counts[0] += 1
            self.deposits.arrived()
            self.arrivals = max(self.arrivals, counts[0])
            if not is_batched(gradient):
                self.cotangents[index] = gradient.detach().clone()  # its memory may become that of a .grad
            self.deposits.spend(started)

        return remember

    def keep_inputs(self) -> tuple[int, ...]:
        """Remember the inputs' values, right after the forward has run; their checksums."""
        if self.inputs is None:
            self.inputs = tuple(checksum(v) for v in tensors_of(self.call))
        return self.inputs

    def keep_weights(self) -> None:
        """Remember the values of parameters and buffers."""
        self.weights = self._weights()

    def _weights(self) -> tuple[int, ...]:
        return tuple(checksum(t) for t in self.program.kept)

    @property
    def reached(self) -> bool:
        """Whether a gradient came back to it."""
        return any(c is not None for c in self.cotangents)

    @contextmanager
    def again(self, collector: Collector) -> Iterator[list[Tensor]]:
        """Run it with the checks of all layers, on copies of the buffers.

        Args:
            collector: receives the observations.

        Yields:
            The output tensors.

        Raises:
            NotReproduced: inputs or parameters were overwritten, or the outputs differ from those of the first run.
        """
        self.refuse_changes()
        before = torch.get_rng_state()
        try:
            if self.rng is not None:
                torch.set_rng_state(self.rng)
            outputs = self._run(collector)
        finally:
            torch.set_rng_state(before)
        if [checksum(v) for v in outputs] != self.outputs:
            raise NotReproduced("the forward does not give the same bits when it is run again")
        yield outputs

    def refuse_changes(self) -> None:
        """See to it that what it computed is what it would compute now.

        Raises:
            NotReproduced: inputs or parameters were overwritten, or it is not known.
        """
        carried = self.program.plan.carried
        if carried:
            raise NotReproduced(f"the forward reads and writes buffer {carried[0]}, so it cannot be run again")
        if self.inputs is None:
            raise NotReproduced("it is the first step with several forwards, so the inputs of the first ones were not remembered")
        if writes(tree_leaves(self.call)) != self.written or tuple(checksum(v) for v in tensors_of(self.call)) != self.inputs:
            raise NotReproduced("an input of the forward was overwritten before the step ended")
        if self.weights is not None and self.weights != self._weights():
            raise NotReproduced("parameters or buffers were overwritten before the step ended")

    def _run(self, collector: Collector) -> list[Tensor]:
        module = self.program.replayed.module
        with ExitStack() as stack:
            for device, dtype in self.autocast:
                stack.enter_context(torch.autocast(device, dtype))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(collecting(collector))
            return tensors_of(functional_call(module, _copied_buffers(module), self.call[0], self.call[1]))


def _copied_buffers(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of a module's buffers by name; a buffer under two names has one copy."""
    copies: dict[int, Tensor] = {}
    return {n: copies.setdefault(id(b), b.detach().clone()) for n, b in module.named_buffers(remove_duplicate=False)}


def listen(output: Tensor, listener: Callable[[Tensor], None], passed_by: Callable[[Tensor], None]) -> None:
    """Hear of the gradients that reach an output.

    Args:
        output: of a forward, no leaf.
        listener: is called with a gradient of the output.
        passed_by: is called with one of what the output is a view of, if the view is written to in place before: autograd then
            has another history for it, without whatever listened to the view.
    """
    _call(output, listener)
    base, written = output._base, output._version
    if base is not None and base.grad_fn is not None:
        watched = output.detach()  # its writes are counted with the output's

        def look(gradient: Tensor) -> None:
            if watched._version != written:
                passed_by(gradient)

        _call(base, look)


def _call(output: Tensor, listener: Callable[[Tensor], None]) -> None:
    """As ``register_hook``, which spends most of its time on a handle by which a hook can be removed.

    None comes where another output of the same operator gets a gradient, and is not passed on.
    """

    def hear(gradient: Tensor | None) -> None:
        if gradient is not None:
            listener(gradient)

    node = output.grad_fn
    if node is None or output._backward_hooks is not None:
        output.register_hook(hear)
    else:
        output._backward_hooks = OrderedDict({-1: hear})
        node._register_hook_dict(output)


def heard_apart(output: Any, each: bool) -> tuple[Any, list[Tensor]]:
    """The output, and its tensors, which can be listened to.

    Args:
        output: in which a parameter that is returned becomes a view of it: a hook on the parameter itself would stay there.
        each: of several tensors each becomes a view of its own, so that what reaches one through another, as the features
            behind the scores, is told apart from what reaches it directly.
    """
    leaves = tensors_of(output)
    heard = [t for t in leaves if t.requires_grad]
    if not each or len(heard) < 2:
        heard = [t for t in heard if t.is_leaf]
    if heard:
        names = set(map(id, heard))
        output = tree_map(lambda v: v.view_as(v) if id(v) in names else v, output)
        leaves = tensors_of(output)
    return output, leaves


def tensors_of(output: Any) -> list[Tensor]:
    if type(output) is Tensor:  # as most are: a walk through a tree costs more
        return [output]
    return [v for v in tree_leaves(output) if isinstance(v, Tensor)]
