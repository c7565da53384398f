"""Attention: analytic in queries, keys, values and additive masks."""

from __future__ import annotations

from dataclasses import replace

from fxcheck.ops.common import SMOOTH, aten
from fxcheck.ops.registry import constant_semantics

constant_semantics(aten("scaled_dot_product_attention _scaled_dot_product_attention_math"), SMOOTH)
constant_semantics(
    aten(
        "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention"
    ),
    replace(SMOOTH, cut_outputs=tuple(range(1, 9))),  # the logarithm of the sum, and what backward needs
)
