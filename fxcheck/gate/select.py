"""Which models a run of the gate is about: all that the configuration lists, or the TARGETs given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fxcheck.errors import UsageError
from fxcheck.gate.config import OWN_FILE, PROJECT_FILE
from fxcheck.records.gate_config import GateConfig, GateEntry, Require
from fxcheck.records.target_spec import TargetSpec


def selected(config: GateConfig, targets: Sequence[str], given: TargetSpec | None) -> GateConfig:
    """The configuration with the entries that are to be run.

    Args:
        config: what was read.
        targets: names or targets of configured models, or targets of their own; none for all configured models.
        given: the flags of the command line that describe a target; None when there are none.

    Raises:
        UsageError: nothing to analyse, or flags that describe no target.
    """
    if not targets:
        if not config.entries:
            raise _nothing(config)
        if given is not None:
            raise UsageError("flags such as --input describe TARGETs, and none was given",
                             hint="name a TARGET, or put inputs = [...] into the configuration")  # fmt: skip
        return config
    chosen = {entry.name: entry for target in targets for entry in _for(target, config, given)}
    whole = all(entry.name in chosen for entry in config.entries)
    return replace(config, entries=tuple(chosen.values()), whole=whole)


def _for(target: str, config: GateConfig, given: TargetSpec | None) -> list[GateEntry]:
    named = [e for e in config.entries if target in (e.name, e.spec.target)]
    if named and given is None:
        return named
    spec = given or config.defaults.spec
    return [GateEntry(target, replace(spec, target=target), config.defaults.require)]


def requiring(config: GateConfig, fail_on: str | None) -> GateConfig:
    """The configuration under ``--fail-on``, which wins over every ``require``."""
    if fail_on is None:
        return config
    strict = {"uncovered": Require.RUNTIME, "runtime": Require.CERTIFIED, "never": Require.NEVER}[fail_on]
    return replace(config, entries=tuple(replace(e, require=strict) for e in config.entries))


def unpickling(config: GateConfig) -> GateConfig:
    """The configuration under ``--allow-pickle``, which no file can ask for."""
    entries = (replace(e, spec=replace(e.spec, allow_pickle=True)) for e in config.entries)
    return replace(config, entries=tuple(entries))


def _nothing(config: GateConfig) -> UsageError:
    where = f"{config.source} lists no models" if config.source else (
        f"no TARGET was given, and neither {OWN_FILE} nor [tool.fxcheck] of {PROJECT_FILE} is in this directory"
    )  # fmt: skip
    return UsageError(
        f"nothing to analyse: {where}",
        hint="fxcheck gate path/model.py, or "
        'models = [{target = "package.module:attribute", inputs = ["8x3x224x224"]}] in the configuration',
    )
