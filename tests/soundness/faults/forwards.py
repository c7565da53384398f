"""Wrong readings of a forward: touches, picks, positions."""

from __future__ import annotations

from typing import Any

import torch

from tests.soundness.faults.record import NAMED, TRAPS, fault

_LATER = "tests/runtime/test_changes_between_steps.py::test_a_certified_model_is_looked_at_again_after"


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


@fault("4.3", "runtime.collector:Collector._settle_guards",
       "tests/runtime/test_joint_attacks.py::test_kinks_that_cancel_in_exact_arithmetic_and_not_as_they_are_computed")
def cancelled_kinks_are_met_anywhere(right: Any) -> Any:
    """A comparison that is met where the kinks of a chain cancel may be met at any entry."""

    def wrong(self: Any) -> None:
        self.hits = [(guard, inside, inside if guard.harmless else cancelled) for guard, inside, cancelled in self.hits]
        right(self)

    return wrong


@fault("2, Algorithm 1", "runtime.collector:Collector._dimension", f"{NAMED}test_cummax_picks_the_last_of_equals")
def first_index(right: Any) -> Any:
    """AD's pick is the first maximal entry, rather than the one that the forward returned."""

    def wrong(self: Any, check: Any, live: list[torch.Tensor]) -> None:
        if check.operator.split(".")[1].startswith("cum"):
            dim = check.arguments["dim"]
            x, extrema = (v.detach().movedim(dim, -1) for v in live[:2])
            first = (x[..., None, :] == extrema[..., :, None]).int().argmax(-1).movedim(-1, dim)
            live = [*live[:2], first, *live[3:]]
        right(self, check, live)

    return wrong


@fault("4.11", "runtime.ties_found:entries_that_win", f"{NAMED}test_a_touched_entry_that_wins_needs_its_row")
def no_touch_wins(right: Any) -> Any:
    """Touched entries under a max lose it."""
    return lambda check, x, maxima, entries: torch.zeros_like(entries, dtype=torch.bool)


@fault("4.10", "runtime.positions:Positions._through", f"{NAMED}test_the_padding_of_a_pool_is_not_a_zero_pixel")
def padding_is_a_zero_pixel(right: Any) -> Any:
    """The padding of every window over an input is a pixel that holds zeros, a pool's too."""
    return lambda self, operand, before, windows, zeros=False: right(
        self, operand, before, windows, before.source is not None
    )


@fault("4.10", "scan.fields:Along.through", "tests/scan/test_fields.py::test_positions_read_alike_when_they_depend_alike")
def padding_is_anywhere(right: Any) -> Any:
    """Receptive fields of equally many cells are compared cell by cell, wherever padding was met."""

    def wrong(self: Any, table: Any, zeros: bool) -> Any:
        found = right(self, table, zeros)
        return type(found)(tuple(map(len, found.cells)), found.cells)

    return wrong


@fault(
    "2, Algorithm 1",
    "runtime.collector:Collector.finish",
    "tests/runtime/test_dtypes_devices_ranks.py::test_maxima_that_are_overwritten_are_looked_at_before",
)
def every_maximum_can_wait(right: Any) -> Any:
    """Maxima are looked at when the forward has ended, whatever overwrote them in the meantime."""

    def wrong(self: Any) -> Any:
        observed = right(self)
        self.can_wait.update(dict.fromkeys(self.can_wait, True))
        return observed

    return wrong


@fault(
    "4.10",
    "runtime.positions:Positions._is_position_free",
    f"{TRAPS}[position embedding against its flip]",
)
def positions_share_parameters(right: Any) -> Any:
    """Position classes without position-wise parameters."""
    return lambda self, id_, spatial: right(self, id_, spatial) or self.facts.graph.nodes[id_].op.startswith("fxcheck.")


@fault(
    "4.10",
    "runtime.positions:Positions._entrywise",
    f"{NAMED}test_position_wise_parameters_of_a_normalisation_tell_positions_apart",
)
def normalisation_keeps_classes(right: Any) -> Any:
    """A layer normalisation leaves position classes alone, its position-wise weight and bias too."""
    return lambda self, node, base: self._as(node, "input") if base == "layer_norm" else right(self, node, base)


@fault(
    "4.3", "scan.compiled_touches:glance",
    "tests/scan/test_touches.py::test_touches_in_a_large_tensor_are_found_wherever_they_are[compiled]",
)
def one_kink_is_enough(right: Any) -> Any:
    """The quick look at a pre-activation knows one of its kinks."""
    return lambda kinks, dtype: right(kinks[:1], dtype)


@fault("4.12", "runtime.holdings:Holdings.are_the_same", f"{_LATER}[a list in a dict]")
def what_objects_hold_stays(right: Any) -> Any:
    """What lists, dicts and objects in attributes hold is as it was when the model was captured."""
    return lambda self: True


@fault("4.12", "runtime.program:_values", f"{_LATER}[the entries past autograd]")
def writes_are_counted(right: Any) -> Any:
    """Every write to a constant tensor is one that torch counts."""
    from fxcheck.runtime.signature import writes

    return lambda constants: (*writes(constants),)


@fault(
    "4.12", "capture.mentioned:Code.meet",
    "tests/runtime/test_mentioned.py::test_a_value_that_code_mentions_is_seen_to_change_in[a closure]",
)
def code_reads_nothing(right: Any) -> Any:
    """What globals, classes and closures hold is as it was when the model was captured."""
    return lambda self, value: None


_IN_PLACE = "tests/runtime/test_mentioned.py::test_another_value_in_place_is_seen"


@fault("4.12", "runtime.glance:_Same.__eq__", f"{_IN_PLACE}[an object without attributes]")
def objects_of_one_kind_are_one(right: Any) -> Any:
    """An object may stand in another's place where both are of one class."""
    return lambda self, other: type(self.value) is type(other.value)


@fault("4.12", "runtime.program:_places_of", f"{_IN_PLACE}[a list of tensors]")
def containers_of_tensors_stay(right: Any) -> Any:
    """Lists and dicts of tensors are not built anew."""
    return lambda tensors, known, key: ()
