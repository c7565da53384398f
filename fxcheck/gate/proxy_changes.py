"""What another torch does to a model's gradients: its layers under saved proxies and under the installed torch's."""

from __future__ import annotations

from collections.abc import Iterator

from fxcheck.records.gate import LayerChange, ModelChange
from fxcheck.records.proxy import Proxy
from fxcheck.records.report import LayerReport, Report

_CLOSE = 1e-6
_ABSENT = "absent"


def changes_between(model: str, before: Report, after: Report) -> ModelChange:
    """Compare two reports about one capture, layer by layer.

    Args:
        model: its name in the gate.
        before: under saved proxies.
        after: under the installed torch's.
    """
    old, new = ({layer.name: layer for layer in report.layers} for report in (before, after))
    compared = (_layer_change(old.get(name), new.get(name)) for name in dict.fromkeys((*old, *new)))
    layers = tuple(change for change in compared if change is not None)
    note = " ".join(d.message for d in before.diagnostics if d.code == "FX204")
    return ModelChange(model, str(before.verdict), str(after.verdict), layers, note)


def _layer_change(old: LayerReport | None, new: LayerReport | None) -> LayerChange | None:
    known = new or old
    assert known is not None
    before, after = (_ABSENT if layer is None else str(layer.verdict) for layer in (old, new))
    what = () if old is None or new is None else (*_kinks(old.proxies, new.proxies), *_tie(old, new))
    if before == after and not what:
        return None
    return LayerChange(known.name, known.activation or known.maxpool or "", known.location, what, before, after)


def _kinks(old: tuple[Proxy, ...], new: tuple[Proxy, ...]) -> Iterator[str]:
    was = {proxy.kink: proxy.ad for proxy in old}
    for proxy in new:
        before = was.get(proxy.kink, proxy.ad)
        if not _same(before, proxy.ad):
            yield f"gradient at {proxy.kink:g}: {before:g} -> {proxy.ad:g}"


def _tie(old: LayerReport, new: LayerReport) -> Iterator[str]:
    if old.tie != new.tie:
        yield f"at a tie: {old.tie or 'no max'} -> {new.tie or 'no max'}"


def _same(a: float, b: float) -> bool:
    return a == b or (a != a and b != b) or abs(a - b) <= _CLOSE * max(1.0, abs(a), abs(b))
