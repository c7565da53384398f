"""Operators through which autograd does not return the derivative of the forward (theory 4.3)."""

from __future__ import annotations

from fxcheck.ops.common import aten, breaking
from fxcheck.ops.registry import constant_semantics
from fxcheck.records.semantics import Transfer

constant_semantics(aten("detach detach_copy"), breaking("FX501", "its gradient is cut off", Transfer.KEEP))
constant_semantics(
    aten("item _local_scalar_dense set_data"), breaking("FX501", "a value read from a tensor carries no gradient")
)
constant_semantics(
    aten(
        "fake_quantize_per_tensor_affine fake_quantize_per_tensor_affine.tensor_qparams "
        "fake_quantize_per_channel_affine _fake_quantize_learnable_per_tensor_affine "
        "_fake_quantize_learnable_per_channel_affine fused_moving_avg_obs_fake_quant quantize_per_tensor "
        "quantize_per_tensor.tensor_qparams quantize_per_channel quantize_per_tensor_dynamic"
    ),
    breaking("FX504", "rounding is differentiated as if it were the identity, or not at all"),
)
