"""Measured proxies: the values of theory 4.1, what cannot be measured, saved tables, and what a new torch changed.

The golden table was written by torch 2.13.0 with
``python -c "from fxcheck.ops.proxies import catalogue;
print(catalogue(dtypes=('float32', 'bfloat16')).to_json(), end='')" > tests/golden/proxies-2.13.json``
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fxcheck.errors import ProxyError, UsageError
from fxcheck.ops.measured import Measured
from fxcheck.ops.probe import measure
from fxcheck.ops.probe_call import measure_call
from fxcheck.ops.proxies import Saved, SavedFirst, catalogue, diff, known_operators, load
from fxcheck.ops.ties import classify_tie, measure_tie
from fxcheck.records.proxy_table import ProxyRow, ProxyTable

VERSION = tuple(int(part) for part in torch.__version__.partition("+")[0].split(".")[:2])
CLAMP_IS_STRICT = VERSION >= (2, 14)
"""torch 2.14 changed clamp, fmax, fmin and the hinge losses at their kinks."""
NEW = pytest.mark.skipif(not CLAMP_IS_STRICT, reason="compares with a torch that has the new clamp")
GOLDEN = Path(__file__).parents[1] / "golden" / "proxies-2.13.json"
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def weights(op, arguments, operand, points, dtype=torch.float32, mode="backward"):
    return tuple(p.weight for p in measure_call(f"aten.{op}", arguments, operand, points, dtype, mode=mode))


# The values of theory 4.1 ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("op", "arguments", "points", "expected"),
    [
        ("relu.default", {}, (0.0,), (1.0,)),
        ("relu_.default", {}, (0.0,), (1.0,)),
        ("leaky_relu.default", {"negative_slope": 0.1}, (0.0,), (1.0,)),
        ("elu.default", {"alpha": 0.5}, (0.0,), (1.0,)),
        ("selu.default", {}, (0.0,), (1.0,)),
        ("prelu.default", {"weight": 0.25}, (0.0,), (1.0,)),
        ("rrelu.default", {}, (0.0,), (1.0,)),
        ("relu6.default", {}, (0.0, 6.0), (1.0, 0.0)),
        ("hardtanh.default", {}, (-1.0, 1.0), (1.0, 0.0)),
        ("hardsigmoid.default", {}, (-3.0, 3.0), (1.0, 0.0)),
        ("hardswish.default", {}, (-3.0, 3.0), (1.0, 0.0)),
        ("softshrink.default", {}, (-0.5, 0.5), (0.0, 1.0)),
        ("abs.default", {}, (0.0,), (0.5,)),
        ("l1_loss.default", {"target": 0.0, "reduction": 0}, (0.0,), (0.5,)),
        ("maximum.default", {"other": 0.0}, (0.0,), (0.5,)),
        ("threshold.default", {"threshold": 1.0, "value": 1.0}, (1.0,), (1.0,)),
    ],
)
def test_the_proxy_weights_are_those_of_the_theory(op, arguments, points, expected, dtype):
    assert weights(op, arguments, "self", points, dtype) == expected


@pytest.mark.parametrize(
    ("op", "arguments", "operand", "points", "old", "new"),
    [
        ("clamp.default", {"min": 0.0, "max": 6.0}, "self", (0.0, 6.0), (0.0, 1.0), (1.0, 0.0)),
        ("clamp.default", {"max": 0.0}, "self", (0.0,), (1.0,), (0.0,)),
        ("clamp_min.default", {"min": 0.0}, "self", (0.0,), (0.0,), (1.0,)),
        ("clamp_max.default", {"max": 0.0}, "self", (0.0,), (1.0,), (0.0,)),
        ("clamp.Tensor", {"min": 0.0, "max": 6.0}, "self", (0.0, 6.0), (0.0, 1.0), (0.5, 0.5)),
        ("fmax.default", {"other": 0.0}, "self", (0.0,), (0.0,), (0.5,)),
        ("fmax.default", {"self": 0.0}, "other", (0.0,), (1.0,), (0.5,)),
        ("hinge_embedding_loss.default", {"target": -1.0, "reduction": 0}, "self", (1.0,), (1.0,), (0.0,)),
        (
            "margin_ranking_loss.default", {"input2": 0.0, "target": 1.0, "margin": 0.5, "reduction": 0}, "input1",
            (0.5,), (1.0,), (0.0,),
        ),
    ],
)  # fmt: skip
def test_the_weights_that_a_new_torch_changed_are_those_of_the_installed_one(op, arguments, operand, points, old, new):
    assert weights(op, arguments, operand, points) == (new if CLAMP_IS_STRICT else old)


def test_hardswish_has_its_slopes_where_they_belong():
    low, high = measure(F.hardswish, (-3.0, 3.0), torch.float32)
    assert (low.left, low.ad, low.right) == (0.0, 0.0, -0.5)
    assert (high.left, high.ad, high.right) == (1.5, 1.0, 1.0)


def test_the_float32_sixth_in_the_float64_kernel_of_hardsigmoid_still_matches():
    low, high = measure(F.hardsigmoid, (-3.0, 3.0), torch.float64)
    assert (low.weight, high.weight) == (1.0, 0.0)
    assert low.right == pytest.approx(1 / 6, rel=1e-6)


def test_prelu_takes_another_side_in_forward_mode():
    assert weights("prelu.default", {"weight": 0.25}, "self", (0.0,)) == (1.0,)
    assert weights("prelu.default", {"weight": 0.25}, "self", (0.0,), mode="forward") == (0.0,)


def test_mask_idioms_take_the_side_of_their_spelling():
    strict, loose = (
        measure(f, (0.0,), torch.float32)[0]
        for f in (lambda x: torch.where(x > 0, x, 0.0), lambda x: x.masked_fill(x < 0, 0.0))
    )
    assert (strict.weight, loose.weight) == (1.0, 0.0)


# Where there is no kink ------------------------------------------------------------------------


def test_hardshrink_without_a_band_is_a_wrong_derivative():
    (point,) = measure_call("aten.hardshrink.default", {"lambd": 0.0}, "self", (0.0,), torch.float32)
    assert point.is_wrong_derivative and point.ad == 0.0 and point.weight is None


def test_a_replaced_value_at_one_point_is_a_wrong_derivative():
    (point,) = measure(lambda x: torch.where(x == 0, 0.0, x), (0.0,), torch.float32)
    assert point.is_wrong_derivative and point.continuous


@pytest.mark.parametrize("function", [F.elu, F.softsign, lambda x: torch.relu(x) ** 1.5, lambda x: F.celu(x, 0.5)])
def test_a_c1_function_has_neither_a_kink_nor_a_wrong_derivative(function):
    (point,) = measure(function, (0.0,), torch.float32)
    assert point.stable and not point.is_kink and not point.is_wrong_derivative


def test_a_difference_of_relus_that_is_the_identity_is_a_wrong_derivative():
    (point,) = measure(lambda x: torch.relu(x) - torch.relu(-x), (0.0,), torch.float64)
    assert (point.left, point.ad, point.right) == (1.0, 0.0, 1.0)


def test_a_kink_of_tiny_slopes_is_still_a_kink():
    (point,) = measure(lambda x: 1e-10 * torch.relu(x), (0.0,), torch.float32)
    assert point.is_kink and point.weight == 1.0


@pytest.mark.parametrize(("function", "at"), [(torch.round, 0.5), (F.hardshrink, 0.5), (torch.sign, 0.0)])
def test_a_jump_is_reported_as_not_continuous(function, at):
    (point,) = measure(function, (at,), torch.float32)
    assert not point.continuous


def test_a_kinked_function_is_reported_as_continuous():
    assert all(p.continuous for p in measure(F.hardswish, (-3.0, 3.0), torch.float32))


# Bounds that the dtype cannot hold -------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_kink_is_the_bound_rounded_to_the_dtype(dtype):
    points = measure(lambda x: F.hardtanh(x, -0.1, 0.1), (-0.1, 0.1), dtype)
    assert [p.kink for p in points] == [torch.tensor(b, dtype=dtype).item() for b in (-0.1, 0.1)]
    assert all(p.stable and p.one_sided for p in points)


def test_a_half_precision_kernel_that_compares_in_float32_never_meets_a_bound_it_cannot_hold():
    """float16(0.1) < 0.1, so the entry lies inside and AD is the slope there."""
    _, high = measure(lambda x: F.hardtanh(x, -0.1, 0.1), (-0.1, 0.1), torch.float16)
    assert high.ad == high.left == 1.0 and "rounded" in high.note


def test_points_that_no_finite_entry_reaches_are_left_out():
    assert measure(torch.relu, (0.0, math.inf), torch.float32)[-1].kink == 0.0
    assert measure(lambda x: x.clamp(max=1e6), (1e6,), torch.float16) == ()


def test_close_slopes_are_told_apart_by_rounding_or_not_at_all():
    assert measure(lambda x: F.leaky_relu(x, 0.99), (0.0,), torch.bfloat16)[0].weight == 1.0
    (point,) = measure(lambda x: F.leaky_relu(x, 0.9999), (0.0,), torch.bfloat16)
    assert point.weight is None and not point.stable


# Planted faults --------------------------------------------------------------------------------


def planted(slope):
    """relu with AD's derivative replaced by ``slope(x)``."""

    class Planted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * slope(x)

    return Planted.apply


def at_zero(value):
    return lambda x: torch.where(x == 0, value, (x > 0).to(x.dtype))


@pytest.mark.parametrize(
    ("value", "weight"), [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5), (0.25, 0.75), (-0.5, None), (2.0, None)]
)
def test_a_planted_proxy_gets_its_weight_or_none(value, weight):
    (point,) = measure(planted(at_zero(value)), (0.0,), torch.float32)
    assert point.stable and point.ad == value
    assert point.weight == (None if weight is None else pytest.approx(weight))


def test_a_backward_that_is_wrong_beside_the_kink_is_not_stable():
    (point,) = measure(planted(torch.ones_like), (0.0,), torch.float32)
    assert not point.stable and point.weight is None and "not the derivative" in point.note


def test_a_backward_that_is_wrong_in_one_dtype_only_is_not_stable():
    def slope(x):
        return torch.ones_like(x) if x.dtype == torch.bfloat16 else (x > 0).to(x.dtype)

    assert measure(planted(slope), (0.0,), torch.float32)[0].stable
    assert not measure(planted(slope), (0.0,), torch.bfloat16)[0].stable


def test_a_kernel_whose_entries_disagree_at_the_kink_is_not_stable():
    def slope(x):
        tail = torch.arange(x.numel()) >= 64
        return torch.where((x == 0) & tail, 0.5, (x > 0).to(x.dtype))

    (point,) = measure(planted(slope), (0.0,), torch.float32)
    assert not point.stable and "equal entries" in point.note


def test_a_detached_value_is_not_stable():
    assert not measure(lambda x: x.detach() * 1.0, (0.0,), torch.float32)[0].stable


@pytest.mark.parametrize(
    "function",
    [lambda x: torch.relu(x).sqrt(), lambda x: torch.relu(x) ** 0.9, lambda x: torch.xlogy(x.abs(), x.abs())],
)
def test_an_infinite_slope_is_not_stable_and_has_no_weight(function):
    (point,) = measure(function, (0.0,), torch.float32)
    assert not point.stable and point.weight is None
    json.dumps(point.to_dict(), allow_nan=False)


def test_nan_at_the_kink_is_not_stable():
    (point,) = measure(planted(at_zero(math.nan)), (0.0,), torch.float32)
    assert not point.stable and "nan" in point.note


def test_what_cannot_be_measured_is_one_clear_error():
    with pytest.raises(ProxyError, match="elementwise"):
        measure(lambda x: x.sum(), (0.0,), torch.float32)
    with pytest.raises(ProxyError, match="int64"):
        measure(torch.relu, (0.0,), torch.int64)
    with pytest.raises(ProxyError, match="has no"):
        measure_call("aten.nonesuch.default", {}, "self", (0.0,), torch.float32)


def test_measuring_works_inside_no_grad_and_inference_mode():
    with torch.no_grad():
        assert measure(torch.relu, (0.0,), torch.float32)[0].weight == 1.0
    with torch.inference_mode():
        assert measure(torch.abs, (0.0,), torch.float32)[0].weight == 0.5


def test_measuring_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    measure_call("aten.rrelu.default", {}, "self", (0.0,), torch.float64)
    assert torch.equal(before, torch.get_rng_state())


def test_one_operator_is_measured_within_two_milliseconds_after_warm_up():
    measure(F.hardswish, (-3.0, 3.0), torch.float32)
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        measure(F.hardswish, (-3.0, 3.0), torch.float32)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 2e-3


# Ties ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("aten.max_pool2d.default", "one_hot"), ("aten.adaptive_max_pool2d.default", "one_hot"),
        ("aten.max.dim", "one_hot"), ("aten.cummax.default", "one_hot"), ("aten.embedding_bag.default", "one_hot"),
        ("aten.amax.default", "split"), ("aten.max.default", "split"), ("aten.maximum.default", "split"),
        ("aten.median.default", "split"), ("aten.linalg_vector_norm.default", "split"),
        ("aten.fmax.default", "split" if CLAMP_IS_STRICT else "one_hot"),
        ("aten.clamp.Tensor", "split" if CLAMP_IS_STRICT else "one_hot"),
        ("scatter_reduce(amax, include_self=False)", "unsupported"), ("aten.nonesuch.default", None),
    ],
)  # fmt: skip
def test_the_pick_of_each_max_is_measured(op, expected):
    table = catalogue(dtypes=("float32",), modes=("backward",))
    assert Saved(table).pick(op) == expected


def test_pools_pick_the_first_index_and_cumulative_maxima_the_last():
    picks = {row.op: row.pick for row in catalogue(["max_pool2d", "cummax"], ("float32",), ("backward",)).rows}
    assert picks == {"aten.max_pool2d.default": "one_hot_first", "aten.cummax.default": "one_hot_last"}


@pytest.mark.parametrize(
    ("measured", "name"),
    [
        ((0.0, 1.0, 0.0), "one_hot_first"), ((0.0, 0.0, 1.0), "one_hot_last"), ((0.0, 0.5, 0.5), "split"),
        ((0.0, 0.25, 0.75), "other"), ((0.0, 0.5, 0.25), "unsupported"), ((0.0, 1.5, -0.5), "unsupported"),
        ((1.0, 0.0, 0.0), "unsupported"), ((0.0, math.nan, 1.0), "unsupported"),
    ],
)  # fmt: skip
def test_tie_weights_are_named_only_when_they_are_a_mixture_of_the_tied_entries(measured, name):
    assert classify_tie(measured, (1, 2), torch.float32) == name


def test_a_tie_is_measured_alike_in_both_modes():
    entries = (0.5, 1.0, 1.0)
    modes = [measure_tie(lambda x: x.amax(0), entries, torch.float32, mode=mode) for mode in ("backward", "forward")]
    assert modes[0] == modes[1] == (0.0, 0.5, 0.5)


# The catalogue ---------------------------------------------------------------------------------


def names(*ops):
    return {row.op for row in catalogue(ops, ("float32",), ("backward",)).rows}


def test_operators_are_chosen_by_name_overload_prefix_and_in_place_spelling():
    for spelling in ("aten.relu.default", "relu.default", "aten.relu", "aten.relu_.default"):
        assert names(spelling) == {"aten.relu.default"}
    assert names("relu") == names("relu_") == {"aten.relu.default", "relu(x) - relu(-x)"}
    assert names("aten.clamp") >= {"aten.clamp.default", "aten.clamp.Tensor", "aten.clamp_min.Tensor"}
    assert "aten.clamp_min.default" in names("clamp")
    assert names("where") == {op for op in known_operators() if op.startswith("where(")}


def test_an_unknown_operator_is_a_usage_error_with_close_names():
    with pytest.raises(UsageError) as caught:
        catalogue(["hardtan"])
    assert "hardtanh" in caught.value.hint


@pytest.mark.parametrize(("dtypes", "device"), [(("int8",), "cpu"), (("float32",), "nonesuch")])
def test_an_unknown_dtype_or_device_is_a_usage_error(dtypes, device):
    with pytest.raises(UsageError):
        catalogue(["relu"], dtypes, device=device)


def test_a_missing_kernel_is_a_row_with_a_note_and_no_values():
    rows = catalogue(["multi_margin_loss"], ("float16",), ("backward",)).rows
    assert [row.measured for row in rows] == [False] and "float16" in rows[0].note


def test_every_row_has_its_own_key_and_the_table_survives_json():
    table = catalogue()
    assert len({row.key for row in table.rows}) == len(table.rows)
    document = json.loads(table.to_json(), parse_constant=pytest.fail)
    again = ProxyTable.from_dict(document)
    assert again.to_json() == table.to_json() and document == table.to_dict()
    assert diff(table, again) == ()


# Saved tables ----------------------------------------------------------------------------------


@NEW
def test_the_diff_from_torch_2_13_names_what_changed_and_nothing_else():
    changed = {c.op for c in diff(load(GOLDEN), catalogue(dtypes=("float32", "bfloat16")))}
    assert changed == {
        "aten.clamp.default", "aten.clamp_min.default", "aten.clamp_max.default", "aten.clamp.Tensor",
        "aten.clamp_min.Tensor", "aten.clamp_max.Tensor", "aten.fmax.default", "aten.fmin.default",
        "aten.hinge_embedding_loss.default", "aten.margin_ranking_loss.default",
        "triplet_margin_loss(x, 0, 10, eps=0)", "sqrt(clamp(x, min=0))",
    }  # fmt: skip


@NEW
def test_a_change_says_the_value_before_and_after():
    (change,) = diff(load(GOLDEN), catalogue(["clamp_min.default"], ("float32",), ("backward",)))
    assert (change.op, change.before, change.after) == ("aten.clamp_min.default", "1, weight 0", "0, weight 1")


@pytest.mark.skipif(VERSION != (2, 13), reason="the golden table is of torch 2.13")
def test_torch_2_13_still_measures_the_golden_table():
    assert diff(load(GOLDEN), catalogue(dtypes=("float32", "bfloat16"))) == ()


def row(**values):
    return ProxyRow(**({"op": "aten.relu.default", "dtype": "float32", "device": "cpu", "mode": "backward"} | values))


def test_values_that_become_infinite_or_unmeasured_are_changes():
    measured = row(kink=0.0, left=0.0, ad=0.0, right=1.0, weight=1.0)
    infinite = row(kink=0.0, left=0.0, ad=math.inf, right=1.0)
    for other in (infinite, row(note="no kernel")):
        assert len(diff(ProxyTable("1", (measured,)), ProxyTable("2", (other,)))) == 1


def test_a_saved_call_is_looked_up_with_its_arguments():
    saved = Saved(load(GOLDEN))
    found = saved.scalar("aten.clamp.default", {"min": 0, "max": 6}, "self", (0.0, 6.0), "float32")
    assert [p.ad for p in found] == [1.0, 1.0] and [p.weight for p in found] == [0.0, 1.0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_bounds_take_the_saved_side_with_their_own_slopes(dtype):
    saved = Saved(load(GOLDEN))
    arguments = {"min": -2.0, "max": 5.0}
    found = saved.scalar("aten.clamp.default", arguments, "self", (-2.0, 5.0), dtype)
    assert [(p.kink, p.ad, p.weight) for p in found] == [(-2.0, 1.0, 0.0), (5.0, 1.0, 1.0)]
    (leaky,) = saved.scalar("aten.leaky_relu.default", {"negative_slope": 0.3}, "self", (0.0,), dtype)
    assert (leaky.ad, leaky.weight) == (leaky.left, 1.0)


def test_one_bound_is_not_read_as_the_other():
    saved = Saved(load(GOLDEN))
    (low,) = saved.scalar("aten.clamp.default", {"min": 3.0, "max": None}, "self", (3.0,), "float32")
    (high,) = saved.scalar("aten.clamp.default", {"min": None, "max": 3.0}, "self", (3.0,), "float32")
    assert (low.weight, high.weight) == (0.0, 1.0)
    assert (low.right, high.left) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("op", "arguments", "points", "dtype"),
    [
        ("aten.nonesuch.default", {}, (0.0,), "float32"),
        ("aten.relu.default", {}, (0.0,), "float64"),
        ("aten.clamp.default", {"min": 0.1, "max": None}, (0.1,), "bfloat16"),
        ("aten.clamp.default", {"min": 2.0, "max": 2.0}, (2.0,), "float32"),
    ],
)
def test_what_a_table_does_not_settle_is_none(op, arguments, points, dtype):
    assert Saved(load(GOLDEN)).scalar(op, arguments, "self", points, dtype) is None


def test_saved_proxies_fall_back_to_the_installed_torch_and_say_for_what():
    source = SavedFirst(load(GOLDEN))
    arguments = ("self", (0.0,), "float64")
    assert source.scalar("aten.relu.default", {}, *arguments) == Measured().scalar("aten.relu.default", {}, *arguments)
    assert source.missing == {"aten.relu.default"}
    assert source.scalar("aten.clamp_min.default", {"min": 0.0}, "self", (0.0,), "float32")[0].weight == 0.0
    assert source.missing == {"aten.relu.default"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "not JSON"),
        ("[]", "no schema"),
        ('{"schema": "fxcheck/proxies/9"}', "fxcheck/proxies/9"),
        ('{"schema": "fxcheck/proxies/1", "torch": "2.13.0"}', "rows"),
        ('{"schema": "fxcheck/proxies/1", "torch": "2.13.0", "rows": [1]}', "row 0"),
        ('{"schema": "fxcheck/proxies/1", "torch": "2.13.0", "rows": [{"op": "x"}]}', "'dtype'"),
        (
            '{"schema": "fxcheck/proxies/1", "torch": "2", "rows": [{"op": "x", "dtype": "float32", "device": "cpu",'
            ' "mode": "backward", "kink": "zero"}]}',
            "'kink' should be a number",
        ),
    ],
)
def test_a_broken_file_is_one_clear_proxy_error(tmp_path, text, found):
    path = tmp_path / "old.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProxyError) as caught:
        load(path)
    assert found in caught.value.message and "old.json" in caught.value.message and caught.value.hint


def test_a_missing_file_a_directory_and_binary_are_proxy_errors(tmp_path):
    binary = tmp_path / "weights.bin"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.json", tmp_path, binary):
        with pytest.raises(ProxyError, match=path.name):
            load(path)


def test_the_same_measurement_twice_is_refused():
    document = ProxyTable("2", (row(ad=1.0), row(ad=2.0))).to_dict()
    with pytest.raises(ProxyError, match="second time"):
        ProxyTable.from_dict(document)
