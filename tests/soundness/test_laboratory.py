"""The laboratory finds nothing unsound in a fixed slice of all families, and would find what is."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fxcheck
from fxcheck.runtime import conclude
from tests.runtime.models import Scalars, step_of
from tests.runtime.test_layer_mixture import P, Pooled, Q, patches
from tests.soundness.families import FAMILIES, Net, Plan, Point, Step
from tests.soundness.families.draft import MOST_PARAMETERS
from tests.soundness.families.operations import parameters_of
from tests.soundness.families.points import point_of
from tests.soundness.hints import hints_from
from tests.soundness.laboratory import CRASHED, REFUSED, CaseRecord, outcome, run_network
from tests.soundness.oracle import BY_COORDINATE, Verdict, judge
from tests.soundness.paths import FIRST, SECOND
from tests.soundness.shrink import shrink, source_of_test
from tests.soundness.tally import Tally

ROOT = Path(__file__).resolve().parents[2]
SEEDS, TRIALS = range(1), 4
WRONG_SOMEWHERE = (
    "lemma 2", "lemma 7", "proxies 0 and 1", "two halves apart", "discharged and joint", "opposite maxes", "crelu",
    "touched twice",
)  # fmt: skip
"""Traps that backward falls into in the slice, so that it has something to find."""
LEMMA_2 = Plan(
    ((3, 2),),
    (
        Step("v0", "linear", ("x0",), (2, False)),
        Step("v1", "relu", ("v0",)),
        Step("v2", "linear", ("v1",), (2, True)),
        Step("v3", "tanh", ("v2",)),
    ),
    forwards=2,
)
LEMMA_2_AT_0 = Point(
    {"v0.weight": [[0, 0], [0, 0]], "v2.weight": [[1, 0], [0, 1]], "v2.bias": [0, 0]},
    (([[1, 0], [-1, 0], [0, 1]],), ([[1, 0], [0, 1], [-1, 1]],)),
    ([[1, 2], [-1, 0], [2, 1]], [[0, 0], [1, 0], [0, 0]]),
)
"""relu(w) - relu(-w) in one forward, among other samples, outputs and layers."""


@pytest.fixture(scope="module")
def slice_of_all() -> Tally:
    """The fixed slice: a few networks of every family."""
    tally = Tally()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in FAMILIES:
        for seed in SEEDS:
            tally.add(run_network(name, seed, TRIALS))
    torch.set_num_threads(threads)
    return tally


def _told(records: list[CaseRecord]) -> str:
    return "\n".join(
        f"{r.family} {r.seed} {r.trial}: {r.verdict} {r.path} {r.reason} {r.oracle} {r.text}" for r in records
    )


# The claim ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_that_is_certified_is_wrong_and_nothing_crashes(slice_of_all: Tally) -> None:
    assert not slice_of_all.failures, _told(slice_of_all.failures)


@pytest.mark.slow
def test_the_oracle_does_not_contradict_itself(slice_of_all: Tally) -> None:
    assert not slice_of_all.contradictions, _told(slice_of_all.contradictions)


@pytest.mark.slow
def test_the_slice_takes_every_path_of_the_checker(slice_of_all: Tally) -> None:
    words = {word for word, _ in slice_of_all.paths}
    wanted = {"static smooth", "static T4", "static T6", "T1", "T5", "Algorithm 1", "Algorithm 2", "closed form",
              "rows by backward", "T_j", "T_j by backward", "frozen", "pre-check", FIRST, SECOND, "joint condition",
              "decomposition", "zero rows dropped", "parts: 1", "parts: 2", "parts: 3 or 4"}  # fmt: skip
    assert wanted <= words, wanted - words


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "name", "seed"),
    [
        ("LP", "rows:tied pools of few channels", 3), ("LP", "rows:one layer, two activations", 3),
        ("LP", "rows:maxima across channels", 5), ("Algorithm 2", "theorem:Algorithm 2", 1), ("T1", "theorem:T1", 0),
        ("T5", "theorem:T5", 0), ("sketch", "replay:more parameters than coordinates", 0),
    ],
)  # fmt: skip
def test_a_path_is_taken_and_right(word: str, name: str, seed: int) -> None:
    tally = Tally()
    tally.add(run_network(name, seed, 7))
    assert tally.paths[word, "inside"] and not tally.failures


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), [("rows:tied pools of few channels", 5), ("rows:of two forwards", 2)])
def test_the_linear_program_refutes(name: str, seed: int) -> None:
    assert any(r.reason.endswith("by linear program") for r in run_network(name, seed, 6))


@pytest.mark.slow
def test_families_hit_kinks_and_ties(slice_of_all: Tally) -> None:
    """The steps of a family that are looked at touch and tie exactly, if not in the slice then in the next networks."""
    idle = [n for n in FAMILIES if not slice_of_all.hits[n] and slice_of_all.count(n, oracle="")]
    assert len(idle) < 20
    assert not [n for n in idle if not _first(n, range(1, 8), lambda tally, n=n: tally.hits[n])]


def _first(name: str, seeds: range, found: Callable[[Tally], int]) -> bool:
    """Whether a count becomes positive within a few networks."""
    tally = Tally()
    for seed in seeds:
        tally.add(run_network(name, seed, 7))
        if found(tally):
            return not tally.failures
    return False


@pytest.mark.slow
@pytest.mark.parametrize("trap", WRONG_SOMEWHERE)
def test_a_trap_is_one(trap: str) -> None:
    name = f"trap:{trap}"
    assert _first(name, range(12), lambda tally: tally.wrong(name))


@pytest.mark.slow
def test_what_must_be_refused_is(slice_of_all: Tally) -> None:
    taken = [n for n, f in FAMILIES.items() if f.refused and slice_of_all.count(n) != slice_of_all.count(n, REFUSED)]
    assert not taken, taken


# Families ----------------------------------------------------------------------------------------


def test_there_are_many_families_and_their_networks_are_distinct_small_and_always_the_same() -> None:
    assert len(FAMILIES) >= 40
    for name, family in FAMILIES.items():
        plans = [family.plan(seed) for seed in range(10)]
        assert plans == [family.plan(seed) for seed in range(10)], name
        assert len({repr(p) for p in plans}) >= 4, name
        for plan in plans:
            assert eval(repr(plan), {"Plan": Plan, "Step": Step}) == plan
            assert Net(plan).trained() and parameters_of(Net(plan)) <= MOST_PARAMETERS, name


def test_a_point_is_always_the_same_and_made_of_small_integers() -> None:
    net = Net(FAMILIES["stack:signal"].plan(3))
    assert point_of(net, 5) == point_of(net, 5) != point_of(net, 6)
    net.load(point_of(net, 5))
    assert all(p.equal(p.round()) and p.abs().max() <= 3 for p in net.parameters())


# The laboratory ----------------------------------------------------------------------------------


def test_records_of_a_network_are_the_same_in_another_process() -> None:
    here = run_network("pool:1d", 1, 3)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(run_network, "pool:1d", 1, 3).result()
    assert here == there


def test_tallies_add_up() -> None:
    both, parts = Tally(), [Tally(), Tally()]
    for i, name in enumerate(("act:relu", "trap:lemma 7")):
        records = run_network(name, 0, 3)
        both.add(records)
        parts[i].add(records)
    parts[0].merge(parts[1])
    assert parts[0].cells == both.cells and parts[0].distinct == both.distinct and parts[0].cases == both.cases
    assert [t.title for t in both.tables()] == [t.title for t in parts[0].tables()]
    assert "| act:relu |" in "\n".join(t.markdown() for t in both.tables())


def test_what_is_owed_to_deciding_all_layers_together_is_counted_with_its_weight() -> None:
    """Of 8 right gradients, one is certified layer by layer; three are judged of a sample of one in five without a touch."""
    tally = Tally()
    tally.add([
        CaseRecord("certified", oracle="inside", touched=1),
        CaseRecord("certified", oracle="inside", touched=1, owed_to=SECOND),
        CaseRecord("certified", oracle="inside", owed_to=FIRST, weight=5),
        CaseRecord("uncertified", oracle="inside", ties=1, owed_to=FIRST),
        CaseRecord("certified", oracle="unsure", touched=1),
    ])  # fmt: skip
    rows = {name: (every, hits) for name, every, hits in tally._before_and_after().rows}
    assert rows == {
        "without the joint condition": ("1 (12.5%)", "1 (33.3%)"), "joint_seconds=0": ("6 (75.0%)", "1 (33.3%)"),
        "first look only": ("6 (75.0%)", "1 (33.3%)"), "as it is": ("7 (87.5%)", "2 (66.7%)"),
    }  # fmt: skip


def test_a_decomposition_hints_at_each_of_its_directions_alone() -> None:
    """|w1| + |w2| at 0 is a mixture of gradients on two sides; the layers' own directions would be one hint."""
    model, one = Scalars(lambda s, x: (s.w * x).abs().sum(), w=[0.0, 0.0]), torch.ones(1, dtype=torch.float64)
    step = step_of(fxcheck.instrument(model, (one,)), one)
    hints = hints_from(step.certificate, list(model.named_parameters()))
    assert len(hints) == 2 and all(len(hint) == 1 for hint in hints)
    (a,), (b,) = hints
    assert (a.shape, abs(a).max()) == ((2,), 1) and (a * b < 0).all()


def test_mixed_picks_of_a_layer_hint_at_each_part_alone() -> None:
    """max(p, q) + 3 max(q, p): AD's picks pull apart, and a direction for both at once would be none."""
    model, x = Pooled((1.0, 3.0)), patches(P, Q, Q, P)
    step = step_of(fxcheck.instrument(model, (x,)), x)
    assert step.theorem == "T8" and step.subdifferential == "clarke"
    hints = hints_from(step.certificate, list(model.named_parameters()))
    assert len(hints) == 2 and all(len(hint) == 1 for hint in hints)
    difference = torch.tensor(P) - torch.tensor(Q)
    assert sorted(float(difference.double().numpy() @ hint[0]) > 0 for hint in hints) == [False, True]


def test_a_small_coordinate_is_judged_by_its_own_size() -> None:
    """AD gives 0 where both sides have slope 1e-9, beside a coordinate of size 1."""
    a, b = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    one = torch.ones(1, dtype=torch.float64)

    def value() -> torch.Tensor:
        return (b * one + 1e-9 * (torch.relu(a * one) - torch.relu(-(a * one)))).sum()

    found = judge([a, b], value)
    assert (found.verdict, found.by) == (Verdict.OUTSIDE, BY_COORDINATE)


def test_a_gradient_that_is_not_the_networks_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.soundness.laboratory.Bench.differs", lambda self, point: 1.0)
    assert outcome(LEMMA_2, LEMMA_2_AT_0).verdict == CRASHED


# The shrinker ------------------------------------------------------------------------------------


@pytest.fixture
def credulous(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: what cannot be certified is certified."""

    def certify(step: SimpleNamespace, reason: str, text: str) -> None:
        step.verdict, step.theorem = "certified", "T8"

    monkeypatch.setattr(conclude, "_refuse", certify)


def test_lemma_2_is_not_certified() -> None:
    found = outcome(LEMMA_2, LEMMA_2_AT_0)
    assert found.verdict != "certified" and found.oracle == "outside"


@pytest.mark.slow
def test_a_planted_unsound_verdict_is_found_shrunk_and_written(credulous: None) -> None:
    assert outcome(LEMMA_2, LEMMA_2_AT_0).is_unsound
    plan, point = shrink(LEMMA_2, LEMMA_2_AT_0, seconds=60)
    assert outcome(plan, point).is_unsound
    assert len(plan.steps) <= 2 and plan.forwards == 1 and plan.shapes[0][0] <= 2
    assert sum(p.numel() for p in Net(plan).parameters()) <= 2
    text = source_of_test(plan, point, "Lemma 2.")
    names: dict = {}
    exec(compile(text, "test_found.py", "exec"), names)
    with pytest.raises(AssertionError):
        names["test_backward_is_right_where_the_step_is_certified"]()


def test_a_written_test_runs_by_itself_and_passes_once_the_fault_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "test_found.py"
    path.write_text(source_of_test(LEMMA_2, LEMMA_2_AT_0, "Lemma 2."), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), str(path)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_a_crash_says_what_crashed_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("vector")

    monkeypatch.setattr("tests.soundness.laboratory.hints_from", fail)
    monkeypatch.setattr("tests.soundness.oracle._Trial.judgement", fail)
    found = run_network("trap:lemma 7", 0, 2)
    assert [r.verdict for r in found].count(CRASHED) >= 1
    assert all(r.reason == "KeyError: 'vector' (in fail of test_laboratory.py)" for r in found if r.verdict == CRASHED)
    tally = Tally()
    tally.add(found)
    assert "KeyError: 'vector' (in fail of test_laboratory.py)" in tally._to_read().markdown()
