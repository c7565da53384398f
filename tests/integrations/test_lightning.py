"""The callback in real Lightning trainers; skipped where Lightning is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fxcheck
from fxcheck.errors import StepError, UsageError

pytest.importorskip("lightning")

import lightning.pytorch as pl

from fxcheck.integrations.lightning import FxcheckCallback

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
IMAGES = torch.randint(0, 4, (16, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
LABELS = torch.arange(16) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3))


class Lit(pl.LightningModule):
    def __init__(self, check: bool = True, **options: Any) -> None:
        super().__init__()
        self.net = fxcheck.instrument(network(), (IMAGES[:4],), **options) if check else network()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("val", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Lbfgs(Lit):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=3)


class Manual(Lit):
    automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        for _ in range(2):
            self.optimizers().zero_grad()
            for half in batch[0].chunk(2):
                self.manual_backward(self.net(half).square().mean())
            self.optimizers().step()


class Unsafe(Lit):
    """Runs the network in eval mode, with gradients, inside the step."""

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = super().training_step(batch, index)
        self.net.eval()
        extra = self.net(batch[0]).mean()
        self.net.train()
        return loss + extra


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4)


def fit(module: pl.LightningModule, folder: Path, *, callback: bool = True, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {"max_epochs": 1, **options}
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[FxcheckCallback()] if callback else [],
        **settings,
    )  # fmt: skip
    trainer.fit(module, loader(), loader())
    return trainer


def test_every_optimizer_step_is_decided_and_logged(tmp_path: Path) -> None:
    module = Lit()
    trainer = fit(module, tmp_path)
    summary = module.net.summary()
    assert (summary.steps, summary.certified) == (4, 4)
    assert trainer.callback_metrics["fxcheck/certified"] == 1.0
    assert set(module.net.last_step.scalars()) <= set(trainer.callback_metrics)


def test_accumulated_batches_are_one_step_whatever_validation_does_in_between(tmp_path: Path) -> None:
    module = Lit()
    fit(module, tmp_path, accumulate_grad_batches=3, val_check_interval=1)
    assert module.net.summary().steps == 2 and module.net.last_step.forwards == 1  # batches 0 to 2, then 3
    assert module.net.summary().certified == 2


def test_training_is_what_it_was_without_checks(tmp_path: Path) -> None:
    checked, plain = Lit(), Lit(check=False)
    fit(checked, tmp_path)
    fit(plain, tmp_path, callback=False)
    assert all(torch.equal(a, b) for a, b in zip(checked.parameters(), plain.parameters(), strict=True))
    assert list(checked.state_dict()) == list(plain.state_dict())


def test_a_checkpoint_loads_into_the_module_without_checks(tmp_path: Path) -> None:
    trainer = fit(Lit(), tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert Lit.load_from_checkpoint(tmp_path / "last.ckpt", check=False)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions(precision: str, tmp_path: Path) -> None:
    module = Lit()
    fit(module, tmp_path, precision=precision)
    assert module.net.summary().steps == 4
    assert module.net.last_step.verdict in ("certified", "uncertified")


def test_a_closure_that_runs_several_times_is_several_gradients(tmp_path: Path) -> None:
    module = Lbfgs()
    fit(module, tmp_path, limit_train_batches=1)
    assert module.net.summary().steps >= 3 and module.net.last_step.forwards == 1


def test_manual_optimization_with_two_steps_in_a_batch(tmp_path: Path) -> None:
    module = Manual()
    fit(module, tmp_path)
    assert module.net.summary().steps == 8 and module.net.last_step.forwards == 2


def test_the_policy_raise_stops_before_the_optimizer(tmp_path: Path) -> None:
    module = Unsafe(on_uncertified="raise")
    before = [p.clone() for p in module.parameters()]
    with pytest.raises(StepError, match="eval mode"):
        fit(module, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))
    module.net(IMAGES[:4])  # given back: a step of its own
    assert module.net.last_step.verdict == "certified"


def test_the_policy_record_goes_on(tmp_path: Path) -> None:
    module = Unsafe()
    trainer = fit(module, tmp_path)
    assert module.net.summary().reasons == {"undecided": 4}
    assert trainer.callback_metrics["fxcheck/certified"] == 0.0


def test_a_module_without_checks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checked module was found in Lit"):
        fit(Lit(check=False), tmp_path)
