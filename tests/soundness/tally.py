"""Counts over many cases, and the tables made of them; tallies of several processes add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from fxcheck.records.step import CERTIFIED
from tests.soundness.laboratory import CONTRADICTION, CRASHED, REFUSED, CaseRecord
from tests.soundness.oracle import Verdict
from tests.soundness.paths import FIRST, IDLE, SECOND

Row = Sequence[str]


@dataclass(frozen=True)
class Table:
    """A heading, names of columns, and rows of words and numbers."""

    title: str
    columns: Row
    rows: tuple[Row, ...]

    def markdown(self) -> str:
        """As GitHub renders it."""
        rule = ["---"] + ["---:"] * (len(self.columns) - 1)
        return "\n".join(
            [f"### {self.title}", "", *(f"| {' | '.join(_cells(r))} |" for r in (self.columns, rule, *self.rows)), ""]
        )


def _cells(row: Row) -> list[str]:
    return [cell.replace("|", "\\|") for cell in row]


@dataclass
class Tally:
    """What has been seen so far."""

    networks: Counter[str] = field(default_factory=Counter)
    """By family."""
    distinct: dict[str, set[str]] = field(default_factory=dict)
    cells: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Cases by family, verdict and oracle."""
    hits: Counter[str] = field(default_factory=Counter)
    """Cases with a touch or a tie, by family."""
    paths: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Certified cases by a word of their path and the oracle's verdict."""
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Other cases by reason and the oracle's verdict."""
    right: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    """Cases with a right gradient, by verdict, what they owe to deciding all layers together, and whether anything was
    touched or tied; a case of a sample counts for all that it stands for."""
    seconds: Counter[str] = field(default_factory=Counter)
    failures: list[CaseRecord] = field(default_factory=list)
    contradictions: list[CaseRecord] = field(default_factory=list)
    """Cases on which two ways of judging disagree."""
    rounded: list[CaseRecord] = field(default_factory=list)
    """Certified cases that are outside, by rounding as the oracle says."""

    @property
    def cases(self) -> int:
        return sum(self.cells.values())

    def add(self, network: Iterable[CaseRecord]) -> None:
        """Count the cases of one network."""
        for i, r in enumerate(network):
            if not i:
                self.networks[r.family] += 1
                self.distinct.setdefault(r.family, set()).add(r.network)
            self.cells[r.family, r.verdict, str(r.oracle)] += 1
            self.hits[r.family] += bool(r.touched or r.ties)
            if r.oracle == Verdict.INSIDE:
                self.right[r.verdict, r.owed_to, bool(r.touched or r.ties)] += r.weight
            if r.verdict == CERTIFIED:
                self.paths.update((word, str(r.oracle)) for word in r.path)
            else:
                self.reasons[r.reason, str(r.oracle)] += 1
            self.seconds.update(r.seconds)
            self.failures += [r] if r.has_failed else []
            self.contradictions += [r] if CONTRADICTION in r.text else []
            self.rounded += [r] if (r.verdict, r.oracle) == (CERTIFIED, Verdict.ROUNDING) else []

    def merge(self, other: Tally) -> None:
        """Add what another tally holds."""
        for name in ("networks", "cells", "hits", "paths", "reasons", "right", "seconds"):
            getattr(self, name).update(getattr(other, name))
        for name, digests in other.distinct.items():
            self.distinct.setdefault(name, set()).update(digests)
        self.failures += other.failures
        self.contradictions += other.contradictions
        self.rounded += other.rounded

    def count(self, family: str = "", verdict: str = "", oracle: str | None = None) -> int:
        """Cases with the given family, verdict and oracle; all where they are not given."""
        return sum(
            n for (f, v, o), n in self.cells.items()
            if family in ("", f) and verdict in ("", v) and oracle in (None, o)
        )  # fmt: skip

    # Tables ------------------------------------------------------------------------------------

    def tables(self) -> list[Table]:
        """Everything, for a screen or a page."""
        return [
            self._summary(),
            self._by_verdict(),
            self._before_and_after(),
            self._by_path(),
            self._by_reason(),
            self._by_family(),
            self._times(),
            self._to_read(),
        ]

    def _summary(self) -> Table:
        judged = self.cases - self.count(oracle="")
        certified = self.count(verdict=CERTIFIED, oracle=Verdict.INSIDE)
        steps = self.cases - self.count(verdict=REFUSED)
        rows = [
            ("families", f"{len(self.networks)}"),
            ("networks", f"{sum(self.networks.values()):,}"),
            ("distinct networks", f"{sum(map(len, self.distinct.values())):,}"),
            ("cases", f"{self.cases:,}"),
            ("judged by the oracle", f"{judged:,}"),
            ("with a touch or a tie", f"{sum(self.hits.values()):,}"),
            ("backward is wrong there, and not certified", f"{self.wrong() - self._unsound():,}"),
            ("**certified and wrong, or refuted and right**", f"**{self._unsound():,}**"),
            ("crashes", f"{sum(r.verdict == CRASHED for r in self.failures):,}"),
            ("certified, and backward is right", f"{certified:,}"),
            ("certified, of all steps of networks that are not refused", _share(self.count(verdict=CERTIFIED), steps)),
            ("oracle unsure", _share(self.count(oracle=Verdict.UNSURE), judged)),
            ("rounding", _share(self.count(oracle=Verdict.ROUNDING), judged)),
            ("oracle contradicts itself", f"{len(self.contradictions):,}"),
        ]
        return Table("Summary", ("", "number"), tuple(rows))

    def wrong(self, family: str = "") -> int:
        """Cases in which backward is wrong, whatever was said about them."""
        return sum(self.count(family, oracle=o) for o in (Verdict.OUTSIDE, Verdict.NOT_AD, Verdict.NOT_LIPSCHITZ))

    def _unsound(self) -> int:
        return sum(r.is_unsound for r in self.failures)

    def _by_verdict(self) -> Table:
        verdicts = sorted({v for _, v, _ in self.cells})
        oracles = [o for o in (*map(str, Verdict), "") if self.count(oracle=o)]
        rows = [(v, *(f"{self.count('', v, o):,}" for o in oracles)) for v in verdicts]
        return Table(
            "fxcheck (rows) and the oracle (columns)", ("", *(o or "not judged" for o in oracles)), tuple(rows)
        )

    def _before_and_after(self) -> Table:
        """What deciding all layers together adds. Without it, models that need it would be refused; with it switched off
        (``joint_seconds=0``), their steps without touch or tie are certified all the same."""

        of_hits = sum(n for (_, _, hit), n in self.right.items() if hit)

        def row(name: str, counts: Callable[[str, bool], bool]) -> Row:
            found = [(n, hit) for (v, owed, hit), n in self.right.items() if v == CERTIFIED and counts(owed, hit)]
            hits = sum(n for n, hit in found if hit)
            return name, _share(sum(n for n, _ in found), sum(self.right.values())), _share(hits, of_hits)

        rows = (
            row("without the joint condition", lambda owed, hit: not owed),
            row("joint_seconds=0", lambda owed, hit: not owed or (owed == FIRST and not hit)),
            row("first look only", lambda owed, hit: owed != SECOND),
            row("as it is", lambda owed, hit: True),
        )
        columns = ("what is certified of the right ones", "all, refused models included", "touched or tied")
        return Table("Right gradients that are certified, before and after (estimated from the samples)", columns, rows)

    def _by_path(self) -> Table:
        inside = self.count(verdict=CERTIFIED, oracle=Verdict.INSIDE)
        words = sorted({w for w, _ in self.paths}, key=lambda w: -self._total(self.paths, w))
        rows = [
            (w, f"{self._total(self.paths, w):,}", _share(self.paths[w, Verdict.INSIDE], inside),
             *(f"{self.paths[w, o]:,}" for o in (Verdict.OUTSIDE, Verdict.UNSURE, Verdict.ROUNDING)))
            for w in words
        ]  # fmt: skip
        columns = ("what certified", "cases", "share of the right ones", "outside", "unsure", "rounding")
        return Table(
            f"Certified steps by path (a step may take several; {IDLE}: a sample is judged)", columns, tuple(rows)
        )

    def _by_reason(self) -> Table:
        words = sorted({w for w, _ in self.reasons}, key=lambda w: -self.reasons[w, Verdict.INSIDE])
        rows = [
            (w, f"{self.reasons[w, Verdict.INSIDE]:,}", f"{sum(self.reasons[w, o] for o in _WRONG):,}",
             f"{self.reasons[w, Verdict.UNSURE] + self.reasons[w, Verdict.ROUNDING]:,}")
            for w in words
        ]  # fmt: skip
        return Table(
            "Why the others are not certified (a sample is judged)",
            ("reason", "backward is right", "wrong", "not known"),
            tuple(rows),
        )

    @staticmethod
    def _total(counts: Counter[tuple[str, str]], word: str) -> int:
        return sum(n for (w, _), n in counts.items() if w == word)

    def _by_family(self) -> Table:
        rows = []
        for f in sorted(self.networks):
            right = self.count(f, oracle=Verdict.INSIDE)
            unknown = self.count(f, oracle=Verdict.UNSURE) + self.count(f, oracle=Verdict.ROUNDING)
            rows.append((
                f, f"{len(self.distinct[f]):,}", f"{self.count(f):,}", f"{self.hits[f]:,}", f"{self.count(f, CERTIFIED):,}",
                f"{self.count(f, REFUSED):,}", f"{right:,}", f"{self.wrong(f):,}", f"{unknown:,}",
                f"{sum(r.is_unsound for r in self.failures if r.family == f):,}",
            ))  # fmt: skip
        columns = ("family", "distinct networks", "cases", "touched or tied", "certified", "refused", "right", "wrong",
                   "not known", "certified and wrong")  # fmt: skip
        return Table("Families", columns, tuple(rows))

    def _to_read(self) -> Table:
        """The cases that somebody must look at, by what makes them again."""
        held = [(r, "failed") for r in self.failures] + [(r, "rounding") for r in self.rounded]
        held += [(r, "contradiction") for r in self.contradictions]
        rows = [(f"{r.family} {r.seed} {r.trial}", why, r.verdict, str(r.oracle), f"{r.distance:.2g}",
                 r.reason or "; ".join(r.path), r.text.splitlines()[0] if r.text else "")
                for r, why in held[:_MOST_TO_READ]]  # fmt: skip
        columns = ("family, seed, trial", "why", "verdict", "oracle", "distance", "by", "note")
        return Table(f"Cases to read ({len(held):,})", columns, tuple(rows))

    def _times(self) -> Table:
        rows = [(k, f"{s:.1f}", f"{1000 * s / max(1, self.cases):.1f}") for k, s in sorted(self.seconds.items())]
        return Table("Time", ("stage", "seconds", "ms a case"), tuple(rows))


_MOST_TO_READ = 100
_WRONG = (Verdict.OUTSIDE, Verdict.NOT_AD, Verdict.NOT_LIPSCHITZ)


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.1f}%)" if whole else f"{part:,}"
