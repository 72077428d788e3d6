"""What a value shows of itself in a notebook.

Values such as a run or a data set live below the packages that draw, and may not import them. So, as the registries of
`config` do, one table names what draws each kind as `package.module:name`, and that is imported when a notebook asks:
values stay plain, `import budwood` stays quick, and the order of the packages holds.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

_DRAWN_BY: Final[Mapping[str, str]] = {  # by the name of the class
    "Attribution": "budwood.explain.displays:draw_attribution",
    "Comparison": "budwood.reporting.displays:draw_comparison",
    "Confusion": "budwood.reporting.displays:draw_confusion",
    "Dataset": "budwood.reporting.displays:draw_dataset",
    "Embedding": "budwood.explain.displays:draw_embedding",
    "Faithfulness": "budwood.explain.displays:draw_faithfulness",
    "Filters": "budwood.explain.displays:draw_filters",
    "Finding": "budwood.reporting.displays:draw_finding",
    "History": "budwood.reporting.displays:draw_history",
    "Maps": "budwood.explain.displays:draw_maps",
    "Maximisation": "budwood.explain.displays:draw_maximisation",
    "PredictionList": "budwood.reporting.displays:draw_prediction_list",
    "Predictions": "budwood.reporting.displays:draw_predictions",
    "Recipe": "budwood.reporting.displays:draw_recipe",
    "Run": "budwood.reporting.displays:draw_run",
    "SanityCheck": "budwood.explain.displays:draw_sanity",
    "Strip": "budwood.explain.displays:draw_strip",
    "Suspects": "budwood.explain.displays:draw_suspects",
}


class Displayed:
    """A value that a notebook shows as HTML: self-contained, for light and dark pages, every name escaped."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Draw the value; what a notebook calls."""
        return str(draw(_DRAWN_BY[type(self).__name__], self))


def draw(place: str, *values: Any, **options: Any) -> Any:
    """Call what draws a value.

    Args:
        place: The function, as `package.module:name`.
        *values: What it draws.
        **options: How.

    Returns:
        What the function returns.
    """
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)(*values, **options)
