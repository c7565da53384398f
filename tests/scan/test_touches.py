"""The touch scans agree with a naive loop, round kinks as the tensor does, and see what is not finite."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fxcheck import scan
from fxcheck.scan import choice
from tests.scan.oracles import DTYPES, laid_out, small_integers

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 4), (2, 3, 4, 5), (1, 2, 3, 4, 5), (0, 3), (70, 101)]


@FUZZ
@given(
    st.sampled_from(SHAPES),
    st.sampled_from(DTYPES),
    st.sampled_from([(), (0.0,), (-1.0, 1.0), (2.0, 0.0, -2.0)]),
    st.integers(0, 99),
    st.booleans(),
    st.sampled_from(("contiguous", "channels_last", "gaps")),
)
def test_touches_are_those_of_a_naive_loop(
    path: ModuleType,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    kinks: tuple[float, ...],
    seed: int,
    special: bool,
    layout: str,
) -> None:
    y = small_integers(shape, dtype, seed, special)
    y = laid_out(y, layout) if y.ndim > 1 else y
    values = y.double().reshape(-1).tolist()
    wanted = [(index, kinks.index(value)) for index, value in enumerate(values) if value in kinks]
    found = path.touched(y, kinks)
    assert list(zip(found.indices.tolist(), found.which.tolist(), strict=True)) == wanted
    assert found.finite == bool(y.isfinite().all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_kink_is_compared_as_the_dtype_holds_it(path: ModuleType, dtype: torch.dtype) -> None:
    y = torch.tensor([0.1, 0.2, 1 / 3], dtype=dtype)
    assert path.touched(y, (0.1, 1 / 3)).indices.tolist() == [0, 2]


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_zeros_touch_a_kink_at_either(path: ModuleType, dtype: torch.dtype) -> None:
    y = torch.tensor([0.0, 1.0, -0.0], dtype=dtype)
    assert path.touched(y, (0.0,)).indices.tolist() == [0, 2]
    assert path.touched(y, (-0.0,)).indices.tolist() == [0, 2]


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_values_are_not_taken_for_infinite(path: ModuleType, dtype: torch.dtype) -> None:
    y = torch.full((64,), torch.finfo(dtype).max, dtype=dtype)
    assert path.touched(y, (0.0,)).finite
    y[63] = float("inf")
    assert not path.touched(y, (0.0,)).finite


def test_touches_in_a_large_tensor_are_found_wherever_they_are(path: ModuleType) -> None:
    y = torch.ones(3, 5, 1000)
    places = [0, 4095, 4096, 7499, 7500, 14999]
    y.view(-1)[places] = 0.0
    assert path.touched(y, (6.0, 0.0)).indices.tolist() == places


def test_signs_that_are_not_in_memory_are_read(path: ModuleType) -> None:
    y = torch.view_as_complex(torch.tensor([[1.0, 6.0], [2.0, -6.0], [3.0, 0.0]])).conj().imag
    assert y.is_neg()
    found = path.touched(y, (0.0, 6.0))
    assert (found.indices.tolist(), found.which.tolist(), found.finite) == ([1, 2], [1, 0], True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kinks", [(0.0,), (0.0, 6.0), (-1.0, 1.0), (0.1,), (0.0, 0.1, 6.0)])
def test_numbers_that_end_in_as_many_zeros_as_a_kink_are_told_apart(
    path: ModuleType, kinks: tuple[float, ...], dtype: torch.dtype
) -> None:
    y = torch.linspace(1.01, 1.99, 300, dtype=dtype)
    y[[3, 70, 299]] = torch.tensor([2.0, -8.0, 1.5], dtype=dtype)
    assert not path.touched(y, kinks).indices.numel()
    for place in (0, 63, 64, 255, 256):
        for k, kink in enumerate(kinks):
            z = y.clone()
            z[place] = kink
            found = path.touched(z, kinks)
            assert (found.indices.tolist(), found.which.tolist(), found.finite) == ([place], [k], True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("place", [0, 64, 299])
def test_a_nan_of_any_bits_is_not_finite(path: ModuleType, dtype: torch.dtype, place: int) -> None:
    word = torch.int32 if dtype == torch.float32 else torch.int64
    for bits in (torch.tensor(float("inf"), dtype=dtype).view(word).item() + 1, torch.iinfo(word).max):
        y = torch.linspace(1.01, 1.99, 300, dtype=dtype)
        y.view(word)[place] = bits
        assert not path.touched(y, (0.0, 6.0)).finite


@pytest.mark.parametrize("flush", [True, False])
def test_subnormals_touch_0_where_the_processor_flushes_them(path: ModuleType, flush: bool) -> None:
    y = torch.tensor([1.0, 1e-40, 0.0])
    if not torch.set_flush_denormal(flush):
        pytest.skip("the processor cannot")
    try:
        assert path.touched(y, (0.0,)).indices.tolist() == ([1, 2] if flush else [2])
    finally:
        torch.set_flush_denormal(False)


class _Marked(torch.Tensor):
    """A subclass of tensors, whose memory nobody reads unasked."""


def test_a_glance_tells_only_of_what_it_was_made_for() -> None:
    pytest.importorskip("numba")
    clear = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    look = scan.glance(clear, (0.0, 6.0))
    assert look is not None and look(clear) == look(clear.T) == 4
    hit = [clear - 2, 2 * clear, clear / 0, torch.full((2, 2), torch.nan)]
    unknown = [clear.double(), clear.bfloat16(), torch.nn.Parameter(clear), clear.as_subclass(_Marked), clear[:, ::2],
               clear.expand(3, 2, 2), torch.complex(clear, clear).conj().imag, clear.to_sparse()]  # fmt: skip
    assert [look(y) for y in (*hit, *unknown)] == [0] * 12
    assert scan.glance(clear.bfloat16(), (0.0,)) is None


def test_no_glance_where_plain_torch_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_chosen", "torch")
    assert scan.glance(torch.ones(2), (0.0,)) is None
