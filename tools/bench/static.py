"""What analysis costs beyond capture: ``python tools/bench/static.py [NAMES...] [--repeats N]``.

For each model, in one run and alternating: seconds of ``torch.export.export`` of the same module and inputs, and seconds
of the analysis without its capture. The goal is a median ratio of at most 0.3 over torchvision's classifiers. Then the
wall time of ``fxcheck --help`` and the peak memory of an analysis on the meta device, as whole processes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
import torchvision.models as models

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from torchvision_verdicts import build

from fxcheck.api import analyze


def ratio_of(name: str, repeats: int) -> tuple[float, float, float]:
    """Median seconds of export and of analysis beyond capture, and the median of their pairwise ratio."""
    exports, analyses = [], []
    for _ in range(repeats):
        model, args, _ = build(name)
        started = time.perf_counter()
        torch.export.export(model.train(), args, strict=False)
        exports.append(time.perf_counter() - started)
        analyses.append(analyze(model, args).timings["analyse"])
    ratios = [a / e for a, e in zip(analyses, exports, strict=True)]
    return statistics.median(exports), statistics.median(analyses), statistics.median(ratios)


def whole_process(command: list[str], runs: int) -> tuple[float, float]:
    """Median wall seconds, and the largest resident memory in MB that any child had so far."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="torchvision names; all classifiers when none is given")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    fxcheck = [sys.executable, "-m", "fxcheck"]
    seconds, _ = whole_process([*fxcheck, "--help"], 5)
    print(f"fxcheck --help: {seconds:.2f} s (goal 0.3)")
    seconds, memory = whole_process([*fxcheck, "analyze", "--meta", "torchvision.models:vit_h_14"], 1)
    print(f"fxcheck analyze --meta torchvision.models:vit_h_14: {seconds:.1f} s, {memory:.0f} MB resident (goal 1500)")
    ratios = []
    for name in options.names or models.list_models(module=models):
        export, analysis, ratio = ratio_of(name, options.repeats)
        ratios.append(ratio)
        print(f"{name:28} export {export:6.2f} s  analysis {analysis:6.3f} s  ratio {ratio:.3f}", flush=True)
    print(f"median ratio over {len(ratios)} models: {statistics.median(ratios):.3f} (largest {max(ratios):.3f}; goal 0.3)")


if __name__ == "__main__":
    main()
