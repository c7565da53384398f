"""Wrong rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.soundness.faults.record import ATTACKS, NAMED, ROWS, TRAPS, fault


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
        self: Any, ties: Any, group: Any, source: Any, chosen: np.ndarray, channels: np.ndarray, *rest: Any
    ) -> Any:
        _, losers = source.rows_and_channels(ties.losers.numpy()[chosen], ties.at.shape)
        return right(self, ties, group, source, chosen, channels, *rest) | (channels != losers)

    return wrong


@fault("4.9", "runtime.gradients:Gradients.fill", f"{NAMED}test_rows_show_fresh_coordinates_only")
def every_coordinate(right: Any) -> Any:
    """Rows on all parameters, those of earlier layers included."""
    return lambda self, row, names, *moved: right(self, row, list(self.parameters), *moved)


@fault("4.10", "runtime.build_rows:RowBuilder._equal_functions", f"{NAMED}test_equal_values_are_not_equal_functions")
def t_j_by_value(right: Any) -> Any:
    """Equal patches of activations are equal functions."""
    return lambda self, source, patches, same: same


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
    return lambda *call: 1.0


@fault(
    "3, Algorithm 1",
    "runtime.rows:Row.without",
    f"{NAMED}test_a_row_that_leaves_coordinates_out_keeps_them_from_moving",
)
def coordinates_left_out_may_move(right: Any) -> Any:
    """A row without some coordinates beside rows that move them."""
    return lambda self, fixed, size_of: (self.slots, self.values)
