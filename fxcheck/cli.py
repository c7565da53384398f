"""The command line: arguments to the API, results to a renderer, verdicts to an exit status."""

from __future__ import annotations

import ast
import contextlib
import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

import fxcheck
from fxcheck.errors import FxcheckError, UsageError

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


class Mode(StrEnum):
    """Training flags under which a model is captured."""

    TRAIN = "train"
    EVAL = "eval"
    KEEP = "keep"


class Format(StrEnum):
    """How a result is written."""

    RICH = "rich"
    JSON = "json"
    MARKDOWN = "markdown"


class FailOn(StrEnum):
    """The strongest verdict that makes the exit status 1."""

    UNCOVERED = "uncovered"
    RUNTIME = "runtime"
    NEVER = "never"


Output = Annotated[str | None, typer.Option("-o", "--output", metavar="FILE", help="Write to FILE, or not at all.")]
Form = Annotated[Format, typer.Option("--format", help="How to write the result.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the warnings of torch.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status: 0, 1 (falls short), 2 (could not do its work) or 130 (Ctrl-C)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_status(given))


def _status(given: list[str]) -> int:
    try:
        return app(args=given, prog_name="fxcheck", standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted")
        return INTERRUPTED
    except FxcheckError as error:
        _complain(str(error))
    except Exception as error:
        if not hasattr(error, "format_message"):
            _complain(_unexpected(error))
        elif type(error).__name__ != "NoArgsIsHelpError":
            message = error.format_message().replace("Value error, ", "")
            _complain(f"{message}\n  try: fxcheck --help, or --help after the command")
        else:
            sys.stderr.write(f"{error.format_message()}\n")
    if "--debug" in given:
        traceback.print_exc()
    return COULD_NOT


def _complain(message: str) -> None:
    sys.stderr.write(f"fxcheck: {message}\n")


def _unexpected(error: Exception) -> str:
    sentence = " ".join(str(error).split())[:300]
    return f"unexpected {type(error).__name__}: {sentence}\n  try: the same command with --debug"


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
    context: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="path/model.py, path/model.py:attribute, package.module:attribute or path/archive.pt2. "
            "The code named is imported and run.",
        ),
    ],
    arg: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of a class or factory, a Python literal.")
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="[NAME=]SHAPE[:DTYPE]", help="Example input, as 8x3x224x224 or 4x16:int64."),
    ] = None,
    mode: Annotated[Mode | None, typer.Option(help="Training flags: train (default), eval, or each one's own.")] = None,
    loss: Annotated[
        str | None, typer.Option(metavar="MODULE:ATTRIBUTE", help="Criterion; without it, a smooth one is assumed.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="SHAPE|none", help="Example target of --loss (default: as the output)")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Decide for this minibatch size only.")] = None,
    proxies: Annotated[
        str | None, typer.Option(metavar="FILE", help="Classify with saved proxies, not the installed torch's.")
    ] = None,
    numeric: Annotated[bool, typer.Option("--numeric", help="Also compare backward with finite differences.")] = False,
    meta: Annotated[bool, typer.Option("--meta", help="Run the constructor on the meta device.")] = False,
    form: Form = Format.RICH,
    output: Output = None,
    fail_on: Annotated[FailOn, typer.Option(help="Exit with status 1 on this verdict or a weaker one.")] = FailOn.NEVER,
    all_layers: Annotated[bool, typer.Option("--all", help="One row for each layer.")] = False,
    debug: Debug = False,
) -> None:
    """Report statically where backward() returns a Clarke subgradient, and by which theorem."""
    from fxcheck.records.target_spec import TargetSpec

    literals = dict(_key_and_literal(text) for text in arg or ())
    chosen = mode or Mode.TRAIN
    specs = [
        TargetSpec(t, literals, tuple(input_ or ()), str(chosen), loss, target, batch_size, proxies, numeric, meta,
                   mode is not None)
        for t in targets
    ]  # fmt: skip
    results = [_analyze_one(spec, debug, alone=len(specs) == 1) for spec in specs]
    _write(_rendered(results, form, all_layers, output), output)
    raise typer.Exit(_worst([_result_status(r, fail_on) for r in results]))


def _analyze_one(spec: TargetSpec, debug: bool, *, alone: bool) -> Report | FailedTarget:
    from fxcheck.records.report import FailedTarget

    try:
        with _quiet(debug):
            from fxcheck.api import analyze_target

            return analyze_target(spec)
    except SystemExit as error:
        raised: Exception = FxcheckError(
            f"{spec.target} ended the program while it was loaded (SystemExit: {error.code})",
            hint="guard the script's entry with if __name__ == '__main__'",
        )
    except Exception as error:
        raised = error
    if alone:
        raise raised
    if debug:
        traceback.print_exception(raised)
    message = str(raised) if isinstance(raised, FxcheckError) else _unexpected(raised)
    _complain(f"{spec.target}: {message}")
    hint = getattr(raised, "hint", "")
    plain = getattr(raised, "message", message)
    return FailedTarget(spec.target, getattr(raised, "code", None), f"{plain} (try: {hint})" if hint else plain)


def _result_status(result: Report | FailedTarget, fail_on: FailOn) -> int:
    from fxcheck.records.finding import Verdict
    from fxcheck.records.report import FailedTarget

    if isinstance(result, FailedTarget):
        return COULD_NOT
    if fail_on is FailOn.NEVER:
        return 0
    return FELL_SHORT if result.verdict.rank >= Verdict(str(fail_on)).rank else 0


def _worst(statuses: Sequence[int]) -> int:
    return max(statuses, default=0)


def _rendered(results: Sequence[Report | FailedTarget], form: Format, all_layers: bool, output: str | None) -> str:
    if form is Format.JSON:
        from fxcheck.render import json

        return json.render(results)
    if form is Format.MARKDOWN:
        from fxcheck.render import markdown

        return markdown.render(results, all_layers=all_layers)
    from fxcheck.render import text

    return text.render(results, all_layers=all_layers, color=_color(output))


def _key_and_literal(text: str) -> tuple[str, object]:
    key, sign, value = text.partition("=")
    if not sign or not key.isidentifier():
        raise UsageError(f"--arg {text!r} is not key=value", hint="for instance --arg num_classes=10")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError) as error:
        raise UsageError(
            f"--arg {text!r}: {value!r} is not a Python literal", hint=f"quote text twice: --arg '{key}=\"{value}\"'"
        ) from error


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
    form: Form = Format.RICH,
    output: Output = None,
    debug: Debug = False,
) -> None:
    """Measure what the installed torch's backward() returns at kinks, and the slopes beside them."""
    from fxcheck.render.proxies import render_changes, render_table

    with _quiet(debug):
        import fxcheck.ops.proxies as measured

        old = measured.load(diff) if diff else None
        asked = dtype or (dict.fromkeys(row.dtype for row in old.rows) if old else ["float32"])
        new = measured.catalogue(ops or None, tuple(asked))
        changes = () if old is None else measured.diff(old, new)
    if old is None:
        _write(render_table(new, str(form), color=_color(output)), output)
    else:
        _write(render_changes(old.torch, new.torch, changes, str(form), color=_color(output)), output)


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
        _write("".join(f"{p.name:<12} {p.title.partition(': ')[2]}\n" for p in listed), None)
    else:
        _write(pages.page(name).text, None)


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
    _write(_recheck_text(certificate, saved, found), None)
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


# Streams ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """While user code and torch run, standard output is the error stream, and warnings are hidden unless debugging."""
    import logging
    import warnings

    before = logging.root.manager.disable
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)  # torch gives its loggers levels and handlers while it is imported
        try:
            yield
        finally:
            logging.disable(before)


def _write(document: str, path: str | None) -> None:
    from fxcheck.render.write import write

    write(document, path)


def _color(output: str | None) -> bool:
    return output is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
