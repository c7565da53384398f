"""Make a failing case small: fewer steps, smaller layers, fewer samples, weights and data of 0 and 1."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pprint import pformat
from typing import Any

from tests.soundness.families import Net, Plan, Point, Step, short
from tests.soundness.laboratory import outcome

Case = tuple[Plan, Point]
Fails = Callable[[Plan, Point], bool]


def shrink(plan: Plan, point: Point, fails: Fails | None = None, seconds: float = 60.0) -> Case:
    """The smallest case found by greedy simplification.

    Args:
        plan: a network.
        point: weights and data at which it fails.
        fails: whether a case fails; by default, whether it does so in the way the given one does.
        seconds: when to stop.

    Returns:
        A case that fails too; the given one when nothing simpler does.
    """
    fails = fails or _alike(plan, point)
    until, best = time.monotonic() + seconds, (plan, point)
    improved = True
    while improved:
        improved = False
        for candidate in _simpler(*best):
            if time.monotonic() > until:
                return best
            if fails(*candidate):
                best, improved = candidate, True
                break
    return best


def _alike(plan: Plan, point: Point) -> Fails:
    """Unsound as the given case, or crashing with the same kind of error."""
    first = outcome(plan, point)

    def fails(other: Plan, at: Point) -> bool:
        found = outcome(other, at)
        if first.is_unsound or not found.has_failed:
            return first.is_unsound and found.is_unsound
        return found.reason.split(":")[0] == first.reason.split(":")[0] and not found.is_unsound

    return fails


def _simpler(plan: Plan, point: Point) -> Iterator[Case]:
    """Simpler cases, the boldest changes first; those that make no network are left out."""
    for smaller, inputs, ends in _smaller_steps(plan, point):
        yield from _fitted(smaller, inputs, ends, point)
    for smaller in _simpler_plans(plan):
        yield from _fitted(smaller, point.inputs, point.ends, point)
    for simpler in _simpler_points(point):
        yield plan, simpler


# The step --------------------------------------------------------------------------------------


def _smaller_steps(plan: Plan, point: Point) -> Iterator[tuple[Plan, tuple, tuple]]:
    """Fewer forwards, fewer samples."""
    if plan.forwards > 1:
        for i in range(plan.forwards):
            keep = [j for j in range(plan.forwards) if j != i]
            yield (
                replace(plan, forwards=len(keep)),
                tuple(point.inputs[j] for j in keep),
                tuple(point.ends[j] for j in keep),
            )
    batch = plan.shapes[0][0]
    for i in range(batch if batch > 1 else 0):
        smaller = replace(plan, shapes=tuple((batch - 1, *s[1:]) for s in plan.shapes))
        inputs = tuple(tuple(_without(x, i) for x in each) for each in point.inputs)
        ends = tuple([_without(e, i) for e in end] if plan.loss else _without(end, i) for end in point.ends)
        yield smaller, inputs, ends


def _without(values: list, index: int) -> list:
    return values[:index] + values[index + 1 :]


# The network -----------------------------------------------------------------------------------


def _simpler_plans(plan: Plan) -> Iterator[Plan]:
    for i, step in enumerate(plan.steps):
        for source in dict.fromkeys(step.on):
            yield _bypassed(plan, i, source)
    for name in plan.frozen:
        yield replace(plan, frozen=tuple(n for n in plan.frozen if n != name))
    for name in plan.left_out:
        yield replace(plan, left_out=tuple(n for n in plan.left_out if n != name))
    if plan.dtype != "float64":
        yield replace(plan, dtype="float64")
    if plan.exact_ties:
        yield replace(plan, exact_ties=False)
    if plan.beside:
        yield replace(plan, beside="", steps=_needed(plan.steps, {plan.steps[-1].name}))
    if plan.unused:
        yield replace(plan, unused=0)
    for i, step in enumerate(plan.steps):
        for args in _smaller_arguments(step.args):
            yield replace(plan, steps=(*plan.steps[:i], replace(step, args=args), *plan.steps[i + 1 :]))
        if step.of:
            yield replace(plan, steps=(*plan.steps[:i], replace(step, of=""), *plan.steps[i + 1 :]))
    for i, shape in enumerate(plan.shapes):
        for d in range(1, len(shape)):
            if shape[d] > 1:
                less = (*shape[:d], shape[d] - 1, *shape[d + 1 :])
                yield replace(plan, shapes=(*plan.shapes[:i], less, *plan.shapes[i + 1 :]))


def _bypassed(plan: Plan, index: int, source: str) -> Plan:
    """Without one step: its users take the source instead; steps that nothing needs any more go too."""
    gone = plan.steps[index].name
    steps = [replace(s, on=tuple(source if n == gone else n for n in s.on)) for s in plan.steps if s.name != gone]
    last = source if index == len(plan.steps) - 1 else plan.steps[-1].name
    beside = plan.beside if any(s.name == plan.beside for s in steps) else ""
    needed = {last, beside} - {""}
    return replace(plan, beside=beside, steps=_needed([replace(s, of="") if s.of == gone else s for s in steps], needed))


def _needed(steps: Sequence[Step], needed: set[str]) -> tuple[Step, ...]:
    needed, kept = set(needed), []
    for step in reversed(steps):
        if step.name in needed:
            kept.append(step)
            needed |= {*step.on, *([step.of] if step.of else [])}
    return tuple(reversed(kept))


def _smaller_arguments(args: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for i, arg in enumerate(args):
        if arg is True:
            yield (*args[:i], False, *args[i + 1 :])
        elif isinstance(arg, int) and not isinstance(arg, bool):
            for less in dict.fromkeys(v for v in (0, 1, abs(arg) - 1) if (v, 0) < (abs(arg), arg < 0)):
                yield (*args[:i], less, *args[i + 1 :])


# Weights and data ------------------------------------------------------------------------------


def _simpler_points(point: Point) -> Iterator[Point]:
    parts = {"parameters": point.parameters, "inputs": point.inputs, "ends": point.ends}
    for name, part in parts.items():
        for simpler in _simpler_values(part):
            yield replace(point, **{name: simpler})
    if point.seed:
        yield replace(point, seed=0)


def _simpler_values(value: Any) -> Iterator[Any]:
    """The same nested lists with one part 0, or one number 1."""
    if isinstance(value, float | int):
        yield from (0.0,) if value == 1 else (0.0, 1.0) if value else ()
        return
    if _any(value):
        yield _zeros(value)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for k in keys:
        for simpler in _simpler_values(value[k]):
            if isinstance(value, dict):
                yield {**value, k: simpler}
            else:
                yield type(value)([*value[:k], simpler, *value[k + 1 :]])


def _any(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    return any(p != 0 if isinstance(p, float | int) else _any(p) for p in parts)


def _zeros(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _zeros(v) for k, v in value.items()}
    return 0.0 if isinstance(value, float | int) else type(value)(_zeros(v) for v in value)


# Fitting ---------------------------------------------------------------------------------------


def _fitted(plan: Plan, inputs: tuple, ends: tuple, point: Point) -> Iterator[Case]:
    """The case on a changed plan: numbers that stay in place are kept, others become 0 (coefficients also 1, -1)."""
    try:
        net = Net(plan)
    except (RuntimeError, IndexError, ValueError, TypeError, KeyError, AttributeError):
        return
    if not plan.steps or not net.trained() or not net.width or not all(p.numel() for p in net.parameters()):
        return
    parameters = {short(n): _fit(point.parameters.get(short(n)), tuple(p.shape)) for n, p in net.named_parameters()}
    inputs = tuple(tuple(_fit(x, s) for x, s in zip(each, plan.shapes, strict=True)) for each in inputs)
    batch = plan.shapes[0][0]
    shape = (2, batch, net.width) if plan.loss else (batch, net.width)
    fitted = tuple(_fit(end, shape) for end in ends)
    yield plan, Point(parameters, inputs, fitted, point.seed)
    if fitted != ends and not plan.loss:
        for sign in (1.0, -1.0):
            signs = tuple([[sign**i] * net.width for i in range(batch)] for _ in ends)
            yield plan, Point(parameters, inputs, signs, point.seed)


def _fit(value: Any, shape: tuple[int, ...]) -> Any:
    if not shape:
        return value if isinstance(value, float | int) else 0.0
    parts = value if isinstance(value, list) else []
    return [_fit(parts[i] if i < len(parts) else None, shape[1:]) for i in range(shape[0])]


# The test --------------------------------------------------------------------------------------

_TEST = '''"""{title}"""

from tests.soundness.families import Plan, Point, Step
from tests.soundness.laboratory import outcome

PLAN = {plan}

POINT = {point}


def test_backward_is_right_where_the_step_is_certified() -> None:
    found = outcome(PLAN, POINT)
    assert not found.has_failed, found
'''


def source_of_test(plan: Plan, point: Point, title: str) -> str:
    """The text of a test file that fails as long as the case does."""
    return _TEST.format(title=title, plan=pformat(plan, width=118), point=pformat(point, width=118))
