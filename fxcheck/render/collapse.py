"""Layers that are alike as one row, and diagnostics that ask for the same change as one notice."""

from __future__ import annotations

from dataclasses import dataclass

from fxcheck.records.finding import Diagnostic
from fxcheck.records.report import LayerReport, Report

SHOWN_PLACES = 3


@dataclass(frozen=True)
class Row:
    """One line of the table: alike layers."""

    layers: tuple[LayerReport, ...]

    @property
    def first(self) -> LayerReport:
        return self.layers[0]

    @property
    def names(self) -> str:
        ends = [_name(self.layers[0]), _name(self.layers[-1])]
        return ends[0] if len(self.layers) == 1 else f"{ends[0]} ... {ends[1]}"

    def cells(self) -> tuple[str, ...]:
        """Count, names, pre-activation, operation, bias, verdict, theorem, codes."""
        layer = self.first
        operation = " + ".join(n for n in (layer.activation, layer.maxpool) if n)
        codes = ", ".join(dict.fromkeys(d.code for d in layer.diagnostics))
        tau = " > ".join(layer.pre_activation)
        bias = layer.bias.kind or "-"
        by = layer.theorem or "-"
        return (str(len(self.layers)), self.names, tau, operation, bias, str(layer.verdict), by, codes)


HEADINGS = ("n", "layers", "pre-activation", "operation", "bias", "verdict", "by", "codes")


@dataclass(frozen=True)
class Notice:
    """Diagnostics with the same code and hint."""

    code: str
    message: str
    hint: str
    count: int
    places: tuple[tuple[str, str], ...]
    """Location and the user's source line (or empty), without repetitions."""

    @property
    def shown(self) -> tuple[tuple[str, str], ...]:
        return self.places[:SHOWN_PLACES]

    @property
    def left_out(self) -> int:
        return len(self.places) - len(self.shown)


def rows(report: Report, *, all_layers: bool = False) -> tuple[Row, ...]:
    """The table of layers in execution order; alike ones share a row unless all are asked for."""
    if all_layers:
        return tuple(Row((layer,)) for layer in report.layers)
    found: dict[tuple[object, ...], list[LayerReport]] = {}
    for layer in report.layers:
        found.setdefault(likeness(layer), []).append(layer)
    return tuple(Row(tuple(layers)) for layers in found.values())


def notices(report: Report) -> tuple[Notice, ...]:
    """All diagnostics of the model and its layers, grouped by code and hint, model-level ones first."""
    found: dict[tuple[str, str], list[tuple[Diagnostic, str]]] = {}
    for d in report.diagnostics:
        found.setdefault((d.code, d.hint), []).append((d, ""))
    for layer in report.layers:
        for d in layer.diagnostics:
            source = layer.source if d.location in ("", layer.location) else ""
            place = d if d.location else Diagnostic(d.code, d.message, d.hint, layer.location)
            found.setdefault((d.code, d.hint), []).append((place, source))
    return tuple(_notice(members) for members in found.values())


def _notice(members: list[tuple[Diagnostic, str]]) -> Notice:
    first = members[0][0]
    places = dict.fromkeys((d.location, source.strip()) for d, source in members if d.location)
    return Notice(first.code, first.message, first.hint, len(members), tuple(places))


def likeness(layer: LayerReport) -> tuple[object, ...]:
    """Layers with equal ones share a row."""
    codes = tuple(d.code for d in layer.diagnostics)
    return (layer.activation, layer.maxpool, layer.pre_activation, layer.bias.kind, layer.verdict, layer.theorem, codes)


def _name(layer: LayerReport) -> str:
    return layer.name or layer.activation or layer.maxpool or "-"
