"""By which path of the checker a step was certified, or why it was not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fxcheck.records.step import StepResult
from fxcheck.runtime.gradients import Gradients
from fxcheck.runtime.rows import RowKind
from fxcheck.runtime.session import Session

STATIC = ("smooth", "T4", "T6")
IDLE = "nothing touched"


@dataclass
class Spent:
    """Backward passes of a step, by purpose."""

    rows: int = 0
    equal: int = 0
    """Pairs whose total gradients turned out to be equal."""

    def clear(self) -> None:
        self.rows = self.equal = 0


@contextmanager
def watched() -> Iterator[Spent]:
    """Count the gradients that are computed for rows and for T_j while the block runs."""
    spent, fill, are_equal = Spent(), Gradients.fill, Gradients.are_equal

    def counted_fill(self: Gradients, *args: Any, **kwargs: Any) -> Any:
        spent.rows += 1
        return fill(self, *args, **kwargs)

    def counted_equal(self: Gradients, *args: Any, **kwargs: Any) -> Any:
        found = are_equal(self, *args, **kwargs)
        spent.equal += bool(found)
        return found

    Gradients.fill, Gradients.are_equal = counted_fill, counted_equal  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        Gradients.fill, Gradients.are_equal = fill, are_equal  # type: ignore[method-assign]


def path_of(step: StepResult, session: Session, spent: Spent) -> tuple[str, ...]:
    """What the certificate of a certified step rests on, as words in a fixed order."""
    if step.theorem in STATIC:
        return (f"static {step.theorem}",)
    if step.theorem == "T1":
        return ("T1",)
    if not any(layer.touched or layer.ties for layer in step.layers):
        return (IDLE,)
    tests = _tests(step, session, spent)
    return tuple(name for name, holds in tests.items() if holds())


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
    """Why a step was not certified: the reason, the kind of text without names and numbers, and what refuted it."""
    phrase = next((p for p in _PHRASES if p in step.text), step.text[:60])
    infeasible = session.decided.infeasible if session.decided is not None else []
    by = f", by {infeasible[0][1].how}" if infeasible else ""
    return f"{step.reason}: {phrase}{by}"


_PHRASES = (
    "no direction satisfies", "takes neither one-sided slope", "takes neither", "not (verifiably) independent",
    "were not decided", "backward passes", "is not differentiable", "carries activations", "rounding",
)  # fmt: skip
