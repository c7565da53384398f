"""From TARGET text to a module: the search order, the errors, and what importing leaves behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fxcheck.capture.target import Loaded, load
from fxcheck.errors import CaptureError, FxcheckError, TargetError

HEAD = "import torch\nfrom torch import nn\n"
NET = "class Net(nn.Module):\n    def __init__(self, width=4):\n        super().__init__()\n"
NET += "        self.linear = nn.Linear(4, width)\n    def forward(self, x):\n        return self.linear(x)\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def write_file(text: str, name: str = "m.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + text)
        return name

    return write_file


def _kind(loaded: Loaded) -> str:
    return type(loaded.module).__name__


def _refusal(target: str, arguments=None, *, meta: bool = False) -> FxcheckError:
    with pytest.raises(FxcheckError) as caught:
        load(target, arguments, meta=meta)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (NET + "model = nn.ReLU()\ndef get_model(): return nn.Tanh()\n", "ReLU"),
        (NET + "def build_model(): return nn.ELU()\ndef get_model(): return nn.Tanh()\n", "Tanh"),
        (NET + "def build_model(): return nn.ELU()\n", "ELU"),
        (NET + "anything = nn.SiLU()\n", "SiLU"),
        (NET, "Net"),
        (NET + "class Other(nn.Module):\n    def __init__(self, size):\n        super().__init__()\n", "Net"),
        ("from torch.nn import Linear, ReLU\n" + NET, "Net"),
    ],
)
def test_a_file_is_searched_in_the_order_of_the_contract(write, text: str, kind: str) -> None:
    assert _kind(load(write(text))) == kind


def test_attributes_of_files_and_packages_are_built_with_arguments(write) -> None:
    assert load(write(NET) + ":Net", {"width": 7}).module.linear.out_features == 7
    assert load("torch.nn:Linear", {"in_features": 3, "out_features": 2}).module.in_features == 3


def test_siblings_import_and_neither_path_nor_modules_change(write, tmp_path: Path) -> None:
    write("width = 3\n", "a/helper_of_target.py")
    write("width = 5\n", "b/helper_of_target.py")
    text = NET + "def get_model():\n    import helper_of_target\n    return Net(helper_of_target.width)\n"
    path = list(sys.path)
    widths = [load(write("import helper_of_target\n" + text, f"{d}/m.py")).module.linear.out_features for d in "ab"]
    assert widths == [3, 5]
    assert sys.path == path
    assert "helper_of_target" not in sys.modules


def test_the_constructor_can_run_on_the_meta_device(write) -> None:
    assert load(write(NET), meta=True).module.linear.weight.is_meta


def test_a_constructor_that_needs_numbers_says_to_drop_meta(write) -> None:
    text = "def get_model():\n    return nn.Linear(4, int(torch.ones(3).sum().item()))\n"
    error = _refusal(write(text), meta=True)
    assert "--meta" in error.hint
    assert load("m.py").module.out_features == 3


@pytest.mark.parametrize(
    ("text", "target", "said"),
    [
        ("", "missing.py", "no such file"),
        ("", ".", "directory"),
        ("x = 1\ndef f(): pass\n", "m.py", "x, f"),
        ("one = nn.ReLU()\ntwo = nn.Tanh()\n", "m.py", "one, two"),
        (NET + NET.replace("Net", "Second"), "m.py", "Net, Second"),
        (NET.replace("width=4", "width"), "m.py", "width"),
        (NET, "m.py:Nett", "found Net"),
        ("x = 1\n", "m.py:x", "int"),
        ("def get_model(): return 3\n", "m.py", "int"),
        (NET, "no_such_package_here.models:Net", "no_such_package_here"),
        (NET, "nonsense", "nonsense"),
        ("import no_such_package_here\n", "m.py", "ModuleNotFoundError"),
        ("def get_model():\n    raise KeyError('weights')\n", "m.py", "KeyError: 'weights'"),
        ("raise SystemExit(3)\n", "m.py", "exit status 3"),
        ("def (\n", "m.py", "SyntaxError"),
        ("", "missing.pt2", "no such file"),
    ],
)
def test_a_bad_target_is_one_message(write, text: str, target: str, said: str) -> None:
    write(text)
    error = _refusal(target)
    assert isinstance(error, TargetError)
    assert said in error.message


def test_an_exception_of_the_file_names_the_users_line(write) -> None:
    write("def get_model():\n    return nn.Linear(4)\n")
    error = _refusal("m.py")
    assert "m.py:4" in error.message
    assert "out_features" in error.message


def test_a_wrong_argument_is_named(write) -> None:
    assert "'depth'" in _refusal(write(NET) + ":Net", {"depth": 3}).message
    assert "instance" in _refusal(write("model = nn.ReLU()\n"), {"depth": 3}).message


def test_a_corrupt_archive_is_a_capture_error(tmp_path: Path) -> None:
    (tmp_path / "broken.pt2").write_bytes(b"not an archive")
    error = _refusal(str(tmp_path / "broken.pt2"))
    assert isinstance(error, CaptureError)


def test_an_archive_is_a_program(tmp_path: Path) -> None:
    path = tmp_path / "good.pt2"
    torch.export.save(torch.export.export(nn.Linear(4, 4), (torch.zeros(3, 4),)), path)
    loaded = load(str(path))
    assert loaded.module is None
    assert loaded.program is not None


def test_example_inputs_of_the_file_are_evaluated(write) -> None:
    assert load(write(NET + "example_inputs = (torch.zeros(2, 4),)\n")).example_inputs[0].shape == (2, 4)
    assert load(write(NET + "def example_inputs(): return torch.zeros(3, 4)\n")).example_inputs.shape == (3, 4)
    error = _refusal(write(NET + "def example_inputs(): raise OSError('no data')\n"))
    assert "OSError: no data" in error.message
