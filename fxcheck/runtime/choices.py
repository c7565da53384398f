"""Runs of a forward under choices of sides and picks: AD's own, or those that a direction makes (theory 5).

Put where a layer's output was: at a touched entry slope * (y - y0) + z, at a tied maximum the entry that was chosen. Values
stay the same bit for bit; ``backward()`` then returns the gradient under these choices.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fxcheck.ops.evaluate import apply_overload
from fxcheck.records.checks import CheckKind
from fxcheck.records.graph import Graph, Ref
from fxcheck.runtime.collector import Collector
from fxcheck.runtime.derivatives import Coordinates, Vector, gradients_of, roundoff_of
from fxcheck.runtime.position_classes import PositionClasses
from fxcheck.runtime.replay import Forward
from fxcheck.runtime.sites import LEFT, NEITHER, RIGHT, Member, Point, Site, at_entries, operands_of, sites_of

Choices = Mapping[int, tuple[int, ...]]
"""By check: for each of its points a branch."""
Key = tuple[tuple[int, tuple[int, ...]], ...]
"""Choices that a gradient depends on."""


class Spent(Exception):
    """The time for this step is used up."""


@dataclass
class Budget:
    """What a step's second look may cost."""

    until: float
    """Of ``time.perf_counter``."""
    backwards: int = 0

    def spend(self, passes_left: int = 0) -> None:
        """Count a backward pass; give up early when what is left to do cannot be done in time.

        Raises:
            Spent: no time is left.
        """
        now = time.perf_counter()
        if self.backwards == 0:
            self._started = now
        expected = (now - self._started) / self.backwards * passes_left if self.backwards > 3 else 0.0
        self.backwards += 1
        if now + expected > self.until:
            raise Spent


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor that members index, as autograd knows it."""

    edge: GradientEdge | None
    """None for a constant."""
    shape: tuple[int, ...]
    like: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> Operand:
        edge = get_gradient_edge(tensor) if tensor.requires_grad else None
        return cls(edge, tuple(tensor.shape), tensor.detach().new_zeros(()))


@dataclass(eq=False)
class Scene:
    """One forward of the step: its sites, and the gradients of their members under the choices tried so far."""

    forward: Forward
    roots: Sequence[nn.Module]
    coordinates: Coordinates
    budget: Budget
    sites: tuple[Site, ...] = ()
    problems: list[str] = field(default_factory=list)
    adjoints: dict[int, np.ndarray] = field(default_factory=dict)
    """By check: d loss / d output at its points, under AD's choices."""
    shares: dict[int, dict[Member, float]] = field(default_factory=dict)
    """By check of a max that splits: what AD sends from its points to each member."""
    vectors: dict[tuple[int, Member, Key], Vector] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        return self.forward.program.study.graph

    def first_run(self) -> None:
        """Run it with AD's choices: find the sites, their adjoints, and the gradients where AD's choices are single.

        Raises:
            NotReproduced: the forward does not come out as it was.
            Spent: no time is left.
        """
        replayed = self.forward.program.replayed
        watcher = _Watcher(self._collector())
        with self.forward.again(self.roots, watcher) as outputs:
            observed = watcher.collector.finish()
            self.problems += [p for p in observed.problems if p not in self.problems]
            self.sites = sites_of(observed, replayed, self.graph)
            if self.forward.reached:
                self._keep_adjoints(outputs, watcher)
            self._keep_gradients(watcher)

    def _collector(self) -> Collector:
        program = self.forward.program
        leaves = torch.utils._pytree.tree_leaves(self.forward.call)
        inputs = {n: v for n, v in zip(program.input_names, leaves, strict=False) if isinstance(v, Tensor)}
        return Collector(program.replayed.plan, PositionClasses(program.study.facts, inputs), {}, {})

    def _keep_adjoints(self, outputs: Sequence[Tensor], watcher: _Watcher) -> None:
        """Adjoints of the points' outputs.

        A layer whose output carries no gradient to the loss has adjoint 0.
        """
        reached = [(o, c) for o, c in zip(outputs, self.forward.cotangents, strict=True) if c is not None]
        results = {s.check.index: watcher.results[s.check.index] for s in self.sites if s.check.index in watcher.results}
        wanted = list(dict.fromkeys(results.values()))
        found = torch.autograd.grad(
            [o for o, _ in reached], wanted, [c for _, c in reached], retain_graph=True, allow_unused=True
        ) if wanted else ()  # fmt: skip
        arrived = dict(zip(wanted, found, strict=True))
        for site in self.sites:
            edge = results.get(site.check.index)
            whole = arrived[edge] if edge is not None else None
            if edge is None or whole is None:
                self.adjoints[site.check.index] = np.zeros(len(site.points))
                continue
            outputs_ = torch.tensor([p.output for p in site.points])
            self.adjoints[site.check.index] = whole.reshape(-1).cpu()[outputs_].double().numpy()
            if any(p.ad == NEITHER for p in site.points) and site.is_max:
                self.shares[site.check.index] = _shares(
                    site, watcher.values[site.check.index], edge, whole, watcher.operands[site.check.index]
                )

    def _keep_gradients(self, watcher: _Watcher) -> None:
        mixed: set[int] = set()
        for site in self.sites:
            if not site.upstream & mixed:
                self.differentiate(site, watcher.operands[site.check.index], self.key(site, {}))
            if any(p.ad == NEITHER for p in site.points) and self._matters(site):
                mixed.add(site.check.index)

    def _matters(self, site: Site) -> bool:
        """Whether some point has branches of different gradients, as far as is known."""
        found = [self.vectors.get((site.check.index, m, self.key(site, {}))) for m in site.members]
        if any(v is None for v in found) or site.is_max:
            return True
        return any(not v.is_zero for v in found if v is not None)

    def key(self, site: Site, choices: Choices) -> Key:
        """What the gradients of a site's members depend on: the choices upstream; AD's own where none are named."""
        above = (s for s in self.sites if s.check.index in site.upstream)
        return tuple((s.check.index, choices.get(s.check.index, s.ad_choices)) for s in above)

    def differentiate(self, site: Site, operands: Sequence[Operand], key: Key) -> None:
        """Gradients of the site's members that are not known under these choices."""
        missing = [m for m in site.members if (site.check.index, m, key) not in self.vectors]
        wanted = list(self.coordinates.trainable.values())
        for k, operand in enumerate(operands):
            entries = [entry for o, entry in missing if o == k]
            if operand.edge is None:
                zero = Vector(np.zeros(self.coordinates.size), 0.0, True)
                self.vectors |= {(site.check.index, (k, e), key): zero for e in entries}
                continue
            roundoff = roundoff_of(operand.like.dtype)
            found = gradients_of(operand.edge, operand.shape, operand.like, entries, wanted)
            for i, entry in enumerate(entries):
                self.budget.spend(len(entries) - i)
                self.vectors[site.check.index, (k, entry), key] = self.coordinates.write(next(found), roundoff)

    def members_of(self, site: Site, choices: Choices) -> dict[Member, Vector] | None:
        """Gradients of a site's members under choices upstream; None when some are not known yet."""
        key = self.key(site, choices)
        found = {m: self.vectors.get((site.check.index, m, key)) for m in site.members}
        return None if any(v is None for v in found.values()) else found  # type: ignore[return-value]

    def choose_along(self, direction: np.ndarray) -> dict[int, tuple[int, ...]]:
        """The choices that a direction makes, layer after layer; runs the forward again where gradients are missing.

        Args:
            direction: (d,) in the coordinates.

        Raises:
            NotReproduced, Spent: as ``first_run``.
        """
        choices: dict[int, tuple[int, ...]] = {}
        for site in self.sites:
            members = self.members_of(site, choices)
            if members is None:
                follower = _Follower(self, direction)
                with self.forward.again(self.roots, follower):
                    return follower.choices
            choices[site.check.index] = chosen(site, members, direction)
        return choices


def chosen(site: Site, members: Mapping[Member, Vector], direction: np.ndarray) -> tuple[int, ...]:
    """The branch of each point that a small step along a direction leads to."""
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


def _shares(site: Site, result: Tensor, edge: GradientEdge, adjoint: Tensor, operands: Sequence[Operand]) -> dict[Member, float]:
    """What AD sends from the site's points to the entries of its operands, by a backward pass of that operation alone."""
    outputs = torch.tensor([p.output for p in site.points], device=adjoint.device)
    if len(operands) == 2:
        return _shares_of_two(site, result.reshape(-1)[outputs], adjoint.reshape(-1)[outputs])
    seed = torch.zeros_like(adjoint).reshape(-1)
    seed[outputs] = adjoint.reshape(-1)[outputs]
    assert operands[0].edge is not None
    (sent,) = torch.autograd.grad([edge], [operands[0].edge], [seed.reshape(adjoint.shape)], retain_graph=True)
    flat = sent.double().reshape(-1).cpu()
    return {(0, e): float(flat[e]) for _, e in site.members}


def _shares_of_two(site: Site, tied: Tensor, adjoint: Tensor) -> dict[Member, float]:
    """Of an operation on two tensors, entry by entry: it is run again on the tied values, which are those of its result."""
    check = site.check
    names = [n for n, v in check.arguments.items() if isinstance(v, Ref)]
    values = [tied.detach().clone().requires_grad_() for _ in names]
    again = apply_overload(check.operator, {**check.arguments, **dict(zip(names, values, strict=True))}, tied)
    sent = torch.autograd.grad([again], values, [adjoint])
    found: dict[Member, float] = {}
    for k, shares in enumerate(sent):
        for point, share in zip(site.points, shares.tolist(), strict=True):
            found[k, point.output] = share
    return found


@dataclass(eq=False)
class _Watcher:
    """Sees a run with AD's choices."""

    collector: Collector
    operands: dict[int, list[Operand]] = field(default_factory=dict)
    results: dict[int, GradientEdge] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    """Results of maxima that split."""

    def observe(self, check: int, values: list[Tensor]) -> None:
        self.operands[check] = [Operand.of(v) for v in operands_of(self.collector.plan.checks[check], values)]
        self.collector.observe(check, values)

    def choose(self, check: int, result: Tensor) -> Tensor:
        if result.requires_grad:
            self.results[check] = get_gradient_edge(result)
            if self.collector.plan.checks[check].kind is CheckKind.SPLIT:
                self.values[check] = result.detach()
        return result


class _Follower:
    """Makes, in a run, the choices that a direction leads to."""

    def __init__(self, scene: Scene, direction: np.ndarray) -> None:
        self.scene = scene
        self.direction = direction
        self.sites = {s.check.index: s for s in scene.sites}
        self.choices: dict[int, tuple[int, ...]] = {}
        self.held: dict[int, list[Tensor]] = {}

    def observe(self, check: int, values: list[Tensor]) -> None:
        site = self.sites.get(check)
        if site is None:
            return
        live = operands_of(site.check, values)
        key = self.scene.key(site, self.choices)
        self.scene.differentiate(site, [Operand.of(v) for v in live], key)
        members = self.scene.members_of(site, self.choices)
        assert members is not None
        self.choices[check] = chosen(site, members, self.direction)
        self.held[check] = [at_entries(live[o], [e])[0] for o, e in self._wanted(site)]

    def _changed(self, site: Site) -> list[int]:
        """Points at which something else than AD's choice stands."""
        picks = self.choices[site.check.index]
        return [i for i, p in enumerate(site.points) if not p.is_fixed and picks[i] != p.ad]

    def _wanted(self, site: Site) -> Iterable[Member]:
        """The member that each changed point reads."""
        picks = self.choices[site.check.index]
        for i in self._changed(site):
            yield site.points[i].members[picks[i] if site.is_max else 0]

    def choose(self, check: int, result: Tensor) -> Tensor:
        site = self.sites.get(check)
        changed = self._changed(site) if site is not None else []
        if site is None or not changed:
            return result
        entries = torch.tensor([site.points[i].output for i in changed], device=result.device)
        read = torch.stack(self.held.pop(check))
        if not site.is_max:
            slopes = [site.points[i].slopes[self.choices[check][i]] for i in changed]
            factor = torch.tensor(slopes, dtype=result.dtype, device=result.device)
            read = _WithSlope.apply(result.detach().reshape(-1)[entries], read, factor)
        return result.reshape(-1).index_put((entries,), read.to(result.dtype)).reshape(result.shape)


class _WithSlope(torch.autograd.Function):
    """Values that have a derivative of our choosing."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, operand: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, gradients[0] * ctx.saved_tensors[0], None
