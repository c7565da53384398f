"""Models built to be certified wrongly: each test first shows that AD is wrong, then asks for a sound verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxcheck.api import analyze, instrument
from tests.soundness.oracle import Verdict, judge

CLAIMS = ("certified", "smooth")


class Model(nn.Module):
    """A forward function over named submodules, parameters and buffers."""

    def __init__(self, function: Callable[..., Tensor], **members: object) -> None:
        super().__init__()
        self.function = function
        for name, member in members.items():
            if isinstance(member, Tensor) and not isinstance(member, nn.Parameter):
                self.register_buffer(name, member)
            else:
                setattr(self, name, member)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)


def _word_on(model: nn.Module, inputs: tuple[Tensor, ...], weights: Tensor) -> Verdict:
    """The oracle's, on the gradient of a weighted sum of the outputs."""
    return judge(list(model.parameters()), lambda: (model(*inputs) * weights).sum()).verdict


# Gradient that autograd drops or changes, and the captured graph does not show ------------------


def _frozen_for_one_call(s: Model, x: Tensor) -> Tensor:
    real = torch.tanh(s.l(x))
    s.l.requires_grad_(False)
    fake = torch.tanh(s.l(x + 1))
    s.l.requires_grad_(True)
    return real - fake


def _inference_mode(s: Model, x: Tensor) -> Tensor:
    with torch.inference_mode():
        scale = torch.tanh(s.l(x))
    return scale.clone() * s.k(x)


def _hook_on_grad_fn(s: Model, x: Tensor) -> Tensor:
    y = s.l(x)
    if y.grad_fn is not None:
        y.grad_fn.register_prehook(lambda grads: tuple(g * 2 for g in grads))
    return y


def _running_mean_after_update(s: Model, x: Tensor) -> Tensor:
    return s.bn(s.l(x)) * (1 + s.bn.running_mean)


def _native_mean_after_update(s: Model, x: Tensor) -> Tensor:
    mean, variance = s.bn.running_mean, s.bn.running_var
    return torch.native_batch_norm(s.l(x), None, None, mean, variance, True, 0.5, 1e-5)[0] * (1 + mean)


def _second_pass_with_fresh_statistics(s: Model, x: Tensor) -> Tensor:
    y = s.bn(s.l(x))
    return y * F.batch_norm(s.k(x), s.bn.running_mean, s.bn.running_var, training=False)


def _foreach_average(s: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        torch._foreach_lerp_([s.mean], [s.l.bias], 0.5)
    return s.mean * s.l(x)


def _split_into_two(s: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        parts = [torch.empty(4, n, dtype=x.dtype) for n in (1, 2)]
        torch.split_with_sizes_copy(s.l(x), [1, 2], 1, out=parts)
    return parts[0] * s.k(x)


@torch.library.custom_op("sceptic::multiply", mutates_args={"tensors"})
def _multiply(tensors: list[Tensor], factor: Tensor) -> None:
    for tensor in tensors:
        tensor.mul_(factor)


@_multiply.register_fake
def _(tensors: list[Tensor], factor: Tensor) -> None:
    return None


def _custom_multiply(s: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        _multiply([s.mean], s.l.bias)
    return s.mean * s.l(x)


def _bank(s: Model, x: Tensor) -> Tensor:
    s.mean.data.copy_(s.l(x).mean(0))
    return s.mean * s.k(x)


def _rows_of_a_detached_alias(s: Model, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    z.detach()[1:] = s.l(x)[1:]
    return z * s.k(x)


def _chunk_in_place(s: Model, x: Tensor) -> Tensor:
    y = s.l(x) * 1
    torch.unsafe_chunk(y, 1, 1)[0].mul_(2)
    return y


def _overwritten(s: Model, x: Tensor) -> Tensor:
    y = s.l(x) * 1
    y.data.copy_(x)
    return y + s.k(x)


def _zeroed_without_gradients(s: Model, x: Tensor) -> Tensor:
    y = s.l(x) * 1
    with torch.no_grad():
        y[:2] = 0
    return y + s.k(x)


def _out_without_gradients(s: Model, x: Tensor) -> Tensor:
    y = s.l(x) * 1
    with torch.no_grad():
        torch.sin(x, out=y)
    return y + s.k(x)


def _factor_zeroed_after_use(s: Model, x: Tensor) -> Tensor:
    h = torch.tanh(s.k(x))
    y = h * s.l(x)
    h[:2].data.zero_()
    return y


def _result_overwritten(s: Model, x: Tensor) -> Tensor:
    h = torch.relu(s.l(x))
    y = h + s.k(x)
    h.data.fill_(1)
    return y


def _moved_after_use(s: Model, x: Tensor) -> Tensor:
    y = s.l(x) * s.mean
    torch._foreach_mul_([s.mean.data], 0.5)
    return y


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class _Scaled(torch.autograd.Function):
    """No argument needs a gradient, and what the forward reads of a module gets none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Linear) -> Tensor:
        return x * layer.bias

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        return None, None


def _reversed_unless_captured(s: Model, x: Tensor) -> Tensor:
    y = s.l(x)
    return y if torch.compiler.is_compiling() or torch.compiler.is_exporting() else _Reversed.apply(y)


def _hook_on_gradient_edge(s: Model, x: Tensor) -> Tensor:
    y = s.l(x)
    if y.requires_grad:
        torch.autograd.graph.get_gradient_edge(y).node.register_prehook(lambda grads: tuple(g * 2 for g in grads))
    return y


def _map_of(s: Model, x: Tensor) -> Tensor:
    return s.l(x).reshape(1, 3, 2, 2)


def _tokens(maps: Tensor) -> Tensor:
    return F.layer_norm(maps.flatten(2).transpose(1, 2), (3,))


def _map_of_tokens(s: Model, x: Tensor) -> Tensor:
    return s.l(x)[None].transpose(1, 2).reshape(1, 3, 2, 2)


def _normalised(maps: Tensor) -> Tensor:
    return F.batch_norm(maps, None, None, training=True)


def _by_fixed_statistics(maps: Tensor) -> Tensor:
    return F.batch_norm(maps, torch.zeros(3, dtype=maps.dtype), torch.ones(3, dtype=maps.dtype))


def _channels_last(s: Model, x: Tensor) -> Tensor:
    return F.instance_norm(_map_of(s, x)).permute(0, 2, 3, 1).contiguous()


def _boxes_at_the_border(s: Model, x: Tensor) -> Tensor:
    operators = pytest.importorskip("torchvision.ops")
    boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]], dtype=x.dtype)
    return operators.ps_roi_pool(s.l(x)[None, None], boxes, 1)


def _with_mean(s: Model, x: Tensor) -> Tensor:
    value, mean, _ = torch.native_layer_norm(s.l(x), [3], None, None, 1e-5)
    return value + mean


def _batch_deviation(s: Model, x: Tensor) -> Tensor:
    value, _, inverse = torch.native_batch_norm(s.l(x), None, None, None, None, True, 0.1, 1e-5)
    return value * inverse


def _attention_with_sum(s: Model, x: Tensor) -> Tensor:
    y = s.l(x)[None, None]
    value, logarithm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(y, y, y)
    return value * logarithm[..., None]


HIDDEN = {
    "Function that reads a parameter of a module": (lambda s, x: s.l(x) + _Scaled.apply(x, s.l), {}),
    "Function inside such a Function's module": (lambda s, x: _Scaled.apply(x, s.l) * _Scaled.apply(s.l(x), s.l), {}),
    "branch for captures": (_reversed_unless_captured, {}),
    "hook on a gradient edge": (_hook_on_gradient_edge, {}),
    "antialiasing to a column": (lambda s, x: F.interpolate(s.l(x)[None, None], (2, 1), mode="bilinear", antialias=True), {}),
    "boxes that reach the border": (_boxes_at_the_border, {}),
    "as_strided past a view": (lambda s, x: s.l(x)[1:2].as_strided((4, 3), (3, 1), 0), {}),
    "as_strided across the gaps of a view": (lambda s, x: s.l(x)[:, :2].as_strided((4, 3), (3, 1)), {}),
    "as_strided_scatter": (lambda s, x: torch.as_strided_scatter(s.l(x), x[:1], (1, 3), (3, 1), 0), {}),
    "mean of native_layer_norm": (_with_mean, {}),
    "deviation of native_batch_norm": (_batch_deviation, {}),
    "sum of flash attention": (_attention_with_sum, {}),
    "buffer of log_sigmoid_forward": (lambda s, x: torch.ops.aten.log_sigmoid_forward(s.l(x))[1], {}),
    "batch_norm of one map, into tokens": (lambda s, x: _tokens(_normalised(_map_of(s, x))), {}),
    "fixed batch_norm of one map, into tokens": (lambda s, x: _tokens(_by_fixed_statistics(_map_of(s, x))), {}),
    "batch_norm of one map of tokens": (lambda s, x: _normalised(_map_of_tokens(s, x)).flatten(1), {}),
    "instance_norm of one map, channels last": (_channels_last, {}),
    "requires_grad_(False) around one call": (_frozen_for_one_call, {}),
    "inference_mode region": (_inference_mode, {"k": 1}),
    "hook on grad_fn": (_hook_on_grad_fn, {}),
    "running_mean read after the train-mode update": (_running_mean_after_update, {"bn": 1}),
    "running_mean read after native_batch_norm": (_native_mean_after_update, {"bn": 1}),
    "write into a list, of an average": (_foreach_average, {"mean": 1}),
    "write into a list, by out": (_split_into_two, {"k": 1}),
    "write into a list, by a custom operator": (_custom_multiply, {"mean": 1}),
    "write through .data into a buffer": (_bank, {"mean": 1, "k": 1}),
    "write through a detached alias": (_rows_of_a_detached_alias, {"k": 1}),
    "write into a view that autograd does not know": (_chunk_in_place, {}),
    "constant written over an activation through .data": (_overwritten, {"k": 1}),
    "constant written over an activation without gradients": (_zeroed_without_gradients, {"k": 1}),
    "out without gradients": (_out_without_gradients, {"k": 1}),
    "factor written over after its use through .data": (_factor_zeroed_after_use, {"k": 1}),
    "result written over after its use through .data": (_result_overwritten, {"k": 1}),
    "buffer in a list written over after its use": (_moved_after_use, {"mean": 1}),
    "eval batch_norm on statistics that this forward updated": (_second_pass_with_fresh_statistics, {"bn": 1, "k": 1}),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_gradient_that_autograd_hides_or_changes_is_not_claimed(name: str) -> None:
    torch.manual_seed(0)
    function, members = HIDDEN[name]
    made: dict[str, object] = {"l": nn.Linear(3, 3)}
    if "mean" in members:
        made["mean"] = torch.ones(3)
    if "k" in members:
        made["k"] = nn.Linear(3, 3)
    if "bn" in members:
        made["bn"] = nn.BatchNorm1d(3, momentum=0.5)
    model = Model(function, **made).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    weights = torch.randn_like(model(x))
    state = {n: b.clone() for n, b in model.named_buffers()}

    class Fresh(nn.Module):
        """Every call starts from the same statistics."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            for n, b in self.inner.named_buffers():
                b.data.copy_(state[n])
            return self.inner(x)

    fresh = Fresh()
    assert _word_on(fresh, (x,), weights) is Verdict.NOT_AD
    assert analyze(model, (x,)).verdict not in CLAIMS


def test_a_write_through_data_that_no_gradient_needs_is_no_finding() -> None:
    def function(s: Model, x: Tensor) -> Tensor:
        y = torch.relu(s.l(x) - s.mean)
        s.mean.data.lerp_(y.data.mean(0), 0.1)
        return y

    assert analyze(Model(function, l=nn.Linear(3, 3), mean=torch.zeros(3)), (torch.randn(4, 3),)).verdict in CLAIMS


def test_relus_written_into_a_list_are_seen() -> None:
    """relu(w x) - relu(-w x) = w x, of which AD returns 0 at w = 0."""
    def function(s: Model, x: Tensor) -> Tensor:
        y, z = s.w * x, -s.w * x
        torch._foreach_clamp_min_([y, z], 0.0)
        return y - z

    model, x = Model(function, w=nn.Parameter(torch.zeros(1))), torch.ones(2, 1)
    model(x).sum().backward()
    assert model.w.grad.item() == 0
    assert analyze(model, (x,)).verdict not in CLAIMS


def test_parameters_that_share_memory_are_not_certified_one_by_one() -> None:
    w = torch.zeros(2, 1, dtype=torch.float64)
    model = Model(lambda s, x: torch.relu(x + s.a) - torch.relu(x - s.b), a=nn.Parameter(w[:1]), b=nn.Parameter(w[:1]))
    x = torch.zeros(1, 1, dtype=torch.float64)
    same = w[:1].clone().requires_grad_()
    assert judge([same], lambda: (torch.relu(x + same) - torch.relu(x - same)).sum()).verdict is Verdict.OUTSIDE
    assert analyze(model, (x,)).verdict not in CLAIMS
    checked = instrument(model, (x,), allow_uncovered=True)
    checked(x).sum().backward()
    assert checked.last_step.verdict != "certified"
    apart = Model(lambda s, x: torch.relu(x + s.a) - torch.relu(x - s.b), a=nn.Parameter(w[:1]), b=nn.Parameter(w[1:]))
    assert analyze(apart, (x,)).verdict in CLAIMS


# A factor that is called positive and is 0 -------------------------------------------------------
# relu(0 * (v x + b) + w x) at w = 0 and x = 1, -1: relu(w) - relu(-w) = w, where AD gives 0 (Lemma 2).

_MASK = torch.tensor([[0.0, -torch.inf]])
FACTORS = {
    "exp(log(mask))": lambda s, x, m: torch.exp(m.log()),
    "exp(-1 / distance)": lambda s, x, m: torch.exp(-1 / (m * m)),
    "sigmoid(logit(mask))": lambda s, x, m: torch.sigmoid(torch.logit(m)),
    "softmax over log(mask)": lambda s, x, m: torch.softmax(torch.cat([m, m + 1], 1).log(), 1)[:, :1],
    "exp(sum of a -inf mask)": lambda s, x, m: torch.exp(s.mask.sum(-1, keepdim=True)),
    "exp(a mask that is clamped from above)": lambda s, x, m: torch.exp((x * 0).masked_fill(m == 0, -torch.inf).clamp(max=50)),
    "exp(log(mask), clamped from above)": lambda s, x, m: torch.exp(m.log().clamp(max=5)),
    "exp(row of a table)": lambda s, x, m: torch.exp(F.embedding((m == 0).long().squeeze(1), s.mask.mT)),
    "softmax of a row of a table": lambda s, x, m: torch.softmax(
        torch.cat([F.embedding((m == 0).long().squeeze(1), s.mask.mT), m], 1), 1)[:, :1],
    "clamp by crossed bounds": lambda s, x, m: torch.clamp(x, min=torch.ones(1, dtype=x.dtype), max=m),
    "sum of what a mask selects": lambda s, x, m: x[m > 0].exp().sum(),
    "full(0.5, dtype=long)": lambda s, x, m: torch.full((1,), 0.5, dtype=torch.long),
    "full_like(integers, 0.5)": lambda s, x, m: torch.full_like(s.count, 0.5),
    "full(1e-9, dtype=half)": lambda s, x, m: torch.full((1,), 1e-9, dtype=torch.half),
    "bits of 1 as another dtype": lambda s, x, m: torch.ones(1, dtype=torch.double).view(torch.float32)[:1],
    "a square of what is above 1/2": lambda s, x, m: (h := (m * 0).clamp(min=0.5)) * h + (-0.25),
    "0.1 + 0.2 - 0.3 in float32": lambda s, x, m: (m * 0).float().clamp(min=0.1) + 0.2 + (-0.3),
    "exp(addcdiv)": lambda s, x, m: torch.exp(torch.addcdiv(m * 0, m * 0 - 1, m * 0)),
    "exp(floor_divide)": lambda s, x, m: torch.exp(torch.floor_divide(m * 0 - 1, m * m)),
    "exp(-mvlgamma)": lambda s, x, m: torch.exp(-torch.mvlgamma(m.abs() + 0.5, 2)),
    "exp(slogdet)": lambda s, x, m: torch.exp(torch.slogdet(m[:, :, None])[1][:, None]),
    "exp(-var, correction=2)": lambda s, x, m: torch.exp(-torch.var(torch.cat([m, m + 1], 1), dim=1, correction=2, keepdim=True)),
    "exp(log, batch norm in eval)": lambda s, x, m: torch.exp(
        F.batch_norm(m.log(), torch.zeros(1).double(), torch.ones(1).double(), training=False)),
}


@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_that_can_be_zero_does_not_carry_a_bias(name: str) -> None:
    torch.manual_seed(0)
    factor = FACTORS[name]
    model = Model(lambda s, x, m: torch.relu(factor(s, x, m) * s.l(x) + s.k(x)), l=nn.Linear(1, 1),
                  k=nn.Linear(1, 1, bias=False), mask=_MASK, count=torch.zeros(1, dtype=torch.long)).double()  # fmt: skip
    with torch.no_grad():
        model.k.weight.zero_()
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    mask, weights = torch.zeros(2, 1, dtype=torch.float64), torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert _word_on(model, (x, mask), weights) is Verdict.OUTSIDE
    assert analyze(model, (x, torch.rand(2, 1, dtype=torch.float64))).verdict not in CLAIMS


@pytest.mark.parametrize("gate", [
    lambda y: torch.sigmoid(y), lambda y: torch.exp(-y.var(1, keepdim=True)),
    lambda y: torch.rsqrt((y * y).mean(1, keepdim=True) + 1e-6),
    lambda y: 0.5 + y.sigmoid(), lambda y: F.softmax(F.layer_norm(y, (2,)), 1), lambda y: F.softplus(F.gelu(y)) + 1e-3,
])  # fmt: skip
@pytest.mark.parametrize("training", [True, False])
def test_a_factor_that_cannot_be_zero_carries_a_bias(gate: Callable[[Tensor], Tensor], training: bool) -> None:
    model = Model(lambda s, x: torch.relu(gate(s.n(s.k(x))) * (0 * x.sum() + s.b)), k=nn.Linear(3, 2), n=nn.BatchNorm1d(2),
                  b=nn.Parameter(torch.zeros(1)))  # fmt: skip
    assert analyze(model.train(training), (torch.randn(4, 3),)).verdict in CLAIMS


def test_a_mask_of_the_callers_that_is_added_to_scores_may_hold_infinity() -> None:
    model = Model(lambda s, x, m: torch.relu(torch.softmax(0.5 * (x * 0 + m), 1)[:, :1] * s.l(x) + s.k(x)),
                  l=nn.Linear(1, 1), k=nn.Linear(1, 1, bias=False)).double()  # fmt: skip
    with torch.no_grad():
        model.k.weight.zero_()
    x, weights = torch.tensor([[1.0], [-1.0]], dtype=torch.float64), torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert _word_on(model, (x, _MASK.flip(1).expand(2, 2).double()), weights) is Verdict.OUTSIDE
    assert analyze(model, (x, torch.rand(2, 2, dtype=torch.float64))).verdict not in CLAIMS


# What the captured graph leaves open ---------------------------------------------------------------


def _most_and_least(s: Model, x: Tensor, m: Tensor) -> Tensor:
    """max(w, -2 w) + min(w, -2 w) is -w; AD shares the first slope out over three entries, and gives -1/2."""
    y = s.k(x)
    return y[m].amax(0) + y[m.nonzero().squeeze(1)[1:]].amin(0)


def test_a_maximum_over_entries_that_data_selects_is_not_over_one() -> None:
    model = Model(_most_and_least, k=nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        model.k.weight.zero_()
    x = torch.tensor([[1.0], [1.0], [-2.0]], dtype=torch.float64)
    assert _word_on(model, (x, torch.tensor([True, True, True])), torch.ones(1)) is Verdict.OUTSIDE
    assert analyze(model, (x, torch.tensor([True, False, True]))).verdict not in CLAIMS


BOUNDS = {
    "buffers": lambda s, x: s.l(x).clamp(s.low, s.high),
    "constants": lambda s, x: s.l(x).clamp(torch.tensor([0.0, -1.0]), torch.tensor([0.0, 1.0])),
    "buffers, clip": lambda s, x: torch.clip(s.l(x), min=s.low, max=s.high),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_clamp_between_tensors_is_constant_where_they_are_equal(name: str) -> None:
    """AD has slope 1 there."""
    model = Model(BOUNDS[name], l=nn.Linear(1, 2), low=torch.tensor([0.0, -1.0]), high=torch.tensor([0.0, 1.0]))
    with torch.no_grad():
        model.l.weight.zero_()
        model.l.bias.zero_()
    x, weights = torch.ones(1, 1), torch.tensor([1.0, 0.0])
    if judge(list(model.parameters()), lambda: (model(x) * weights).sum()).verdict is Verdict.INSIDE:
        pytest.skip("AD has slope 0 there in this version of torch")
    assert analyze(model, (x,)).verdict not in CLAIMS
    checked = instrument(model, (x,))
    with checked.step() as step:
        (checked(x) * weights).sum().backward()
    assert step.verdict != "certified"


def _by_truth(s: Model, x: Tensor) -> Tensor:
    """y [y <= 0] + y [y >= 0] is y, where AD gives 2 at 0."""
    y = s.k(x)
    return y * torch.logical_not(torch.relu(y)) + y * torch.logical_not(torch.relu(-y))


def test_a_number_that_is_read_as_a_truth_value_is_compared_with_0() -> None:
    model = Model(_by_truth, k=nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        model.k.weight.zero_()
    x = torch.ones(1, 1, dtype=torch.float64)
    assert _word_on(model, (x,), torch.ones(1)) is Verdict.OUTSIDE
    assert analyze(model, (x,)).verdict not in CLAIMS


# Arithmetic of masks is that of their dtype; each factor m is written so that real numbers would make y * m harmless


def _m_plus_equals(y: Tensor) -> Tensor:
    mask = y > 0
    mask += y > -0.0
    return mask


MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "bool + bool": lambda y: y * ((y > 0) + (y > -0.0)) - 2 * torch.relu(y),
    "bool += bool": lambda y: y * _m_plus_equals(y) - 2 * torch.relu(y),
    "bool + ones": lambda y: y * ((y > 0) + torch.ones(2, 1, dtype=torch.bool)) - y - torch.relu(y),
    "uint8 wraps around": lambda y: y * (((y > 0) * torch.full((2, 1), 200, dtype=torch.uint8)) * 2) / 400 - torch.relu(y),
}
PRECISIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "cast": lambda y: torch.relu(y.double() - 0.1) - torch.relu(y - 0.1),
    "promoted": lambda y: torch.relu(y * torch.ones(2, 1, dtype=torch.double) - 0.1) - torch.relu(y - 0.1),
    "compared": lambda y: (y > torch.full((2, 1), 0.1, dtype=torch.double)) * (y - 0.1) - torch.relu(y - 0.1),
}


@pytest.mark.parametrize("name", MASKS)
def test_arithmetic_of_truth_values_and_integers_is_not_that_of_real_numbers(name: str) -> None:
    model = Model(lambda s, x: MASKS[name](s.k(x)), k=nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        model.k.weight.zero_()
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert _word_on(model, (x,), x) is Verdict.OUTSIDE
    assert analyze(model, (x,)).verdict not in CLAIMS


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_constant_is_another_number_in_another_precision(name: str) -> None:
    """At y = 0.1 in float32 backward takes slope 1 of one ReLU and 0 of the other, on either side of w = 0."""
    model = Model(lambda s, x: PRECISIONS[name](s.k(x) + 0.1), k=nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model.k.weight.zero_()
    x = torch.tensor([[1.0], [-1.0]])
    (model(x) * x).sum().backward()
    assert abs(model.k.weight.grad) == 2
    assert analyze(model, (x,)).verdict not in CLAIMS


@pytest.mark.parametrize("mask", [lambda y: 2 * (y > 0) - 1, lambda y: (y > 0) + (y <= 0), lambda y: 1 - (y > 0).float()])
def test_masks_whose_values_their_dtype_holds_are_read_exactly(mask: Callable[[Tensor], Tensor]) -> None:
    model = Model(lambda s, x: (lambda y: y * mask(y))(s.k(x)), k=nn.Linear(1, 1))
    assert analyze(model, (torch.ones(2, 1),)).verdict in CLAIMS


# A weight that torch does not tell to the modes under which it is captured ----------------------


def test_the_weight_of_an_l1_loss_is_part_of_the_program() -> None:
    """1 + w, written with two ReLUs that AD takes no slope of at 0."""
    def function(s: Model, x: Tensor) -> Tensor:
        w, one = s.w[None], torch.ones(1, 1, dtype=torch.float64)
        weight = 1 + F.relu(F.linear(w, one)) - F.relu(F.linear(w, -one))
        return F.l1_loss(s.l(x), x + 1, reduction="sum", weight=weight.expand(x.shape))

    torch.manual_seed(0)
    model = Model(function, l=nn.Linear(2, 2), w=nn.Parameter(torch.zeros(1))).double()
    x = torch.randn(3, 2, dtype=torch.float64)
    assert _word_on(model, (x,), torch.ones((), dtype=torch.float64)) is Verdict.OUTSIDE
    assert analyze(model, (x,)).verdict not in CLAIMS
    checked = instrument(model, (x,))
    assert torch.equal(checked(x), model(x))
    with checked.step() as step:
        checked(x).backward()
    assert step.verdict == "uncertified"


# An epsilon that the dtype rounds to 0 -----------------------------------------------------------


@pytest.mark.parametrize("dtype, eps", [(torch.half, 1e-8), (torch.float32, 1e-46)])
def test_an_epsilon_below_the_dtype_does_not_keep_sqrt_off_zero(dtype: torch.dtype, eps: float) -> None:
    def function(s: Model, x: Tensor) -> Tensor:
        y = s.l(x)
        return torch.sqrt(y * y + eps)

    model = Model(function, l=nn.Linear(3, 1).to(dtype))
    with torch.no_grad():
        model.l.weight.zero_()
        model.l.bias.zero_()
    x = torch.ones(2, 3, dtype=dtype)
    model(x).sum().backward()
    assert not torch.isfinite(model.l.bias.grad).all()
    assert analyze(model, (x,)).verdict not in CLAIMS


# Random slopes, coarse casts, views that overlap themselves, and a target that is trained ----------


@pytest.mark.parametrize("bounds", [(0.5, 1.5), (0.9, 1.1), (1.0, 1.5)])
def test_a_random_slope_whose_mean_is_1_has_a_kink(bounds: tuple[float, float]) -> None:
    model = Model(lambda s, x: F.rrelu(s.k(x), *bounds, training=True), k=nn.Linear(1, 1, bias=False))
    x = torch.tensor([[1.0], [-1.0]])
    assert analyze(model, (x,)).verdict not in CLAIMS


def test_a_fixed_slope_of_1_has_none() -> None:
    model = Model(lambda s, x: F.rrelu(s.k(x), 0.5, 1.5, training=False), k=nn.Linear(1, 1, bias=False))
    assert analyze(model, (torch.ones(2, 1),)).verdict in CLAIMS


DROPPED: dict[str, Callable[..., Tensor]] = {
    "float8": lambda s, x: s.w.to(torch.float8_e5m2).float(),
    "float8, in place": lambda s, x: torch.zeros(4).to(torch.float8_e5m2).copy_(s.w).float(),
    "integers, filled": lambda s, x: torch.zeros(2, dtype=torch.long).fill_(s.w.sum()) * 1.0 + s.w[:2],
    "an overlapping view, strided": lambda s, x: (s.w * 1)[:3].unfold(0, 2, 1).as_strided((1,), (1,), 3),
    "target of a hinge": lambda s, x: F.hinge_embedding_loss(x.sum() * s.w, s.v * x.sum(), reduction="sum"),
}


@pytest.mark.parametrize("name", DROPPED)
def test_an_operator_that_drops_a_gradient_is_uncovered(name: str) -> None:
    model = Model(DROPPED[name], w=nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0])), v=nn.Parameter(torch.ones(4)))
    assert analyze(model, (torch.ones(2, 1),)).verdict == "uncovered"


# Attacks that the analyser answers rightly today -------------------------------------------------


def _relu_without_gradients(s: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        gate = torch.relu(s.l(x))
    return gate * s.k(x)


def _clamped_weight(s: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        s.l.weight.clamp_(-1, 1)
    return s.l(x)


def _half_negated_in_place(s: Model, x: Tensor) -> Tensor:
    y = torch.cat([s.l(x), s.l(x)], -1)
    y[:, :3].mul_(-1)
    return torch.relu(y)


def _buffer_written_without_gradients(s: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        s.buffer.mul_(0.9).add_(s.l(x).mean(0))
    return s.k(x) * s.buffer


@pytest.mark.parametrize(
    "function", [_relu_without_gradients, _clamped_weight, _half_negated_in_place, _buffer_written_without_gradients]
)
def test_no_grad_regions_and_aliases_are_seen_through(function: Callable[..., Tensor]) -> None:
    model = Model(function, l=nn.Linear(3, 3), k=nn.Linear(3, 3), buffer=torch.zeros(3))
    assert analyze(model, (torch.randn(4, 3),)).verdict not in CLAIMS


def test_one_bias_entry_that_reaches_two_entries_through_cat_is_not_distinct() -> None:
    def function(s: Model, x: Tensor) -> Tensor:
        y = s.l(x)
        return F.hardsigmoid(torch.cat([y, y.view(1, 3)], -1) + s.off).sum()

    model = Model(function, l=nn.Linear(3, 3), off=torch.tensor([3.0, 3, 3, -3, -3, -3]))
    assert analyze(model, (torch.randn(1, 3),), batch_size=1).verdict not in CLAIMS


def _hinge(y: Tensor, target: float, **options: Any) -> Tensor:
    return F.hinge_embedding_loss(y, torch.full((1,), target, dtype=y.dtype), reduction="none", **options)


HINGES: dict[str, Callable[[Model, Tensor], Any]] = {
    "2y, where AD says y": lambda s, x: _hinge(s.w * x + s.b, 1.0, margin=0.0) - F.relu(-s.w * x - s.b) + F.relu(s.w * x + s.b),
    "2y in two outputs": lambda s, x: (_hinge(s.w * x + s.b, 1.0, margin=0.0) - F.relu(-s.w * x - s.b), F.relu(s.w * x + s.b)),
    "a factor of any sign": lambda s, x: (F.relu(s.b * (_hinge(s.w * x, 1.0) + 1)), F.relu(s.b)),
    "a root of any sign": lambda s, x: (_hinge(s.w * x + s.b, 1.0) + 1e-3).sqrt(),
    "kinks at its margin": lambda s, x: _hinge(s.w * x, 1.0) - F.relu(1 - s.w * x) - F.relu(s.w * x - 1),
}


@pytest.mark.parametrize("name", HINGES)
def test_a_hinge_with_a_positive_target_is_its_input(name: str) -> None:
    model = Model(HINGES[name], w=nn.Parameter(torch.zeros(1)), b=nn.Parameter(torch.zeros(1)))
    assert analyze(model, (torch.ones(1),)).verdict not in CLAIMS


@pytest.mark.parametrize("target", [1.0, -1.0, 0.0])
def test_hinges_are_certified_for_every_target_that_the_model_does_not_make_of_weights(target: float) -> None:
    model = Model(lambda s, x: F.hinge_embedding_loss(s.k(x), target * torch.ones_like(s.k(x))), k=nn.Linear(3, 2))
    assert analyze(model, (torch.randn(4, 3),)).verdict in CLAIMS


def _twice(s: Model, y: Tensor, first: bool) -> Tensor:
    """Once by the running statistics, once over the batch."""
    s.n.train(not first)
    z = s.n(y)
    s.n.train(first)
    return z + s.n(y)


STATISTICS: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "by running statistics, then over the batch": lambda s, x: _twice(s, s.l(x), True).tanh(),
    "a product with them": lambda s, x: s.l(x) * s.n.running_var + s.n(s.l(x)),
    "a weight of the norm itself": lambda s, x: F.batch_norm(
        s.l(x), s.n.running_mean, s.n.running_var, weight=s.n.running_var, training=True),
    "a layer of them": lambda s, x: s.l(s.n.running_mean[None]) + s.n(s.l(x)),
}  # fmt: skip


@pytest.mark.parametrize("name", STATISTICS)
def test_running_statistics_that_autograd_has_saved_and_a_norm_writes_over_are_no_claim(name: str) -> None:
    model = Model(STATISTICS[name], l=nn.Linear(3, 3), n=nn.BatchNorm1d(3))
    assert analyze(model, (torch.randn(4, 3),)).verdict == "uncovered"


def test_running_statistics_that_nothing_saves_are_no_finding() -> None:
    for function in (lambda s, x: s.l(x) + s.n.running_mean + s.n(s.l(x)), lambda s, x: s.n(s.l(x)) + s.n(s.l(x + 1))):
        model = Model(function, l=nn.Linear(3, 3), n=nn.BatchNorm1d(3))
        assert analyze(model, (torch.randn(4, 3),)).verdict in CLAIMS


@pytest.mark.parametrize("least", [5e-324, 1e-320, 1e-310])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kink_that_nearly_meets_another_one_is_no_claim(least: float, dtype: torch.dtype) -> None:
    model = Model(lambda s, x: torch.clamp(s.l(x), min=least, max=2 * least), l=nn.Linear(3, 2, dtype=dtype))
    assert analyze(model, (torch.ones(1, 3, dtype=dtype),)).verdict not in CLAIMS
    model = Model(lambda s, x: torch.clamp(s.l(x), min=least), l=nn.Linear(3, 2, dtype=dtype))
    analyze(model, (torch.ones(1, 3, dtype=dtype),))


WITHOUT_BIAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cat": lambda b, none: torch.cat([b, none]),
    "stack": lambda b, none: torch.stack([b, none], 1)[0],
    "hstack": lambda b, none: torch.hstack([b, none]),
    "vstack": lambda b, none: torch.vstack([b, none])[:, 0],
    "where": lambda b, none: torch.where(torch.tensor([True, False]), b, none),
    "where not": lambda b, none: torch.where(torch.tensor([False, True]), none, b),
    "masked_fill": lambda b, none: b.expand(2).masked_fill(torch.tensor([False, True]), none[0]),
    "in place": lambda b, none: b.repeat(2).masked_fill_(torch.tensor([False, True]), none[0]),
}


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.float32])
@pytest.mark.parametrize("name", WITHOUT_BIAS)
def test_a_constant_of_any_dtype_in_the_place_of_a_bias_moves_nothing(name: str, dtype: torch.dtype) -> None:
    """relu(w) - relu(-w) = w, where AD says 0 at w = 0, for the neuron without a bias."""
    place = WITHOUT_BIAS[name]

    def function(s: Model, x: Tensor) -> Tensor:
        y = torch.relu(x @ s.w + place(s.b, torch.zeros(1, dtype=dtype)))
        return y[0] - y[1]

    model = Model(function, w=nn.Parameter(torch.zeros(1, 2)), b=nn.Parameter(torch.zeros(1)))
    assert analyze(model, (torch.tensor([[1.0], [-1.0]]),)).verdict not in CLAIMS


def test_tensors_that_point_to_entries_put_none_in_their_place() -> None:
    at, mask = torch.tensor([1, 0]), torch.tensor([True, False])
    for place in (lambda b: b[at], lambda b: b.index_select(0, at), lambda b: b.gather(0, at), lambda b: b.take(at),
                  lambda b: torch.where(mask, b, b.flip(0))):  # fmt: skip
        model = Model(lambda s, x, p=place: torch.relu(x @ s.w + p(s.b)), w=nn.Parameter(torch.zeros(1, 2)),
                      b=nn.Parameter(torch.zeros(2)))  # fmt: skip
        assert analyze(model, (torch.tensor([[1.0], [-1.0]]),)).verdict in CLAIMS


WRAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "a sum": lambda k: k.clamp(min=0) + 1,
    "a power": lambda k: (k - 239).clamp(min=1) ** 2,
    "a product": lambda k: (k - 239).clamp(min=1) * (k - 239).clamp(min=1),
    "constants": lambda k: torch.full((1,), 16, dtype=torch.uint8) * torch.full((1,), 16, dtype=torch.uint8),
    "a sign": lambda k: torch.full((1,), 127, dtype=torch.int8) + torch.ones(1, dtype=torch.int8),
    "a narrower dtype": lambda k: (k.long() + 1).clamp(min=200).to(torch.int8),
    "a magnitude": lambda k: (k - 127).view(torch.int8).abs() + 129,
}


@pytest.mark.parametrize("name", WRAPS)
def test_integers_may_wrap_round_to_zero(name: str) -> None:
    model = Model(lambda s, x, k: torch.relu(x * s.w + s.b * WRAPS[name](k)), w=nn.Parameter(torch.zeros(1)),
                  b=nn.Parameter(torch.zeros(1)))  # fmt: skip
    assert analyze(model, (torch.tensor([[1.0], [-1.0]]), torch.tensor([[255]], dtype=torch.uint8))).verdict not in CLAIMS


@pytest.mark.parametrize("factor", [lambda k: k.clamp(min=1), lambda k: k.clamp(min=0) + 1, lambda k: k.int().clamp(min=1)])
def test_lengths_are_positive_where_they_are_clamped(factor: Callable[[Tensor], Tensor]) -> None:
    model = Model(lambda s, x, k: torch.relu(x * s.w + s.b * factor(k)), w=nn.Parameter(torch.zeros(1)),
                  b=nn.Parameter(torch.zeros(1)))  # fmt: skip
    assert analyze(model, (torch.ones(2, 1), torch.tensor([[3], [5]]))).verdict in CLAIMS


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("kinked", [False, True])
def test_a_derivative_in_the_forward_is_a_constant_without_create_graph(create_graph: bool, kinked: bool) -> None:
    def function(s: Model, x: Tensor) -> Tensor:
        h = x * s.w
        (g,) = torch.autograd.grad(h.square().sum(), h, create_graph=create_graph)
        return torch.relu(h - 0.1 * g + s.b) if kinked else h - 0.1 * g

    model = Model(function, w=nn.Parameter(torch.ones(1)), b=nn.Parameter(torch.zeros(1)))
    report = analyze(model, (torch.ones(1, 1),))
    if create_graph:
        assert report.verdict in CLAIMS
    else:
        assert report.verdict == "uncovered" and report.diagnostics[0].code == "FX501"


def _swapped(name: str, *dims: int, after: bool = False) -> Callable[[Model, Tensor], Tensor]:
    """relu(b00) + b01, where AD says 0: the view was taken before the tensor was laid out anew."""

    def function(s: Model, x: Tensor) -> Tensor:
        h = x + s.b
        view = h[:, 0]
        h = getattr(h, name)(*dims)
        if after:
            h.add_(0.0)
        return torch.relu(view).sum() - torch.relu(-h[:, 1, 0]).sum()

    return function


@pytest.mark.parametrize("name", ["swapaxes_", "swapdims_", "transpose_"])
@pytest.mark.parametrize("after", [False, True])
def test_views_stay_where_they_are_when_a_tensor_is_laid_out_anew(name: str, after: bool) -> None:
    model = Model(_swapped(name, 1, 2, after=after), b=nn.Parameter(torch.zeros(2, 2)))
    assert analyze(model, (torch.zeros(3, 2, 2),)).verdict not in CLAIMS


def test_rows_stay_where_they_are_when_a_matrix_is_turned() -> None:
    def turned(s: Model, x: Tensor) -> Tensor:
        b = s.w * 1.0
        row = b[0]
        b.t_()
        return torch.relu(row).sum() - torch.relu(-b[1, 0]) + 0 * x.sum()

    assert analyze(Model(turned, w=nn.Parameter(torch.zeros(2, 2))), (torch.zeros(1),)).verdict not in CLAIMS


def test_tensors_that_are_laid_out_anew_are_followed() -> None:
    def function(s: Model, x: Tensor) -> Tensor:
        h = s.l(x)
        h.unsqueeze_(1)
        h.squeeze_(1)
        return torch.relu(h.t_())

    assert analyze(Model(function, l=nn.Linear(3, 2)), (torch.randn(4, 3),)).verdict in CLAIMS


def test_of_memory_that_is_laid_out_anew_by_strides_nothing_is_known() -> None:
    def function(s: Model, x: Tensor) -> Tensor:
        b = s.w * 1.0
        row = b[0]
        b.as_strided_((2, 2), (1, 2))
        return torch.relu(row).sum() - torch.relu(-b[1, 0]) + 0 * x.sum()

    assert analyze(Model(function, w=nn.Parameter(torch.zeros(2, 2))), (torch.zeros(1),)).verdict == "uncovered"
