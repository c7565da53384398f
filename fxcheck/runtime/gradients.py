"""Rows and equality of gradients by autograd, on the graph of the forward while it lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fxcheck.runtime.derivatives import roundoff_of
from fxcheck.runtime.observed import Observation
from fxcheck.runtime.operands import Member, groups_of, pulled_back
from fxcheck.runtime.rounding import moved_by_rounding
from fxcheck.runtime.rows import Row, RowKind, Slot

_ABSORBED = 1e-2


class Gradients:
    """AD's own derivatives of observed entries.

    A fresh parameter reaches its layer through the layer's own tau only, so the total gradient on fresh coordinates
    is the derivative with earlier activations held fixed.

    Args:
        parameters: the trainable parameters by name.
        most: backward passes that may be spent.
    """

    def __init__(self, parameters: Mapping[str, Tensor], most: int) -> None:
        self.parameters = parameters
        self.most = most
        self.calls = 0

    @property
    def are_spent(self) -> bool:
        """No further row or T_j should be asked for."""
        return self.calls >= self.most

    def of(self, at: Observation, weights: Mapping[Member, float], names: Sequence[str]) -> list[Tensor | None]:
        """The gradient of a weighted sum of entries of the observed tensor by the named parameters."""
        self.calls += 1
        wanted = [self.parameters[n] for n in names]
        return list(pulled_back(*groups_of(weights, [at.operand]), wanted))

    def moved_by_rounding(self, at: Observation, rows: Sequence[Row], names: Sequence[str]) -> float:
        """How far any one of rows, all of one observation, may be off on the named coordinates."""
        self.calls += 1
        return moved_by_rounding([_weights(r) for r in rows], [at.operand], [self.parameters[n] for n in names])

    def fill(self, row: Row, names: Sequence[str], moved: float | None = None) -> None:
        """Compute a row on all the named (fresh) coordinates; its slots are those that are not zero.

        The difference of two gradients is one backward pass, in which what they have in common cancels early. A row that may
        be nothing but rounding is stored as the zero row.

        Args:
            row: of a touch or a tie.
            names: of parameters.
            moved: how far rounding may have moved it, where that was measured for several rows together.
        """
        assert row.at is not None
        if moved is None:
            moved = self.moved_by_rounding(row.at, [row], names)
        values = _tables(self.of(row.at, _weights(row), names))
        norm = _norm(values)
        row.assumed = roundoff_of(row.at.like.dtype) if norm else 0.0
        row.error = row.assumed + moved / norm if norm else 0.0
        if row.error >= 1.0:
            values, row.error, row.assumed = [None for _ in values], 0.0, 0.0
        slots: list[Slot] = []
        parts: list[np.ndarray] = []
        for name, table in zip(names, values, strict=True):
            for index in np.flatnonzero(table.any(1)) if table is not None else ():
                slots.append((name, int(index)))
                parts.append(table[index])  # type: ignore[index]
        row.slots = tuple(slots)
        row.values = np.concatenate(parts) if parts else np.empty(0)
        row.left_out, row.factor = frozenset(), None

    def are_equal(self, at: Observation, winner: int, loser: int) -> bool:
        """Whether both entries have the same total gradient, all coordinates compared exactly (T_j).

        Not where rounding is large against it: a difference may then be absorbed by terms that cancel.
        """
        names, entries = list(self.parameters), [{(0, winner): 1.0}, {(0, loser): 1.0}]
        left, right = (self.of(at, entry, names) for entry in entries)
        if not all(_same(a, b) for a, b in zip(left, right, strict=True)):
            return False
        self.calls += 1
        moved = moved_by_rounding(entries, [at.operand], list(self.parameters.values()))
        return moved <= _ABSORBED * _norm(_tables(left))


def _weights(row: Row) -> dict[Member, float]:
    """The row as a sum of entries of the observed tensor."""
    if row.kind is RowKind.TOUCH:
        return {(0, row.entry): float(row.direction)}
    assert row.at is not None
    sign = sign_of_maximum(row.at.check.operator, row.at.check.arguments)
    return {(0, row.entry): sign, (0, row.loser): -sign}


def _tables(gradients: Sequence[Tensor | None]) -> list[np.ndarray | None]:
    """Gradients as float64 matrices, one row per index of the parameter's first dimension."""
    return [
        None if g is None else g.detach().double().cpu().reshape(g.shape[0] if g.dim() else 1, -1).numpy()
        for g in gradients
    ]


def _norm(tables: Sequence[np.ndarray | None]) -> float:
    return float(np.sqrt(sum(float((t * t).sum()) for t in tables if t is not None)))


def sign_of_maximum(operator: str, arguments: Mapping[str, object]) -> float:
    """-1 for a minimum, whose pick must stay below the others.

    Args:
        operator: overload, as ``aten.max_pool2d.default``.
        arguments: of the call; a clamp by a tensor is a minimum where it has an upper bound.
    """
    name = operator.split(".")[1]
    if name in ("clamp", "clip"):
        return -1.0 if arguments.get("min") is None else 1.0
    return -1.0 if name in ("clamp_max", "fmin") or name.startswith(("min", "amin", "cummin")) else 1.0


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        other = b if a is None else a
        return other is None or not bool(other.any())
    return torch.equal(a, b)
