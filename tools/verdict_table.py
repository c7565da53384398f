"""Shared by the verdict tools: analyse one named model after the other, never crash, print a table or JSON."""

from __future__ import annotations

import collections
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from fxcheck import FxcheckError, Report, analyze


@dataclass(frozen=True)
class Example:
    """A model and what to call it with."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """The outcome for one name; ``verdict`` is ``error`` or ``crash`` where there is none."""

    name: str
    verdict: str
    theorem: str | None = None
    layers: int = 0
    undischarged: int = 0
    """Layers that are not certified."""
    build: float = 0.0
    capture: float = 0.0
    analysis: float = 0.0
    """Seconds beyond capture."""
    unknown: tuple[str, ...] = ()
    codes: dict[str, int] = field(default_factory=dict)
    device: str = ""
    message: str = ""


def on_meta_or_real(build: Callable[[], Example]) -> tuple[Example, str]:
    """Build on the meta device; with real tensors where the constructor refuses that."""
    try:
        with torch.device("meta"):
            return build(), "meta"
    except Exception:
        return build(), "real"


def row_for(name: str, build: Callable[[], Example], mode: str = "train") -> Row:
    """Analyse one model; every failure becomes a row."""
    started = time.perf_counter()
    device = ""
    try:
        example, device = on_meta_or_real(build)
        built = time.perf_counter() - started
        report = analyze(example.model, example.args, example.kwargs, mode=mode)
    except FxcheckError as error:
        message = " ".join(str(error).split())
        return Row(name, "error", codes={error.code: 1} if error.code else {}, device=device, message=message,
                   build=time.perf_counter() - started)  # fmt: skip
    except Exception as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Row(name, "crash", device=device, message=message, build=time.perf_counter() - started)
    return _row(name, report, built, device)


def _row(name: str, report: Report, built: float, device: str) -> Row:
    found = [*report.diagnostics, *(d for layer in report.layers for d in layer.diagnostics)]
    unknown = tuple(dict.fromkeys(d.message for d in found if d.code == "FX606"))
    capture = report.timings.get("capture", 0.0)
    return Row(
        name, str(report.verdict), report.theorem, len(report.layers),
        sum(layer.verdict != "certified" for layer in report.layers), built, capture,
        sum(report.timings.values()) - capture, unknown, dict(collections.Counter(d.code for d in found)), device,
    )  # fmt: skip


def _line(row: Row) -> str:
    codes = " ".join(f"{code}x{count}" for code, count in sorted(row.codes.items()))
    seconds = f"{row.build:6.2f} {row.capture:6.2f} {row.analysis:6.2f}"
    detail = row.message[:160] or codes
    unknown = f" UNKNOWN {len(row.unknown)}" if row.unknown else ""
    verdict = f"{row.verdict:10} {row.theorem or '-':5} {row.undischarged:4}/{row.layers:<4}"
    return f"{row.name:44} {verdict} {seconds} {detail}{unknown}"


def run(jobs: Iterable[tuple[str, Callable[[], Example]]], *, as_json: bool, mode: str = "train") -> int:
    """Analyse all, print a line each and the totals (or one JSON document); 1 if anything crashed."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    rows: list[Row] = []
    out = sys.stderr if as_json else sys.stdout
    print(f"{'model':44} {'verdict':10} {'thm':5} {'open/layers':9} {'build':>6} {'export':>6} {'rest':>6}", file=out)
    for name, build in jobs:
        rows.append(row_for(name, build, mode))
        print(_line(rows[-1]), file=out, flush=True)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    _totals(rows, out)
    return int(any(row.verdict == "crash" for row in rows))


def _totals(rows: list[Row], out: Any) -> None:
    verdicts = collections.Counter(row.verdict for row in rows)
    seconds = sum(row.build + row.capture + row.analysis for row in rows)
    print(f"{len(rows)} models, {seconds:.0f} s: " + ", ".join(f"{k} {n}" for k, n in verdicts.most_common()), file=out)
    unknown = collections.Counter(message for row in rows for message in row.unknown)
    for message, count in unknown.most_common():
        print(f"unknown in {count}: {message}", file=out)
