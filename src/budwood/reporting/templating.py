"""The templates of the pages and what fills them."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from budwood.config.metric_registry import describe_metric
from budwood.evaluation.intervals import Metric
from budwood.reporting.contents import CONTENTS, add_contents
from budwood.reporting.findings_order import FOUND_SHOWN, count_severities, sort_by_importance
from budwood.reporting.glossary import Glossary
from budwood.reporting.judgements import judge_slice, judge_slices, judge_suspects
from budwood.text import LEAST_TOLD, SPLITS, TOO_FEW, say_too_few, show_unprintable

FILES_SHOWN: Final = 12
GROUPS_SHOWN: Final = 8


def load_template(name: str) -> Template:
    """Load the template of a page, with the filters that all pages share.

    Templates are compiled once a process, as a study renders many reports.

    Args:
        name: File name of the template.

    Returns:
        The Jinja template; a variable that is missing at rendering is an error.
    """
    return _make_environment().get_template(name)


def render_page(template: str, /, **values: Any) -> str:
    """Render a page, with its table of contents and the meanings of its words.

    Args:
        template: Its file name.
        values: What fills it.

    Returns:
        The page.
    """
    return add_contents(load_template(template).render(**values, term=Glossary()))


@cache
def _make_environment() -> Environment:
    """The templates, compiled once a process: a study renders many reports."""
    loader = PackageLoader("budwood.reporting", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": _format_percent,
        "interval": _format_interval,
        "plain": _format_plain,
        "shares": _format_share,
        "visible": show_unprintable,
        "prose": _mark_code,
        "metric_name": describe_metric,
        "by_importance": sort_by_importance,
        "severities": count_severities,
        "first_sentence": _cut_first_sentence,
        "judge_slice": judge_slice,
        "judge_slices": judge_slices,
        "judge_suspects": judge_suspects,
    }
    environment.globals |= {
        "CONTENTS": Markup(CONTENTS),
        "FILES_SHOWN": FILES_SHOWN,
        "FOUND_SHOWN": FOUND_SHOWN,
        "GROUPS_SHOWN": GROUPS_SHOWN,
        "LEAST_TOLD": LEAST_TOLD,
        "TOO_FEW": TOO_FEW,
        "SPLITS": SPLITS,
    }
    return environment


def _mark_code(sentence: str) -> Markup:
    """A sentence of Budwood's own, in which what stands between backticks is code."""
    parts = [escape(part) for part in show_unprintable(sentence).split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def _cut_first_sentence(text: str) -> str:
    first, end, _ = text.partition(". ")
    return first + end.strip()


def _format_percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


def _format_interval(metric: Metric) -> str:
    if metric.value is not None and metric.n < LEAST_TOLD:
        return say_too_few(metric.n)
    if metric.low is None or metric.high is None:
        return f"{'' if metric.value is None else f'{TOO_FEW}, '}n = {metric.n:,}"
    return f"{100 * metric.low:.1f} to {100 * metric.high:.1f} %, n = {metric.n:,}"


def _format_share(metric: Metric) -> Markup:
    """A metric of a table cell: the value, and its interval in small."""
    if metric.value is None:
        return Markup("–")
    if metric.n < LEAST_TOLD:
        return Markup('<small class="few">{}</small>').format(say_too_few(metric.n))
    if metric.low is None or metric.high is None:
        return Markup("{:.1f}&nbsp;% <small>{} (n = {:,})</small>").format(100 * metric.value, TOO_FEW, metric.n)
    shares = (100 * end for end in (metric.value, metric.low, metric.high))
    return Markup("{:.1f}&nbsp;% <small>{:.0f}–{:.0f}</small>").format(*shares)


def _format_plain(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        nested = any(isinstance(part, list | tuple) for part in value)
        return ("; " if nested else ", ").join(map(_format_plain, value))
    return f"{value:,}" if isinstance(value, int) else show_unprintable(str(value))
