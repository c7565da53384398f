"""Other floats: the same networks in float32, bfloat16 and float16, where touches and ties are commoner."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

from tests.soundness.families import activations, maxima, stacks, structures, windows
from tests.soundness.families.plan import Plan
from tests.soundness.families.registry import family

_SOURCES = (
    lambda rng: activations.around(rng, rng.choice(["relu", "relu6", "hardtanh", "leaky_relu", "abs", "mask", "prelu"])),
    windows.pool_1d, windows.pool_2d, structures.residual, structures.siamese, structures.chunks, maxima.over_features,
    lambda rng: stacks.random_stack(rng, "signal"),
)  # fmt: skip


def _some(rng: random.Random, dtype: str) -> Plan:
    return replace(rng.choice(_SOURCES)(rng), dtype=dtype)


for _dtype in ("float32", "bfloat16", "float16"):
    family(f"dtype:{_dtype}")(partial(_some, dtype=_dtype))
