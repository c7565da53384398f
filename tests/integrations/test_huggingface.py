"""The callback in the real Trainer; skipped where transformers or accelerate is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcheck
from fxcheck.errors import StepError, UsageError
from fxcheck.runtime.checked import CheckedModule

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

from fxcheck.integrations.huggingface import FxcheckCallback

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
IMAGES = torch.randint(0, 4, (16, 3, 16, 16), generator=torch.Generator().manual_seed(0)).float()
DATA = [{"pixel_values": x, "labels": torch.tensor(i % 3)} for i, x in enumerate(IMAGES)]
BATCH = {"pixel_values": IMAGES[:4], "labels": torch.arange(4) % 3}


def resnet() -> nn.Module:
    """A tiny ResNet of the library: ReLU, and a max-pool that static theorems leave open."""
    torch.manual_seed(0)
    return ResNetForImageClassification(ResNetConfig(
        num_labels=3, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic",
        problem_type="single_label_classification",
    ))  # fmt: skip


class Plain(nn.Module):
    """A module that is not the library's, and runs its network twice a forward."""

    def __init__(self, unsafe: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(98, 3))
        self.unsafe = unsafe

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        scores = self.net(pixel_values)
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


class Unsafe(Trainer):
    """Adds a forward in eval mode, with gradients, to the loss."""

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs)
        model.eval()
        extra = model(**inputs)["loss"]
        model.train()
        return loss + extra


def train(model: nn.Module, folder: Path, *, kind: type[Trainer] = Trainer, callback: bool = True, **options: Any) -> Trainer:
    settings: dict[str, Any] = {"num_train_epochs": 1, "per_device_train_batch_size": 4, **options}
    arguments = TrainingArguments(
        str(folder), use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, seed=0, logging_steps=2,
        label_names=["labels"], learning_rate=0.01, **settings,
    )  # fmt: skip
    trainer = kind(model=model, args=arguments, train_dataset=DATA, eval_dataset=DATA[:8],
                   callbacks=[FxcheckCallback()] if callback else [])  # fmt: skip
    trainer.train()
    return trainer


def checked_resnet(**options: Any) -> CheckedModule:
    return fxcheck.instrument(resnet(), (), BATCH, **options)


def test_every_optimizer_step_is_decided_and_logged(tmp_path: Path) -> None:
    checked = checked_resnet()
    trainer = train(checked, tmp_path)
    assert (checked.summary().steps, checked.summary().certified) == (4, 4)
    logs = [log for log in trainer.state.log_history if "fxcheck/certified" in log]
    assert len(logs) == 2 and all(log["fxcheck/certified"] == 1.0 and "loss" in log for log in logs)
    assert sum(log["fxcheck/ties"] for log in logs) == sum(t.ties for t in checked.summary().layers.values())


def test_accumulated_batches_are_one_step_and_evaluation_counts_for_nothing(tmp_path: Path) -> None:
    checked = checked_resnet()
    trainer = train(checked, tmp_path, gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=1)
    assert checked.summary().steps == 2 and checked.last_step.forwards == 2 and checked.last_step.samples == 8
    assert any("eval_loss" in log for log in trainer.state.log_history)


def test_training_is_what_it_was_without_checks(tmp_path: Path) -> None:
    checked, plain = checked_resnet(), resnet()
    train(checked, tmp_path)
    train(plain, tmp_path, callback=False)
    assert all(torch.equal(a, b) for a, b in zip(checked.parameters(), plain.parameters(), strict=True))


def test_mixed_precision(tmp_path: Path) -> None:
    checked = checked_resnet()
    train(checked, tmp_path, bf16=True)
    assert checked.summary().steps == 4 and checked.last_step.verdict in ("certified", "uncertified")


def test_saved_weights_are_the_models(tmp_path: Path) -> None:
    model = resnet()
    trainer = train(fxcheck.instrument(model, (), BATCH), tmp_path)
    trainer.save_model(str(tmp_path / "weights"))
    model.save_pretrained(tmp_path / "model")
    again = ResNetForImageClassification.from_pretrained(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_a_module_that_is_not_the_librarys(tmp_path: Path) -> None:
    checked = fxcheck.instrument(Plain(), (), BATCH)
    train(checked, tmp_path)
    assert checked.summary().steps == 4


def test_the_policy_raise_stops_before_the_optimizer(tmp_path: Path) -> None:
    checked = fxcheck.instrument(Plain(), (), BATCH, on_uncertified="raise")
    before = [p.clone() for p in checked.parameters()]
    with pytest.raises(StepError, match="eval mode"):
        train(checked, tmp_path, kind=Unsafe)
    assert all(torch.equal(a, b) for a, b in zip(checked.parameters(), before, strict=True))


def test_the_policy_record_goes_on(tmp_path: Path) -> None:
    checked = fxcheck.instrument(Plain(), (), BATCH)
    trainer = train(checked, tmp_path, kind=Unsafe)
    assert checked.summary().reasons == {"undecided": 4}
    assert any(log.get("fxcheck/certified") == 0.0 for log in trainer.state.log_history)


def test_a_model_without_checks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checked module was found"):
        train(Plain(), tmp_path)
