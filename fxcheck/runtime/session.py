"""One optimizer step while it runs: rows of all its forwards, then one decision (theory 4.12)."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from fxcheck.records.system import Outcome
from fxcheck.runtime.build_rows import RowBuilder
from fxcheck.runtime.collector import Collector
from fxcheck.runtime.decide import Decided, decide_rows, is_in_t_j, refine
from fxcheck.runtime.deposits import Deposits, Ledger
from fxcheck.runtime.first_look import look_at
from fxcheck.runtime.glance import are_trained
from fxcheck.runtime.gradients import Gradients
from fxcheck.runtime.many_rows import NO_ROWS
from fxcheck.runtime.observed import Count, Observed
from fxcheck.runtime.origins import Origins
from fxcheck.runtime.program import Program
from fxcheck.runtime.replay import Forward
from fxcheck.runtime.rows import Columns, Row, RowKind
from fxcheck.runtime.signature import checksum
from fxcheck.runtime.stages import book

_ROUNDS = 8
"""How often rows that prove emptiness are looked at again."""


@dataclass
class Session:
    """What the forwards of one step have shown so far."""

    ledger: Ledger
    """The model's."""
    expects_several: bool = True
    """Forwards: another one may make a second look at this one necessary, when its inputs may be overwritten already."""
    joint_seconds: float = 0.0
    """What is left of the time that deciding the step as a whole may take."""
    program: Program | None = None
    parameters: tuple[nn.Parameter, ...] = ()
    """The model's."""
    written: list[int] = field(default_factory=list)
    """How often each had been written in place at the first forward."""
    was_updated: bool = False
    """An optimizer has updated some of them, which fused ones do past torch's count of writes."""
    rows: list[Row] = field(default_factory=list)
    columns: list[Columns] = field(default_factory=list)
    entries: dict[int, int] = field(default_factory=dict)
    """As ``Observed.entries``, over all forwards."""
    counts: dict[int, Count] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Why the step cannot be decided at all."""
    open_questions: list[str] = field(default_factory=list)
    """What the layers' own systems leave open; another look at the whole step may settle it."""
    runs: list[Forward] = field(default_factory=list)
    deposits: Deposits | None = None
    """Of the step's backward passes, once a forward has run."""
    is_idle: bool = True
    """Nothing that a theorem has to answer for was seen."""
    forwards: int = 0
    samples: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    decided: Decided | None = None
    """Of the rows so far; None when rows came from several forwards or ranks and wait to be decided together."""
    checksums: list[int] = field(default_factory=list)
    """Of the inputs and of the own weights of layers with rows, at each forward that had any."""
    gathered_ranks: int = 0
    """Ranks whose rows are in here; 0 before ``gather``."""

    def joins(self, program: Program, samples: int) -> None:
        """Count a forward of a program.

        Rows of programs with other layers cannot be pooled.
        """
        if self.program is not None and not self.program.is_like(program):
            self.problem("forwards of one step ran different layers (flags, inputs or hooks changed in between)")
        self.program = self.program or program
        self.deposits = self.deposits or Deposits(list(program.trainable.values()), self.seconds, self.ledger, program.is_static)
        if self.forwards and program.plan.carried:
            self.problem(f"buffer {program.plan.carried[0]} carries activations from one forward of the step to the next, "
                         "without their gradient")  # fmt: skip
        self.forwards += 1
        self.samples += samples
        self.gathered_ranks = 0

    def look_back(self, arrivals: int) -> None:
        """Note what came between the forwards and the end of the step that makes its gradient another one.

        Args:
            arrivals: of gradients at outputs of the model, while the step was open.
        """
        if arrivals > (0 if self.deposits is None else self.deposits.arrivals):
            self.problem("backward() came to a forward of before this step, or to one that was not checked, whose touches and "
                         "ties are no part of it; detach what one step takes over from another")  # fmt: skip
        if self.program is not None and not all(are_trained(self.program.trainable.values())):
            self.problem("a parameter was frozen between the forward and the end of the step, so that its gradient may be "
                         "missing")  # fmt: skip

    def note_update(self, parameters: Collection[int]) -> None:
        """An optimizer has updated parameters, of which these are the identities."""
        self.was_updated |= any(id(p) in parameters for p in self.parameters)

    def problem(self, sentence: str) -> None:
        if sentence not in self.problems:
            self.problems.append(sentence)

    @property
    def may_be_looked_at(self) -> bool:
        """Something was seen that the layers' own systems do not settle, as far as the forwards so far show."""
        if self.program is not None and self.program.plan.joint:
            return not self.is_idle
        decided = self.decided
        settled = decided is not None and all(d.outcome is Outcome.FEASIBLE for _, d in decided.blocks)
        return bool(self.open_questions) or not settled or bool(decided and decided.dependent)

    def _leave_open(self, sentences: Sequence[str]) -> None:
        self.open_questions += [s for s in sentences if s not in self.open_questions]

    def spend(self, stage: str, since: float) -> None:
        book(self.seconds, stage, since)

    def add_forward(self, forward: Forward, collector: Collector, most_gradients: int) -> None:
        """Take in what a forward showed, while its graph lives.

        Args:
            forward: what ran.
            collector: what its check nodes saw.
            most_gradients: backward passes that may be spent on rows and on T_j.
        """
        observed = collector.finish()
        self.runs.append(forward)
        self.is_idle &= observed.is_idle
        self._add_counts(observed)
        if not observed.is_idle and forward.program.has_complex_coordinates:
            self.problem("a parameter that is trained holds complex numbers, and the rows of a step are over real ones")
        elif forward.program.plan.joint:
            self._add_to_joint(observed)
            self._look(forward, observed)
        else:
            self._add_rows(forward, observed, collector, most_gradients)
        started, is_open = time.perf_counter(), self.may_be_looked_at
        if is_open or self.expects_several:
            forward.keep_inputs()
        if is_open:
            forward.keep_weights()
        if forward.program.plan.joint and not observed.is_idle:
            self.checksums += [*forward.keep_inputs(), *(forward.weights or ())]
        self.spend("other", started)

    def _add_counts(self, observed: Observed) -> None:
        if not self.entries:
            self.entries, self.counts = observed.entries, observed.counts
            return
        for check, entries in observed.entries.items():
            self.entries[check] = self.entries.get(check, 0) + entries
        for check, count in observed.counts.items():
            self.counts.setdefault(check, Count()).add(count)

    def _add_rows(self, forward: Forward, observed: Observed, collector: Collector, most_gradients: int) -> None:
        """Turn what was seen into rows, and decide them with those of the forwards before."""
        if observed.is_idle and not observed.problems:
            self.decided = self.decided or Decided()
            for stage in ("rows", "T_j"):
                self.seconds.setdefault(stage, 0.0)
            return
        program = forward.program
        started = time.perf_counter()
        gradients = Gradients(program.trainable, most_gradients)
        origins = Origins(collector.classes)
        built = RowBuilder(program.plan, program.tensors, gradients, origins).build(observed)
        self.spend("rows", started)
        self._leave_open([*observed.problems, *built.problems])
        started = time.perf_counter()
        rows = built.rows if program.plan.uncovered else self._settle_zero_rows(built.rows, gradients)
        self.spend("T_j", started)
        self._settle(program, rows, built.columns, gradients)
        self._count_nontrivial(program, rows)
        for row in rows:
            assert row.at is not None
            row.forward, row.check, row.at = len(self.runs) - 1, row.at.check.index, None
        self.rows += rows
        self.columns += built.columns
        if rows or built.columns:
            concerned = {r.group for r in rows} | {c.group for c in built.columns}
            own = [program.trainable[n] for g in program.plan.groups if g.index in concerned for n in g.fresh]
            self.checksums += [*forward.keep_inputs(), *(checksum(t) for t in own)]

    def _add_to_joint(self, observed: Observed) -> None:
        """The joint condition is decided when the step has ended; here ties are counted, proven equal ones left out."""
        for sentence in observed.problems:
            self.problem(sentence)
        for ties in observed.ties:
            count = self.counts.setdefault(ties.at.check.index, Count())
            count.nontrivial += len(ties.losers)
            count.nontrivial_outputs += len(ties.outputs.unique())
        for splits in observed.splits:
            count, outputs = self.counts.setdefault(splits.check.index, Count()), len(splits.outputs.unique())
            count.nontrivial += len(splits.entries) - outputs
            count.nontrivial_outputs += outputs

    def _look(self, forward: Forward, observed: Observed) -> None:
        """The joint condition for this forward alone, while its graph lives; nothing where that leaves it open."""
        if observed.is_idle:
            forward.first_look = NO_ROWS
            self.seconds.setdefault("rows", 0.0)
            return
        started = time.perf_counter()
        if self.joint_seconds > 0 and not self.problems and not forward.program.plan.uncovered:
            parameters = list(forward.program.trainable.values())
            forward.first_look = look_at(observed, parameters, started + self.joint_seconds)
        self.spend("rows", started)
        self.joint_seconds -= time.perf_counter() - started

    def _settle_zero_rows(self, rows: list[Row], gradients: Gradients) -> list[Row]:
        """Ties whose row vanishes: harmless when the entries have equal total gradients, fatal otherwise."""
        kept = []
        for row in rows:
            if not (row.is_zero and is_in_t_j(row, gradients)):
                kept.append(row)
        return kept

    def _settle(self, program: Program, rows: list[Row], columns: Sequence[Columns], gradients: Gradients) -> None:
        """Decide all rows so far, looking again at this forward's rows where they prove emptiness."""
        if not (rows or columns or self.rows or self.columns):
            self.decided = Decided()
            return
        fresh = {g.index: g.fresh for g in program.plan.groups}
        for _ in range(_ROUNDS):
            self.decided = decide_rows([*self.rows, *rows], [*self.columns, *columns], program.slot_size, self.seconds)
            started = time.perf_counter()
            changed = not program.plan.uncovered and refine(rows, self.decided, gradients, lambda g: fresh[g])
            self.spend("T_j", started)
            if not changed:
                return
        self.decided = decide_rows([*self.rows, *rows], [*self.columns, *columns], program.slot_size, self.seconds)

    def _count_nontrivial(self, program: Program, rows: Sequence[Row]) -> None:
        ties = [r for r in rows if r.kind is RowKind.TIE and r.at is not None]
        outputs = {(r.at.check.index, r.output) for r in ties if r.at is not None}
        for row in ties:
            assert row.at is not None
            self.counts.setdefault(row.at.check.index, Count()).nontrivial += 1
        for check, _ in outputs:
            self.counts.setdefault(check, Count()).nontrivial_outputs += 1

    def pool(self, others: Sequence[Mapping[str, Any]]) -> None:
        """Add the rows of other ranks."""
        for other in others:
            self.rows += other["rows"]
            self.columns += other["columns"]
            for sentence in other["problems"]:
                self.problem(sentence)
            self._leave_open(other["open_questions"])
            self.is_idle &= other["is_idle"]
            self.samples += other["samples"]
            self.forwards += other["forwards"]
        self.gathered_ranks = len(others) + 1
        if self.program is not None and not self.program.is_static:
            self.decided = decide_rows(self.rows, self.columns, self.program.slot_size, self.seconds)

    def share(self) -> dict[str, Any]:
        """What other ranks need of this one."""
        plan = self.program.plan if self.program is not None else None
        return {
            "rows": self.rows, "columns": self.columns, "problems": self.problems,
            "open_questions": self.open_questions, "is_idle": self.is_idle, "samples": self.samples, "forwards": self.forwards,
            "layers": plan and (plan.groups, plan.trainable, plan.theorem),
        }  # fmt: skip

