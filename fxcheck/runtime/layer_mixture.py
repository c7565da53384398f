"""One layer's picks as a mixture, where T8 finds no direction for AD's own (docs/theory.md 5.9).

Rows of T8 are derivatives by fresh parameters, so they do not depend on other layers' choices. If one layer alone has no
direction, and picks c of that layer have one each, T8 says that backward's gradient with c, D(c), is a Bouligand subgradient;
if moreover the D(c) average to AD's gradient, that is a Clarke subgradient. For the first layer of a model the rows are total
gradients, so the average can be read off them:

    D(c) - D_AD = sum over maxima k that c picks otherwise of (d loss / d output of k) * (gradient of c's pick - AD's pick).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fxcheck.lp.balance import balance
from fxcheck.lp.feasibility import decide
from fxcheck.lp.verify import KNOWN, is_direction
from fxcheck.records.certificate import Block as CertificateBlock
from fxcheck.records.checks import Check
from fxcheck.records.system import LinearSystem, Outcome
from fxcheck.runtime.adjoints import adjoints_of
from fxcheck.runtime.blocks import Block
from fxcheck.runtime.decide import Decided
from fxcheck.runtime.derivatives import GRANTED
from fxcheck.runtime.gradients import sign_of_maximum
from fxcheck.runtime.joint import Joint
from fxcheck.runtime.program import Program
from fxcheck.runtime.replay import Forward, NotReproduced
from fxcheck.runtime.rows import Row, RowKind
from fxcheck.runtime.session import Session
from fxcheck.runtime.sites import reading

_MOST_PARTS = 32
_MOST_TRIES = 96
_MOST_ROWS = 500
_SEED = 20241128


class _LeftOpen(Exception):
    """The rule does not apply, or nothing was found."""


def mix_one_layer(session: Session, until: float) -> Joint | None:
    """The parts of AD's gradient and their weights, where one layer's picks alone keep T8 from certifying a step.

    Args:
        session: a step that has ended, with the decision of T8.
        until: of ``time.perf_counter``; no part is looked for after it.

    Returns:
        With a ``direction`` for every part and a ``mixture`` for each open block of the layer; None where this does not
        settle the step.

    Source: T8 of the paper, for the picks of each part; theory 5, convexity.
    """
    started = time.perf_counter()
    try:
        program, open_blocks = _open_layer(session)
        adjoints = [_adjoints(f, {r.check for b in open_blocks for r in b.rows}) for f in session.runs]
        found = [c for b in open_blocks for c in _Search(b, _factors(b, program, adjoints), until).run()]
    except (_LeftOpen, NotReproduced, RuntimeError):  # the joint condition says what is left open, and why
        return None
    finally:
        session.spend("decomposition", started)
    return Joint(certified=True, theorem="T8", subdifferential="clarke", is_mixture=True, reason="", blocks=found)


# Whether the rule applies ------------------------------------------------------------------------


def _open_layer(session: Session) -> tuple[Program, list[Block]]:
    """The blocks without a direction, all of one layer that no other choice comes before or depends on."""
    program, decided = session.program, session.decided or Decided()
    blocks = [b for b, d in decided.blocks if d.outcome is not Outcome.FEASIBLE]
    open_layers = {b.group for b in blocks}
    if program is None or session.problems or session.open_questions or decided.dependent or len(open_layers) != 1:
        raise _LeftOpen
    if not all(f.reached and f.arrivals == 1 and not f.is_differentiated_twice and f.deposits.add_up for f in session.runs):
        raise _LeftOpen
    (layer,) = open_layers
    if not _ties_alone(layer, session, program) or not all(_is_total(b) for b in blocks):
        raise _LeftOpen
    if not all(_is_first(c, program) for c in program.plan.checks if c.group == layer):
        raise _LeftOpen
    return program, blocks


def _ties_alone(layer: int, session: Session, program: Program) -> bool:
    """Whether no other layer has ties, nor one max of this layer behind another.

    What entries that tie elsewhere are proven equal by may rest on the picks of this layer.
    """
    checks = [c for c in program.plan.checks if session.counts.get(c.index) and session.counts[c.index].tied]
    above = reading(checks, [c.index for c in checks], program.study.graph)
    return all(c.group == layer for c in checks) and not any(above.values())


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


@dataclass(eq=False)
class _Results:
    """Outputs of layers as autograd knows them, while a forward runs."""

    edges: dict[int, GradientEdge] = field(default_factory=dict)

    def observe(self, check: int, values: list[Tensor]) -> None:
        """Nothing is looked at."""

    def choose(self, check: int, result: Tensor) -> Tensor:
        if result.requires_grad:
            self.edges[check] = get_gradient_edge(result)
        return result


def _adjoints(forward: Forward, checks: set[int]) -> dict[int, Tensor]:
    """d loss / d output of the layers that the checks observe, where the program has a place to read it."""
    program, results = forward.program, _Results()
    replayed = program.replayed
    at = {(c.kind, c.node): c.index for c in replayed.plan.checks if c.index in replayed.chosen}
    with forward.again(results) as outputs:
        named = {i: at.get((c.kind, c.node), -1) for i, c in enumerate(program.plan.checks) if i in checks}
        edges = {i: results.edges[k] for i, k in named.items() if k in results.edges}
        return adjoints_of(edges, outputs, forward.cotangents)


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
        """The parts that take part, and the weights."""
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
        raise _LeftOpen

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
        slopes = self.rows @ direction
        picks = tuple(min(m, key=lambda k: slopes[k]) for m in self.maxima)
        picks = tuple(k if slopes[k] < 0 else -1 for k in picks)
        if picks in self.parts:
            return False
        system = self._resolved(picks)
        if system is None or not is_direction(system.rows, system.row_error, direction):
            return False
        coefficients = np.zeros(len(self.rows))
        taken = [k for k in picks if k >= 0]
        coefficients[taken] = self.factors[taken]
        self.parts[picks] = _Part(picks, system, direction, coefficients)
        return True

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
