"""The run as a whole, with the analysis replaced: failures stay apart, the baseline and ignores fit the selection."""

from __future__ import annotations

import sys
import weakref
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from fxcheck.errors import TargetError
from fxcheck.gate.baseline import Baseline
from fxcheck.gate.run import Watch, run
from fxcheck.records.gate_config import GateConfig, GateEntry, Ignore, Require
from fxcheck.records.report import Report
from fxcheck.records.target_spec import TargetSpec
from tests.gate.made import layer, report


class Weights:
    """Stands for a model: something that must not outlive its turn."""


alive: list[weakref.ref[Weights]] = []


def _answer(spec: TargetSpec) -> Report:
    """Targets are named after what happens to them; a model is alive meanwhile, in a file's module and in frames."""
    assert not any(one() for one in alive), "a model before this one is still in memory"
    weights = Weights()
    weights.itself = weights  # type: ignore[attr-defined]
    alive.append(weakref.ref(weights))
    module = ModuleType("_fxcheck_target_model")
    module.model = weights  # type: ignore[attr-defined]
    sys.modules["_fxcheck_target_model"] = module
    if spec.target == "raises":
        raise TargetError("it raised", hint="repair it")
    if spec.target == "crashes":
        raise ZeroDivisionError("inside the model")
    if spec.target == "exits":
        sys.exit(3)
    return report(layer("a", spec.target, "FX101"))


@pytest.fixture(autouse=True)
def replaced_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    alive.clear()
    monkeypatch.setitem(sys.modules, "fxcheck.api", SimpleNamespace(analyze_target=_answer))


def config(*targets: str, require: Require = Require.CERTIFIED, **more: object) -> GateConfig:
    return GateConfig(tuple(GateEntry(t, TargetSpec(t), require) for t in targets), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("targets", "status"),
    [
        (["certified"], 0),
        (["runtime"], 1),
        (["certified", "uncovered"], 1),
        (["raises", "certified"], 2),
        (["uncovered", "crashes"], 2),
        (["exits", "runtime", "certified"], 2),
    ],
)
def test_each_model_is_judged_whatever_happens_to_the_others(targets: list[str], status: int) -> None:
    result, _ = run(config(*targets))
    assert result.status == status
    assert [m.name for m in result.models] == targets
    broken = [m.name for m in result.models if m.error is not None]
    assert broken == [t for t in targets if t in ("raises", "crashes", "exits")]


def test_no_model_is_kept_while_the_next_is_analysed() -> None:
    run(config("certified", "raises", "crashes", "exits", "runtime", "certified"))
    assert "_fxcheck_target_model" not in sys.modules
    assert len(alive) == 6 and not any(one() for one in alive)


def test_an_interruption_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(spec: TargetSpec) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "fxcheck.api", SimpleNamespace(analyze_target=interrupt))
    with pytest.raises(KeyboardInterrupt):
        run(config("certified"))


def test_the_caller_hears_who_begins_and_who_fails() -> None:
    heard: list[str] = []
    run(config("certified", "raises"), watch=Watch(begin=heard.append, fail=lambda n, e: heard.append(f"{n}: {e}")))
    assert heard == ["certified", "raises", "raises: it raised\n  try: repair it"]


@pytest.mark.parametrize(("require", "count"), [(Require.NEVER, 0), (Require.RUNTIME, 0), (Require.CERTIFIED, 1)])
def test_only_findings_below_what_is_required_are_listed(require: Require, count: int) -> None:
    result, _ = run(config("runtime", require=require))
    assert len(result.findings) == count


def test_a_run_against_its_own_baseline_passes() -> None:
    _, known = run(config("runtime", "uncovered"))
    result, again = run(config("runtime", "uncovered"), known)
    assert (result.status, result.stale, again) == (0, (), known)


def test_applying_a_new_baseline_makes_its_findings_known() -> None:
    result, updated = run(config("runtime"))
    assert updated.applied(result).status == 0


class TestStale:
    def known(self) -> Baseline:
        return run(config("runtime", "uncovered"))[1]

    def test_what_is_not_found_again_is_stale_once_its_model_was_analysed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known = self.known()
        clean = SimpleNamespace(analyze_target=lambda spec: report(layer("a", "certified")))
        monkeypatch.setitem(sys.modules, "fxcheck.api", clean)
        result, updated = run(config("runtime", "uncovered"), known)
        assert [key[0] for key in result.stale] == ["runtime", "uncovered"]
        assert updated.known == {}

    def test_models_outside_a_selection_keep_their_entries(self) -> None:
        result, updated = run(config("runtime", whole=False), self.known())
        assert (result.stale, {key[0] for key in updated.known}) == ((), {"runtime", "uncovered"})

    def test_models_that_left_the_configuration_lose_them(self) -> None:
        result, updated = run(config("runtime"), self.known())
        assert ([key[0] for key in result.stale], {key[0] for key in updated.known}) == (["uncovered"], {"runtime"})

    def test_a_model_that_fails_keeps_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known = self.known()

        def broken(spec: TargetSpec) -> Report:
            raise ValueError

        monkeypatch.setitem(sys.modules, "fxcheck.api", SimpleNamespace(analyze_target=broken))
        result, updated = run(config("runtime", "uncovered"), known)
        assert (result.stale, updated) == ((), known)

    def test_asking_for_less_makes_nothing_stale(self) -> None:
        result, _ = run(config("runtime", "uncovered", require=Require.NEVER), self.known())
        assert result.stale == ()


class TestUnusedIgnores:
    UNUSED = (Ignore("gone", "FX101", "because"),)

    def test_they_are_reported_when_all_models_were_analysed(self) -> None:
        assert len(run(config("runtime", ignores=self.UNUSED))[0].unused_ignores) == 1

    def test_they_are_not_judged_by_a_part_of_the_models(self) -> None:
        assert run(config("runtime", ignores=self.UNUSED, whole=False))[0].unused_ignores == ()
        assert run(config("runtime", "raises", ignores=self.UNUSED))[0].unused_ignores == ()

    def test_asking_for_less_makes_none_unused(self) -> None:
        used = (Ignore("a", "FX101", "because"),)
        assert run(config("runtime", ignores=used, require=Require.NEVER))[0].unused_ignores == ()


def test_a_comment_in_a_users_file_is_found_through_the_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("x = f(x)\ny = g(y)  # fxcheck: ignore[FX101] old\n")
    made = report(layer("a", "runtime", "FX101", line=1, source="x = f(x)"))
    monkeypatch.setitem(sys.modules, "fxcheck.api", SimpleNamespace(analyze_target=lambda spec: made))
    result, _ = run(config("m"))
    assert result.unused_ignores == ("net.py:2: fxcheck: ignore[FX101] matches nothing; remove it",)
