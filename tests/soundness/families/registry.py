"""All families by name: each makes many distinct plans from seeds."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.soundness.families.draft import MOST_PARAMETERS
from tests.soundness.families.operations import parameters_of
from tests.soundness.families.plan import Net, Plan, main_output, short

Make = Callable[[random.Random], Plan]
_TRIES = 50


@dataclass(frozen=True)
class Family:
    """A seeded source of networks."""

    name: str
    make: Make
    mutes: bool = True
    """Now and then some parameters are frozen or left out of the step, or a step has two forwards."""
    refused: bool = False
    """fxcheck is expected to refuse every member: its trap must never be certified."""

    def plan(self, seed: int) -> Plan:
        """The network of a seed; always the same one."""
        rng = random.Random(f"{self.name} {seed}")
        for _ in range(_TRIES):
            found = self.make(rng)
            if found.steps and (finished := self._finished(found, rng)) is not None:
                return finished
        raise AssertionError(f"family {self.name} makes no network for seed {seed}")

    def _finished(self, plan: Plan, rng: random.Random) -> Plan | None:
        if self.mutes:
            plan = _varied(plan, rng)
        net = Net(plan)
        trained = net.trained()
        if not trained or parameters_of(net) > MOST_PARAMETERS:
            return None
        return plan if main_output(net(*(x.to(net.dtype) for x in _zeros(plan)))).requires_grad else None


def _zeros(plan: Plan) -> list:
    import torch

    return [torch.zeros(s, dtype=torch.float64) for s in plan.shapes]


def _varied(plan: Plan, rng: random.Random) -> Plan:
    names = [short(n) for n, _ in Net(plan).named_parameters()]
    kind = rng.random()
    if kind < 0.12:
        return replace(plan, frozen=(*plan.frozen, *(n for n in names if rng.random() < 0.4)))
    if kind < 0.2:
        return replace(plan, left_out=(*plan.left_out, *(n for n in names if rng.random() < 0.4)))
    if kind < 0.35:
        return replace(plan, forwards=2)
    return replace(plan, exact_ties=True) if kind < 0.4 else plan


FAMILIES: dict[str, Family] = {}


def family(name: str, *, mutes: bool = True, refused: bool = False) -> Callable[[Make], Make]:
    """Register a maker under a name."""

    def register(make: Make) -> Make:
        assert name not in FAMILIES, name
        FAMILIES[name] = Family(name, make, mutes, refused)
        return make

    return register
