"""A run of checked steps as one HTML file: touches and non-trivial ties over the steps, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from fxcheck.records.step import LayerTotals, Summary
from fxcheck.render.run import COLUMNS, cells, headline
from fxcheck.render.web import environment
from fxcheck.render.web.bars import bars, stacked
from fxcheck.render.write import write


@dataclass(frozen=True)
class Charted:
    """A layer in which something happened."""

    totals: LayerTotals
    charts: tuple[tuple[str, Markup], ...]


def render(summary: Summary, title: str = "checked run") -> str:
    """The page.

    Args:
        summary: what ``checked.summary()`` returns.
        title: heading of the page, the model's name for instance.
    """
    history, steps = summary.history, summary.steps
    share = summary.certified / steps if steps else 1.0
    total = sum(summary.seconds.values())
    certified = [history.steps_in(i) - n for i, n in enumerate(history.uncertified)]
    series = {"certified": certified, "uncertified": history.uncertified}
    return environment.filled(
        "run.html.j2", title=title, summary=summary, headline=headline(summary),
        verdict="certified" if share == 1.0 else "runtime" if share > 0 else "uncovered", width=history.width,
        verdicts=stacked(series, history.steps, history.width, "Certified and uncertified steps over the run"),
        charted=_charted(summary), quiet=[t.name for t in summary.layers.values() if not _has_events(t)],
        columns=COLUMNS, rows=[cells(t) for t in summary.layers.values()],
        stages=[(stage, 1e3 * s / steps, s / total) for stage, s in summary.seconds.items() if s] if steps else [],
    )  # fmt: skip


def save_run(summary: Summary, path: str, title: str = "checked run") -> None:
    """Write the page of a run to a file.

    Args:
        summary: what ``checked.summary()`` returns.
        path: of the HTML file; it is replaced whole or left as it was.
        title: heading of the page.

    Raises:
        UsageError: the file cannot be written.
    """
    write(render(summary, title), str(path))


def _charted(summary: Summary) -> list[Charted]:
    """Layers where something happened, in execution order."""
    found = []
    for totals in summary.layers.values():
        series = summary.history.layers.get(totals.name)
        if series is None or not _has_events(totals):
            continue
        named = (("touches", series.touched), ("non-trivial ties", series.nontrivial))
        charts = [(name, _chart(summary, counts, name, totals.name)) for name, counts in named if sum(counts)]
        found.append(Charted(totals, tuple(charts)))
    return found


def _chart(summary: Summary, counts: list[int], name: str, layer: str) -> Markup:
    return bars(counts, summary.history.steps, summary.history.width, name.split()[0], f"{name} of {layer}")


def _has_events(totals: LayerTotals) -> bool:
    return bool(totals.touched or totals.nontrivial)
