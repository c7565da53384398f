"""One layer's picks as a mixture, where T8 finds no direction for AD's own (docs/theory.md 5.9).

Rows of T8 are derivatives by fresh parameters, so they do not depend on other layers' choices. If one layer alone has no
direction, and picks c of that layer have one each, T8 says that backward's gradient with c, D(c), is a Bouligand subgradient;
if moreover the D(c) average to AD's gradient, that is a Clarke subgradient. For the first layer of a model the rows are total
gradients, so the average can be read off them:

    D(c) - D_AD = sum over maxima k that c picks otherwise of (d loss / d output of k) * (gradient of c's pick - AD's pick).

Where nothing else in the step lies on a kink, the D(c) of all choices that the rows admit are all Bouligand subgradients. If
AD's gradient is no mixture of them it is no Clarke subgradient (5.11).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from torch import Tensor

from fxcheck.errors import FxcheckError
from fxcheck.lp.balance import balance
from fxcheck.lp.cells import cells
from fxcheck.lp.exact import rounded_difference
from fxcheck.lp.feasibility import decide
from fxcheck.lp.verify import KNOWN, is_direction
from fxcheck.records.certificate import Block as CertificateBlock
from fxcheck.records.checks import Check
from fxcheck.records.system import LinearSystem, Outcome
from fxcheck.runtime.adjoints import adjoints_of
from fxcheck.runtime.blocks import Block
from fxcheck.runtime.choices import Watcher
from fxcheck.runtime.decide import Decided
from fxcheck.runtime.derivatives import GRANTED
from fxcheck.runtime.gradients import sign_of_maximum
from fxcheck.runtime.joint import Joint
from fxcheck.runtime.program import Program
from fxcheck.runtime.replay import Forward, NotReproduced
from fxcheck.runtime.rounding import FACTORS
from fxcheck.runtime.rows import Row, RowKind
from fxcheck.runtime.session import Session
from fxcheck.runtime.sites import reading

_MOST_PARTS = 32
_MOST_TRIES = 96
_MOST_ROWS = 500
_MOST_CELLS = 64
_MOST_NORMALS = 1_000
_ADJOINT_ERROR = 2.0**-10
"""Relative; what d loss / d output may be off beside what is measured."""
_SEED = 20241128


class _LeftOpen(Exception):
    """The rule does not apply, or nothing was found."""


def mix_one_layer(session: Session, until: float) -> Joint | None:
    """The parts of AD's gradient and their weights, where one layer's picks alone keep T8 from certifying a step.

    Args:
        session: a step that has ended, with the decision of T8.
        until: of ``time.perf_counter``; no part is looked for after it.

    Returns:
        With a ``direction`` for every part and a ``mixture`` for each open block of the layer; or refuted, with a ``direction``
        from AD's gradient towards all others; None where this does not settle the step.

    Source: T8 of the paper, for the picks of each part; theory 5, convexity; docs/theory.md 5.11.
    """
    started = time.perf_counter()
    try:
        program, open_blocks = _open_layer(session)
        seen = [_look_at(f, {r.check for b in open_blocks for r in b.rows}) for f in session.runs]
        searches = [_Search(b, _factors(b, program, [s.adjoints for s in seen]), until) for b in open_blocks]
        found = [s.run() for s in searches]
        if all(found):
            blocks = [c for certificate in found for c in certificate]
            return Joint(certified=True, theorem="T8", subdifferential="clarke", is_mixture=True, reason="", blocks=blocks)
        again = [s.again for s in seen if s.again is not None]
        if len(again) == len(seen):
            left = (s for s, mixed in zip(searches, found, strict=True) if not mixed)
            delivered = (s for s in left if _was_delivered(s.block, session, program))
            return next(filter(None, (_refutation(s, program, again) for s in delivered)), None)
    except (_LeftOpen, NotReproduced, FxcheckError, RuntimeError):  # the joint condition says what is left open, and why
        pass
    finally:
        session.spend("decomposition", started)
    return None


def _was_delivered(block: Block, session: Session, program: Program) -> bool:
    """Whether each backward pass brought gradients to the block's parameters, and not to others only."""
    return session.deposits is not None and session.deposits.reached([program.trainable[name] for name, _ in block.slots])


def _refutation(search: _Search, program: Program, again: Sequence[Mapping[int, Tensor]]) -> Joint | None:
    """The block's gradients on all sides of its ties, where AD's lies beyond a hyperplane that none of them reaches.

    Args:
        search: of a block for which no mixture was found.
        program: that ran.
        again: for each forward the adjoints that a multiple of the loss gave.
    """
    other = _factors(search.block, program, again)
    found = search.separated(8 * float(np.abs(search.factors - other).max()) + _ADJOINT_ERROR * np.abs(search.factors))
    if found is None:
        return None
    count, separation = found
    layer = search.block.rows[0].layer
    text = (f"AD's gradient is no Clarke subgradient: only ties of {layer} are on a kink, and the gradients on all {count} sides "
            "of them lie beyond a hyperplane from AD's")  # fmt: skip
    return Joint(refuted=True, reason="infeasible", blocks=[separation], text=text)


# Whether the rule applies ------------------------------------------------------------------------


def _open_layer(session: Session) -> tuple[Program, list[Block]]:
    """The blocks without a direction, all of one layer that no other choice comes before or depends on."""
    program, decided = session.program, session.decided or Decided()
    blocks = [b for b, d in decided.blocks if d.outcome is not Outcome.FEASIBLE]
    open_layers = {b.group for b in blocks}
    if program is None or session.problems or session.open_questions or decided.dependent or len(open_layers) != 1:
        raise _LeftOpen
    if not all(f.reached and f.arrivals == 1 and f.deposits.add_up for f in session.runs):
        raise _LeftOpen
    if any(f.is_differentiated_twice or f.was_overwritten for f in session.runs):
        raise _LeftOpen
    (layer,) = open_layers
    if not _ties_alone(layer, session, program) or not all(_is_total(b) for b in blocks):
        raise _LeftOpen
    if not all(_is_first(c, program) for c in program.plan.checks if c.group == layer):
        raise _LeftOpen
    return program, blocks


def _ties_alone(layer: int, session: Session, program: Program) -> bool:
    """Whether no other layer has ties, and nothing that is touched or tied lies behind a max with ties.

    What entries that tie elsewhere are proven equal by may rest on the picks of this layer, and so does the row of a touched
    entry of a ReLU behind its max.
    """
    counts = session.counts
    active = [c for c in program.plan.checks if (found := counts.get(c.index)) is not None and (found.tied or found.touched)]
    tied = {c.index for c in active if counts[c.index].tied}
    above = reading(active, [c.index for c in active], program.study.graph)
    return all(c.group == layer for c in active if c.index in tied) and not any(tied & before for before in above.values())


def _is_first(check: Check, program: Program) -> bool:
    """Whether all trainable parameters that the layer depends on are fresh, so that its rows are total gradients."""
    graph = program.study.graph
    fresh = next(g.fresh for g in program.plan.groups if g.index == check.group)
    names = dict(zip(graph.trainable, program.study.facts.parameters, strict=True))
    return all(names[n] in fresh for n in graph.behind((check.operand, *check.reads)) if n in names)


def _is_total(block: Block) -> bool:
    """Whether its rows show all their coordinates, up to one positive factor for all of them, and little rounding."""
    factors = {(r.forward, r.factor) if r.factor else None for r in block.rows}
    known = len(block.rows) <= _MOST_ROWS and bool((block.system.row_error <= KNOWN).all())
    return known and len(factors) == 1 and not any(r.left_out for r in block.rows)


# What AD sends back ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a forward shows when it runs again with the checks of all layers."""

    adjoints: Mapping[int, Tensor]
    """By check: d loss / d output of the layer."""
    again: Mapping[int, Tensor] | None
    """The same from a multiple of the loss, which rounds otherwise; None where more than maxima of the layer is on a kink."""


def _look_at(forward: Forward, checks: set[int]) -> _Seen:
    """Run it again, and read d loss / d output of the layers that the checks observe where the program has a place for it."""
    program, replayed = forward.program, forward.program.replayed
    watcher = Watcher.of(forward, replayed)
    at = {(c.kind, c.node): c.index for c in replayed.plan.checks if c.index in replayed.chosen}
    with forward.again(watcher) as outputs:
        observed = watcher.collector.finish()
        named = {i: at.get((c.kind, c.node), -1) for i, c in enumerate(program.plan.checks) if i in checks}
        edges = {i: watcher.results[k] for i, k in named.items() if k in watcher.results}

        def adjoints(factor: float) -> dict[int, Tensor]:
            cotangents = [c if c is None else factor * c for c in forward.cotangents]
            return {i: t / factor for i, t in adjoints_of(edges, outputs, cotangents).items()}

        others = observed.touches or observed.splits or observed.problems or observed.active - set(named.values())
        return _Seen(adjoints(1.0), None if others else adjoints(FACTORS[0]))


def _factors(block: Block, program: Program, adjoints: Sequence[Mapping[int, Tensor]]) -> np.ndarray:
    """For each row (K,): what the row is multiplied by in D(c) - D_AD where c picks its loser; NaN for a touch."""
    found = np.full(len(block.rows), np.nan)
    for k, row in enumerate(block.rows):
        if row.kind is RowKind.TIE:
            whole = adjoints[row.forward].get(row.check)
            if whole is None:
                raise _LeftOpen
            check = program.plan.checks[row.check]
            found[k] = -sign_of_maximum(check.operator, check.arguments) * float(whole.reshape(-1)[row.output])
    return found


# Parts -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Part:
    """Picks that a direction resolves."""

    picks: tuple[int, ...]
    """By max: the row whose loser is picked; -1 for AD's pick."""
    system: LinearSystem
    direction: np.ndarray
    coefficients: np.ndarray
    """(K,), of the rows in D(c) - D_AD."""


class _Search:
    def __init__(self, block: Block, factors: np.ndarray, until: float) -> None:
        self.block = block
        self.rows = block.system.rows
        self.errors = block.system.row_error * np.linalg.norm(self.rows, axis=1)
        self.terms = LinearSystem(self.rows, block.system.row_error * [_granted(r) for r in block.rows])
        self.factors = factors
        self.until = until
        self.touches = [k for k, r in enumerate(block.rows) if r.kind is RowKind.TOUCH]
        self.maxima = list(_by_maximum(block.rows).values())
        self.random = np.random.default_rng(_SEED)
        self.parts: dict[tuple[int, ...], _Part] = {}

    def run(self) -> list[CertificateBlock]:
        """The parts that take part, and the weights; nothing where no mixture was found."""
        for _ in range(_MOST_TRIES):
            if len(self.parts) >= _MOST_PARTS or time.perf_counter() > self.until:
                break
            direction = self._direction()
            if direction is None or not self._add(direction):
                continue
            parts = list(self.parts.values())
            coefficients = np.stack([p.coefficients for p in parts])
            weights = balance(coefficients, self.terms).weights
            if weights is not None:
                return self._certificate([(p, w) for p, w in zip(parts, weights, strict=True) if w])
        return []

    def _direction(self) -> np.ndarray | None:
        """One that satisfies as many rows as may be: of rows that exclude each other a random tie gives way."""
        kept = list(range(len(self.rows)))
        while kept:
            system = LinearSystem(self.rows[kept], self.block.system.row_error[kept])
            decision = decide([system])[0]
            if decision.outcome is Outcome.FEASIBLE:
                return decision.direction
            weights = decision.multipliers or (1,) * len(kept)
            ties = [k for k, y in zip(kept, weights, strict=True) if y and k not in self.touches]
            if not ties:
                return None
            kept.remove(ties[self.random.integers(len(ties))])
        return None

    def _add(self, direction: np.ndarray) -> bool:
        """Whether the direction resolves the picks that it leads to, and they are new."""
        part = self._part(direction)
        if part is None or part.picks in self.parts:
            return False
        self.parts[part.picks] = part
        return True

    def _part(self, direction: np.ndarray) -> _Part | None:
        """The picks that a direction leads to, where it resolves them."""
        slopes = self.rows @ direction
        picks = tuple(min(m, key=lambda k: slopes[k]) for m in self.maxima)
        picks = tuple(k if slopes[k] < 0 else -1 for k in picks)
        system = self._resolved(picks)
        if system is None or not is_direction(system.rows, system.row_error, direction):
            return None
        coefficients = np.zeros(len(self.rows))
        taken = [k for k in picks if k >= 0]
        coefficients[taken] = self.factors[taken]
        return _Part(picks, system, direction, coefficients)

    def separated(self, factor_errors: np.ndarray) -> tuple[int, CertificateBlock] | None:
        """How many sides the ties have, and a direction from AD's gradient on which the gradients of all of them lie; None where
        that is not known, or there is none.

        Rows are exact, and so are the differences of entries that they are gradients of: no path around the parameters comes
        to a choice that no ray leads to.

        Args:
            factor_errors: (K,), how far the factors may be off.
        """
        normals = self._normals()
        around = None if normals is None else cells(normals, _MOST_CELLS)
        parts = [self._part(x) for x in around or ()]
        found = {p.picks: p for p in parts if p is not None}
        if not parts or None in parts:
            return None
        coefficients = np.stack([p.coefficients for p in found.values()])
        differences = coefficients @ self.rows
        errors = ((coefficients != 0) * factor_errors) @ np.linalg.norm(self.rows, axis=1)
        lengths = np.linalg.norm(differences, axis=1)
        if (lengths <= errors).any():
            return None
        system = LinearSystem(differences, errors / lengths)
        decision = decide([system])[0]
        if decision.outcome is not Outcome.FEASIBLE:
            return None
        name, block = f"{self.block.rows[0].layer}, gradients around less AD's", self.block
        return len(found), CertificateBlock(
            name, block.group, "direction", block.labels, system.rows, system.row_error, decision.direction
        )  # fmt: skip

    def _normals(self) -> np.ndarray | None:
        """Of the hyperplanes on which two entries of one max are equal; None where they are not known exactly."""
        if self.touches or self.block.system.row_error.any():
            return None
        found: list[np.ndarray] = []
        for members in self.maxima:
            rows = [self.rows[k] for k in members]
            pairs = list(combinations(rows, 2))
            if any(rounded_difference(a, b).any() for a, b in pairs) or len(found) > _MOST_NORMALS:
                return None
            found += [n for n in (*rows, *(a - b for a, b in pairs)) if n.any()]
        return np.stack(found) if found else None

    def _resolved(self, picks: Sequence[int]) -> LinearSystem | None:
        """The rows that a direction must satisfy for these picks; None where one may be nothing but rounding."""
        rows, errors = [self.rows[k] for k in self.touches], [self.errors[k] for k in self.touches]
        for members, pick in zip(self.maxima, picks, strict=True):
            best, doubt = (self.rows[pick], self.errors[pick]) if pick >= 0 else (np.zeros_like(self.rows[0]), 0.0)
            for k in members:
                if k != pick and not np.array_equal(self.rows[k], best):
                    rows.append(self.rows[k] - best)
                    errors.append((self.errors[k] + doubt) * (1 + 2.0**-50) + 2.0**-52 * float(np.linalg.norm(rows[-1])))
            if pick >= 0:
                rows.append(-best)
                errors.append(doubt)
        matrix = np.stack(rows)
        lengths = np.linalg.norm(matrix, axis=1)
        if (lengths <= errors).any():
            return None
        return LinearSystem(matrix, np.array(errors) / lengths)

    def _certificate(self, parts: Sequence[tuple[_Part, float]]) -> list[CertificateBlock]:
        layer, group = self.block.rows[0].layer, self.block.group
        labels = self.block.labels
        found = [
            CertificateBlock(f"{layer}, part {i + 1} of {len(parts)}", group, "direction", labels, p.system.rows,
                             p.system.row_error, p.direction)
            for i, (p, _) in enumerate(parts)
        ]  # fmt: skip
        found.append(CertificateBlock(
            f"{layer}, weights of the parts", group, "mixture", labels, self.rows, self.terms.row_error,
            weights=np.array([w for _, w in parts]), coefficients=np.stack([p.coefficients for p, _ in parts]),
        ))  # fmt: skip
        return found


def _granted(row: Row) -> float:
    """Of the row's error, the share that a sum which has to vanish may miss it by: a small term is not taken for rounding."""
    return 1.0 - (1.0 - GRANTED) * row.assumed / row.error if row.error else 1.0


def _by_maximum(rows: Sequence[Row]) -> dict[tuple[int, int, int], list[int]]:
    """The tie rows of each max: their places."""
    found: dict[tuple[int, int, int], list[int]] = {}
    for k, row in enumerate(rows):
        if row.kind is RowKind.TIE:
            found.setdefault((row.forward, row.check, row.output), []).append(k)
    return found
