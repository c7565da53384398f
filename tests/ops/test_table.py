"""The operator table: names exist, facts hold numerically on the installed torch, and doubt stays UNKNOWN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fxcheck.ops  # noqa: F401  fills the registry
from fxcheck.ops.evaluate import apply_overload, overload
from fxcheck.ops.registry import DuplicateOperator, lookup, out_of_place, registered, semantics_for
from fxcheck.records.graph import Ref
from fxcheck.records.semantics import Call, Kind, MaxPick, OpSemantics, Transfer

INVENTORY = (Path(__file__).parent / "inventory.txt").read_text().split()
NOT_IN_TORCH = {
    "aten.cholesky.default": "torch 2.14 no longer has it",
    "transformers.grouped_mm_fallback.default": "defined by a library that is not a dependency",
}
X = Ref(0)


def call(op: str, shapes: dict[int, tuple[int, ...]] | None = None, out: tuple[int, ...] | None = None,
         dtypes: dict[int, str] | None = None, constants: dict[int, float | None] | None = None,
         bounds: dict[int, float] | None = None, dtype: str = "float32", **arguments: Any) -> OpSemantics:  # fmt: skip
    name = f"aten.{op}" if "." in op else f"aten.{op}.default"
    function = overload(name)
    filled = {a.name: a.default_value for a in function._schema.arguments if a.has_default_value()} if function else {}
    tensors = dtypes or dict.fromkeys(range(6), "float32")
    return lookup(Call(name, {**filled, **arguments}, shapes or {}, tensors, constants or {}, out, bounds or {}, dtype))


def exists(op: str) -> bool:
    namespace, name, variant = op.split(".")
    return any(overload(f"{namespace}.{n}.{variant}") is not None for n in (name, name + "_"))


def test_every_registered_name_exists_in_torch() -> None:
    pytest.importorskip("torchvision")
    assert {op for op in registered() if not exists(op)} <= set(NOT_IN_TORCH)


def test_a_second_description_of_an_operator_raises() -> None:
    with pytest.raises(DuplicateOperator, match=r"aten\.relu\.default"):
        semantics_for("aten.relu.default")(lambda c: OpSemantics(Kind.SMOOTH))


def test_an_operator_that_nobody_described_is_unknown() -> None:
    assert call("no_such_operator").kind is Kind.UNKNOWN
    assert "no_such_operator" in call("no_such_operator").note


def test_in_place_names_share_the_rule_of_the_out_of_place_name() -> None:
    assert call("relu_", self=X) == call("relu", self=X)


@pytest.mark.parametrize("op", INVENTORY)
def test_every_operator_of_the_model_zoos_has_a_rule(op: str) -> None:
    assert op in registered() or out_of_place(op) in registered()


# Scalar functions of self, with the arguments that have no default. -----------------------------

CASES: list[tuple[str, dict[str, Any]]] = [
    ("relu", {}), ("relu6", {}), ("hardsigmoid", {}), ("hardswish", {}), ("hardtanh", {}), ("selu", {}), ("abs", {}),
    ("hardtanh", {"min_val": 0.5, "max_val": 2.0}), ("leaky_relu", {}), ("leaky_relu", {"negative_slope": -0.5}),
    ("rrelu", {}), ("rrelu", {"lower": -1.0, "upper": -0.5}), ("prelu", {"weight": 0.25}), ("prelu", {"weight": -0.25}),
    ("elu", {}), ("elu", {"alpha": 2.0}), ("elu", {"alpha": 2.0, "input_scale": 0.5}), ("elu", {"alpha": -1.0}),
    ("celu", {}), ("celu", {"alpha": 3.0}), ("softshrink", {}), ("hardshrink", {}), ("softshrink", {"lambd": 0.0}),
    ("threshold", {"threshold": 1.0, "value": 1.0}), ("threshold", {"threshold": 1.0, "value": -3.0}),
    ("threshold", {"threshold": 1.0, "value": 3.0}), ("clamp", {"min": -1.0, "max": 2.0}), ("clamp", {"min": 0.5}),
    ("clamp", {"min": 2.0, "max": -1.0}), ("clamp", {"max": 1.5}), ("clamp_min", {"min": 0.0}),
    ("clamp_max", {"max": 0.0}), ("clamp", {"min": float("-inf"), "max": 1.0}), ("tanh", {}), ("sin", {}), ("cos", {}),
    ("gelu", {}), ("gelu", {"approximate": "tanh"}), ("silu", {}), ("mish", {}), ("log_sigmoid", {}), ("erf", {}),
    ("erfc", {}), ("exp", {}), ("exp2", {}), ("expm1", {}), ("sigmoid", {}), ("softplus", {}),
    ("softplus", {"beta": 3.0}), ("square", {}), ("atan", {}), ("sinh", {}), ("cosh", {}), ("asinh", {}), ("sinc", {}),
    ("pow.Tensor_Scalar", {"exponent": 2}), ("pow.Tensor_Scalar", {"exponent": 3}), ("pow.Scalar", {"self": 2.0}),
    ("pow.Tensor_Scalar", {"exponent": -2}), ("pow.Tensor_Scalar", {"exponent": 0}), ("neg", {}), ("reciprocal", {}),
]  # fmt: skip
IDS = [f"{op}-{'-'.join(map(str, a.values()))}" for op, a in CASES]


def scalar(op: str, arguments: dict[str, Any]) -> tuple[OpSemantics, Any]:
    name = f"aten.{op}" if "." in op else f"aten.{op}.default"
    defaults = {a.name: a.default_value for a in overload(name)._schema.arguments if a.has_default_value()}
    operand = "exponent" if op == "pow.Scalar" else "self"
    constants = {i + 1: v for i, v in enumerate(arguments.values()) if op == "prelu"}
    shown = {n: Ref(i + 1) if op == "prelu" else v for i, (n, v) in enumerate(arguments.items())}

    def function(x: torch.Tensor) -> torch.Tensor:
        given = {**defaults, **arguments, operand: x}
        if op == "prelu":
            given["weight"] = torch.tensor([arguments["weight"]], dtype=x.dtype)
        return apply_overload(name, given, x)

    return call(op, constants=constants, **{**shown, operand: X}), function


def slope_gap(function: Any, points: torch.Tensor, h: float) -> torch.Tensor:
    here = function(points)
    return ((function(points + h) - here) / h - (here - function(points - h)) / h).abs()


@pytest.mark.parametrize(("op", "arguments"), CASES, ids=IDS)
def test_smooth_functions_have_equal_slopes_on_both_sides(op: str, arguments: dict[str, Any]) -> None:
    semantics, function = scalar(op, arguments)
    if semantics.kind is not Kind.SMOOTH:
        pytest.skip("not smooth")
    points = torch.tensor([0.0, 1.0, -1.0, 3.0, -3.0, 0.5], dtype=torch.float64)
    gap = slope_gap(function, points, 1e-5)
    assert bool((gap[function(points).isfinite()] < 1e-2).all())


@pytest.mark.parametrize(("op", "arguments"), CASES, ids=IDS)
def test_no_kink_lies_outside_the_listed_candidates(op: str, arguments: dict[str, Any]) -> None:
    semantics, function = scalar(op, arguments)
    if semantics.kind is not Kind.KINKED:
        pytest.skip("not kinked")
    h = 1e-4
    # Multiples of 1/8 hold every round constant; the listed candidates are taken out.
    grid = torch.arange(-80, 81, dtype=torch.float64) / 8
    away = torch.tensor([all(abs(g - k) > 2 * h for k in semantics.kinks) for g in grid.tolist()])
    assert float(slope_gap(function, grid[away], h).max()) < 1e-2


@pytest.mark.parametrize(("op", "arguments"), CASES, ids=IDS)
def test_sign_and_monotonicity_flags_hold_on_a_grid(op: str, arguments: dict[str, Any]) -> None:
    semantics, function = scalar(op, arguments)
    value = function(torch.linspace(-8, 8, 4001, dtype=torch.float64))
    value = value[value.isfinite()]
    assert not semantics.positive or bool((value > 0).all())
    assert not semantics.nonnegative or bool((value >= 0).all())
    assert not semantics.nondecreasing or bool((value.diff() >= -1e-12).all())


@pytest.mark.parametrize(
    ("op", "arguments", "kinks"),
    [("relu", {}, (0.0,)), ("relu6", {}, (0.0, 6.0)), ("hardswish", {}, (-3.0, 3.0)), ("softshrink", {}, (-0.5, 0.5)),
     ("clamp", {"min": -1.0, "max": float("inf")}, (-1.0,)), ("elu", {"alpha": 2.0}, (0.0,)),
     ("threshold", {"threshold": 1.0, "value": 1.0}, (1.0,)), ("selu", {}, (0.0,))],
)  # fmt: skip
def test_kinks_are_the_constants_that_the_operator_compares_with(
    op: str, arguments: dict[str, Any], kinks: tuple[float, ...]
) -> None:
    semantics, _ = scalar(op, arguments)
    assert (semantics.kind, semantics.kinks, semantics.elementwise) == (Kind.KINKED, kinks, True)


def test_a_softplus_that_visibly_jumps_is_not_smooth() -> None:
    assert call("softplus", self=X, threshold=1).kind is Kind.DISCONTINUOUS


def test_a_random_slope_per_entry_does_not_commute_with_a_max() -> None:
    assert not call("rrelu", self=X, training=True).nondecreasing


def test_a_root_is_singular_unless_its_argument_is_bounded_away_from_zero() -> None:
    assert call("sqrt", self=X).kind is Kind.SINGULAR
    assert call("sqrt", self=X, bounds={0: 0.0}).kind is Kind.SINGULAR
    assert call("sqrt", self=X, bounds={0: 1e-6}).positive
    assert call("pow.Tensor_Scalar", self=X, exponent=0.5).kind is Kind.SINGULAR


# Operators of several entries. ------------------------------------------------------------------


def test_sums_carry_the_factor_of_each_operand() -> None:
    y = Ref(1)
    assert call("add.Tensor", self=X, other=y, alpha=3).scales == (1.0, 3.0)
    assert call("sub.Tensor", self=X, other=y, alpha=2).scales == (1.0, -2.0)
    assert call("rsub.Scalar", self=X, other=1.0, alpha=2).scales == (-2.0, 1.0)
    assert call("neg", self=X).scales == (-1.0,)


def test_division_that_rounds_is_discontinuous() -> None:
    assert call("div.Tensor_mode", self=X, other=Ref(1), rounding_mode="floor").kind is Kind.DISCONTINUOUS
    assert call("div.Tensor_mode", self=X, other=Ref(1), rounding_mode=None).transfer is Transfer.DIVIDE


@pytest.mark.parametrize(
    ("op", "operand", "weight", "axis"),
    [("linear", (4, 3), (5, 3), -1), ("conv2d", (2, 3, 8, 8), (5, 3, 1, 1), 1), ("conv2d", (3, 8, 8), (5, 3, 1, 1), 0)],
)
def test_the_bias_runs_along_the_channel_axis(
    op: str, operand: tuple[int, ...], weight: tuple[int, ...], axis: int
) -> None:
    shapes = {0: operand, 1: weight, 2: weight[:1]}
    with_bias = call(op, shapes, input=X, weight=Ref(1), bias=Ref(2))
    assert (with_bias.transfer, with_bias.bias, with_bias.bias_axis) == (Transfer.AFFINE, "bias", axis)
    assert call(op, shapes, input=X, weight=Ref(1), bias=None).bias is None


def test_addmm_has_a_bias_only_if_it_adds_one_row_with_factor_one() -> None:
    def bias(shape: tuple[int, ...], beta: float = 1) -> str | None:
        return call("addmm", {2: shape}, (4, 5), self=Ref(2), mat1=X, mat2=Ref(1), beta=beta).bias

    assert bias((5,)) == "self"
    assert bias((4, 5)) is None
    assert bias((1,)) is None
    assert bias((5,), beta=2) is None


def test_a_bias_over_several_normalised_axes_is_lost() -> None:
    def norm(*axes: int) -> OpSemantics:
        return call("layer_norm", input=X, normalized_shape=axes, weight=Ref(1), bias=Ref(2))

    assert (norm(8).bias, norm(8).bias_axis, norm(8).kind) == ("bias", -1, Kind.SMOOTH)
    assert (norm(4, 8).bias, norm(4, 8).transfer) == (None, Transfer.LOST)


def test_average_pooling_with_a_negative_divisor_loses_the_sign() -> None:
    assert call("avg_pool2d", self=X, kernel_size=(2, 2)).transfer is Transfer.AVERAGE
    assert call("avg_pool2d", self=X, kernel_size=(2, 2), divisor_override=-4).transfer is Transfer.LOST


@pytest.mark.parametrize("op", ["max_pool2d", "max.dim", "cummax", "adaptive_max_pool2d"])
def test_pools_and_indexed_maxima_pick_one_entry(op: str) -> None:
    found = call(op, {0: (2, 3, 8, 8)}, self=X, kernel_size=(3, 3), dim=1, output_size=(2, 2))
    assert (found.kind, found.pick, found.trivial) == (Kind.MAX, MaxPick.ONE_HOT, False)


@pytest.mark.parametrize("op", ["amax", "max", "maximum", "fmax", "min.other", "clamp_min.Tensor", "clamp.Tensor"])
def test_maxima_without_an_index_split_the_gradient(op: str) -> None:
    found = call(op, {0: (2, 3)}, self=X, other=Ref(1), min=Ref(1))
    assert (found.kind, found.pick) == (Kind.MAX, MaxPick.SPLIT)


def test_a_clamp_between_two_trainable_tensors_is_not_a_max() -> None:
    assert call("clamp.Tensor", self=X, min=Ref(1), max=Ref(2)).kind is Kind.ORDER_STATISTIC


def test_a_window_of_one_entry_is_trivial() -> None:
    assert call("max_pool2d", self=X, kernel_size=(1, 1)).trivial
    assert call("max.dim", {0: (4, 1)}, self=X, dim=1).trivial
    assert not call("max.dim", {0: (4, 2)}, self=X, dim=1).trivial
    assert call("adaptive_max_pool2d", {0: (2, 3, 7, 7)}, self=X, output_size=(7, 7)).trivial


@pytest.mark.parametrize("op", ["sort", "topk", "kthvalue", "median", "median.dim", "nanmedian", "mode", "quantile"])
def test_ranks_are_order_statistics(op: str) -> None:
    assert call(op, {0: (4,)}, self=X, dim=0, k=1).kind is Kind.ORDER_STATISTIC


@pytest.mark.parametrize("op", ["index.Tensor", "gather", "index_select", "where.self", "masked_fill.Scalar"])
def test_a_fixed_index_or_mask_is_structure_and_a_trainable_one_jumps(op: str) -> None:
    arguments = {"index": Ref(1), "indices": (None, Ref(1)), "mask": Ref(1), "condition": Ref(1), "other": Ref(2)}
    assert call(op, constants={1: None}, self=X, value=0.0, **arguments).kind is Kind.STRUCTURAL
    jumps = call(op, self=X, value=0.0, **arguments)
    assert (jumps.kind, jumps.singular_code) == (Kind.DISCONTINUOUS, "FX404")


def test_writing_trained_values_at_indices_that_may_repeat_is_not_structure() -> None:
    def write(dtype: str, shape: tuple[int, ...]) -> Kind:
        return call("index_put", {1: shape}, dtypes={0: "float32", 1: dtype, 2: "float32"}, constants={1: None},
                    self=X, indices=(Ref(1),), values=Ref(2)).kind  # fmt: skip

    assert write("int64", (4,)) is Kind.BREAKING
    assert write("bool", (4,)) is Kind.STRUCTURAL
    x, y = torch.zeros(1), torch.ones(2, requires_grad=True)
    x.index_put((torch.tensor([0, 0]),), y).sum().backward()
    assert y.grad.tolist() == [1.0, 1.0]  # one of the two values was lost: the true derivative has one 0


def test_embedding_options_that_change_the_gradient_are_breaking() -> None:
    def embed(**options: Any) -> OpSemantics:
        return call("embedding", constants={1: None}, weight=X, indices=Ref(1), **options)

    assert embed().kind is Kind.STRUCTURAL
    assert embed(padding_idx=0).singular_code == "FX503"
    assert embed(scale_grad_by_freq=True).singular_code == "FX503"


def test_outputs_that_autograd_takes_for_constants_are_named() -> None:
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    q = torch.randn(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    calls: dict[str, tuple[Any, ...]] = {
        "native_layer_norm": (x, [3], None, None, 1e-5), "native_group_norm": (x, None, None, 2, 4, 9, 2, 1e-5),
        "native_batch_norm": (x, None, None, None, None, True, 0.1, 1e-5), "_fused_rms_norm": (x, [3], None, 1e-5),
        "log_sigmoid_forward": (x,), "_scaled_dot_product_flash_attention_for_cpu": (q, q, q),
        "_scaled_dot_product_attention_math": (q, q, q), "_weight_norm_interface": (q[0, 0], q[0, 0, :, :1]),
        "_native_batch_norm_legit.no_stats": (x, None, None, True, 0.1, 1e-5), "std_mean": (x,), "var_mean": (x,),
        "_native_batch_norm_legit_functional": (x, None, None, torch.zeros(4).double(), torch.ones(4).double(), True, 0.1, 1e-5),
    }  # fmt: skip
    for op, arguments in calls.items():
        outputs = overload(f"aten.{op}" if "." in op else f"aten.{op}.default")(*arguments)
        cut = tuple(i for i, o in enumerate(outputs) if not o.requires_grad)
        assert call(op, {0: tuple(x.shape)}, input=X, eps=1e-5).cut_outputs[: len(cut)] == cut, op


def test_a_pool_whose_dilation_steps_over_a_padded_side_is_refused() -> None:
    def pool(side: int, padding: int, dilation: int) -> Kind:
        sizes = {"kernel_size": (2, 2), "padding": (padding,), "dilation": (dilation, 1)}
        return call("max_pool2d", {0: (2, 3, side, 8)}, self=X, **sizes).kind

    assert pool(1, 1, 2) is pool(2, 1, 3) is Kind.BREAKING
    assert pool(1, 0, 1) is pool(1, 1, 1) is pool(2, 1, 2) is pool(8, 1, 3) is pool(2, 0, 3) is Kind.MAX
    assert bool(torch.nn.functional.max_pool2d(torch.zeros(1, 1, 2, 8), 2, 1, 1, (3, 1)).isinf().any())
    assert not bool(torch.nn.functional.max_pool2d(torch.zeros(1, 1, 2, 8), 2, 1, 1, (2, 1)).isinf().any())


def test_dropout_scales_only_in_training() -> None:
    assert call("dropout", input=X, p=0.1, train=True).transfer is Transfer.DROPOUT
    assert call("dropout", input=X, p=0.1, train=False).transfer is Transfer.KEEP
    assert call("dropout", input=X, p=0.0, train=True).transfer is Transfer.KEEP


def test_a_cast_to_integers_jumps_and_a_cast_between_floats_keeps() -> None:
    def cast(dtype: str) -> Kind:
        name = Call("aten.to.dtype", {"self": X, "dtype": dtype}, {}, {0: "float32"}, {}, None, {}, dtype)
        return lookup(name).kind

    assert cast("int64") is Kind.DISCONTINUOUS
    assert cast("bool") is Kind.DISCONTINUOUS
    assert cast("bfloat16") is Kind.STRUCTURAL


@pytest.mark.parametrize("op", ["detach", "item", "fake_quantize_per_tensor_affine", "binary_cross_entropy"])
def test_operators_whose_backward_is_not_the_derivative_are_breaking(op: str) -> None:
    assert call(op, self=X).kind is Kind.BREAKING


@pytest.mark.parametrize(
    "op",
    ["std.dim", "linalg_vector_norm", "cosine_similarity", "pairwise_distance", "cdist", "hypot", "acos",
     "xlogy.Tensor"],
)
def test_norms_and_roots_are_never_smooth(op: str) -> None:
    ends = {"self": X, "x1": X, "x2": Ref(1), "other": Ref(1), "ord": 2, "p": 2.0}
    assert call(op, **ends).kind is Kind.SINGULAR


def test_singular_operators_report_the_code_that_the_explanations_know() -> None:
    assert call("sqrt", self=X).singular_code == "FX205"


@pytest.mark.parametrize("op", ["l1_loss", "multi_margin_loss", "cosine_embedding_loss", "triplet_margin_loss"])
def test_kinked_losses_that_were_not_lowered_are_unknown(op: str) -> None:
    pair = {"self": X, "target": Ref(1), "input1": X, "input2": Ref(1), "reduction": 1, "margin": 1.0}
    assert call(op, **pair).kind is Kind.UNKNOWN
