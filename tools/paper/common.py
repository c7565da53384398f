"""Shared by the paper's experiments: batches, schedule, the checked training loop, records and Markdown."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from fxcheck import CheckedModule, FxcheckError
from fxcheck.errors import UsageError
from fxcheck.records.step import CERTIFIED, StepResult

DOCS = Path(__file__).resolve().parents[2] / "docs"
BATCH_SIZE, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, EPOCHS = 128, 0.05, 0.9, 1e-4, 20
PAPER = "S. Park, S. Chun and W. Lee, *What does automatic differentiation compute for neural networks?*, ICLR 2024"

Record = dict[str, Any]
Batch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From the indices of a minibatch to its inputs and labels."""


@dataclass
class Clock:
    """Seconds of every step: in the check, and in the rest (forward, backward, optimizer; not the data)."""

    plain: list[float] = field(default_factory=list)
    check: list[float] = field(default_factory=list)

    def to_dict(self) -> Record:
        """Totals, and the medians of single steps, which a first step that warms up does not move."""
        plain, check = statistics.median(self.plain), statistics.median(self.check)
        return {
            "plain_seconds": sum(self.plain), "check_seconds": sum(self.check), "plain_ms_per_step": 1e3 * plain,
            "check_ms_per_step": 1e3 * check, "check_share": check / plain,
        }  # fmt: skip


def batches(count: int, steps: int, generator: torch.Generator, size: int = BATCH_SIZE) -> Iterator[Tensor]:
    """Indices of ``steps`` minibatches: a new order each epoch, the smaller last batch kept."""
    done = 0
    while done < steps:
        for batch in torch.randperm(count, generator=generator).split(size)[: steps - done]:
            yield batch
            done += 1


def steps_per_epoch(count: int) -> int:
    """Minibatches in an epoch, the smaller last one included."""
    return -(-count // BATCH_SIZE)


def train(
    checked: CheckedModule, batch: Batch, count: int, steps: int, seed: int, after: Callable[[int, StepResult], None]
) -> Clock:
    """Train with the paper's settings and check every step.

    Args:
        checked: the instrumented model.
        batch: where minibatches come from.
        count: number of training samples.
        steps: length of the run and of the cosine schedule.
        seed: of the order of the samples.
        after: called after each step with its number from 0 and its result.
    """
    optimizer = torch.optim.SGD(checked.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    clock = Clock()
    for number, indices in enumerate(batches(count, steps, torch.Generator().manual_seed(seed))):
        inputs, labels = batch(indices)
        started = time.perf_counter()
        with checked.step() as step:
            nn.functional.cross_entropy(checked(inputs), labels).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        clock.plain.append(time.perf_counter() - started - step.check_seconds)
        clock.check.append(step.check_seconds)
        after(number, step)
    return clock


def outcome(step: StepResult) -> str:
    """The theorem that certified the step, or why it is uncertified."""
    return str(step.theorem if step.verdict == CERTIFIED else step.reason)


# Data ------------------------------------------------------------------------------------------


def torchvision_dataset(name: str, root: str, train: bool = True) -> Any:
    """A data set of torchvision that is already on disk.

    Raises:
        UsageError: it is not there.
    """
    import torchvision

    try:
        return getattr(torchvision.datasets, name)(root=root, train=train, download=False)
    except RuntimeError as error:
        raise UsageError(
            f"torchvision finds no {name} in {root!r}",
            hint=f"--data-root is the root of torchvision.datasets.{name}, which can download it there",
        ) from error


# Records and documents -------------------------------------------------------------------------


def load(path: Path) -> list[Record]:
    """The trainings of earlier runs; none without a file.

    Raises:
        UsageError: the file is something else.
    """
    if not path.exists():
        return []
    try:
        return list(json.loads(path.read_text())["trainings"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} does not hold results of this tool", hint="move it away, or give --output") from error


def put(trainings: list[Record], new: Record, key: Sequence[str]) -> None:
    """Add a training in place of the one with the same key, if there is one."""
    trainings[:] = [t for t in trainings if any(t[k] != new[k] for k in key)] + [new]


def save(output: Path, trainings: list[Record], render: Callable[[list[Record]], str]) -> None:
    """Write the raw numbers beside the Markdown that is rendered from them."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(document(trainings))
    output.write_text(render(trainings))


def document(trainings: list[Record]) -> str:
    """The raw numbers as JSON."""
    return json.dumps({"trainings": trainings}, indent=1) + "\n"


def environment() -> Record:
    """What the times of a training depend on besides its settings."""
    scan = "compiled" if find_spec("numba") else "pure torch"
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "scan": scan}


def measured_with(trainings: Iterable[Record]) -> str:
    """A sentence on the environments of trainings."""
    found = sorted({f"torch {t['torch']}, {t['threads']} threads, {t['scan']} scans" for t in trainings})
    return f"Measured with {'; '.join(found)}.".replace(" 1 threads", " 1 thread")


def grouped(trainings: Iterable[Record], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Record]]:
    """Trainings that differ in nothing but the seed, in order of first appearance."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for training in trainings:
        found.setdefault(tuple(training[k] for k in keys), []).append(training)
    return found


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean(trainings: Sequence[Mapping[str, Any]], key: str) -> float:
    """Mean over trainings."""
    return statistics.fmean(t[key] for t in trainings)


def number(value: float | None) -> str:
    """Four significant digits at most, thousands separated; a dash for nothing."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.1f}".removesuffix(".0")
    return f"{value:.4g}"


# Command line ----------------------------------------------------------------------------------


def positive(text: str) -> int:
    """An argparse type.

    Raises:
        ValueError: not a whole number of at least 1.
    """
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def progress(label: str) -> Progress:
    """A progress bar on stderr, silent where that is no terminal."""
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())


def guarded(work: Callable[[], int]) -> int:
    """Run the tool; what it or fxcheck refuses is one message and exit status 2."""
    try:
        return work()
    except (FxcheckError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
