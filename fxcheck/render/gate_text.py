"""The result of a gate for a terminal or a log."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from fxcheck.records.gate import GatedModel, GateResult, ModelChange
from fxcheck.render import gate_words as words
from fxcheck.render.text import new_console, table, text_of
from fxcheck.render.words import assumption

_STYLES = {"passes": "bold green", "falls short": "bold red", "not analysed": "bold red"}


def render_gate(result: GateResult, *, width: int | None = None, color: bool = False) -> str:
    """A table of the models, then what is wrong with those that fall short; ends with a newline.

    Args:
        result: what the gate found.
        width: columns; None for the terminal's.
        color: whether escape codes may be used; the environment's NO_COLOR still removes colours.
    """
    console = new_console(width, color)
    console.print(table(words.HEADINGS, [_styled(model) for model in result.models]))
    for model in result.models:
        _model(console, model)
    if result.old_torch:
        _changes(console, result)
    _asides(console, result)
    console.print(Text(words.summary(result), style="bold"))
    return text_of(console)


def _styled(model: GatedModel) -> list[str | Text]:
    *cells, outcome = words.line(model)
    return [*cells, Text(outcome, style=_STYLES[outcome])]


def _model(console: Console, model: GatedModel) -> None:
    if model.error is not None:
        code = f"{model.error.code} " if model.error.code else ""
        console.print(Text.assemble((model.name, "bold"), ": not analysed"))
        _indented(console, f"{code}{model.error.message}", 2)
    elif model.falls_short:
        console.print(Text.assemble((model.name, "bold"), f": {words.required(model)}"))
        for notice in words.notices(model):
            _notice(console, notice)
    else:
        return
    console.print()


def _notice(console: Console, notice: words.Notice) -> None:
    times = f" (x{len(notice.findings)})" if len(notice.findings) > 1 else ""
    _indented(console, Text.assemble((notice.code, "bold"), f"{times} {notice.message}"), 2)
    if notice.layers:
        _indented(console, f"layers: {words.some(notice.layers)}", 4)
    for place, source in notice.places[:3]:
        _indented(console, f"at {place}" + (f"   {source}" if source else ""), 4)
    if len(notice.places) > 3:
        _indented(console, f"and {len(notice.places) - 3} more places", 4)
    if notice.hint:
        _indented(console, f"try: {notice.hint}", 4)


def _changes(console: Console, result: GateResult) -> None:
    torch = next((m.report.torch for m in result.models if m.report), "the installed one")
    console.print(Text(f"from torch {result.old_torch} to torch {torch}", style="bold"))
    for change in result.changes:
        _change(console, change)
    console.print()


def _change(console: Console, change: ModelChange) -> None:
    _indented(console, words.changed(change), 2)
    for layer in change.layers:
        verdict = "" if layer.before == layer.after else f"; verdict {layer.before} -> {layer.after}"
        at = f" ({layer.location})" if layer.location else ""
        _indented(console, f"{layer.layer}{at}, {layer.op}: {'; '.join(layer.what) or 'same gradient'}{verdict}", 4)
    if change.note:
        _indented(console, f"not compared: {change.note}", 4)


def _asides(console: Console, result: GateResult) -> None:
    for model, count, reason in words.reasons(result):
        console.print(Text(f"ignored in {model}: {count}, because {reason}"))
    for sentence in words.asides(result):
        console.print(Text(f"note: {sentence}"))
    for name in words.assumed(result):
        console.print(Text(f"assumes {assumption(name)}"))


def _indented(console: Console, sentence: str | Text, depth: int) -> None:
    console.print(Padding(sentence if isinstance(sentence, Text) else Text(sentence), (0, 0, 0, depth)))
