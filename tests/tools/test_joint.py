"""The joint condition's experiments on tiny synthetic data: networks, counts, and what the page says."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcheck
from fxcheck.cli import main as fxcheck_main
from tests.tools.made import COUNT, make_crops, make_torchvision_root, read_cells, read_trainings, tool

NAMES = ["run", "training", "counts", "page", "networks", "tasks", "convolutional", "common"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return tool(monkeypatch, ["paper", "joint"], NAMES)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """MNIST, FashionMNIST and photo crops."""
    folder = tmp_path / "data"
    folder.mkdir()
    make_torchvision_root(folder, "MNIST")
    make_torchvision_root(folder, "FashionMNIST")
    make_crops(folder)
    return folder


def _module(name: str) -> ModuleType:
    """A module beside the script, once ``run`` has imported it."""
    return sys.modules[name]


# Runs ------------------------------------------------------------------------------------------


def _train(run: ModuleType, root: Path, page: Path, *options: str) -> list[dict[str, Any]]:
    assert run.main(["--data-root", str(root), "--output", str(page), *options]) == 0
    return read_trainings(page)


def _assert_complete(run: ModuleType, t: dict[str, Any], page: Path) -> None:
    kinds = t["kinds"].values()
    assert sum(t["outcomes"].values()) == sum(k["steps"] for k in kinds) == t["steps"] == 2
    assert all(sum(k["outcomes"].values()) == k["steps"] for k in kinds)
    assert all(math.isfinite(x) for x in t["loss"]) and t["check_ms"] > 0 and t["plain_ms"] > t["backward_ms"] > 0
    assert t["check_share"] == pytest.approx(t["check_ms"] / t["plain_ms"]) and t["seconds"] > 0
    assert t["layers"] and {layer["steps"] for layer in t["layers"]} == {2}
    about, verdict, *others = read_cells(page, run.NETWORKS[t["network"]].title)
    assert about[2:5] == [str(t["batch"]), str(t["seed"]), "2"]
    assert verdict[1:3] == ["0", "2"] and len(others) >= 3  # touches, overhead and stages


def test_recurrent_siamese_tied_and_repeated_networks_are_counted(run: ModuleType, root: Path, tmp_path: Path) -> None:
    page, names = tmp_path / "docs" / "page.md", ["rnn", "rnn-unrolled", "siamese", "autoencoder", "deq"]
    trainings = _train(run, root, page, "--steps", "2", "--batch", "4", "--allow-uncovered", "--networks", *names)
    assert [t["network"] for t in trainings] == names
    for t in trainings:
        _assert_complete(run, t, page)
    (tied,) = (t for t in trainings if t["network"] == "autoencoder")
    (loss,) = (layer for layer in tied["layers"] if layer["name"] == "l1_loss")
    assert loss["touched"] > 0  # the output's ReLU is off where the pixel is black


@pytest.mark.slow
def test_networks_with_maxima_are_counted(run: ModuleType, root: Path, tmp_path: Path) -> None:
    page, names = tmp_path / "page.md", ["resnet18-amax", "resnet18-bf16-photos"]
    trainings = _train(run, root, page, "--steps", "2", "--batch", "2", "--allow-uncovered", "--networks", *names)
    assert [t["network"] for t in trainings] == names
    for t in trainings:
        _assert_complete(run, t, page)


def test_a_bf16_recurrence_is_counted_or_refused(run: ModuleType, root: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (t,) = _train(run, root, page, "--steps", "2", "--batch", "4", "--networks", "rnn-unrolled-bf16")
    if "refused" in t:
        assert f"- {run.NETWORKS[t['network']].title}, seed 0: {t['refused']}" in page.read_text().splitlines()
    else:
        _assert_complete(run, t, page)


def test_steps_with_maxpools_are_those_of_the_papers_experiment(run: ModuleType, root: Path, tmp_path: Path) -> None:
    convolutional = _module("convolutional")
    for model, build in convolutional.MODELS.items():
        assert run.NETWORKS[f"{model}-photos"].build is run.NETWORKS[f"{model}-fashion-mnist"].build is build
    (ours,) = _train(run, root, tmp_path / "ours.md", "--steps", "2", "--networks", "vgg11-photos")
    command = ["--data", "photos", "--data-root", str(root), "--models", "vgg11", "--steps", "2"]
    assert convolutional.main([*command, "--output", str(tmp_path / "theirs.md")]) == 0
    (theirs,) = read_trainings(tmp_path / "theirs.md")
    assert ours["layers"] == [*theirs["pools"], *theirs["other_layers"]] and ours["layers"][0]["ties"] > 0


# Options ---------------------------------------------------------------------------------------


class _Lemma7(nn.Module):
    """max(u + b, b) - max(b - u, b) at u = b = 0, where autograd's gradient is no subgradient; any step moves u."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.u, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        entries = torch.stack([self.u + self.b, self.b, self.b - self.u, self.b]).view(1, 2, 2)
        best = nn.functional.max_pool1d(entries, 2).flatten()
        return (best[0] - best[1]) * x.mean((1, 2, 3))[:, None] * torch.arange(float(self.classes))


@pytest.fixture
def lemma7(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a network that is infeasible in its first step."""
    monkeypatch.setitem(run.NETWORKS, "vgg11-photos", replace(run.NETWORKS["vgg11-photos"], build=_Lemma7))
    return "vgg11-photos"


def test_an_infeasible_step_is_reported_with_its_certificate(
    run: ModuleType, lemma7: str, root: Path, tmp_path: Path
) -> None:
    page, folder = tmp_path / "page.md", tmp_path / "certificates"
    (t,) = _train(run, root, page, "--steps", "3", "--networks", lemma7, "--certificates", str(folder))
    assert t["outcomes"] == {"infeasible": 1, "T8, bouligand": 2} and t["first_beyond_t8"] == {"infeasible": [0]}
    assert (t["kinds"]["rows"]["steps"], t["kinds"]["rows"]["outcomes"]) == (1, {"infeasible": 1})
    (reason,) = t["uncertified"]
    assert (reason["reason"], reason["steps"], reason["first"]) == ("infeasible", 1, 0)
    _, verdict, beyond, *_ = read_cells(page, "VGG11, Photo crops")
    assert verdict[3:] == ["2", "T8 (bouligand) 2", "0", "1", "0", "0", "1", "infeasible 1"]
    assert beyond[3:11] == ["2", "1", "0", "0", "0", "0", "1", "0"]
    (file,) = folder.rglob("*.json")
    assert file == folder / lemma7 / "seed0-step0.json"
    with pytest.raises(SystemExit) as ended:
        fxcheck_main(["verify", str(file)])
    assert ended.value.code == 0


def test_runs_are_merged_resumed_and_rendered_again(
    run: ModuleType, lemma7: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    _train(run, root, page, "--steps", "2", "--batch", "4", "--networks", "deq", "--allow-uncovered")
    trainings = _train(run, root, page, "--steps", "1", "--seeds", "2", "--networks", lemma7)
    assert [(t["network"], t["seed"], t["steps"]) for t in trainings] == [("deq", 0, 2), (lemma7, 0, 1), (lemma7, 1, 1)]
    trained: list[int] = []
    monkeypatch.setattr(run, "train", lambda _n, _t, settings, _k: trained.append(settings.seed) or trainings[1])
    _train(run, root, page, "--steps", "1", "--seeds", "3", "--networks", lemma7, "--resume")
    assert trained == [2]
    text = page.read_text()
    page.unlink()
    assert run.main(["--page-only", "--output", str(page)]) == 0
    assert page.read_text() == text


def test_what_no_theorem_covers_is_named_and_the_others_are_trained(
    run: ModuleType, lemma7: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, instrument = tmp_path / "page.md", fxcheck.instrument

    def refuse(model: nn.Module, *args: Any, **kwargs: Any) -> fxcheck.CheckedModule:
        if not isinstance(model, _Lemma7):
            raise fxcheck.UncoveredModel("nothing covers it")
        return instrument(model, *args, **kwargs)

    monkeypatch.setattr(fxcheck, "instrument", refuse)
    trainings = _train(run, root, page, "--steps", "1", "--networks", "deq", lemma7)
    assert ["refused" in t for t in trainings] == [True, False]
    assert "- Repeated block, seed 0: nothing covers it" in page.read_text()


def test_missing_data_is_one_message(run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--data-root", str(tmp_path), "--networks", "rnn", "--output", str(tmp_path / "page.md")]
    assert run.main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "no MNIST in " in error and "--data-root" in error
    assert list(tmp_path.iterdir()) == []


def test_training_needs_data_and_a_page_needs_trainings(
    run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(["--networks", "rnn"])
    assert ended.value.code == 2
    assert run.main(["--page-only", "--output", str(tmp_path / "page.md")]) == 2
    assert "there are no trainings beside" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


# Counts ----------------------------------------------------------------------------------------


def _seen(counts: ModuleType, outcome: str, text: str = "", touched: int = 0, ties: int = 0, rows: int = 0,
          check: float = 0.01) -> Any:  # fmt: skip
    return counts.Seen(outcome, text, touched, ties, rows, 1.0, check, 1.0 + check, 1.0)


def test_times_are_medians_by_what_a_step_touched(run: ModuleType) -> None:
    counts = _module("counts")
    quiet, tied = _seen(counts, "T8, bouligand"), _seen(counts, "T8, bouligand", ties=5, check=0.03)
    touched = _seen(counts, "joint, bouligand", touched=7, check=0.2)
    rows = [_seen(counts, "joint, clarke", touched=3, rows=n, check=c) for n, c in ((5, 0.42), (25, 1.22), (30, 4.02))]
    found = counts.counted([_seen(counts, "T8, bouligand", check=9.0)] * 2 + [quiet, tied, touched, *rows], 0.4)
    kinds = found["kinds"]
    assert [(k["steps"], k["timed"]) for k in kinds.values()] == [(3, 1), (1, 1), (1, 1), (3, 3)]
    assert [k["check_share"] for k in kinds.values()] == pytest.approx([0.01, 0.03, 0.2, 1.22])
    assert [k["whole"] for k in kinds.values()] == pytest.approx([1.01, 1.03, 1.2, 2.22])
    of_rows = kinds[counts.ROWS]
    assert (of_rows["rows"], of_rows["most_rows"], of_rows["touched"]) == (25, 30, 3)
    assert of_rows["extra_backwards"] == pytest.approx(3.0)  # 1.22 - 0.02 seconds
    assert of_rows["backwards_per_ten_rows"] == pytest.approx(1.0)  # 1 of 1, 3 of 3, 10 of 3 passes
    assert of_rows["within_goal"] == 2
    assert found["outcomes"] == {"T8, bouligand": 4, "joint, bouligand": 1, "joint, clarke": 3}


def test_sentences_that_differ_in_their_numbers_are_one_reason(run: ModuleType) -> None:
    counts = _module("counts")
    texts = ["all 983 rows of layer1.0.relu#2", "all 1,024 rows of layer1.0.relu#2", "all 7 rows of layer1.1.relu#2"]
    found = counts.counted([_seen(counts, "infeasible", text, rows=1) for text in texts], 0.4)["uncertified"]
    assert [(r["text"], r["steps"], r["first"]) for r in found] == [(texts[0], 2, 0), (texts[2], 1, 2)]


# Networks and tasks ----------------------------------------------------------------------------


def test_the_loop_computes_what_the_recurrent_module_does(run: ModuleType) -> None:
    networks = _module("networks")
    torch.manual_seed(0)
    whole, loop, x = networks.ElmanRNN(10), networks.UnrolledRNN(10), torch.rand(3, 28, 28)
    cells = {"of_input": "ih", "of_state": "hh"}
    with torch.no_grad():
        for ours, theirs in cells.items():
            getattr(loop, ours).weight.copy_(getattr(whole.rnn, f"weight_{theirs}_l0"))
            getattr(loop, ours).bias.copy_(getattr(whole.rnn, f"bias_{theirs}_l0"))
        loop.head.load_state_dict(whole.head.state_dict())
    torch.testing.assert_close(loop(x), whole(x))


def test_amax_over_windows_is_a_max_pool(run: ModuleType) -> None:
    networks = _module("networks")
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(networks.WindowMax()(x), nn.functional.max_pool2d(x, 2))
    assert torch.equal(networks.GlobalMax()(x), nn.functional.adaptive_max_pool2d(x, 1))


def test_every_second_pair_is_of_one_class(run: ModuleType, root: Path) -> None:
    task = run.NETWORKS["siamese"].task(str(root))
    (one, other), same = task.batch(torch.arange(COUNT))
    assert one.shape == other.shape == (COUNT, 1, 28, 28) and same[::2].all()
    assert 0 <= same[1::2].mean() < 0.3  # ten classes
    assert len({image.numpy().tobytes() for image in other}) > COUNT / 2
    again = run.NETWORKS["siamese"].task(str(root)).batch(torch.arange(COUNT))
    assert torch.equal(again[0][1], other) and torch.equal(again[1], same)


def test_an_autoencoder_aims_at_its_input_and_shares_its_weights(run: ModuleType, root: Path) -> None:
    network = run.NETWORKS["autoencoder"]
    task = network.task(str(root))
    (flat,), target = task.batch(torch.arange(5))
    assert flat is target and flat.shape == (5, 784) and 0.9 < flat.max() <= 1
    model = network.build(task.classes)
    assert sorted(tuple(p.shape) for p in model.parameters() if p.dim() == 2) == [(32, 128), (128, 784)]
