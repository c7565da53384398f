"""Where a graph node comes from: the module path, and the user's source line."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from torch import fx

from fxcheck.records.graph import Origin

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in [^\n]*\n?(?:[ \t]+([^\n]*))?')
_OWN = f"{os.sep}fxcheck{os.sep}capture{os.sep}"
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class OriginReader:
    """Reads the metadata that torch.export leaves on nodes."""

    def __init__(self, strip_prefix: str = "") -> None:
        self.prefix = strip_prefix.rstrip(".")

    def of(self, node: fx.Node) -> Origin:
        path, module_type, call = self._module(node.meta.get("nn_module_stack") or {})
        location, source = user_line(node.meta.get("stack_trace") or "")
        return Origin(path, module_type, call, location, source)

    def _module(self, stack: dict[str, Any]) -> tuple[str, str, int]:
        if not stack:
            return "", "", 0
        path, kind = list(stack.values())[-1]
        name, _, call = str(path).partition("@")
        key = str(list(stack)[-1])
        if not call and "@" in key:
            call = key.rpartition("@")[2]
        if self.prefix and (name == self.prefix or name.startswith(self.prefix + ".")):
            name = name[len(self.prefix) :].lstrip(".")
        kind_name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        return name, kind_name, int(call) if call.isdigit() else 0


@lru_cache(maxsize=4096)
def user_line(trace: str) -> tuple[str, str]:
    """``file.py:line`` and the source text of the innermost frame in the user's code.

    Frames inside installed packages count only when there is no other; then torch's own count last.
    """
    frames = [f for f in _FRAME.findall(trace) if not f[0].startswith("<") and _OWN not in f[0]]
    if not frames:
        return "", ""
    outside = [f for f in frames if not any(part in f[0] for part in _INSTALLED)]
    not_torch = [f for f in frames if f"{os.sep}torch{os.sep}" not in f[0]]
    file, line, source = (outside or not_torch or frames)[-1]
    return f"{_short(file, bool(outside))}:{line}", source.strip()


def user_line_of(frames: Iterable[traceback.FrameSummary]) -> tuple[str, str]:
    """As ``user_line``, for the frames of a traceback or of the running stack."""
    return user_line("".join(f'File "{f.filename}", line {f.lineno}, in {f.name}\n  {f.line or ""}\n' for f in frames))


def _short(file: str, is_user_file: bool) -> str:
    if is_user_file:
        relative = os.path.relpath(file)
        if not relative.startswith(".."):
            return relative
    return os.path.basename(file)
