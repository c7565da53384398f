"""The flags that several commands of the command line share."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from fxcheck.errors import UsageError


class Mode(StrEnum):
    """Training flags under which a model is captured."""

    TRAIN = "train"
    EVAL = "eval"
    KEEP = "keep"


class TableFormat(StrEnum):
    """How a table is written."""

    RICH = "rich"
    JSON = "json"
    MARKDOWN = "markdown"


class Format(StrEnum):
    """How reports are written: the names of ``fxcheck.render.formats.FORMATS``."""

    RICH = "rich"
    JSON = "json"
    MARKDOWN = "markdown"
    SARIF = "sarif"
    GITHUB = "github"
    JUNIT = "junit"
    HTML = "html"


class FailOn(StrEnum):
    """The strongest verdict that makes the exit status 1."""

    UNCOVERED = "uncovered"
    RUNTIME = "runtime"
    NEVER = "never"


TARGET_HELP = (
    "path/model.py, path/model.py:attribute, package.module:attribute or path/archive.pt2. "
    "The code named is imported and run."
)

Arg = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of a class or factory, a Python literal.")
]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="[NAME=]SHAPE[:DTYPE]", help="Example input, as 8x3x224x224 or 4x16:int64."),
]
ModeFlag = Annotated[Mode | None, typer.Option(help="Training flags: train (default), eval, or each one's own.")]
Loss = Annotated[
    str | None, typer.Option(metavar="MODULE:ATTRIBUTE", help="Criterion; without it, a smooth one is assumed.")
]
LossTarget = Annotated[
    str | None, typer.Option(metavar="SHAPE|none", help="Example target of --loss (default: as the output)")
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Decide for this minibatch size only.")]
Meta = Annotated[bool, typer.Option("--meta", help="Run the constructor on the meta device.")]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Unpickle objects that an archive carries; that may run any code.")
]
Form = Annotated[
    Format | None, typer.Option("--format", help="How to write the result (default: by the file's extension, or rich).")
]
Outputs = Annotated[
    list[str] | None,
    typer.Option("-o", "--output", metavar="[FORMAT=]FILE", help="Write to FILE, or not at all; repeatable, - is stdout."),
]
TableForm = Annotated[TableFormat, typer.Option("--format", help="How to write the result.")]
Output = Annotated[str | None, typer.Option("-o", "--output", metavar="FILE", help="Write to FILE, or not at all.")]
Statistics = Annotated[bool, typer.Option("--statistics", help="Counts by verdict and code, to stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the warnings of torch.")]


def literals(arguments: Sequence[str] | None) -> dict[str, object]:
    """The values of ``--arg``, by name.

    Raises:
        UsageError: one of them is not ``key=literal``.
    """
    return dict(_key_and_literal(text) for text in arguments or ())


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
