"""The user's source around a line, where its file can still be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fxcheck.records.finding import split_location

AROUND = 2


@dataclass(frozen=True)
class Line:
    """One line of an excerpt."""

    number: int
    text: str
    is_here: bool


def excerpt(location: str, source: str) -> tuple[Line, ...]:
    """The line with two before and after it.

    Args:
        location: ``net.py:12``, relative to the working directory; a file elsewhere is not read.
        source: the line as it was recorded; a file that has changed since then is not quoted.
    """
    file, number = split_location(location)
    alone = (Line(number, source.strip(), True),) if source.strip() else ()
    path = Path(file)
    if number < 1 or path.is_absolute() or ".." in path.parts or not path.is_file():
        return alone
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if number > len(lines) or (source.strip() and lines[number - 1].strip() != source.strip()):
        return alone
    first, last = max(number - AROUND, 1), min(number + AROUND, len(lines))
    return tuple(Line(n, lines[n - 1], n == number) for n in range(first, last + 1))
