"""The examples on the pages of ``fxcheck explain`` get the verdicts that the pages claim."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from fxcheck.api import analyze
from fxcheck.errors import FxcheckError
from fxcheck.theory import explain

SNIPPET = re.compile(r"```python\n# verdict: (\w+)(?: (FX6\d\d))?\n(.*?)```", re.DOTALL)
SHOWN_OTHERWISE = {
    "FX204": "needs a saved table",
    "FX603": "which operators export refuses differs between releases of torch",
    "FX604": "reading .data is followed as detach since",
    "FX605": "needs an archive",
    "FX606": "an operator that nobody described",
    "FX607": "an assumption, not a diagnostic",
}
"""Codes whose failing example shows another code, or needs files; their verdicts are checked all the same."""


def outcome(code: str, folder: Path) -> tuple[str, str | None, set[str]]:
    path = folder / "snippet.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("snippet", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    options: dict[str, Any] = {"batch_size": 1} if "--batch-size 1" in code else {}
    try:
        report = analyze(module.model, module.args, **options)
    except FxcheckError as error:
        return "error", error.code, {error.code or ""}
    codes = {d.code for layer in report.layers for d in layer.diagnostics} | {d.code for d in report.diagnostics}
    return str(report.verdict), None, codes


@pytest.mark.parametrize("heading", ["Passes", "Fails"])
@pytest.mark.parametrize("name", [n for n in explain.names() if n != "FX605"])
def test_an_example_gets_the_verdict_that_its_page_claims(name: str, heading: str, tmp_path: Path) -> None:
    found = SNIPPET.search(explain.page(name).section(heading) + "\n")
    assert found is not None
    verdict, error, codes = outcome(found[3], tmp_path)
    assert (verdict, error) == (found[1], found[2]), codes
    if heading == "Fails" and name.startswith("FX") and name not in SHOWN_OTHERWISE:
        assert name in codes
