"""Wrong ways to decide a step as a whole: its rows, the choices upstream, the mixture, and the second run of a forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tests.soundness.faults.record import FAULTS, fault

LABORATORY = "tests/soundness/test_faults_joint.py::test_a_case_of_the_laboratory_is_not_certified_wrongly"
ONCE_WRONG = "tests/soundness/test_joint_once_wrong.py::"
BY_HAND = "tests/soundness/test_faults_joint.py::test_a_wrong_gradient_is_not_certified"


# Rows of the joint condition ------------------------------------------------------------------------


@fault("5, Zero rows", "runtime.zeros:are_zero", f"{BY_HAND}[weights that cancel along (1, 1)]")
def zero_along_one_direction(right: Any) -> Any:
    """An entry whose derivative along (1, ..., 1) vanishes has the gradient zero."""
    from fxcheck.runtime.operands import derivatives_along

    def wrong(groups: Any, parameters: Any) -> Any:
        found = derivatives_along(groups, parameters, [torch.ones_like(p) for p in parameters])
        return [t == 0 for t in found]

    return wrong


@fault("5, Zero rows", "runtime.derivatives:Coordinates.write", f"{BY_HAND}[a gradient of 1e-6]")
def tiny_is_zero(right: Any) -> Any:
    """A gradient of 1e-5 is nothing but rounding."""

    def wrong(self: Any, gradients: Any, roundoff: float, moved: float = 0.0) -> Any:
        vector = right(self, gradients, roundoff, moved)
        return replace(vector, is_zero=True) if np.abs(vector.values).max(initial=0.0) < 1e-4 else vector

    return wrong


@fault("4.8", "runtime.scene:Scene.first_run", f"{LABORATORY}[joint:repeated block 4 4]")
def discharged_touches_are_no_rows(right: Any) -> Any:
    """Touches of layers that a bias discharges are left out of the joint system."""

    def wrong(self: Any, most_points: int) -> None:
        from fxcheck.theory.classify import judge

        right(self, most_points)
        held = {j.group.index for j in judge(self.forward.program.study.structured) if j.is_certified}
        self.sites = tuple(s for s in self.sites if s.check.group not in held)

    return wrong


@fault("2, Algorithm 1", "runtime.sites:Site.sign", f"{BY_HAND}[a minimum and a maximum]")
def a_minimum_is_a_maximum(right: Any) -> Any:
    """The pick of a minimum must stay above the others."""
    return property(lambda self: 1.0)


@fault("5, Joint condition", "runtime.joint:_refuse_mixture", f"{BY_HAND}[in place on views]")
def neither_side_is_the_left(right: Any) -> Any:
    """A slope of AD's that is neither side's, and that nothing can be put in the place of, has the row of the left side."""
    return lambda site, choice: None


@fault("4.10", "runtime.sites:_tied", f"{BY_HAND}[two maxima]")
def equal_values_are_one_pick(right: Any) -> Any:
    """Tied entries that a maximum picks from are one function."""
    return lambda ties: []


@fault("4.10", "runtime.split_ties:_distinct", f"{BY_HAND}[amax and a maximum]")
def equal_values_are_one_share(right: Any) -> Any:
    """Tied entries that share a gradient are one function."""
    return lambda found, labels: right(found, torch.zeros_like(labels))


@fault("5, Joint condition", "runtime.joint_rows:_terms", f"{BY_HAND}[many touches]")
def many_rows_have_no_sides(right: Any) -> Any:
    """Among many rows those of touches ask for the left side."""
    return lambda site, *rest: [(row, m, -abs(s) if not site.is_max else s) for row, m, s in right(site, *rest)]


@fault("5, Joint condition", "runtime.joint_rows:_of_touches", f"{BY_HAND}[both sides]")
def a_first_look_has_no_sides(right: Any) -> Any:
    """While the forward's graph lives, rows of touches ask for the left side."""

    def wrong(touches: Any, first: int) -> Any:
        reading, sides = right(touches, first)
        return replace(reading, signs=-np.abs(reading.signs)), sides

    return wrong


@fault("5, Joint condition", "runtime.joint_rows:rows_of_forward", f"{BY_HAND}[|2w + |w|| - 2|w| of the operation]")
def a_first_look_takes_neither_side_for_one(right: Any) -> Any:
    """While the forward's graph lives, a slope of AD's that is neither side's has the row of the right side."""

    def wrong(observed: Any) -> Any:
        rows = right(observed)
        return rows and replace(rows, mixed=np.zeros(len(rows), dtype=bool))

    return wrong


@fault("5, Zero rows", "runtime.many_rows:ManyRows._vanish", f"{BY_HAND}[rows that vanish on the bias]")
def zero_on_some_coordinates(right: Any) -> Any:
    """A row that vanishes along the first vector vanishes."""
    return lambda self, wanted: True


@fault("4.13", "runtime.rounding:disagreement", f"{ONCE_WRONG}test_rows_that_are_not_written_out_are_no_better_known_"
       "than_the_sums_they_came_from")  # fmt: skip
def sums_round_once(right: Any) -> Any:
    """A gradient is off by units of roundoff of its length, whatever its sums lost."""
    return lambda found: 0.0


@fault("4.13", "runtime.many_rows:ManyRows._products",
       "tests/runtime/test_many_rows.py::test_a_direction_counts_only_where_it_clears_what_cancellation_lost")  # fmt: skip
def products_are_exact(right: Any) -> Any:
    """A direction's products with rows are as exact as one sum over all of them."""

    def wrong(self: Any, vector: Any) -> Any:
        found = right(self, vector)
        self.lags[-1] = 0.0
        return found

    return wrong


@fault("4.13", "runtime.dense_rows:measured",
       "tests/runtime/test_dense_rows.py::test_what_rounding_moved_is_not_more_than_what_is_measured")  # fmt: skip
def written_rows_are_exact(right: Any) -> Any:
    """Rows that are written out in float64 are exact."""
    return lambda *given: (right(*given)[0], 0.0)


@fault("5, Joint condition", "runtime.dense_rows:_Walk.send",
       "tests/runtime/test_dense_rows.py::test_they_are_the_gradients_of_the_entries")  # fmt: skip
def a_tensor_is_used_once(right: Any) -> Any:
    """Of several uses of a tensor the last one's adjoint counts."""

    def wrong(self: Any, node: Any, adjoint: Any) -> None:
        self.adjoints.pop(node, None)
        right(self, node, adjoint)

    return wrong


@fault("4.12", "runtime.first_look:settled_by_first_looks", f"{LABORATORY}[replay:micro-batches 8 28]")
def the_first_forward_is_the_step(right: Any) -> Any:
    """What the first look at one forward shows holds for the step."""
    return lambda forwards: right(forwards[:1])


@fault("4.12", "runtime.joint:decide_jointly", f"{LABORATORY}[replay:micro-batches 6 18]")
def each_forward_is_a_step(right: Any) -> Any:
    """The forwards of a step are decided one by one."""

    def wrong(forwards: Any, seconds: float, spent: Any) -> Any:
        found = [right([f], seconds, spent) for f in forwards]
        return next((j for j in found if not j.certified), found[0])

    return wrong


# Choices --------------------------------------------------------------------------------------------


@fault("5, Witnessed decomposition", "runtime.scene:Scene.key", f"{BY_HAND}[|2w + |w|| - 2|w|]")
def choices_upstream_do_not_matter(right: Any) -> Any:
    """Gradients of entries are AD's, whatever is chosen upstream."""
    return lambda self, site, choices: right(self, site, {})


@fault("5, Witnessed decomposition", "runtime.sites:reading", f"{LABORATORY}[joint:repeated block 4 4]")
def only_the_layer_before_matters(right: Any) -> Any:
    """Of the layers upstream only the last one counts."""

    def wrong(checks: Any, active: Any, graph: Any) -> Any:
        found = right(checks, active, graph)
        above = {i: frozenset().union(*(found[k] for k in held)) for i, held in found.items()}
        return {i: held - above[i] for i, held in found.items()}

    return wrong


@fault("5, Witnessed decomposition", "runtime.choices:_branch", f"{LABORATORY}[replay:in place on views 2 3]")
def what_is_fixed_is_free(right: Any) -> Any:
    """Another side is counted where no other slope can be put in the place of AD's."""
    return lambda site, point, *rest: right(site, replace(point, is_fixed=False), *rest)


@fault("5.9", "runtime.sites:_touched", f"{BY_HAND}[a pool that is tied at the flat value]")
def flat_ties_are_free(right: Any) -> Any:
    """Touched entries below maxima at their flat value, which are not looked at, may take another side than AD's."""
    return lambda touches, rests: right(touches, ())


@fault("5.9", "passes.choice_nodes:_is_seen_once", f"{LABORATORY}[replay:in place on views 2 3]")
def views_are_not_seen(right: Any) -> Any:
    """An operation in place is chosen for although a view sees what it wrote."""
    return lambda graph, node, written: True


# Mixtures -------------------------------------------------------------------------------------------


@fault("5.7", "runtime.adjoints:_shares_of_two", f"{BY_HAND}[|2w + |w|| - 2|w|]")
def the_first_has_all(right: Any) -> Any:
    """A maximum of two sends its gradient to the first."""

    def wrong(site: Any, tied: Any, adjoint: Any) -> Any:
        whole = {p.output: a for p, a in zip(site.points, adjoint.tolist(), strict=True)}
        return {(k, o): (1 - k) * whole[o] for k, o in right(site, tied, adjoint)}

    return wrong


@fault("5.7", "runtime.adjoints:shares_of", f"{BY_HAND}[an entry twice under amax]")
def twins_have_no_share(right: Any) -> Any:
    """What AD sends to further entries of one function is lost."""
    return lambda site, *rest: right(replace(site, twins={}), *rest)


@fault("5.7", "runtime.adjoints:adjoints_of", f"{BY_HAND}[two outputs]")
def one_output_has_a_loss(right: Any) -> Any:
    """What reaches a layer through other outputs than the first is lost."""

    def wrong(results: Any, outputs: Any, cotangents: Any) -> Any:
        first = next((i for i, c in enumerate(cotangents) if c is not None), 0)
        return right(results, outputs, [c if i == first else None for i, c in enumerate(cotangents)])

    return wrong


@fault("5.8", "lp.verify:mixes_to_zero", f"{BY_HAND}[1 beside 1e12]")
def large_terms_lend_tolerance(right: Any) -> Any:
    """A mixture need vanish only beside the whole."""

    def wrong(weights: Any, coefficients: Any, rows: Any, row_error: Any) -> bool:
        whole = float(np.abs(weights @ np.abs(coefficients) @ np.abs(rows)).max(initial=0.0))
        return bool(np.abs(weights @ coefficients @ rows).max(initial=0.0) <= 1e-9 * whole)

    return wrong


@fault("5.8", "lp.balance:_if_mixing", f"{BY_HAND}[two maxima]")
def weights_are_trusted(right: Any) -> Any:
    """The solver's weights are believed."""
    from fxcheck.lp.balance import Balance

    return lambda coefficients, terms, weights: Balance(weights / weights.sum()) if weights.sum() > 0 else None


@fault("5.8", "runtime.decomposition:_Search._cancel_one_by_one", f"{BY_HAND}[gradients that share a coordinate of a sketch]")
def images_are_gradients(right: Any) -> Any:
    """In a sketch a mixture need cancel the images alone."""
    return lambda self, terms: False


@fault("5.6", "runtime.decomposition:_Search._add", f"{BY_HAND}[in place on views]")
def nothing_need_be_resolved(right: Any) -> Any:
    """A part of a mixture needs no direction that resolves it."""

    def wrong(self: Any, direction: np.ndarray) -> bool:
        from fxcheck.records.system import LinearSystem

        empty = LinearSystem(np.zeros((0, self.coordinates.size)), np.zeros(0))
        held, self.resolved = self.resolved, lambda *_: empty
        try:
            return right(self, direction)
        finally:
            self.resolved = held

    return wrong


@fault("5.6", "runtime.decomposition:decompose", f"{BY_HAND}[two maxima]")
def each_layer_is_mixed_alone(right: Any) -> Any:
    """Layers are decomposed one by one, with AD's choices elsewhere."""

    def wrong(scenes: Any, coordinates: Any, resolved: Any) -> Any:
        found = [
            right([replace(scene, sites=(site,), vectors=dict(scene.vectors))], coordinates, resolved)
            for scene in scenes for site in scene.sites
        ]  # fmt: skip
        return next((m for m in found if m.weights is None), found[0])

    return wrong


@fault("5.6", "runtime.replay:Forward._listener", f"{BY_HAND}[two backward passes]")
def the_last_gradient_counts(right: Any) -> Any:
    """Of several gradients that arrive at an output the last one is the whole."""

    def wrong(self: Any, index: int) -> Any:
        listen = right(self, index)

        def heard(gradient: torch.Tensor) -> None:
            listen(gradient)
            self.arrivals = 1

        return heard

    return wrong


_OUTPUTS = "tests/runtime/test_outputs_in_place.py::"


@fault("5.6", "runtime.replay:listen",
       f"{_OUTPUTS}test_relu_minus_relu_of_outputs_written_in_place_is_not_certified[model0-_one_of_two_forwards]")  # fmt: skip
def nobody_is_passed_by(right: Any) -> Any:
    """A gradient that comes past an output, which was written to in place, is none."""
    return lambda output, listener, passed_by: right(output, listener, lambda gradient: None)


@fault("4.12", "runtime.replay:Forward._look_at",
       f"{_OUTPUTS}test_a_penalty_on_the_slope_by_the_input_is_not_certified[ones_like]")  # fmt: skip
def constants_are_differentiated_once(right: Any) -> Any:
    """Where a constant arrives at an output, nobody differentiates a second time."""

    def wrong(self: Any, gradient: torch.Tensor) -> None:
        with torch.set_grad_enabled(gradient.requires_grad):
            right(self, gradient)

    return wrong


# One layer of T8 ------------------------------------------------------------------------------------

_MIXTURE = "tests/runtime/test_layer_mixture.py::"


@fault("5.9", "runtime.layer_mixture:_ties_alone", f"{_MIXTURE}test_ties_behind_the_layer_may_rest_on_its_picks")
def later_ties_rest_on_nothing(right: Any) -> Any:
    """Ties of later layers that need no row under AD's picks need none under others."""
    return lambda layer, session, program: True


@fault("5.9", "runtime.layer_mixture:_is_first", f"{_MIXTURE}test_a_layer_behind_other_layers_is_left_to_the_joint_condition")
def what_cancels_on_fresh_parameters_cancels(right: Any) -> Any:
    """Rows on fresh parameters are total gradients of any layer."""
    return lambda check, program: True


@fault("5.9", "runtime.layer_mixture:_is_total", f"{_MIXTURE}test_micro_batches_are_normalised_by_scales_of_their_own")
def one_scale_for_all(right: Any) -> Any:
    """Rows behind normalisations of several micro-batches leave out the same factor."""
    return lambda block: True


@fault("5.9", "runtime.layer_mixture:_factors", f"{_MIXTURE}test_opposite_rows_that_pull_apart_are_none")
def adjoints_are_positive(right: Any) -> Any:
    """Whatever excludes one another pulls the same way."""
    return lambda block, program, adjoints: -abs(right(block, program, adjoints))


@fault("5.11", "runtime.layer_mixture:_look_at", f"{_MIXTURE}test_nothing_is_refuted_where_more_lies_on_a_kink")
def nothing_else_lies_on_a_kink(right: Any) -> Any:
    """What is refuted for the ties of one layer is refuted whatever else is touched."""

    def wrong(forward: Any, checks: Any) -> Any:
        seen = right(forward, checks)
        return replace(seen, again=seen.adjoints)

    return wrong


@fault("5.11", "lp.exact:rounded_difference", f"{_MIXTURE}test_rows_that_are_rounded_refute_nothing")
def no_difference_is_rounded(right: Any) -> Any:
    """Hyperplanes on which two entries are equal are known to the last digit."""
    return lambda left, other: np.zeros(left.shape, dtype=bool)


# The second run -------------------------------------------------------------------------------------


@fault("5.6", "runtime.replay:Forward.again", f"{BY_HAND}[dropout]")
def masks_are_drawn_anew(right: Any) -> Any:
    """A forward is run again with other random numbers."""

    @contextmanager
    def wrong(self: Any, collector: Any) -> Iterator[Any]:
        self.rng = torch.get_rng_state()
        with right(self, collector) as outputs:
            yield outputs

    return wrong


@fault("4.12", "runtime.replay:Forward.again", f"{LABORATORY}[replay:a buffer that counts 6 0]")
def buffers_are_as_they_were(right: Any) -> Any:
    """A forward that counts in a buffer is run again with the buffer as it left it."""

    @contextmanager
    def wrong(self: Any, collector: Any) -> Iterator[Any]:
        plan = self.program.plan
        self.program.plan = replace(plan, carried=())
        try:
            with right(self, collector) as outputs:
                yield outputs
        finally:
            self.program.plan = plan

    return wrong


FAULTS_OF_JOINT = tuple(f for f in FAULTS if f.wrong.__module__ == __name__ and f.killer.startswith((LABORATORY, BY_HAND)))


@fault("4.12", "runtime.session:Session.look_back",
       "tests/runtime/test_deposits.py::test_a_gradient_that_comes_to_a_forward_of_before_the_step_is_no_part_of_what_was_seen"
       "[relu-_before_any_step]")  # fmt: skip
def nothing_comes_to_other_forwards(right: Any) -> Any:
    """Gradients that come to forwards of before the step are not counted."""
    return lambda self, arrivals: right(self, 0)


@fault("4.12", "runtime.deposits:Deposits._begin",
       "tests/runtime/test_deposits.py::test_a_step_that_adds_to_older_gradients_says_so")  # fmt: skip
def nothing_was_there_before(right: Any) -> Any:
    """Gradients of steps before, to which those of this one are added, count for nothing."""
    return lambda self: None


@fault("4.12", "runtime.session:Session.note_update",
       "tests/runtime/test_deposits.py::test_zeros_that_a_fused_optimizer_wrote_are_seen")  # fmt: skip
def every_write_is_counted(right: Any) -> Any:
    """No optimizer writes past torch's count of writes."""
    return lambda self, parameters: None


@fault("5.5", "runtime.deposits:Deposits._norms",
       "tests/runtime/test_deposits.py::test_what_a_scaler_does_to_gradients_between_two_passes_is_seen")  # fmt: skip
def gradients_are_written_by_autograd_only(right: Any) -> Any:
    """What a GradScaler does to gradients between two passes counts for nothing."""
    return lambda self, grads: [0.0] * len(grads)
