"""An explanation to a page of its own; the sections are those that a run's report has."""

from __future__ import annotations

from budwood.explanations import Explanation
from budwood.page import template


def render_explanation(found: Explanation, name: str, network: str) -> str:
    """An explanation as HTML; `name` is that of the data, `network` that of the network."""
    html: str = template("explained.html").render(
        record=found.record, pictures=found.pictures, name=name, network=network
    )
    return html
