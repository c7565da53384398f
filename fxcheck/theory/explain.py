"""The pages behind ``fxcheck explain``: one per diagnostic code, theorem, condition, lemma and algorithm."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable

from fxcheck.errors import UsageError

SECTIONS = ("Meaning", "Why it matters", "What to do", "Passes", "Fails")


@dataclass(frozen=True)
class Page:
    """One page, in Markdown."""

    name: str
    title: str
    text: str

    def section(self, heading: str) -> str:
        """The text under one of ``SECTIONS``."""
        _, _, rest = self.text.partition(f"\n## {heading}\n")
        return rest.partition("\n## ")[0].strip()


def names() -> tuple[str, ...]:
    """All names that have a page: codes first, then theorems and what they rest on."""
    found = [entry.name.removesuffix(".md") for entry in _folder().iterdir() if entry.name.endswith(".md")]
    return tuple(sorted(found, key=_order))


def page(name: str) -> Page:
    """The page of a code or theorem, in any letter case.

    Raises:
        UsageError: there is no such page.
    """
    known = {n.casefold(): n for n in names()}
    wanted = name.strip().casefold().replace(" ", "-").replace("_", "-")
    if wanted not in known:
        close = _close(wanted, known)
        hint = ", ".join(known[n] for n in close) if close else "`fxcheck explain` lists all names"
        raise UsageError(f"no page explains {name!r}", hint=hint)
    text = _folder().joinpath(f"{known[wanted]}.md").read_text(encoding="utf-8")
    return Page(known[wanted], text.splitlines()[0].removeprefix("# "), text)


def _close(wanted: str, known: Iterable[str]) -> list[str]:
    """Names spelled alike; for a code, those of its hundred."""
    family = re.fullmatch(r"fx(\d)\d*", wanted)
    if family:
        return [n for n in known if n.startswith(f"fx{family[1]}")]
    return get_close_matches(wanted, known, n=4, cutoff=0.5)


def _folder() -> Traversable:
    return files("fxcheck.theory").joinpath("pages")


def _order(name: str) -> tuple[int, str]:
    kinds = ("FX", "T", "joint", "condition", "lemma", "algorithm")
    return next((i for i, kind in enumerate(kinds) if name.startswith(kind)), len(kinds)), name
