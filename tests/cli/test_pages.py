"""The pages of ``fxcheck explain`` have the fixed sections, and their snippets name a verdict each."""

from __future__ import annotations

import re

import pytest

from fxcheck.records.finding import Verdict
from fxcheck.theory import explain

SNIPPET = re.compile(r"```python\n# verdict: (\w+)(?: (FX6\d\d))?\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("name", explain.names())
def test_a_page_has_every_section_and_two_snippets_that_compile(name: str) -> None:
    page = explain.page(name)
    assert page.text.startswith(f"# {name}: ")
    assert all(page.section(heading) for heading in explain.SECTIONS)
    for heading in ("Passes", "Fails"):
        found = SNIPPET.search(page.section(heading) + "\n")
        assert found is not None
        assert found[1] in {*Verdict, "error"}
        code = compile(found[3], name, "exec")
        assert {"model", "args"} <= set(code.co_names)
