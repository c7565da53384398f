"""The scans of maxima that share the gradient agree with a naive loop, however the operands lie in memory."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxcheck.scan import choice, compiled_shares, reference
from tests.scan.oracles import DTYPES, laid_out, small_integers

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SKIPS = st.sampled_from([(), (2.0,), (0.0, 1.0)])
FLOORS = st.sampled_from([None, 0.0, 1.0])


@st.composite
def operands(draw: Any) -> Tensor:
    """A small tensor of few values: contiguous, transposed, with gaps, of overlapping windows, or expanded."""
    shape = tuple(draw(st.integers(1, (40, 9, 6, 4)[dims])) for dims in [draw(st.integers(0, 3))] for _ in range(dims + 1))
    x = small_integers(shape, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 999)), draw(st.booleans()))
    kind = draw(st.sampled_from(("contiguous", "permuted", "gaps", "windows", "expanded")))
    if kind == "permuted":
        return x.permute(draw(st.permutations(range(x.ndim))))
    if kind == "windows":
        for dim in range(draw(st.integers(1, x.ndim))):
            size = draw(st.integers(1, x.shape[dim]))
            x = x.unfold(dim, size, draw(st.integers(1, 3)))
        return x
    if kind == "expanded":
        dim = draw(st.integers(0, x.ndim))
        return x.unsqueeze(dim).expand(*shape[:dim], 3, *shape[dim:])
    return laid_out(x, kind)


def _entries_of(x: Tensor, out: Tensor, dims: tuple[int, ...]) -> dict[int, list[int]]:
    """For every output the flat indices of the entries that equal it, ascending."""
    values, best = x.double().flatten().tolist(), out.double().flatten().tolist()
    kept = [d for d in range(x.ndim) if d not in dims]
    places = list(itertools.product(*(range(x.shape[d]) for d in kept)))
    found: dict[int, list[int]] = {number: [] for number in range(len(places))}
    at = {place: number for number, place in enumerate(places)}
    for entry, place in enumerate(itertools.product(*map(range, x.shape))):
        number = at[tuple(place[d] for d in kept)]
        if values[entry] == best[number]:
            found[number].append(entry)
    return found


def _counts(value: float, skip: tuple[float, ...], floor: float | None) -> bool:
    return value not in skip and (floor is None or value > floor)


@FUZZ
@given(operands(), st.data(), SKIPS, FLOORS)
def test_shared_extrema_are_those_of_a_naive_loop(
    path: ModuleType, x: Tensor, data: st.DataObject, skip: tuple[float, ...], floor: float | None
) -> None:
    dims = tuple(sorted(data.draw(st.sets(st.integers(0, x.ndim - 1), min_size=1))))
    reduce = data.draw(st.sampled_from((torch.amax, torch.amin)))
    out = reduce(x, dims, keepdim=data.draw(st.booleans()))
    values = out.double().flatten().tolist()
    wanted = [
        (output, entry)
        for output, entries in _entries_of(x, out, dims).items()
        for entry in entries
        if len(entries) >= 2 and _counts(values[output], skip, floor)
    ]
    found = path.shared(x, out, dims, skip, floor=floor)
    assert list(zip(found.outputs.tolist(), found.entries.tolist(), strict=True)) == wanted
    assert found.finite == bool(x.isfinite().all())
    assert not found.truncated


@FUZZ
@given(operands(), st.integers(0, 999), st.sampled_from(("same", "contiguous", "row")), SKIPS, FLOORS)
def test_equal_entries_are_those_of_a_naive_loop(
    path: ModuleType, a: Tensor, seed: int, kind: str, skip: tuple[float, ...], floor: float | None
) -> None:
    b = small_integers(tuple(a.shape), a.dtype, seed, seed % 2 == 0)
    if kind == "same":
        b = torch.empty_like(a).copy_(b)
    elif kind == "row":
        b = b[:1]
    out = torch.maximum(a, b)
    pairs = zip(a.double().flatten().tolist(), b.expand(a.shape).double().flatten().tolist(), strict=True)
    wanted = [i for i, (one, other) in enumerate(pairs) if one == other and _counts(one, skip, floor)]
    found = path.equal(a, b, out, skip, floor=floor)
    assert found.outputs.tolist() == found.entries.tolist() == wanted
    assert found.finite == bool(a.isfinite().all() and b.isfinite().all())
    assert not found.truncated


@pytest.mark.parametrize("dims", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_a_lone_tie_is_found_wherever_it_is(path: ModuleType, dims: tuple[int, ...]) -> None:
    x = torch.arange(7 * 40 * 33).float().view(7, 40, 33)
    out = x.amax(dims)
    assert path.shared(x, out, dims).outputs.numel() == 0
    top = x == out.view([1 if d in dims else s for d, s in enumerate(x.shape)])
    places = top.flatten().nonzero().flatten()
    entry = int(places[len(places) // 2])
    other = entry - x.stride(dims[-1])  # of the same output
    x.view(-1)[other] = x.view(-1)[entry]
    assert path.shared(x, out, dims).entries.tolist() == [other, entry]


def test_more_than_the_limit_is_told(path: ModuleType) -> None:
    x = torch.zeros(30, 4)
    found = path.shared(x, x.amax(1), (1,), limit=119)
    assert found.truncated and found.outputs.numel() == found.entries.numel() == 119
    assert not path.shared(x, x.amax(1), (1,), limit=120).truncated
    assert path.equal(x, x, x, limit=119).truncated
    assert not path.equal(x, x, x, limit=120).truncated


@pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf")])
def test_an_entry_that_loses_must_be_finite_too(path: ModuleType, special: float) -> None:
    x = torch.arange(60.0).view(3, 20)
    out = x.amax(1)
    x[1, 7] = special
    assert not path.shared(x, out, (1,)).finite
    assert not path.equal(x, x + 1, x + 1).finite
    assert not path.equal(x + 1, x, x + 1).finite


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_compiled_scan_takes_windows_as_they_lie_in_memory(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not choice.available():
        pytest.skip("numba is not installed")
    x = laid_out(small_integers((2, 3, 8, 8), torch.float32, 0, False), layout)
    windows = x.unfold(2, 2, 2).unfold(3, 2, 2)
    out = windows.amax((-1, -2))
    wanted = reference.shared(windows, out, (4, 5)).entries
    monkeypatch.setattr(reference, "shared", None)
    monkeypatch.setattr(reference, "equal", None)
    assert torch.equal(compiled_shares.shared(windows, out, (4, 5)).entries, wanted)
    assert compiled_shares._memory(windows).size <= x.numel()
    assert compiled_shares.equal(x, x, x).entries.numel() == x.numel()
