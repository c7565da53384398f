"""Whether an operator that is analytic but at some points was run at one of them (theory 4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fxcheck.records.graph import Ref

_NORMS = ("linalg_vector_norm", "norm", "frobenius_norm", "linalg_norm", "linalg_matrix_norm", "pairwise_distance",
          "cdist", "dist", "pdist", "norm_except_dim", "hypot")  # fmt: skip
_SPREADS = ("std", "std_mean", "var")


def reaches_singular_point(
    operator: str, arguments: Mapping[str, Any], operands: Mapping[int, Tensor], result: Tensor
) -> bool | None:
    """Look at one call.

    Args:
        operator: overload, as ``aten.sqrt.default``.
        arguments: by schema name, tensors as ``Ref``.
        operands: the tensors by graph node.
        result: what the call returned.

    Returns:
        True at a point where it is not differentiable, False off it, None where no rule says.
    """
    base = operator.split(".")[1]
    if base in _NORMS:
        return _norm(base, arguments, operands, result)
    if base in ("_weight_norm", "_weight_norm_interface"):
        direction = operands[_id(arguments["v"])]
        return bool((torch.norm_except_dim(direction, 2, arguments.get("dim", 0)) == 0).any())
    if base == "cosine_similarity":
        return _angle(arguments, operands, result.dtype)
    first = operands.get(_id(arguments.get("self")))
    if first is None:
        return None
    if base in ("sqrt", "pow"):
        return bool((first <= 0).any())
    if base in ("abs", "absolute"):  # of complex numbers
        return bool((result == 0).any())
    if base in ("acos", "asin", "arccos", "arcsin"):
        return bool((first.abs() >= 1).any())
    if base in _SPREADS:
        return _is_level(first, arguments.get("dim"))
    return None


def _is_level(x: Tensor, dim: Any) -> bool:
    """Some slice has equal entries; the deviation that is computed of them is often not 0."""
    dims = (dim,) if isinstance(dim, int) else tuple(dim or range(x.dim()))
    return x.numel() > 0 and bool((x.amax(dims) == x.amin(dims)).any())


def _norm(base: str, arguments: Mapping[str, Any], operands: Mapping[int, Tensor], result: Tensor) -> bool | None:
    order = arguments.get("ord", arguments.get("p", arguments.get("pow", 2.0)))
    order = 2.0 if order is None or order == "fro" else order
    if not isinstance(order, (int, float)):
        return None
    if base == "cdist" and order == 2:
        result = _distances(*(operands[_id(arguments[n])] for n in ("x1", "x2")))
    if order > 1:
        return bool((result == 0).any()) or (order != 2 and _any_zero(operands))
    names = [n for n in ("self", "x1", "v") if isinstance(arguments.get(n), Ref)]
    if order != 1 or base not in ("linalg_vector_norm", "norm", "norm_except_dim") or not names:
        return None
    return _any_zero({0: operands[_id(arguments[names[0]])]})


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """By differences: by products of matrices, a row may be computed to be at some distance from its equal."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _angle(arguments: Mapping[str, Any], operands: Mapping[int, Tensor], dtype: torch.dtype) -> bool:
    """Where a vector is no longer than eps, backward divides by another number than the forward."""
    dim, eps = arguments.get("dim", 1), arguments.get("eps", 1e-8)
    pair = torch.broadcast_tensors(*(operands[_id(arguments[n])].to(dtype) for n in ("x1", "x2")))
    return any(bool((torch.linalg.vector_norm(v, dim=dim) <= eps).any()) for v in pair)


def _any_zero(operands: Mapping[int, Tensor]) -> bool:
    return any(bool((v == 0).any()) for v in operands.values() if v.is_floating_point())


def _id(value: Any) -> int:
    return value.id if isinstance(value, Ref) else -1
