"""Where a rendered document goes: standard output, or a file that is there whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from fxcheck.errors import UsageError


def write(document: str, path: str | None) -> None:
    """Write to a file, or to standard output if ``path`` is None.

    Raises:
        UsageError: the file cannot be written.
    """
    if path is None:
        _to_stdout(document)
        return
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_text(document, encoding="utf-8")  # a device or a pipe must not be replaced
        else:
            _replace(target, document)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}", hint="give -o a file in a folder that exists"
        ) from error


def append_step_summary(summary: Callable[[], str]) -> None:
    """Append to the file that GitHub shows as the summary of a workflow's step, where there is one.

    Raises:
        UsageError: the file cannot be written.
    """
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(summary() + "\n")
    except OSError as error:
        raise UsageError(
            f"cannot write the step summary {path}: {error.strerror or error}", hint="unset GITHUB_STEP_SUMMARY"
        ) from error


def _to_stdout(document: str) -> None:
    try:
        sys.stdout.write(document)
        sys.stdout.flush()
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(document.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _replace(target: Path, document: str) -> None:
    if target.is_dir():
        raise IsADirectoryError(21, "it is a folder")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(document)
        os.chmod(name, target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
