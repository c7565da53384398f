"""Faults to plant in fxcheck: each makes it certify what the theory does not, and names the test that must notice.

A fault replaces one function by a subtly wrong one, in every module that imported it. With ``FXCHECK_FAULT=name`` in the
environment and ``-p tests.soundness.faults``, pytest runs with that fault in force (``tools/planted_faults.py`` does).
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

VARIABLE = "FXCHECK_FAULT"
CRASHED = 70
"""Exit status of pytest when a test failed by an exception other than its own assertion: the fault is a bad one."""

Wrong = Callable[[Any], Any]
"""From the right function (or property) to the wrong one."""

TRAPS = "tests/runtime/test_traps_at_run_time.py::test_a_wrong_gradient_is_not_certified"
ATTACKS = "tests/runtime/test_traps_at_run_time.py::test_a_wrong_gradient_found_by_attack_is_not_certified"
ZOO = "tests/zoo/test_traps.py::test_the_verdict_of_a_trap"
VERDICTS = "tests/zoo/test_verdicts.py::test_zoo_model_gets_a_verdict_that_the_theory_permits"
ROWS = "tests/runtime/test_rows.py::"
STEPS = "tests/runtime/test_steps.py::"
FUZZ = "tests/runtime/test_fuzz_at_run_time.py::"
NAMED = "tests/soundness/test_faults_named.py::"


@dataclass(frozen=True)
class Fault:
    """One wrong rule."""

    name: str
    what: str
    section: str
    """Of the theory: the rule that is broken."""
    target: str
    """``module:qualified.name`` of what is replaced."""
    wrong: Wrong
    killer: str
    """The pytest node that must fail while the fault is in force."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The fault, in force in this process."""
        owner, name, right = found(self.target)
        wrong = self.wrong(right)
        with ExitStack() as stack:
            stack.enter_context(patch.object(owner, name, wrong))
            if inspect.isfunction(right):
                for holder in _holders(right):
                    stack.enter_context(patch.dict(holder, {k: wrong for k, v in holder.items() if v is right}))
            yield


FAULTS: list[Fault] = []


def fault(section: str, target: str, killer: str) -> Callable[[Wrong], Wrong]:
    """Register a function from right to wrong; its name and docstring are the fault's."""

    def register(wrong: Wrong) -> Wrong:
        what = " ".join((wrong.__doc__ or "").split())
        FAULTS.append(Fault(wrong.__name__.replace("_", "-"), what, section, f"fxcheck.{target}", wrong, killer))
        return wrong

    return register


def found(target: str) -> tuple[Any, str, Any]:
    """(owner, name, value) of ``module:qualified.name``, once all of fxcheck is imported."""
    _import_everything()
    where, _, path = target.partition(":")
    owner: Any = importlib.import_module(where)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name, inspect.getattr_static(owner, name)


@cache
def _import_everything() -> None:
    import fxcheck

    for module in pkgutil.walk_packages(fxcheck.__path__, "fxcheck."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _holders(right: Any) -> list[dict[Any, Any]]:
    """Namespaces and module-level tables of fxcheck that hold the function."""
    spaces = [vars(m) for n, m in list(sys.modules.items()) if n.split(".")[0] == "fxcheck"]
    tables = [v for space in spaces for n, v in space.items() if isinstance(v, dict) and not n.startswith("__")]
    return [held for held in (*spaces, *tables) if any(v is right for v in list(held.values()))]


# In a child process ------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Plant the fault that the environment names, for the whole run."""
    name = os.environ.get(VARIABLE)
    if name:
        stack = ExitStack()
        stack.enter_context(next(f for f in FAULTS if f.name == name).planted())
        config.add_cleanup(stack.close)


def pytest_exception_interact(call: pytest.CallInfo[Any]) -> None:
    """A fault must be noticed by an assertion: one that merely crashes proves nothing."""
    error = call.excinfo.value if call.excinfo else None
    if os.environ.get(VARIABLE) and not isinstance(error, (AssertionError, pytest.fail.Exception)):
        pytest.exit(f"the fault crashed: {type(error).__name__} {error}", returncode=CRASHED)


# Biases and the static verdict ---------------------------------------------------------------------


@fault(
    "3, 4.7", "passes.common_bias:_one_coefficient", f"{ROWS}test_unequal_bias_coefficients_are_decided_by_algorithm_1"
)
def unequal_coefficients(right: Any) -> Any:
    """Algorithm 2 whatever the coefficients with which the bias reaches the entries."""
    return lambda entries, chosen: all(any(p in e.pushes for p in chosen) for e in entries)


@fault("3", "passes.common_bias:decides_by_algorithm_2", f"{TRAPS}[lemma 7 at b = -1.0, max_pool1d]")
def algorithm_2_for_every_rho(right: Any) -> Any:
    """Algorithm 2 (no rows for maxima <= 0) where rho is the identity or smooth."""
    return lambda facts, judged: judged.has_max


@fault("4.4", "capture.lower:lower_with_sources", f"{VERDICTS}[frozen bias]")
def frozen_parameters_move(right: Any) -> Any:
    """A frozen bias counts as a bias."""
    return lambda captured, wrt=None: right(replace(captured, requires_grad=frozenset(captured.parameters)), wrt)


@fault("4.7", "passes.find_biases:_sum", f"{ZOO}[bias differences b_i - b_j]")
def both_signs(right: Any) -> Any:
    """A bias that reaches an entry with both signs keeps the first."""

    def wrong(a: Any, b: Any) -> Any:
        total = right(a, b)
        twice = {p: push for p, push in a.pushes.items() if p in b.pushes and p not in total.pushes}
        return replace(total, pushes={**total.pushes, **twice}, lost=total.lost & ~sum(1 << p for p in twice))

    return wrong


@fault("4.6", "theory.certificate:_demand", f"{ZOO}[relu(y) + clamp(y, max=0)]")
def kinks_that_disagree(right: Any) -> Any:
    """Activations that need opposite sides share a bias."""
    return lambda parameter, entries: next((d for e in entries if (d := right(parameter, [e])) is not None), None)


@fault("2, lambda-consistent", "theory.certificate:weight_of", f"{ZOO}[lemma 3: hardsigmoid at both kinks]")
def first_kink_for_all(right: Any) -> Any:
    """The proxy weight of a rho is that of its first kink."""
    return lambda unit: unit.points[0].weight if unit.points else None


@fault("4.7", "passes.find_biases:_Interpreter._is_positive", f"{ZOO}[times a parameter of unknown sign]")
def factors_are_positive(right: Any) -> Any:
    """A bias is kept by a factor of unknown sign."""
    return lambda self, node, name: True


@fault("4.7", "passes.find_biases:_Interpreter._transfer", f"{ZOO}[constant entries from where lose the bias]")
def no_constant_entries(right: Any) -> Any:
    """Every entry that `where` or padding makes has the bias."""
    return lambda self, node: tuple(c for c in right(self, node) if c.varies)


@fault("2, Condition 1", "theory.certificate:_reach", f"{TRAPS}[lemma 3 within one sample under T1]")
def shared_is_distinct(right: Any) -> Any:
    """A bias entry that reaches several neurons counts as distinct."""
    return lambda parameter, kinked: 1.0


@fault("4.7", "passes.find_biases:_Interpreter._dropout", f"{ZOO}[stochastic depth: mask * (f + b) + skip]")
def fixed_mask(right: Any) -> Any:
    """Stochastic depth as a mask that never drops the bias."""
    return lambda self, node: right(self, node)[:-1]


@fault("4.6", "passes.group_layers:_Grouping.groups", f"{NAMED}test_a_parameter_of_a_parallel_layer_is_not_fresh")
def fresh_by_ancestors(right: Any) -> Any:
    """Fresh: in no ancestor, rather than in no earlier group of one total order."""
    return lambda self: tuple(
        replace(g, fresh=self._fresh_if(mask)) for g, mask in zip(right(self), self.order(), strict=True)
    )


@fault("5, Convexity", "theory.classify:_blockers", f"{ZOO}[abs blocks T8]")
def discharged_layers_do_not_matter(right: Any) -> Any:
    """T8 beside a discharged layer whose proxies are Clarke-only."""
    return lambda judged: right(tuple(j for j in judged if not j.is_certified))


@fault("T5", "passes.describe_layers:_fully_connected", f"{VERDICTS}[LayerNorm with weight only]")
def every_layer_fully_connected(right: Any) -> Any:
    """T5 for networks with residuals."""
    return lambda facts, units: frozenset(u.node for u in units)


# Operators and proxies -----------------------------------------------------------------------------


@fault("4.1", "ops.measured:Measured.scalar", f"{TRAPS}[lemma 3 with hardtanh]")
def clamp_is_like_relu(right: Any) -> Any:
    """AD takes the left slope at every kink of a clamp."""

    def wrong(self: Any, *call: Any) -> Any:
        proxies = right(self, *call)
        return proxies and tuple(replace(p, ad=p.left, weight=1.0 if p.is_kink else None) for p in proxies)

    return wrong


@fault("4.1", "ops.measured:Measured.scalar", f"{ZOO}[relu(y) + clamp(y, max=0)]")
def tabulated_proxies(right: Any) -> Any:
    """Proxies from a table that another torch wrote."""
    from fxcheck.ops.measured import Measured
    from fxcheck.ops.proxies import load
    from fxcheck.ops.saved import Saved

    table = load(Path(__file__).parents[1] / "golden" / "proxies-2.13.json")
    saved = Saved(table, type("Installed", (Measured,), {"scalar": right})())  # type: ignore[arg-type]
    return lambda self, *call: saved.scalar(*call) or right(self, *call)


@fault("4.2", "passes.find_units:_Finder._is_one_hot", f"{ZOO}[amax splits]")
def split_is_one_hot(right: Any) -> Any:
    """A max that splits its gradient among tied entries is taken as one that picks."""
    return lambda self, node, inputs: True


@fault("4.2", "passes.find_units:_Finder._plain", f"{ZOO}[median]")
def order_statistics_are_maxima(right: Any) -> Any:
    """A median is a max that picks one entry."""
    from fxcheck.records.layer import UnitKind

    return lambda self, node, kind, inputs: right(
        self, node, UnitKind.MAX if kind is UnitKind.ORDER_STATISTIC else kind, inputs
    )


@fault("4.3", "ops.registry:lookup", f"{ZOO}[detach reaches the output]")
def detach_is_the_identity(right: Any) -> Any:
    """A detached value is differentiated like any other."""
    from fxcheck.records.semantics import Kind, OpSemantics, Transfer

    identity = OpSemantics(Kind.STRUCTURAL, Transfer.KEEP, elementwise=True)
    return lambda call: identity if call.op.startswith("aten.detach") else right(call)


@fault("4.3", "records.piecewise:Piecewise.is_continuous", f"{ZOO}[where with a jump]")
def masks_never_jump(right: Any) -> Any:
    """Mask idioms without the check that they are continuous."""
    return property(lambda self: True)


@fault("4.3", "ops.singular_points:reaches_singular_point", f"{NAMED}test_a_norm_at_its_singular_point")
def no_singular_points(right: Any) -> Any:
    """Norms are differentiable at 0."""
    return lambda *call: False


# What a forward shows --------------------------------------------------------------------------------


@fault("4.3", "passes.plan_checks:_Planner._touches", f"{TRAPS}[in place]")
def in_place_is_not_seen(right: Any) -> Any:
    """Touches of operations that overwrite their operand are not recorded."""

    def wrong(self: Any, unit: Any, plan: Any) -> None:
        node = self.facts.graph.nodes[unit.node]
        if not (node.called_as or node.op).split(".")[1].endswith("_"):
            right(self, unit, plan)

    return wrong


@fault("4.3", "runtime.collector:Collector._settle_guards", f"{NAMED}test_rounding_inside_a_chain_hits_a_kink_off_it")
def rounding_moves_no_kink(right: Any) -> Any:
    """Inside a chain the kinks are hit where the root equals them."""
    return lambda self: None


@fault("2, Algorithm 1", "runtime.collector:Collector._dimension", f"{NAMED}test_cummax_picks_the_last_of_equals")
def first_index(right: Any) -> Any:
    """AD's pick is the first maximal entry, rather than the one that the forward returned."""

    def wrong(self: Any, check: Any, values: list[torch.Tensor], live: list[torch.Tensor]) -> None:
        if check.operator.split(".")[1].startswith("cum"):
            dim = check.arguments["dim"]
            x, extrema = (v.movedim(dim, -1) for v in values[:2])
            first = (x[..., None, :] == extrema[..., :, None]).int().argmax(-1).movedim(-1, dim)
            values = [*values[:2], first, *values[3:]]
        right(self, check, values, live)

    return wrong


@fault("4.11", "runtime.ties_found:entries_that_win", f"{NAMED}test_a_touched_entry_that_wins_needs_its_row")
def no_touch_wins(right: Any) -> Any:
    """Touched entries under a max lose it."""
    return lambda check, x, maxima, entries: torch.zeros_like(entries, dtype=torch.bool)


@fault(
    "4.10", "runtime.position_classes:PositionClasses._pooled", f"{NAMED}test_the_padding_of_a_pool_is_not_a_zero_pixel"
)
def padding_is_a_zero_pixel(right: Any) -> Any:
    """Position classes without a padding token."""

    def wrong(self: Any, node: Any) -> Any:
        from fxcheck.runtime.windows_of import pooling_windows
        from fxcheck.scan import classes

        operand = self.facts.graph.nodes[node.arguments["self"].id]
        before = self.of(operand.id)
        if before is None or operand.op != "fxcheck.input":
            return right(self, node)
        padded, arguments = self._padded_with_zeros(before, {**node.arguments, "input": node.arguments["self"]})
        windows = pooling_windows(
            node.op, arguments, tuple(padded.shape[2:]), self._pooled_size(node, before.shape[2:])
        )
        return classes.through_windows(padded, windows, node.id)

    return wrong


@fault(
    "4.10",
    "runtime.position_classes:PositionClasses._is_position_free",
    f"{TRAPS}[position embedding against its flip]",
)
def positions_share_parameters(right: Any) -> Any:
    """Position classes without position-wise parameters."""
    return lambda self, id_, spatial: right(self, id_, spatial) or self.facts.graph.nodes[id_].op.startswith("fxcheck.")


@fault(
    "4.10",
    "runtime.position_classes:PositionClasses._entrywise",
    f"{NAMED}test_position_wise_parameters_of_a_normalisation_tell_positions_apart",
)
def normalisation_keeps_classes(right: Any) -> Any:
    """A layer normalisation leaves position classes alone, its position-wise weight and bias too."""
    return lambda self, node, base: self._of(node, "input") if base == "layer_norm" else right(self, node, base)


# Rows ------------------------------------------------------------------------------------------------


@fault(
    "4.9", "runtime.build_rows:RowBuilder._scales", f"{ROWS}test_tie_rows_in_closed_form_are_autograds[pool-train norm]"
)
def gamma_is_positive(right: Any) -> Any:
    """Rows behind a normalisation without gamma's sign."""
    return lambda self, *call: (lambda signs, *rest: (np.abs(signs), *rest))(*right(self, *call))


@fault("4.9", "runtime.build_rows:RowBuilder._scales", f"{NAMED}test_gamma_0_leaves_rows_on_gamma_alone")
def gamma_is_not_zero(right: Any) -> Any:
    """A channel that gamma = 0 ties gets the rows of gamma > 0."""
    return lambda self, *call: (lambda signs, *rest: (np.where(signs == 0, 1.0, signs), *rest))(*right(self, *call))


@fault("4.9", "runtime.build_rows:RowBuilder._differences", f"{ATTACKS}[1b: max over channels]")
def ties_across_channels(right: Any) -> Any:
    """Ties between channels need no row."""

    def wrong(
        self: Any, ties: Any, group: Any, source: Any, chosen: torch.Tensor, channels: torch.Tensor, *rest: Any
    ) -> Any:
        _, losers = source.rows_and_channels(ties.losers[chosen], ties.at.shape)
        return right(self, ties, group, source, chosen, channels, *rest) | (channels != losers)

    return wrong


@fault("4.9", "runtime.gradients:Gradients.fill", f"{NAMED}test_rows_show_fresh_coordinates_only")
def every_coordinate(right: Any) -> Any:
    """Rows on all parameters, those of earlier layers included."""
    return lambda self, row, names: right(self, row, list(self.parameters))


@fault("4.10", "runtime.build_rows:RowBuilder._equal_functions", f"{NAMED}test_equal_values_are_not_equal_functions")
def t_j_by_value(right: Any) -> Any:
    """Equal patches of activations are equal functions."""
    return lambda self, source, patches, left, right_: np.array((patches[left] == patches[right_]).all((1, 2)))


@fault("4.10", "runtime.origins:Origins.have_equal_gradients", f"{NAMED}test_equal_values_are_not_equal_functions")
def t_j_by_value_of_origins(right: Any) -> Any:
    """Entries that read equal values have equal gradients, wherever the values come from."""
    return lambda self, *call: True


@fault("4.10", "runtime.decide:is_in_t_j", f"{TRAPS}[max_pool2d of a convolution]")
def t_j_without_looking(right: Any) -> Any:
    """A tie whose row proves emptiness is put into T_j."""
    return lambda row, gradients: row.loser >= 0


@fault("4.11", "passes.closed_forms:ClosedForms._zero_is_frozen", f"{ATTACKS}[2a: chunk]")
def zeros_are_frozen(right: Any) -> Any:
    """A zero gradient is evidence that an entry is frozen."""
    return lambda self, id_: True


@fault("5, Zero rows", "runtime.session:Session._settle_zero_rows", f"{NAMED}test_equal_values_are_not_equal_functions")
def zero_rows_are_free(right: Any) -> Any:
    """Rows that vanish on the fresh coordinates of T8 are dropped."""
    return lambda self, rows, gradients: [r for r in rows if not r.is_zero]


@fault("4.9", "passes.closed_forms:ClosedForms._coordinate", f"{ATTACKS}[5b: beta is also the convolution's bias]")
def parameters_enter_once(right: Any) -> Any:
    """A closed form where the operand depends on the same parameter."""
    return lambda self, leaf, data, fresh: self._name(leaf) if leaf is not None and self._name(leaf) in fresh else None


@fault("2, Algorithm 1", "runtime.gradients:sign_of_maximum", f"{NAMED}test_the_pick_of_a_minimum_stays_below")
def minima_are_maxima(right: Any) -> Any:
    """The pick of a minimum must stay above the others."""
    return lambda operator: 1.0


@fault("3, Algorithm 1", "runtime.rows:Row.without", f"{FUZZ}test_networks_that_were_once_decided_wrongly[image-265]")
def coordinates_left_out_may_move(right: Any) -> Any:
    """A row without some coordinates beside rows that move them."""
    return lambda self, fixed, size_of: (self.slots, self.values)


# Decisions -------------------------------------------------------------------------------------------


@fault("2, Algorithm 1", "runtime.blocks:blocks_of", f"{TRAPS}[two swapped pixels]")
def each_window_alone(right: Any) -> Any:
    """Max outputs and touches are decided one by one."""

    def wrong(rows: Any, size_of: Any) -> list[Any]:
        apart: dict[Any, list[Any]] = {}
        for row in rows:
            apart.setdefault((row.group, row.kind, row.output, row.entry), []).append(row)
        return [block for part in apart.values() for block in right(part, size_of)]

    return wrong


@fault("4.12", "runtime.session:Session._settle", f"{STEPS}test_rows_of_all_forwards_are_decided_together")
def each_forward_alone(right: Any) -> Any:
    """Micro-batches are decided one by one."""

    def wrong(self: Any, *call: Any) -> None:
        before, held = self.decided, (self.rows, self.columns)
        self.rows, self.columns = [], []
        right(self, *call)
        self.rows, self.columns = held
        for name in ("blocks", "independent", "dependent") if before else ():
            getattr(self.decided, name)[:0] = getattr(before, name)

    return wrong


@fault("4.12", "runtime.program:Program.is_like", f"{ATTACKS}[6b: a submodule's training flag turns the layer around]")
def programs_are_alike(right: Any) -> Any:
    """Rows of forwards that ran different layers are pooled."""
    return lambda self, other: True


@fault(
    "3, T1", "runtime.session:Session.joins", f"{STEPS}test_lemma_3_as_one_minibatch_and_as_two_micro_batches_of_one"
)
def t1_forward_by_forward(right: Any) -> Any:
    """T1 for a step of several samples."""

    def wrong(self: Any, *call: Any) -> None:
        right(self, *call)
        self.forwards = self.samples = 1

    return wrong


@fault(
    "4.12",
    "passes.plan_checks:_carried",
    f"{STEPS}test_a_buffer_that_carries_activations_spoils_steps_of_several_forwards",
)
def buffers_carry_nothing(right: Any) -> Any:
    """A buffer that hands activations to the next forward without gradient is ignored."""
    return lambda facts: ()


@fault("4.12", "runtime.checked:_outside_influence", f"{ATTACKS}[8: a checked parameter as the input]")
def inputs_are_data(right: Any) -> Any:
    """An input that depends on the parameters passes as data."""
    return lambda program, leaves: []


@fault("3, T5", "runtime.conclude:_without_sides", f"{NAMED}test_t5_says_nothing_about_dependent_columns")
def no_side_is_a_side(right: Any) -> Any:
    """Where T5 fails, touches at which AD took neither side need no row."""
    return lambda session, decided: []


@fault(
    "3, Emptiness", "lp.feasibility:_judge", "tests/lp/test_feasibility.py::test_no_lie_of_the_solver_becomes_a_verdict"
)
def trusted_solver(right: Any) -> Any:
    """The solver's direction is believed where it says that its margin is positive."""
    from fxcheck.records.system import Decision, Outcome

    def wrong(rows: Any, basis: Any, claim: Any, clock: Any) -> Any:
        x = claim.x if basis is None else basis @ claim.x
        return Decision(Outcome.FEASIBLE, x) if claim.margin > 0 else right(rows, basis, claim, clock)

    return wrong


@fault("4.13", "lp.verify:clears", "tests/lp/test_feasibility.py::test_a_direction_must_clear_the_error_of_its_rows")
def rows_are_exact(right: Any) -> Any:
    """A direction need not clear the error of the rows."""
    return lambda scaled, error, directions: right(scaled, 0 * error, directions)


@fault(
    "3, Emptiness",
    "lp.recheck:_holds",
    "tests/lp/test_recheck.py::test_a_tampered_block_is_refuted_whatever_the_verdict",
)
def certificates_hold(right: Any) -> Any:
    """A saved certificate is believed."""
    return lambda block: True


@fault("3, T5", "lp.independence:left_inverse", "tests/lp/test_independence.py::"
       "test_dependent_integer_columns_are_never_called_independent")  # fmt: skip
def floating_rank(right: Any) -> Any:
    """T5 by a floating-point rank: no pivot of the QR factorisation is 0."""

    def wrong(columns: np.ndarray) -> np.ndarray | None:
        full = columns.shape[0] >= columns.shape[1] and bool(np.diag(np.linalg.qr(columns)[1]).all())
        return np.linalg.pinv(columns) if full else None

    return wrong
