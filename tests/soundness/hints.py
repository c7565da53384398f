"""A certificate's directions as places for the oracle to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fxcheck.records.certificate import Block, Certificate

Hint = list[np.ndarray]
"""Directions that are mixed at falling sizes: one a layer, or a single one for all layers together."""


def hints_from(certificate: Certificate, named: Sequence[tuple[str, Tensor]]) -> list[Hint]:
    """The directions of a certificate as vectors over all named parameters.

    Args:
        certificate: of a certified step.
        named: the parameters, in the order of the coordinates.

    Returns:
        One hint for the layers' own directions, last layers first, since they move most; one for each part of a layer whose
        picks are mixed, beside the other layers' directions; or one for each part of a gradient that was decided as a whole.
        None for directions in a sketch or a subspace.
    """
    offsets, total = {}, 0
    for name, p in named:
        offsets[name] = (total, p.numel() // (p.shape[0] if p.dim() else 1))
        total += p.numel()
    blocks = [b for b in certificate.blocks if b.direction is not None and b.coordinates]
    if any(b.coordinates[0].startswith(("sketch[", "vector[")) for b in blocks):
        return []
    if not blocks:
        return []
    whole = [b for b in blocks if b.layer == "all layers together" or b.layer.startswith("part ")]
    if whole:
        return [[_unit(_scattered(b, {n: (start, 1) for n, (start, _) in offsets.items()}, total))] for b in whole]
    parts = [b for b in blocks if ", part " in b.layer]
    others = [b for b in blocks if ", part " not in b.layer]
    proposals = [[*others, part] for part in parts] or [others]
    return [_of_layers(held, offsets, total) for held in proposals]


def _of_layers(blocks: Sequence[Block], offsets: dict[str, tuple[int, int]], total: int) -> Hint:
    layers: dict[int, np.ndarray] = {}
    for block in blocks:
        layers[block.group] = layers.get(block.group, np.zeros(total)) + _scattered(block, offsets, total)
    return [_unit(v) for _, v in sorted(layers.items(), reverse=True)]


def _scattered(block: Block, offsets: dict[str, tuple[int, int]], total: int) -> np.ndarray:
    """A block's direction in all coordinates; ``offsets`` say where a parameter begins and how long an index of it is."""
    v, at, direction = np.zeros(total), 0, np.asarray(block.direction, float)
    for slot in block.coordinates:
        name, _, index = slot[:-1].rpartition("[")
        start, size = offsets[name]
        v[start + int(index) * size : start + (int(index) + 1) * size] += direction[at : at + size]
        at += size
    return v


def _unit(v: np.ndarray) -> np.ndarray:
    """Its largest entry 1."""
    return v / (np.abs(v).max(initial=0.0) or 1.0)
