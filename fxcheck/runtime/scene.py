"""One forward of a step on the second look: where it leaves a choice, and what depends on it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fxcheck.records.graph import Graph
from fxcheck.runtime.adjoints import adjoints_of, at_points, shares_of
from fxcheck.runtime.choices import Choices, Chooser, Key, Part, Watcher, chosen, mixed_parts, parts_of
from fxcheck.runtime.derivatives import Coordinates, Vector, roundoff_of
from fxcheck.runtime.observed import Observed
from fxcheck.runtime.operands import Entries, Operand, groups_of, pulled_back
from fxcheck.runtime.program import Replayed
from fxcheck.runtime.replay import Forward
from fxcheck.runtime.rounding import moved_by_rounding
from fxcheck.runtime.sites import NEITHER, Member, Site, reading, sites_of
from fxcheck.runtime.zeros import ENLARGED, are_zero

MANY = 64
"""Members of a forward's sites that are differentiated one by one."""
_FEW = 32
"""Touches of a layer that are differentiated one by one before zeros are looked for."""
_SEED = 20241207


class Spent(Exception):
    """The time for this step is used up."""


@dataclass
class Budget:
    """What a step's second look may cost."""

    until: float
    """Of ``time.perf_counter``."""
    backwards: int = 0
    started: float = 0.0

    def spend(self, passes_left: int = 0) -> None:
        """Count a backward pass; give up early when what is left to do cannot be done in time.

        Raises:
            Spent: no time is left.
        """
        now = time.perf_counter()
        if not self.backwards:
            self.started = now
        expected = (now - self.started) / self.backwards * passes_left if self.backwards > 3 else 0.0
        self.backwards += 1
        if now + expected > self.until:
            raise Spent


@dataclass(eq=False)
class Scene:
    """A forward, its sites, and the gradients of their members under the choices tried so far."""

    forward: Forward
    coordinates: Coordinates
    budget: Budget
    is_thorough: bool = False
    """Maxima are looked at even where AD's slope of every tied entry is 0, so that no touched entry has to keep AD's side."""
    sites: tuple[Site, ...] = ()
    problems: list[str] = field(default_factory=list)
    dropped: int = 0
    """Touches left out because their gradient is exactly zero, whatever is chosen upstream."""
    adjoints: dict[int, np.ndarray] = field(default_factory=dict)
    """By check: d loss / d output at its points, under AD's choices."""
    shares: dict[int, dict[Member, float]] = field(default_factory=dict)
    """By check of a max that splits: what AD sends from its points to each member."""
    vectors: dict[tuple[int, Member, Key], Vector] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        return self.forward.program.study.graph

    @property
    def replayed(self) -> Replayed:
        replayed = self.forward.program.replayed
        return replayed.thorough if self.is_thorough else replayed

    @property
    def holds_touches(self) -> bool:
        """Some touched entry keeps AD's side only because maxima behind it were not looked at."""
        touched = {(s.check.group, s.check.sides[w].kink) for s in self.sites if not s.is_max for w in range(len(s.check.sides))}
        return not touched.isdisjoint(self.replayed.rests)

    @property
    def parameters(self) -> list[Tensor]:
        return list(self.coordinates.trainable.values())

    # The first run -----------------------------------------------------------------------------

    def first_run(self, most_points: int) -> None:
        """Run it with AD's choices: find the sites, their adjoints, and the gradients where AD's choices are single.

        Args:
            most_points: points that are followed.

        Raises:
            NotReproduced: the forward does not come out as it was.
            Spent: no time is left.
        """
        watcher = Watcher.of(self.forward, self.replayed)
        with self.forward.again(watcher) as outputs:
            observed = watcher.collector.finish()
            self.problems += observed.problems
            self._without_zeros(observed, watcher)
            self.sites = sites_of(observed, self.replayed, self.graph)
            if not self._may_have_zeros():
                self._keep(outputs, watcher, most_points)
                return
        self._drop_zeros_under_all_choices()
        watcher = Watcher.of(self.forward, self.replayed)
        with self.forward.again(watcher) as outputs:
            self._keep(outputs, watcher, most_points)

    def _keep(self, outputs: Sequence[Tensor], watcher: Watcher, most_points: int) -> None:
        points = sum(len(s.points) for s in self.sites)
        if points > most_points:
            self.problems.append(f"{points:,} touched entries and tied maxima, more than the {most_points:,} that are followed")
            return
        if self.forward.reached:
            self._keep_adjoints(outputs, watcher)
        if sum(len(s.members) for s in self.sites) <= MANY:
            self._keep_gradients(watcher)

    @contextmanager
    def watched(self) -> Iterator[list[tuple[Site, Sequence[Operand]]]]:
        """Run it once more with AD's choices: the sites, with the operands that they read while the graph lives."""
        watcher = Watcher.of(self.forward, self.replayed)
        with self.forward.again(watcher):
            yield [(s, watcher.operands[s.check.index]) for s in self.sites]

    def _keep_adjoints(self, outputs: Sequence[Tensor], watcher: Watcher) -> None:
        results = {s.check.index: e for s in self.sites if (e := watcher.results.get(s.check.index)) is not None}
        whole = adjoints_of(results, outputs, self.forward.cotangents)
        for site in self.sites:
            check = site.check.index
            self.adjoints[check] = at_points(site, whole.get(check))
            if check in whole and check in watcher.values:
                self.shares[check] = shares_of(
                    site, watcher.values[check], watcher.results[check], whole[check], watcher.operands[check]
                )

    def _keep_gradients(self, watcher: Watcher) -> None:
        """Under AD's choices, where none upstream is a mixture."""
        mixed: set[int] = set()
        for site in self.sites:
            if not site.upstream & mixed:
                self.differentiate(site, watcher.operands[site.check.index], self.key(site, {}))
            if any(p.ad == NEITHER for p in site.points):
                mixed.add(site.check.index)

    # Zeros -------------------------------------------------------------------------------------

    def _without_zeros(self, observed: Observed, watcher: Watcher) -> None:
        """Leave out touches of gradient zero in layers that no other choice lies upstream of."""
        above = reading(watcher.collector.plan.checks, observed.active, self.graph)
        free = [i for i, t in enumerate(observed.touches) if t.entries.numel() > 1 and not above[t.at.check.index]]
        groups = [Entries(watcher.operands[observed.touches[i].at.check.index][0], observed.touches[i].entries) for i in free]
        for i, zero in zip(free, self._zeros(groups), strict=True):
            touches = observed.touches[i]
            observed.touches[i] = replace(touches, entries=touches.entries[~zero], which=touches.which[~zero])

    def _zeros(self, groups: Sequence[Entries]) -> list[Tensor]:
        live = [g for g in groups if g.operand.edge is not None]
        self.budget.spend()
        answers = iter(are_zero(live, self.parameters) if live else [])
        found = [next(answers) if g.operand.edge is not None else torch.ones(len(g.entries), dtype=torch.bool) for g in groups]
        self.dropped += sum(int(z.sum()) for z in found)
        return found

    def _may_have_zeros(self) -> bool:
        return any(s.upstream and not s.is_max and len(s.points) > _FEW for s in self.sites)

    def _drop_zeros_under_all_choices(self) -> None:
        """Leave out touches whose gradient is zero under random mixtures of all choices, hence under every choice."""
        random = np.random.default_rng(_SEED)
        chooser = Chooser(self.sites, lambda site, _: mixed_parts(site, random))
        with self.forward.again(chooser):
            sites = [s for s in self.sites if not s.is_max]
            groups = [
                Entries(chooser.operands[s.check.index][0], torch.tensor([p.output for p in s.points])) for s in sites
            ]  # fmt: skip
            zero = {s.check.index: z.tolist() for s, z in zip(sites, self._zeros(groups), strict=True)}
        kept = [
            replace(s, points=tuple(p for p, z in zip(s.points, zero[s.check.index], strict=True) if not z))
            if s.check.index in zero else s for s in self.sites
        ]  # fmt: skip
        self.sites = tuple(s for s in kept if s.points)

    # Gradients under choices -------------------------------------------------------------------

    def key(self, site: Site, choices: Choices) -> Key:
        """What the gradients of a site's members depend on: the choices upstream; AD's own where none are named."""
        above = (s for s in self.sites if s.check.index in site.upstream)
        return tuple((s.check.index, choices.get(s.check.index, s.ad_choices)) for s in above)

    def differentiate(self, site: Site, operands: Sequence[Operand], key: Key) -> None:
        """Gradients of the site's members that are not known under these choices; of a max, less those of references."""
        missing = [m for m in site.members if (site.check.index, m, key) not in self.vectors]
        if not missing:
            return
        sums = [site.sum_of(m) for m in missing]
        self.budget.spend()
        moved = moved_by_rounding(sums, operands, self.parameters)
        roundoff = max(roundoff_of(o.like.dtype) for o in operands)
        for i, (member, weights) in enumerate(zip(missing, sums, strict=True)):
            groups, held = groups_of(weights, operands)
            vector = Vector(np.zeros(self.coordinates.size), 0.0, 0.0, True)
            if groups:
                self.budget.spend(len(missing) - i)
                vector = self.coordinates.write(self._pulled_back(groups, held), roundoff, moved)
            self.vectors[site.check.index, member, key] = vector

    def _pulled_back(self, groups: Sequence[Entries], weights: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """The gradient of a weighted sum of entries, from larger seeds where it may be too small for its dtype."""
        found = pulled_back(groups, weights, self.parameters)
        if any(g is not None and bool(g.any()) for g in found):
            return found
        self.budget.spend()
        enlarged = pulled_back(groups, [ENLARGED * w for w in weights], self.parameters)
        return [None if g is None else g.double() / ENLARGED for g in enlarged]

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
                return self._run_along(direction)
            choices[site.check.index] = chosen(site, members, direction)
        return choices

    def _run_along(self, direction: np.ndarray) -> dict[int, tuple[int, ...]]:
        choices: dict[int, tuple[int, ...]] = {}

        def decide(site: Site, operands: list[Operand]) -> Mapping[int, Sequence[Part]]:
            self.differentiate(site, operands, self.key(site, choices))
            members = self.members_of(site, choices)
            assert members is not None
            choices[site.check.index] = chosen(site, members, direction)
            return parts_of(site, choices[site.check.index])

        with self.forward.again(Chooser(self.sites, decide)):
            return choices
