"""Reading ``torch.export`` archives without running what they carry."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch.export import ExportedProgram

from fxcheck.errors import CaptureError, TargetError

_OBJECTS = ("data/constants/custom_obj", "data/constants/opaque_obj", "data/aotinductor/")
"""Members of a .pt2 archive (torch 2.14) that hold pickled objects or machine code; torch reads them without asking."""
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_TRUST = "if you trust where the archive comes from, give --allow-pickle; loading it may run code that it holds"


def read_archive(path: str, allow_pickle: bool = False) -> ExportedProgram:
    """Load a ``.pt2`` archive.

    Args:
        path: the file.
        allow_pickle: load pickled objects too, which may run any code. Tensors and plain containers never need it.

    Raises:
        TargetError: there is no such file, or it holds pickled objects and ``allow_pickle`` is false.
        CaptureError: it is not an archive that this torch can read.
    """
    if not Path(path).is_file():
        raise TargetError(f"no such file: {path}", hint="check the path, relative to the current directory")
    if not allow_pickle:
        _refuse_objects(path)
    try:
        with nullcontext() if allow_pickle else _tensors_only():
            return torch.export.load(path)
    except Exception as error:
        if "weights_only" in str(error).lower().replace(" ", "_"):
            raise TargetError(f"{path} holds pickled objects", hint=_TRUST) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CaptureError(f"{path} is not a readable torch.export archive ({reason[:200]})",
                           hint="write it with torch.export.save under this version of torch") from error  # fmt: skip


def _refuse_objects(path: str) -> None:
    """Refuse what torch would unpickle or run past ``torch.load``.

    Raises:
        TargetError: the archive holds such a member.
    """
    if not zipfile.is_zipfile(path):
        return  # torch says what is wrong with it
    with zipfile.ZipFile(path) as archive:
        inside = [name.partition("/")[2] for name in archive.namelist()]
    found = [name for name in inside if name.startswith(_OBJECTS)]
    if found:
        raise TargetError(f"{path} holds pickled objects or compiled code ({found[0]})", hint=_TRUST)


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Make every ``torch.load`` in the block refuse to unpickle anything but tensors and plain containers."""
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before
