"""Where a run is weaker than elsewhere: the accuracy on validation by brightness, size, aspect and group of images.

A class is no slice: the report has a table of classes. Each slice is compared with the rest of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.dataset import Dataset
from budwood.data.images import ImageMetadata
from budwood.data.metadata import read_cached_metadata
from budwood.evaluation.differences import fisher_test
from budwood.evaluation.intervals import Metric, proportion_interval
from budwood.evaluation.predictions import Predictions
from budwood.evaluation.significance import correct_holm
from budwood.runs.run import Run
from budwood.storage.context import Context

QUARTERS: Final = {
    "brightness": ("darkest quarter", "second darkest quarter", "second brightest quarter", "brightest quarter"),
    "size": ("smallest quarter", "second smallest quarter", "second largest quarter", "largest quarter"),
}
UNITS: Final = {"brightness": ("mean luma ", ""), "size": ("", " pixels")}
EVEN: Final = (0.2, 0.3)  # share of the images that may be called a quarter
SQUARE: Final = 0.05  # by which the sides of a square may differ
FEW: Final = 10  # images of a group, for it to be a slice
GROUPS: Final = 20  # the largest groups, that are slices


@dataclass(frozen=True)
class Slice:
    """Images that share a property, and the accuracy on them.

    Attributes:
        property: `brightness`, `size`, `aspect` or `group`.
        label: What the images are, in words.
        n: Number of images.
        metric: Accuracy on the slice, with a 95 % interval.
        rest: Accuracy on all other images, with a 95 % interval.
        difference: How much higher the accuracy on the slice is, with a 95 % interval.
        p: p-value of Fisher's exact test of the two, corrected over all slices (Holm 1979).
        p_alone: The p-value before the correction, which agrees with the interval of the difference.
        ids: Content ids of the images.
    """

    property: str
    label: str
    n: int
    metric: Metric
    rest: Metric
    difference: Metric
    p: float
    p_alone: float
    ids: tuple[str, ...] = field(repr=False)

    def record(self) -> dict[str, Any]:
        """Convert the slice to plain values, without its images.

        Returns:
            The fields by name, except `ids`.
        """
        return {name: value for name, value in asdict(self).items() if name != "ids"}


@dataclass(frozen=True)
class SliceMask:
    """Images of a slice, before they are scored.

    Attributes:
        property: `brightness`, `size`, `aspect` or `group`.
        label: What the images are, in words.
        rows: bool [n], which images belong to it.
    """

    property: str
    label: str
    rows: NDArray[np.bool_]


def find_slices(run: Run, context: Context) -> tuple[Slice, ...]:
    """Find and score the slices of a run's validation images.

    Brightness is taken from the small pictures that the scan kept of each image, so that a large split takes
    seconds. An image that was changed since then has no brightness.

    Args:
        run: The run.
        context: The cache folder, and where progress is shown.

    Returns:
        The slices by brightness, size, aspect and group; a property that does not vary gives none.
    """
    predictions, data = run.predictions("val"), run.dataset()
    luma = measure_brightness(data.root, predictions, context)
    width, height, group = _read_columns(data, predictions)
    parts = [
        *make_quarter_masks("brightness", luma),
        *make_quarter_masks("size", width * height),
        *make_aspect_masks(width, height),
        *make_group_masks(group),
    ]
    correct = run.decision_rule.is_correct(predictions.truth, predictions.logits)
    return score_slices(parts, correct, predictions.ids)


def score_slices(parts: Sequence[SliceMask], correct: NDArray[np.bool_], ids: Sequence[str]) -> tuple[Slice, ...]:
    """Compare the accuracy on each slice with that on the rest of the images.

    A difference has the exact test of Fisher (1935), with Holm's correction, and before it the interval that agrees.

    Args:
        parts: The slices.
        correct: bool [n], whether each image is classified correctly.
        ids: Content ids of the images [n].

    Returns:
        The scored slices, in order.
    """
    made = [_score_mask(part, correct, ids) for part in parts]
    corrected = correct_holm(np.array([one.p for one in made], np.float64))
    return tuple(replace(one, p=float(p)) for one, p in zip(made, corrected, strict=True))


def measure_brightness(root: Path, predictions: Predictions, context: Context) -> NDArray[np.float64]:
    """Measure the mean luma (ITU-R BT.601) of each image.

    Args:
        root: Folder of the data set.
        predictions: Predictions that name the images.
        context: The cache folder, where the scan keeps small pictures, and where progress is shown.

    Returns:
        float64 [n], 0 (black) to 1 (white); NaN where the file is missing or was changed.
    """
    facts = read_cached_metadata(root, predictions.paths, context)
    return np.array(
        [
            np.frombuffer(fact.thumb, np.uint8).mean() / 255
            if isinstance(fact, ImageMetadata) and fact.id == id
            else np.nan
            for fact, id in zip(facts, predictions.ids, strict=True)
        ]
    )


def make_quarter_masks(property: str, values: NDArray[np.float64]) -> list[SliceMask]:
    """Divide images into four parts of rising value, cut at the quartiles.

    There are fewer parts where many values are equal. Values that are NaN are in no part.

    Args:
        property: `brightness` or `size`.
        values: float64 [n].

    Returns:
        The parts from low to high; none where the values do not vary.
    """
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return []
    edges = np.unique(np.quantile(known, (0.25, 0.5, 0.75), method="higher"))
    edges = edges[edges > known.min()]
    if len(edges) == 0:
        return []
    rank = np.where(np.isnan(values), -1, np.searchsorted(edges, values, side="right"))
    shares = np.bincount(rank[rank >= 0], minlength=len(edges) + 1) / len(known)
    even = len(edges) == 3 and bool(np.all((shares >= EVEN[0]) & (shares <= EVEN[1])))
    texts = _format_edges(property, edges)
    before, after = UNITS[property]
    labels = [f"{before}{_describe_part(place, texts)}{after}" for place in range(len(edges) + 1)]
    if even:
        labels = [f"{name}: {label}" for name, label in zip(QUARTERS[property], labels, strict=True)]
    return [SliceMask(property, label, rank == place) for place, label in enumerate(labels)]


def make_aspect_masks(width: NDArray[np.float64], height: NDArray[np.float64]) -> list[SliceMask]:
    """Divide images into portrait, square (sides within 5 % of each other) and landscape.

    Args:
        width: float64 [n], pixels.
        height: float64 [n], pixels.

    Returns:
        The kinds that occur; none where there is only one.
    """
    square = np.maximum(width, height) <= np.minimum(width, height) * (1 + SQUARE)
    kinds = {
        "portrait: higher than wide": ~square & (height > width),
        "square: sides within 5 % of each other": square,
        "landscape: wider than high": ~square & (width > height),
    }
    parts = [SliceMask("aspect", label, rows) for label, rows in kinds.items() if rows.any()]
    return parts if len(parts) > 1 else []


def make_group_masks(groups: Sequence[str]) -> list[SliceMask]:
    """Make a slice of each of the user's groups that is large enough.

    Args:
        groups: Name of the group of each image [n]; empty for none.

    Returns:
        Groups of at least `FEW` images, the largest first and at most `GROUPS`; a group of all images is left out.
    """
    names = np.array(groups, dtype=object)
    found, counts = np.unique([name for name in groups if name], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:GROUPS]
    parts = [
        SliceMask("group", f"group {found[place]}", names == found[place]) for place in order if counts[place] >= FEW
    ]
    return [part for part in parts if not part.rows.all()]


def _score_mask(part: SliceMask, correct: NDArray[np.bool_], ids: Sequence[str]) -> Slice:
    inside, outside = correct[part.rows], correct[~part.rows]
    metric, rest = (proportion_interval(int(side.sum()), len(side)) for side in (inside, outside))
    p, low, high = fisher_test(int(inside.sum()), len(inside), int(outside.sum()), len(outside))
    return Slice(
        property=part.property,
        label=part.label,
        n=len(inside),
        metric=metric,
        rest=rest,
        difference=Metric(float(inside.mean() - outside.mean()), low, high, len(correct)),
        p=p,
        p_alone=p,
        ids=tuple(ids[row] for row in np.flatnonzero(part.rows).tolist()),
    )


def _read_columns(
    data: Dataset, predictions: Predictions
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Width and height in pixels, and the group, of each image."""
    place = {path: row for row, path in enumerate(data.table["path"].to_pylist())}
    rows = [place[path] for path in predictions.paths]
    groups = data.table["group"].to_pylist()
    width, height = (data.column(name)[rows].astype(np.float64) for name in ("width", "height"))
    return width, height, [groups[row] or "" for row in rows]


def _format_edges(property: str, edges: NDArray[np.float64]) -> list[str]:
    """Edges in words, with as many digits as tell them apart."""
    if property == "size":
        return [f"{edge:,.0f}" for edge in edges]
    digits = next((n for n in range(2, 6) if len({f"{edge:.{n}f}" for edge in edges}) == len(edges)), 6)
    return [f"{edge:.{digits}f}" for edge in edges]


def _describe_part(place: int, texts: Sequence[str]) -> str:
    """What lies in a part, in words."""
    if place == 0:
        return f"below {texts[0]}"
    if place == len(texts):
        return f"at least {texts[-1]}"
    return f"from {texts[place - 1]} to below {texts[place]}"
