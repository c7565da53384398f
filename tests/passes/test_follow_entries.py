"""Labels of bias entries against autograd: what moves what, at every size of the minibatch (theory 5.5)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from fxcheck.passes.annotate import annotate
from fxcheck.passes.find_biases import find_biases
from fxcheck.passes.follow_entries import follow_entries
from torch import Tensor, nn

from fxcheck.capture.export import capture
from fxcheck.capture.lower import lower
from fxcheck.records.bias import Moved

Body = Callable[[Tensor], Tensor]
FEATURES = 4


class Layer(nn.Module):
    """A layer with one bias, and what follows it."""

    def __init__(self, body: Body, features: int) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("weight", torch.randn(features, 3, generator=torch.Generator().manual_seed(0)).double())
        self.bias = nn.Parameter(torch.zeros(features, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(F.linear(x, self.weight, self.bias))


def followed(body: Body, samples: int, features: int = FEATURES) -> Moved | None:
    """What is found about the output, as a pre-activation."""
    graph = lower(capture(Layer(body, features), (torch.ones(samples, 3, dtype=torch.float64),)))
    facts = annotate(graph)
    (output,) = graph.outputs
    return follow_entries(facts, {}, find_biases(facts, {}, [output]), 0).get(output)


def differentiated(body: Body, samples: int, features: int = FEATURES) -> tuple[Moved, bool]:
    """The same by autograd, and whether each output entry is moved by one entry of the bias at most."""
    layer = Layer(body, features)
    x = torch.ones(samples, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda b: body(F.linear(x, layer.weight, b)), layer.bias)
    rows = jacobian.reshape(-1, features)

    def mask(chosen: Tensor) -> int:
        return sum(1 << i for i in range(features) if chosen[i])

    moved = Moved(mask((rows > 0).any(0)), mask((rows < 0).any(0)), mask((rows != 0).sum(0) > 1))
    return moved, bool(((rows != 0).sum(1) <= 1).all())


FOLLOWED: dict[str, tuple[Body, int]] = {
    "slice": (lambda y: y[:, 1:3], 4),
    "step": (lambda y: y[:, ::2], 4),
    "chunk": (lambda y: y.chunk(2, 1)[1], 4),
    "split": (lambda y: y.split([1, 3], 1)[1], 4),
    "unbind": (lambda y: y.unflatten(1, (2, 2)).unbind(1)[1], 4),
    "cat": (lambda y: torch.cat([-y[:, 2:], y[:, :1]], 1), 4),
    "stack": (lambda y: torch.stack([y, -2 * y], 1), 4),
    "flip": (lambda y: y[:, :3].flip(1), 4),
    "flip samples": (lambda y: y[:, :3].flip(0), 4),
    "roll": (lambda y: y.roll(1, 1)[:, :2], 4),
    "repeat": (lambda y: y[:, :2].repeat(1, 3), 4),
    "repeat_interleave": (lambda y: y[:, 2:].repeat_interleave(2, 1), 4),
    "expand": (lambda y: y[:, :2, None].expand(-1, -1, 3), 4),
    "permute": (lambda y: y.unflatten(1, (2, 2)).permute(0, 2, 1)[:, 0], 4),
    "reshape": (lambda y: y.reshape(-1, 2, 2)[:, 1], 4),
    "pad": (lambda y: F.pad(y, (2, -1)), 4),
    "reflect": (lambda y: F.pad(y[:, None], (2, 0), mode="reflect")[:, 0, :3], 4),
    "pixel_shuffle": (lambda y: F.pixel_shuffle(y.unflatten(1, (4, 1, 3)), 2)[..., :1, :], 12),
    "channel_shuffle": (lambda y: F.channel_shuffle(y.unflatten(1, (4, 1, 1)), 2)[:, :2], 4),
    "nearest": (lambda y: F.interpolate(y[:, None], scale_factor=2.0)[..., :3], 4),
    "sum with itself": (lambda y: y[:, :2] + 3 * y[:, :2], 4),
    "sum with data": (lambda y: y[:, :2] + torch.ones(2), 4),
    "sum of disjoint entries": (lambda y: F.pad(y[:, :2], (0, 2)) - F.pad(y[:, 2:], (2, 0)), 4),
    "minus": (lambda y: 1 - y[:, 1:], 4),
    "quotient": (lambda y: y[:, 1:] / -2, 4),
    "positive factor": (lambda y: y[:, 1:] * torch.ones(3).exp(), 4),
}  # fmt: skip


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("name", FOLLOWED)
def test_labels_say_what_autograd_says_at_every_minibatch_size(name: str, samples: int) -> None:
    body, features = FOLLOWED[name]
    found = followed(body, samples, features)
    assert found is not None
    for size in (1, 2, 4, 7):
        wanted, one_each = differentiated(body, size, features)
        assert one_each and (found.up, found.down) == (wanted.up, wanted.down)
    assert found.repeated == differentiated(body, 1, features)[0].repeated


NOT_FOLLOWED: dict[str, Body] = {
    "sum with its mirror image": lambda y: y + y.flip(1),
    "minus itself": lambda y: y - 2 * y,
    "mean": lambda y: y.mean(1),
    "product with data of both signs": lambda y: y * torch.tensor([1.0, -1.0, 1.0, 1.0]),
    "all samples in a row": lambda y: y.reshape(-1)[::2],
    "rows of the transpose": lambda y: y.t()[:2],
    "some samples": lambda y: y[:1],
    "samples beside each other": lambda y: torch.cat([y, y], 0),
    "roll by the number of samples": lambda y: y.roll(y.shape[0], 1)[:, :2],
    "feature chosen by the number of samples": lambda y: y[:, y.shape[0] % 2, None],
    "index tensor": lambda y: y[:, torch.tensor([0, 2])],
    "mask of data": lambda y: torch.where(torch.ones(4) > 0, y, 0.0),
    "samples behind another dimension": lambda y: y + torch.ones(3, 1, 1),
    "square": lambda y: y * y,
    "detach": lambda y: y.detach() + y[:, :1] * 0,
}


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_labels_end_where_entries_or_samples_may_mix(name: str) -> None:
    assert followed(NOT_FOLLOWED[name], 4) is None


def test_samples_of_a_fixed_minibatch_do_not_mix_either() -> None:
    """One sample: no size is left open, and what would mix several is still not followed."""
    for name in ("all samples in a row", "rows of the transpose", "samples beside each other"):
        assert followed(NOT_FOLLOWED[name], 1) is None


def test_tensors_that_are_too_large_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert followed(lambda y: y, 2) is not None
    monkeypatch.setattr("fxcheck.passes.follow_entries.MOST_LABELS", FEATURES - 1)
    assert followed(lambda y: y, 2) is None
