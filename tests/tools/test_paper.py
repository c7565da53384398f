"""The paper's experiments on tiny synthetic data: what their tables and raw numbers say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from fxcheck.cli import main as fxcheck_main
from tests.tools.made import COUNT, make_crops, make_torchvision_root, read_cells, read_trainings, tool

LAYER_ONE_KINK = {"relu6": 6.0, "hardtanh": 1.0, "hardsigmoid": 3.0}


@pytest.fixture
def fully_connected(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return tool(monkeypatch, ["paper"], ["fully_connected", "common"])


@pytest.fixture
def convolutional(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return tool(monkeypatch, ["paper"], ["convolutional", "common"])


# Fully connected -------------------------------------------------------------------------------


def _on_a_kink(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first neuron of the first layer starts on its upper kink for every sample; weight decay then moves it away."""
    network = tool.network

    def planted(activation: str) -> nn.Sequential:
        model = network(activation)
        with torch.no_grad():
            model[0].weight[0] = 0
            model[0].bias[0] = LAYER_ONE_KINK[activation]
        return model

    monkeypatch.setattr(tool, "network", planted)


def test_touches_and_their_outcome_are_counted(
    fully_connected: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root, page = make_torchvision_root(tmp_path, "MNIST"), tmp_path / "docs" / "page.md"
    _on_a_kink(fully_connected, monkeypatch)
    threads = torch.get_num_threads()
    command = ["--data-root", str(root), "--epochs", "2", "--seeds", "2", "--output", str(page)]
    assert fully_connected.main(command) == 0
    assert torch.get_num_threads() == threads
    trainings = read_trainings(page)
    assert [(t["activation"], t["seed"]) for t in trainings] == [(a, s) for a in LAYER_ONE_KINK for s in (0, 1)]
    for t in trainings:
        assert (t["steps"], t["certified"], t["uncertified"]) == (4, 4, 0)
        assert (t["touched"], t["touched_steps"], t["outcomes"]) == (128, 1, {"T5": 1})
        assert [layer["touched"] for layer in t["layers"]] == [128, 0]
        assert [(s["step"], list(s["touched"].values())) for s in t["at"]] == [(0, [128])]
        assert 0 <= t["test_accuracy"] <= 1 and t["check_seconds"] > 0 and t["plain_seconds"] > 0
    by_activation, *by_training = read_cells(page, "Hardtanh")
    assert by_activation[:9] == ["Hardtanh", "2", "2", "4", "128", "9.8", "1", "T5 2", "0"]
    assert [row[:7] for row in by_training] == [["Hardtanh", s, "2", "128 / 0", "1 / 0", "T5 1", "0"] for s in "01"]


def test_a_second_run_replaces_its_own_trainings(
    fully_connected: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, page = make_torchvision_root(tmp_path, "MNIST"), tmp_path / "page.md"
    common = ["--data-root", str(root), "--seeds", "1", "--output", str(page)]
    assert fully_connected.main([*common, "--epochs", "1", "--activations", "relu6", "hardtanh"]) == 0
    assert fully_connected.main([*common, "--epochs", "3", "--activations", "relu6"]) == 0
    capsys.readouterr()
    assert fully_connected.main([*common, "--epochs", "3", "--activations", "relu6", "--json"]) == 0
    trainings = json.loads(capsys.readouterr().out)["trainings"]
    assert {(t["activation"], t["epochs"], t["steps"]) for t in trainings} == {("relu6", 3, 6), ("hardtanh", 1, 2)}
    assert len(trainings) == 2 and trainings == read_trainings(page)
    assert len(read_cells(page, "ReLU6")) == len(read_cells(page, "Hardtanh")) == 2


def test_an_uncertified_step_is_listed(fully_connected: ModuleType, tmp_path: Path) -> None:
    root, page = make_torchvision_root(tmp_path, "MNIST"), tmp_path / "page.md"
    command = ["--data-root", str(root), "--epochs", "1", "--seeds", "1", "--activations", "hardtanh"]
    assert fully_connected.main([*command, "--output", str(page)]) == 0
    (training,) = read_trainings(page)
    step = {"step": 1, "touched": {"1": 2}, "outcome": "undecided", "text": "too close to tell"}
    training |= {"at": [step], "outcomes": {"undecided": 1}, "uncertified": 1, "certified": 1}
    text = fully_connected.render([training])
    assert "| undecided 1 | 1 |" in text
    assert "- Hardtanh, seed 0, step 1: undecided, too close to tell" in text


@pytest.mark.slow
def test_processes_give_the_numbers_of_one(fully_connected: ModuleType, tmp_path: Path) -> None:
    root = make_torchvision_root(tmp_path, "MNIST")
    command = ["--data-root", str(root), "--epochs", "1", "--seeds", "2", "--activations", "hardsigmoid"]
    found = []
    for jobs in ("1", "2"):
        page = tmp_path / f"{jobs}.md"
        assert fully_connected.main([*command, "--jobs", jobs, "--output", str(page)]) == 0
        wanted = ("seed", "steps", "certified", "touched", "test_accuracy", "threads")
        found.append(sorted([t[k] for k in wanted] for t in read_trainings(page)))
    assert found[0] == found[1]
    assert [t[-1] for t in found[0]] == [1, 1]


# Convolutional ---------------------------------------------------------------------------------


def _tied_windows(model: nn.Sequential, inputs: torch.Tensor) -> int:
    """Windows of the first pool, after convolution and ReLU, with two or more entries at a positive max."""
    with torch.no_grad():
        active = model[1](model[0](inputs))
    windows = active.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    top = windows.amax(-1, keepdim=True)
    return int(((windows == top).sum(-1).ge(2) & top[..., 0].gt(0)).sum())


def test_the_pools_of_vgg11_are_counted(convolutional: ModuleType, tmp_path: Path) -> None:
    make_crops(tmp_path)
    page = tmp_path / "docs" / "page.md"
    command = ["--data", "photos", "--data-root", str(tmp_path), "--models", "vgg11", "--steps", "1"]
    assert convolutional.main([*command, "--output", str(page)]) == 0
    (t,) = read_trainings(page)
    assert (t["data"], t["model"], t["images"], t["steps"]) == ("photos", "vgg11", 10, 1)
    assert t["certified"] + t["infeasible"] + t["undecided"] == t["certified"] + t["uncertified"] == 1
    sizes = [10 * 32 * 16**2, 10 * 64 * 8**2, 10 * 128 * 4**2, 10 * 256 * 2**2, 10 * 256]
    assert [pool["max_outputs"] for pool in t["pools"]] == sizes
    torch.manual_seed(0)
    model = convolutional.vgg11(4)
    images = convolutional.photos(str(tmp_path))
    torch.manual_seed(0)
    tied = _tied_windows(model, images.batch(torch.arange(10))[0])
    assert tied > 0 and t["pools"][0]["ties"] == tied
    (row,) = read_cells(page, "VGG11")
    share = f"{100 * tied / sizes[0]:.4g}"
    assert row[1:4] == ["1", "1", " / ".join(convolutional.number(s) for s in sizes)]
    assert row[4].split(" / ")[0] == share and len(row[4].split(" / ")) == 5
    assert row[7] == f"{t['certified']} / {t['infeasible']} / {t['undecided']}"
    (paper,) = read_cells(page, "*VGG11, the paper, CIFAR-10*")
    assert paper[2] == "7,820" and paper[5] == "1435.8 / 166.3 / 44.0 / 18.0 / 0"


@pytest.mark.slow
def test_all_models_train_on_fashion_mnist(convolutional: ModuleType, tmp_path: Path) -> None:
    root, page = make_torchvision_root(tmp_path, "FashionMNIST"), tmp_path / "page.md"
    command = ["--data", "fashion-mnist", "--data-root", str(root), "--steps", "2", "--output", str(page)]
    assert convolutional.main(command) == 0
    trainings = read_trainings(page)
    assert {t["model"]: len(t["pools"]) for t in trainings} == {"vgg11": 5, "vgg11-bn": 5, "resnet18": 1}
    for t in trainings:
        assert t["steps"] == 2 and t["certified"] + t["uncertified"] == 2
        first = 64 if t["model"] == "resnet18" else 32
        assert t["pools"][0]["max_outputs"] == COUNT * first * 16**2  # 128 + 12 images in two steps
        assert t["check_share"] == pytest.approx(t["check_ms_per_step"] / t["plain_ms_per_step"])


class _Lemma7(nn.Module):
    """max(u + b, b) - max(b - u, b) at u = b = 0, where autograd's gradient is no subgradient; any step moves u."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.u, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        entries = torch.stack([self.u + self.b, self.b, self.b - self.u, self.b]).view(1, 2, 2)
        best = nn.functional.max_pool1d(entries, 2).flatten()
        return (best[0] - best[1]) * x.mean((1, 2, 3))[:, None] * torch.arange(float(self.classes))


def test_uncertified_steps_are_kept_with_their_certificates(
    convolutional: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_crops(tmp_path)
    page, folder = tmp_path / "page.md", tmp_path / "certificates"
    monkeypatch.setitem(convolutional.MODELS, "vgg11", _Lemma7)
    command = ["--data", "photos", "--data-root", str(tmp_path / "photo_crops.npz"), "--models", "vgg11"]
    command += ["--steps", "3", "--seeds", "2", "--output", str(page), "--certificates", str(folder)]
    assert convolutional.main(command) == 0
    for t in read_trainings(page):
        assert (t["steps"], t["certified"], t["infeasible"], t["undecided"]) == (3, 2, 1, 0)
        (first,) = t["first_uncertified"]
        assert (first["step"], first["reason"]) == (0, "infeasible") and first["text"] in page.read_text()
        (pool,) = t["pools"]
        assert (pool["max_outputs"], pool["ties"], pool["nontrivial_steps"], pool["nontrivial"]) == (6, 2, 1, 2)
    (row,) = read_cells(page, "VGG11")
    assert row[1:8] == ["2", "3", "2", "33.33", "1", "1", "4 / 2 / 0"]
    files = sorted(folder.iterdir())
    assert [f.name for f in files] == [f"photos-vgg11-seed{s}-step0.json" for s in (0, 1)]
    with pytest.raises(SystemExit) as ended:
        monkeypatch.setattr(sys, "argv", ["fxcheck", "verify", str(files[0])])
        fxcheck_main()
    assert ended.value.code == 0


class _Tiny(nn.Sequential):
    def __init__(self, classes: int) -> None:
        super().__init__(
            nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(8), nn.Flatten(), nn.Linear(32, classes)
        )


def test_sections_are_replaced_and_cifar10_runs_twenty_epochs(
    convolutional: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
    labels = [i % 10 for i in range(COUNT)]
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", lambda **_: SimpleNamespace(data=pixels, targets=labels))
    monkeypatch.setitem(convolutional.MODELS, "vgg11", _Tiny)
    make_crops(tmp_path)
    page = tmp_path / "page.md"
    command = ["--data-root", str(tmp_path), "--models", "vgg11", "--output", str(page)]
    for data, steps in (("photos", ["--steps", "3"]), ("cifar10", []), ("photos", ["--steps", "2"])):
        assert convolutional.main(["--data", data, *command, *steps]) == 0
    assert {t["data"]: t["steps"] for t in read_trainings(page)} == {"cifar10": 40, "photos": 2}
    headings = [line for line in page.read_text().splitlines() if line.startswith("## ")]
    assert headings == ["## CIFAR-10", "## Photo crops"]
    assert [row[2] for row in read_cells(page, "VGG11")] == ["40", "2"]


def test_images_are_padded_repeated_and_turned(convolutional: ModuleType, tmp_path: Path) -> None:
    fashion = convolutional.fashion_mnist(str(make_torchvision_root(tmp_path, "FashionMNIST")))
    inputs, labels = fashion.batch(torch.tensor([5, 17]))
    assert inputs.shape == (2, 3, 32, 32) and labels.tolist() == [5, 7]
    assert torch.equal(inputs[:, 0], inputs[:, 2]) and 0.9 < inputs.max() <= 1
    assert inputs[:, :, 2:30, 2:30].count_nonzero() == inputs.count_nonzero() > 0
    upright = torch.from_numpy(make_crops(tmp_path, 40)).permute(0, 3, 1, 2)
    crops = convolutional.photos(str(tmp_path))
    assert set(crops.labels.tolist()) == {0, 1, 2, 3}
    for before, after, turns in zip(upright, crops.pixels, crops.labels, strict=True):
        assert torch.equal(after, torch.rot90(before, int(turns), (1, 2)))
    assert torch.equal(convolutional.photos(str(tmp_path)).labels, crops.labels)


# Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_missing_mnist_is_one_message(
    fully_connected: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], jobs: str
) -> None:
    page = tmp_path / "page.md"
    assert fully_connected.main(["--data-root", str(tmp_path), "--jobs", jobs, "--output", str(page)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and f"no MNIST in {str(tmp_path)!r}" in error and "Traceback" not in error
    assert not page.exists()


@pytest.mark.parametrize(
    "data, missing", [("photos", "photo crops"), ("fashion-mnist", "FashionMNIST"), ("cifar10", "CIFAR10")]
)
def test_missing_images_are_one_message(
    convolutional: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str, missing: str
) -> None:
    assert (
        convolutional.main(["--data", data, "--data-root", str(tmp_path), "--output", str(tmp_path / "page.md")]) == 2
    )
    error = capsys.readouterr().err
    assert error.startswith("error: ") and f"no {missing} in " in error and "--data-root" in error
    assert list(tmp_path.iterdir()) == []


def test_results_of_something_else_are_not_overwritten(
    convolutional: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_crops(tmp_path)
    (tmp_path / "page.json").write_text("[1]")
    assert (
        convolutional.main(["--data", "photos", "--data-root", str(tmp_path), "--output", str(tmp_path / "page.md")])
        == 2
    )
    assert "does not hold results" in capsys.readouterr().err
    assert (tmp_path / "page.json").read_text() == "[1]"
