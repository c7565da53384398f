"""Activations (theory 4.1 to 4.4): proxies, mask idioms, smooth and singular functions, constants."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.case import (
    CERTIFIED,
    NOT_CERTIFIED,
    RUNTIME,
    SMOOTH,
    UNCOVERED,
    Case,
    after,
    dense,
    image,
    of,
    sequence,
    stack,
    unbiased,
    unbiased_conv,
)  # fmt: skip

relu = torch.relu
T46 = "T4|T6"


def _assign(y: Tensor, mask: Tensor, value: float) -> Tensor:
    y = y.clone()
    y[mask] = value
    return y


def _dense(name: str, function: Callable[[Tensor], Tensor], *allowed: str, **more) -> Case:
    return Case(name, after(dense, function), allowed, **more)


def _bare(name: str, function: Callable[[Tensor], Tensor]) -> Case:
    """Without a bias the same kink must not be certified, nor overlooked."""
    return Case(name + ", no bias", after(unbiased_conv, function), NOT_CERTIFIED, image)


_RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "where(y > 0, y, 0)": lambda y: torch.where(y > 0, y, torch.zeros_like(y)),
    "where(y > 0, y, 0.0)": lambda y: torch.where(y > 0, y, 0.0),
    "where(y < 0, 0, y)": lambda y: torch.where(y < 0, 0.0, y),
    "where(0 < y, y, 0)": lambda y: torch.where(torch.zeros(()) < y, y, 0.0),
    "y * (y > 0)": lambda y: y * (y > 0),
    "(y >= 0).to(dtype) * y": lambda y: (y >= 0).to(y.dtype) * y,
    "masked_fill(y <= 0)": lambda y: y.masked_fill(y <= 0, 0.0),
    "masked_fill(y < 0)": lambda y: y.masked_fill(y < 0, 0.0),
    "masked_fill(~(y > 0))": lambda y: y.masked_fill(~(y > 0), 0.0),
    "y[y < 0] = 0": lambda y: _assign(y, y < 0, 0.0),
    "threshold(y, 0, 0)": lambda y: F.threshold(y, 0.0, 0.0),
    "clamp(min=0)": lambda y: y.clamp(min=0),
    "clamp_min(0)": lambda y: y.clamp_min(0.0),
    "nn.ReLU(inplace)": lambda y: F.relu(y, inplace=True),
    "prelu with a fixed slope": lambda y: F.prelu(y, torch.tensor([0.25], dtype=y.dtype)),
    "leaky_relu": lambda y: F.leaky_relu(y, 0.1),
    "where(y > 0, y, 0.1 * y)": lambda y: torch.where(y > 0, y, 0.1 * y),
    "where(y >= 0, y, expm1(y) / 2)": lambda y: torch.where(y >= 0, y, torch.expm1(y) / 2),
    "y * where(y < 0, 0.1, 1.0)": lambda y: y * torch.where(y < 0, 0.1, 1.0),
    "where(y > 0, y, -y)": lambda y: torch.where(y > 0, y, -y),
    "selu": F.selu,
    "elu(alpha=2)": lambda y: F.elu(y, 2.0),
    "clamp(max=1)": lambda y: y.clamp(max=1.0),
}
_SPLIT: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "maximum(y, 0)": lambda y: torch.maximum(y, torch.zeros_like(y)),
    "max(y, tensor(0))": lambda y: torch.max(y, torch.tensor(0.0)),
    "minimum(y, 1)": lambda y: torch.minimum(y, torch.ones(())),
    "sqrt of a square by abs": lambda y: (y * 2).abs() / 2,
}
_STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "where(y > 0, y, y - 1)": lambda y: torch.where(y > 0, y, y - 1),
    "where(y > 0, 1, 0)": lambda y: torch.where(y > 0, 1.0, 0.0),
    "(y > 0) as a value": lambda y: (y > 0).float(),
    "y * (y > 1)": lambda y: y * (y > 1),
    "masked_fill(y < 1, 0)": lambda y: y.masked_fill(y < 1, 0.0),
    "y[y < 0.5] = 0": lambda y: _assign(y, y < 0.5, 0.0),
    "hardshrink(0.5)": lambda y: F.hardshrink(y, 0.5),
    "threshold(y, 0.1, 20)": lambda y: F.threshold(y, 0.1, 20.0),
    "round": torch.round,
    "floor": torch.floor,
    "trunc": torch.trunc,
    "sign": torch.sign,
    "frac": torch.frac,
    "remainder": lambda y: torch.remainder(y, 2.0),
    "fmod": lambda y: torch.fmod(y, 2.0),
    "floor division": lambda y: torch.div(y, 2.0, rounding_mode="floor"),
    "heaviside": lambda y: torch.heaviside(y, torch.tensor(0.5)),
    "y * sign of another neuron": lambda y: y * torch.sign(y.flip(1)),
    "mask from another neuron": lambda y: y * (y.flip(1) > 0),
    "cast to integers and back": lambda y: y.to(torch.int64).float(),
    "copysign": lambda y: torch.copysign(torch.ones_like(y), y),
}

_INCONSISTENT: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": F.relu6, "hardtanh": F.hardtanh, "hardsigmoid": F.hardsigmoid, "hardswish": F.hardswish,
    "clamp(0, 6)": lambda y: y.clamp(0.0, 6.0), "softshrink": F.softshrink,
    "y * relu6(y + 3) / 6": lambda y: y * F.relu6(y + 3) / 6,
    "relu(y) - relu(y - 6) with clamp(max)": lambda y: relu(y.clamp(max=6.0)),
}  # fmt: skip

PROXIES = (
    *(_dense(n, f, CERTIFIED, RUNTIME, UNCOVERED) if "[" in n else _dense(n, f, CERTIFIED, theorem=T46, subdifferential="bouligand")
      for n, f in _RELUS.items()),
    *(_bare(n, f) for n, f in _RELUS.items()),
    *(_dense(n, f, CERTIFIED, UNCOVERED, theorem=T46, subdifferential="clarke") for n, f in _SPLIT.items()),
    *(_bare(n, f) for n, f in _SPLIT.items()),
    *(_dense(n, f, RUNTIME, UNCOVERED, theorem="T5|T8", codes=("FX201",)) for n, f in _INCONSISTENT.items()),
    *(_bare(n, f) for n, f in _INCONSISTENT.items()),
    *(_dense(n, f, UNCOVERED, codes=("FX4",)) for n, f in _STEPS.items()),
    _dense("maximum(y, 0.1 y)", lambda y: torch.maximum(y, 0.1 * y), CERTIFIED, RUNTIME),
    _dense("relu(y) + |y|: AD between the slopes", lambda y: relu(y) + y.abs(), CERTIFIED, UNCOVERED),
    _dense("relu(y) - 0.1 relu(-y): AD outside the slopes", lambda y: relu(y) - 0.1 * relu(-y), *NOT_CERTIFIED),
    _dense("relu(y) - relu(-y) is y", lambda y: relu(y) - relu(-y), *NOT_CERTIFIED),
    _dense("(y + |y|) - y", lambda y: y + y.abs() - y, CERTIFIED, UNCOVERED),
    _dense("y.clamp(min=0) + y.clamp(max=0)", lambda y: y.clamp(min=0) + y.clamp(max=0), *NOT_CERTIFIED),
    _dense("hardshrink(0)", lambda y: F.hardshrink(y, 0.0), UNCOVERED, codes=("FX5|FX4",)),
    _dense("where(y == 0, 0, y)", lambda y: torch.where(y == 0, 0.0, y), UNCOVERED, codes=("FX5|FX4",)),
    _dense("where(y != 0, y, 0)", lambda y: torch.where(y != 0, y, 0.0), UNCOVERED, codes=("FX5|FX4",)),
    _dense("where(y == 2, 2, y)", lambda y: torch.where(y == 2, 2.0, y), UNCOVERED, codes=("FX5|FX4",)),
    _dense("masked_fill(y == 1, 1)", lambda y: y.masked_fill(y == 1, 1.0), UNCOVERED, codes=("FX5|FX4",)),
    _dense("y * (y != 0)", lambda y: y * (y != 0), UNCOVERED, codes=("FX5|FX4",)),
    _dense("where between two layers", lambda y: torch.where(y > 0, y.flip(1), 0.0), UNCOVERED, codes=("FX4",)),
    _dense("nan_to_num", torch.nan_to_num, SMOOTH, CERTIFIED, RUNTIME, UNCOVERED),
    # Draws numbers for entries <= 0 alone: under a fixed seed, a sign moves the slopes of all entries behind it.
    _dense("rrelu in training", lambda y: F.rrelu(y, training=True), CERTIFIED, *NOT_CERTIFIED, guard=False),
    _dense("multithreshold relu(y) + relu(y - 1)", lambda y: relu(y) + relu(y - 1), CERTIFIED, RUNTIME),
    _dense("triangle by two relus", lambda y: relu(y) - 2 * relu(y - 1) + relu(y - 2), CERTIFIED, RUNTIME),
    _dense("relu of tanh", lambda y: relu(torch.tanh(y)), CERTIFIED, RUNTIME),
    _dense("relu of 1 - y^2: two directions", lambda y: relu(1 - y**2), *NOT_CERTIFIED),
    _dense("relu of cos", lambda y: relu(torch.cos(y)), *NOT_CERTIFIED),
    _dense("PReLU below 0 by detached slopes", lambda y: relu(y) + 0.25 * (y - relu(y)), CERTIFIED, RUNTIME),
)  # fmt: skip

_SMOOTH_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu, "gelu tanh": lambda y: F.gelu(y, approximate="tanh"), "silu": F.silu, "mish": F.mish, "tanh": torch.tanh,
    "sigmoid": torch.sigmoid, "softmax": lambda y: torch.softmax(y, 1), "log_softmax": lambda y: F.log_softmax(y, 1),
    "elu": F.elu, "celu(2)": lambda y: F.celu(y, 2.0), "softsign": F.softsign, "logsigmoid": F.logsigmoid,
    "tanhshrink": F.tanhshrink, "logsumexp": lambda y: torch.logsumexp(y, 1), "erf": torch.erf, "sin": torch.sin,
    "exp": torch.exp, "square": lambda y: y**2, "glu": lambda y: F.glu(torch.cat([y, y], 1)),
    "sqrt(y * y + eps)": lambda y: (y * y + 1e-6).sqrt(), "rsqrt(mean(y^2) + eps)": lambda y: y * (y.pow(2).mean(1, True) + 1e-5).rsqrt(),
    "var": lambda y: y.var(1), "sqrt(var + eps)": lambda y: (y.var(1, unbiased=False) + 1e-5).sqrt(), "layer_norm": lambda y: F.layer_norm(y, (3,)),
    "atan": torch.atan, "sinh": torch.sinh, "log(1 + y^2)": lambda y: torch.log1p(y * y), "log(1 + exp(y))": lambda y: torch.log(1 + y.exp()),
    "rsqrt of a square, smooth where it is finite": lambda y: (y * y).rsqrt(),
}  # fmt: skip
_NEARLY_SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "relu(y) ** 2": lambda y: relu(y) ** 2, "relu(y) ** 1.5": lambda y: relu(y) ** 1.5, "y * |y|": lambda y: y * y.abs(),
    "y / (1 + |y|)": lambda y: y / (1 + y.abs()), "relu(y) * y": lambda y: relu(y) * y, "where(y > 0, y, expm1(y))":
    lambda y: torch.where(y > 0, y, torch.expm1(y)), "relu(exp(y))": lambda y: relu(torch.exp(y)),
    "relu(sigmoid(y) + 1)": lambda y: relu(torch.sigmoid(y) + 1), "abs of a square": lambda y: (y * y).abs(),
}  # fmt: skip
_SINGULAR: dict[str, Callable[[Tensor], Tensor]] = {
    "sqrt(y * y)": lambda y: (y * y).sqrt(), "2-norm": lambda y: y.norm(dim=1), "linalg norm": lambda y: torch.linalg.vector_norm(y, dim=1),
    "std": lambda y: y.std(1), "sqrt(var)": lambda y: y.var(1).sqrt(), "cosine similarity": lambda y: F.cosine_similarity(y, y.flip(1)),
    "normalize": lambda y: F.normalize(y, dim=1), "cdist": lambda y: torch.cdist(y, y.flip(1)), "frobenius": lambda y: torch.linalg.norm(y),
    "normalize by hand": lambda y: y / y.norm(dim=1, keepdim=True), "hypot": lambda y: torch.hypot(y[:, 0], y[:, 1]),
    "3-norm": lambda y: y.norm(p=3, dim=1), "modulus": lambda y: torch.fft.rfft(y).abs(),
    "log of a modulus": lambda y: (torch.fft.rfft(y).abs() + 1e-3).log(),
    "short-time spectrum": lambda y: torch.stft(y, 2, 1, window=torch.ones(2), return_complex=True).abs().clamp(min=1e-3).log(),
}  # fmt: skip
_NOT_LIPSCHITZ: dict[str, Callable[[Tensor], Tensor]] = {
    "sqrt(relu(y))": lambda y: relu(y).sqrt(), "relu(y) ** 0.5": lambda y: relu(y) ** 0.5, "sqrt(|y|)": lambda y: y.abs().sqrt(),
    "relu(y) ** 0.9": lambda y: relu(y) ** 0.9,
}  # fmt: skip

SMOOTHNESS = (
    *(_dense("smooth: " + n, f, SMOOTH, layers=0) for n, f in _SMOOTH_FUNCTIONS.items()),
    *(_dense("C1: " + n, f, SMOOTH, CERTIFIED, RUNTIME, UNCOVERED) for n, f in _NEARLY_SMOOTH.items()),
    *(_dense("singular: " + n, f, RUNTIME, UNCOVERED) for n, f in _SINGULAR.items()),
    *(_dense("infinite slope: " + n, f, UNCOVERED) for n, f in _NOT_LIPSCHITZ.items()),
    _dense("sqrt(relu(y) + eps)", lambda y: (relu(y) + 1e-3).sqrt(), CERTIFIED, RUNTIME),
    _dense("softplus jumps by 2e-9 at its threshold", F.softplus, SMOOTH, UNCOVERED),
    _dense("1-norm", lambda y: y.norm(p=1, dim=1), CERTIFIED, RUNTIME, UNCOVERED),
    _dense("maximum norm", lambda y: torch.linalg.vector_norm(y, ord=float("inf"), dim=1), RUNTIME, theorem="joint"),
    _dense("GELU of an affine norm", lambda y: F.gelu(F.layer_norm(y, (3,))), SMOOTH),
    _dense("attention", lambda y: F.scaled_dot_product_attention(y[None], y[None], y[None]), SMOOTH),
    _dense("a ReLU with its kink on a circle", lambda y: relu(torch.complex(y, y.flip(1)).abs() - 1), RUNTIME, layers=2),
    _dense("complex sign", lambda y: torch.complex(y, y.flip(1)).sgn().real, UNCOVERED),
    Case("singular below a certified ReLU", of(lambda s, x: relu(s.a(x)).norm(dim=1), a=dense), NOT_CERTIFIED),
    Case("weight_norm", lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(dense()), nn.ReLU()), NOT_CERTIFIED),
)  # fmt: skip

TRAINABLE_ARGUMENTS = (
    Case("PReLU", stack(dense(), nn.PReLU()), (CERTIFIED,), theorem=T46),
    Case("PReLU per channel", stack(dense(), nn.PReLU(3)), (CERTIFIED,), theorem=T46),
    Case("PReLU without bias", stack(unbiased(), nn.PReLU()), NOT_CERTIFIED),
    Case("PReLU of which only the slope is trained", stack(dense(), nn.PReLU(3)), (SMOOTH,), wrt=lambda m: [m[1].weight], layers=0),
    Case("PReLU of data", stack(nn.PReLU(), nn.PReLU(), dense()), (RUNTIME,), wrt=lambda m: [m[0].weight, m[1].weight], layers=1),
    Case("PReLU shared by two layers", of(lambda s, x: s.p(s.b(s.p(s.a(x)))), a=dense, b=dense, p=nn.PReLU), (CERTIFIED, *NOT_CERTIFIED)),
    Case("PReLU by hand", of(lambda s, x: torch.where((y := s.layer(x)) > 0, y, s.p * y), layer=dense, p=0.25),
         (CERTIFIED, *NOT_CERTIFIED)),
    Case("relu(y) - p relu(-y): two sides on one bias", of(lambda s, x: relu(y := s.layer(x)) - s.p * relu(-y), layer=dense, p=0.25),
         NOT_CERTIFIED),
    Case("clamp with a trainable bound", of(lambda s, x: s.layer(x).clamp(min=s.p), layer=dense, p=0.0), (RUNTIME,),
         codes=("FX302|FX2",)),
    Case("maximum with a trainable bound", of(lambda s, x: torch.maximum(s.layer(x), s.p), layer=dense, p=0.0), (RUNTIME,),
         codes=("FX302",)),
    Case("where with a trainable bound", of(lambda s, x: torch.where((y := s.layer(x)) > s.p, y, s.p), layer=dense, p=0.0),
         (CERTIFIED, *NOT_CERTIFIED)),
    Case("step at a trainable bound", of(lambda s, x: (y := s.layer(x)) * (y > s.p), layer=dense, p=0.0), (UNCOVERED,)),
    Case("learned soft threshold by two relus", of(lambda s, x: relu((y := s.layer(x)) - s.t) - relu(-y - s.t), layer=dense, t=0.5),
         (CERTIFIED, *NOT_CERTIFIED)),
    Case("learned soft threshold by sign", of(lambda s, x: (y := s.layer(x)).sign() * relu(y.abs() - s.t), layer=dense, t=0.5),
         (UNCOVERED,)),
    Case("clamp by constant tensors", of(lambda s, x: s.layer(x).clamp(-torch.ones(3), torch.ones(3)), layer=dense),
         (CERTIFIED, *NOT_CERTIFIED)),
    Case("a slope that is trained and changes sign", of(lambda s, x: relu(s.layer(x)) * s.p, layer=dense, p=-1.0), (CERTIFIED,), theorem="T4"),
    Case("y * |p|: the kink is at the parameter", of(lambda s, x: s.layer(x) * s.p.abs(), layer=dense, p=[0.0] * 3),
         (CERTIFIED, UNCOVERED), subdifferential="clarke"),
    Case("relu(y * |p|): the sign is known only off 0", of(lambda s, x: relu(s.layer(x) * s.p.abs()), layer=dense, p=[0.0] * 3), NOT_CERTIFIED),
)  # fmt: skip

CONSTANTS = (
    Case("relu of the input", stack(nn.ReLU(), dense()), (SMOOTH,), layers=0),
    Case("max of the input", of(lambda s, x: s.layer(x.max(1, keepdim=True).values * x), layer=dense), (SMOOTH,), layers=0),
    Case("round and mask of the input", of(lambda s, x: s.layer(torch.round(x) * (x > 0)), layer=dense), (SMOOTH,)),
    Case("topk of the input", of(lambda s, x: s.layer(x.topk(3, 1).values), layer=dense), (SMOOTH,)),
    Case("detached data", of(lambda s, x: s.layer(x.detach()), layer=dense), (SMOOTH,)),
    Case("dead head", of(lambda s, x: (relu(s.b(x)), s.a(x))[1], a=dense, b=unbiased), (SMOOTH,), layers=0),
    Case("dead detached head", of(lambda s, x: (s.b(x).detach().round(), s.a(x))[1], a=dense, b=unbiased), (SMOOTH,)),
    Case("causal mask", of(lambda s, x: torch.softmax((y := s.layer(x)) @ y.mT + torch.full((4, 4), -1e9).triu(1), -1) @ y, layer=dense),
         (SMOOTH,), sequence),
    Case("masked scores", of(lambda s, x: ((y := s.layer(x)) @ y.mT).masked_fill(torch.ones(4, 4).tril() == 0, float("-inf")).softmax(-1),
                             layer=dense), (SMOOTH,), sequence),
    Case("frozen backbone", of(lambda s, x: s.b(relu(s.a(x))), a=unbiased, b=dense), (SMOOTH,), wrt=lambda m: list(m.b.parameters())),
    Case("prediction beside the logits", of(lambda s, x: ((y := s.layer(x)), y.argmax(1)), layer=dense), (SMOOTH,)),
)  # fmt: skip

CASES = PROXIES + SMOOTHNESS + TRAINABLE_ARGUMENTS + CONSTANTS
