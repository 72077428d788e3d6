"""Suggest: which unlabelled images to label next, as a table that `--corrections` takes once it is filled in."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.copy_groups import group_copies
from budwood.data.dataset import Samples
from budwood.data.images import ImageMetadata
from budwood.data.metadata import read_cached_metadata
from budwood.errors import DataError, RunError
from budwood.evaluation.acquisition import measure_uncertainty, select_images
from budwood.evaluation.novelty import normalise
from budwood.progress import Progress
from budwood.runs.run import Run, open_any_run
from budwood.storage.atomic import raise_storage_errors, write_bytes
from budwood.storage.context import Context, open_context
from budwood.text import format_csv
from budwood.workflows.new_images import (
    NewImages,
    compute_answers,
    compute_vectors,
    find_new_images,
    make_feature_trunk,
    refuse_none,
)
from budwood.workflows.predict import list_sources

COUNT: Final = 50
CANDIDATES: Final = 10_000  # the most uncertain images, among which clusters are looked for
MOST_LABELLED: Final = 5000  # labelled images that suggestions are kept away from
HEADER: Final = ("path", "label", "correct", "called", "probability", "second", "uncertainty")


@dataclass(frozen=True)
class Suggested:
    """An image to label.

    Attributes:
        path: Its absolute path.
        called: What the network calls it.
        probability: Calibrated probability of the likeliest class.
        second: The second likeliest class.
        uncertainty: 1 minus the margin of the two likeliest answers, 0 to 1.
        copies: Paths of near copies of it, which are not suggested.
    """

    path: str
    called: str
    probability: float
    second: str
    uncertainty: float
    copies: tuple[str, ...]


@dataclass(frozen=True)
class Suggestions:
    """Images to label next.

    Attributes:
        run: Path of the run.
        images: The images, the most uncertain first.
        n: Unlabelled images among which they were selected.
        new: All images that were found.
    """

    run: Path
    images: tuple[Suggested, ...]
    n: int
    new: NewImages

    def table(self) -> dict[str, Any]:
        """Return the suggestions as plain values for JSON."""
        return {
            "run": str(self.run),
            "n": self.n,
            "images": [vars(one) for one in self.images],
            "unreadable": [{"path": path, "problem": problem} for path, problem in self.new.unreadable],
            "known": [{"path": path, "split": split} for path, split in self.new.known],
        }


def suggest(
    run: Run | str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    n: int = COUNT,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Suggestions:
    """Suggest which unlabelled images to label next.

    They are images that the network is unsure of, unlike each other. Images of the data set and copies are left out.

    Args:
        run: The run, or its path or name.
        images: Files, folders and archives.
        n: Number of images to suggest.
        seed: Seed of what is drawn by chance: the first of the images that are unlike, and which labelled ones they are
            compared with where there are very many.
        cache: The cache folder; None: the usual one.
        progress: Where bars and notes go; None: below the cell of a notebook, else nowhere.

    Returns:
        The images.

    Raises:
        DataError: A path does not exist, there is no image that can be decoded, or every image is in the data set.
        RunError: There is no such finished run, or `n` is less than 1.
        StorageError: The cache cannot be written.
    """
    run, context = open_any_run(run), open_context(cache, progress)
    if n < 1:
        raise RunError(f"n {n}: expected a number of images, 1 or more.", "For example 50.")
    sources = list_sources(images)
    data = run.dataset()
    new = find_new_images(sources, run, data, context, leave_out=("train", "val", "test"))
    refuse_none(new, sources)
    if not len(new.samples):
        raise DataError(
            f"{', '.join(map(str, sources))}: all {len(new.known):,} images are in the data set of the run already.",
            "Give images that are not labelled yet.",
        )
    chances = compute_answers(run, new.samples, context)
    uncertainty = measure_uncertainty(chances, run.task.multilabel)
    groups = _group_copies(new.samples, context)
    rows = np.argsort(-uncertainty, kind="stable")[: max(CANDIDATES, n)]
    prefix, labelled = make_feature_trunk(run, context), data.samples("train").in_content_order()
    if len(labelled) > MOST_LABELLED:
        drawn = np.random.default_rng(seed).permutation(len(labelled))[:MOST_LABELLED]
        labelled = labelled.subset(np.sort(drawn))
    values, known = (
        normalise(compute_vectors(prefix, samples, context)).astype(np.float64)
        for samples in (new.samples.subset(rows), labelled)
    )
    chosen = rows[select_images(values, uncertainty[rows], known, groups[rows], n, seed)]
    made = [_describe(run, new.samples, row, chances, uncertainty, groups) for row in chosen.tolist()]
    return Suggestions(run.path, tuple(made), len(new.samples), new)


def _group_copies(samples: Samples, context: Context) -> NDArray[np.int64]:
    """A number for each image, equal for near copies."""
    facts = read_cached_metadata(Path(), samples.paths, context)
    rows = [row for row, fact in enumerate(facts) if isinstance(fact, ImageMetadata)]
    groups = np.arange(len(samples), dtype=np.int64) + len(samples)
    if rows:
        known = [fact for fact in facts if isinstance(fact, ImageMetadata)]
        content, labels = np.arange(len(rows), dtype=np.int32), np.zeros(len(rows), np.int32)
        groups[rows] = group_copies(content, known, labels, context).look
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _describe(
    run: Run,
    samples: Samples,
    row: int,
    chances: NDArray[np.float64],
    uncertainty: NDArray[np.float64],
    groups: NDArray[np.int64],
) -> Suggested:
    rule = run.decision_rule
    order = np.argsort(-chances[row], kind="stable")
    copies = [samples.paths[one] for one in np.flatnonzero(groups == groups[row]).tolist() if one != row]
    return Suggested(
        str(Path(samples.paths[row]).absolute()),
        rule.name_answer(rule.decide(chances[row : row + 1])[0], run.classes),
        float(chances[row, order[0]]),
        run.classes[order[1]],
        float(uncertainty[row]),
        tuple(copies),
    )


def save_suggestions(path: Path, suggestions: Suggestions, multilabel: bool = False) -> None:
    """Write suggestions as a table of corrections, whose column `correct` is to be filled in.

    Rows with an empty `label` and a `correct` class add the file to the training images (`--corrections`).

    Args:
        path: File to make or replace.
        suggestions: The suggestions.
        multilabel: Whether the run's images have several labels, which corrections do not take.

    Raises:
        DataError: The images are of an archive, or have several labels, or the file has classes that were filled in.
        StorageError: The file cannot be written.
    """
    refuse_filled(path)
    if multilabel:
        raise DataError(
            f"{path}: a table of corrections cannot hold several labels of an image.",
            "Leave --csv out, and add the images to the table of your data.",
        )
    if suggestions.new.from_archive:
        raise DataError(
            f"{path}: images in an archive have no lasting path that the table could name.",
            "Unpack the archive, and give the folder.",
        )
    rows = [
        [one.path, "", "", one.called, f"{one.probability:.4f}", one.second, f"{one.uncertainty:.4f}"]
        for one in suggestions.images
    ]
    with raise_storage_errors(path):
        write_bytes(path, format_csv([HEADER, *rows]).encode("utf-8-sig"))


def refuse_filled(path: Path) -> None:
    """Refuse a place at which there is another file than a table of suggestions that nobody filled in yet.

    Args:
        path: The file to make or replace.

    Raises:
        DataError: There is one.
    """
    if not path.is_file():
        return
    try:
        header, *rows = csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, ValueError, csv.Error):
        header, rows = [], []
    place = HEADER.index("correct")
    if header != list(HEADER) or any("".join(row[place : place + 1]).strip() for row in rows):
        raise DataError(
            f"{path}: exists, and is no table of suggestions, or has classes filled in. It was left as it is.",
            "Name another file with --csv.",
        )
