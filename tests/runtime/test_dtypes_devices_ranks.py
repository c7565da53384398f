"""Autocast, scaled losses, other devices' order of work, and process groups."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import fxcheck
from fxcheck.runtime.collector import Collector
from fxcheck.runtime.other_dtype import what_differs_in
from tests.runtime.models import Scalars, flat_images, small_cnn, step_of

ONE = torch.ones(1, 1, dtype=torch.float64)


def test_autocast_gives_what_the_model_gives_and_is_decided() -> None:
    model = small_cnn(norm=True)
    twin = copy.deepcopy(model)
    checked = fxcheck.instrument(model, (flat_images(),))
    with torch.autocast("cpu", dtype=torch.bfloat16), checked.step() as step:
        out = checked(flat_images())
        out.float().sum().backward()
        expected = twin(flat_images())
    assert out.dtype == torch.bfloat16 and torch.equal(out, expected)
    assert step.verdict in ("certified", "uncertified") and step.layers[0].ties > 0
    assert "not measured" not in step.text


def test_a_kink_that_another_dtype_moves_is_not_trusted() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.Hardtanh(-0.1, 0.1))
    checked = fxcheck.instrument(model, (flat_images(),))
    study = checked._programs[0][1].study
    assert what_differs_in(study, torch.bfloat16) and not what_differs_in(study, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16), checked.step() as step:
        checked(flat_images()).float().sum().backward()
    assert step.verdict == "uncertified" and "bfloat16" in step.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_whole_models_in_other_dtypes(dtype: torch.dtype) -> None:
    checked = fxcheck.instrument(small_cnn().to(dtype), (flat_images().to(dtype),))
    assert step_of(checked, flat_images(seed=2).to(dtype)).layers[0].ties > 0


def test_scaling_the_loss_changes_no_verdict() -> None:
    found = []
    for scale in (1.0, 2.0**16):
        torch.manual_seed(1)
        checked = fxcheck.instrument(small_cnn(), (flat_images(),))
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        optimizer = torch.optim.SGD(checked.parameters(), lr=0.01)
        with checked.step() as step:
            scaler.scale(checked(flat_images()).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        found.append((step.verdict, [(s.ties, s.nontrivial, s.constraints) for s in step.layers]))
    assert found[0] == found[1]


@pytest.mark.parametrize("inplace", [True, False])
def test_looking_after_the_forward_finds_the_same(inplace: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerators are looked at once, when the forward has ended: the same order of work on the CPU."""
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU6(inplace), nn.Linear(3, 2), nn.Hardtanh(inplace=inplace)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(3))
        model[0].bias.zero_()
    x = torch.tensor([[0.0, 6.0, 1.0], [6.0, 0.0, 2.0]], dtype=torch.float64)
    results = []
    for deferred in (False, True):
        monkeypatch.setattr(Collector, "_is_deferred", staticmethod(lambda value, deferred=deferred: deferred))
        checked = fxcheck.instrument(model, (x,))
        step = step_of(checked, x)
        results.append((step.verdict, [(s.touched, s.constraints, s.verdict) for s in step.layers]))
    assert results[0] == results[1] and results[0][1][0][0] == 4


def _found(step: Any) -> Any:
    return step.verdict, step.reason, [(s.ties, s.nontrivial, s.touched, s.constraints) for s in step.layers]


@pytest.mark.parametrize("seed", range(3))
def test_maxima_looked_at_after_the_forward_find_the_same(seed: int) -> None:
    torch.manual_seed(seed)
    checked = fxcheck.instrument(small_cnn(bias=False), (flat_images(),))
    first, second = (step_of(checked, flat_images(seed=seed)) for _ in range(2))
    (_, program) = checked._programs[0]
    assert program.can_wait and all(program.can_wait.values())
    assert _found(first) == _found(second) and sum(s.ties for s in first.layers) > 0


class Overwritten(nn.Module):
    """A pool whose result, and a maximum whose operand, are written into before the forward ends."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.max_pool2d(self.first(x), 2)
        pooled *= 2.0
        y = self.last(pooled) + 1.0
        top = y.max(3).values
        y.mul_(0.0)
        return top + y.sum()


def test_maxima_that_are_overwritten_are_looked_at_before() -> None:
    checked = fxcheck.instrument(Overwritten(), (flat_images(),))
    first, second = (step_of(checked, flat_images(seed=1)) for _ in range(2))
    (_, program) = checked._programs[0]
    assert len(program.can_wait) == 2 and not any(program.can_wait.values())
    assert _found(first) == _found(second) and first.layers[0].ties > 0


def test_maxima_that_nobody_expected_to_be_overwritten_leave_the_step_undecided() -> None:
    checked = fxcheck.instrument(Overwritten(), (flat_images(),), joint_seconds=0.0)  # which would look again
    right = step_of(checked, flat_images(seed=1))
    (_, program) = checked._programs[0]
    program.can_wait.update(dict.fromkeys(program.can_wait, True))
    step, after = (step_of(checked, flat_images(seed=1)) for _ in range(2))
    assert (step.verdict, step.reason) == ("uncertified", "undecided") and "overwritten" in step.text
    assert _found(after) == _found(right)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("model", [small_cnn, lambda: small_cnn(norm=True)])
def test_on_a_gpu(model: Any) -> None:
    checked = fxcheck.instrument(model().cuda(), (flat_images().cuda(),))
    assert step_of(checked, flat_images().cuda()).layers[0].ties > 0


def _rank(rank: int, meeting_point: str, results: Any) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=2)
    model = Scalars(lambda s, x: torch.relu(s.w * x) - torch.relu(2 * s.w * x), w=0.0)
    checked = fxcheck.instrument(model, (ONE,))
    found = {"alone": step_of(checked, ONE).reason}
    for name, sign in (("same", 1.0), ("opposite", 1.0 if rank == 0 else -1.0)):
        with checked.step() as step:
            checked(sign * ONE).sum().backward()
            checked.gather()
        found[name] = (step.verdict, step.reason, step.samples)
    static = fxcheck.instrument(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), (torch.randn(2, 3),))
    found["static"] = step_of(static, torch.randn(2, 3)).verdict
    results[rank] = found
    dist.destroy_process_group()


def test_other_ranks_belong_to_the_step(tmp_path: Path) -> None:
    """Each rank alone cannot certify; gathered, equal sides are certified and opposite ones are infeasible on both."""
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_rank, args=(str(tmp_path / "meeting"), results), nprocs=2)
        for rank in (0, 1):
            assert results[rank] == {
                "alone": "other ranks", "same": ("certified", None, 2), "opposite": ("uncertified", "infeasible", 2),
                "static": "certified",
            }  # fmt: skip
