"""The baseline: findings that were known when it was written. Keyed on what survives an edit, never on line numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fxcheck.errors import UsageError
from fxcheck.records.finding import Verdict
from fxcheck.records.gate import GateFinding, GateResult, Standing

SCHEMA = "fxcheck/baseline/1"
Key = tuple[str, str, str, str]
_TRY = "correct it, or remove it and write a new one with --update-baseline"


@dataclass(frozen=True)
class Known:
    """What a baseline remembers of one key."""

    verdict: str
    """The weakest that findings with this key had."""
    count: int
    """How many there were."""


@dataclass(frozen=True)
class Baseline:
    """Known findings by ``GateFinding.key``."""

    known: Mapping[Key, Known] = field(default_factory=dict)

    def standing(self, findings: Iterable[GateFinding]) -> tuple[GateFinding, ...]:
        """The findings, with those that are known marked.

        More findings of one key than there were, or with a weaker verdict, are new: all of them, as nothing tells
        which one was added.
        """
        listed = tuple(findings)
        counted = _count(f for f in listed if f.standing is not Standing.IGNORED)
        old = {key for key, now in counted.items() if key in self.known and _is_covered(now, self.known[key])}
        return tuple(
            replace(f, standing=Standing.BASELINE) if f.standing is Standing.NEW and f.key in old else f for f in listed
        )

    def applied(self, result: GateResult) -> GateResult:
        """A result as it is when this baseline is what is known, for one that was just made from it."""
        models = tuple(replace(m, findings=self.standing(m.findings)) for m in result.models)
        return replace(result, models=models, stale=())

    def updated(self, findings: Iterable[GateFinding], left_alone: Callable[[str], bool]) -> Baseline:
        """The baseline in which all findings are known.

        Args:
            findings: of this run; ignored ones are left out.
            left_alone: whether the old entries of a model stay, as this run says nothing about it.
        """
        old = {key: known for key, known in self.known.items() if left_alone(key[0])}
        return Baseline({**old, **_count(f for f in findings if f.standing is not Standing.IGNORED)})

    def stale(self, findings: Iterable[GateFinding], left_alone: Callable[[str], bool]) -> tuple[Key, ...]:
        """Entries that no finding matches any more, of models that this run says something about."""
        found = {f.key for f in findings}
        return tuple(sorted(key for key in self.known if not left_alone(key[0]) and key not in found))

    def to_json(self) -> str:
        """The document, sorted, one finding a line."""
        lines = [
            json.dumps({"model": m, "layer": layer, "op": op, "code": code, "verdict": k.verdict, "count": k.count},
                       ensure_ascii=False)
            for (m, layer, op, code), k in sorted(self.known.items())
        ]  # fmt: skip
        body = "\n  " + ",\n  ".join(lines) + "\n " if lines else ""
        return f'{{"schema": "{SCHEMA}",\n "findings": [{body}]}}\n'


def read_baseline(path: str) -> Baseline:
    """Load a baseline file.

    Raises:
        UsageError: the file cannot be read or is no baseline; the message names the first fault.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"there is no baseline file {path}", hint="write one with --update-baseline") from error
    except OSError as error:
        raise UsageError(f"cannot read the baseline {path}: {error.strerror or error}", hint=_TRY) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the baseline {path} is not JSON: {error}", hint=_TRY) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise UsageError(f"the baseline {path} has schema {found!r}; wanted {SCHEMA!r}", hint=_TRY)
    entries = document.get("findings")
    if not isinstance(entries, list):
        raise UsageError(f"the baseline {path} has no list 'findings'", hint=_TRY)
    return Baseline(dict(_entry(item, f"the baseline {path}, finding {i}") for i, item in enumerate(entries)))


def _entry(item: Any, where: str) -> tuple[Key, Known]:
    if not isinstance(item, dict):
        raise UsageError(f"{where} is {item!r}; wanted an object", hint=_TRY)
    for name in ("model", "layer", "op", "code", "verdict"):
        if not isinstance(item.get(name), str):
            raise UsageError(f"{where}: {name!r} is {item.get(name)!r}; wanted text", hint=_TRY)
    if item["verdict"] not in list(Verdict):
        raise UsageError(f"{where}: {item['verdict']!r} is no verdict; wanted {', '.join(Verdict)}", hint=_TRY)
    count = item.get("count")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UsageError(f"{where}: 'count' is {count!r}; wanted a whole number from 1", hint=_TRY)
    return (item["model"], item["layer"], item["op"], item["code"]), Known(item["verdict"], count)


def _count(findings: Iterable[GateFinding]) -> dict[Key, Known]:
    listed = list(findings)
    counts = Counter(f.key for f in listed)
    ordered = sorted(listed, key=lambda f: Verdict(f.verdict).rank)
    return {f.key: Known(f.verdict, counts[f.key]) for f in ordered}


def _is_covered(now: Known, then: Known) -> bool:
    return now.count <= then.count and Verdict(now.verdict).rank <= Verdict(then.verdict).rank
