"""The user's model is left as it was, whether the capture succeeds or not."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from fxcheck.capture.export import capture
from fxcheck.capture.lower import lower
from fxcheck.errors import CaptureError


class Model(nn.Module):
    def __init__(self, fails: bool = False):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout()
        self.register_buffer("odd", torch.tensor([-0.0, float("nan"), float("inf")]))
        self.seen: list[int] = [1]
        self.fails = fails

    def forward(self, x):
        self.seen.append(len(self.seen))
        self.cached = x
        random.random()
        np.random.rand()
        torch.rand(3)
        if self.fails:
            raise ValueError("no such thing")
        return self.drop(self.norm(self.linear(x)))


def _bits(model: nn.Module) -> dict[str, bytes]:
    return {k: v.detach().contiguous().numpy().tobytes() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval", "keep"])
def test_flags_buffers_gradients_attributes_and_generators_are_restored(mode: str, fails: bool) -> None:
    model = Model(fails).eval()
    model.drop.train()
    model.linear.weight.requires_grad_(False)
    model.linear.bias.grad = torch.ones(4)
    grad, history, before = model.linear.bias.grad, model.seen, _bits(model)
    flags = [m.training for m in model.modules()]
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    if fails:
        with pytest.raises(CaptureError, match="no such thing"):
            capture(model, (torch.zeros(3, 4),), mode=mode)
    else:
        capture(model, (torch.zeros(3, 4),), mode=mode)
    assert [m.training for m in model.modules()] == flags
    assert _bits(model) == before
    assert model.linear.bias.grad is grad
    assert [p.requires_grad for p in model.linear.parameters()] == [False, True]
    assert model.seen is history
    assert history == [1]
    assert not hasattr(model, "cached")
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert np.random.get_state()[1].tolist() == generators[2]


def test_the_model_still_trains_after_a_capture() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True)), torch.randn(5, 4)
    twin = copy.deepcopy(model)
    capture(model, (x,))
    for m in (model, twin):
        m(x).sum().backward()
    assert torch.equal(model[0].weight.grad, twin[0].weight.grad)
    assert torch.equal(model[1].running_mean, twin[1].running_mean)


def test_a_graph_that_awaits_its_backward_survives_a_capture() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), torch.randn(5, 4)
    loss = model(x).square().sum()
    capture(model, (x,))
    loss.backward()
    assert model[0].weight.grad is not None


def test_an_override_of_train_is_obeyed_and_what_it_freezes_is_not_trainable() -> None:
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 4)

        def train(self, mode: bool = True):
            super().train(mode)
            self.body.requires_grad_(False)
            return self

        def forward(self, x):
            return self.head(self.body(x))

    model = Frozen()
    graph = lower(capture(model, (torch.zeros(3, 4),)))
    assert set(graph.trainable.values()) == {"head.weight", "head.bias"}
    assert all(p.requires_grad for p in model.parameters())


def test_modes_set_what_the_submodules_do() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].eval()

    def uses_batch_statistics(mode: str) -> bool:
        graph = lower(capture(model, (torch.zeros(3, 4),), mode=mode))
        return bool(next(n for n in graph.nodes if n.op == "aten.batch_norm.default").arguments["training"])

    assert [uses_batch_statistics(m) for m in ("train", "eval", "keep")] == [True, False, False]


def test_capturing_allocates_no_activations() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4096, 3), nn.ReLU(), nn.Conv2d(4096, 4, 3))
    x = torch.zeros(64, 3, 512, 512, device="meta")  # activations: 64 x 4096 x 510 x 510 floats, 270 GB
    graph = lower(capture(model, (x,)))
    assert next(n for n in graph.nodes if n.op == "aten.relu.default").shape == (64, 4096, 510, 510)


class Memory(nn.Module):
    """Replaces, by every way that Python has, what its attributes hold."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.tensors, self.arrays, self.by_name = [torch.zeros(3, 2)], [np.zeros(3)], {"a": torch.zeros(3, 2)}
        self.data, self.in_place = torch.zeros(3, 2), torch.zeros(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.linear(x))
        self.tensors[0], self.arrays[0], self.by_name["a"] = y.detach(), self.arrays[0] + 1, y.detach()
        self.data.data = y.detach()
        return y


def test_what_containers_and_plain_tensors_hold_is_restored() -> None:
    model = Memory()
    held = model.tensors[0], model.arrays[0], model.by_name["a"], model.data
    capture(model, (torch.ones(3, 2),))
    assert all(a is b for a, b in zip(held, (model.tensors[0], model.arrays[0], model.by_name["a"], model.data), strict=True))
    assert model.data.device.type == "cpu" and not model.data.any()
