"""One network, many weights and inputs: a checked step and the oracle side by side, each pair a case."""

from __future__ import annotations

import hashlib
import re
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

import fxcheck
from fxcheck.errors import FxcheckError
from fxcheck.records.step import CERTIFIED, StepResult
from fxcheck.runtime.checked import CheckedModule
from tests.soundness.families import FAMILIES, Net, Plan, Point, loss_of
from tests.soundness.families.losses import LOSSES
from tests.soundness.families.points import point_of
from tests.soundness.hints import hints_from
from tests.soundness.oracle import BY_COORDINATE, Judgement, Verdict, judge
from tests.soundness.paths import IDLE, Spent, owed_to, path_of, reason_of, watched

WRONG = (Verdict.OUTSIDE, Verdict.NOT_AD, Verdict.NOT_LIPSCHITZ)
RIGHT = (Verdict.INSIDE, Verdict.ROUNDING)
REFUSED, CRASHED = "refused", "crashed"
CONTRADICTION = "the oracle contradicts itself"
_SAMPLED = {True: 5, False: 3}
"""Of the steps without touch or tie, and of those that are not certified, one in so many is judged."""
_OF_REFUSED = 2
"""Points of a refused network that are judged, to see what the refusal costs."""
_EQUAL = 1e-12


@dataclass(frozen=True)
class CaseRecord:
    """One step of one network, decided by fxcheck and by the oracle."""

    verdict: str
    """``certified``, ``uncertified``, ``refused`` (no theorem covers the network) or ``crashed``."""
    path: tuple[str, ...] = ()
    """What a certificate rests on."""
    reason: str = ""
    """Why the step is not certified."""
    oracle: str = ""
    """The oracle's verdict; empty where the step was left out of the sample."""
    touched: int = 0
    ties: int = 0
    distance: float = 0.0
    text: str = ""
    owed_to: str = ""
    """``FIRST`` or ``SECOND`` (of ``paths``): without deciding all layers together it would be refused or uncertified."""
    refuted: bool = False
    """fxcheck says that backward's gradient is no Clarke subgradient."""
    weight: int = 1
    """How many cases it stands for, where a sample is judged."""
    family: str = ""
    seed: int = 0
    trial: int = 0
    network: str = ""
    """Tells plans apart."""
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    """Wall time: capture (in the first case of a network), step, oracle."""

    @property
    def is_unsound(self) -> bool:
        """Certified, and backward's gradient is no Clarke subgradient; or refuted, and it is one."""
        return (self.verdict == CERTIFIED and self.oracle in WRONG) or (self.refuted and self.oracle in RIGHT)

    @property
    def has_failed(self) -> bool:
        """Unsound, or the tool broke."""
        return self.is_unsound or self.verdict == CRASHED


class Bench:
    """An instrumented network.

    Args:
        plan: the network.

    Raises:
        FxcheckError: fxcheck refuses it.
    """

    def __init__(self, plan: Plan) -> None:
        self.net = Net(plan)
        example = point_of(self.net, "example")
        self.net.load(example)
        options: dict = {"exact_ties": plan.exact_ties}
        if plan.loss:
            options |= {"loss": LOSSES[plan.loss], "target": torch.tensor(example.ends[0], dtype=self.net.dtype)}
        if plan.one_sample:
            options["batch_size"] = 1
        if plan.left_out:
            options["wrt"] = [p for _, p in self.net.trained()]
        self.checked: CheckedModule = fxcheck.instrument(self.net, self.net.inputs_of(example)[0], **options)

    def step(self, point: Point, spent: Spent) -> tuple[StepResult, tuple[str, ...], str, str]:
        """Run one checked step.

        Returns:
            Its result, the path of its certificate, why there is none, and what it owes to deciding all layers together.
        """
        self.net.load(point)
        self.net.zero_grad()
        spent.clear()
        with self.checked.step() as step:
            session = self.checked._session
            loss = loss_of(self.net, self.checked, point)
            if loss.requires_grad:
                loss.backward()
        if step.verdict == CERTIFIED:
            return step, path_of(step, session, spent), "", owed_to(step, session)
        return step, (), reason_of(step, session), owed_to(step, session)

    def differs(self, point: Point) -> float:
        """How far the last step's gradient is from the plain network's, relative to its size."""
        checked = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for _, p in self.net.trained()]
        self.net.zero_grad()
        if (loss := loss_of(self.net, self.net, point)).requires_grad:
            loss.backward()
        plain = [torch.zeros_like(p) if p.grad is None else p.grad for _, p in self.net.trained()]
        pairs = [(a, b) for a, b in zip(checked, plain, strict=True) if a.numel()]
        gaps = [float((a - b).abs().max()) / max(1.0, float(b.abs().max())) for a, b in pairs]
        return max(gaps, default=0.0)


def judged(net: Net, point: Point, step: StepResult | None = None) -> Judgement:
    """The oracle's word on the plain network at a point, with a certificate's directions as hints.

    A bad word is asked for again, by sampling alone; where that finds the gradient nearby, the oracle is in doubt.
    """
    net.load(point)
    named = net.trained()
    certificate = step.certificate if step is not None and step.verdict == CERTIFIED else None
    hints = hints_from(certificate, named) if certificate is not None else []
    parameters = [p for _, p in named]
    first = judge(parameters, lambda: loss_of(net, net, point), hints=hints)
    if first.verdict not in WRONG or first.by == BY_COORDINATE:
        return first
    again = judge(parameters, lambda: loss_of(net, net, point), seed=1, hints=hints, exact=False)
    if again.verdict is not Verdict.INSIDE:
        return first
    return Judgement(
        Verdict.UNSURE, first.distance, first.by, f"{CONTRADICTION}: {first.verdict} by {first.by} ({first.note})"
    )


def run_network(family: str, seed: int, trials: int) -> list[CaseRecord]:
    """All cases of one network.

    Args:
        family: a name in ``FAMILIES``.
        seed: of the network; weights and inputs follow from it and the number of the trial.
        trials: weights and inputs to try.
    """
    plan = FAMILIES[family].plan(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        try:
            bench = Bench(plan)
            spent = time.perf_counter() - started
            found = list(_cases(bench, seed, trials))
        except FxcheckError as error:
            spent = time.perf_counter() - started
            found = list(_refused(plan, seed, error, trials))
        except Exception as error:
            spent = time.perf_counter() - started
            found = [_crash(error, {})]
    found[0].seconds["capture"] = spent
    network = hashlib.blake2b(repr(plan).encode(), digest_size=8).hexdigest()
    return [replace(r, family=family, seed=seed, trial=i, network=network) for i, r in enumerate(found)]


def _cases(bench: Bench, seed: int, trials: int) -> Iterator[CaseRecord]:
    with watched() as spent:
        for trial in range(trials):
            yield run_case(bench, seed_point(bench.net, seed, trial), spent, trial)


def seed_point(net: Net, seed: int, trial: int) -> Point:
    """The weights and data of one trial of the network of a seed."""
    return point_of(net, f"{seed} {trial}")


def outcome(plan: Plan, point: Point) -> CaseRecord:
    """One case, from a plan and a point that are given."""
    with warnings.catch_warnings(), watched() as spent:
        warnings.simplefilter("ignore")
        try:
            bench = Bench(plan)
        except FxcheckError as error:
            return CaseRecord(REFUSED, reason=_code(error), text=str(error))
        except Exception as error:
            return _crash(error, {})
        return run_case(bench, point, spent)


def run_case(bench: Bench, point: Point, spent: Spent, trial: int = 0) -> CaseRecord:
    """One step and the oracle's word on it.

    Args:
        bench: the network.
        point: weights and data.
        spent: counts of backward passes, from ``watched``.
        trial: its number; where no certificate is at stake, only some numbers ask the oracle.
    """
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    try:
        step, path, reason, owed = bench.step(point, spent)
        seconds["step"] = time.perf_counter() - started
        gap = bench.differs(point)
    except FxcheckError as error:
        return CaseRecord(REFUSED, reason=_code(error), text=str(error), seconds=seconds)
    except Exception as error:
        return _crash(error, seconds)
    if gap > _EQUAL:
        return CaseRecord(CRASHED, reason="its gradient is not the network's", distance=gap, seconds=seconds)
    touched, ties = sum(x.touched for x in step.layers), sum(x.ties for x in step.layers)
    idle = path == (IDLE,)
    weight = _SAMPLED[idle] if idle or (reason and not step.refuted) else 1
    if trial % weight:
        return CaseRecord(step.verdict or "", path, reason, touched=touched, ties=ties, owed_to=owed, seconds=seconds)
    started = time.perf_counter()
    try:
        found = judged(bench.net, point, step)
    except Exception as error:
        return _crash(error, seconds)
    seconds["oracle"] = time.perf_counter() - started
    return CaseRecord(
        step.verdict or "", path, reason, found.verdict, touched, ties, found.distance, found.note, owed,
        refuted=step.refuted, weight=weight, seconds=seconds,
    )  # fmt: skip


def _refused(plan: Plan, seed: int, error: FxcheckError, trials: int) -> Iterator[CaseRecord]:
    """A few points of a network that fxcheck does not check."""
    net = Net(plan)
    for trial in range(_OF_REFUSED):
        started = time.perf_counter()
        found = judged(net, seed_point(net, seed, trial))
        seconds = {"oracle": time.perf_counter() - started}
        weight = max(1, trials // _OF_REFUSED)
        yield CaseRecord(REFUSED, (), _code(error), found.verdict, text=str(error), weight=weight, seconds=seconds)


def _code(error: FxcheckError) -> str:
    """The first diagnostic code of a refusal, or the kind of error."""
    found = re.search(r"FX\d{3}", str(error))
    return found.group() if found else type(error).__name__


def _crash(error: Exception, seconds: dict[str, float]) -> CaseRecord:
    """What was raised, and by which function of which file."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = (str(error).strip().splitlines() or [""])[0]
    reason = f"{type(error).__name__}: {said[:80]} (in {last.name} of {Path(last.filename).name})"
    return CaseRecord(CRASHED, reason=reason, text="".join(traceback.format_exception(error)), seconds=seconds)
