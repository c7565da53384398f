"""What capture hides and where AD is not the derivative (theory 4.3; architecture: what capture hides)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.zoo.case import (
    CERTIFIED,
    ERROR,
    NOT_CERTIFIED,
    RUNTIME,
    SMOOTH,
    UNCOVERED,
    Case,
    Of,
    after,
    dense,
    of,
    tokens,
    unbiased,
)  # fmt: skip

relu = torch.relu
T46 = "T4|T6"


class Surrogate(torch.autograd.Function):
    """A ReLU whose backward is that of a sigmoid."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * torch.sigmoid(x)


class Reversal(torch.autograd.Function):
    """The identity, with the gradient's sign reversed."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -grad


def _no_grad(s: Of, x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = s.layer(x).mean()
    return s.layer(x) * scale


def _no_grad_unused(s: Of, x: Tensor) -> Tensor:
    with torch.no_grad():
        s.layer(x).mean().round()
    return s.layer(x)


def _no_grad_constant(s: Of, x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = torch.round(x).mean()
    return s.layer(x) * scale


def _no_grad_kink_inside(s: Of, x: Tensor) -> Tensor:
    with torch.no_grad():
        frozen = relu(s.a(x))
    return s.b(frozen)


def _no_grad_max_inside(s: Of, x: Tensor) -> Tensor:
    with torch.no_grad():
        frozen = F.max_pool1d(s.a(x), 2, 1)
    return F.pad(frozen, (0, 1)) + s.b(x)


def _no_grad_mask_inside(s: Of, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = s.a(x)
        frozen = torch.where(y > 0, y, 0.0)
    return frozen * s.b(x)


def _enabled_inside_no_grad(s: Of, x: Tensor) -> Tensor:
    with torch.no_grad(), torch.enable_grad():
        y = relu(s.layer(x))
    return y


def _autocast(s: Of, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return relu(s.layer(x))


def _view_relu(s: Of, x: Tensor) -> Tensor:
    y = s.layer(x)
    y[:, :2].relu_()
    return y


def _chunk_relu(s: Of, x: Tensor) -> Tensor:
    y = s.layer(x) + 0
    left, _ = y.tensor_split(2, dim=1)
    left.relu_()
    return y


def _used_later(s: Of, x: Tensor) -> Tensor:
    y = s.layer(x)
    z = y
    y.relu_()
    return z


def _view_of_before(s: Of, x: Tensor) -> Tensor:
    y = s.layer(x)
    view = y.view(-1)
    y.relu_()
    return view * 2


def _both_signs(s: Of, x: Tensor) -> Tensor:
    y = s.layer(x)
    minus = -y
    y.relu_()
    minus.relu_()
    return y - minus


def _read_before(s: Of, x: Tensor) -> Tensor:
    y = s.layer(x)
    read = y + 1
    y.relu_()
    return read


def _filled(s: Of, x: Tensor) -> Tensor:
    out = torch.zeros(4, 3, dtype=x.dtype)
    out[:, 1:] = relu(s.layer(x))[:, 1:]
    return out


def _overwritten(s: Of, x: Tensor) -> Tensor:
    y = relu(s.layer(x))
    y[:, :] = s.other(x)
    return y


def _added_in_place(s: Of, x: Tensor) -> Tensor:
    y = s.layer(x)
    y += s.other(x)
    y.sub_(2 * s.other(x))
    return y.relu_()


def _bias_cancelled_in_place(s: Of, x: Tensor) -> Tensor:
    y = s.layer(x) + s.b
    y -= s.b
    return relu(y)


def _negated_view(s: Of, x: Tensor) -> Tensor:
    y = s.layer(x) + 0
    y[:2].neg_()
    return relu(y)


def _straight_through(s: Of, x: Tensor) -> Tensor:
    y = s.layer(x)
    return y + (torch.round(y) - y).detach()


def _tensor_hook(s: Of, x: Tensor) -> Tensor:
    y = s.layer(x)
    if y.requires_grad:
        y.register_hook(lambda g: 2 * g)
    return torch.tanh(y)


def _hooked(kind: str) -> nn.Module:
    model = nn.Sequential(dense(), nn.Tanh())
    if kind == "module":
        model[0].register_full_backward_hook(lambda m, gi, go: tuple(2 * g if g is not None else g for g in gi))
    elif kind == "module before":
        model[0].register_full_backward_pre_hook(lambda m, go: tuple(2 * g for g in go))
    else:
        model[0].weight.register_hook(lambda g: 2 * g)
    return model


def _forward_hooked() -> nn.Module:
    model = nn.Sequential(unbiased(), nn.Tanh())
    model.register_forward_hook(lambda m, args, out: relu(out))
    return model


def _spectral(old: bool) -> nn.Module:
    norm = nn.utils.spectral_norm if old else nn.utils.parametrizations.spectral_norm
    return nn.Sequential(norm(dense()), nn.Tanh())

GRADIENTS = (
    Case("detach", after(dense, lambda y: y * y.detach()), (UNCOVERED,), codes=("FX501",)),
    Case("detach under a ReLU", after(dense, lambda y: relu(y) * y.detach()), (UNCOVERED,), codes=("FX501",)),
    Case("detach in a mask", after(dense, lambda y: y * (y.detach() > 0)), (CERTIFIED, UNCOVERED)),
    Case("detached maximum inside a stable softmax", after(dense, lambda y: torch.softmax(y - y.max(1, keepdim=True).values.detach(), 1)),
         (UNCOVERED,), codes=("FX5",)),
    Case("no_grad value reaches the output", of(_no_grad, layer=dense), (UNCOVERED,), codes=("FX506|FX501",)),
    Case("no_grad value reaches nothing", of(_no_grad_unused, layer=dense), (SMOOTH,)),
    Case("no_grad on constants", of(_no_grad_constant, layer=dense), (SMOOTH,)),
    Case("ReLU inside no_grad", of(_no_grad_kink_inside, a=dense, b=dense), (UNCOVERED,), codes=("FX506|FX501",)),
    Case("frozen ReLU inside no_grad", of(_no_grad_kink_inside, a=dense, b=dense), (SMOOTH,), wrt=lambda m: list(m.b.parameters())),
    Case("max inside no_grad", of(_no_grad_max_inside, a=dense, b=dense), (UNCOVERED,), codes=("FX5",)),
    Case("mask idiom inside no_grad", of(_no_grad_mask_inside, a=dense, b=dense), (UNCOVERED,), codes=("FX5",)),
    Case("enable_grad inside no_grad", of(_enabled_inside_no_grad, layer=dense), (CERTIFIED, UNCOVERED)),
    Case(".data", after(dense, lambda y: y * y.data), (UNCOVERED,), codes=("FX5",)),
    Case("parameter's .data", of(lambda s, x: s.layer(x) * s.layer.weight.data.sum(), layer=dense), (UNCOVERED,), codes=("FX5",)),
    Case(".item()", after(dense, lambda y: y * y.sum().item()), (UNCOVERED, ERROR)),
    Case("Python branch on a value", after(dense, lambda y: y if y.sum() > 0 else 2 * y), (UNCOVERED, ERROR)),
    Case("straight-through estimator", of(_straight_through, layer=dense), (UNCOVERED,), codes=("FX5|FX4",)),
    Case("surrogate gradient", after(dense, Surrogate.apply), (UNCOVERED,), codes=("FX502",)),
    Case("gradient reversal", after(dense, Reversal.apply), (UNCOVERED,), codes=("FX502",)),
    Case("custom function on data only", of(lambda s, x: s.layer(Surrogate.apply(x)), layer=dense), (SMOOTH, UNCOVERED)),
    Case("hard Gumbel softmax", after(dense, lambda y: F.gumbel_softmax(y, hard=True)), (UNCOVERED,)),
    Case("soft Gumbel softmax", after(dense, lambda y: F.gumbel_softmax(y)), (SMOOTH,)),
    Case("spectral_norm by parametrization", lambda: _spectral(False), (UNCOVERED,)),
    Case("spectral_norm, old", lambda: _spectral(True), (UNCOVERED, ERROR)),
    Case("embedding with padding_idx", lambda: nn.Embedding(5, 3, padding_idx=0), (UNCOVERED,), tokens, codes=("FX503",)),
    Case("embedding with max_norm", lambda: nn.Embedding(5, 3, max_norm=1.0), (UNCOVERED, ERROR), tokens),
    Case("embedding scaled by frequency", lambda: nn.Embedding(5, 3, scale_grad_by_freq=True), (UNCOVERED,), tokens, codes=("FX503",)),
    Case("embedding", lambda: nn.Embedding(5, 3), (SMOOTH,), tokens),
    Case("backward hook on a module", lambda: _hooked("module"), (UNCOVERED,), codes=("FX505",)),
    Case("backward pre-hook on a module", lambda: _hooked("module before"), (UNCOVERED,), codes=("FX505",)),
    Case("hook on a parameter", lambda: _hooked("parameter"), (UNCOVERED,), codes=("FX505",)),
    Case("hook on a tensor", of(_tensor_hook, layer=dense), (UNCOVERED, ERROR)),
    Case("forward hook with a ReLU", _forward_hooked, NOT_CERTIFIED),
)  # fmt: skip

CAPTURE = (
    Case("autocast region", of(_autocast, layer=dense), (CERTIFIED,), theorem="T4"),
    Case("autocast region without bias", of(_autocast, layer=unbiased), (RUNTIME,), theorem="T5|T8"),
    Case("checkpointed block", of(lambda s, x: checkpoint(lambda v: relu(s.layer(v)), x, use_reentrant=False), layer=dense), (CERTIFIED,),
         theorem="T4"),
    Case("checkpointed block without bias", of(lambda s, x: checkpoint(lambda v: relu(s.layer(v)), x, use_reentrant=False), layer=unbiased),
         (RUNTIME,), theorem="T5|T8"),
    Case("reentrant checkpoint", of(lambda s, x: checkpoint(lambda v: relu(s.layer(v)), x, use_reentrant=True), layer=dense),
         (CERTIFIED, UNCOVERED, ERROR)),
    Case("relu_ on a view", of(_view_relu, layer=dense), (CERTIFIED,), theorem=T46, layers=1),
    Case("relu_ on a view, no bias", of(_view_relu, layer=unbiased), NOT_CERTIFIED),
    Case("relu_ on a chunk", of(_chunk_relu, layer=dense), (CERTIFIED,), theorem=T46, layers=1),
    Case("relu_ on a chunk, no bias", of(_chunk_relu, layer=unbiased), NOT_CERTIFIED),
    Case("mutated value used by its old name", of(_used_later, layer=dense), (CERTIFIED,), theorem="T4", layers=1),
    Case("mutated value used by its old name, no bias", of(_used_later, layer=unbiased), (RUNTIME,), theorem="T5|T8"),
    Case("a view from before the mutation", of(_view_of_before, layer=unbiased), NOT_CERTIFIED),
    Case("both signs in place", of(_both_signs, layer=dense), NOT_CERTIFIED),
    Case("a value read before the mutation", of(_read_before, layer=unbiased), (SMOOTH,)),
    Case("slices of a buffer filled in place", of(_filled, layer=dense), (CERTIFIED,), theorem=T46),
    Case("slices of a buffer filled in place, no bias", of(_filled, layer=unbiased), NOT_CERTIFIED),
    Case("a ReLU whose output is overwritten", of(_overwritten, layer=unbiased, other=dense), (SMOOTH, *NOT_CERTIFIED)),
    Case("biases added and taken away in place", of(_added_in_place, layer=unbiased, other=dense), (CERTIFIED, RUNTIME)),
    Case("a bias cancelled in place", of(_bias_cancelled_in_place, layer=unbiased, b=[0.0] * 3), NOT_CERTIFIED),
    Case("half of the minibatch negated through a view", of(_negated_view, layer=dense), NOT_CERTIFIED),
    Case("module list called through a dict output", of(lambda s, x: {"out": relu(s.layer(x))}, layer=dense), (CERTIFIED,), theorem="T4"),
)  # fmt: skip

CASES = GRADIENTS + CAPTURE
