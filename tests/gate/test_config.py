"""A configuration becomes typed records; whatever is wrong in it is one message with what, where, wanted, try."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fxcheck.errors import UsageError
from fxcheck.gate.config import find_config, read_config
from fxcheck.gate.select import requiring, selected
from fxcheck.records.gate_config import GateConfig, Ignore, Require
from fxcheck.records.target_spec import TargetSpec

FULL = """
require = "certified"
mode = "eval"
baseline = "known.json"
ignore = [{layer = "head.*", code = "FX301", reason = "one pool"}]

[[models]]
name = "small"
target = "nets:Small"
inputs = ["2x3", "2:int64"]
args = {depth = 3}
loss = "torch.nn:L1Loss"
loss_target = "none"
batch_size = 2
meta = true
require = "smooth"
ignore = [{layer = "*", code = "FX101", reason = "frozen"}]

[[models]]
target = "nets:Text"
inputs = {ids = "2x4:int64"}
mode = "train"
"""


def read(text: str, file: str = "fxcheck.toml") -> GateConfig:
    return read_config(tomllib.loads(text), file)


def test_every_key_arrives_in_its_record() -> None:
    config = read(FULL)
    small, text = config.entries
    assert (small.name, small.require) == ("small", Require.SMOOTH)
    assert small.spec == TargetSpec(
        "nets:Small", {"depth": 3}, ("2x3", "2:int64"), "eval", "torch.nn:L1Loss", "none", 2, meta=True
    )
    assert (text.name, text.require) == ("nets:Text", Require.CERTIFIED)
    assert (text.spec.inputs, text.spec.mode, text.spec.mode_was_given) == (("ids=2x4:int64",), "train", True)
    assert config.ignores == (Ignore("head.*", "FX301", "one pool"), Ignore("*", "FX101", "frozen", "small"))
    assert config.baseline == "known.json"


def test_an_uncovered_model_fails_where_nothing_is_required() -> None:
    (entry,) = read('models = [{target = "m.py"}]').entries
    assert entry.require is Require.RUNTIME


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("modls = []", ("unknown key 'modls'", "known are models", "models = ...")),
        ('requires = "smooth"', ("unknown key 'requires'", "require = ...")),
        ("zzz = 1", ("unknown key 'zzz'", "remove it")),
        ('models = [{target = "m", input = []}]', ("models[0].input", "inputs = ...")),
        ("models = [{}]", ("models[0] has no target", "try: add target")),
        ('models = [{target = " "}]', ("has no target",)),
        ('models = ["m.py"]', ("models[0] is 'm.py'; wanted a table",)),
        ('models = "m.py"', ("models is 'm.py'; wanted a list of tables", "try: models = [{")),
        ('models = [{target = 3}]', ("models[0].target is 3; wanted text",)),
        ('require = "certifed"', ("require is 'certifed'; wanted smooth, certified, runtime or never", '"certified"')),
        ("require = true", ("require is True",)),
        ("require = [1]", ("require is [1]",)),
        ('mode = "fast"', ("mode is 'fast'; wanted train, eval or keep",)),
        ("batch_size = 0", ("batch_size is 0",)),
        ("batch_size = true", ("batch_size is True",)),
        ('meta = "yes"', ("meta is 'yes'; wanted true or false",)),
        ('models = [{target = "m", inputs = "2x3"}]', ("inputs is '2x3'; wanted a list of shapes",)),
        ('models = [{target = "m", inputs = [3]}]', ("inputs is [3]",)),
        ('models = [{target = "m", args = [3]}]', ("args is [3]; wanted a table",)),
        ('models = [{target = "m", loss_target = "none"}]', ("loss_target is 'none'; wanted a loss", "try: loss = ")),
        ('ignore = [{layer = "a", code = "FX101"}]', ("ignore[0] has no reason",)),
        ('ignore = [{layer = "a", code = "FX101", reason = ""}]', ("has no reason",)),
        ('ignore = [{layr = "a", code = "FX101", reason = "b"}]', ("ignore[0].layr", "layer = ...")),
        ('models = [{target = "m"}, {target = "m"}]', ("two models are called 'm'", "another name")),
    ],
)
def test_a_wrong_entry_is_refused_with_where_and_what_to_do(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as raised:
        read(text)
    message = str(raised.value)
    assert message.startswith("fxcheck.toml: ") and "\n  try: " in message
    for part in parts:
        assert part in message


def test_keys_of_a_project_file_are_named_from_its_top() -> None:
    with pytest.raises(UsageError, match=r"pyproject.toml: unknown key 'tool.fxcheck.modles'"):
        read("modles = []", "pyproject.toml")


class TestFinding:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_no_file_is_an_empty_configuration(self) -> None:
        assert find_config() == GateConfig()

    def test_a_project_file_of_others_is_none(self) -> None:
        Path("pyproject.toml").write_text("[tool.ruff]\n")
        assert find_config().source == ""

    def test_either_file_is_found(self) -> None:
        Path("pyproject.toml").write_text('[tool.fxcheck]\nmodels = [{target = "a"}]\n')
        assert [e.name for e in find_config().entries] == ["a"]
        Path("pyproject.toml").write_text("[project]\n")
        Path("fxcheck.toml").write_text('models = [{target = "b"}]\n')
        assert [e.name for e in find_config().entries] == ["b"]

    def test_both_files_are_refused_unless_one_is_named(self) -> None:
        Path("pyproject.toml").write_text('[tool.fxcheck]\nmodels = [{target = "a"}]\n')
        Path("fxcheck.toml").write_text('models = [{target = "b"}]\n')
        with pytest.raises(UsageError, match="both configure"):
            find_config()
        assert [e.name for e in find_config("pyproject.toml").entries] == ["a"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [("models = [", "is not TOML"), ("[tool]\nfxcheck = 3\n", "is 3; wanted a table"), ("[tool.x]\n", "has no")],
    )
    def test_a_file_that_cannot_be_used_is_refused(self, text: str, message: str) -> None:
        Path("pyproject.toml").write_text(text)
        with pytest.raises(UsageError, match=message):
            find_config("pyproject.toml")

    def test_a_missing_file_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"cannot read the configuration gone\.toml"):
            find_config("gone.toml")


class TestSelecting:
    def test_all_configured_models_run_when_no_target_is_given(self) -> None:
        config = read(FULL)
        assert selected(config, (), None) == config

    def test_a_name_selects_and_anything_else_is_a_target_under_the_defaults(self) -> None:
        chosen = selected(read(FULL), ["small", "other.py", "small"], None)
        assert [(e.name, e.require, e.spec.mode) for e in chosen.entries] == [
            ("small", Require.SMOOTH, "eval"), ("other.py", Require.CERTIFIED, "eval")
        ]  # fmt: skip
        assert not chosen.whole

    def test_flags_describe_targets(self) -> None:
        (entry,) = selected(GateConfig(), ["m.py"], TargetSpec("", inputs=("2x3",))).entries
        assert entry.spec == TargetSpec("m.py", inputs=("2x3",))

    def test_flags_without_a_target_are_refused(self) -> None:
        with pytest.raises(UsageError, match="describe TARGETs"):
            selected(read(FULL), (), TargetSpec("", inputs=("2x3",)))

    @pytest.mark.parametrize("config", [GateConfig(), read("require = 'smooth'")])
    def test_nothing_to_analyse_is_refused(self, config: GateConfig) -> None:
        with pytest.raises(UsageError, match="nothing to analyse"):
            selected(config, (), None)

    @pytest.mark.parametrize(
        ("flag", "require"),
        [("uncovered", Require.RUNTIME), ("runtime", Require.CERTIFIED), ("never", Require.NEVER)],
    )
    def test_a_flag_wins_over_the_configuration(self, flag: str, require: Require) -> None:
        assert {e.require for e in requiring(read(FULL), flag).entries} == {require}
