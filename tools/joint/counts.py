"""What is kept of the checked steps of a training: outcomes, touches and ties, and medians of times."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from common import Record

WARM_UP = 2
"""Steps whose times are not counted: scans are compiled and memory is allocated."""
ROWS_A_BACKWARD = 10
"""Goal: checking this many rows costs at most one backward pass."""
QUIET, TIED, TOUCHED, ROWS = "nothing touched or tied", "ties without rows", "touches without rows", "rows"
KINDS = (QUIET, TIED, TOUCHED, ROWS)
UNTOUCHED = (QUIET, TIED)
ENDS = 10
"""Steps over which the first and the last loss are averaged."""
LISTED = 10
"""Steps that are named, of each outcome."""
_LONE_NUMBER = re.compile(r"(?<![\w.#])\d[\d,]*(?![\w.])")


@dataclass(frozen=True)
class Seen:
    """One checked step."""

    outcome: str
    """The theorem and the subdifferential, or the reason."""
    text: str
    """The reason in a sentence; empty for a certified step."""
    touched: int
    ties: int
    rows: int
    loss: float
    check_seconds: float
    whole_seconds: float
    plain_seconds: float
    """Of the twin's last step."""

    @property
    def kind(self) -> str:
        if self.rows:
            return ROWS
        if self.touched:
            return TOUCHED
        return TIED if self.ties else QUIET


@dataclass(frozen=True)
class Against:
    """Median seconds that times are compared with."""

    plain: float
    """Of a plain step."""
    backward: float
    """Of its backward pass."""
    scan: float
    """Of the check of a step without touches and rows; 0 where there was none."""


def counted(seen: Sequence[Seen], backward: float) -> Record:
    """The outcomes of steps, and medians of their times.

    Args:
        seen: the steps of a training, in order.
        backward: seconds of a plain backward pass.
    """
    timed = seen[WARM_UP:] or seen
    plain = statistics.median(s.plain_seconds for s in timed)
    scans = [s.check_seconds for s in timed if s.kind in UNTOUCHED]
    against = Against(plain, backward, statistics.median(scans) if scans else 0.0)
    end = min(ENDS, -(-len(seen) // 2))
    return {
        "outcomes": dict(Counter(s.outcome for s in seen)), "first_beyond_t8": _first_beyond_t8(seen),
        "kinds": {kind: _of_kind(kind, seen, timed, against) for kind in KINDS},
        "uncertified": _uncertified(seen),
        "loss": [statistics.fmean(s.loss for s in part) for part in (seen[:end], seen[-end:])],
        "plain_ms": 1e3 * plain, "backward_ms": 1e3 * backward, **_overhead(timed, against),
    }  # fmt: skip


def _of_kind(kind: str, seen: Sequence[Seen], timed: Sequence[Seen], against: Against) -> Record:
    """Counts and times of the steps of one kind; without times where none of them was timed."""
    mine = [s for s in seen if s.kind == kind]
    found: Record = {"steps": len(mine), "outcomes": dict(Counter(s.outcome for s in mine))}
    if mine := [s for s in timed if s.kind == kind]:
        found |= {"timed": len(mine), **_overhead(mine, against)}
        found |= _of_rows(mine, against) if kind == ROWS else {}
    return found


def _overhead(seen: Sequence[Seen], against: Against) -> Record:
    check = statistics.median(s.check_seconds for s in seen)
    whole = statistics.median(s.whole_seconds / s.plain_seconds for s in seen)
    return {"check_ms": 1e3 * check, "check_share": check / against.plain, "whole": whole}


def _of_rows(seen: Sequence[Seen], against: Against) -> Record:
    """What rows cost beyond the scans, in plain backward passes."""
    extra = [max(0.0, s.check_seconds - against.scan) / against.backward for s in seen]
    tens = [math.ceil(s.rows / ROWS_A_BACKWARD) for s in seen]
    return {
        "touched": statistics.median(s.touched for s in seen), "rows": statistics.median(s.rows for s in seen),
        "most_rows": max(s.rows for s in seen), "extra_backwards": statistics.median(extra),
        "backwards_per_ten_rows": statistics.median(e / t for e, t in zip(extra, tens, strict=True)),
        "within_goal": sum(e <= t for e, t in zip(extra, tens, strict=True)),
    }  # fmt: skip


def _first_beyond_t8(seen: Sequence[Seen]) -> dict[str, list[int]]:
    """The first steps with rows that T8 did not certify, by outcome, to find them again."""
    found: dict[str, list[int]] = {}
    for at, s in enumerate(seen):
        if s.rows and s.outcome != "T8, bouligand" and len(found.setdefault(s.outcome, [])) < LISTED:
            found[s.outcome].append(at)
    return found


def _uncertified(seen: Sequence[Seen]) -> list[Record]:
    """Reasons with the number of their steps; sentences that differ in their numbers only are one."""
    found: dict[tuple[str, str], Record] = {}
    for at, s in enumerate(seen):
        if s.text:
            key = (s.outcome, _LONE_NUMBER.sub("N", s.text))
            held = found.setdefault(key, {"reason": s.outcome, "text": s.text, "steps": 0, "first": at})
            held["steps"] += 1
    return list(found.values())
