"""Runs of a forward under choices of sides and picks: AD's own, or others (theory 5).

At a touched entry another slope is put in the place of AD's, at a tied maximum another tied entry. Values stay the same bit
for bit; ``backward()`` then returns the gradient under these choices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_leaves

from fxcheck.records.checks import CheckKind
from fxcheck.runtime.collector import Collector
from fxcheck.runtime.derivatives import Vector
from fxcheck.runtime.operands import Operand, at_entries, operands_of
from fxcheck.runtime.program import Replayed
from fxcheck.runtime.replay import Forward
from fxcheck.runtime.sites import LEFT, NEITHER, RIGHT, Member, Point, Site

Choices = Mapping[int, tuple[int, ...]]
"""By check: for each of its points a branch."""
Key = tuple[tuple[int, tuple[int, ...]], ...]
"""Choices that a gradient depends on."""
Part = tuple[Member, float]
"""An entry that an output reads, and the derivative of the output by it."""


def chosen(site: Site, members: Mapping[Member, Vector], direction: np.ndarray) -> tuple[int, ...]:
    """The branch of each point that a small step along a direction leads to.

    Args:
        site: the points.
        members: gradients of their members under the choices upstream.
        direction: (d,) in the same coordinates.
    """
    slopes = {m: site.sign * float(v.values @ direction) for m, v in members.items()}
    return tuple(_branch(site, p, members, slopes) for p in site.points)


def _branch(site: Site, point: Point, members: Mapping[Member, Vector], slopes: Mapping[Member, float]) -> int:
    if point.is_fixed:
        return point.ad
    if site.is_max:
        return max(range(len(point.members)), key=lambda b: slopes[point.members[b]])
    if members[point.members[0]].is_zero:  # either side, or AD's mixture, contributes nothing
        return LEFT if point.ad == NEITHER else point.ad
    return RIGHT if slopes[point.members[0]] > 0 else LEFT


@dataclass(eq=False)
class Watcher:
    """Sees a run with AD's choices."""

    collector: Collector
    operands: dict[int, list[Operand]] = field(default_factory=dict)
    results: dict[int, GradientEdge] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    """Outputs of maxima that split."""

    @classmethod
    def of(cls, forward: Forward, replayed: Replayed) -> Watcher:
        """For another run of a forward, with the checks of all layers."""
        classes = forward.program.classes_of(tree_leaves(forward.call), forward.written)
        return cls(Collector(replayed.plan, classes, {}, {}, {}, {}))

    def observe(self, check: int, values: list[Tensor]) -> None:
        self.operands[check] = [Operand.of(v) for v in operands_of(self.collector.plan.checks[check], values)]
        self.collector.observe(check, values)

    def choose(self, check: int, result: Tensor) -> Tensor:
        if result.requires_grad:
            self.results[check] = get_gradient_edge(result)
            if self.collector.plan.checks[check].kind is CheckKind.SPLIT:
                self.values[check] = result.detach()
        return result


class Chooser:
    """Puts other derivatives in the place of AD's while a forward runs.

    Args:
        sites: where there is a choice.
        decide: called when a site's operands have been computed; what each point's output is to read.
    """

    def __init__(
        self, sites: Sequence[Site], decide: Callable[[Site, list[Operand]], Mapping[int, Sequence[Part]]]
    ) -> None:
        self.sites = {s.check.index: s for s in sites}
        self.decide = decide
        self.operands: dict[int, list[Operand]] = {}
        self.held: dict[int, tuple[list[int], list[int], list[float], Tensor]] = {}
        """By check: outputs to be changed; for each part the place of its output, its derivative, and the entry read."""

    def observe(self, check: int, values: list[Tensor]) -> None:
        site = self.sites.get(check)
        if site is None:
            return
        live = operands_of(site.check, values)
        self.operands[check] = [Operand.of(v) for v in live]
        changed = self.decide(site, self.operands[check])
        if changed:
            into = [place for place, parts in enumerate(changed.values()) for _ in parts]
            parts = [part for held in changed.values() for part in held]
            read = _read(live, [member for member, _ in parts])
            self.held[check] = ([site.points[i].output for i in changed], into, [w for _, w in parts], read)

    def choose(self, check: int, result: Tensor) -> Tensor:
        if check not in self.held:
            return result
        outputs, into, weights, read = self.held.pop(check)
        places = torch.tensor(outputs, device=result.device)
        factors = torch.tensor(weights, dtype=read.dtype, device=result.device)
        values = result.detach().reshape(-1)[places]
        put = _WithDerivative.apply(values, read, factors, torch.tensor(into, device=result.device))
        return result.reshape(-1).index_put((places,), put).reshape(result.shape)


def _read(operands: Sequence[Tensor], members: Sequence[Member]) -> Tensor:
    """The members' values, differentiably, in order."""
    found, order = [], []
    for k, operand in enumerate(operands):
        mine = [i for i, (o, _) in enumerate(members) if o == k]
        if mine:
            found.append(at_entries(operand, [members[i][1] for i in mine]))
            order += mine
    return torch.cat(found)[torch.tensor(np.argsort(order), device=found[0].device)]


def parts_of(site: Site, choices: Sequence[int]) -> dict[int, list[Part]]:
    """What each point reads at which something else than AD's choice stands."""
    found: dict[int, list[Part]] = {}
    for i, (point, choice) in enumerate(zip(site.points, choices, strict=True)):
        if not point.is_fixed and choice != point.ad:
            found[i] = [(point.members[choice], 1.0)] if site.is_max else [(point.members[0], point.slopes[choice])]
    return found


def mixed_parts(site: Site, random: np.random.Generator) -> dict[int, list[Part]]:
    """Random mixtures of all branches at every point.

    A gradient is affine in the mixture at each point, so that one which is zero for random mixtures is zero for all choices.
    """
    found: dict[int, list[Part]] = {}
    for i, point in enumerate(site.points):
        if point.is_fixed:
            continue
        if site.is_max:
            found[i] = [(m, w) for m, w in zip(point.members, random.dirichlet(np.ones(len(point.members))), strict=True)]
        else:
            share = random.uniform(0.25, 0.75)
            found[i] = [(point.members[0], share * point.slopes[0] + (1 - share) * point.slopes[1])]
    return found


class _WithDerivative(torch.autograd.Function):
    """Values that have derivatives of our choosing by the entries that they are said to read."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, read: Tensor, factors: Tensor, into: Tensor) -> Tensor:
        ctx.save_for_backward(factors, into)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        factors, into = ctx.saved_tensors
        return None, gradients[0][into].to(factors.dtype) * factors, None, None
