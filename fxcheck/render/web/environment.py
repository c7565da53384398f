"""The templates: everything that comes from outside is escaped, styles and script are part of the page."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from fxcheck.render.version import fxcheck_version
from fxcheck.render.web import kinks


def filled(template: str, **values: Any) -> str:
    """A page from its template, with the styles and the script inlined."""
    parts = {"css": Markup(_read("page.css")), "script": Markup(_read("page.js")), "version": fxcheck_version()}
    return _environment().get_template(template).render(**parts, **values).strip() + "\n"


@lru_cache
def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(_read), autoescape=select_autoescape(["html.j2"], default=True),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters["breakable"] = _breakable
    made.globals.update(plot=kinks.plot, says=kinks.says, number=kinks.number)
    return made


def _breakable(path: str) -> Markup:
    """A module path that may be broken after its dots."""
    return Markup(".<wbr>").join(path.split("."))


def _read(name: str) -> str:
    return files("fxcheck.render.web").joinpath("templates").joinpath(name).read_text(encoding="utf-8")
