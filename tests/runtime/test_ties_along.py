"""Ties along one dimension, and along its prefixes, are those of a naive loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxcheck.records.checks import Check, CheckKind
from fxcheck.runtime import ties_found
from fxcheck.runtime.ties_found import ties_along

NAMES = ("max", "min", "cummax", "cummin")


def _check(name: str, dim: int, skip: tuple[float, ...] = (), floor: float | None = None) -> Check:
    operator, arguments = f"aten.{name}.dim", {"dim": dim}
    return Check(0, CheckKind.DIMENSION, 0, 0, name, 0, 0, operator=operator, arguments=arguments, skip=skip, floor=floor)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_ties_are_those_of_a_naive_loop(name: str, data: Any) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), max_size=3))
    values = data.draw(st.lists(st.integers(-2, 2), min_size=torch.Size(shape).numel(), max_size=torch.Size(shape).numel()))
    x = torch.tensor(values, dtype=torch.float32).reshape(shape).permute(data.draw(st.permutations(range(len(shape)))))
    dim = data.draw(st.integers(-max(1, x.ndim), max(0, x.ndim - 1)))
    skip, floor = data.draw(st.sampled_from([(), (0.0,), (-1.0, 1.0)])), data.draw(st.sampled_from([None, 0.0]))
    extrema, picks = getattr(torch, name)(x, dim)
    found = ties_along(_check(name, dim, skip, floor), x, extrema, picks)
    pairs, tied = _naive(name, x, extrema, picks, dim, skip, floor)
    assert list(zip(found.winners.tolist(), found.losers.tolist(), found.outputs.tolist(), strict=True)) == pairs
    assert (found.tied, found.truncated, found.finite) == (tied, False, True)


def _naive(
    name: str, x: Tensor, extrema: Tensor, picks: Tensor, dim: int, skip: tuple[float, ...], floor: float | None
) -> tuple[list[tuple[int, int, int]], int]:
    """(winner, loser, output) as flat row-major indices, by line and output, and the number of tied outputs."""
    cells = _lines(torch.arange(x.numel()).reshape(x.shape), dim)
    by_prefix = name.startswith("cum")
    best, picked = (_lines(t, dim if by_prefix else None) for t in (extrema, picks))
    flat, tied = x.flatten().tolist(), 0
    pairs: list[tuple[int, int, int]] = []
    for number, line in enumerate(cells):
        for at in range(len(line)) if by_prefix else (0,):
            value, pick = best[number][at], line[picked[number][at]]
            attained = [cell for cell in (line[: at + 1] if by_prefix else line) if flat[cell] == value]
            if len(attained) >= 2 and value not in skip and (floor is None or value > floor):
                tied += 1
                pairs += [(pick, cell, line[at] if by_prefix else number) for cell in attained if cell != pick]
    return pairs, tied


def _lines(x: Tensor, dim: int | None) -> list[list[Any]]:
    """The lines along a dimension; without one each entry is a line."""
    if dim is None or not x.ndim:
        return x.reshape(-1, 1).tolist()
    return x.movedim(dim, -1).reshape(-1, x.shape[dim]).tolist()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf")])
def test_an_entry_that_is_not_finite_is_told(name: str, special: float) -> None:
    x = torch.arange(12.0).view(3, 4)
    x[1, 2] = special
    assert not ties_along(_check(name, 1), x, *getattr(torch, name)(x, 1)).finite


def test_only_lines_with_ties_are_compared_prefix_by_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ties_found, "_PREFIX_LIMIT", 10 * 10)
    x = torch.arange(100.0).view(10, 10)
    assert not ties_along(_check("cummax", 1), x, *x.cummax(1)).truncated
    x[3, 4] = x[3, 3]
    found = ties_along(_check("cummax", 1), x, *x.cummax(1))
    assert (found.truncated, found.tied, found.losers.tolist()) == (False, 1, [33])
    x[5, 9] = x[5, 8]
    assert ties_along(_check("cummax", 1), x, *x.cummax(1)).truncated
