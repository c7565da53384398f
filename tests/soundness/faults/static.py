"""Wrong rules about biases, operators and their proxies, and in the static verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.soundness.faults.record import NAMED, ROWS, TRAPS, VERDICTS, ZOO, fault

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


SCEPTIC = "tests/soundness/test_sceptic.py::"


@fault("4.7", "records.semantics:is_free", f"{SCEPTIC}test_a_maximum_over_entries_that_data_selects_is_not_over_one")
def sizes_are_those_of_the_example(right: Any) -> Any:
    """A size that depends on data is what it was when the model was captured."""
    return lambda symbol: False


@fault("4.1", "passes.find_units:_Finder._are_apart", f"{SCEPTIC}test_a_clamp_between_tensors_is_constant_where_they_are_equal"
       "[buffers]")  # fmt: skip
def bounds_are_apart(right: Any) -> Any:
    """The lower bound of a clamp between tensors lies below the upper one."""
    return lambda self, node: True


@fault("4.7", "passes.annotate:_may_be_a_mask", f"{SCEPTIC}test_a_mask_of_the_callers_that_is_added_to_scores_may_hold_infinity")
def inputs_are_finite(right: Any) -> Any:
    """An input that is added to scores is finite."""
    return lambda *given: False


@fault("1", "capture.hidden:in_attributes",
       "tests/capture/test_hidden.py::test_one_that_is_returned_too_may_be_where_the_next_forward_goes_on")  # fmt: skip
def attributes_hold_nothing(right: Any) -> Any:
    """A forward leaves nothing behind but what it returns."""
    return lambda model: iter(())


@fault("4.6", "theory.certificate:_coins", f"{ZOO}[relu(y) + clamp(y, max=0)]")
def kinks_that_disagree(right: Any) -> Any:
    """Activations that need opposite sides share a bias."""
    return lambda parameter, kinked: dict(list((right(parameter, kinked) or {}).items())[:1]) or None


@fault("5.5", "passes.follow_entries:_joined", f"{VERDICTS}[a half, and the whole rolled back on it]")
def first_entry_for_all(right: Any) -> Any:
    """An entry that two entries of a bias move has the label of the first."""
    return lambda a, b: right(a, b * (a == 0))


@fault("5.5", "passes.follow_entries:_Follower._number", f"{VERDICTS}[CReLU on one half, by a factor]")
def labels_without_signs(right: Any) -> Any:
    """A negative factor leaves the direction of a bias entry as it was."""
    return lambda self, factor: abs(right(self, factor))


@fault("5.5", "passes.follow_entries:_Follower._labelled",
       f"{VERDICTS}[halves after a roll by the size of the minibatch]")  # fmt: skip
def one_size_for_all(right: Any) -> Any:
    """Labels at the example's minibatch size hold for every size."""
    return lambda self, value: right(self, int(value) if isinstance(value, int) else value)


@fault("5.5", "passes.follow_entries:_moved", f"{VERDICTS}[T1 and positions that share a bias]")
def each_entry_moves_one(right: Any) -> Any:
    """No entry of a bias that was followed moves two pre-activation entries of a unit."""
    return lambda labels, count: replace(right(labels, count), repeated=0)


@fault("5.5, T1", "theory.certificate:Certificate.certifies", f"{VERDICTS}[T1's layers without batch_size]")
def every_minibatch_is_one(right: Any) -> Any:
    """The rule for a minibatch of one certifies any."""
    return property(lambda self: self.certifies_one_sample)


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


@fault("2, Condition 1", "theory.certificate:_repeated", f"{TRAPS}[lemma 3 within one sample under T1]")
def shared_is_distinct(right: Any) -> Any:
    """A bias entry that reaches several neurons counts as distinct."""
    return lambda parameter, kinked: 0


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


@fault("5, Convexity", "theory.classify:_blockers", f"{VERDICTS}[abs blocks T8 for a max]")
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

    table = load(Path(__file__).parents[2] / "golden" / "proxies-2.13.json")
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


_OF_DTYPES = "tests/passes/test_numbers_of_dtypes.py::"


@fault("4.7", "passes.annotate:_may_wrap", f"{SCEPTIC}test_integers_may_wrap_round_to_zero[a sum]")
def integers_are_unbounded(right: Any) -> Any:
    """Sums and products of integers are those of the integers, whatever their dtype."""
    return lambda *given: False


@fault("4.7", "passes.annotate:as_held",
       f"{_OF_DTYPES}test_a_factor_that_may_be_negative_is_not_positive[a bound rounded to half]")  # fmt: skip
def numbers_are_held_exactly(right: Any) -> Any:
    """A dtype holds every number."""
    return lambda value, dtype: value


@fault("4.3", "passes.find_activations:_holds", f"{_OF_DTYPES}test_exact_forms_hold_what_their_dtype_holds[_truncated]")
def dtypes_hold_all_forms(right: Any) -> Any:
    """A dtype holds every value of a function."""
    return lambda dtype, form: True
