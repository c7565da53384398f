"""The command line: arguments to the API, results to a renderer, verdicts to an exit status."""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

import fxcheck
from fxcheck import flags
from fxcheck.errors import FxcheckError, explained
from fxcheck.flags import FailOn, Mode
from fxcheck.gate_command import gate
from fxcheck.streams import complain, quiet, show_statistics, use_color, write

if TYPE_CHECKING:
    from fxcheck.lp.recheck import Recheck
    from fxcheck.records.certificate import Certificate
    from fxcheck.records.report import FailedTarget, Report
    from fxcheck.records.target_spec import TargetSpec

FELL_SHORT, COULD_NOT, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="fxcheck",
    help="Is the gradient that PyTorch's backward() returns a Clarke subgradient?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status: 0, 1 (falls short), 2 (could not do its work) or 130 (Ctrl-C)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_status(given))


def _status(given: list[str]) -> int:
    try:
        status = app(args=given, prog_name="fxcheck", standalone_mode=False) or 0
        if status == INTERRUPTED:  # how typer reports Ctrl-C
            complain("interrupted")
        return status
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return INTERRUPTED
    except FxcheckError as error:
        complain(str(error))
    except Exception as error:
        if not hasattr(error, "format_message"):
            complain(str(explained(error)))
        elif type(error).__name__ != "NoArgsIsHelpError":
            message = error.format_message().replace("Value error, ", "")
            complain(f"{message}\n  try: fxcheck --help, or --help after the command")
        else:
            sys.stderr.write(f"{error.format_message()}\n")
    if "--debug" in given:
        traceback.print_exc()
    return COULD_NOT


def _print_version(wanted: bool) -> None:
    if wanted:
        python = ".".join(map(str, sys.version_info[:3]))
        sys.stdout.write(f"fxcheck {fxcheck.__version__} (torch {_version_of('torch')}, Python {python})\n")
        raise typer.Exit


def _version_of(distribution: str) -> str:
    """The installed version, read from the metadata without an import."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# analyze ---------------------------------------------------------------------------------------


@app.command()
def analyze(
    targets: Annotated[list[str], typer.Argument(metavar="TARGET...", help=flags.TARGET_HELP)],
    arg: flags.Arg = None,
    input_: flags.Input = None,
    mode: flags.ModeFlag = None,
    loss: flags.Loss = None,
    target: flags.LossTarget = None,
    batch_size: flags.BatchSize = None,
    proxies: Annotated[
        str | None, typer.Option(metavar="FILE", help="Classify with saved proxies, not the installed torch's.")
    ] = None,
    numeric: Annotated[bool, typer.Option("--numeric", help="Also compare backward with finite differences.")] = False,
    meta: flags.Meta = False,
    allow_pickle: flags.AllowPickle = False,
    form: flags.Form = None,
    output: flags.Outputs = None,
    fail_on: Annotated[FailOn, typer.Option(help="Exit with status 1 on this verdict or a weaker one.")] = FailOn.NEVER,
    all_layers: Annotated[bool, typer.Option("--all", help="One row for each layer.")] = False,
    statistics: flags.Statistics = False,
    debug: flags.Debug = False,
) -> None:
    """Report statically where backward() returns a Clarke subgradient, and by which theorem."""
    from fxcheck.records.target_spec import TargetSpec
    from fxcheck.render.flat import statistics as counted
    from fxcheck.render.formats import write_all

    literals, chosen = flags.literals(arg), mode or Mode.TRAIN
    specs = [
        TargetSpec(t, literals, tuple(input_ or ()), str(chosen), loss, target, batch_size, proxies, numeric, meta,
                   mode is not None, allow_pickle)
        for t in targets
    ]  # fmt: skip
    results = [_analyze_one(spec, debug, alone=len(specs) == 1) for spec in specs]
    write_all(results, output or (), form and str(form), all_layers=all_layers, color=use_color())
    if statistics:
        show_statistics(counted(results))
    raise typer.Exit(max(_result_status(r, fail_on) for r in results))


def _analyze_one(spec: TargetSpec, debug: bool, *, alone: bool) -> Report | FailedTarget:
    from fxcheck.gate.attempt import attempt, failed

    try:
        with quiet(debug):
            return attempt(spec)
    except Exception as error:
        if alone:
            raise
        if debug:
            traceback.print_exception(error)
        complain(f"{spec.target}: {explained(error)}")
        return failed(spec.target, error)


def _result_status(result: Report | FailedTarget, fail_on: FailOn) -> int:
    from fxcheck.records.finding import Verdict
    from fxcheck.records.report import FailedTarget

    if isinstance(result, FailedTarget):
        return COULD_NOT
    if fail_on is FailOn.NEVER:
        return 0
    return FELL_SHORT if result.verdict.rank >= Verdict(str(fail_on)).rank else 0


# gate ------------------------------------------------------------------------------------------

app.command()(gate)


# proxies ---------------------------------------------------------------------------------------


@app.command()
def proxies(
    ops: Annotated[list[str] | None, typer.Argument(metavar="[OP]...", help="Operators; all if none is given.")] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="Dtype to measure (default float32, or those of OLD.json); repeatable.")
    ] = None,
    diff: Annotated[
        str | None, typer.Option(metavar="OLD.json", help="Say what changed since these proxies were saved.")
    ] = None,
    form: flags.TableForm = flags.TableFormat.RICH,
    output: flags.Output = None,
    debug: flags.Debug = False,
) -> None:
    """Measure what the installed torch's backward() returns at kinks, and the slopes beside them."""
    from fxcheck.render.proxies import render_changes, render_table

    with quiet(debug):
        import fxcheck.ops.proxies as measured

        old = measured.load(diff) if diff else None
        asked = dtype or (dict.fromkeys(row.dtype for row in old.rows) if old else ["float32"])
        new = measured.catalogue(ops or None, tuple(asked))
        changes = () if old is None else measured.diff(old, new)
    if old is None:
        write(render_table(new, str(form), color=use_color(output)), output)
    else:
        write(render_changes(old.torch, new.torch, changes, str(form), color=use_color(output)), output)


# explain ---------------------------------------------------------------------------------------


@app.command()
def explain(
    name: Annotated[
        str | None, typer.Argument(metavar="[CODE|THEOREM]", help="As FX101 or T6; without it, all names are listed.")
    ] = None,
) -> None:
    """What a diagnostic or a theorem means, why it matters, and how to fix it."""
    from fxcheck.theory import explain as pages

    if name is None:
        listed = [pages.page(n) for n in pages.names()]
        write("".join(f"{p.name:<12} {p.title.partition(': ')[2]}\n" for p in listed), None)
    else:
        write(pages.page(name).text, None)


# verify ----------------------------------------------------------------------------------------


@app.command()
def verify(
    certificate: Annotated[str, typer.Argument(metavar="CERTIFICATE", help="A file that step.certificate.save wrote.")],
) -> None:
    """Re-check a saved runtime certificate in exact arithmetic, without trusting the solver."""
    from fxcheck.lp.recheck import recheck
    from fxcheck.records.certificate import Certificate

    saved = Certificate.load(certificate)
    found = recheck(saved)
    write(_recheck_text(certificate, saved, found), None)
    raise typer.Exit(0 if found.confirmed else FELL_SHORT)


def _recheck_text(path: str, saved: Certificate, found: Recheck) -> str:
    claims = Counter(block.claim for block in saved.blocks)
    listed = ", ".join(f"{claim}: {count}" for claim, count in claims.items())
    lines = [
        f"{'confirmed' if found.confirmed else 'refuted'}: {path!r}, verdict {saved.verdict}, torch {saved.torch!r}",
        *(f"  {problem}" for problem in found.problems),
        f"checked in exact arithmetic: blocks {found.checked}" + (f" ({listed})" if listed else ", nothing to check"),
        "This checks feasibility of the rows in the file, not that the rows belong to a model.",
    ]
    return "\n".join(lines) + "\n"
