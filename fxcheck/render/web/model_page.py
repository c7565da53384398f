"""What a report's page says about one model, ready for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fxcheck.errors import UsageError
from fxcheck.records.finding import Verdict
from fxcheck.records.gate import GatedModel, GateFinding, Standing
from fxcheck.records.report import LayerReport, Report
from fxcheck.render import words
from fxcheck.render.collapse import Notice, notices
from fxcheck.render.flat import NOTHING_REQUIRED, operation
from fxcheck.render.web import kinks, network, tiles
from fxcheck.render.web.excerpt import Line, excerpt
from fxcheck.theory import explain

FOLDED_FROM = 24
"""Layers from which on the drawing starts folded."""
WORTH_FOLDING = 0.75
"""Share of tiles that may be left for a folded drawing to be offered."""
WORDS = {Verdict.CERTIFIED: "certified", Verdict.RUNTIME: "checked at run time", Verdict.UNCOVERED: "uncovered"}


@dataclass(frozen=True)
class Reason:
    """Diagnostics that ask for the same change."""

    notice: Notice
    layers: tuple[LayerReport, ...]
    places: tuple[tuple[str, tuple[Line, ...]], ...]
    title: str
    sections: tuple[tuple[str, str], ...]
    """Of the code's page: heading and text."""
    standings: tuple[tuple[str, str], ...]
    """For a gate: how many count, and why the others do not."""


@dataclass(frozen=True)
class View:
    """One model."""

    number: int
    model: GatedModel
    report: Report | None
    name: str
    key: str
    graphs: tuple[tuple[str, str, Markup], ...]
    """Name, key and drawing; the first one is shown."""
    shares: tuple[tuple[Verdict, str, int], ...]
    """Verdict, in words, and its number of layers."""
    reasons: tuple[Reason, ...]
    kinks: tuple[kinks.Kinked, ...]

    @property
    def asks(self) -> str:
        return "" if self.model.require == NOTHING_REQUIRED else self.model.require

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(r.notice.code for r in self.reasons if r.layers))

    @property
    def operations(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(operation(layer) for layer in self.layers))

    @property
    def layers(self) -> tuple[LayerReport, ...]:
        return self.report.layers if self.report else ()

    @property
    def counts(self) -> dict[str, int]:
        return {str(s): sum(f.standing is s for f in self.model.findings) for s in Standing}

    operation = staticmethod(operation)
    name_of = staticmethod(tiles.name_of)
    words = words


def view(model: GatedModel, number: int) -> View:
    """Everything that the template shows of one model."""
    key, report = f"m{number}", model.report
    if report is None:
        return View(number, model, None, model.name, key, (), (), (), ())
    counts = Counter(layer.verdict for layer in report.layers)
    shares = tuple((v, text, counts[v]) for v, text in WORDS.items() if counts[v])
    reasons = tuple(_reason(model, report, notice) for notice in notices(report))
    return View(number, model, report, model.name, key, _graphs(report, key), shares, reasons,
                tuple(kinks.kinked(report.layers)))  # fmt: skip


def _graphs(report: Report, key: str) -> tuple[tuple[str, str, Markup], ...]:
    if not report.layers:
        return ()
    label = f"The layers of {report.target} in execution order"
    every, folded = tiles.single(report.layers), tiles.fold(report.layers)
    found = [("Every layer", f"{key}-every", network.draw(every, f"{key}-every", label))]
    if len(folded) <= len(every) * WORTH_FOLDING:
        found.append(("Folded", f"{key}-folded", network.draw(folded, f"{key}-folded", f"{label}, repeated blocks folded")))
    return tuple(reversed(found)) if len(every) >= FOLDED_FROM else tuple(found)


def _reason(model: GatedModel, report: Report, notice: Notice) -> Reason:
    def fits(codes: Sequence[object]) -> bool:
        return any((d.code, d.hint) == (notice.code, notice.hint) for d in codes)  # type: ignore[attr-defined]

    layers = tuple(layer for layer in report.layers if fits(layer.diagnostics))
    title, sections = _page_of(notice.code)
    places = tuple((location, excerpt(location, source)) for location, source in notice.shown)
    found = [f for f in model.findings if (f.code, f.hint) == (notice.code, notice.hint)]
    standings = () if model.require == NOTHING_REQUIRED else _standings(found)
    return Reason(notice, layers, places, title, sections, standings)


def _standings(found: Sequence[GateFinding]) -> tuple[tuple[str, str], ...]:
    counted = Counter((str(f.standing), f"{f.standing}: {f.reason}" if f.reason else str(f.standing)) for f in found)
    return tuple((standing, f"{count} {text}") for (standing, text), count in counted.items())


def _page_of(code: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    try:
        page = explain.page(code)
    except UsageError:
        return "", ()
    return page.title.partition(": ")[2], tuple((h, page.section(h)) for h in explain.SECTIONS[:3])
