"""By which path of the checker a step was certified, or why it was not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fxcheck.records.step import StepResult
from fxcheck.runtime.checked import CheckedModule
from fxcheck.runtime.gradients import Gradients
from fxcheck.runtime.joint import Joint
from fxcheck.runtime.rows import RowKind
from fxcheck.runtime.session import Session

STATIC = ("smooth", "T4", "T6")
IDLE = "nothing touched"
FIRST, SECOND = "joint model", "second look"
"""What only deciding all layers together can certify: a model that no other theorem covers; a step whose P_l is empty."""


@dataclass
class Spent:
    """Backward passes of a step, by purpose."""

    rows: int = 0
    equal: int = 0
    """Pairs whose total gradients turned out to be equal."""
    joint: Joint | None = None
    """What all layers together have shown, if they were looked at."""

    def clear(self) -> None:
        self.rows = self.equal = 0
        self.joint = None


@contextmanager
def watched() -> Iterator[Spent]:
    """Count the gradients that are computed for rows and for T_j while the block runs, and note looks at all layers."""
    spent, fill, are_equal, look_at = Spent(), Gradients.fill, Gradients.are_equal, CheckedModule._look_at

    def counted_fill(self: Gradients, *args: Any, **kwargs: Any) -> Any:
        spent.rows += 1
        return fill(self, *args, **kwargs)

    def counted_equal(self: Gradients, *args: Any, **kwargs: Any) -> Any:
        found = are_equal(self, *args, **kwargs)
        spent.equal += bool(found)
        return found

    def noted_look(self: CheckedModule, session: Session) -> Joint:
        spent.joint = look_at(self, session)
        return spent.joint

    Gradients.fill, Gradients.are_equal = counted_fill, counted_equal  # type: ignore[method-assign]
    CheckedModule._look_at = noted_look  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        Gradients.fill, Gradients.are_equal = fill, are_equal  # type: ignore[method-assign]
        CheckedModule._look_at = look_at  # type: ignore[method-assign]


def owed_to(step: StepResult, session: Session) -> str:
    """``FIRST`` where the model is decided jointly or not at all, ``SECOND`` where a second look certified the step."""
    if session.program is not None and session.program.plan.joint:
        return FIRST
    return SECOND if step.theorem == "joint" else ""


def path_of(step: StepResult, session: Session, spent: Spent) -> tuple[str, ...]:
    """What the certificate of a certified step rests on, as words in a fixed order."""
    if step.theorem in STATIC:
        return (f"static {step.theorem}",)
    if step.theorem == "T1":
        return ("T1",)
    if not any(layer.touched or layer.ties for layer in step.layers):
        return (IDLE,)
    if step.theorem == "joint":
        return tuple(_joint_words(step, session, spent.joint))
    tests = _tests(step, session, spent)
    return tuple(name for name, holds in tests.items() if holds())


def _joint_words(step: StepResult, session: Session, joint: Joint | None) -> Iterator[str]:
    yield owed_to(step, session)
    if joint is None:
        yield "equal functions tie"
        return
    parts = sum(b.claim == "direction" for b in joint.blocks)
    is_mixture = any(b.claim == "mixture" for b in joint.blocks)
    yield "decomposition" if is_mixture else "joint condition"
    if is_mixture:
        yield "parts: " + (str(parts) if parts <= 2 else "3 or 4" if parts <= 4 else "5 or more")
    elif joint.dropped:
        yield "zero rows dropped"
    if any(b.coordinates and b.coordinates[0].startswith("sketch[") for b in joint.blocks):
        yield "sketch"


def _tests(step: StepResult, session: Session, spent: Spent) -> dict[str, Callable[[], bool]]:
    program, decided = session.program, session.decided
    algorithm = {g.index: g.algorithm for g in program.plan.groups} if program is not None else {}
    used = [layer for layer in step.layers if layer.touched or layer.ties]
    hows = {d.how for _, d in decided.blocks} - {"no rows"} if decided is not None else set()
    touches = sum(r.kind is RowKind.TOUCH for r in session.rows)
    touched = sum(layer.touched for layer in used if algorithm.get(layer.group) == 1)
    return {
        "T5": lambda: decided is not None and bool(decided.independent),
        "Algorithm 1": lambda: any(algorithm.get(r.group) == 1 for r in session.rows),
        "Algorithm 2": lambda: any(algorithm.get(layer.group) == 2 for layer in used),
        "closed form": lambda: len(session.rows) > spent.rows,
        "rows by backward": lambda: spent.rows > 0,
        "T_j": lambda: any(layer.ties > layer.nontrivial_outputs for layer in used),
        "T_j by backward": lambda: spent.equal > 0,
        "frozen": lambda: touched > touches and not (decided is not None and decided.independent),
        "pre-check": lambda: bool(hows - {"linear program"}),
        "LP": lambda: "linear program" in hows,
    }


def reason_of(step: StepResult, session: Session) -> str:
    """Why a step was not certified: the reason, the kinds of text without names and numbers, and what refuted it."""
    phrases = [p for p in _PHRASES if p in step.text]
    infeasible = session.decided.infeasible if session.decided is not None else []
    by = f", by {infeasible[0][1].how}" if infeasible else ""
    return f"{step.reason}: {'; '.join(phrases) or step.text[:60]}{by}"


_PHRASES = (
    "no direction satisfies", "takes neither one-sided slope", "not (verifiably) independent", "were not decided",
    "backward passes", "is not differentiable", "carries activations", "singular point", "rounding moved a kink",
    # of all layers together
    "no one direction", "AD takes neither side", "no mixture of them is AD's", "no direction that was tried",
    "equal up to rounding", "a step that this may take", "same bits", "was overwritten", "needs backward()",
    "several gradients arrived", "that are followed", "outside T8", "is no Clarke subgradient",
)  # fmt: skip
