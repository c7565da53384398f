"""Which ATen calls the exact interpreter reads, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.soundness import exact_kinks as kinks
from tests.soundness.exact_ops import Context, Jet, add_product, affine, between, multiply, product, smooth
from tests.soundness.program import Declined

_AFFINE = """
add sub rsub neg sum mean view _unsafe_view reshape _reshape_alias permute transpose t slice select index flip
constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d expand cat stack squeeze
unsqueeze clone contiguous detach alias _to_copy copy avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d
adaptive_avg_pool1d adaptive_avg_pool2d gather index_select embedding split split_with_sizes unbind chunk roll
diagonal diag unfold im2col cumsum masked_fill where upsample_nearest1d upsample_nearest2d upsample_linear1d
upsample_bilinear2d tril triu repeat movedim narrow lift_fresh nll_loss_forward nll_loss2d_forward pixel_shuffle
as_strided ones_like zeros_like new_zeros new_ones new_full full_like empty_like channel_shuffle positive trace
select_scatter slice_scatter index_add scatter_add col2im pixel_unshuffle diag_embed flatten ravel unflatten
""".split()  # noqa: SIM905
_SMOOTH = """
exp log sqrt rsqrt sigmoid tanh softplus log_sigmoid_forward gelu silu mish erf sin cos _softmax _log_softmax
native_layer_norm native_group_norm logsumexp reciprocal log1p expm1 native_batch_norm atan
""".split()  # noqa: SIM905
_PRODUCTS = {"mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "dot": (0, 1), "matmul": (0, 1), "addmm": (1, 2, 0),
             "addmv": (1, 2, 0), "baddbmm": (1, 2, 0), "convolution": (0, 1, 2), "linear": (0, 1, 2)}  # fmt: skip
_MAXIMA = """
max amax max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d
adaptive_max_pool2d adaptive_max_pool3d max_pool1d max_pool2d max_pool3d
""".split()  # noqa: SIM905


def _divide(ctx: Context, a: Any, b: Any, **kwargs: Any) -> Any:
    if kwargs.get("rounding_mode"):
        raise Declined("division with rounding")
    return smooth(ctx, a, b) if isinstance(b, Jet) else affine(ctx, a, b)


def _extremum(up: bool) -> Callable[..., Any]:
    one, two = kinks.extremum(up), kinks.of_two(up)

    def apply(ctx: Context, x: Any, *args: Any, **kwargs: Any) -> Any:
        is_pair = "other" in str(ctx.call.function._schema)
        return two(ctx, x, *args, **kwargs) if is_pair else one(ctx, x, *args, **kwargs)

    return apply


def _sorted(dim: int = -1, descending: bool = False, *, stable: Any = None) -> Any:
    return (lambda columns: columns[::-1] if descending else columns), dim


def _top(k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    return (lambda columns: columns[::-1][:k] if largest else columns[:k]), dim


_TABLE: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_AFFINE, affine),
    **dict.fromkeys(_SMOOTH, smooth),
    **{name: product(*places) for name, places in _PRODUCTS.items()},
    **{name: kinks._activation(cuts) for name, cuts in kinks.ACTIVATIONS.items()},
    **dict.fromkeys(kinks._COMPARED, kinks.compare),
    **dict.fromkeys(_MAXIMA, _extremum(True)),
    **dict.fromkeys(("min", "amin"), _extremum(False)),
    **dict.fromkeys(("maximum", "fmax"), kinks.of_two(True)),
    **dict.fromkeys(("minimum", "fmin"), kinks.of_two(False)),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
                    kinks.normalised),
    "mul": multiply,
    "addcmul": add_product,
    "lerp": between,
    "div": _divide,
    **dict.fromkeys(("clamp", "clip", "clamp_min"), kinks.clamp),
    "clamp_max": kinks.clamp_max,
    "_prelu_kernel": kinks.prelu,
    "pow": kinks.power,
    "square": kinks.power,
    "mse_loss": kinks.squared_error,
    "huber_loss": kinks.huber,
    "smooth_l1_loss": kinks.huber,
    "cummax": kinks.running,
    "sort": kinks.ordered(_sorted),
    "topk": kinks.ordered(_top),
    "kthvalue": kinks.ordered(lambda k, dim=-1, keepdim=False: ((lambda c: [c[k - 1]]), dim)),
}  # fmt: skip


def _median(ctx: Context, x: Jet, *args: Any, **kwargs: Any) -> Any:
    middle = lambda columns: [columns[(len(columns) - 1) // 2]]  # noqa: E731
    return kinks.ordered(lambda dim=-1, keepdim=False: (middle, dim), flat=not args)(ctx, x, *args, **kwargs)


_TABLE["median"] = _median


def operation(ctx: Context, args: Any, kwargs: Any) -> Any:
    """Apply a call to exact tensors.

    Args:
        ctx: the call and what decides its branches.
        args: its arguments, jets in the place of tensors that depend on the parameters.
        kwargs: likewise.

    Returns:
        Jets (a list for several outputs); a tensor for a comparison.

    Raises:
        Declined: the call is not in the table.
    """
    name = ctx.call.name
    known = _TABLE.get(name) or (_TABLE.get(name.removesuffix("_")) if name.endswith("_") else None)
    if known is None:
        raise Declined(name)
    return known(ctx, *args, **kwargs)
