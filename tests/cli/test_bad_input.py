"""Bad input, end to end through the real analysis: one clear message, exit status 2, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fxcheck.cli import main

HEAD = "import torch\nfrom torch import nn\n"
NET = HEAD + "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.f = nn.Linear(3, 3)\n"


def net(body: str, extra: str = "") -> str:
    return NET + extra + "    def forward(self, x):\n        " + body + "\n"


BAD = {
    "two candidates": (HEAD + "a = nn.Linear(2, 2)\nb = nn.Linear(2, 2)\n", [], ("several models", "a", "b")),
    "no model": ("x = 1\n", [], ("defines no model",)),
    "constructor raises": (
        NET.replace("self.f = nn.Linear(3, 3)", "raise ValueError('no such depth')"), [], ("ValueError", "no such depth")),
    "import raises": ("import not_a_package_at_all\n", [], ("not_a_package_at_all",)),
    "syntax error": ("def f(:\n", [], ("SyntaxError",)),
    "forward raises": (net("raise RuntimeError('not today')"), [], ("FX601", "RuntimeError", "not today", "model.py")),
    "wrong input shape": (net("return self.f(x)"), ["--input", "4x5"], ("FX601", "--input")),
    "unreadable shape": (net("return self.f(x)"), ["--input", "4,5"], ("is not a shape",)),
    "unknown dtype": (net("return self.f(x)"), ["--input", "4x3:float31"], ("is not a dtype",)),
    "control flow on values": (net("return self.f(x) if x.sum() > 0 else x"), [], ("FX602", "torch.where")),
    "complex output": (net("return torch.complex(self.f(x), x)"), [], ("complex",)),
    "integer output": (net("return self.f(x).argmax(1)"), [], ("no floating-point tensor",)),
    "NaN weights": (net("return self.f(x)", "        self.f.weight.data[0, 0] = float('nan')\n"), [], ("f.weight", "NaN")),
    "unknown mode": (net("return self.f(x)"), ["--mode", "fast"], ("--mode",)),
    "unknown format": (net("return self.f(x)"), ["--format", "yaml"], ("--format",)),
    "loss is no function": (net("return self.f(x)"), ["--loss", "math:pi"], ("math:pi",)),
    "loss is no scalar": (net("return self.f(x)"), ["--loss", "torch:sub"], ("scalar",)),
    "proxies file missing": (net("return self.f(x)"), ["--proxies", "nowhere.json"], ("nowhere.json",)),
}  # fmt: skip


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(main(arguments))
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_clear_message(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, flags, wanted = BAD[name]
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(text)
    status, out, err = run(["analyze", "model.py", *flags], capsys)
    assert status == 2 and not out
    assert "Traceback" not in err and "internal error" not in err
    assert all(part in err for part in wanted), err


@pytest.mark.parametrize(
    ("target", "wanted"),
    [("nowhere.py", "no such file"), (".", "is a directory"), ("no_such_package_here:model", "no_such_package_here"),
     ("torch.nn:NoSuchLayer", "NoSuchLayer"), ("broken.pt2", "broken.pt2"), ("missing.pt2", "no such file")],
)  # fmt: skip
def test_a_target_that_names_no_model(
    target: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.pt2").write_bytes(b"not an archive")
    status, out, err = run(["analyze", target], capsys)
    assert status == 2 and not out and wanted in err and "Traceback" not in err


@pytest.mark.parametrize(
    "text",
    [HEAD + "class Net(nn.Module):\n    def forward(self, x):\n        return x.relu()\nexample_inputs = torch.ones(2, 3)\n",
     net("return self.f(x).relu()", "        self.requires_grad_(False)\n")],
    ids=["no parameters", "frozen parameters only"],
)  # fmt: skip
def test_a_model_without_trainable_parameters_is_smooth(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(text)
    status, out, _ = run(["analyze", "model.py"], capsys)
    assert status == 0 and "smooth" in out


def test_an_archive_of_torch_export_is_analysed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())
    torch.export.save(torch.export.export(model, (torch.zeros(2, 3),), strict=False), "model.pt2")
    status, out, _ = run(["analyze", "model.pt2"], capsys)
    assert status == 0 and "certified" in out and "exported" in out
    for flag in (["--mode", "eval"], ["--arg", "width=3"], ["--input", "2x3"]):
        status, _, err = run(["analyze", "model.pt2", *flag], capsys)
        assert status == 2 and "baked in" in err
