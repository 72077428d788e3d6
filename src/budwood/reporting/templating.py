"""The templates of the pages and what fills them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from budwood.text import visible

FILES_SHOWN: Final = 12


GROUPS_SHOWN: Final = 8


def template(name: str) -> Any:
    """A template of a page, with the filters that all pages share."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    """The templates, compiled once a process: a study renders many reports."""
    loader = PackageLoader("budwood.reporting", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": _percent,
        "interval": _interval,
        "plain": _plain,
        "shares": _shares,
        "visible": visible,
    }
    environment.globals |= {"FILES_SHOWN": FILES_SHOWN, "GROUPS_SHOWN": GROUPS_SHOWN}
    return environment


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


def _interval(metric: Mapping[str, Any]) -> str:
    if metric["low"] is None or metric["high"] is None:
        return f"n = {metric['n']:,}"
    return f"{100 * metric['low']:.1f} to {100 * metric['high']:.1f} %, n = {metric['n']:,}"


def _shares(metric: Mapping[str, Any]) -> Markup:
    """A metric of a table cell: the value, and its interval in small."""
    if metric["value"] is None:
        return Markup("–")
    if metric["low"] is None or metric["high"] is None:
        return Markup("{:.1f}&nbsp;%").format(100 * metric["value"])
    return Markup("{:.1f}&nbsp;% <small>{:.0f}–{:.0f}</small>").format(
        *(100 * metric[key] for key in ("value", "low", "high"))
    )


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        nested = any(isinstance(part, list | tuple) for part in value)
        return ("; " if nested else ", ").join(map(_plain, value))
    return f"{value:,}" if isinstance(value, int) else visible(str(value))
