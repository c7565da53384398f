"""A step decided as a whole: the joint condition, then the witnessed decomposition (theory 5).

All forwards of the step are run again with the checks of all layers. The joint condition asks for one direction over all
parameters on which every touched entry moves to AD's side and every picked entry wins, by their total gradients. Where AD
took no side, or no such direction exists, AD's gradient may still be a mixture of gradients that have one each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from fxcheck.errors import FxcheckError
from fxcheck.lp.feasibility import decide
from fxcheck.records.certificate import Block
from fxcheck.records.system import Decision, LinearSystem, Outcome
from fxcheck.runtime.choices import Choices
from fxcheck.runtime.decomposition import Mixture, decompose
from fxcheck.runtime.derivatives import Coordinates, Vector
from fxcheck.runtime.first_look import settled_by_first_looks
from fxcheck.runtime.joint_rows import rows_of_sites
from fxcheck.runtime.many_rows import ManyRows, Subspace, Unclear
from fxcheck.runtime.replay import Forward, NotReproduced
from fxcheck.runtime.scene import MANY, Budget, Scene, Spent
from fxcheck.runtime.sites import NEITHER, RIGHT, Member, Point, Site

MOST_POINTS = 500
"""Touched entries and tied maxima of a step for which mixtures are tried where AD takes neither side at some."""
MOST_ROWS = 50_000
"""Touched entries and tied maxima of a forward for which the joint condition is tried."""
LAYER = "all layers together"
"""What stands for a layer's name in certificates."""


@dataclass(frozen=True, eq=False)
class JointRow:
    """What a direction must satisfy at one point."""

    layer: str
    values: np.ndarray
    error: float
    """Relative to the values' length."""


@dataclass
class Joint:
    """What became of a step."""

    certified: bool = False
    theorem: str = "joint"
    """What certifies it; ``T8`` where the directions of the other layers stand, beside the blocks."""
    subdifferential: str | None = None
    is_mixture: bool = False
    """AD's gradient is a mixture of parts, one or several, up to the rounding of their differences."""
    refuted: bool = False
    """AD's gradient is no Clarke subgradient."""
    reason: str = "undecided"
    text: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    """By layer: the inequalities of the joint condition."""
    blocks: list[Block] = field(default_factory=list)
    dropped: int = 0
    """Touches that were left out because their gradient is exactly zero."""


def decide_jointly(
    forwards: Sequence[Forward], until: float, spent: dict[str, float]
) -> Joint:
    """Decide a step whose forwards are remembered.

    Args:
        forwards: all forwards of the step.
        until: of ``time.perf_counter``: no more time may be taken.
        spent: wall times by stage; ``replay`` and ``decomposition`` are added to.

    Source: theory 5, joint condition, zero rows, witnessed decomposition.
    """
    coordinates, budget = Coordinates(forwards[0].program.trainable), Budget(until)
    scenes = [Scene(f, coordinates, budget) for f in forwards]
    joint = _decide(forwards, scenes, coordinates, spent)
    if joint.certified or not any(s.holds_touches for s in scenes):
        return joint
    scenes = [Scene(f, coordinates, budget, is_thorough=True) for f in forwards]
    thorough = _decide(forwards, scenes, coordinates, spent)
    return thorough if thorough.certified else joint


def _decide(
    forwards: Sequence[Forward], scenes: Sequence[Scene], coordinates: Coordinates, spent: dict[str, float]
) -> Joint:
    started = time.perf_counter()
    joint = Joint()
    stage = "replay"
    try:
        seen = settled_by_first_looks(forwards)
        if seen is not None:
            _take(seen, joint)
            return joint
        for scene in scenes:
            scene.first_run(MOST_ROWS)
            joint.dropped += scene.dropped
            if scene.problems:
                raise Unclear(scene.problems[0])
        if _by_ad_choices(scenes, coordinates, joint):
            return joint
        _refuse_too_many(scenes)
        spent[stage] = spent.get(stage, 0.0) + time.perf_counter() - started
        started, stage = time.perf_counter(), "decomposition"
        _by_mixture(scenes, coordinates, joint)
    except Spent:
        joint.text = _more(joint, "the time that joint_seconds allows was not enough")
    except (NotReproduced, Unclear, FxcheckError) as error:
        joint.text = _more(joint, str(error))
    except RuntimeError as error:  # an operation without a second derivative, or no memory left
        joint.text = _more(joint, f"torch could not do it: {(str(error).strip() or repr(error)).splitlines()[0]}")
    finally:
        spent[stage] = spent.get(stage, 0.0) + time.perf_counter() - started
    return joint


def _refuse_too_many(scenes: Sequence[Scene]) -> None:
    """Mixtures of more gradients than are kept can hardly reach AD's, unless sides come in opposite pairs."""
    points = [p for c in scenes for s in c.sites for p in s.points]
    most = MOST_POINTS if any(p.ad == NEITHER for p in points) else MANY
    if len(points) > most:
        raise Unclear(f"for {len(points):,} touched entries and tied maxima no mixtures are tried")


def _more(joint: Joint, sentence: str) -> str:
    return f"{joint.text}; {sentence}" if joint.text else sentence


# The joint condition ---------------------------------------------------------------------------


def _by_ad_choices(scenes: Sequence[Scene], coordinates: Coordinates, joint: Joint) -> bool:
    if any(sum(len(s.members) for s in c.sites) > MANY for c in scenes):
        return _by_subspace(scenes, joint)
    rows: list[JointRow] = []
    for scene in scenes:
        for site in scene.sites:
            members = scene.members_of(site, {})
            mixed = [p for p in site.points if p.ad == NEITHER]
            if members is None or (mixed and not _is_one_gradient(mixed, members)):
                joint.text = f"AD takes neither side at {site.check.layer}, so no one direction shows its gradient"
                return False
            rows += rows_of(site, site.ad_choices, members)
            joint.dropped += 0 if site.is_max else sum(v.is_zero for v in members.values())
    for row in rows:
        joint.rows[row.layer] = joint.rows.get(row.layer, 0) + 1
    system = system_of(rows, coordinates.size)
    decision = decide([system])[0]
    if decision.outcome is Outcome.FEASIBLE:
        joint.certified, joint.subdifferential, joint.reason, joint.text = True, "bouligand", "", ""
        joint.blocks.append(direction_block(system, decision.direction, coordinates, LAYER))
        return True
    joint.reason = "infeasible" if decision.outcome is Outcome.INFEASIBLE else "undecided"
    joint.text = f"no one direction satisfies all {len(rows)} rows of all layers together" if (
        decision.outcome is Outcome.INFEASIBLE) else f"the rows of all layers together: {decision.reason}"
    if decision.outcome is Outcome.INFEASIBLE and not coordinates.is_sketch:
        joint.blocks.append(_multipliers_block(system, decision, coordinates))
    return False


def _by_subspace(scenes: Sequence[Scene], joint: Joint) -> bool:
    """The joint condition with rows that are not written out."""
    mixed = [s.check.layer for c in scenes for s in c.sites if any(p.ad == NEITHER for p in s.points)]
    if mixed:
        joint.text = f"AD takes neither side at {mixed[0]}, so no one direction shows its gradient"
        return False
    with ExitStack() as stack:
        sites = [site for scene in scenes for site in stack.enter_context(scene.watched())]
        found = ManyRows(rows_of_sites(sites), scenes[0].parameters, scenes[0].budget).decide()
    _take(found, joint)
    if not joint.certified:
        joint.text = f"no one direction was found that satisfies all {len(found.layers):,} rows of all layers together"
    return joint.certified


def _take(found: Subspace, joint: Joint) -> None:
    """What a subspace shows of rows that are not written out."""
    for layer in found.layers:
        joint.rows[layer] = joint.rows.get(layer, 0) + 1
    joint.dropped += found.dropped
    if found.decision.outcome is Outcome.FEASIBLE:
        joint.certified, joint.subdifferential, joint.reason, joint.text = True, "bouligand", "", ""
        if found.system is not None:
            names = tuple(f"vector[{i}]" for i in range(found.system.rows.shape[1]))
            joint.blocks.append(Block(
                LAYER, 0, "direction", names, found.system.rows, found.system.row_error, found.decision.direction
            ))  # fmt: skip


def _is_one_gradient(points: Sequence[Point], members: Mapping[Member, Vector]) -> bool:
    """Whether every branch of the points contributes the same: nothing, or equal gradients."""
    return all(
        members[p.members[0]].is_zero if len(p.members) == 1
        else all(np.array_equal(members[m].values, members[p.members[0]].values) for m in p.members)
        for p in points
    )  # fmt: skip


def rows_of(site: Site, choices: Sequence[int], members: Mapping[Member, Vector]) -> list[JointRow]:
    """The rows of a site under choices of its branches; rows that vanish exactly are left out.

    Raises:
        Unclear: a difference of two gradients may be nothing but rounding.
    """
    found: list[JointRow] = []
    for point, choice in zip(site.points, choices, strict=True):
        found += _rows_of_max(site, point, choice, members) if site.is_max else _rows_of_touch(site, point, choice, members)
    return found


def _rows_of_touch(site: Site, point: Point, choice: int, members: Mapping[Member, Vector]) -> Iterator[JointRow]:
    vector = members[point.members[0]]
    if not vector.is_zero:
        _refuse_mixture(site, choice)
        sign = 1.0 if choice == RIGHT else -1.0
        yield _row(site, sign * vector.values, vector.error)


def _rows_of_max(site: Site, point: Point, choice: int, members: Mapping[Member, Vector]) -> Iterator[JointRow]:
    best = members[point.members[max(choice, 0)]]
    for member in point.members:
        other = members[member]
        if not np.array_equal(best.values, other.values):
            _refuse_mixture(site, choice)
            yield _row(site, site.sign * (best.values - other.values), best.error + other.error)


def _refuse_mixture(site: Site, choice: int) -> None:
    if choice == NEITHER:
        raise Unclear(f"AD takes neither side at {site.check.layer}, and no other slope can be put in its place")


def _row(site: Site, values: np.ndarray, error: float) -> JointRow:
    length = float(np.linalg.norm(values))
    if length <= error:
        raise Unclear(f"two gradients at {site.check.layer} are equal up to rounding, and not beyond")
    return JointRow(site.check.layer, values, error / length)


def system_of(rows: Sequence[JointRow], size: int) -> LinearSystem:
    """Rows as a linear system in the coordinates."""
    matrix = np.stack([r.values for r in rows]) if rows else np.zeros((0, size))
    return LinearSystem(matrix, np.array([r.error for r in rows]))


def direction_block(system: LinearSystem, direction: np.ndarray | None, coordinates: Coordinates, layer: str) -> Block:
    """The certificate of a direction."""
    return Block(layer, 0, "direction", coordinates.labels, system.rows, system.row_error, direction)


def _multipliers_block(system: LinearSystem, decision: Decision, coordinates: Coordinates) -> Block:
    return Block(
        LAYER, 0, "multipliers", coordinates.labels, system.rows, system.row_error, multipliers=decision.multipliers
    )  # fmt: skip


# The decomposition -----------------------------------------------------------------------------


def _by_mixture(scenes: Sequence[Scene], coordinates: Coordinates, joint: Joint) -> None:
    if any(s.forward.was_overwritten for s in scenes):
        joint.text = _more(joint, "an output was written to in place, so that the gradient that reached it is not known")
        return
    reached = [s for s in scenes if s.forward.reached]
    if not reached:
        joint.text = _more(joint, "its gradient as a mixture needs backward() inside the step")
        return
    if any(s.forward.arrivals > 1 for s in reached):
        joint.text = _more(joint, "several gradients arrived at one output, which are not taken apart")
        return
    if not reached[0].forward.deposits.add_up:
        joint.text = _more(joint, "what its backward passes brought does not add up in .grad")
        return
    mixture = decompose(reached, coordinates, _resolved)
    if mixture.weights is None:
        joint.text = _more(joint, mixture.reason)
        return
    joint.certified, joint.reason, joint.text = True, "", ""
    joint.is_mixture = True
    joint.subdifferential = "bouligand" if len(mixture.columns) == 1 else "clarke"
    joint.blocks = list(_mixture_blocks(mixture, coordinates))


def _resolved(scenes: Sequence[Scene], choices: Sequence[Choices], size: int) -> LinearSystem:
    """The rows that a direction must satisfy for D(c) to be a Bouligand subgradient."""
    rows: list[JointRow] = []
    for scene, chosen in zip(scenes, choices, strict=True):
        for site in scene.sites:
            members = scene.members_of(site, chosen)
            assert members is not None
            rows += rows_of(site, chosen[site.check.index], members)
    return system_of(rows, size)


def _mixture_blocks(mixture: Mixture, coordinates: Coordinates) -> Iterator[Block]:
    for k, column in enumerate(mixture.columns):
        yield direction_block(column.system, column.direction, coordinates, f"part {k + 1} of {len(mixture.columns)}")
    yield Block(
        "weights of the parts", 0, "mixture", coordinates.labels, mixture.terms.rows, mixture.terms.row_error,
        weights=mixture.weights, coefficients=mixture.coefficients,
    )  # fmt: skip
