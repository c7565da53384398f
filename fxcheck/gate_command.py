"""``fxcheck gate``: flags to a configuration, a configuration to a result, a result to files and an exit status."""

from __future__ import annotations

import traceback
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from fxcheck import flags
from fxcheck.errors import UsageError, explained
from fxcheck.flags import FailOn, Mode
from fxcheck.streams import complain, progress, quiet, show_statistics, use_color, write

if TYPE_CHECKING:
    from fxcheck.gate.baseline import Baseline
    from fxcheck.records.gate import GateResult
    from fxcheck.records.gate_config import GateConfig
    from fxcheck.records.target_spec import TargetSpec


def gate(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET]...", help="Names of configured models, or TARGETs as analyze takes them."),
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="Instead of fxcheck.toml or [tool.fxcheck] of pyproject.toml.")
    ] = None,
    arg: flags.Arg = None,
    input_: flags.Input = None,
    mode: flags.ModeFlag = None,
    loss: flags.Loss = None,
    target: flags.LossTarget = None,
    batch_size: flags.BatchSize = None,
    meta: flags.Meta = False,
    allow_pickle: flags.AllowPickle = False,
    fail_on: Annotated[
        FailOn | None, typer.Option(help="Exit with status 1 on this verdict or a weaker one; wins over every require.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(metavar="FILE", help="Findings listed here are known.")] = None,
    update_baseline: Annotated[bool, typer.Option("--update-baseline", help="Write the baseline anew.")] = False,
    torch_proxies: Annotated[
        str | None, typer.Option(metavar="OLD.json", help="Say what changed since these proxies of another torch.")
    ] = None,
    statistics: flags.Statistics = False,
    form: flags.Form = None,
    output: flags.Outputs = None,
    debug: flags.Debug = False,
) -> None:
    """Hold models to what their configuration requires; for continuous integration."""
    from fxcheck.gate.config import find_config
    from fxcheck.gate.select import requiring, selected, unpickling
    from fxcheck.render.formats import write_all

    given = _given(arg, input_, mode, loss, target, batch_size, meta)
    asked = requiring(selected(find_config(config), targets or (), given), fail_on and str(fail_on))
    asked = unpickling(asked) if allow_pickle else asked
    path = baseline or asked.baseline
    result, updated = _run(asked, _known(path, update_baseline), torch_proxies, debug)
    if update_baseline and path:
        write(updated.to_json(), path)
        result = updated.applied(result)
        complain(f"known findings written to {path}: {sum(known.count for known in updated.known.values())}")
    write_all(result, output or (), form and str(form), color=use_color())
    if statistics:
        show_statistics(result.statistics())
    raise typer.Exit(result.status)


def _given(
    arg: list[str] | None, inputs: list[str] | None, mode: Mode | None, loss: str | None, target: str | None,
    batch_size: int | None, meta: bool,
) -> TargetSpec | None:  # fmt: skip
    """What the flags say about a TARGET; None when they say nothing."""
    from fxcheck.records.target_spec import TargetSpec

    if not any((arg, inputs, mode, loss, target, batch_size, meta)):
        return None
    return TargetSpec(
        "", flags.literals(arg), tuple(inputs or ()), str(mode or Mode.TRAIN), loss, target, batch_size, meta=meta,
        mode_was_given=mode is not None,
    )  # fmt: skip


def _known(path: str | None, will_be_written: bool) -> Baseline:
    from pathlib import Path

    from fxcheck.gate.baseline import Baseline, read_baseline

    if will_be_written and path is None:
        raise UsageError("--update-baseline has no file to write", hint="give one with --baseline FILE")
    if path is None or (will_be_written and not Path(path).exists()):
        return Baseline()
    return read_baseline(path)


def _run(config: GateConfig, known: Baseline, torch_proxies: str | None, debug: bool) -> tuple[GateResult, Baseline]:
    from fxcheck.gate.run import Watch, run
    from fxcheck.records.proxy_table import read_table

    old = read_table(torch_proxies) if torch_proxies else None

    def fail(name: str, error: Exception) -> None:
        if debug:
            traceback.print_exception(error)
        complain(f"{name}: {explained(error)}")

    with progress(len(config.entries)) as begin:
        return run(config, known, old_proxies=old, watch=Watch(partial(quiet, debug), begin, fail))
