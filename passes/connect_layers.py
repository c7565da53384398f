"""Look: which layers feed which, so that a report can be drawn as the network it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fxcheck.records.graph import Graph
from fxcheck.records.report import LayerReport


def connect_layers(graph: Graph, layers: Sequence[LayerReport]) -> tuple[LayerReport, ...]:
    """The layers with ``inputs`` filled in: the nearest layers before each one, through smooth operations only.

    Args:
        graph: the captured model.
        layers: its layers, as the classification found them; ``index`` counts from 0 in this order.
    """
    layer_of = {name: layer.index for layer in layers for name in layer.members}
    nearest: list[int] = []
    """For each node, a mask of the layers whose output reaches it without passing another layer."""
    read: dict[int, int] = dict.fromkeys(range(len(layers)), 0)
    for node, sources in zip(graph.nodes, graph.inputs_of, strict=True):
        reaching = 0
        for source in sources:
            reaching |= nearest[source]
        own = layer_of.get(node.name)
        if own is None:
            nearest.append(reaching)
        else:
            read[own] |= reaching & ~(1 << own)
            nearest.append(1 << own)
    return tuple(replace(layer, inputs=_bits(read[layer.index])) for layer in layers)


def _bits(mask: int) -> tuple[int, ...]:
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)
