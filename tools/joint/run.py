"""Networks beyond T8: ``python tools/joint/run.py --data-root ROOT [--networks ...] [--steps N] [--seeds N]``.

Trains recurrent, siamese, tied and repeated networks, amax pools, bfloat16 and the paper's networks with max-pools,
every step checked, and writes what certified the steps and what the checks cost. A run replaces what earlier runs wrote
for the same network and seed, and keeps the rest; ``--resume`` leaves out what is there already, ``--page-only`` trains
nothing and writes the page again.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "paper"))
from common import DOCS, Record, document, guarded, load, positive, progress, put, save
from networks import NETWORKS
from page import render
from training import Settings, train

from fxcheck.errors import UsageError

KEY = ("network", "seed")
OUTPUT = DOCS / "joint.md"


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", help="folder with MNIST and FashionMNIST of torchvision.datasets and photo_crops.npz")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME",
                        help=f"some of {', '.join(NETWORKS)} (default: all)")  # fmt: skip
    parser.add_argument("--steps", type=positive, help="of each training (default: 200, 20 in bfloat16)")
    parser.add_argument("--batch", type=positive, help="samples in a minibatch (default: 128, 64 or 16, by network)")
    parser.add_argument("--seeds", type=positive, default=1, help="how many trainings of each (default 1)")
    parser.add_argument("--plain-every", type=positive, default=2, metavar="N",
                        help="a plain step of a twin before every N-th checked one (default 2)")  # fmt: skip
    parser.add_argument("--allow-uncovered", action="store_true", help="count touches and ties where no theorem applies")
    parser.add_argument("--certificates", type=Path, metavar="DIR", help="save those of steps with rows here")
    parser.add_argument("--resume", action="store_true", help="leave out trainings that the output has with as many steps")
    parser.add_argument("--page-only", action="store_true", help="write the page from its JSON again")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="Markdown; its JSON goes beside it")
    parser.add_argument("--json", action="store_true", help="print the raw numbers, too")
    options = parser.parse_args(argv)
    if options.data_root is None and not options.page_only:
        parser.error("--data-root is needed to train")
    return options


def _work(options: argparse.Namespace) -> int:
    trainings = load(options.output.with_suffix(".json"))
    if options.page_only and not trainings:
        raise UsageError(f"there are no trainings beside {options.output}", hint="train first, without --page-only")
    jobs = [] if options.page_only else _jobs(options, trainings)
    with progress("steps") as bar:
        task = bar.add_task("", total=sum(steps for *_, steps in jobs))
        for name, seed, steps in jobs:
            put(trainings, _training(options, name, seed, steps, functools.partial(bar.advance, task)), KEY)
            save(options.output, trainings, render)
    if options.page_only:
        save(options.output, trainings, render)
    if options.json:
        print(document(trainings), end="")
    print(f"wrote {options.output}", file=sys.stderr)
    return 0


def _jobs(options: argparse.Namespace, trainings: Sequence[Record]) -> list[tuple[str, int, int]]:
    """Names, seeds and steps of the trainings to run."""
    wanted = [(name, seed, options.steps or NETWORKS[name].steps) for name in options.networks for seed in range(options.seeds)]
    there = {(t["network"], t["seed"], t["steps"]) for t in trainings if "refused" not in t}
    return [job for job in wanted if job not in there or not options.resume]


def _training(options: argparse.Namespace, name: str, seed: int, steps: int, tick: Callable[[], None]) -> Record:
    network = NETWORKS[name]
    if options.batch:
        network = replace(network, batch=options.batch)
    folder = options.certificates and options.certificates / name
    settings = Settings(seed, steps, options.plain_every, options.allow_uncovered, folder)
    return {"network": name, **train(network, network.task(options.data_root), settings, tick)}


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    return guarded(lambda: _work(options))


if __name__ == "__main__":
    sys.exit(main())
