"""The pictures of a card: images with what they are and what they are called."""

from __future__ import annotations

from dataclasses import replace

from budwood.evaluation.predictions import Predictions
from budwood.reporting.display_card import CardPicture
from budwood.reporting.run_page import ShownImage
from budwood.reporting.thumbnails import choose_shown


def list_pictures(predictions: Predictions, n: int) -> list[CardPicture]:
    """List the first images of predictions with what they are and what they are called.

    Args:
        predictions: The predictions, with their origin.
        n: Number of images.

    Returns:
        A picture for each.
    """
    about = predictions.origin
    if about is None:
        return []
    rule = replace(about.rule, costs=None, thresholds=None)  # the likeliest class, as accuracy counts
    shown = choose_shown(about.root, predictions, range(n), about.classes, rule, about.value_range)
    return [_make_picture(one) for one in shown]


def _make_picture(one: ShownImage) -> CardPicture:
    wrong = one.label != one.predicted
    said = f"called {one.predicted}" if wrong else "called so"
    return CardPicture(one.thumbnail, one.path, (one.label, f"{said}, {100 * one.probability:.1f}\u00a0%", one.path))
