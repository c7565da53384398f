"""The operations that a plan may name: how to make their parameters, how to run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.soundness.families.pointwise import CHAINS, POINTWISE

Values = Sequence[Tensor]


@dataclass(frozen=True)
class Op:
    """One operation."""

    run: Callable[..., Tensor]
    """From its part (or None), its operands and arguments."""
    make: Callable[..., nn.Module] | None = None
    """Its part, from example operands and arguments."""


class Numbers(nn.Module):
    """A parameter of any shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))


class Wide(Numbers):
    """A parameter of which only the first and the last entries are read: so many that gradients are sketched."""

    def __init__(self, read: int) -> None:
        super().__init__(8192 + read)
        self.read = read

    def ends(self) -> tuple[Tensor, Tensor]:
        return self.weight[: self.read], self.weight[-self.read :]


class Clock(nn.Module):
    """A buffer that counts the forwards, as warm-ups and annealing do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, v: Tensor, rate: int) -> Tensor:
        self.count.add_(1)
        return v + rate * (self.count - 1)


class Level(nn.Module):
    """A buffer that is raised when the forwards of a step have run, as schedules and averages are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.zeros((), dtype=torch.float64))

    def forward(self, v: Tensor, rate: int) -> Tensor:
        return v + rate * self.level


def parameters_of(part: nn.Module) -> int:
    """How many parameters matter: those that are read."""
    return sum(2 * m.read if isinstance(m, Wide) else _own(m) for m in part.modules())


def _own(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters(recurse=False))


def _call(part: nn.Module, on: Values, *_: Any) -> Tensor:
    return part(on[0])


def _linear(on: Values, out: int, bias: bool = True) -> nn.Module:
    return nn.Linear(on[0].shape[-1], out, bias=bias)


def _conv(on: Values, out: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True, dilation: int = 1,
          groups: int = 1, mode: str = "zeros") -> nn.Module:  # fmt: skip
    cls = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[on[0].dim() - 3]
    return cls(on[0].shape[1], out, kernel, stride, padding, dilation, groups, bias, mode)


def _conv_transpose(on: Values, out: int, kernel: int, stride: int = 1, bias: bool = True) -> nn.Module:
    cls = (nn.ConvTranspose1d, nn.ConvTranspose2d)[on[0].dim() - 3]
    return cls(on[0].shape[1], out, kernel, stride, bias=bias)


def _batch_norm(on: Values, affine: bool = True, evaluated: bool = False) -> nn.Module:
    cls = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[on[0].dim() - 2]
    part = cls(on[0].shape[1], affine=affine)
    part.stays_in_eval = evaluated  # type: ignore[assignment]
    return part


def _instance_norm(on: Values, affine: bool = True) -> nn.Module:
    return (nn.InstanceNorm1d, nn.InstanceNorm2d)[on[0].dim() - 3](on[0].shape[1], affine=affine)


def _partly_biased(part: Any, on: Values, how: str, dtype: str, scale: int = 0) -> Tensor:
    """One bias under the first half of the features; constants of any dtype, here zeros, are under the others."""
    bias, width = part.weight, on[0].shape[1]
    none, kept = torch.zeros(width, dtype=getattr(torch, dtype)), torch.arange(width) < width // 2
    if how == "cat":
        held = torch.cat([bias.expand(width // 2), none[width // 2 :]])
    elif how == "stack":
        held = torch.stack([bias.expand(width // 2), none[: width // 2]], 1).reshape(-1)
    elif how == "where":
        held = torch.where(kept, bias, none)
    elif how == "masked_fill":
        held = bias.expand(width).masked_fill(~kept, none[0])
    else:  # a factor that wraps round to 0
        full = torch.full((width,), scale, dtype=getattr(torch, dtype))
        held = bias * (full * full)
    return on[0] + held.reshape(1, -1, *[1] * (on[0].dim() - 2))


def _number_like(on: Values, how: str = "entry") -> nn.Module:
    v = on[0]
    shapes = {"one": (1,), "channel": (v.shape[1], *[1] * (v.dim() - 2)), "entry": tuple(v.shape[1:])}
    return Numbers(*shapes[how])


def _parameter(part: nn.Module, on: Values, *_: Any) -> Tensor:
    return part.weight.expand(on[0].shape[0], *part.weight.shape)  # type: ignore[union-attr,operator]


def _table(on: Values, rows: int, width: int) -> nn.Module:
    return nn.Embedding(rows, width)


def _ids(v: Tensor, rows: int) -> Tensor:
    return v.abs().long() % rows


def _bag(part: nn.Module, on: Values, rows: int, width: int) -> Tensor:
    ids = _ids(on[0].flatten(1), rows)
    return F.embedding_bag(ids, part.weight, mode="max")  # type: ignore[arg-type]


def _max_pool(_: None, on: Values, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1,
              ceil: bool = False) -> Tensor:  # fmt: skip
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[on[0].dim() - 3]
    return pool(on[0], kernel, stride, padding, dilation, ceil)


def _min_pool(_: None, on: Values, kernel: int, stride: int = 1) -> Tensor:
    return -_max_pool(None, [-on[0]], kernel, stride)


def _avg_pool(_: None, on: Values, kernel: int, stride: int = 1, padding: int = 0, ceil: bool = False,
              counted: bool = True) -> Tensor:  # fmt: skip
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[on[0].dim() - 3]
    return pool(on[0], kernel, stride, padding, ceil, counted)


def _adaptive_max(_: None, on: Values, size: int) -> Tensor:
    return (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[on[0].dim() - 3](on[0], size)


def _adaptive_avg(_: None, on: Values, size: int) -> Tensor:
    return (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[on[0].dim() - 3](on[0], size)


def _pad(_: None, on: Values, left: int, right: int, mode: str = "constant") -> Tensor:
    return F.pad(on[0], (left, right), mode)


def _depth_mask(_: None, on: Values, *__: Any) -> Tensor:
    """Stochastic depth: each sample's branch is kept or dropped."""
    shape = (on[0].shape[0], *[1] * (on[0].dim() - 1))
    return on[0] * F.dropout(torch.ones(shape, dtype=on[0].dtype), 0.5, True)


def _interpolate(_: None, on: Values, factor: int, mode: str) -> Tensor:
    return F.interpolate(on[0], scale_factor=float(factor), mode=mode)


def _frozen_affine(_: None, on: Values, scale: int, shift: int) -> Tensor:
    """A normalisation whose statistics and affine numbers are constants, as in detection backbones."""
    return on[0] * float(scale) + float(shift)


def _skew(_: None, on: Values, k: int, dim: int) -> Tensor:
    """Mix neighbouring entries by integer matrices of determinant 1, [[1 + k k, k], [k, 1]]."""
    v = on[0].movedim(dim, -1)
    size = v.shape[-1]
    up = torch.eye(size, dtype=v.dtype) + k * torch.diag(torch.ones(size - 1, dtype=v.dtype), 1)
    return (v @ up @ up.mT).movedim(-1, dim)


def _over(function: Callable[..., Tensor]) -> Op:
    return Op(lambda _, on, *args: function(on[0], *args))


def _of_all(function: Callable[..., Tensor]) -> Op:
    return Op(lambda _, on, *args: function(*on, *args))


def _shifted_view(v: Tensor) -> Tensor:
    v = v * 1
    half = v[:, : v.shape[1] // 2]
    half += v[:, v.shape[1] // 2 :]
    return v


def _on_view(function: Callable[[Tensor], Tensor]) -> Op:
    """Every second feature is overwritten through a view."""

    def run(_: None, on: Values) -> Tensor:
        v = on[0] * 1
        function(v[:, 1::2])
        return v

    return Op(run)


def _wide(part: Any, on: Values, which: int, factor: bool = False) -> Tensor:
    """Its first or its last entries as summands or factors."""
    return on[0] * part.ends()[which] if factor else on[0] + part.ends()[which]


def _whole(function: Callable[..., Tensor]) -> Op:
    """Beside each entry the extremum of all of them."""
    return Op(lambda _, on, k=1: on[0] + k * function(on[0]))


def _addmm(part: nn.Module, on: Values, beta: int, alpha: int) -> Tensor:
    w = part.weight
    return torch.addmm(w[0], on[0], w[1:], beta=beta, alpha=alpha)  # type: ignore[index]


_ODD: dict[str, Op] = {
    "centred": Op(lambda _, on: on[0] - on[0].mean(1, keepdim=True)),
    "cumsum": Op(lambda _, on, dim: on[0].cumsum(dim)), "roll": Op(lambda _, on, dim: on[0].roll(1, dim)),
    "picked": Op(lambda _, on: on[0][:, torch.zeros(on[0].shape[1], dtype=torch.long)]),
    "rolled_flat": Op(lambda _, on: on[0].reshape(-1).roll(1).reshape(on[0].shape)),
    "turned_flat": Op(lambda _, on: on[0].movedim(0, -1).reshape(on[0].shape)),
    "cubed": Op(lambda _, on: on[0] ** 3),
    "mixed": Op(lambda _, on, k: on[0] + k * on[0].flip(0)),
    "outer": Op(lambda part, on: on[0] @ torch.outer(part.weight, part.weight), lambda on: Numbers(on[0].shape[1])),
    "mirrored": Op(lambda part, on: on[0] @ part.weight + on[0].flip(1) @ part.weight.t().flip(0),
                   lambda on: Numbers(on[0].shape[1], on[0].shape[1])),
    "addmm": Op(_addmm, lambda on, *_: Numbers(on[0].shape[1] + 1, 2)),
    "lerp": Op(lambda part, on: torch.lerp(on[0], on[1], part.weight), lambda on: Numbers(1)),
    "pixel_shuffle": Op(lambda _, on: F.pixel_shuffle(on[0], 2)),
    "channel_shuffle": Op(lambda _, on: F.channel_shuffle(on[0], 2)),
    "relu_on_view": _on_view(F.relu_), "abs_on_view": _on_view(Tensor.abs_), "hardtanh_on_view": _on_view(F.hardtanh_),
    "shifted_view": Op(lambda _, on: _shifted_view(on[0])),
    "matmul": Op(lambda _, on: on[0] @ on[1]),
    "unfold": Op(lambda _, on: F.unfold(on[0], 2).transpose(1, 2)),
}  # fmt: skip
"""Of ``attacks`` and ``entries``."""
_JOINT: dict[str, Op] = {
    "linear_t": Op(lambda part, on, *_: F.linear(on[0], part.weight.t()),
                   lambda on, out: nn.Linear(out, on[0].shape[-1], False)),
    "fmin": _of_all(torch.fmin), "clamp_above": _of_all(lambda a, b: a.clamp(min=b)),
    "clamp_below": _of_all(lambda a, b: a.clamp(max=b)),
    "clamp_in_place": _of_all(lambda a, b: (1 * a).clamp_(min=b)),
    "plus_max": _whole(lambda v: v.max()), "plus_min": _whole(lambda v: v.min()),
    "plus_amax": _whole(lambda v: v.amax()), "plus_amin": _whole(lambda v: v.amin()),
    "amax_kept": _over(lambda v, dim: v.amax(dim, keepdim=True)), "amin_kept": _over(lambda v, dim: v.amin(dim, keepdim=True)),
    "wide": Op(_wide, lambda on, *_: Wide(on[0].shape[1])),
    "clock": Op(lambda part, on, rate: part(on[0], rate), lambda on, *_: Clock()),
    "level": Op(lambda part, on, rate: part(on[0], rate), lambda on, *_: Level()),
}  # fmt: skip
"""Of ``sharing``, ``splits`` and ``replays``."""
OPS: dict[str, Op] = {
    **_ODD,
    **_JOINT,
    "linear": Op(_call, _linear),
    "conv": Op(_call, _conv),
    "conv_transpose": Op(_call, _conv_transpose),
    "batch_norm": Op(_call, _batch_norm),
    "layer_norm": Op(_call, lambda on, affine=True: nn.LayerNorm(on[0].shape[-1:], elementwise_affine=affine)),
    "group_norm": Op(_call, lambda on, groups=1: nn.GroupNorm(groups, on[0].shape[1])),
    "instance_norm": Op(_call, _instance_norm),
    "frozen_affine": Op(_frozen_affine),
    "parameter": Op(_parameter, lambda on, *shape: Numbers(*shape)),
    "partly_biased": Op(_partly_biased, lambda on, *_: Numbers(1)),
    "plus": Op(lambda part, on, *_: on[0] + part.weight, _number_like),
    "times": Op(lambda part, on, *_: on[0] * part.weight, _number_like),
    "times_exp": Op(lambda part, on, *_: on[0] * part.weight.exp(), _number_like),
    "clamp_by": Op(lambda part, on, *_: on[0].clamp(max=part.weight), _number_like),
    "prelu": Op(_call, lambda on, count=1: nn.PReLU(count)),
    "embedding": Op(lambda part, on, rows, width: part(_ids(on[0], rows)), _table),
    "embedding_bag_max": Op(_bag, _table),
    "max_pool": Op(_max_pool), "min_pool": Op(_min_pool), "adaptive_max": Op(_adaptive_max),
    "avg_pool": Op(_avg_pool), "adaptive_avg": Op(_adaptive_avg),
    "max_dim": _over(lambda v, dim: v.max(dim)[0]), "min_dim": _over(lambda v, dim: v.min(dim)[0]),
    "amax": _over(lambda v, dim: v.amax(dim)), "amin": _over(lambda v, dim: v.amin(dim)),
    "cummax": _over(lambda v, dim: v.cummax(dim)[0]), "cummin": _over(lambda v, dim: v.cummin(dim)[0]),
    "sort_first": _over(lambda v, dim: v.sort(dim)[0].select(dim, 0)),
    "median": _over(lambda v, dim: v.median(dim)[0]), "topk": _over(lambda v, dim: v.topk(1, dim)[0].squeeze(dim)),
    "logsumexp": _over(lambda v, dim: v.logsumexp(dim)), "norm": _over(lambda v, dim: v.norm(dim=dim)),
    "max2": _of_all(lambda a, b: torch.stack([a, b]).max(0)[0]), "maximum": _of_all(torch.maximum),
    "minimum": _of_all(torch.minimum), "fmax": _of_all(torch.fmax),
    "add": _of_all(lambda a, b, k=1: a + k * b), "mul": _of_all(lambda a, b: a * b),
    "cat": _of_all(lambda a, b, dim=1: torch.cat([a, b], dim)),
    "scale": _over(lambda v, k: k * v), "shift": _over(lambda v, k: v + k),
    "chunk": _over(lambda v, which, dim: v.chunk(2, dim)[which]), "slice": _over(lambda v, i: v[:, i : i + 1]),
    "part": _over(lambda v, dim, start, stop: v.narrow(dim, start, stop - start)),
    "flip": _over(lambda v, dim: v.flip(dim)), "transpose": _over(lambda v: v.transpose(1, 2)),
    "channel": _over(lambda v: v[:, None]), "flatten": _over(lambda v: v.flatten(1)),
    "skew": Op(_skew), "pad": Op(_pad), "interpolate": Op(_interpolate),
    "dropout": _over(lambda v: F.dropout(v, 0.5, True)), "depth_mask": Op(_depth_mask),
    "exp": _over(torch.exp), "tanh": _over(torch.tanh), "sum": _over(lambda v, dim: v.sum(dim)),
    "mean": _over(lambda v, dim: v.mean(dim)), "softmax": _over(lambda v, dim: v.softmax(dim)),
    **{name: _over(function) for name, (function, _) in (POINTWISE | CHAINS).items()},
}  # fmt: skip
