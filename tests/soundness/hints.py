"""A certificate's directions as places for the oracle to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fxcheck.records.certificate import Certificate


def hints_from(certificate: Certificate, named: Sequence[tuple[str, Tensor]]) -> list[np.ndarray]:
    """The directions of a certificate as vectors over all named parameters.

    Args:
        certificate: of a certified step.
        named: the parameters, in the order of the coordinates.

    Returns:
        One vector a layer, its largest entry 1; last layers first, since they move most.
    """
    offsets, total = {}, 0
    for name, p in named:
        offsets[name] = (total, p.numel() // (p.shape[0] if p.dim() else 1))
        total += p.numel()
    layers: dict[int, np.ndarray] = {}
    for block in certificate.blocks:
        if block.direction is None:
            continue
        v, at = layers.setdefault(block.group, np.zeros(total)), 0
        direction = np.asarray(block.direction, float)
        for slot in block.coordinates:
            name, _, index = slot[:-1].rpartition("[")
            start, size = offsets[name]
            v[start + int(index) * size : start + (int(index) + 1) * size] += direction[at : at + size]
            at += size
    return [v / (np.abs(v).max() or 1.0) for _, v in sorted(layers.items(), reverse=True)]
