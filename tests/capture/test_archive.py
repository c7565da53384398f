"""Archives are read without unpickling: what would run code is refused unless it is allowed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fxcheck.capture.archive import read_archive
from fxcheck.errors import TargetError

Change = Callable[[bytes], bytes]


class Touch:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    path = tmp_path_factory.mktemp("archives") / "plain.pt2"
    torch.export.save(torch.export.export(model, (torch.zeros(2, 3),)), path)
    return path


def changed(plain: Path, to: Path, changes: dict[str, Change], added: dict[str, bytes] | None = None) -> Path:
    """A copy of an archive with some members changed, and others added."""
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            data = source.read(name)
            for ending, change in changes.items():
                data = change(data) if name.endswith(ending) else data
            target.writestr(name, data)
        root = source.namelist()[0].partition("/")[0]
        for name, data in (added or {}).items():
            target.writestr(f"{root}/{name}", data)
    return to


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _with_pickled_weight(data: bytes) -> bytes:
    document = json.loads(data)
    document["config"]["0.bias"]["use_pickle"] = True
    return json.dumps(document).encode()


def _with_an_object(_: bytes) -> bytes:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    return json.dumps({"config": {"o": entry}}).encode()


def test_tensors_need_no_pickle(plain: Path) -> None:
    before = dict(os.environ)
    assert "0.weight" in read_archive(str(plain)).state_dict
    assert dict(os.environ) == before


@pytest.mark.parametrize("where", ["sample inputs", "a weight", "an object"])
def test_pickled_objects_are_refused_unless_allowed(plain: Path, tmp_path: Path, where: str) -> None:
    trace = tmp_path / "trace"
    bomb = Touch(trace)
    if where == "sample inputs":
        path = changed(plain, tmp_path / "m.pt2", {"sample_inputs/model.pt": lambda _: _saved(bomb)})
    elif where == "a weight":
        changes: dict[str, Change] = {"model_weights_config.json": _with_pickled_weight, "weight_1": lambda _: _saved(bomb)}
        path = changed(plain, tmp_path / "m.pt2", changes)
    else:
        path = changed(plain, tmp_path / "m.pt2", {"model_constants_config.json": _with_an_object},
                       {"data/constants/opaque_obj_0": pickle.dumps(bomb)})  # fmt: skip
    with pytest.raises(TargetError, match="holds pickled objects") as error:
        read_archive(str(path))
    assert "--allow-pickle" in str(error.value)
    assert not trace.exists()
    with contextlib.suppress(Exception):  # what was unpickled is no model
        read_archive(str(path), allow_pickle=True)
    assert trace.exists(), "the test must show that the object would have run"
