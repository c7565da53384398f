"""Verdicts and diagnostics: what was found about a layer or a model, in words a user can act on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """From strongest to weakest; a model's verdict is the weakest of its layers' and findings'."""

    SMOOTH = "smooth"
    CERTIFIED = "certified"
    RUNTIME = "runtime"
    UNCOVERED = "uncovered"

    @property
    def rank(self) -> int:
        return list(Verdict).index(self)


def weakest(verdicts: list[Verdict]) -> Verdict:
    """The weakest of the verdicts; ``smooth`` when there is none."""
    return max(verdicts, key=lambda v: v.rank, default=Verdict.SMOOTH)


@dataclass(frozen=True)
class Diagnostic:
    """One reason why a verdict is not better, or a fact the user should know."""

    code: str
    """FX1xx ... FX6xx, see ``fxcheck explain``."""
    message: str
    hint: str = ""
    location: str = ""
    module: str = ""
    """Of a finding about the whole model: the module path that it is about."""
    op: str = ""
    """Of a finding about the whole model: the operator, Function or hook that it is about."""
    source: str = ""
    """Of a finding about the whole model: the user's source line."""

    def to_dict(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "hint": self.hint, "location": self.location}


def split_location(location: str) -> tuple[str, int]:
    """``net.py:12`` as its file and line; line 0 where there is none."""
    file, _, line = location.rpartition(":")
    return (file, int(line)) if file and line.isdigit() else (file or location, 0)
