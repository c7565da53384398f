"""Write docs/rules/ from the pages behind ``fxcheck explain``: one file per code, theorem, condition, lemma, algorithm.

    python tools/rule_pages.py            # write what changed
    python tools/rule_pages.py --check    # exit status 1 if a file is missing, old or left over
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fxcheck.theory import explain

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "rules"
MARK = "<!-- Written by tools/rule_pages.py from fxcheck/theory/pages; edit the page there. -->\n\n"
FAMILIES = {
    "FX1": "Biases, layers and sharing",
    "FX2": "Slopes at kinks (proxies)",
    "FX3": "Maxima and order statistics",
    "FX4": "Functions that are not continuous or not Lipschitz",
    "FX5": "Places where backward is not the derivative of the forward",
    "FX6": "Capture and unknown operators",
    "": "Theorems and what they rest on",
}


def documents() -> dict[str, str]:
    """The files of ``docs/rules`` by name."""
    pages = [explain.page(name) for name in explain.names()]
    found = {f"{page.name}.md": MARK + page.text for page in pages}
    return {"README.md": MARK + _index(pages), **found}


def _index(pages: list[explain.Page]) -> str:
    lines = ["# Rules\n", "\nWhat `fxcheck explain` prints, one page each. To fix findings, start with the",
             "\n[guide](../guide/fixing-findings.md).\n"]  # fmt: skip
    for family, heading in FAMILIES.items():
        lines.append(f"\n## {heading}\n\n")
        members = [p for p in pages if _family(p.name) == family]
        lines += [f"- [{p.name}]({p.name}.md): {p.title.partition(': ')[2]}\n" for p in members]
    return "".join(lines)


def _family(name: str) -> str:
    return name[:3] if name.startswith("FX") else ""


def differences(folder: Path, wanted: dict[str, str]) -> list[str]:
    """What is not as it should be, in sentences."""
    present = {p.name: p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.md"))}
    missing = [f"{name} is missing" for name in wanted.keys() - present.keys()]
    old = [f"{name} is old" for name in wanted.keys() & present.keys() if wanted[name] != present[name]]
    extra = [f"{name} is about nothing" for name in present.keys() - wanted.keys()]
    return sorted(missing + old + extra)


def write(folder: Path, wanted: dict[str, str]) -> None:
    """Make the folder hold exactly these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        folder.joinpath(name).write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/rules/ from the pages of fxcheck explain.")
    parser.add_argument("--check", action="store_true", help="only say what differs")
    arguments = parser.parse_args()
    wanted = documents()
    found = differences(FOLDER, wanted)
    for sentence in found:
        print(sentence)
    if not arguments.check:
        write(FOLDER, wanted)
    return int(arguments.check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
