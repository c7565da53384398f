"""``python -m fxcheck``."""

from __future__ import annotations

from fxcheck.cli import main

if __name__ == "__main__":
    main()
