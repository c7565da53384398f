"""What the integrations share: a step of a checked module lasts from its first forward to the optimizer's step.

Trainers call hooks at fixed moments and leave no room for a ``with`` block. A pool opens a step at the first training
forward and closes it when it is told that an optimizer is about to step, so micro-batches and several forwards count
together, however many there are, and evaluation in between counts for nothing (theory 4.12).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import Any

from torch import nn

from fxcheck.errors import UsageError
from fxcheck.records.step import StepResult
from fxcheck.runtime.checked import CheckedModule
from fxcheck.runtime.ranks import world_size


class _Abandoned(Exception):
    """Thrown into a step whose gradient no optimizer will use."""


class StepPool:
    """The open steps of every checked module below a root, until an optimizer steps.

    Args:
        root: the module that is trained, or one around it.
        optimizers: those that will step.
        prefix: of the names of scalars.
        gather: in a process group, pool the rows of all ranks before a step is decided; every rank must step.

    Raises:
        UsageError: nothing below ``root`` was instrumented, checked modules share parameters, or an optimizer updates
            other parameters than the checks are about.
    """

    def __init__(
        self, root: nn.Module, optimizers: Iterable[Any], *, prefix: str = "fxcheck/", gather: bool = True
    ) -> None:
        self._modules = _checked_below(root)
        self._prefix, self._gather = prefix, gather
        self._open: dict[str, tuple[ExitStack, StepResult]] = {}
        self._left: set[str] = set()
        """Of those, the ones whose gradient an optimizer left aside: either its own steps next, or nobody uses it."""
        optimizers = list(optimizers)
        _refuse_shared(self._modules)
        for name, checked in self._modules.items():
            _refuse_other_parameters(name, checked, optimizers)
        for checked in self._modules.values():
            checked.open_steps_with(self._begin)

    def _begin(self, checked: CheckedModule) -> None:
        name = next(n for n, c in self._modules.items() if c is checked)
        if name in self._left:
            self._abandon(name)
        if checked.has_open_step:  # this one, or one that the user's code has opened
            return
        stack = ExitStack()
        self._open[name] = (stack, stack.enter_context(checked.step()))

    def close(self, optimizer: Any) -> dict[str, float]:
        """Decide the steps of the modules that an optimizer is about to update.

        Those of the others stay, as one backward pass may be for several optimizers, until the module runs again.

        Args:
            optimizer: the one that is about to step; its gradients are complete.

        Returns:
            Flat scalars of the steps; empty where no checked module ran.

        Raises:
            StepError: ``on_uncertified="raise"`` and a step is uncertified, or parameters changed during the step.
        """
        updated = _ids(optimizer)
        found: dict[str, float] = {}
        try:
            for name, checked in self._modules.items():
                if updated & {id(p) for p in checked.updated}:
                    found.update(self._decide(name, checked))
        finally:
            self._left.update(self._open)
        return found

    def _decide(self, name: str, checked: CheckedModule) -> dict[str, float]:
        pools_ranks = self._gather and world_size() > 1
        if name not in self._open and not pools_ranks:
            return {}
        if name not in self._open:
            self._begin(checked)  # the other ranks wait in gather()
        if pools_ranks:
            checked.gather()
        stack, step = self._open.pop(name)
        self._left.discard(name)
        stack.close()
        alone = len(self._modules) == 1 or not name
        return step.scalars(self._prefix if alone else f"{self._prefix}{name}/")

    def discard(self) -> None:
        """Forget all open steps: no verdict, no policy."""
        for name in [*self._open]:
            self._abandon(name)

    def _abandon(self, name: str) -> None:
        stack, _ = self._open.pop(name)
        self._left.discard(name)
        with suppress(_Abandoned):
            stack.__exit__(_Abandoned, _Abandoned(), None)

    def detach(self) -> None:
        """Give the modules back: from now on a forward outside ``step()`` is a step of its own again."""
        self.discard()
        for checked in self._modules.values():
            checked.open_steps_with(None)


def _checked_below(root: nn.Module) -> dict[str, CheckedModule]:
    found = {name: m for name, m in root.named_modules() if isinstance(m, CheckedModule)}
    if not found:
        raise UsageError(
            f"no checked module was found in {type(root).__name__}",
            hint="replace the network by fxcheck.instrument(network, example_inputs) before training",
        )
    return found


def _refuse_shared(modules: dict[str, CheckedModule]) -> None:
    """Steps are decided module by module, which is sound only where each has parameters of its own."""
    owner: dict[int, str] = {}
    for name, checked in modules.items():
        for p in checked.updated:
            if owner.setdefault(id(p), name) != name:
                raise UsageError(f"checked modules {owner[id(p)]!r} and {name!r} share parameters",
                                 hint="instrument one module that contains both")  # fmt: skip


def _refuse_other_parameters(name: str, checked: CheckedModule, optimizers: list[Any]) -> None:
    """A verdict over some parameters says nothing about fewer of them, nor about more (theory 4.4)."""
    about = {id(p) for p in checked.updated}
    trainable = about | {id(p) for p in checked.parameters() if p.requires_grad}
    steps = [o for o in (_ids(optimizer) & trainable for optimizer in optimizers) if o]
    where = f"checked module {name!r}" if name else "the checked module"
    if not steps:
        raise UsageError(f"no optimizer updates the parameters of {where}",
                         hint="a trainer that replaces parameters (FSDP, DeepSpeed) cannot be checked")  # fmt: skip
    for step in steps:
        if step != about:
            raise UsageError(
                f"an optimizer updates {len(step)} parameter tensors of {where}, its checks are about {len(about)}",
                hint="fxcheck.instrument(..., wrt=optimizer), or requires_grad_(False) on what is not trained",
            )


def _ids(optimizer: Any) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
