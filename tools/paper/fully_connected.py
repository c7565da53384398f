"""The paper's fully connected networks: ``python tools/paper/fully_connected.py --data-root ROOT [--jobs N]``.

Trains 784-256-64 networks on MNIST with every step checked, and writes how often kinks were touched and what decided
those steps, beside the paper's numbers. Trainings of earlier runs with other activations or seeds are kept.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
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
    outcome,
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
from fxcheck.records.step import StepResult

ACTIVATIONS = {"relu6": nn.ReLU6, "hardtanh": nn.Hardtanh, "hardsigmoid": nn.Hardsigmoid}
PAPER_TOUCHES = {"relu6": "0", "hardtanh": "9.8", "hardsigmoid": "13.8"}
MEAN, DEVIATION = 0.1307, 0.3081
"""Of the pixels of MNIST."""
KEY = ("activation", "seed", "normalised")
OUTPUT = DOCS / "paper-fully-connected.md"


@dataclass(frozen=True)
class Job:
    """One training."""

    activation: str
    seed: int
    epochs: int
    data_root: str
    normalise: bool


@dataclass(frozen=True)
class Images:
    """One half of MNIST as tensors: (count, 784) floats and labels."""

    inputs: Tensor
    labels: Tensor

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.inputs[indices], self.labels[indices]


def mnist(root: str, train_half: bool, normalise: bool) -> Images:
    """All images at once, scaled as by ToTensor."""
    data = torchvision_dataset("MNIST", root, train_half)
    inputs = data.data.flatten(1).float().div_(255)
    if normalise:
        inputs.sub_(MEAN).div_(DEVIATION)
    return Images(inputs, data.targets.clone())


def network(activation: str) -> nn.Sequential:
    """784-256-64; the second activation is the output, of which ten entries are the labels'."""
    sigma = ACTIVATIONS[activation]
    return nn.Sequential(nn.Linear(784, 256), sigma(), nn.Linear(256, 64), sigma())


class Touches:
    """The steps in which an entry sat on a kink, and what decided them."""

    def __init__(self) -> None:
        self.steps: list[Record] = []

    def add(self, at: int, step: StepResult) -> None:
        touched = {layer.name: layer.touched for layer in step.layers if layer.touched}
        if touched or step.reason is not None:
            self.steps.append({"step": at, "touched": touched, "outcome": outcome(step), "text": step.text})


def run(job: Job, tick: Callable[[], None]) -> Record:
    """Train once; ``tick`` is called after every epoch."""
    torch.manual_seed(job.seed)
    images = mnist(job.data_root, True, job.normalise)
    model = network(job.activation)
    checked = fxcheck.instrument(model, (images.inputs[:BATCH_SIZE],), exact_ties=True)
    touches, epoch = Touches(), steps_per_epoch(len(images.labels))

    def after(at: int, step: StepResult) -> None:
        touches.add(at, step)
        if (at + 1) % epoch == 0:
            tick()

    clock = train(checked, images.batch, len(images.labels), job.epochs * epoch, job.seed, after)
    summary = checked.summary()
    return {
        "activation": job.activation, "seed": job.seed, "epochs": job.epochs, "normalised": job.normalise,
        "steps": summary.steps, "certified": summary.certified, "uncertified": summary.steps - summary.certified,
        "touched": sum(t.touched for t in summary.layers.values()),
        "touched_steps": sum(bool(s["touched"]) for s in touches.steps),
        "outcomes": dict(Counter(s["outcome"] for s in touches.steps)), "at": touches.steps,
        "layers": [t.to_dict() for t in summary.layers.values()],
        "test_accuracy": accuracy(checked, mnist(job.data_root, False, job.normalise)),
        **clock.to_dict(), **environment(),
    }  # fmt: skip


@torch.no_grad()
def accuracy(model: nn.Module, images: Images) -> float:
    """Share of images whose largest output is their label."""
    model.eval()
    return float((model(images.inputs).argmax(1) == images.labels).float().mean())


# One process or several ------------------------------------------------------------------------

_epochs_done: Any = None
"""In a worker: the counter that it shares with the main process."""


def _start_worker(epochs_done: Any) -> None:
    global _epochs_done
    _epochs_done = epochs_done
    torch.set_num_threads(1)


def _run_in_worker(job: Job) -> Record:
    def tick() -> None:
        with _epochs_done.get_lock():
            _epochs_done.value += 1

    return run(job, tick)


def run_here(jobs: list[Job], show: Callable[[int], None]) -> Iterator[Record]:
    """One training after the other, on one thread."""
    threads, epochs_done = torch.get_num_threads(), 0

    def tick() -> None:
        nonlocal epochs_done
        epochs_done += 1
        show(epochs_done)

    torch.set_num_threads(1)
    try:
        for job in jobs:
            yield run(job, tick)
    finally:
        torch.set_num_threads(threads)


def run_in_processes(jobs: list[Job], processes: int, show: Callable[[int], None]) -> Iterator[Record]:
    """Trainings as they end; ``show`` gets the number of epochs done."""
    context = multiprocessing.get_context("spawn")
    epochs_done = context.Value("i", 0)
    pool = ProcessPoolExecutor(processes, context, _start_worker, (epochs_done,))
    try:
        pending: set[Future[Record]] = {pool.submit(_run_in_worker, job) for job in jobs}
        while pending:
            ended, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            show(epochs_done.value)
            for future in ended:
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


# Markdown --------------------------------------------------------------------------------------

_TEXT = f"""# Fully connected networks on MNIST

Written by `tools/paper/fully_connected.py`; the raw numbers are in the JSON file beside this one. The experiment is from
{PAPER}.

784-256-64, where the second activation is the output and goes to the cross-entropy with the labels 0 to 9; batch
{BATCH_SIZE}, SGD with learning rate 0.05, momentum 0.9 and weight decay 1e-4, a cosine schedule over the run. A *touch*
is a pre-activation entry that equals a kink exactly. PyTorch's slope is 0 at both kinks of each of these activations,
so no static theorem covers all steps, and every step with a touch is decided on its own: by T5 or, failing that, T8.

*Plain* is the time of a step (forward, backward, optimizer) outside the check, *check* the time in it: medians over the
steps of a training, then means over trainings, which may have shared the machine with each other. The *test accuracy*
takes the first of the largest outputs; clipped outputs often tie.
"""


def render(trainings: list[Record]) -> str:
    """The page: one line for each activation, one for each training, and what was not certified."""
    order = list(ACTIVATIONS)
    trainings = sorted(trainings, key=lambda t: (order.index(t["activation"]), t["seed"]))
    groups = grouped(trainings, ("activation", "epochs", "normalised")).values()
    return "\n".join([
        _TEXT,
        table(("activation", "trainings", "epochs", "steps each", "touches a training", "the paper's",
               "steps with a touch", "decided by", "uncertified steps", "test accuracy, %", "plain, ms", "check, ms",
               "check / plain, %"), map(_group_row, groups)),
        f"\n{measured_with(trainings)} In the paper T5 held at every touch.\n\n## Trainings\n",
        table(("activation", "seed", "epochs", "touches by layer", "steps with a touch by layer", "decided by",
               "uncertified steps", "test accuracy, %", "plain, s", "check, s"), map(_training_row, trainings)),
        *_open_steps(trainings), "",
    ])  # fmt: skip


def _group_row(group: list[Record]) -> tuple[str, ...]:
    first = group[0]
    outcomes: Counter[str] = sum((Counter(t["outcomes"]) for t in group), Counter())
    plain, check = mean(group, "plain_ms_per_step"), mean(group, "check_ms_per_step")
    return (
        _name(first), str(len(group)), str(first["epochs"]), number(mean(group, "steps")), number(mean(group, "touched")),
        PAPER_TOUCHES[first["activation"]], number(mean(group, "touched_steps")), _outcomes(outcomes),
        str(sum(t["uncertified"] for t in group)), _spread([100 * t["test_accuracy"] for t in group]),
        f"{plain:.2f}", f"{check:.2f}", f"{100 * check / plain:.1f}",
    )  # fmt: skip


def _training_row(t: Record) -> tuple[str, ...]:
    return (
        _name(t), str(t["seed"]), str(t["epochs"]), " / ".join(str(layer["touched"]) for layer in t["layers"]),
        " / ".join(str(layer["touched_steps"]) for layer in t["layers"]), _outcomes(t["outcomes"]),
        str(t["uncertified"]), f"{100 * t['test_accuracy']:.2f}", f"{t['plain_seconds']:.1f}", f"{t['check_seconds']:.1f}",
    )  # fmt: skip


def _name(training: Record) -> str:
    name = ACTIVATIONS[training["activation"]].__name__
    return f"{name}, normalised inputs" if training["normalised"] else name


def _outcomes(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(outcomes.items())) or "-"


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _open_steps(trainings: Iterable[Record]) -> list[str]:
    lines = [f"- {_name(t)}, seed {t['seed']}, step {s['step']}: {s['outcome']}, {s['text']}"
             for t in trainings for s in t["at"] if s["text"]]  # fmt: skip
    return ["\n## Uncertified steps\n", *lines] if lines else []


# Command line ----------------------------------------------------------------------------------


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="root of torchvision.datasets.MNIST")
    parser.add_argument("--epochs", type=positive, default=EPOCHS)
    parser.add_argument("--seeds", type=positive, default=5, help="how many trainings of each (default 5)")
    parser.add_argument("--activations", nargs="+", choices=list(ACTIVATIONS), default=list(ACTIVATIONS))
    parser.add_argument("--jobs", type=positive, default=1, help="processes of one thread each")
    parser.add_argument("--normalise", action="store_true", help="subtract the pixels' mean, divide by their deviation")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="Markdown; its JSON goes beside it")
    parser.add_argument("--json", action="store_true", help="print the raw numbers, too")
    return parser.parse_args(argv)


def _work(options: argparse.Namespace) -> int:
    torchvision_dataset("MNIST", options.data_root, False)  # complain before any process starts
    trainings = load(options.output.with_suffix(".json"))
    jobs = [Job(name, seed, options.epochs, options.data_root, options.normalise)
            for name in options.activations for seed in range(options.seeds)]  # fmt: skip
    with progress("epochs") as bar:
        task = bar.add_task("", total=len(jobs) * options.epochs)

        def show(epochs_done: int) -> None:
            bar.update(task, completed=epochs_done)

        several = options.jobs > 1
        for record in run_in_processes(jobs, options.jobs, show) if several else run_here(jobs, show):
            put(trainings, record, KEY)
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
