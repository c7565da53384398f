"""The formats of a result: their names, the extensions that stand for them, and who writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePath

from fxcheck.records.gate import GateResult
from fxcheck.records.report import FailedTarget, Report
from fxcheck.render.write import append_step_summary, write

DEFAULT = "rich"
STDOUT = "-"

Results = Sequence[Report | FailedTarget] | GateResult


@dataclass(frozen=True)
class Format:
    """One format. Its modules are imported when it is asked for."""

    name: str
    extensions: tuple[str, ...]
    report_module: str
    """Has ``render(results, ...)`` for a sequence of ``Report | FailedTarget``."""
    gate_module: str
    """Has ``render_gate(result, ...)`` for a ``GateResult``."""


FORMATS = {
    f.name: f
    for f in (
        Format("rich", (".txt",), "text", "gate_text"),
        Format("json", (".json",), "json", "gate_json"),
        Format("markdown", (".md", ".markdown"), "markdown", "gate_markdown"),
        Format("sarif", (".sarif",), "sarif", "sarif"),
        Format("github", (), "github", "github"),
        Format("junit", (".xml",), "junit", "junit"),
        Format("html", (".html", ".htm"), "html", "html"),
    )
}


def write_all(
    results: Results, outputs: Sequence[str] = (), form: str | None = None, *, all_layers: bool = False, color: bool = False
) -> None:
    """Write what ``documents`` returns, and the summary of the workflow's step where ``github`` is asked for.

    Raises:
        UsageError: a file cannot be written.
    """
    for path, text in documents(results, outputs, form, all_layers=all_layers, color=color):
        write(text, path)
    if any(name == "github" for _, name in placed(outputs, form)):
        append_step_summary(lambda: documents(results, (), "markdown")[0][1])


def documents(
    results: Results, outputs: Sequence[str] = (), form: str | None = None, *, all_layers: bool = False, color: bool = False
) -> list[tuple[str | None, str]]:
    """What to write where.

    Each output is ``[FORMAT=]FILE``; ``-`` is standard output. Its format is the one named before ``=``, else
    ``--format``, else the one its extension stands for, else ``rich``. Without outputs, one document goes to standard
    output. So ``-o github=- -o found.sarif -o report.html`` writes annotations to standard output and two files.

    Args:
        results: reports and failed targets of ``analyze``, or the result of a gate.
        outputs: values of ``-o``.
        form: value of ``--format``; None when it was not given.
        all_layers: in ``rich`` and ``markdown``, one row for each layer.
        color: whether ``rich`` on standard output may use colours.

    Returns:
        Pairs of a path (None for standard output) and a text that ends with a newline, for ``render.write.write``.
        ``write_all`` writes them; a command calls that.
    """
    return [_document(results, path, name, all_layers, color) for path, name in placed(outputs, form)]


def placed(outputs: Sequence[str], form: str | None) -> list[tuple[str | None, str]]:
    """Path (None for standard output) and name of the format of each output; see ``documents``."""
    found = []
    for output in outputs or (STDOUT,):
        name, sign, file = output.partition("=")
        named = name if sign and file and name in FORMATS else None
        path = file if named else output
        found.append((None if path == STDOUT else path, named or form or by_extension(path) or DEFAULT))
    return found


def by_extension(path: str) -> str | None:
    """The format that a file's extension stands for."""
    ending = PurePath(path).suffix.lower()
    return next((f.name for f in FORMATS.values() if ending in f.extensions), None)


def _document(results: Results, path: str | None, name: str, all_layers: bool, color: bool) -> tuple[str | None, str]:
    form = FORMATS[name]
    options: dict[str, bool] = {}
    if name == "rich":
        options["color"] = color and path is None
    if isinstance(results, GateResult):
        return path, import_module(f"fxcheck.render.{form.gate_module}").render_gate(results, **options)
    if name in ("rich", "markdown"):
        options["all_layers"] = all_layers
    return path, import_module(f"fxcheck.render.{form.report_module}").render(results, **options)
