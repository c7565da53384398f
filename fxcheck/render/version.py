"""The version that documents name."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def fxcheck_version() -> str:
    """From the metadata of the installation; 0 where there is none."""
    try:
        return version("fxcheck")
    except PackageNotFoundError:
        return "0"
