"""A run of checked steps as a table: touches, ties and verdicts per layer, and where the time went."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from fxcheck.records.step import LayerTotals, Summary

COLUMNS = ("layer", "touches", "steps touched", "max outputs tied, %", "steps with S_j minus T_j", "mean size",
            "rows", "uncertified")  # fmt: skip


def print_run(summary: Summary, console: Console | None = None) -> None:
    """Print what ``checked.summary()`` returns.

    Args:
        summary: totals over a run.
        console: where to; None for standard output.
    """
    console = console or Console()
    console.print(headline(summary))
    if summary.layers:
        table = Table(box=None, pad_edge=False)
        for i, name in enumerate(COLUMNS):
            table.add_column(name, justify="left" if i == 0 else "right")
        for totals in summary.layers.values():
            table.add_row(*cells(totals))
        console.print(table)
    spent = "  ".join(f"{stage} {1e3 * s / summary.steps:.2f}" for stage, s in summary.seconds.items()) if summary.steps else ""
    if spent:
        console.print(f"check time, ms a step: {spent}")
    for note in summary.notes:
        console.print(note)


def headline(summary: Summary) -> str:
    """The verdicts in a sentence."""
    reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(summary.reasons.items()))
    proofs = ", ".join(f"{n} by {proof}" for proof, n in sorted(summary.certified_by.items()))
    sentence = f"{summary.certified} of {summary.steps} steps certified" + (f" ({proofs})" if proofs else "")
    return f"{sentence}; uncertified: {reasons}{summary.refuted_text}" if reasons else sentence


def cells(totals: LayerTotals) -> tuple[str, ...]:
    """One row of the table; a dash where a column does not apply."""
    share, mean = totals.tied_share, totals.mean_nontrivial
    return (
        totals.name, str(totals.touched), str(totals.touched_steps), "-" if share is None else f"{100 * share:.3g}",
        "-" if share is None else str(totals.nontrivial_steps), "-" if mean is None else f"{mean:.2f}",
        str(totals.constraints), str(totals.uncertified_steps),
    )  # fmt: skip
