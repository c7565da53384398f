"""One training with every step checked, plain steps of a twin in between, and what is kept of it."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from common import BATCH_SIZE, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Record, batches, environment, outcome
from counts import WARM_UP, Seen, counted
from networks import Network
from tasks import Task
from torch import Tensor, nn

import fxcheck
from fxcheck import CheckedModule, UncoveredModel
from fxcheck.records.step import CERTIFIED, StepResult


@dataclass(frozen=True)
class Settings:
    """Of a run."""

    seed: int
    """Of the parameters and of the order of samples."""
    steps: int
    """Length of the run and of its cosine schedule."""
    plain_every: int
    """The twin takes a plain step before every such checked one."""
    allow_uncovered: bool
    certificates: Path | None
    """Folder for the certificates of steps with rows, named by seed and step."""


@dataclass
class Trainee:
    """A module with its own optimizer and schedule."""

    module: nn.Module
    network: Network
    steps: int
    optimizer: torch.optim.Optimizer = field(init=False)
    schedule: torch.optim.lr_scheduler.LRScheduler = field(init=False)

    def __post_init__(self) -> None:
        rate = LEARNING_RATE * self.network.batch / BATCH_SIZE
        self.optimizer = torch.optim.SGD(self.module.parameters(), rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, self.steps)

    def update(self) -> None:
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()


def train(network: Network, task: Task, settings: Settings, tick: Callable[[], None]) -> Record:
    """Train once.

    Args:
        network: what to train.
        task: on what.
        settings: of the run.
        tick: called after each checked step.

    Returns:
        The record of the training; with ``refused`` and no counts where no theorem of fxcheck covers the network.
    """
    torch.manual_seed(settings.seed)
    started = time.perf_counter()
    about = {"seed": settings.seed, "batch": network.batch, "steps": settings.steps, **environment()}
    model = network.build(task.classes)
    twin = Trainee(copy.deepcopy(model), network, settings.steps)
    try:
        checked = _instrument(model, network, task, settings)
    except UncoveredModel as error:
        return {**about, "refused": error.message}
    seen, backwards = [], []
    for step, backward in _steps(Trainee(checked, network, settings.steps), twin, task, settings):
        seen.append(step)
        backwards += backward
        tick()
    return {**about, **counted(seen, statistics.median(backwards[WARM_UP:] or backwards)),
            "layers": [t.to_dict() for t in checked.summary().layers.values()],
            "stage_seconds": checked.summary().seconds, "seconds": time.perf_counter() - started}  # fmt: skip


def _instrument(model: nn.Module, network: Network, task: Task, settings: Settings) -> CheckedModule:
    inputs, target = task.batch(torch.arange(min(network.batch, task.count)))
    loss = {"loss": network.loss, "target": target} if network.kinked_loss else {}
    ties = network.exact_ties
    return fxcheck.instrument(model, inputs, allow_uncovered=settings.allow_uncovered, exact_ties=ties, **loss)


def _steps(trained: Trainee, twin: Trainee, task: Task, settings: Settings) -> Iterator[tuple[Seen, list[float]]]:
    """Checked steps, each with the seconds of the plain backward pass that came before it, if one did."""
    generator, plain = torch.Generator().manual_seed(settings.seed), 0.0
    for at, indices in enumerate(batches(task.count, settings.steps, generator, trained.network.batch)):
        inputs, target = task.batch(indices)
        backward = []
        if at % settings.plain_every == 0:
            plain, seconds = _plain_step(twin, inputs, target)
            backward.append(seconds)
        seen, step = _checked_step(trained, inputs, target, plain)
        if settings.certificates is not None and seen.rows:
            _save(step, settings.certificates / f"seed{settings.seed}-step{at}.json")
        yield seen, backward


def _plain_step(twin: Trainee, inputs: Sequence[Tensor], target: Tensor) -> tuple[float, float]:
    """Seconds of the step, and of its backward pass."""
    started = time.perf_counter()
    loss = twin.network.loss(twin.module(*inputs), target)
    forward_ended = time.perf_counter()
    loss.backward()
    backward_ended = time.perf_counter()
    twin.update()
    return time.perf_counter() - started, backward_ended - forward_ended


def _checked_step(
    trained: Trainee, inputs: Sequence[Tensor], target: Tensor, plain_seconds: float
) -> tuple[Seen, StepResult]:
    checked, network = trained.module, trained.network
    assert isinstance(checked, CheckedModule)
    started = time.perf_counter()
    with checked.step() as step:
        loss = checked.loss(*inputs, target=target) if network.kinked_loss else network.loss(checked(*inputs), target)
        loss.backward()
    trained.update()
    whole = time.perf_counter() - started
    touched, ties, rows = (sum(getattr(x, name) for x in step.layers) for name in ("touched", "ties", "constraints"))
    text = "" if step.verdict == CERTIFIED else step.text
    seen = Seen(_outcome(step), text, touched, ties, rows, loss.item(), step.check_seconds, whole, plain_seconds)
    return seen, step


def _save(step: StepResult, path: Path) -> None:
    if step.certificate is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        step.certificate.save(path)


def _outcome(step: StepResult) -> str:
    if step.verdict == CERTIFIED:
        return f"{outcome(step)}, {step.subdifferential}"
    return "refuted" if step.refuted else outcome(step)
