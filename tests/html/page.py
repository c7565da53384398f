"""One page opened in headless Chromium, after a script was run in it."""

from __future__ import annotations

import html
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVER = """<script>
window.addEventListener("error", (e) => { document.documentElement.dataset.broken = e.message; });
const $ = (s) => document.querySelector(s), $$ = (s) => [...document.querySelectorAll(s)];
window.addEventListener("load", () => setTimeout(() => {
  const found = (() => { %s })(), root = document.documentElement;
  setTimeout(() => { root.dataset.result = JSON.stringify(typeof found === "function" ? found() : found); }, 50);
}, 50));
</script>"""


@dataclass(frozen=True)
class Opened:
    """What the browser says about a page."""

    result: Any
    console: tuple[str, ...]
    """Errors and warnings, refused requests included."""


def visit(chromium: str, text: str, folder: Path, script: str = "return null;", *flags: str) -> Opened:
    """Open a page, run a script in it, and return what it returned (a function is called a moment later)."""
    file = folder / "page.html"
    file.write_text(text.replace("<style>", DRIVER % script + "<style>", 1), encoding="utf-8")
    arguments = ["--dump-dom", "--enable-logging=stderr", "--virtual-time-budget=3000", *flags]
    ran = subprocess.run(
        [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000",
         f"--user-data-dir={folder / 'profile'}", *arguments, file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    tag = ran.stdout[: ran.stdout.index("<head")]
    found = re.search(r'data-result="([^"]*)"', tag)
    assert found and "data-broken" not in tag, tag
    console = tuple(line for line in ran.stderr.splitlines() if ":CONSOLE" in line)
    return Opened(json.loads(html.unescape(found[1])), console)


def screenshot(chromium: str, text: str, folder: Path, *, dark: bool) -> bytes:
    """A PNG of a page in one of the two colour schemes."""
    file, picture = folder / "page.html", folder / f"{'dark' if dark else 'light'}.png"
    file.write_text(text, encoding="utf-8")
    subprocess.run(
        [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,1600",
         f"--user-data-dir={folder / 'profile'}", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
         f"--screenshot={picture}", "--virtual-time-budget=2000", file.as_uri()],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    return picture.read_bytes()
