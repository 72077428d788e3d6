"""The pictures of a report: small JPEGs of findings, of the worst mistakes and of the most confident hits."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from budwood.config.resolved_recipe import ResolvedRecipe
from budwood.data.checks import Finding
from budwood.data.dataset import Samples
from budwood.data.images import BadImage, read_thumbnail
from budwood.data.value_range import ValueRange
from budwood.evaluation.prediction_table import TOP
from budwood.evaluation.predictions import Predictions
from budwood.reporting.run_page import Pictures, ShownImage
from budwood.reporting.templating import FILES_SHOWN, GROUPS_SHOWN
from budwood.runs.run_record import RunRecord

SIDE: Final = 132
GALLERY: Final = 12
THUMBNAILS: Final = 1024  # that are remembered


def collect_pictures(record: RunRecord, predictions: Predictions) -> Pictures:
    """Collect the pictures of a run's report, without the contact sheet.

    An image whose file is gone has no picture.

    Args:
        record: Record of the run.
        predictions: Its predictions for the validation split.

    Returns:
        Thumbnails of the findings, and the galleries of the worst mistakes and of the most confident correct
        images.
    """
    root, classes, scale = Path(record.root), record.dataset.classes, record.dataset.value_range
    losses, correct = predictions.losses, predictions.correct
    worst = [row for row in np.argsort(-losses, kind="stable").tolist() if not correct[row]]
    surest = [row for row in np.argsort(losses, kind="stable").tolist() if correct[row]]
    return Pictures(
        make_finding_thumbnails(root, record.findings, scale),
        _choose_shown(root, predictions, worst[:GALLERY], classes, scale),
        _choose_shown(root, predictions, surest[:GALLERY], classes, scale),
    )


def make_finding_thumbnails(root: Path, findings: Sequence[Finding], scale: ValueRange | None = None) -> dict[str, str]:
    """Make thumbnails of the files of each finding that a report shows.

    Args:
        root: Folder of the data set.
        findings: The findings, each with `files` and `groups`.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        Data URIs by path relative to `root`, without files that cannot be decoded.
    """
    wanted = [path for finding in findings for group in finding.groups[:GROUPS_SHOWN] for path in group]
    wanted += [path for finding in findings if not finding.groups for path in finding.files[:FILES_SHOWN]]
    made = {path: make_thumbnail(root / path, scale) for path in dict.fromkeys(wanted)}
    return {path: uri for path, uri in made.items() if uri}


def make_thumbnail(path: Path, scale: ValueRange | None = None) -> str | None:
    """Make a thumbnail of an image file as a data URI.

    Thumbnails are remembered within the process, as the rows of a study show many of the same images.

    Args:
        path: Image file.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        Data URI of a JPEG of at most `SIDE` x `SIDE` pixels; None when the file is missing or cannot be decoded.
    """
    try:
        return _make_thumbnail_at(path, path.stat().st_mtime_ns, scale)
    except OSError:
        return None


@lru_cache(THUMBNAILS)
def _make_thumbnail_at(path: Path, changed: int, scale: ValueRange | None) -> str | None:
    """The picture of a file as it was last changed: the rows of a study show many of the same images."""
    try:
        return make_data_uri(encode_jpeg(read_thumbnail(path, SIDE, scale)))
    except BadImage:
        return None


def make_data_uri(image: bytes) -> str:
    """Encode the bytes of a JPEG file as a data URI.

    Args:
        image: The bytes.

    Returns:
        The data URI.
    """
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"


def encode_jpeg(image: Image.Image) -> bytes:
    """Encode a picture as a JPEG file.

    Args:
        image: The picture.

    Returns:
        The bytes of the file.
    """
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


def _choose_shown(
    root: Path, predictions: Predictions, rows: Sequence[int], classes: Sequence[str], scale: ValueRange | None
) -> tuple[ShownImage, ...]:
    task = predictions.task
    chances = task.to_probabilities(predictions.logits[list(rows)]) if rows else np.empty((0, len(classes)))
    shown = []
    for row, chance in zip(rows, chances, strict=True):
        best = np.argsort(-chance, kind="stable")[:TOP].tolist()
        top = tuple((classes[c], float(chance[c])) for c in best)
        path, label = predictions.paths[row], task.name_label(int(predictions.labels[row]), classes)
        picture = make_thumbnail(root / path, scale)
        shown.append(ShownImage(path, label, *task.call_image(chance, classes), picture, top))
    return tuple(shown)


SHEET_SIZE: Final = 224  # side in pixels of augmented images that no network has asked for


def make_augmentation_sheet(recipe: ResolvedRecipe, training: Samples) -> bytes:
    """Make the contact sheet of a recipe's augmentation as a JPEG file.

    Torch is loaded only when this is called.

    Args:
        recipe: The recipe whose augmentation is shown.
        training: Images of the training split.
        size: Side in pixels at which the network sees images.

    Returns:
        The bytes of the file.
    """
    from budwood.reporting.augmentation_sheet import draw_augmentation_sheet

    return encode_jpeg(draw_augmentation_sheet(recipe, training))
