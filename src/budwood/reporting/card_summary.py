"""What a model card and a report both say of a run: what it is for, what limits it, and under which licences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from budwood.comparison.rows import make_outcome
from budwood.data.dataset import Dataset
from budwood.evaluation.result_checks import ResultFinding, check_run
from budwood.reporting.licences import describe_data_licence, describe_weights_licence
from budwood.runs.confidence_record import ConfidenceRecord
from budwood.runs.run import Run
from budwood.text import listed

NAMES_SHOWN: Final = 20  # classes that a sentence names
FEW_IMAGES: Final = 20  # validation images of a class, below which its figures say little
MODES: Final = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "P": "palette",
    "RGB": "colour",
    "RGBA": "colour with alpha",
    "CMYK": "CMYK",
    "I": "grey, more than 8 bits",
    "I;16": "grey, 16 bits",
    "F": "grey, floating point",
}


@dataclass(frozen=True)
class ImageFacts:
    """What the images looked like that a run was trained and selected on.

    Attributes:
        widths: The least and the largest width, pixels.
        heights: The least and the largest height, pixels.
        kinds: Kinds of pixels in words, the most frequent first.
        types: Kinds of files by their suffixes, the most frequent first.
    """

    widths: tuple[int, int]
    heights: tuple[int, int]
    kinds: tuple[str, ...]
    types: tuple[str, ...]


def read_image_facts(data: Dataset) -> ImageFacts | None:
    """Read what the training and validation images of a data set look like.

    Args:
        data: The data set.

    Returns:
        Sizes and kinds; None where no image was used.
    """
    rows = data.column("used") & (data.column("split") < 2)
    if not rows.any():
        return None
    width, height = data.column("width")[rows], data.column("height")[rows]
    modes, paths = data.column("mode")[rows].tolist(), data.column("path")[rows].tolist()
    return ImageFacts(
        (int(width.min()), int(width.max())),
        (int(height.min()), int(height.max())),
        _sort_by_frequency(MODES.get(mode, mode) for mode in modes),
        _sort_by_frequency(PurePosixPath(path).suffix.lower().lstrip(".") or "no suffix" for path in paths),
    )


def _sort_by_frequency(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(value for value, _ in sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0])))


@dataclass(frozen=True)
class CardSummary:
    """The parts of a model card that a report shows too, as sentences in which code stands between backticks.

    Attributes:
        uses: What the run is for, from the facts.
        misuses: What it is not for.
        limits: Classes with too few images, and what was not checked.
        licences: The licences of weights, data and model.
        results: Findings about the result.
    """

    uses: tuple[str, ...]
    misuses: tuple[str, ...]
    limits: tuple[str, ...]
    licences: tuple[str, ...]
    results: tuple[ResultFinding, ...]


def summarize_card(run: Run) -> CardSummary:
    """Summarize the model card of a run.

    Args:
        run: The finished run.

    Returns:
        Its uses, limits, licences and findings.

    Raises:
        RunError: A file of the run is missing, damaged or was changed.
    """
    facts = read_image_facts(run.dataset())
    results = tuple(check_run(make_outcome("", [run])))
    return CardSummary(_list_uses(run, facts), _list_misuses(run), _list_limits(run), _list_licences(run), results)


def _list_uses(run: Run, facts: ImageFacts | None) -> tuple[str, ...]:
    """What the facts say that a run is for."""
    first = f"For images like those of {run.record.dataset.name} that show these classes."
    if not facts:
        return (first,)
    (narrow, wide), (low, high) = facts.widths, facts.heights
    return (
        first,
        f"It was trained and selected on images {_format_range(narrow, wide)} pixels wide and "
        f"{_format_range(low, high)} high ({listed(facts.kinds, 6)}; {listed(facts.types, 6)}).",
    )


def _format_range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _list_misuses(run: Run) -> tuple[str, ...]:
    """What the facts say that a run is not for."""
    novelty = run.record.confidence.novelty if run.record.confidence else None
    lines = []
    if novelty:
        lines.append(
            'An image that shows none of the classes is called "none of these" where its strangeness is over a '
            f"threshold; {100 * novelty.share:.1f} % of the images that do show one are refused, too."
        )
    elif run.task.multilabel:
        lines.append("Not for images of another kind: it gives their labels probabilities as if it knew them.")
    else:
        lines.append(
            'Not for images that show none of the classes: it has no answer "none of these", and gives one of the '
            "classes to every image."
        )
    if not run.task.multilabel:
        lines.append("Not for images that show several of the classes at once: it gives one.")
    lines.append("Not for images from another source (camera, place, time) before it was scored on some of them.")
    return tuple(lines)


def _list_limits(run: Run) -> tuple[str, ...]:
    """What limits a run beside the findings about its results: too few images, and what was not checked."""
    record, known = run.record, run.record.confidence or ConfidenceRecord()
    few = [name for name, scores in record.val.per_class.items() if scores.support < FEW_IMAGES]
    unchecked = {
        "the score on images that took no part in any choice": record.test is None,
        "whether the confidence can be trusted (calibration)": known.calibration is None,
        "images that show none of the classes": known.novelty is None,
        "images from another source than these data": True,
    }
    told = f"Not checked: {'; '.join(name for name, missing in unchecked.items() if missing)}."
    if not few:
        return (told,)
    return (
        f"Fewer than {FEW_IMAGES} validation images, so that the figures of the class say little: "
        f"{listed(few, NAMES_SHOWN)}.",
        told,
    )


def _list_licences(run: Run) -> tuple[str, ...]:
    """The licences of what a run was made of."""
    networks = [one.record.network for one in run.members() or (run,)]
    weights = dict.fromkeys(f"Weights of {one.name}: {describe_weights_licence(one)}." for one in networks)
    return (
        *weights,
        f"Data: {describe_data_licence(run.record)}.",
        "This model: not chosen (`license: unknown` at the top of the card); whoever publishes it states it there.",
    )
