"""The paper's convolutional networks: ``python tools/paper/convolutional.py --data NAME --data-root ROOT``.

Trains VGG11, VGG11-BN (half width) and ResNet18 with every step checked, and writes the rows of the paper's Table 2
beside the paper's. A run replaces what earlier runs wrote for the same data, model and seed, and keeps the rest.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from common import (
    BATCH_SIZE,
    DOCS,
    EPOCHS,
    PAPER,
    Record,
    document,
    environment,
    grouped,
    guarded,
    load,
    mean,
    measured_with,
    number,
    positive,
    progress,
    put,
    save,
    steps_per_epoch,
    table,
    torchvision_dataset,
    train,
)
from torch import Tensor, nn

import fxcheck
from fxcheck.errors import UsageError
from fxcheck.records.step import CERTIFIED, LayerTotals, StepResult, Summary

SHORT_RUN = 200
"""Steps on data that the paper does not use."""
KEPT_REASONS = 5
ROTATION_SEED = 0
KEY = ("data", "model", "seed")
OUTPUT = DOCS / "paper-convolutional.md"

# Data ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Images:
    """Images in memory as uint8, (count, channels, 32, 32), and their labels."""

    pixels: Tensor
    labels: Tensor
    classes: int

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Floats from 0 to 1 in three channels, as ToTensor scales."""
        inputs = self.pixels[indices].float().div_(255).expand(-1, 3, -1, -1)
        return inputs.contiguous(), self.labels[indices]


def cifar10(root: str) -> Images:
    data = torchvision_dataset("CIFAR10", root)
    return Images(torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets), 10)


def fashion_mnist(root: str) -> Images:
    """Padded with zeros to 32x32; ``batch`` repeats the only channel."""
    data = torchvision_dataset("FashionMNIST", root)
    return Images(nn.functional.pad(data.data, (2, 2, 2, 2))[:, None].contiguous(), data.targets.clone(), 10)


def photos(root: str) -> Images:
    """Crops, each turned by 0, 90, 180 or 270 degrees; the label says which.

    Raises:
        UsageError: there is no such file, or it holds something else.
    """
    path = Path(root) / "photo_crops.npz" if Path(root).is_dir() else Path(root)
    try:
        images = np.load(path)["images"]
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise UsageError(
            f"no photo crops in {str(path)!r}", hint="--data-root is photo_crops.npz or the folder that contains it"
        ) from error
    if images.ndim != 4 or images.shape[1:] != (32, 32, 3) or images.dtype != np.uint8:
        raise UsageError(f"the images in {str(path)!r} are not uint8 [count, 32, 32, 3]", hint="save them so")
    upright = torch.from_numpy(images).permute(0, 3, 1, 2)
    turns = torch.randint(4, (len(upright),), generator=torch.Generator().manual_seed(ROTATION_SEED))
    return Images(torch.stack([image.rot90(int(k), (1, 2)) for image, k in zip(upright, turns, strict=True)]), turns, 4)


@dataclass(frozen=True)
class Data:
    """A data set and how the page describes it."""

    title: str
    text: str
    load: Callable[[str], Images]


DATA = {
    "cifar10": Data("CIFAR-10", "The training images of CIFAR-10, without augmentation.", cifar10),
    "fashion-mnist": Data(
        "FashionMNIST",
        "Not the paper's data. The training images of FashionMNIST, padded with zeros from 28x28 to 32x32 and repeated in "
        "three channels: the wide black borders tie in most windows of the first pool.",
        fashion_mnist,
    ),
    "photos": Data(
        "Photo crops",
        "Not the paper's data. 32x32 crops of photographs; each was turned by 0, 90, 180 or 270 degrees (seeded), and the "
        "label says by how much.",
        photos,
    ),
}

# Models ----------------------------------------------------------------------------------------

_HALF_VGG11 = (32, "M", 64, "M", 128, 128, "M", 256, 256, "M", 256, 256, "M")


def vgg11(classes: int, batch_norm: bool = False) -> nn.Sequential:
    """VGG11 for 32x32 images with half the channels and one linear layer."""
    layers: list[nn.Module] = []
    channels = 3
    for width in _HALF_VGG11:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU(inplace=True))
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, classes))


def resnet18(classes: int) -> nn.Module:
    """torchvision's ResNet18 with a 3x3 stem of stride 1; its max-pool stays."""
    model = torchvision.models.resnet18(num_classes=classes)
    model.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    return model


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "vgg11": vgg11,
    "vgg11-bn": functools.partial(vgg11, batch_norm=True),
    "resnet18": resnet18,
}
NAMES = {"vgg11": "VGG11", "vgg11-bn": "VGG11-BN", "resnet18": "ResNet18"}

PAPER_ROWS = {
    "vgg11": ("1,048,576 / 524,288 / 262,144 / 131,072 / 32,768", "3.2 / 0.04 / 2.1e-6 / 1.7e-6 / 0",
              "1435.8 / 166.3 / 44.0 / 18.0 / 0", "1.18 / 1.04 / 1.00 / 1.00 / -"),
    "vgg11-bn": ("1,048,576 / 524,288 / 262,144 / 131,072 / 32,768", "4.1 / 0.07 / 4.5e-6 / 4.2e-6 / 3.5e-6",
                 "3668.5 / 453.0 / 91.0 / 42.0 / 9.0", "1.46 / 1.09 / 1.01 / 1.02 / 1.00"),
    "resnet18": ("2,095,140", "4.2", "3904.8", "1.78"),
}  # fmt: skip
"""Of Table 2, for the pools in order: max outputs a step, share tied in %, steps with a non-trivial tie, their mean size."""
PAPER_STEPS = 7820

# A training ------------------------------------------------------------------------------------


@dataclass
class Uncertified:
    """The first reasons, and every certificate where a folder is given."""

    prefix: str
    folder: Path | None
    steps: list[Record]

    def add(self, at: int, step: StepResult) -> None:
        if step.verdict == CERTIFIED:
            return
        if len(self.steps) < KEPT_REASONS:
            self.steps.append({"step": at, "reason": step.reason, "text": step.text})
        if self.folder is not None and step.certificate is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            step.certificate.save(self.folder / f"{self.prefix}-step{at}.json")


def run(
    data: str, images: Images, model: str, seed: int, steps: int, certificates: Path | None, tick: Callable[[], None]
) -> Record:
    """Train once; ``tick`` is called after every step."""
    torch.manual_seed(seed)
    example, _ = images.batch(torch.arange(min(BATCH_SIZE, len(images.labels))))
    checked = fxcheck.instrument(MODELS[model](images.classes), (example,), exact_ties=True)
    uncertified = Uncertified(f"{data}-{model}-seed{seed}", certificates, [])

    def after(at: int, step: StepResult) -> None:
        uncertified.add(at, step)
        tick()

    clock = train(checked, images.batch, len(images.labels), steps, seed, after)
    return {"data": data, "model": model, "seed": seed, "images": len(images.labels), **counts(checked.summary()),
            "first_uncertified": uncertified.steps, **clock.to_dict(), **environment()}  # fmt: skip


def counts(summary: Summary) -> Record:
    """The columns of Table 2, layer by layer."""
    return {
        "steps": summary.steps, "certified": summary.certified, "uncertified": summary.steps - summary.certified,
        "infeasible": summary.reasons.get("infeasible", 0), "undecided": summary.reasons.get("undecided", 0),
        "pools": [t.to_dict() for t in summary.layers.values() if t.max_outputs],
        "other_layers": [t.to_dict() for t in summary.layers.values() if not t.max_outputs],
        "stage_seconds": summary.seconds,
    }  # fmt: skip


# Markdown --------------------------------------------------------------------------------------

_TEXT = f"""# Convolutional networks with max-pools

Written by `tools/paper/convolutional.py`; the raw numbers are in the JSON file beside this one. The experiment is from
{PAPER}, Table 2, on CIFAR-10: {PAPER_STEPS:,} steps (20 epochs), means over its runs.

VGG11 and VGG11-BN have half the usual channels and five max-pools, ResNet18 has a 3x3 stem of stride 1 and one max-pool.
Batch {BATCH_SIZE}, SGD with learning rate 0.05, momentum 0.9 and weight decay 1e-4, a cosine schedule over the run's
steps. Pixels are scaled to 0 to 1 and not normalised further.

For each max output j, S_j is the set of entries that attain the max, by equality of the computed values, and T_j the
part of it that has the same total gradient as autograd's pick. T_j is computed exactly (`exact_ties=True`). After a ReLU
only windows with max > 0 count as tied: where the max is 0, every entry comes out of the ReLU with slope 0 and the tie
constrains nothing (Algorithm 2). Numbers with slashes are for the pools in order of execution. *Size* is the mean of
abs(S_j minus T_j) over the max outputs where it is not empty.

*Check / plain* divides the median time of a step's check by the median time of the rest of the step (forward, backward,
optimizer). Where there are several runs, counts of steps are means over runs, verdicts are totals.
"""
_HEADER = (
    "model", "runs", "steps", "max outputs a step", "abs(S_j) >= 2, % of max outputs",
    "steps with S_j minus T_j non-empty", "size", "certified / infeasible / undecided", "plain, ms", "check, ms",
    "check / plain, %",
)  # fmt: skip


def render(trainings: list[Record]) -> str:
    """The page: a section for each data set, in a fixed order."""
    found = [name for name in DATA if any(t["data"] == name for t in trainings)]
    sections = [_section(DATA[name], [t for t in trainings if t["data"] == name]) for name in found]
    return "\n".join([_TEXT, *sections])


def _section(data: Data, trainings: list[Record]) -> str:
    order = list(MODELS)
    trainings = sorted(trainings, key=lambda t: (order.index(t["model"]), t["seed"]))
    groups = grouped(trainings, ("model", "steps"))
    rows: list[tuple[str, ...]] = []
    for model in order:
        ours = [_row(group) for (name, _), group in groups.items() if name == model]
        rows += [*ours, _paper_row(model)] if ours else []
    return "\n".join(
        [
            f"## {data.title}\n",
            data.text,
            measured_with(trainings) + "\n",
            table(_HEADER, rows),
            *_reasons(trainings),
            "",
        ]
    )


def _row(group: list[Record]) -> tuple[str, ...]:
    first = group[0]
    pools = [_pooled([t["pools"][k] for t in group]) for k in range(len(first["pools"]))]
    verdicts = [sum(t[name] for t in group) for name in ("certified", "infeasible", "undecided")]
    plain, check = mean(group, "plain_ms_per_step"), mean(group, "check_ms_per_step")
    return (
        NAMES[first["model"]], str(len(group)), f"{first['steps']:,}", _slashed(p.max_outputs / p.steps for p in pools),
        _slashed(None if p.tied_share is None else 100 * p.tied_share for p in pools),
        _slashed(p.nontrivial_steps / len(group) for p in pools), _slashed(p.mean_nontrivial for p in pools),
        " / ".join(f"{n:,}" for n in verdicts), f"{plain:.0f}", f"{check:.1f}", f"{100 * check / plain:.1f}",
    )  # fmt: skip


def _paper_row(model: str) -> tuple[str, ...]:
    return (f"*{NAMES[model]}, the paper, CIFAR-10*", "", f"{PAPER_STEPS:,}", *PAPER_ROWS[model], "all / 0 / 0", "-", "-",
            "77, whole epoch, on a GPU" if model == "resnet18" else "-")  # fmt: skip


def _pooled(layers: list[Record]) -> LayerTotals:
    """One pool over several runs."""
    names = [name for name in LayerTotals.__dataclass_fields__ if name != "name"]
    return LayerTotals(layers[0]["name"], **{name: sum(layer[name] for layer in layers) for name in names})


def _slashed(values: Any) -> str:
    return " / ".join(number(value) for value in values)


def _reasons(trainings: list[Record]) -> list[str]:
    lines = [f"- {NAMES[t['model']]}, seed {t['seed']}, step {s['step']}: {s['reason']}, {s['text']}"
             for t in trainings for s in t["first_uncertified"]]  # fmt: skip
    return [f"\nUncertified steps (the first {KEPT_REASONS} of each run):\n", *lines] if lines else []


# Command line ----------------------------------------------------------------------------------


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(DATA), required=True)
    parser.add_argument("--data-root", required=True,
                        help="root of the torchvision data set; for photos, photo_crops.npz or its folder")  # fmt: skip
    parser.add_argument("--steps", type=positive,
                        help=f"default: {EPOCHS} epochs of cifar10, {SHORT_RUN} steps of the others")  # fmt: skip
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", type=positive, default=1, help="how many trainings of each (default 1)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="Markdown; its JSON goes beside it")
    parser.add_argument("--certificates", type=Path, metavar="DIR", help="save those of uncertified steps here")
    parser.add_argument("--json", action="store_true", help="print the raw numbers, too")
    return parser.parse_args(argv)


def _work(options: argparse.Namespace) -> int:
    images = DATA[options.data].load(options.data_root)
    trainings = load(options.output.with_suffix(".json"))
    steps = options.steps or (EPOCHS * steps_per_epoch(len(images.labels)) if options.data == "cifar10" else SHORT_RUN)
    jobs = [(model, seed) for model in options.models for seed in range(options.seeds)]
    with progress("steps") as bar:
        task = bar.add_task("", total=len(jobs) * steps)
        for model, seed in jobs:
            tick = functools.partial(bar.advance, task)
            put(trainings, run(options.data, images, model, seed, steps, options.certificates, tick), KEY)
            save(options.output, trainings, render)
    if options.json:
        print(document(trainings), end="")
    print(f"wrote {options.output}", file=sys.stderr)
    return 0


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    return guarded(lambda: _work(options))


if __name__ == "__main__":
    sys.exit(main())
