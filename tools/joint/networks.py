"""The networks of the joint condition's experiments: weights that are used again, maxima and losses that split ties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import convolutional
import tasks
import torch
from common import BATCH_SIZE
from torch import Tensor, nn

STEPS, STEPS_IN_BF16 = 200, 20
HIDDEN = 128
APPLICATIONS = 6
MARGIN = 1.0


class ElmanRNN(nn.Module):
    """``nn.RNN`` with ReLU over the rows of an image; the last state is classified."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(28, HIDDEN, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(HIDDEN, classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.rnn(x)
        return self.head(states[:, -1])


class UnrolledRNN(nn.Module):
    """The same recurrence as a loop over the rows."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.of_input = nn.Linear(28, HIDDEN)
        self.of_state = nn.Linear(HIDDEN, HIDDEN)
        self.head = nn.Linear(HIDDEN, classes)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], HIDDEN)
        for row in range(x.shape[1]):
            state = torch.relu(self.of_input(x[:, row]) + self.of_state(state))
        return self.head(state)


class Siamese(nn.Module):
    """Two images through one encoder."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 7 * 7, 32),
        )  # fmt: skip

    def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder(one), self.encoder(other)


def contrastive(codes: tuple[Tensor, Tensor], same: Tensor) -> Tensor:
    """Pull codes of one class together, push others apart up to a margin (Hadsell, Chopra, LeCun, CVPR 2006)."""
    distance = nn.functional.pairwise_distance(*codes)
    return (same * distance**2 + (1 - same) * nn.functional.relu(MARGIN - distance) ** 2).mean()


class TiedAutoencoder(nn.Module):
    """784-128-32-128-784; the decoder's weights are the encoder's, transposed."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.outer, self.inner = nn.Linear(784, 128), nn.Linear(128, 32)
        self.inner_bias, self.outer_bias = nn.Parameter(torch.zeros(128)), nn.Parameter(torch.zeros(784))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.relu(self.inner(torch.relu(self.outer(x))))
        hidden = torch.relu(nn.functional.linear(code, self.inner.weight.t(), self.inner_bias))
        return torch.relu(nn.functional.linear(hidden, self.outer.weight.t(), self.outer_bias))


class WindowMax(nn.Module):
    """A 2x2 max-pool as ``amax`` over unfolded windows, which splits the gradient among ties."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))


class GlobalMax(nn.Module):
    """The largest entry of each channel, by ``amax``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3), keepdim=True)


def resnet18_amax(classes: int) -> nn.Module:
    """ResNet18 with a 3x3 stem of stride 1; ``amax`` in place of the max-pool and of the head's average pool."""
    model = convolutional.resnet18(classes)
    model.maxpool, model.avgpool = WindowMax(), GlobalMax()
    return model


class Repeated(nn.Module):
    """One convolution and ReLU, applied several times to the same injected input, as a DEQ's solver does."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.inject = nn.Conv2d(1, 32, 3, stride=2, padding=1)
        self.again = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        injected = self.inject(x)
        z = torch.zeros_like(injected)
        for _ in range(APPLICATIONS):
            z = torch.relu(self.again(z) + injected)
        return self.head(z.mean((2, 3)))


@dataclass(frozen=True)
class Network:
    """A network, what it learns and how the page describes it."""

    title: str
    text: str
    task: tasks.Load
    build: Callable[[int], nn.Module]
    """From the number of classes."""
    loss: Callable[[Any, Tensor], Tensor] = nn.functional.cross_entropy
    kinked_loss: bool = False
    """Given to ``instrument``, so that its kinks are checked."""
    batch: int = BATCH_SIZE
    steps: int = STEPS
    exact_ties: bool = False


def _paper(data: str, model: str) -> Network:
    """A training of ``tools/paper/convolutional.py``, with its data, order of samples and settings."""
    title = f"{convolutional.NAMES[model]}, {convolutional.DATA[data].title}"
    text = "as in [the paper's second experiment](paper-convolutional.md)"
    return Network(title, text, tasks.coloured(data), convolutional.MODELS[model], exact_ties=True)


def _in_bf16(network: Network, batch: int) -> Network:
    """The same network with parameters and inputs in bfloat16, where far more entries touch and tie."""

    def build(classes: int) -> nn.Module:
        return network.build(classes).to(torch.bfloat16)

    return replace(
        network, title=f"{network.title}, bf16", text="parameters and inputs in bfloat16", build=build, batch=batch,
        task=tasks.in_dtype(network.task, torch.bfloat16), steps=STEPS_IN_BF16, exact_ties=False,
    )  # fmt: skip


_PAPER_DATA = ("photos", "fashion-mnist")
_UNROLLED = Network("Elman RNN, unrolled", "the same recurrence as a loop over the rows", tasks.mnist_rows, UnrolledRNN)
WITH_MAX_POOLS = {
    **{f"{model}-{data}": _paper(data, model) for data in _PAPER_DATA for model in convolutional.MODELS},
    **{f"resnet18-bf16-{data}": _in_bf16(_paper(data, "resnet18"), batch=16) for data in _PAPER_DATA},
}
"""Networks that T8 covers, in which P_l may be empty."""
NETWORKS: dict[str, Network] = {
    "rnn": Network(
        "Elman RNN", f"`nn.RNN` with ReLU and {HIDDEN} states over the rows of MNIST images", tasks.mnist_rows, ElmanRNN,
    ),
    "rnn-unrolled": _UNROLLED,
    "rnn-unrolled-bf16": _in_bf16(_UNROLLED, BATCH_SIZE),
    "siamese": Network(
        "Siamese CNN", "pairs of FashionMNIST images through one conv/ReLU/max-pool encoder, contrastive loss",
        tasks.fashion_pairs, Siamese, contrastive, kinked_loss=True,
    ),
    "autoencoder": Network(
        "Tied autoencoder", "784-128-32-128-784 with transposed weights, ReLU on the output, L1 loss, FashionMNIST",
        tasks.fashion_itself, TiedAutoencoder, nn.functional.l1_loss, kinked_loss=True,
    ),
    "deq": Network(
        "Repeated block", f"one convolution and ReLU applied {APPLICATIONS} times to an injected input, FashionMNIST",
        tasks.fashion_images, Repeated,
    ),
    "resnet18-amax": Network(
        "ResNet18 with amax", "`amax` over unfolded windows and over the plane in place of both pools, photo crops",
        tasks.coloured("photos"), resnet18_amax, batch=64,
    ),
    **WITH_MAX_POOLS,
}  # fmt: skip
