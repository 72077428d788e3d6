"""The pictures of a report: small JPEGs of findings, of the worst mistakes and of the most confident hits."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from budwood.config.resolved_recipe import ResolvedRecipe
from budwood.data.checks import Finding
from budwood.data.dataset import Dataset, Samples
from budwood.data.images import BadImage, find_inside, read_thumbnail
from budwood.data.value_range import ValueRange
from budwood.evaluation.decisions import DecisionRule
from budwood.evaluation.prediction_table import TOP
from budwood.evaluation.predictions import Predictions
from budwood.reporting.run_page import Pictures, ShownImage
from budwood.reporting.templating import FILES_SHOWN, GROUPS_SHOWN
from budwood.runs.run_record import RunRecord

SIDE: Final = 132
GALLERY: Final = 12
THUMBNAILS: Final = 1024  # that are remembered


def collect_pictures(
    record: RunRecord, root: Path, data: Dataset, predictions: Predictions, rule: DecisionRule | None = None
) -> Pictures:
    """Collect the pictures of a run's report, without the contact sheet.

    An image whose file is gone, was changed or lies outside the data folder has no picture.

    Args:
        record: Record of the run.
        root: Folder of its images.
        data: Its data set, which has the content id of every image.
        predictions: Its predictions for the validation split.
        rule: How logits become answers; None: the likeliest class, or every label over one half.

    Returns:
        Thumbnails of the findings, and the galleries of the worst mistakes and of the most confident correct
        images.
    """
    classes, scale = record.dataset.classes, record.dataset.value_range
    id_of_path = map_ids(data)
    rule = rule or DecisionRule(predictions.task)
    losses, correct = predictions.losses, rule.is_correct(predictions.truth, predictions.logits)
    worst = [row for row in np.argsort(-losses, kind="stable").tolist() if not correct[row]]
    surest = [row for row in np.argsort(losses, kind="stable").tolist() if correct[row]]
    thumbnails = make_finding_thumbnails(root, record.findings, id_of_path, scale)
    mistakes, hits = (choose_shown(root, predictions, rows[:GALLERY], classes, rule, scale) for rows in (worst, surest))
    missing = {path for path in _list_finding_files(record.findings) if path in id_of_path and path not in thumbnails}
    missing |= {image.path for image in (*mistakes, *hits) if image.thumbnail is None}
    return Pictures(thumbnails, mistakes, hits, left_out=len(missing))


def map_ids(data: Dataset) -> dict[str, str]:
    """Return the content id of every image of a data set, also of those that are left out, by its path."""
    ids = dict(zip(data.table["path"].to_pylist(), data.table["id"].to_pylist(), strict=True))
    return ids | {item.path: item.id for item in data.left_out}


def _list_finding_files(findings: Sequence[Finding]) -> list[str]:
    """The files that a report shows of findings, each once."""
    wanted = [path for finding in findings for group in finding.groups[:GROUPS_SHOWN] for path in group]
    wanted += [path for finding in findings if not finding.groups for path in finding.files[:FILES_SHOWN]]
    return list(dict.fromkeys(wanted))


def make_finding_thumbnails(
    root: Path, findings: Sequence[Finding], id_of_path: Mapping[str, str], scale: ValueRange | None = None
) -> dict[str, str]:
    """Make thumbnails of the files of each finding that a report shows.

    Args:
        root: Folder of the data set.
        findings: The findings, each with `files` and `groups`.
        id_of_path: Content ids of the images that can be decoded, by path relative to `root`.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        Data URIs by path relative to `root`, without files that are gone, were changed or lie outside `root`.
    """
    made = {path: make_thumbnail(root, path, id_of_path.get(path), scale) for path in _list_finding_files(findings)}
    return {path: uri for path, uri in made.items() if uri}


def make_thumbnail(root: Path, path: str, id: str | None, scale: ValueRange | None = None) -> str | None:
    """Make a thumbnail of an image file as a data URI.

    Thumbnails are remembered within the process, as the rows of a study show many of the same images.

    Args:
        root: Folder of the data set; nothing outside it is read.
        path: Path of the image, relative to `root`.
        id: Content id that the file must have.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        Data URI of a JPEG of at most `SIDE` x `SIDE` pixels; None when the file is missing, has another content,
        lies outside `root` or cannot be decoded.
    """
    place = find_inside(root, path)
    if place is None or id is None:
        return None
    try:
        return _make_thumbnail_at(place, place.stat().st_mtime_ns, id, scale)
    except OSError:
        return None


@lru_cache(THUMBNAILS)
def _make_thumbnail_at(path: Path, changed: int, id: str, scale: ValueRange | None) -> str | None:
    """The picture of a file as it was last changed: the rows of a study show many of the same images."""
    try:
        return make_data_uri(encode_jpeg(read_thumbnail(path, SIDE, id, scale)))
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


def choose_shown(
    root: Path,
    predictions: Predictions,
    rows: Sequence[int],
    classes: Sequence[str],
    rule: DecisionRule,
    scale: ValueRange | None,
) -> tuple[ShownImage, ...]:
    """Choose images of a split for a gallery.

    Args:
        root: Folder of the data set.
        predictions: Predictions for the split.
        rows: Rows of the predictions, in the order of the gallery.
        classes: Names of the classes.
        rule: How logits become probabilities and answers.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        The images; one whose file is gone or was changed has no picture.
    """
    task = predictions.task
    chances = rule.to_probabilities(predictions.logits[list(rows)]) if rows else np.empty((0, len(classes)))
    targets = task.to_targets(predictions.truth)
    shown = []
    for row, chance, called in zip(rows, chances, rule.decide(chances), strict=True):
        best = np.argsort(-chance, kind="stable")[:TOP].tolist()
        if task.multilabel:  # also the labels that it lacks or has too much
            best += [c for c in np.flatnonzero(called != targets[row]).tolist() if c not in best]
        top = tuple((classes[c], float(chance[c])) for c in best)
        path, label = predictions.paths[row], task.name_label(int(predictions.labels[row]), classes)
        sure = np.where(called, chance, 1 - chance).prod() if task.multilabel else chance[called].sum()
        answer = rule.name_answer(called, classes)
        picture = make_thumbnail(root, path, predictions.ids[row], scale)
        marks = tuple((bool(called[c]), bool(targets[row, c])) for c in best) if task.multilabel else ()
        shown.append(ShownImage(path, label, answer, float(sure), picture, top, marks))
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
