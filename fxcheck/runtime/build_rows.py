"""From what a forward showed to the rows of its layers: closed forms first, autograd for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod, sqrt

import numpy as np
from torch import Tensor

from fxcheck.lp import exact
from fxcheck.records.checks import CheckPlan, GroupPlan
from fxcheck.runtime.closed_rows import Patches, entries_at, patches_of
from fxcheck.runtime.gradients import Gradients, sign_of_maximum
from fxcheck.runtime.observed import Observation, Observed, Ties, Touches
from fxcheck.runtime.origins import Origins
from fxcheck.runtime.rows import Columns, Row, RowKind, Slot

MOST_ROWS = 50_000
"""Rows of one forward that are built; with more, the step is undecided."""
_MOST_SLACK = 0.25
"""A closed form that leaves out more than this share of the row is not used."""
_DIFFERENCE_ERROR = 2.0**-52
"""Rounding of a difference of two floats in float64, relative to the result."""
_MOST_NUMBERS = 1 << 27

_Part = tuple[Patches | None, np.ndarray, np.ndarray, np.ndarray]
"""An affine source, or None where there is none; which entries come from it; their channels and their positions."""


@dataclass
class Built:
    """The rows of one forward."""

    rows: list[Row] = field(default_factory=list)
    columns: list[Columns] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class RowBuilder:
    """Builds rows while the forward's graph lives.

    Args:
        plan: the checks.
        tensors: parameters and buffers by name, for the sign of a normalisation's scale.
        gradients: autograd's derivatives of observed entries.
        origins: tells entries apart by what they depend on.
    """

    def __init__(
        self, plan: CheckPlan, tensors: Mapping[str, Tensor], gradients: Gradients, origins: Origins
    ) -> None:
        self.plan = plan
        self.tensors = tensors
        self.gradients = gradients
        self.origins = origins
        self.group = {g.index: g for g in plan.groups}
        self.built = Built()
        self.by_gradient: dict[Observation, list[Row]] = {}
        """Rows that wait for backward passes of their own."""

    def build(self, observed: Observed) -> Built:
        """All rows of a forward."""
        total = sum(t.entries.numel() for t in observed.touches) + sum(t.winners.numel() for t in observed.ties)
        if total > MOST_ROWS:
            self.built.problems.append(f"{total:,} touches and ties, more than the {MOST_ROWS:,} that are followed")
            return self.built
        for touches in observed.touches:
            self._touches(touches, self.group[touches.at.check.group])
        for ties in observed.ties:
            self._ties(ties, self.group[ties.at.check.group])
        self._fill()
        return self.built

    # Touches -----------------------------------------------------------------------------------

    def _touches(self, touches: Touches, group: GroupPlan) -> None:
        directions = [touches.at.check.sides[w].direction for w in touches.which.tolist()]
        for source, chosen, channels, positions in self._by_source(touches.at, touches.entries):
            patches = self._patches(source, positions) if source is not None and source.source.norm is None else None
            if patches is not None and source is not None:
                self._plain_touches(touches, group, source, chosen, channels, patches, directions)
                continue
            for k, channel in zip(chosen.tolist(), channels.tolist(), strict=True):
                row = _touch(touches, group, k, directions[k])
                self._touch_row(row, group, source, channel)

    def _touch_row(self, row: Row, group: GroupPlan, source: Patches | None, channel: int) -> None:
        if not row.direction:
            self._no_side(row)
            return
        beta = source.source.beta if source is not None else None
        if beta is not None:
            row.slots, row.values = ((beta, channel),), np.array([float(row.direction)])
            row.left_out = frozenset(group.fresh) - {beta}
            self.built.rows.append(row)
        else:
            self._by_gradient(row)

    def _no_side(self, row: Row) -> None:
        self.built.problems.append(
            f"{row.layer} is touched where AD takes neither one-sided slope; T8 needs one of them"
        )

    def _plain_touches(
        self, touches: Touches, group: GroupPlan, source: Patches, chosen: np.ndarray, channels: np.ndarray,
        patches: np.ndarray, directions: list[int],
    ) -> None:  # fmt: skip
        """The entry is <patch, weight> + bias."""
        form = source.source
        columns: dict[int, list[np.ndarray]] = {}
        for i, (k, channel) in enumerate(zip(chosen.tolist(), channels.tolist(), strict=True)):
            patch = source.of_channel(patches[i : i + 1], channel)[0]
            if not form.has_trained_bias and form.zero_is_frozen and not patch.any():
                continue  # the entry is a constant near w
            row = _touch(touches, group, k, directions[k])
            columns.setdefault(channel, []).append(patch)
            if row.direction:
                slots: list[Slot] = [(form.weight, channel)]
                if form.bias is not None:
                    slots.append((form.bias, channel))
                    patch = np.append(patch, 1.0)
                row.slots, row.values, row.left_out = tuple(slots), row.direction * patch, frozenset(form.left_out)
                self.built.rows.append(row)
            elif not group.fully_connected:
                self._no_side(row)
        if group.fully_connected and not form.left_out:
            for channel, held in columns.items():
                self.built.columns.append(
                    Columns(group.index, touches.at.check.layer, (form.weight, channel), np.stack(held, 1))
                )  # fmt: skip

    # Ties --------------------------------------------------------------------------------------

    def _ties(self, ties: Ties, group: GroupPlan) -> None:
        sign = sign_of_maximum(ties.at.check.operator, ties.at.check.arguments)
        for source, chosen, channels, positions in self._by_source(ties.at, ties.winners):
            left = chosen
            if source is not None and self._is_identity(ties, source):
                done = self._differences(ties, group, source, chosen, channels, positions, sign)
                left = chosen[~done]
            for k in left.tolist():
                self._by_gradient(_tie(ties, group, k))

    def _is_identity(self, ties: Ties, source: Patches) -> bool:
        """No tied value that counts lies on a kink of the clip that follows the source."""
        left_out = {*ties.at.check.skip, *([ties.at.check.floor] if ties.at.check.floor is not None else [])}
        return set(source.source.clip) <= left_out

    def _differences(
        self, ties: Ties, group: GroupPlan, source: Patches, chosen: np.ndarray, channels: np.ndarray,
        positions: np.ndarray, sign: float,
    ) -> np.ndarray:  # fmt: skip
        """Rows that are a difference of two patches; which of the chosen pairs need no other row."""
        losers, channels_of_losers = source.rows_and_channels(ties.losers.numpy()[chosen], ties.at.shape)
        comparable = channels == channels_of_losers
        place: dict[int, int] = {}
        left, right = ([place.setdefault(p, len(place)) for p in some.tolist()] for some in (positions, losers))
        patches = self._patches(source, np.array(list(place), np.int64))
        if patches is None:
            return np.zeros(len(chosen), dtype=bool)
        here, there = patches[left], patches[right]
        same = comparable & (here == there).all((1, 2))
        equal = self._equal_functions(source, here, same) if same.any() else same
        for i in (same & ~equal).nonzero()[0].tolist():
            pair = np.stack([here[i], there[i]])
            equal[i] = self.origins.have_equal_gradients(source, positions[i : i + 1], losers[i : i + 1], pair)
        form = source.source
        signs, slack, same_before = self._scales(source, channels, positions, losers)
        done = equal.copy()
        apart = (comparable & ~equal & (signs != 0)).nonzero()[0]
        rounded = np.any(exact.rounded_difference(here[apart], there[apart]), axis=(1, 2))
        for i, is_rounded in zip(apart.tolist(), rounded.tolist(), strict=True):
            channel, k = int(channels[i]), int(chosen[i])
            difference = source.of_channel(here[i : i + 1] - there[i : i + 1], channel)[0]
            norm = sqrt(difference.dot(difference))
            error = slack[i] / norm if norm else float(slack[i] > 0)
            if error > _MOST_SLACK:
                continue
            row = _tie(ties, group, k)
            row.slots = ((form.weight, channel),)
            row.values, row.error = sign * signs[i] * difference, error + _DIFFERENCE_ERROR * is_rounded
            row.factor = None if form.norm is None else (form.norm, channel)
            row.left_out = frozenset(form.left_out if same_before[i] else (*form.left_out, form.gamma or ""))
            self.built.rows.append(row)
            done[i] = True
        return done

    def _equal_functions(self, source: Patches, patches: np.ndarray, same: np.ndarray) -> np.ndarray:
        """Pairs of one channel that are equal as functions of the parameters, so in T_j (theory 4.10, 4.11).

        Their patches hold the same constants, or only zeros that stay zero.

        Args:
            source: of both.
            patches: (P, inputs, taps) of the one.
            same: (P,) whether the other's patch holds the same values.
        """
        form = source.source
        if form.is_constant:
            return same
        if form.zero_is_frozen:
            return np.array(same & ~patches.any((1, 2)))
        return np.zeros_like(same)

    def _scales(
        self, source: Patches, channels: np.ndarray, winners: np.ndarray, losers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(sign of gamma, or 0 where there is no closed form; bound on what the difference of patches leaves out;
        whether the entries are equal before the normalisation, so that gamma's coordinate is 0).

        Entries that are equal only after a normalisation by batch statistics differ before it by some d. The row of
        their difference is then that of the patches less d / sigma times the derivative of sigma, whose norm is at
        most that of the longest patch.
        """
        form = source.source
        signs, slack, same = np.ones(len(channels)), np.zeros(len(channels)), np.ones(len(channels), dtype=bool)
        if form.norm is None:
            return signs, slack, same
        if form.gamma is not None:
            scale = self.tensors.get(form.gamma)
            if scale is None:
                return np.zeros(len(channels)), slack, same
            signs = np.sign(entries_at(scale.detach(), channels))
        sample, cell = np.divmod(np.stack([winners, losers]), prod(source.result.shape[2:]))
        before = entries_at(source.result.flatten(2), sample, channels, cell)
        difference = np.abs(before[0] - before[1])
        same = difference == 0
        if form.epsilon is None or same.all():
            return signs, slack, same
        longest = self._longest_patch(source)
        for channel in np.unique(channels[~same]):
            deviation = float((source.result[:, channel].double().var(correction=0) + form.epsilon).sqrt())
            mine = channels == channel
            slack[mine] = difference[mine] / deviation * longest
        return signs, slack, same

    def _longest_patch(self, source: Patches) -> float:
        """A bound on the norm of any input patch of one channel."""
        numbers = self.tensors[source.source.weight][0].numel()
        lowest, highest = source.operand.aminmax()
        return max(-float(lowest), float(highest)) * float(np.sqrt(numbers))

    # -------------------------------------------------------------------------------------------

    def _by_source(self, at: Observation, entries: Tensor) -> list[_Part]:
        """Entries split by the affine source of their channel."""
        numbers = entries.numpy()
        left = np.arange(len(numbers))
        found: list[_Part] = []
        for form in at.check.sources:
            source = patches_of(at, form.start)
            if source is None:
                break
            positions, channels = source.rows_and_channels(numbers[left], at.shape)
            if source.has_all_channels(at.shape):
                return [(source, left, channels, positions)]
            mine = (channels >= 0) & (channels < form.stop - form.start)
            if mine.any():
                found.append((source, left[mine], channels[mine], positions[mine]))
                left = left[~mine]
        if len(left):
            nowhere = np.zeros(len(left), dtype=np.int64)
            found.append((None, left, nowhere, nowhere))
        return found

    def _patches(self, source: Patches, positions: np.ndarray) -> np.ndarray | None:
        size = source.operand.shape[1 if source.source.kernel else -1]
        for k in source.source.kernel:
            size *= k
        if len(positions) * size > _MOST_NUMBERS:
            return None
        return source.at(positions)

    def _by_gradient(self, row: Row) -> None:
        assert row.at is not None
        self.by_gradient.setdefault(row.at, []).append(row)

    def _fill(self) -> None:
        """Compute the rows that have no closed form."""
        for at, rows in self.by_gradient.items():
            fresh = self.group[at.check.group].fresh
            moved = 0.0 if self.gradients.are_spent else self.gradients.moved_by_rounding(at, rows, fresh)
            for row in rows:
                if self.gradients.are_spent:
                    self._too_many()
                    return
                self.gradients.fill(row, fresh, moved)
                self.built.rows.append(row)

    def _too_many(self) -> None:
        sentence = f"rows need more than {self.gradients.most} backward passes of their own"
        if sentence not in self.built.problems:
            self.built.problems.append(sentence)


def _touch(touches: Touches, group: GroupPlan, k: int, direction: int) -> Row:
    at = touches.at
    return Row(group.index, RowKind.TOUCH, at, at.check.layer, int(touches.entries.numpy()[k]), direction=direction, exact=True)


def _tie(ties: Ties, group: GroupPlan, k: int) -> Row:
    at = ties.at
    winner, loser, output = (int(t.numpy()[k]) for t in (ties.winners, ties.losers, ties.outputs))
    return Row(group.index, RowKind.TIE, at, at.check.layer, winner, loser, output)
