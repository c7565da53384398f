"""The page of the joint condition's experiments, from the records of trainings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from common import PAPER, Record, measured_with, number, table
from counts import ENDS, KINDS, ROWS, ROWS_A_BACKWARD, UNTOUCHED, WARM_UP
from networks import NETWORKS, WITH_MAX_POOLS

UNTOUCHED_GOAL = 0.05
MOST_REASONS = 5
SMALLEST_STAGE = 0.05
"""Milliseconds a step."""

_TEXT = f"""# Weight sharing, split and Clarke-only proxies

Written by `tools/joint/run.py`; the raw numbers are in the JSON file beside this one. Networks that the theorems of
{PAPER}, do not cover
are decided step by step by the joint condition (a Bouligand subgradient) and, failing that, by a witnessed decomposition
(a Clarke subgradient); see [the rule](rules/joint.md).

SGD with momentum 0.9 and weight decay 1e-4, learning rate 0.05 for a batch of 128 and in proportion for others, a cosine
schedule over the run. A *touch* is a pre-activation entry that equals a kink exactly; a *tie* is a max output whose max
is attained twice or more, except where every tied entry has slope 0. A *row* is an inequality that a direction has to
satisfy. The *loss* is the mean over the first {ENDS} steps and over the last {ENDS}.
"""
_OVERHEAD_TEXT = f"""
Plain steps of a twin with equal initial weights run in between, in the same process. *Check share* divides the median
time in the check, what it does inside `backward()` included, by the median time of a plain step; *whole step* is the
median of checked step / last plain step. The first {WARM_UP} steps are not timed.
Goal where nothing is touched: at most {UNTOUCHED_GOAL:.0%}.
"""
_ROWS_TEXT = f"""
*Extra* is the time in the check beyond that of a step without touches and rows (all of it, where there was no such
step), in plain backward passes: the median over steps, and the median of extra per {ROWS_A_BACKWARD} rows begun.
Goal: at most one backward pass per {ROWS_A_BACKWARD} rows begun; the last column says how many steps kept to it.
"""


def render(trainings: Sequence[Record]) -> str:
    """The page, in the order of the networks and their seeds."""
    order = list(NETWORKS)
    ordered = sorted(trainings, key=lambda t: (order.index(t["network"]), t["seed"]))
    ran = [t for t in ordered if "refused" not in t]
    return "\n".join([
        _TEXT, table(("network", "what", "batch", "seed", "steps", "loss"), map(_network_row, ordered)),
        f"\n{measured_with(ordered)}\n\n## Verdicts\n", table(_VERDICT_HEADER, map(_verdict_row, ran)),
        *_refused(ordered), *_paper_section(ran), *_reasons(ran),
        "\n## Touches and ties\n", table(_LAYER_HEADER, (row for t in ran for row in _layer_rows(t))),
        "\n## Overhead", _OVERHEAD_TEXT, table(_OVERHEAD_HEADER, (row for t in ran for row in _overhead_rows(t))),
        _ROWS_TEXT, table(_ROWS_HEADER, (_rows_row(t) for t in ran if "rows" in t["kinds"][ROWS])),
        "\nTime in the check by stage, ms a step, warm-up included:\n",
        table(("network", "seed", "stages"), map(_stage_row, ran)), "",
    ])  # fmt: skip


def _title(t: Record) -> str:
    return NETWORKS[t["network"]].title


def _network_row(t: Record) -> tuple[str, ...]:
    loss = " to ".join(f"{x:.3f}" for x in t["loss"]) if "loss" in t else "-"
    return (_title(t), NETWORKS[t["network"]].text, str(t["batch"]), str(t["seed"]), str(t["steps"]), loss)


# Verdicts --------------------------------------------------------------------------------------

_VERDICT_HEADER = ("network", "seed", "steps", "certified", "by", "refuted", "infeasible", "undecided", "uncovered",
                   "steps with rows", "their outcome")  # fmt: skip
_REASONS = ("refuted", "infeasible", "undecided", "uncovered")


def _verdict_row(t: Record) -> tuple[str, ...]:
    by = certificates(t["outcomes"])
    rows = t["kinds"][ROWS]
    return (_title(t), str(t["seed"]), str(t["steps"]), str(sum(by.values())), _listed(by),
            *(str(t["outcomes"].get(reason, 0)) for reason in _REASONS),
            str(rows["steps"]), _listed(rows["outcomes"]))  # fmt: skip


def certificates(outcomes: Mapping[str, int]) -> dict[str, int]:
    """The outcomes that certify: a theorem, a comma, a subdifferential."""
    return {name: count for name, count in outcomes.items() if "," in name}


def _listed(outcomes: Mapping[str, int]) -> str:
    """``T8 (bouligand) 190; joint (clarke) 10``."""
    named = {(f"{n.replace(', ', ' (')})" if "," in n else n): count for n, count in outcomes.items()}
    return "; ".join(f"{name} {count}" for name, count in sorted(named.items())) or "-"


def _refused(trainings: Iterable[Record]) -> list[str]:
    lines = [f"- {_title(t)}, seed {t['seed']}: {t['refused']}" for t in trainings if "refused" in t]
    return ["\nNot instrumented:\n", *lines] if lines else []


def _reasons(trainings: Iterable[Record]) -> list[str]:
    lines = [f"- {_title(t)}, seed {t['seed']}: {s['reason']} {s['steps']} times, first in step {s['first']}: {s['text']}"
             for t in trainings for s in t["uncertified"][:MOST_REASONS]]  # fmt: skip
    return [f"\n## Uncertified steps\n\nAt most {MOST_REASONS} sentences of each training.\n", *lines] if lines else []


# Networks that T8 covers -----------------------------------------------------------------------

_PAPER_TEXT = """
## Max-pools in fp32 and bf16

Networks of the [second experiment](paper-convolutional.md), which T8 covers: the steps for which it found no direction in
some P_l (it is empty, or its emptiness was not decided), and what certified them after all, or showed that AD's gradient is
no Clarke subgradient (*refuted*). In fp32 T_j is exact, as there.
Another number of threads rounds sums differently, and other steps tie.
"""
_BEYOND = ("network", "seed", "steps", "T8", "T8 says nothing", "a layer's picks mixed", "joint condition", "decomposition",
           "refuted", "infeasible", "undecided", "whole run, s")  # fmt: skip


def _paper_section(trainings: Iterable[Record]) -> list[str]:
    rows = [_beyond_row(t) for t in trainings if t["network"] in WITH_MAX_POOLS]
    return [_PAPER_TEXT, table(_BEYOND, rows)] if rows else []


def _beyond_row(t: Record) -> tuple[str, ...]:
    """The outcomes of a network that T8 covers: what T8 leaves open goes to a mixture of one layer's picks, to the
    joint condition, then to the decomposition."""
    found = t["outcomes"]
    t8 = found.get("T8, bouligand", 0)
    beyond = (found.get(name, 0) for name in ("T8, clarke", "joint, bouligand", "joint, clarke", *_REASONS[:3]))
    return (_title(t), str(t["seed"]), str(t["steps"]), str(t8), str(t["steps"] - t8), *map(str, beyond), f"{t['seconds']:.0f}")


# Layers ----------------------------------------------------------------------------------------

_LAYER_HEADER = ("network", "seed", "layer", "touches", "steps with a touch", "ties", "tied, % of max outputs",
                 "steps with S_j minus T_j non-empty", "size of S_j minus T_j", "rows")  # fmt: skip


def _layer_rows(t: Record) -> list[tuple[str, ...]]:
    """The layers with a touch or tie, or one line for none."""
    rows = [_layer_row(t, layer) for layer in t["layers"] if layer["touched"] or layer["ties"]]
    return rows or [(_title(t), str(t["seed"]), f"none of {len(t['layers'])}", *["-"] * (len(_LAYER_HEADER) - 3))]


def _layer_row(t: Record, layer: Record) -> tuple[str, ...]:
    share = layer["tied_share"]
    return (_title(t), str(t["seed"]), layer["name"], f"{layer['touched']:,}", str(layer["touched_steps"]),
            f"{layer['ties']:,}", number(None if share is None else 100 * share), str(layer["nontrivial_steps"]),
            number(layer["mean_nontrivial"]), f"{layer['constraints']:,}")  # fmt: skip


# Overhead --------------------------------------------------------------------------------------

_OVERHEAD_HEADER = ("network", "seed", "in the step", "steps", "plain, ms", "check, ms", "check share, %", "whole step")
_ROWS_HEADER = ("network", "seed", "steps with rows", "touches a step", "rows a step", "most rows", "plain backward, ms",
                "extra, backwards", f"extra per {ROWS_A_BACKWARD} rows", "within the goal")  # fmt: skip


def _overhead_rows(t: Record) -> list[tuple[str, ...]]:
    found = [(kind, t["kinds"][kind]) for kind in KINDS]
    return [(_title(t), str(t["seed"]), kind, str(k["timed"]), f"{t['plain_ms']:.1f}", f"{k['check_ms']:.2f}",
             f"{100 * k['check_share']:.1f}{_mark(kind, k['check_share'])}", f"{k['whole']:.3f}")
            for kind, k in found if "timed" in k]  # fmt: skip


def _mark(kind: str, share: float) -> str:
    return " (over the goal)" if kind in UNTOUCHED and share > UNTOUCHED_GOAL else ""


def _rows_row(t: Record) -> tuple[str, ...]:
    k = t["kinds"][ROWS]
    return (_title(t), str(t["seed"]), str(k["timed"]), number(k["touched"]), number(k["rows"]), f"{k['most_rows']:,}",
            f"{t['backward_ms']:.1f}", number(k["extra_backwards"]), number(k["backwards_per_ten_rows"]),
            f"{k['within_goal']} of {k['timed']}")  # fmt: skip


def _stage_row(t: Record) -> tuple[str, ...]:
    spent = {stage: 1e3 * seconds / t["steps"] for stage, seconds in t["stage_seconds"].items()}
    shown = sorted((item for item in spent.items() if item[1] >= SMALLEST_STAGE), key=lambda item: -item[1])
    return (_title(t), str(t["seed"]), ", ".join(f"{stage} {number(ms)}" for stage, ms in shown) or "-")
