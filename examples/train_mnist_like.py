"""Train on images that look like scanned digits, and ask of every step whether its gradient is a subgradient.

The pictures are drawn here: 8-bit strokes on a black ground. Equal pixels tie inside pooling windows all the time;
nearly all these ties are harmless, and the check says so step by step.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import fxcheck
from fxcheck.render.run import print_run

CLASSES, BATCH, STEPS = 4, 32, 40


def pictures(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Strokes at one of four places, brightness in steps of 1/255."""
    labels = torch.randint(CLASSES, (count,), generator=generator)
    images = torch.zeros(count, 1, 16, 16)
    for image, label in zip(images, labels, strict=True):
        row, shift = 2 + 3 * int(label), int(torch.randint(3, (1,), generator=generator))
        image[0, row : row + 3, 2 + shift : 12 + shift] = torch.randint(120, 256, (3, 10), generator=generator) / 255
    return images, labels


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, CLASSES),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", type=Path, help="folder for the certificate of the last step")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model, criterion = network(), nn.CrossEntropyLoss()
    checked = fxcheck.instrument(model, (pictures(BATCH, generator)[0],))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        images, labels = pictures(BATCH, generator)
        optimizer.zero_grad()
        with checked.step() as step:
            loss = criterion(checked(images), labels)
            loss.backward()
        optimizer.step()
        if step.verdict != "certified":
            print(f"uncertified ({step.reason}): {step.text}")

    print(f"last loss {loss.item():.3f}")
    print_run(checked.summary())
    if arguments.save is not None:
        arguments.save.mkdir(parents=True, exist_ok=True)
        step.certificate.save(arguments.save / "step.json")


if __name__ == "__main__":
    main()
