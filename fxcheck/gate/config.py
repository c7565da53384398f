"""``[tool.fxcheck]`` of pyproject.toml, or fxcheck.toml: from TOML to typed records."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fxcheck.errors import UsageError
from fxcheck.gate.table import Table
from fxcheck.records.gate_config import GateConfig, GateEntry, Ignore, Require
from fxcheck.records.target_spec import TargetSpec

OWN_FILE, PROJECT_FILE = "fxcheck.toml", "pyproject.toml"
_SHARED = ("require", "mode", "batch_size", "meta", "ignore")
_TOP = ("models", "baseline", *_SHARED)
_MODEL = ("name", "target", "inputs", "args", "loss", "loss_target", *_SHARED)
_MODES, _REQUIREMENTS = ("train", "eval", "keep"), tuple(map(str, Require))
_EXAMPLE = 'models = [{target = "package.module:attribute", inputs = ["8x3x224x224"]}]'


def find_config(given: str | None = None) -> GateConfig:
    """Read the file given, else fxcheck.toml or pyproject.toml of the working directory.

    Args:
        given: path of ``--config``; a file named pyproject.toml holds ``[tool.fxcheck]``, any other the keys at its top.

    Returns:
        The configuration; an empty one, without source, when no file was given and none is there.

    Raises:
        UsageError: a file that cannot be read or holds something wrong; or both files configure fxcheck.
    """
    if given is not None:
        values = _section(given)
        if values is None:
            raise UsageError(f"{given} has no [tool.fxcheck]", hint=f"add [tool.fxcheck] with {_EXAMPLE}")
        return read_config(values, given)
    own = _section(OWN_FILE) if Path(OWN_FILE).is_file() else None
    project = _section(PROJECT_FILE) if Path(PROJECT_FILE).is_file() else None
    if own is not None and project is not None:
        raise UsageError(
            f"{OWN_FILE} and [tool.fxcheck] of {PROJECT_FILE} both configure the gate, and only one can",
            hint="keep one of them, or name it with --config",
        )
    if own is not None:
        return read_config(own, OWN_FILE)
    return GateConfig() if project is None else read_config(project, PROJECT_FILE)


def read_config(values: Any, file: str) -> GateConfig:
    """Turn a parsed configuration into records.

    Args:
        values: what stands under ``[tool.fxcheck]``.
        file: where it was read, for messages.

    Raises:
        UsageError: an unknown key, a wrong value, or two models of one name; the message says what and where.
    """
    top = Table(values, file, "tool.fxcheck" if Path(file).name == PROJECT_FILE else "")
    top.refuse_unknown(_TOP)
    defaults = GateEntry("", _shared_spec(top, TargetSpec("")), _require(top, Require.RUNTIME))
    models = top.tables("models", _EXAMPLE)
    entries = tuple(_entry(model, defaults) for model in models)
    _refuse_twins(entries, file)
    ignores = _ignores(top, "")
    for model, entry in zip(models, entries, strict=True):
        ignores += _ignores(model, entry.name)
    return GateConfig(entries, tuple(ignores), top.text("baseline", "fxcheck-baseline.json"), file, defaults)


def _section(file: str) -> Any:
    """The parsed part of a file that is about fxcheck; None for a pyproject.toml that has none."""
    try:
        parsed = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {file}: {error.strerror or error}",
                         hint="check the path, relative to the current directory") from error  # fmt: skip
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not TOML: {error}", hint="correct that line") from error
    if Path(file).name != PROJECT_FILE:
        return parsed
    tools = parsed.get("tool", {})
    return tools.get("fxcheck") if isinstance(tools, Mapping) else None


def _entry(model: Table, defaults: GateEntry) -> GateEntry:
    model.refuse_unknown(_MODEL)
    target = model.required_text("target", "package.module:attribute")
    shared = _shared_spec(model, defaults.spec)
    loss, loss_target = model.text("loss", "torch.nn.functional:mse_loss"), model.text("loss_target", "8x10")
    if loss_target and not loss:
        raise model.wrong("loss_target", "a loss that it is the target of", 'loss = "torch.nn.functional:mse_loss"')
    spec = TargetSpec(
        target, model.table("args"), _inputs(model), shared.mode, loss, loss_target, shared.batch_size,
        meta=shared.meta, mode_was_given=shared.mode_was_given,
    )  # fmt: skip
    return GateEntry(model.text("name", "resnet18") or target, spec, _require(model, defaults.require))


def _shared_spec(table: Table, otherwise: TargetSpec) -> TargetSpec:
    mode, meta = table.choice("mode", _MODES), table.flag("meta")
    return TargetSpec(
        "", mode=mode or otherwise.mode, batch_size=table.count("batch_size") or otherwise.batch_size,
        meta=otherwise.meta if meta is None else meta, mode_was_given=mode is not None,
    )  # fmt: skip


def _require(table: Table, otherwise: Require) -> Require:
    found = table.choice("require", _REQUIREMENTS)
    return otherwise if found is None else Require(found)


def _inputs(model: Table) -> tuple[str, ...]:
    """A list of shapes for positional inputs, or a table of them for keyword inputs, as values of ``--input``."""
    found = model.values.get("inputs", [])
    shapes = list(found.values()) if isinstance(found, Mapping) else found
    if not isinstance(shapes, list) or not all(isinstance(shape, str) for shape in shapes):
        wanted = "a list of shapes, or a table of shapes by keyword"
        raise model.wrong("inputs", wanted, 'inputs = ["8x3x224x224"], or inputs = {ids = "4x16:int64"}')
    return tuple(f"{n}={s}" for n, s in found.items()) if isinstance(found, Mapping) else tuple(shapes)


def _ignores(table: Table, model: str) -> list[Ignore]:
    found = []
    for item in table.tables("ignore", 'ignore = [{layer = "layer1.*", code = "FX101", reason = "..."}]'):
        item.refuse_unknown(("layer", "code", "reason"))
        found.append(Ignore(item.required_text("layer", "layer1.*"), item.required_text("code", "FX101"),
                            item.required_text("reason", "why this is harmless"), model))  # fmt: skip
    return found


def _refuse_twins(entries: tuple[GateEntry, ...], file: str) -> None:
    seen: dict[str, GateEntry] = {}
    for entry in entries:
        if entry.name in seen:
            raise UsageError(
                f"{file}: two models are called {entry.name!r}, and the baseline could not tell them apart",
                hint=f'give one of them another name, as name = "{entry.name} with loss"',
            )
        seen[entry.name] = entry
