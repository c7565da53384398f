"""The folder passes/ is imported as fxcheck.passes, whatever the working directory contains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_an_unrelated_passes_package_in_the_working_directory_stays_apart(tmp_path: Path) -> None:
    (tmp_path / "passes").mkdir()
    (tmp_path / "passes" / "__init__.py").write_text("OWNER = 'the user'\n")
    code = "import passes, fxcheck.passes, fxcheck.passes.group_layers as g; print(passes.OWNER, g.__name__)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.stdout.split("\n")[0] == "the user fxcheck.passes.group_layers", ran.stderr
