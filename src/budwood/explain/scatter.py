"""An embedding as HTML without any script: a dot an image, whose picture shows on pointing at it or on focus."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from budwood.data.images import BadImage, decode, find_inside, read_known_bytes
from budwood.data.splits import stratified_sample
from budwood.evaluation.label_task import task_of
from budwood.explain.embeddings import Embedding
from budwood.hardware import count_processors
from budwood.reporting.svg import to_xml
from budwood.reporting.thumbnails import make_data_uri
from budwood.text import SPLITS

MOST: Final = 500  # dots
MISTAKES: Final = 300  # dots that are mistakes
COLOURED: Final = 8  # classes that colours and shapes can still tell apart
SIDE: Final = 64  # pixels of a picture
QUALITY: Final = 70  # of its JPEG
MARGIN: Final = 4.0  # percent of the plane that stays free at each edge


def draw_scatter(embedding: Embedding, classes: Sequence[str], thumbnails: Mapping[str, str]) -> str:
    """Draw the images of an embedding as HTML that needs `scatter.css`.

    `sample_dots` chooses at most `MOST` images. Colour and shape distinguish up to `COLOURED` classes; with more
    classes, or where images have several labels each, only the mistakes are coloured. Mistakes have a ring, lie
    above the others and can be reached by keyboard; every dot shows its picture when it is pointed at or touched.

    Args:
        embedding: The images as points.
        classes: Names of the classes.
        thumbnails: Data URIs by path; images without one have no picture.

    Returns:
        A `figure` element.
    """
    shown = sample_dots(embedding)
    coloured = len(classes) <= COLOURED and not task_of(shown.label_sets, len(classes)).multilabel
    order = np.argsort(~shown.correct, kind="stable")  # hits first, so that mistakes lie above
    places = _scale_points(shown.points)
    dots = "".join(_draw_dot(shown, row, places[row], classes, coloured, thumbnails) for row in order.tolist())
    label = f"{len(shown):,} images, arranged by {shown.method.upper()}"
    plane = f'<div class="plane" role="group" aria-label="{to_xml(label)}">{dots}</div>'
    key = _draw_key(classes) if coloured else _draw_plain_key()
    return f'<figure class="scatter">{key}{plane}<figcaption>{to_xml(describe_sample(shown))}</figcaption></figure>'


def sample_dots(embedding: Embedding, most: int = MOST) -> Embedding:
    """Choose the images of an embedding that are drawn.

    All mistakes up to `MISTAKES` are taken, and of the others each class gets its share. The choice depends on the
    images' contents alone.

    Args:
        embedding: The images as points.
        most: Number of images at most.

    Returns:
        An embedding of the chosen images, in their order; the same one where there are not too many.
    """
    if len(embedding) <= most:
        return embedding
    wrong, correct = np.flatnonzero(~embedding.correct), np.flatnonzero(embedding.correct)
    wrong = wrong[_draw_sample(embedding, wrong, min(MISTAKES, most))]
    correct = correct[_draw_sample(embedding, correct, most - len(wrong))]
    rows = np.sort(np.concatenate([wrong, correct]))
    return replace(
        embedding,
        points=embedding.points[rows],
        ids=tuple(embedding.ids[row] for row in rows.tolist()),
        paths=tuple(embedding.paths[row] for row in rows.tolist()),
        labels=embedding.labels[rows],
        predicted=embedding.predicted[rows],
        correct=embedding.correct[rows],
    )


def make_small_pictures(root: Path, paths: Sequence[str], ids: Sequence[str]) -> dict[str, str]:
    """Make small pictures of image files as data URIs.

    Args:
        root: Folder of the data set.
        paths: Paths relative to it.
        ids: Content ids that the files must have.

    Returns:
        Data URIs of JPEGs of at most `SIDE` x `SIDE` pixels by path, without files that cannot be decoded, were
        changed or lie outside `root`.
    """
    with ThreadPoolExecutor(count_processors()) as pool:
        made = pool.map(_shrink_picture, repeat(root), paths, ids)
        return {path: uri for path, uri in zip(paths, made, strict=True) if uri}


def describe_sample(shown: Embedding) -> str:
    """Describe in words what a scatter plot shows.

    Args:
        shown: The images that are drawn.

    Returns:
        The number of images and mistakes, and what the axes mean.
    """
    split = SPLITS[shown.split]
    count = f"{len(shown):,}" if len(shown) == shown.of else f"{len(shown):,} of {shown.of:,}"
    wrong = int((~shown.correct).sum())
    mistakes = {0: "no mistakes", 1: "1 mistake"}.get(wrong, f"{wrong:,} mistakes")
    some = f"{count} {split} images; {mistakes}"
    if shown.explained is None:
        return f"{some}. UMAP places similar images close together; distances between groups mean little."
    first, second = (f"{100 * part:.1f} %" for part in shown.explained)
    return (
        f"{some}. The axes are the first two principal components of the features; "
        f"they explain {first} (horizontal) and {second} (vertical) of the variance."
    )


def _draw_sample(embedding: Embedding, rows: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    return stratified_sample([embedding.ids[row] for row in rows.tolist()], embedding.labels[rows], count)


def _scale_points(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points in percent of the plane, from its upper left corner."""
    low, high = points.min(axis=0), points.max(axis=0)
    spread = np.where(high > low, high - low, 1)
    share = np.where(high > low, (points - low) / spread, 0.5)
    share[:, 1] = 1 - share[:, 1]
    return np.asarray(MARGIN + (100 - 2 * MARGIN) * share)


def _draw_dot(
    shown: Embedding,
    row: int,
    place: NDArray[np.float64],
    classes: Sequence[str],
    coloured: bool,
    thumbnails: Mapping[str, str],
) -> str:
    path, correct = shown.paths[row], bool(shown.correct[row])
    actual, called = _name_answers(shown, row, classes)
    kind = f"k{shown.labels[row]}" if coloured else "rest" if correct else "wrong"
    sides = f"{'east' if place[0] < 50 else 'west'} {'south' if place[1] < 50 else 'north'}"
    uri = thumbnails.get(path)
    picture = f'<img src="{uri}" alt="" loading="lazy">' if uri else ""
    said = f'<span class="called">predicted as {to_xml(called)}</span>' if not correct else ""
    spoken = f"{path}: {actual}" + ("" if correct else f", predicted as {called}")
    return (
        f'<span class="point {kind} {sides}{"" if correct else " missed"}" tabindex="{-1 if correct else 0}" role="img"'
        f' aria-label="{to_xml(spoken)}" style="left:{place[0]:.2f}%;top:{place[1]:.2f}%"><span class="mark"></span>'
        f'<span class="tip">{picture}<b>{to_xml(actual)}</b>{said}</span></span>'
    )


def _name_answers(shown: Embedding, row: int, classes: Sequence[str]) -> tuple[str, str]:
    """What an image is, and what it was called."""
    task, called = task_of(shown.label_sets, len(classes)), classes[int(shown.predicted[row])]
    return task.name_label(int(shown.labels[row]), classes), f"{called} before all" if task.multilabel else called


def _draw_key(classes: Sequence[str]) -> str:
    items = "".join(
        f'<li class="k{number}"><span class="mark"></span>{to_xml(name)}</li>' for number, name in enumerate(classes)
    )
    return f'<ul class="key">{items}<li><span class="ring"></span>predicted wrongly</li></ul>'


def _draw_plain_key() -> str:
    return (
        '<ul class="key"><li class="rest"><span class="mark"></span>predicted correctly</li>'
        '<li class="wrong"><span class="ring"><span class="mark"></span></span>predicted wrongly</li></ul>'
    )


def _shrink_picture(root: Path, path: str, id: str) -> str | None:
    place = find_inside(root, path)
    if place is None:
        return None
    try:
        image = decode(read_known_bytes(place, id))
    except BadImage:
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return make_data_uri(out.getvalue())
