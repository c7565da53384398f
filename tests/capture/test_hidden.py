"""What a captured graph does not show: custom Functions, hooks, .data, checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import cycle
from random import Random, random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from torch import nn
from torch.utils.checkpoint import checkpoint

import fxcheck
from fxcheck.capture.export import capture
from fxcheck.capture.lower import lower
from fxcheck.errors import CaptureError
from fxcheck.records.graph import Graph


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad):
        return grad


class Reversed(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return -grad


bound_when_imported = StraightThrough.apply


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    scripted, traced = torch.jit.script(nn.functional.hardtanh), [torch.jit.trace(nn.Linear(4, 4), torch.zeros(3, 4))]


class Model(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.body = body

    def forward(self, x):
        return self.body(self, x)


def _capture(body):
    return capture(Model(body), (torch.zeros(3, 4),))


def _codes(body) -> list[str]:
    return [d.code for d in _capture(body).hidden]


def _graph(body) -> Graph:
    return lower(_capture(body))


@pytest.mark.parametrize(
    "body",
    [
        lambda m, x: StraightThrough.apply(m.linear(x)),
        lambda m, x: bound_when_imported(m.linear(x)),
        lambda m, x: Reversed.apply(m.linear(x)),
        lambda m, x: checkpoint(lambda t: StraightThrough.apply(t), m.linear(x), use_reentrant=True),
        lambda m, x: checkpoint(lambda t: StraightThrough.apply(t), m.linear(x), use_reentrant=False),
        lambda m, x: scripted(m.linear(x)),
        lambda m, x: m.linear(x) + traced[0](x),
    ],
)
def test_a_custom_function_on_a_path_of_gradients_is_recorded(body) -> None:
    assert _codes(body) == ["FX502"]


def test_the_diagnostic_of_a_custom_function_names_it_and_the_users_line() -> None:
    diagnostic = _capture(lambda m, x: bound_when_imported(m.linear(x))).hidden[0]
    assert "StraightThrough" in diagnostic.message
    assert "test_hidden.py:" in diagnostic.location


def test_a_custom_function_under_vmap_is_refused() -> None:
    with pytest.raises(CaptureError, match="vmap"):
        _capture(lambda m, x: torch.vmap(Reversed.apply)(m.linear(x)))


def test_a_custom_function_of_constants_is_not_recorded() -> None:
    assert _codes(lambda m, x: m.linear(StraightThrough.apply(x))) == _codes(lambda m, x: m.linear(scripted(x))) == []


def test_watching_ends_with_the_capture() -> None:
    before = torch.Tensor.__dict__.get("data"), torch.Tensor.register_hook
    _codes(lambda m, x: StraightThrough.apply(m.linear(x)))
    assert (torch.Tensor.__dict__.get("data"), torch.Tensor.register_hook) == before
    assert "__init__" not in torch.autograd.function.BackwardCFunction.__dict__


def test_hooks_on_modules_parameters_and_tensors_are_recorded() -> None:
    def hooked(m, x):
        y = m.linear(x)
        y.register_hook(lambda g: 2 * g)
        return y

    def hooked_after_accumulation(m, x):
        m.linear.weight.register_post_accumulate_grad_hook(lambda p: p.grad.zero_())
        return m.linear(x)

    on_module, on_parameter, after_accumulation = (Model(lambda m, x: m.linear(x)) for _ in range(3))
    on_module.linear.register_full_backward_hook(lambda m, gi, go: None)
    on_parameter.linear.weight.register_hook(lambda g: -g)
    after_accumulation.linear.bias.register_post_accumulate_grad_hook(lambda p: None)
    assert _codes(hooked) == _codes(hooked_after_accumulation) == ["FX505"]
    for model in (on_module, on_parameter, after_accumulation):
        assert [d.code for d in capture(model, (torch.zeros(3, 4),)).hidden] == ["FX505"]


_REGISTERS = (nn.Module.register_full_backward_pre_hook, nn.Module.register_full_backward_hook, nn.Module.register_backward_hook)
_SHARED = torch.nn.modules.module


@pytest.mark.parametrize(
    "register",
    [*_REGISTERS, *((lambda m, hook, of=of: of(hook)) for of in (
        _SHARED.register_module_full_backward_pre_hook, _SHARED.register_module_full_backward_hook))],
)  # fmt: skip
def test_a_hook_that_the_forward_takes_off_again_is_recorded(register) -> None:
    def body(m, x):
        handle = register(m.linear, lambda module, *grads: tuple(-g for g in grads[0] if g is not None))
        y = m.linear(x).exp()
        handle.remove()
        return y

    assert set(_codes(body)) == {"FX505"}


@pytest.mark.parametrize("register", _REGISTERS)
def test_a_hook_on_a_module_that_no_module_holds_is_recorded(register) -> None:
    kept = [nn.Tanh()]
    register(kept[0], lambda module, *grads: None)
    assert _codes(lambda m, x: kept[0](m.linear(x))) == ["FX505"]


def test_forward_hooks_are_traced_and_are_no_finding() -> None:
    model = Model(lambda m, x: m.linear(x))
    model.linear.register_forward_hook(lambda m, inputs, output: output.relu())
    captured = capture(model, (torch.zeros(3, 4),))
    assert captured.hidden == ()
    assert "aten.relu.default" in {n.op for n in lower(captured).nodes}


def test_hooks_of_a_loss_module_are_recorded() -> None:
    loss = nn.MSELoss()
    loss.register_full_backward_hook(lambda m, gi, go: None)
    captured = capture(Model(lambda m, x: m.linear(x)), (torch.zeros(3, 4),), loss=loss, target=torch.zeros(3, 4))
    assert [d.code for d in captured.hidden] == ["FX505"]


def test_hooks_on_saved_tensors_are_recorded() -> None:
    def lossy(m, x):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.half(), lambda t: t.float()):
            return m.linear(x).exp()

    assert _codes(lossy) == ["FX505"]


def test_both_forms_of_checkpointing_are_the_plain_computation() -> None:
    for reentrant in (True, False):
        graph = _graph(lambda m, x, r=reentrant: checkpoint(lambda t: t.relu(), m.linear(x), use_reentrant=r))
        relu = next(n for n in graph.nodes if n.op == "aten.relu.default")
        assert relu.grad_enabled
        assert relu.id in graph.outputs


def test_reentrant_checkpointing_of_inputs_without_gradients_records_nothing() -> None:
    graph = _graph(lambda m, x: checkpoint(m.linear, x, use_reentrant=True) + m.linear.bias)
    assert not next(n for n in graph.nodes if n.op == "aten.linear.default").grad_enabled


def test_data_of_an_activation_is_a_detached_value_in_the_graph() -> None:
    graph = _graph(lambda m, x: m.linear(x).data * x)
    assert "aten.detach.default" in {graph.nodes[i].op for i in graph.live}


def test_clamping_the_data_of_a_parameter_is_seen_by_the_layer_that_uses_it() -> None:
    def clipped(m, x):
        m.linear.weight.data.clamp_(-1, 1)
        return m.linear(x)

    graph = _graph(clipped)
    assert {"aten.clamp.default", "aten.detach.default"} <= {graph.nodes[i].op for i in graph.live}


def test_assigning_data_in_the_forward_is_refused() -> None:
    def assigned(m, x):
        y = m.linear(x)
        y.data = y.detach().relu()
        return y

    with pytest.raises(CaptureError, match=r"assigns \.data") as caught:
        _capture(assigned)
    assert caught.value.code == "FX604"


def test_computing_in_place_on_data_assigns_what_is_there() -> None:
    class Averaging(nn.BatchNorm1d):
        def forward(self, x):
            self.running_mean.data *= 0.9
            self.running_mean.data += 0.1 * x.detach().mean(0)
            return x * self.weight + self.running_mean

    checked = fxcheck.instrument(Averaging(2), (torch.ones(3, 2),))
    checked(torch.ones(3, 2)).sum().backward()
    assert checked.last_step.verdict == "certified"
    assert torch.allclose(checked.model.running_mean, torch.full((2,), 0.1))


def test_a_no_grad_region_is_inlined_and_marked() -> None:
    def body(m, x):
        y = m.linear(x)
        with torch.no_grad():
            z = y.relu()
            with torch.enable_grad():
                w = y.tanh()
        return y + z + w

    marks = {n.op: n.grad_enabled for n in _graph(body).nodes if n.op.startswith("aten.")}
    assert marks["aten.relu.default"] is False
    assert marks["aten.tanh.default"] is True
    assert marks["aten.add.Tensor"] is True


@pytest.mark.parametrize("cast", [lambda y: y.float(), lambda y: y.to(torch.float32), lambda y: y.type_as(y)])
def test_a_cast_to_the_same_dtype_is_its_operand_in_a_no_grad_region_too(cast) -> None:
    def watched(m, x):
        y = m.linear(x).relu()
        with torch.no_grad():
            m.mean = cast(y).mean()
        return y * 2

    def without_gradient(m, x):
        with torch.no_grad():
            y = m.linear(x)
        return cast(y) * m.linear(x)

    assert fxcheck.analyze(Model(watched), (torch.zeros(3, 4),)).verdict == "certified"
    assert fxcheck.analyze(Model(without_gradient), (torch.zeros(3, 4),)).verdict == "uncovered"


def test_an_inference_region_is_marked_like_no_grad() -> None:
    @torch.inference_mode()
    def decorated(y):
        return y.tanh()

    def body(m, x):
        y = m.linear(x)
        with torch.inference_mode():
            z = y.relu()
        return y + z + decorated(y)

    marks = {n.op: n.grad_enabled for n in _graph(body).nodes if n.op.startswith("aten.")}
    assert marks["aten.relu.default"] is False
    assert marks["aten.tanh.default"] is False
    assert marks["aten.add.Tensor"] is True


def test_a_hook_on_a_node_of_the_backward_graph_is_recorded() -> None:
    def hooked(m, x):
        y = m.linear(x)
        y.grad_fn.register_prehook(lambda grads: tuple(-g for g in grads))
        return y

    assert _codes(hooked) == ["FX505"]


def test_vmap_is_opaque() -> None:
    graph = _graph(lambda m, x: torch.vmap(lambda row: m.linear(row).relu())(x))
    known = ("aten.", "fxcheck.parameter", "fxcheck.input")
    assert any(not graph.nodes[i].op.startswith(known) for i in graph.live)


def test_a_mutation_inside_a_no_grad_region_reaches_the_tensor_outside() -> None:
    def body(m, x):
        y = m.linear(x)
        with torch.no_grad():
            y.relu_()
        return y * 1

    graph = _graph(body)
    relu = next(n for n in graph.nodes if n.op == "aten.relu.default")
    assert relu.id in graph.live
    assert not relu.grad_enabled


def test_an_autocast_region_is_inlined_with_its_dtypes() -> None:
    def body(m, x):
        with torch.autocast("cpu", torch.bfloat16):
            return m.linear(x).relu()

    relu = next(n for n in _graph(body).nodes if n.op == "aten.relu.default")
    assert relu.dtype == "bfloat16"
    assert relu.grad_enabled


@pytest.mark.parametrize(
    "number",
    [
        lambda y: y.sum().item(),
        lambda y: y.sum().item() * 2 + 1,
        lambda y: (y > 0).nonzero().shape[0],
        lambda y: (y > 0).sum().item(),
        lambda y: max(int((y > 0).sum().item()), 1),
    ],
)
def test_a_number_read_from_an_activation_stays_connected_to_it(number) -> None:
    try:
        graph = _graph(lambda m, x: x * number(m.linear(x)))
    except CaptureError as refused:
        assert refused.code == "FX602"
        return
    assert any(graph.nodes[i].op == "aten.linear.default" for i in graph.live)


def test_a_buffer_that_shares_memory_with_a_parameter_is_that_parameter_detached() -> None:
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.register_buffer("copy", self.linear.weight.detach())
            self.half = self.linear.bias.detach()[2:]
            self.register_buffer("own", torch.zeros(4, 4))

        def forward(self, x):
            return x @ self.copy + x[:, :1] * self.half.sum() + x @ self.own

    graph = lower(capture(Shared(), (torch.zeros(3, 4),)))
    assert sum(n.op == "aten.detach.default" for n in graph.nodes) == 2
    assert [n.arguments["name"] for n in graph.nodes if n.op == "fxcheck.buffer"] == ["own"]


def test_a_branch_for_captures_is_not_taken_unless_nothing_else_can_be_captured() -> None:
    def either(m, x):
        return m.linear(x).relu() if torch.compiler.is_compiling() else m.linear(x).tanh()

    def only_compiled(m, x):
        return m.linear(x).relu() if torch.compiler.is_exporting() else m.linear(x).numpy(force=True)

    assert _codes(either) == [] and any(n.op == "aten.tanh.default" for n in _graph(either).nodes)
    assert _codes(only_compiled) == ["FX603"]
    with pytest.raises(CaptureError):
        _codes(lambda m, x: m.linear(x).numpy(force=True))


def test_parameters_that_overlap_in_memory_are_recorded() -> None:
    class Held(nn.Module):
        def __init__(self, first, second, frozen=False):
            super().__init__()
            memory = torch.zeros(4, 4)
            self.first, self.second = nn.Parameter(first(memory)), nn.Parameter(second(memory), requires_grad=not frozen)

        def forward(self, x):
            return x.sum() * self.first.sum() + self.second.sum()

    def codes(*views):
        return [d.code for d in capture(Held(*views), (torch.zeros(3, 4),)).hidden]

    assert codes(lambda m: m[:, :2], lambda m: m[:, 2:]) == codes(lambda m: m[0], lambda m: m[1]) == []
    assert codes(lambda m: m, lambda m: m) == codes(lambda m: m[:, :3], lambda m: m[:, 2:]) == ["FX507"]
    assert codes(lambda m: m[0], lambda m: m.t()[0], True) == ["FX507"]


def test_control_flow_operators_are_opaque_and_read_everything_they_capture() -> None:
    def body(m, x):
        y = m.linear(x)
        return torch.cond(x.sum() > 0, lambda t: t.relu() + y, lambda t: -t, (x,))

    graph = _graph(body)
    node = next(n for n in graph.nodes if n.op == "higher_order.cond")
    assert node.id in graph.live
    assert any(n.op == "aten.linear.default" and n.id in graph.live for n in graph.nodes)


_GENERATORS = (Random(0), np.random.default_rng(0), np.random.RandomState(0))
HOLDERS: dict[str, Callable[[Any], Any]] = {
    "attribute": lambda held: held,
    "list": lambda held: [held],
    "object": lambda held: SimpleNamespace(held=held),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize(
    ("draw", "held"), [(random, None), (np.random.rand, None), *((getattr(g, "random", None) or g.rand, g) for g in _GENERATORS)]
)
def test_a_branch_on_random_numbers_that_torch_did_not_draw_is_found(draw: Callable[[], float], held, holder: str) -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.generator = nn.Linear(2, 2), HOLDERS[holder](held)

        def forward(self, x):
            y = self.linear(x)
            return y if draw() < 2 else torch.relu(y) - torch.relu(-y)

    report = fxcheck.analyze(Dropped(), (torch.zeros(3, 2),))
    assert report.verdict == "uncovered" and "random numbers of Python or numpy" in report.diagnostics[0].message


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize(
    ("iterator", "take", "taken"),
    [(lambda: cycle([0, 1]), next, 1), (lambda: iter([0, 1]), lambda held: next(v for v in held), 1),
     (lambda: (v for v in (0, 1)), lambda held: held.send(None), 1), (lambda: iter([0, 1]), bool, 0)],
)  # fmt: skip
def test_a_value_that_the_forward_takes_from_an_iterator_is_found(iterator, take, taken: int, holder: str) -> None:
    class Alternating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.held = nn.Linear(2, 2), HOLDERS[holder](values)

        def forward(self, x):
            take(self.held[0] if holder == "list" else getattr(self.held, "held", self.held))
            return self.linear(x)

    values = iterator()
    report = fxcheck.analyze(Alternating(), (torch.zeros(3, 2),))
    assert report.verdict == ("uncovered" if taken else "smooth") and next(values) == taken
    assert not taken or "from an iterator" in report.diagnostics[0].message


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    ("inside", "preserve", "verdict"),
    [(nn.Dropout(), True, "smooth"), (nn.Dropout(), False, "uncovered"), (nn.Tanh(), False, "smooth"),
     (nn.RReLU(), True, "uncovered")],
)  # fmt: skip
def test_a_region_that_is_computed_again_draws_the_same_random_numbers(inside, preserve, verdict, reentrant) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.inside = nn.Linear(2, 2), inside

        def forward(self, x):
            return checkpoint(self.inside, self.linear(x), use_reentrant=reentrant, preserve_rng_state=preserve)

    report = fxcheck.analyze(Checkpointed(), (torch.zeros(3, 2),))
    assert report.verdict == verdict
    assert verdict == "smooth" or report.diagnostics[0].code == "FX505"


def _counted(m: nn.Module, v: torch.Tensor) -> torch.Tensor:
    m.count.add_(1)
    return m.linear(v) * m.count


def _normalised(m: nn.Module, v: torch.Tensor, training: bool = True) -> torch.Tensor:
    y = m.linear(v)
    return nn.functional.batch_norm(y, m.mean, m.count, training=training).mul_(2)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    ("inside", "after", "verdict"),
    [
        (lambda m, v: m.linear(v) * m.count, lambda m, x: m.count.add_(1), "uncovered"),
        (lambda m, v: m.linear(v) * (m.count + 1), lambda m, x: m.count.data.zero_(), "uncovered"),
        (lambda m, v: m.linear(v).exp(), lambda m, x: x.mul_(2), "uncovered"),
        (lambda m, v: _normalised(m, v, False), lambda m, x: m.mean.add_(1), "uncovered"),
        (_counted, lambda m, x: None, "uncovered"),
        (_normalised, lambda m, x: None, "smooth"),
        (lambda m, v: m.linear(v) * m.count, lambda m, x: m.mean.add_(1), "smooth"),
    ],
)
def test_a_region_that_is_computed_again_reads_what_it_read_before(inside, after, verdict, reentrant) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.register_buffer("count", torch.ones(2))
            self.register_buffer("mean", torch.zeros(2))

        def forward(self, x):
            h = self.linear(x)
            y = checkpoint(lambda v: inside(self, v), h, use_reentrant=reentrant)
            after(self, h)
            return y

    report = fxcheck.analyze(Checkpointed(), (torch.zeros(3, 2),))
    assert report.verdict == verdict
    assert verdict == "smooth" or "FX505" in [d.code for d in report.diagnostics]


def test_a_function_called_checkpoint_is_no_checkpoint() -> None:
    named = type("checkpoint", (StraightThrough,), {})
    assert _codes(lambda m, x: named.apply(m.linear(x))) == ["FX502"]


# Values that leave by an attribute ---------------------------------------------------------------


def _leaves(name, container=None):
    def body(model, x):
        y = model.linear(x)
        if container is None:
            setattr(model, name, torch.relu(-y).sum())
        else:
            setattr(model, name, container(y))
        return torch.relu(y)

    return body


@pytest.mark.parametrize("container", [None, lambda y: [y], lambda y: {"y": (y,)}])
def test_a_value_with_its_gradient_in_an_attribute_is_not_seen(container) -> None:
    report = fxcheck.analyze(Model(_leaves("auxiliary", container)), (torch.randn(2, 4),))
    assert report.verdict == "uncovered"
    assert [d.code for d in report.diagnostics] == ["FX508"] and "'auxiliary'" in report.diagnostics[0].message


def test_one_that_is_returned_too_may_be_where_the_next_forward_goes_on() -> None:
    def body(model, x):
        model.state = torch.abs(model.linear(x) + 0.5 * getattr(model, "state", 0.0))
        return model.state

    assert fxcheck.analyze(Model(body), (torch.randn(2, 4),)).verdict == "uncovered"


def _no_longer_needs_a_gradient(model, x):
    y = torch.relu(model.linear(x))
    model.seen, model.inputs, model.count = [y.detach()], x, getattr(model, "count", 0) + 1
    return y


def _old_weight_norm(model, x):
    return torch.relu(model.normed(x))


def test_what_needs_no_gradient_or_is_written_before_each_forward_is_no_such_value() -> None:
    model = Model(_old_weight_norm)
    model.normed = nn.utils.weight_norm(nn.Linear(4, 4))
    nn.utils.prune.random_unstructured(model.linear, "weight", 0.5)
    for each in (Model(_no_longer_needs_a_gradient), model):
        assert "FX508" not in {d.code for d in fxcheck.analyze(each, (torch.randn(2, 4),)).diagnostics}
