"""What a run's report tells of images that show none of its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from budwood.evaluation.intervals import Metric
from budwood.reporting.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    draw_frame,
    make_even_ticks,
    round_range,
    to_xml,
    wrap_svg,
)
from budwood.runs.confidence_record import STRANGER_SCORES, VALIDATION_SCORES, NoveltyRecord, StrangersRecord
from budwood.runs.run_record import RunRecord

if TYPE_CHECKING:
    from budwood.reporting.run_page import ShownImage

STRANGEST: Final = 5  # validation images that are shown
BARS: Final = 30
FARTHEST: Final = 2.0  # widths of the known scores above the threshold at which the histogram ends
METHOD_NAMES: Final = {
    "knn": "nearest neighbours",
    "mahalanobis": "Mahalanobis distance",
    "energy": "energy",
}
_METHODS: Final = {
    "knn": "the distance of its features to those of its {k} nearest training image",
    "mahalanobis": "the distance of its features to the nearest class, measured by how the classes spread",
    "energy": "how small the network's outputs are for all classes together",
}
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class ShownNovelty:
    """What the report shows of how strangers are told.

    Attributes:
        method: The name of the score that is used.
        words: What it measures.
        share: Share of known images that is refused, as text.
        threshold: The score from which on images are refused, as text.
        n: Number of validation images that it was found on.
        refused: How many of them it refuses.
        too_few: Whether they are too few to refuse so small a share.
        areas: Name and mean area under the ROC curve of each method that was compared.
        trained: Whether the features have learned all classes.
        chart: The histogram of the scores.
        strangest: The validation images with the largest scores.
        strangers: What a folder of strangers gave; None where none was tried.
    """

    method: str
    words: str
    share: str
    threshold: str
    n: int
    refused: int
    too_few: bool
    areas: Sequence[tuple[str, Metric]]
    trained: bool
    chart: Markup
    strangest: Sequence[ShownImage]
    strangers: StrangersRecord | None


def find_strangest(scores: Mapping[str, Scores]) -> list[int]:
    """Find the validation images with the largest scores.

    Args:
        scores: Those of a run, as `Run.novelty_scores` has them.

    Returns:
        Rows of the validation predictions, the strangest first; none where there are no scores.
    """
    known = scores.get(VALIDATION_SCORES, np.empty(0, np.float32))
    order = np.argsort(-np.nan_to_num(known, nan=-np.inf, posinf=np.inf), kind="stable")[:STRANGEST]
    return [row for row in order.tolist() if not np.isnan(known[row])]


def show_novelty(
    record: RunRecord, scores: Mapping[str, Scores], strangest: Sequence[ShownImage]
) -> ShownNovelty | None:
    """Prepare what the report shows of how strangers are told.

    Args:
        record: The record of the run.
        scores: The scores of its images, as `Run.novelty_scores` has them.
        strangest: The validation images with the largest scores.

    Returns:
        What is shown; None of a run that cannot tell strangers.
    """
    novelty = record.confidence.novelty if record.confidence else None
    if novelty is None:
        return None
    known = scores[VALIDATION_SCORES]
    return ShownNovelty(
        method=METHOD_NAMES[novelty.method],
        words=_METHODS[novelty.method].format(k=_number(novelty.neighbour)),
        share=f"{100 * novelty.share:g} %",
        threshold=f"{novelty.threshold:.4g}",
        n=novelty.n,
        refused=int(np.count_nonzero(known > novelty.threshold)),
        too_few=novelty.share * (novelty.n + 1) < 1,
        areas=[(METHOD_NAMES[name], novelty.auroc[name]) for name in METHOD_NAMES if name in novelty.auroc],
        trained=record.network.trunk_trained,
        chart=Markup(draw_scores(novelty, known[~np.isnan(known)], scores.get(STRANGER_SCORES))),
        strangest=strangest,
        strangers=novelty.strangers,
    )


def _number(place: int) -> str:
    """A place in a row: 1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"


def draw_scores(novelty: NoveltyRecord, known: Scores, strangers: Scores | None) -> str:
    """Draw how many images have which score, with the threshold.

    Args:
        novelty: The record.
        known: Scores of validation images, float32 [n].
        strangers: Scores of strangers, float32 [m]; None where there are none.

    Returns:
        The figure as an SVG element.
    """
    low, high = _choose_range(novelty.threshold, known, strangers)
    edges = np.linspace(low, high, BARS + 1)
    parts = [("validation images", "var(--accent)", known)]
    parts += [("strangers", "var(--second)", strangers)] if strangers is not None else []
    bars = [(name, colour, _count_shares(scores, edges)) for name, colour, scores in parts]
    most = max(float(shares.max()) for _, _, shares in bars) or 1.0
    across, up = Scale(low, high, LEFT, WIDTH - RIGHT), Scale(0, 100 * most, HEIGHT - BOTTOM, TOP)
    ticks = [tick for tick in make_even_ticks(low, high) if low <= tick <= high]
    drawn = [*draw_frame(across, up, ticks, make_even_ticks(0, 100 * most), "score: larger is stranger", "images, %")]
    for number, (name, colour, shares) in enumerate(bars):
        drawn += _draw_bars(shares, edges, across, up, f'fill="{colour}" fill-opacity="{0.55 if number else 0.8}"')
        place = WIDTH - RIGHT - 150 * (len(bars) - number)
        drawn.append(f'<rect x="{place}" y="6" width="12" height="12" fill="{colour}"/>')
        drawn.append(f'<text class="tick" x="{place + 18}" y="16.5">{to_xml(name)}</text>')
    x = across(min(max(novelty.threshold, low), high))
    drawn.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{HEIGHT - BOTTOM}"/>')
    drawn.append(f'<text class="tick" x="{x + 4:.1f}" y="{TOP - 4}">refused</text>')
    said = f"Images with a score above {novelty.threshold:.4g} are refused. " + ". ".join(
        f"Of {len(scores):,} {name} {100 * float(np.mean(scores > novelty.threshold)):.1f} % are refused"
        for name, _, scores in parts
    )
    return wrap_svg("Scores of strangeness", said, "".join(drawn), HEIGHT)


def _choose_range(threshold: float, known: Scores, strangers: Scores | None) -> tuple[float, float]:
    """The range of the histogram; scores far beyond all known ones are drawn at its end."""
    finite = np.concatenate([known, [] if strangers is None else strangers])
    finite = finite[np.isfinite(finite)]
    least = min(float(finite.min(initial=threshold)), threshold)
    farthest = threshold + FARTHEST * max(threshold - least, 1e-9)
    return round_range(least, min(max(float(finite.max(initial=threshold)), threshold), farthest))


def _count_shares(scores: Scores, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of images between each two edges; those beyond the last are in the last bar."""
    counts, _ = np.histogram(np.clip(scores.astype(np.float64), edges[0], edges[-1]), edges)
    return counts / max(len(scores), 1)


def _draw_bars(
    shares: NDArray[np.float64], edges: NDArray[np.float64], across: Scale, up: Scale, style: str
) -> list[str]:
    drawn = []
    for share, start, end in zip(shares.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if share > 0:
            place = f'x="{across(start):.1f}" width="{across(end) - across(start) - 0.6:.1f}"'
            top = up(100 * share)
            drawn.append(f'<rect {place} y="{top:.1f}" height="{up(0) - top:.1f}" {style}/>')
    return drawn
