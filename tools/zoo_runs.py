"""Shared by the tools that analyse many models: one line per model, a count at the end, JSON on request."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from fxcheck.api import analyze
from fxcheck.errors import FxcheckError

Build = Callable[[str], tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]]
"""From a name to a model, example inputs and keyword inputs."""


@dataclass(frozen=True)
class Row:
    """What came out for one model."""

    name: str
    verdict: str
    theorem: str | None = None
    undischarged: int = 0
    layers: int = 0
    capture: float = 0.0
    analyse: float = 0.0
    codes: dict[str, int] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    error: str = ""


def run(name: str, build: Build) -> Row:
    """Analyse one model; an error becomes a row."""
    try:
        model, args, kwargs = build(name)
        report = analyze(model, args, kwargs)
    except FxcheckError as error:
        return Row(name, "error", error=str(error).replace("\n", " "))
    except Exception as error:
        return Row(name, "not built", error=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}")
    open_layers = [layer for layer in report.layers if layer.verdict in ("runtime", "uncovered")]
    codes = Counter(d.code for d in (*report.diagnostics, *(d for layer in open_layers for d in layer.diagnostics)))
    unknown = {m.group(1) for d in report.diagnostics if (m := re.search(r"unknown operator (\S+)", d.message))}
    return Row(name, str(report.verdict), report.theorem, len(open_layers), len(report.layers),
               report.timings["capture"], report.timings["analyse"], dict(codes), tuple(sorted(unknown)))  # fmt: skip


def run_all(names: Iterable[str], build: Build, as_json: bool) -> list[Row]:
    """Analyse all and print: rows as they come, then counts by verdict and the unknown operators."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    rows = []
    for name in track(list(names), console=Console(stderr=True), transient=True):
        row = run(name, build)
        rows.append(row)
        console.print(f"{row.name:36} {row.verdict:10} {row.theorem or '':3} {row.undischarged:3}/{row.layers:<3} "
                      f"{row.capture:6.2f}s {row.analyse:5.2f}s  {_rest(row)}", markup=False)  # fmt: skip
    counts = Counter((r.verdict, r.theorem or "") for r in rows)
    console.print(f"{len(rows)} models: " + ", ".join(f"{v} {t}".strip() + f" {n}" for (v, t), n in counts.most_common()))
    unknown = Counter(op for r in rows for op in r.unknown)
    console.print("unknown operators: " + (", ".join(f"{op} ({n})" for op, n in unknown.most_common()) or "none"))
    if as_json:
        print(json.dumps([asdict(r) for r in rows], indent=1))
    return rows


def _rest(row: Row) -> str:
    return row.error[:160] if row.error else " ".join(f"{c}:{n}" for c, n in sorted(row.codes.items()))


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags that the tools have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("names", nargs="*", help="model names; all known ones when none is given")
    parser.add_argument("--json", action="store_true", help="rows as JSON on stdout, the rest on stderr")
    return parser
