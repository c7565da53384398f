"""The result of a gate as Markdown, for job summaries and pull requests."""

from __future__ import annotations

from fxcheck.records.gate import GatedModel, GateResult, ModelChange
from fxcheck.render import gate_words as words
from fxcheck.render.markdown import plain, table
from fxcheck.render.words import assumption


def render_gate(result: GateResult) -> str:
    """A table of the models, then what is wrong with those that fall short; ends with a newline."""
    lines = ["## fxcheck gate", "", f"**{plain(words.summary(result))}**", ""]
    lines += table(words.HEADINGS, [words.line(model) for model in result.models])
    for model in result.models:
        lines += _model(model)
    lines += _changes(result) if result.old_torch else []
    notes = [f"Ignored in {model}: {count}, because {reason}" for model, count, reason in words.reasons(result)]
    notes += [f"Note: {sentence}" for sentence in words.asides(result)]
    notes += [f"Assumes {assumption(name)}" for name in words.assumed(result)]
    lines += ["", "### Notes", "", *(f"- {plain(note)}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def _model(model: GatedModel) -> list[str]:
    if model.error is not None:
        code = f"{model.error.code} " if model.error.code else ""
        return ["", f"### {plain(model.name)}", "", f"Not analysed: {plain(code + model.error.message)}"]
    if not model.falls_short:
        return []
    head = ["", f"### {plain(model.name)}", "", f"{words.required(model).capitalize()}.", ""]
    return head + [line for notice in words.notices(model) for line in _notice(notice)]


def _notice(notice: words.Notice) -> list[str]:
    times = f" (x{len(notice.findings)})" if len(notice.findings) > 1 else ""
    lines = [f"- **{notice.code}**{times} {plain(notice.message)}"]
    lines += [f"  - Layers: {plain(words.some(notice.layers))}"] if notice.layers else []
    lines += [f"  - {plain(place)}" + (f" `{source}`" if source else "") for place, source in notice.places[:3]]
    lines += [f"  - and {len(notice.places) - 3} more places"] if len(notice.places) > 3 else []
    return lines + ([f"  - Try: {plain(notice.hint)}"] if notice.hint else [])


def _changes(result: GateResult) -> list[str]:
    lines = ["", f"### Changes since torch {plain(result.old_torch)}", ""]
    return lines + [line for change in result.changes for line in _change(change)]


def _change(change: ModelChange) -> list[str]:
    lines = [f"- {plain(words.changed(change))}"]
    for layer in change.layers:
        verdict = "" if layer.before == layer.after else f"; verdict {layer.before} -> {layer.after}"
        what = "; ".join(layer.what) or "same gradient"
        lines.append(f"  - {plain(f'{layer.layer} ({layer.location}), {layer.op}: {what}{verdict}')}")
    return lines + ([f"  - Not compared: {plain(change.note)}"] if change.note else [])
