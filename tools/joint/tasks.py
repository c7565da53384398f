"""What the networks of the joint condition's experiments learn: minibatches of inputs and targets, from data on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import convolutional
import torch
from common import torchvision_dataset
from torch import Tensor

PAIR_SEED = 0


@dataclass(frozen=True)
class Task:
    """Samples to learn from."""

    count: int
    """Training samples."""
    classes: int
    batch: Callable[[Tensor], tuple[tuple[Tensor, ...], Tensor]]
    """From the indices of a minibatch to the network's inputs and the target of its loss."""


Load = Callable[[str], Task]
"""From ``--data-root`` to a task."""


def mnist_rows(root: str) -> Task:
    """MNIST: an image is a sequence of 28 rows of 28 pixels."""
    pixels, labels = _grey("MNIST", root)
    return Task(len(labels), 10, lambda at: ((_scaled(pixels[at]),), labels[at]))


def fashion_images(root: str) -> Task:
    """FashionMNIST, (batch, 1, 28, 28)."""
    pixels, labels = _grey("FashionMNIST", root)
    return Task(len(labels), 10, lambda at: ((_scaled(pixels[at])[:, None],), labels[at]))


def fashion_itself(root: str) -> Task:
    """FashionMNIST, (batch, 784); the target is the image."""
    pixels, labels = _grey("FashionMNIST", root)

    def batch(at: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        flat = _scaled(pixels[at]).flatten(1)
        return (flat,), flat

    return Task(len(labels), 10, batch)


def fashion_pairs(root: str) -> Task:
    """Pairs of FashionMNIST, every second one of a single class; the target is 1 for those and 0 for others."""
    pixels, labels = _grey("FashionMNIST", root)
    partner = _partners(labels)

    def batch(at: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        other = partner[at]
        images = (_scaled(pixels[at])[:, None], _scaled(pixels[other])[:, None])
        return images, (labels[at] == labels[other]).float()

    return Task(len(labels), 2, batch)


def coloured(data: str) -> Load:
    """A data set of the convolutional experiments, (batch, 3, 32, 32)."""

    def load(root: str) -> Task:
        images = convolutional.DATA[data].load(root)

        def batch(at: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            inputs, labels = images.batch(at)
            return (inputs,), labels

        return Task(len(images.labels), images.classes, batch)

    return load


def in_dtype(load: Load, dtype: torch.dtype) -> Load:
    """The same task with inputs of another dtype."""

    def converted(root: str) -> Task:
        task = load(root)

        def batch(at: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            inputs, target = task.batch(at)
            return tuple(x.to(dtype) for x in inputs), target

        return replace(task, batch=batch)

    return converted


def _grey(name: str, root: str) -> tuple[Tensor, Tensor]:
    data = torchvision_dataset(name, root)
    return data.data, data.targets.clone()


def _scaled(pixels: Tensor) -> Tensor:
    """Floats from 0 to 1, as ToTensor scales."""
    return pixels.float().div_(255)


def _partners(labels: Tensor) -> Tensor:
    """For each sample another one (seeded): of its class at even indices, of any class at odd ones."""
    generator = torch.Generator().manual_seed(PAIR_SEED)
    found = torch.randperm(len(labels), generator=generator)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        mixed = members[torch.randperm(len(members), generator=generator)]
        found[members] = torch.where(members % 2 == 0, mixed, found[members])
    return found
