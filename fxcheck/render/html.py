"""Reports as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

from collections.abc import Sequence

from fxcheck.records.gate import GateResult
from fxcheck.records.report import FailedTarget, Report
from fxcheck.render import flat
from fxcheck.render.web import environment, model_page


def render(results: Sequence[Report | FailedTarget]) -> str:
    """A section for each target: verdict, network, layers, diagnostics, kinks."""
    return _page(flat.models(results), None)


def render_gate(result: GateResult) -> str:
    """The same, after what the gate asks of each model and what is new."""
    return _page(result.models, result)


def _page(models: Sequence[flat.GatedModel], gate: GateResult | None) -> str:
    views = [model_page.view(model, number) for number, model in enumerate(models)]
    title = views[0].name if len(views) == 1 else f"{len(views)} models"
    return environment.filled("report.html.j2", title=title, views=views, gate=gate)
