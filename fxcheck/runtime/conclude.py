"""From a session to the result of a step: the verdict, its reason, its layers and its certificate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from operator import attrgetter

import numpy as np
import torch

from fxcheck.records.certificate import Block as CertificateBlock
from fxcheck.records.certificate import Certificate
from fxcheck.records.checks import Check, CheckKind
from fxcheck.records.step import CERTIFIED, UNCERTIFIED, LayerStep, StepResult
from fxcheck.records.system import Decision, Outcome
from fxcheck.runtime.blocks import Block
from fxcheck.runtime.decide import Decided
from fxcheck.runtime.deposits import ADDED
from fxcheck.runtime.joint import Joint
from fxcheck.runtime.observed import Count
from fxcheck.runtime.program import Program
from fxcheck.runtime.rows import Columns
from fxcheck.runtime.session import Session

_IS_DIFFERENTIATED_TWICE = attrgetter("is_differentiated_twice")
_TIED = attrgetter("tied")
_MAXIMA = (CheckKind.WINDOWS, CheckKind.DIMENSION)


def conclude(session: Session, ranks: int, step: StepResult, look: Callable[[], Joint]) -> None:
    """Fill in the result of a step that has ended.

    Args:
        session: its forwards.
        ranks: size of the process group; 1 without one.
        step: the result to fill.
        look: decides the step as a whole; called where the layers' own systems leave it open.
    """
    program = session.program
    step.forwards, step.samples, step.seconds = session.forwards, session.samples, session.seconds
    if program is None:
        _refuse(step, "undecided", "no training forward of the checked model ran in this step")
        return
    plan = program.plan
    step.assumptions = plan.assumptions
    if session.deposits is not None and session.deposits.add_to_older:
        step.assumptions = (*step.assumptions, ADDED)
    step.layers = _layers(session, program)
    step.make_certificate = _certificate_maker(session, program, step)
    if plan.uncovered:
        _refuse(step, "uncovered", plan.uncovered[0].message)
    elif session.deposits is not None and not session.deposits.is_finite:
        _refuse(step, "undecided", "the gradient that reached the output holds NaN or infinity")
    elif session.deposits is not None and session.deposits.left_non_finite:
        _refuse(step, "undecided", "the gradient of a parameter holds NaN or infinity")
    elif plan.theorem is not None:
        _certify_statically(session, plan.theorem, step, program)
    elif plan.one_sample and session.forwards == session.samples == ranks == 1 and not session.problems:
        step.verdict, step.theorem, step.subdifferential = CERTIFIED, "T1", "clarke"
    elif session.problems:
        _refuse(step, "undecided", session.problems[0])
    elif any(map(_IS_DIFFERENTIATED_TWICE, session.runs)):
        _refuse(step, "undecided", "backward() ran with create_graph=True, so the loss may hold derivatives of the output")
    elif plan.joint:
        _decide_jointly(session, ranks, step, look)
    else:
        _decide(session, ranks, step, program)
        if step.reason in ("infeasible", "undecided") and ranks == 1:
            _look_again(step, look())


def _decide_jointly(session: Session, ranks: int, step: StepResult, look: Callable[[], Joint]) -> None:
    if ranks > 1 and (session.gathered_ranks != ranks or not session.is_idle):
        _refuse(step, "other ranks", f"the step's gradient sums {ranks} ranks, and the joint condition is decided on one")
    elif session.is_idle:
        step.verdict, step.theorem, step.subdifferential = CERTIFIED, "joint", "bouligand"
    else:
        _look_again(step, look())


def _look_again(step: StepResult, joint: Joint) -> None:
    """The joint condition and the decomposition settle the step, or leave it as it was."""
    if joint.certified:
        step.verdict, step.theorem, step.reason, step.text = CERTIFIED, joint.theorem, None, ""
        step.subdifferential = joint.subdifferential
        step.up_to_rounding = True if joint.dropped or joint.is_mixture else step.up_to_rounding
        step.layers = tuple(_certified(x, joint.theorem) for x in step.layers)
    else:
        step.refuted = joint.refuted
        both = [t for t in (step.text, joint.text) if t]
        _refuse(step, step.reason or joint.reason, ("; " if joint.refuted else "; all layers together: ").join(both))
        step.layers = tuple(x if x.verdict != CERTIFIED or not x.is_touched else replace(x, verdict="undecided", theorem=None)
                            for x in step.layers)  # fmt: skip
    if joint.rows:
        step.layers = tuple(x if joint.rows.get(x.name, x.constraints) == x.constraints
                            else replace(x, constraints=joint.rows[x.name]) for x in step.layers)  # fmt: skip
    step.make_certificate = _joint_certificate(step, joint)


@lru_cache(maxsize=1024)
def _certified(layer: LayerStep, theorem: str | None) -> LayerStep:
    """Most layers of most steps are alike, and many."""
    return replace(layer, verdict=CERTIFIED, theorem=theorem)


def _joint_certificate(step: StepResult, joint: Joint) -> Callable[[], Certificate]:
    before, verdict = step.make_certificate, step.verdict or UNCERTIFIED
    notes = (*([step.text] if step.text else []), *step.assumptions)

    def make() -> Certificate:
        assert before is not None
        first = before()
        standing = first.blocks
        if joint.certified:
            standing = tuple(b for b in standing if joint.theorem == "T8" and b.claim != "multipliers")
        blocks = (*standing, *joint.blocks)
        return Certificate(verdict, first.torch, first.digest, blocks, notes)

    return make


def _refuse(step: StepResult, reason: str, text: str) -> None:
    step.verdict, step.reason, step.text = UNCERTIFIED, reason, text


def _certify_statically(session: Session, theorem: str, step: StepResult, program: Program) -> None:
    if session.problems:
        _refuse(step, "undecided", session.problems[0])
        return
    step.verdict, step.theorem = CERTIFIED, theorem
    step.subdifferential = program.study.classified.subdifferential


def _decide(session: Session, ranks: int, step: StepResult, program: Program) -> None:
    decided = session.decided or Decided()
    open_blocks = [(b, d) for b, d in decided.blocks if d.outcome is not Outcome.FEASIBLE]
    unsided = _without_sides(session, decided)
    if decided.infeasible:
        block, _ = decided.infeasible[0]
        _refuse(step, "infeasible", f"no direction satisfies all {len(block.rows)} rows of {block.rows[0].layer}; "
                "the multipliers that prove it are in the certificate")  # fmt: skip
    elif session.open_questions or unsided:
        _refuse(step, "undecided", [*session.open_questions, *unsided][0])
    elif open_blocks:
        block, decision = open_blocks[0]
        _refuse(step, "undecided", f"the rows of {block.rows[0].layer} were not decided: {decision.reason}")
    elif ranks > 1 and session.gathered_ranks != ranks:
        _refuse(step, "other ranks", f"the step's gradient sums {ranks} ranks and only this one's rows are known; "
                "call checked.gather() inside the step")  # fmt: skip
    else:
        step.verdict = CERTIFIED
        fully = all(g.fully_connected for g in program.plan.groups)
        step.theorem = "T5" if fully and not decided.blocks and not decided.dependent else "T8"
        step.subdifferential = "clarke" if step.theorem == "T5" and not _is_one_sided(program) else "bouligand"


def _without_sides(session: Session, decided: Decided) -> list[str]:
    """Neurons on which T5 fails and AD took neither side at some touch, so that no row stands for it."""
    found = []
    for columns in decided.dependent:
        touches = sum(r.group == columns.group and r.slots[:1] == (columns.neuron,) for r in session.rows)
        if touches < columns.matrix.shape[1]:
            found.append(f"the touched columns of {columns.layer} are not (verifiably) independent, so T5 says nothing, "
                         "and AD takes neither one-sided slope there")  # fmt: skip
    return found


def _is_one_sided(program: Program) -> bool:
    return all(p.one_sided for u in program.study.structured.units for p in u.points)


# Layers ----------------------------------------------------------------------------------------


def _layers(session: Session, program: Program) -> tuple[LayerStep, ...]:
    nothing_happened = session.is_idle and not session.rows and not any(map(_TIED, session.counts.values()))
    if not nothing_happened:
        return _layers_seen(session, program)
    if session.entries != program.idle_entries:
        program.idle_entries, program.idle_layers = session.entries, _layers_seen(session, program)
    return program.idle_layers


def _layers_seen(session: Session, program: Program) -> tuple[LayerStep, ...]:
    decided = session.decided or Decided()
    rows: dict[tuple[int, str], int] = {}
    for row in session.rows:
        rows[row.group, row.layer] = rows.get((row.group, row.layer), 0) + 1
    by_t5 = {i.columns.group for i in decided.independent}
    unsettled = bool(session.problems or session.open_questions)
    found = []
    for (group, name), checks in program.checks_by_layer.items():
        total, entries, maxima = _total(session, checks)
        constraints = rows.get((group, name), 0)
        if not (total.touched or total.tied or total.nontrivial or constraints or group in by_t5):
            found.append(_untouched(name, group, entries, maxima))
            continue
        blocks = [(b, d) for b, d in decided.of_group(group) if any(r.layer == name for r in b.rows)]
        verdict, theorem = _verdict(blocks, group in by_t5, unsettled and total.touched > 0 and group < 0)
        found.append(LayerStep(
            name, group, entries, maxima, total.touched, total.tied, total.nontrivial_outputs, total.nontrivial,
            constraints, verdict, theorem,
        ))  # fmt: skip
    return tuple(found)


def _total(session: Session, checks: Sequence[Check]) -> tuple[Count, int, int]:
    """(counts of a layer, its entries, its max outputs)."""
    total, entries, maxima = Count(), 0, 0
    for check in checks:
        observed = session.entries.get(check.index, 0)
        entries += observed
        maxima += observed if check.kind in _MAXIMA else 0
        if check.index in session.counts:
            total.add(session.counts[check.index])
    return total, entries, maxima


@lru_cache(maxsize=1024)
def _untouched(name: str, group: int, entries: int, maxima: int) -> LayerStep:
    """Of most layers at most steps."""
    return LayerStep(name, group, entries, maxima, 0, 0, 0, 0, 0, CERTIFIED, "T8")


def _verdict(
    blocks: list[tuple[Block, Decision]], is_independent: bool, at_singular_point: bool
) -> tuple[str, str | None]:
    outcomes = {d.outcome for _, d in blocks}
    if Outcome.INFEASIBLE in outcomes:
        return "infeasible", None
    if Outcome.UNDECIDED in outcomes or at_singular_point:
        return "undecided", None
    return CERTIFIED, "T5" if is_independent and not blocks else "T8"


# The certificate -------------------------------------------------------------------------------


def _certificate_maker(session: Session, program: Program, step: StepResult) -> Callable[[], Certificate]:
    known, checksums = session.decided, tuple(session.checksums)  # and not the session, with the graphs of its forwards

    def make() -> Certificate:
        decided = known or Decided()
        blocks = [_feasibility_block(b, d) for b, d in decided.blocks if d.outcome is not Outcome.UNDECIDED]
        blocks += [_independence_block(i.columns, i.inverse) for i in decided.independent]
        notes = (step.text, *step.assumptions) if step.text else step.assumptions
        by_2 = [g.layer for g in program.plan.groups if g.algorithm == 2]
        if by_2:
            notes = (*notes, f"Algorithm 2 (touched ReLUs need no rows): {', '.join(by_2)}")
        return Certificate(step.verdict or UNCERTIFIED, torch.__version__, _digest(checksums), tuple(blocks), tuple(notes))

    return make


def _digest(checksums: Iterable[int]) -> str:
    """Tells steps of one run apart; it is no protection against an adversary."""
    numbers = b"".join(n.to_bytes(8, "little", signed=True) for n in checksums)
    return hashlib.blake2b(numbers, digest_size=16).hexdigest()


def _feasibility_block(block: Block, decision: Decision) -> CertificateBlock:
    feasible = decision.outcome is Outcome.FEASIBLE
    multipliers: tuple[Fraction, ...] | None = None if feasible else decision.multipliers
    return CertificateBlock(
        block.rows[0].layer, block.group, "direction" if feasible else "multipliers",
        block.labels, block.system.rows, block.system.row_error,
        decision.direction if feasible else None, multipliers,
    )  # fmt: skip


def _independence_block(columns: Columns, inverse: np.ndarray) -> CertificateBlock:
    name, index = columns.neuron
    matrix = np.ascontiguousarray(columns.matrix.T)
    return CertificateBlock(
        columns.layer, columns.group, "independent columns", (f"inputs of {name}[{index}]",), matrix,
        np.zeros(len(matrix)), left_inverse=inverse,
    )  # fmt: skip
