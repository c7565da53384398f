"""What AD sends back through the points of a forward: the factors in D(c) - D_AD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from fxcheck.ops.evaluate import apply_overload
from fxcheck.records.graph import Ref
from fxcheck.runtime.operands import Operand
from fxcheck.runtime.sites import NEITHER, Member, Site


def adjoints_of(
    results: Mapping[int, GradientEdge], outputs: Sequence[Tensor], cotangents: Sequence[Tensor | None]
) -> dict[int, Tensor]:
    """d loss / d output of layers, under AD's choices.

    Args:
        results: by check, the layer's output in the forward's graph, which lives.
        outputs: what the forward returned.
        cotangents: d loss / d output for each of them; None where no gradient arrived.

    Returns:
        By check, a tensor of the output's shape; a layer that no gradient reaches has none.
    """
    reached = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if c is not None and o.requires_grad]
    edges = list(dict.fromkeys(results.values()))
    if not edges or not reached:
        return {}
    found = torch.autograd.grad(
        [o for o, _ in reached], edges, [c for _, c in reached], retain_graph=True, allow_unused=True
    )  # fmt: skip
    arrived = dict(zip(edges, found, strict=True))
    return {check: whole for check, edge in results.items() if (whole := arrived[edge]) is not None}


def at_points(site: Site, whole: Tensor | None) -> np.ndarray:
    """The adjoints at a site's points: (points,) float64."""
    if whole is None:
        return np.zeros(len(site.points))
    outputs = torch.tensor([p.output for p in site.points], dtype=torch.int64)
    return np.asarray(whole.reshape(-1).cpu()[outputs].double().numpy())


def shares_of(
    site: Site, result: Tensor, edge: GradientEdge, whole: Tensor, operands: Sequence[Operand]
) -> dict[Member, float]:
    """What AD sends from the points of a max that splits to each of their members.

    Args:
        site: the max.
        result: its output's values.
        edge: its output in the graph.
        whole: d loss / d output.
        operands: what it reads.

    Returns:
        The backward pass of that operation alone; empty for a site without a mixture.
    """
    if not site.is_max or all(p.ad != NEITHER for p in site.points):
        return {}
    outputs = torch.tensor([p.output for p in site.points], device=whole.device)
    if len(operands) == 2:
        return _shares_of_two(site, result.reshape(-1)[outputs], whole.reshape(-1)[outputs])
    seed = torch.zeros_like(whole).reshape(-1)
    seed[outputs] = whole.reshape(-1)[outputs]
    assert operands[0].edge is not None
    (sent,) = torch.autograd.grad([edge], [operands[0].edge], [seed.reshape(whole.shape)], retain_graph=True)
    flat = sent.double().reshape(-1).cpu()
    shares = {(0, e): float(flat[e]) for _, e in site.members}
    for twin, entry in site.twins.items():
        if (0, entry) in shares and (0, twin) not in shares:
            shares[0, entry] += float(flat[twin])
    return shares


def _shares_of_two(site: Site, tied: Tensor, adjoint: Tensor) -> dict[Member, float]:
    """Of an operation on two tensors, entry by entry: it is run again on the tied values, which are those of its result."""
    check = site.check
    names = [n for n, v in check.arguments.items() if isinstance(v, Ref)]
    values = [tied.detach().clone().requires_grad_() for _ in names]
    again = apply_overload(check.operator, {**check.arguments, **dict(zip(names, values, strict=True))}, tied)
    sent = torch.autograd.grad([again], values, [adjoint])
    outputs = [p.output for p in site.points]
    return {(k, o): s for k, shares in enumerate(sent) for o, s in zip(outputs, shares.tolist(), strict=True)}
