"""What checking a training step costs: ``python tools/bench/runtime.py --data-root DIR [--models ...] [--data ...]``.

For each model and data set, plain and checked steps by turns in one process, on twins with equal weights:

- *check share*: median seconds in the check / median seconds of the plain step (the steady figure; goals are on it);
- *whole step*: median of checked step / plain step, pair by pair (noise below 5-10% on a shared machine);
- the split of the check by stage, and the verdicts;
- with ``--memory``, peak memory of a checked run / of a plain one, each in a process of its own.

``--growth`` shows how the share moves with batch, resolution and the number of ties (ResNet18, VGG11).
Data: ``photo`` (photo_crops.npz), ``sat`` (the same, contrast x2.5 and clipped), ``fashion`` (FashionMNIST).
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "paper"))
import convolutional

import fxcheck
from fxcheck import scan

GOALS = {"compiled": {"resnet": 0.02, "vgg": 0.05, "mobilenet": 0.02}, "torch": {"resnet": 0.08, "vgg": 0.25, "mobilenet": 0.08}}
TORCH_FASHION_RESNET = 0.25
MEMORY_GOAL = 1.1


@dataclass(frozen=True)
class Case:
    """A model, its minibatch and image size."""

    build: Callable[[int], nn.Module]
    batch: int
    size: int
    family: str

    def model(self) -> nn.Module:
        """With the same weights in each run."""
        torch.manual_seed(0)
        return self.build(4)


def _torchvision(name: str) -> Callable[[int], nn.Module]:
    return lambda classes: getattr(torchvision.models, name)(num_classes=classes)


CASES = {
    "resnet18": Case(convolutional.MODELS["resnet18"], 64, 32, "resnet"),
    "resnet50": Case(_torchvision("resnet50"), 8, 224, "resnet"),
    "vgg11": Case(convolutional.MODELS["vgg11"], 128, 32, "vgg"),
    "vgg11-bn": Case(convolutional.MODELS["vgg11-bn"], 128, 32, "vgg"),
    "mobilenet_v2": Case(_torchvision("mobilenet_v2"), 64, 32, "mobilenet"),
    "mobilenet_v2-128": Case(_torchvision("mobilenet_v2"), 16, 128, "mobilenet"),
    "mobilenet_v2-224": Case(_torchvision("mobilenet_v2"), 16, 224, "mobilenet"),
    "mobilenet_v3_large": Case(_torchvision("mobilenet_v3_large"), 64, 32, "mobilenet"),
    "mobilenet_v3_large-128": Case(_torchvision("mobilenet_v3_large"), 16, 128, "mobilenet"),
    "mobilenet_v3_large-224": Case(_torchvision("mobilenet_v3_large"), 16, 224, "mobilenet"),
}
"""By name; a number says that images are enlarged to so many pixels a side."""


def images(name: str, root: str, size: int, count: int) -> Tensor:
    """``count`` float images (count, 3, size, size) between 0 and 1."""
    held = (convolutional.fashion_mnist if name == "fashion" else convolutional.photos)(root)
    pixels, _ = held.batch(torch.arange(count))
    if name == "sat":
        pixels = ((pixels - 0.5) * 2.5 + 0.5).clamp(0, 1)
    return pixels if size == 32 else nn.functional.interpolate(pixels, size=size)


@dataclass
class Timed:
    """Seconds of plain and checked steps, by turns."""

    plain: list[float] = field(default_factory=list)
    checked: list[float] = field(default_factory=list)
    check: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    certified: int = 0
    ties: int = 0

    def to_dict(self) -> dict[str, Any]:
        plain = statistics.median(self.plain)
        pairs = [c / p for c, p in zip(self.checked, self.plain, strict=True)]
        return {
            "plain_ms": 1e3 * plain, "check_ms": 1e3 * statistics.median(self.check),
            "share": statistics.median(self.check) / plain, "whole_step": statistics.median(pairs),
            "stages_ms": {k: 1e3 * statistics.median(v) for k, v in self.stages.items()},
            "certified": self.certified, "steps": len(self.plain), "ties_per_step": self.ties // max(1, len(self.plain)),
        }  # fmt: skip


def measure(model: nn.Module, pixels: Tensor, batch: int, steps: int) -> dict[str, Any]:
    """Train twins by turns; two steps of warm-up are not counted."""
    twin = copy.deepcopy(model)
    checked = fxcheck.instrument(model, (pixels[:batch],))
    optimizers = [torch.optim.SGD(m.parameters(), 0.01, momentum=0.9) for m in (twin, model)]
    timed, generator = Timed(), torch.Generator().manual_seed(0)
    for number in range(steps + 2):
        x = pixels[torch.randint(len(pixels), (batch,), generator=generator)]
        y = torch.randint(4, (batch,), generator=generator)
        plain = _seconds(lambda x=x, y=y: nn.functional.cross_entropy(twin(x), y).backward(), optimizers[0])
        step_holder: list[Any] = []

        def run(x: Tensor = x, y: Tensor = y, held: list[Any] = step_holder) -> None:
            with checked.step() as step:
                nn.functional.cross_entropy(checked(x), y).backward()
            held.append(step)

        whole = _seconds(run, optimizers[1])
        if number >= 2:
            _count(timed, plain, whole, step_holder[0])
    return timed.to_dict()


def _seconds(run: Callable[[], None], optimizer: torch.optim.Optimizer) -> float:
    started = time.perf_counter()
    run()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - started


def _count(timed: Timed, plain: float, whole: float, step: Any) -> None:
    timed.plain.append(plain)
    timed.checked.append(whole)
    timed.check.append(step.check_seconds)
    for stage in {*timed.stages, *step.seconds}:
        timed.stages.setdefault(stage, [0.0] * (len(timed.plain) - 1)).append(step.seconds.get(stage, 0.0))
    timed.certified += step.verdict == "certified"
    timed.ties += sum(layer.ties for layer in step.layers)


# Memory ----------------------------------------------------------------------------------------


def peak_gigabytes(name: str, data: str, root: str, checked: bool) -> float:
    """Peak resident memory of a few steps, measured by a process of its own: a child's usage counts its parent's."""
    command = [sys.executable, __file__, "--data-root", root, "--models", name, "--data", data, "--one-run",
               "checked" if checked else "plain"]  # fmt: skip
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def one_run(case: Case, pixels: Tensor, checked: bool) -> float:
    """Peak gigabytes of four steps of a model, checked or not; capture and validation come before the peak is reset."""
    model = case.model()
    instrumented = fxcheck.instrument(model, (pixels[: case.batch],))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    for number in range(5):
        is_checked = checked or not number
        if number == 1:  # the first step allocates momentum and loads the compiled scans, about 0.1 GB once
            Path("/proc/self/clear_refs").write_text("5")
        with instrumented.step() if is_checked else nullcontext():
            scores = (instrumented if is_checked else model)(pixels[: case.batch])
            nn.functional.cross_entropy(scores, torch.zeros(case.batch, dtype=torch.long)).backward()
            del scores
        optimizer.step()
        optimizer.zero_grad()
    peak = next(li for li in Path("/proc/self/status").read_text().splitlines() if li.startswith("VmHWM"))
    return int(peak.split()[1]) / 2**20


# Tables ----------------------------------------------------------------------------------------


def goal_of(family: str, data: str, path: str) -> float:
    if path == "torch" and family == "resnet" and data == "fashion":
        return TORCH_FASHION_RESNET
    return GOALS[path][family]


def line(name: str, data: str, path: str, goal: float, found: dict[str, Any]) -> str:
    stages = " ".join(f"{k} {v:.1f}" for k, v in found["stages_ms"].items() if v >= 0.05)
    mark = "ok" if found["share"] <= goal else "OVER"
    return (
        f"{name:22} {data:8} {path:9} plain {found['plain_ms']:7.1f} ms  check {found['check_ms']:6.2f} ms  "
        f"share {100 * found['share']:5.2f}% (goal {100 * goal:.0f}%, {mark})  whole {found['whole_step']:.3f}  "
        f"certified {found['certified']}/{found['steps']}  ties {found['ties_per_step']:,}  [{stages}]"
    )


def growth(root: str, steps: int) -> list[tuple[str, dict[str, Any]]]:
    """The share as batch, resolution and the number of ties grow."""
    found = []
    for name in ("resnet18", "vgg11"):
        for batch in (16, 32, 64, 128):
            pixels = images("photo", root, 32, 1024)
            found.append((f"{name} batch {batch}", measure(CASES[name].model(), pixels, batch, steps)))
    for size in (32, 64, 96):
        pixels = images("photo", root, size, 256)
        found.append((f"resnet18 batch 16 at {size}x{size}", measure(CASES["resnet18"].model(), pixels, 16, steps)))
    for flat in (0.0, 0.25, 0.5, 1.0):
        pixels = images("photo", root, 32, 1024).clone()
        pixels[..., : int(32 * flat)] = 0.5
        found.append((f"vgg11 batch 64, {flat:.0%} of each image flat", measure(CASES["vgg11"].model(), pixels, 64, steps)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--models", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--data", nargs="+", default=["photo", "sat", "fashion"], choices=["photo", "sat", "fashion"])
    parser.add_argument("--paths", nargs="+", default=["compiled", "torch"], choices=["compiled", "torch"])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one-run", choices=["plain", "checked"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.one_run:
        case = CASES[options.models[0]]
        print(one_run(case, images(options.data[0], options.data_root, case.size, case.batch), options.one_run == "checked"))
        return 0
    return _tables(options)


def _tables(options: argparse.Namespace) -> int:
    out = sys.stderr if options.json else sys.stdout
    results: dict[str, Any] = {}
    over = 0
    for name in options.models if not options.growth else []:
        case = CASES[name]
        for data in options.data:
            pixels = images(data, options.data_root, case.size, max(256, 4 * case.batch))
            for path in options.paths:
                scan.use(path)
                found = measure(case.model(), pixels, case.batch, options.steps)
                goal = goal_of(case.family, data, path)
                over += found["share"] > goal
                results[f"{name} {data} {path}"] = found
                print(line(name, data, path, goal, found), file=out, flush=True)
        if options.memory:
            peaks = [peak_gigabytes(name, options.data[0], options.data_root, c) for c in (False, True)]
            results[f"{name} memory"] = peaks
            over += peaks[1] / peaks[0] > MEMORY_GOAL
            print(f"{name:22} peak memory {peaks[0]:.2f} GB plain, {peaks[1]:.2f} GB checked, ratio {peaks[1] / peaks[0]:.3f}",
                  file=out, flush=True)  # fmt: skip
    for label, found in growth(options.data_root, options.steps) if options.growth else []:
        results[label] = found
        print(f"{label:36} plain {found['plain_ms']:7.1f} ms  check {found['check_ms']:6.2f} ms  "
              f"share {100 * found['share']:5.2f}%  ties {found['ties_per_step']:,}", file=out, flush=True)  # fmt: skip
    if options.json:
        print(json.dumps(results))
    return int(over > 0)


if __name__ == "__main__":
    sys.exit(main())
