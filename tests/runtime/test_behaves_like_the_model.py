"""A checked model trains bit for bit like the model that it was made from, and looks like it."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

import fxcheck
from fxcheck.ops.observe import observe
from tests.runtime.models import flat_images, fully_connected, small_cnn


def _train(forward: Callable[[Tensor], Tensor], parameters: list[nn.Parameter], batches: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(5)
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    for x in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward(x), torch.arange(len(x)) % 3).backward()
        optimizer.step()
    return [p.detach().clone() for p in parameters]


def _dropout_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.ReLU6(), nn.MaxPool2d(3, 2, 1), nn.Dropout(0.5), nn.Flatten(),
                         nn.Linear(36, 3))  # fmt: skip


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        y += x
        return self.head(self.pool(nn.functional.hardswish(y)).flatten(1))


MODELS = {
    "cnn": small_cnn, "batchnorm": lambda: small_cnn(norm=True), "out of place": lambda: small_cnn(inplace=False),
    "dropout": _dropout_net, "residual": _Residual,
    "pool1d": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 3, 3, bias=False), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(),
                                    nn.Linear(93, 3)),
    "adaptive": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveMaxPool2d((4, 5)), nn.Flatten(),
                                      nn.Linear(80, 3)),
    "pool3d": lambda: nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 2, (1, 3, 3)), nn.ReLU(),
                                    nn.MaxPool3d((2, 2, 2)), nn.Flatten(), nn.Linear(18, 3)),
    "checkpointed": lambda: _Checkpointed(),
}  # fmt: skip


class _Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = small_cnn()

    def forward(self, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False)


@pytest.mark.parametrize("name", MODELS)
def test_training_is_the_same_bit_for_bit(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    twin = copy.deepcopy(model)
    batches = [flat_images(b, seed) for seed, b in enumerate((4, 4, 7, 4))]
    checked = fxcheck.instrument(model, (flat_images(),))
    expected = _train(twin, list(twin.parameters()), batches)
    found = _train(checked, list(checked.parameters()), batches)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))
    assert checked.summary().steps == 4
    assert sum(t.max_outputs + t.touched_steps for t in checked.summary().layers.values()) > 0 or name == "residual"


def test_names_and_objects_are_the_models_own() -> None:
    model = small_cnn(norm=True)
    checked = fxcheck.instrument(model, (flat_images(),))
    assert list(checked.state_dict()) == list(model.state_dict())
    assert [n for n, _ in checked.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert all(a is b for a, b in zip(checked.parameters(), model.parameters(), strict=True))
    assert [n for n, _ in checked.named_modules()] == [n for n, _ in model.named_modules()]
    assert checked.get_submodule("0") is model[0]


def test_an_attribute_of_the_model_is_set_through_the_checked_one() -> None:
    class Tempered(nn.Module):
        offset = 0.0

        def __init__(self) -> None:
            super().__init__()
            self.linear, self.tau = nn.Linear(2, 3), 1.0

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.linear(x)) / self.tau + self.offset

    model, x = Tempered(), torch.randn(4, 2)
    checked = fxcheck.instrument(model, (x,))
    checked.tau, checked.offset, checked.note, checked._own = 0.5, 1.0, "its", "mine"
    assert (model.tau, model.offset, checked.tau, model.note) == (0.5, 1.0, 0.5, "its") and not hasattr(model, "_own")
    assert "tau" not in vars(checked)
    assert torch.equal(checked(x), model(x))
    del checked.offset
    assert checked.offset == model.offset == 0.0


def test_train_and_eval_reach_the_model_and_eval_runs_it_unchecked() -> None:
    model = small_cnn(norm=True)
    checked = fxcheck.instrument(model, (flat_images(),))
    assert checked.eval() is checked and not model.training and not checked.training
    assert torch.equal(checked(flat_images()), model(flat_images()))
    assert checked.summary().steps == 0
    model.train()
    assert checked.training


class _Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.encoder(a) - self.encoder(b)).square()


def test_a_batchnorm_that_is_called_twice_trains_as_the_model_does() -> None:
    torch.manual_seed(0)
    model = _Siamese()
    twin, x = copy.deepcopy(model), torch.randn(8, 3)
    checked = fxcheck.instrument(model, (x, x + 1))
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, twin)]
    for _ in range(3):
        for module, optimizer in zip((checked, twin), optimizers, strict=True):
            optimizer.zero_grad()
            module(x, 2 * x + 1).sum().backward()
            optimizer.step()
        assert checked.last_step.verdict == "certified"
    assert all(torch.equal(a, twin.state_dict()[n]) for n, a in model.state_dict().items())
    assert int(model.encoder[1].num_batches_tracked) == 6


def test_a_frozen_batchnorm_is_captured_as_it_is() -> None:
    model = small_cnn(norm=True)
    model.train()
    model[1].eval()
    before = model[1].running_mean.clone()
    checked = fxcheck.instrument(model, (flat_images(),))
    checked(flat_images()).sum().backward()
    assert torch.equal(model[1].running_mean, before) and checked.last_step.verdict == "certified"


def test_changing_flags_between_steps_captures_again() -> None:
    model = small_cnn(norm=True)
    checked = fxcheck.instrument(model, (flat_images(),))
    twin = copy.deepcopy(model)
    for m in (model, twin):
        m.train()
        m[1].eval()
    assert torch.equal(checked(flat_images()), twin(flat_images()))


def test_instrumenting_leaves_the_model_as_it_was() -> None:
    model = small_cnn(norm=True).eval()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    fxcheck.instrument(model, (flat_images(),))
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_to_moves_both_and_the_checks_follow() -> None:
    model = small_cnn()
    checked = fxcheck.instrument(model, (flat_images(),))
    assert checked.to(torch.float64) is checked
    assert model[0].weight.dtype == torch.float64
    out = checked(flat_images().double())
    assert out.dtype == torch.float64 and checked.last_step.verdict == "certified"


def test_a_deep_copy_is_checked_and_independent() -> None:
    checked = fxcheck.instrument(small_cnn(), (flat_images(),))
    clone = copy.deepcopy(checked)
    assert clone.model is not checked.model
    with torch.no_grad():
        next(clone.parameters()).mul_(2)
    assert not torch.equal(next(checked.parameters()), next(clone.parameters()))
    clone(flat_images()).sum().backward()
    assert clone.last_step.verdict == "certified" and checked.last_step is None


def test_pickle_and_state_files_round_trip() -> None:
    checked = fxcheck.instrument(small_cnn(), (flat_images(),))
    again = pickle.loads(pickle.dumps(checked))
    again(flat_images()).sum().backward()
    assert again.last_step.verdict == "certified"
    buffer = io.BytesIO()
    torch.save(checked.state_dict(), buffer)
    buffer.seek(0)
    fresh = small_cnn()
    fresh.load_state_dict(torch.load(buffer))
    assert torch.equal(fresh[0].weight, checked.model[0].weight)


def test_loading_a_state_keeps_the_checks() -> None:
    checked = fxcheck.instrument(small_cnn(), (flat_images(),))
    checked.load_state_dict(small_cnn().state_dict())
    checked(flat_images()).sum().backward()
    assert checked.last_step.verdict == "certified"


def test_no_grad_forwards_run_the_model_and_are_no_steps() -> None:
    model = small_cnn()
    checked = fxcheck.instrument(model, (flat_images(),))
    with torch.no_grad():
        out = checked(flat_images())
    assert torch.equal(out, model(flat_images())) and not out.requires_grad
    assert checked.summary().steps == 0


@pytest.mark.parametrize("batch", [1, 2, 3, 9])
def test_any_batch_size_is_served(batch: int) -> None:
    model = small_cnn()
    checked = fxcheck.instrument(model, (flat_images(4),))
    x = flat_images(batch, seed=batch)
    assert torch.equal(checked(x), model(x))
    assert checked.last_step.verdict == "certified" and checked.last_step.samples == batch


def test_a_model_that_bakes_sizes_in_is_captured_per_size() -> None:
    class Flattening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            scale = 2.0 if x.shape[0] % 2 else 1.0
            return scale * nn.functional.max_pool2d(self.conv(x), 2)

    model = Flattening()
    checked = fxcheck.instrument(model, (flat_images(4),))
    for batch in (3, 4, 5):
        assert torch.equal(checked(flat_images(batch)), model(flat_images(batch)))


def test_equal_numbers_of_other_types_and_signs_are_other_calls() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4, bias=False)

        def forward(self, x: Tensor, scale: float = 1) -> Tensor:
            y = torch.relu(self.linear(x))
            return y * 3 if scale is True else y * math.copysign(2.0, scale)

    model = Scaled()
    checked = fxcheck.instrument(model, (torch.randn(2, 3),))
    x = torch.randn(2, 3)
    for scale in (1, True, 1.0, 0.0, -0.0, 1, True, -0.0):
        assert torch.equal(checked(x, scale), model(x, scale)), scale


def test_sizes_that_do_not_fit_the_capture_are_never_run() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4, bias=False)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.relu(self.linear(x) + 2 * self.linear(y))

    model = Pairs()
    checked = fxcheck.instrument(model, (torch.randn(4, 3), torch.randn(4, 3)))
    for sizes in ((4, 4), (5, 5), (4, 1), (4, 4), (1, 4)):
        x, y = (torch.randn(n, 3) for n in sizes)
        for _ in range(2):
            assert torch.equal(checked(x, y), model(x, y)), sizes


def test_check_nodes_outlive_dead_code_elimination_and_a_second_export() -> None:
    checked = fxcheck.instrument(small_cnn(), (flat_images(),))
    module = checked._programs[0][1].module
    nodes = [n for n in module.graph.nodes if n.target is observe]
    module.graph.eliminate_dead_code()
    assert nodes and [n for n in module.graph.nodes if n.target is observe] == nodes
    again = torch.export.export(module, (flat_images(),), strict=False)
    kept = [n for n in again.graph.nodes if n.target is torch.ops.fxcheck.observe.default]
    assert [n.args[1] for n in kept] == [n.args[1] for n in nodes]


def test_channels_last_inputs_and_weights() -> None:
    model = small_cnn().to(memory_format=torch.channels_last)
    checked = fxcheck.instrument(model, (flat_images().to(memory_format=torch.channels_last),))
    x = flat_images(seed=3).to(memory_format=torch.channels_last)
    plain = fxcheck.instrument(copy.deepcopy(model), (flat_images(),))
    checked(x).sum().backward()
    plain(x.contiguous()).sum().backward()
    counts = [[(s.ties, s.nontrivial, s.touched) for s in c.last_step.layers] for c in (checked, plain)]
    assert counts[0] == counts[1] and sum(t for t, _, _ in counts[0]) > 0


def test_keyword_inputs_and_structured_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_cnn()

        def forward(self, x: Tensor, *, scale: Tensor) -> dict[str, Tensor]:
            y = self.net(x)
            return {"scores": y * scale, "raw": y}

    checked = fxcheck.instrument(Two(), (flat_images(),), {"scale": torch.tensor(2.0)})
    out = checked(flat_images(), scale=torch.tensor(3.0))
    assert set(out) == {"scores", "raw"} and torch.equal(out["scores"], 3 * out["raw"])
    assert checked.last_step.verdict == "certified"


def test_hooks_of_the_caller_on_an_output_are_called_beside_our_listener_and_come_off() -> None:
    model, x = small_cnn(), flat_images(2)
    checked = fxcheck.instrument(model, (x,))
    seen: list[str] = []
    with checked.step() as step:
        output = checked(x)
        handles = [output.register_hook(lambda gradient, name=name: seen.append(name)) for name in "abc"]
        handles[1].remove()
        output.retain_grad()
        output.sum().backward()
    assert seen == ["a", "c"] and torch.equal(output.grad, torch.ones_like(output))
    assert step.verdict == "certified"


def test_a_statically_certified_model_runs_without_check_nodes() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    checked = fxcheck.instrument(model, (torch.randn(4, 6),))
    with checked.step() as step:
        checked(torch.randn(4, 6)).sum().backward()
    assert (step.verdict, step.theorem, step.layers) == ("certified", "T4", ())
    assert step.assumptions == ("smooth criterion",)


def test_compile_leaves_the_forward_eager_and_works() -> None:
    checked = fxcheck.instrument(small_cnn(), (flat_images(),))
    compiled = torch.compile(checked)
    out = compiled(flat_images())
    assert torch.equal(out, checked.model(flat_images()))
    assert checked.last_step.verdict == "certified"


def test_fully_connected_nets_are_certified_by_t5() -> None:
    model = fully_connected(nn.ReLU6(), torch.float64)
    x = torch.eye(6, dtype=torch.float64)[:4]
    with torch.no_grad():
        model[0].bias[0] = 0.5
        model[0].weight[0, 0] = -0.5  # sample 0 touches neuron 0 at 0
        model[0].weight[0, 1] = 5.5  # sample 1 touches it at 6, and AD's other side
    checked = fxcheck.instrument(model, (x,))
    checked(x).sum().backward()
    step = checked.last_step
    assert (step.verdict, step.theorem) == ("certified", "T5")
    assert step.layers[0].touched == 2 and step.certificate.blocks[0].claim == "independent columns"


@pytest.mark.parametrize("activation", [torch.tanh, lambda y: nn.functional.max_pool1d(y, 3)])
def test_reentrant_checkpoints_are_instrumented_and_no_gradient_is_left(activation: Callable[[Tensor], Tensor]) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.outer, self.inner = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.utils.checkpoint.checkpoint(lambda v: activation(self.inner(v)), self.outer(x), use_reentrant=True)
            assert isinstance(y, Tensor)
            return y

    model, x = Checkpointed(), torch.randn(4, 3, requires_grad=True)
    model.outer.bias.grad = kept = torch.ones(3)
    checked = fxcheck.instrument(model, (x,))
    assert model.outer.bias.grad is kept and torch.equal(kept, torch.ones(3))
    assert model.inner.bias.grad is None and x.grad is None
    with checked.step() as step:
        checked(x).sum().backward()
    assert step.verdict == "certified"


class _WritesItsInput(nn.Module):
    """In place, with what depends on the weights too."""

    def __init__(self, adds_parameter: bool) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(3)) if adds_parameter else torch.ones(3)
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x += self.shift
        return torch.relu(self.linear(x.mul_(2)))


@pytest.mark.parametrize("adds_parameter", [False, True])
def test_a_model_that_overwrites_its_input_leaves_the_example_as_it_was(adds_parameter: bool) -> None:
    example, model = torch.randn(4, 3), _WritesItsInput(adds_parameter)
    before = example.clone()
    checked, twin = fxcheck.instrument(copy.deepcopy(model), (example,)), model
    assert torch.equal(example, before) and not example.requires_grad and checked.validation == ""
    mine, plain = example.clone(), example.clone()
    with checked.step() as step:
        output = checked(mine)
        output.sum().backward()
    expected = twin(plain)
    expected.sum().backward()
    assert torch.equal(output, expected) and torch.equal(mine, plain)
    assert torch.equal(checked.linear.weight.grad, model.linear.weight.grad)
    assert step.verdict == "certified", step.text


def test_a_conjugated_buffer_and_input_are_put_back() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("turn", torch.randn(3, dtype=torch.cfloat).conj())
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, z: Tensor) -> Tensor:
            return (z * self.turn).real * self.scale

    z = torch.randn(2, 3, dtype=torch.cfloat).conj()
    checked = fxcheck.instrument(Turned(), (z,))
    with checked.step() as step:
        checked(z).sum().backward()
    assert step.verdict == "certified", step.text


def test_an_expanded_example_that_the_model_writes_to_is_put_back() -> None:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x[0].mul_(2)
            return self.linear(x[:1])

    row = torch.ones(3)
    fxcheck.instrument(First(), (row.expand(4, 3),))
    assert torch.equal(row, torch.ones(3))
