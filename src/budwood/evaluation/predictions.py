"""From images to Predictions, the waist of the system: everything after it needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from budwood.data.dataset import SEALED, Samples, Sets
from budwood.errors import RunError
from budwood.evaluation.label_task import LabelTask, task_of
from budwood.evaluation.scoring import Labels
from budwood.storage.atomic import encode_parquet, read_parquet, write_bytes
from budwood.storage.strict_json import decode_json, encode_json


@dataclass(frozen=True)
class Predictions:
    """Logits of a network for the images of one split, with their labels.

    Ids are unique, so that two runs can be compared image by image; the constructor raises `RunError` if they are
    not.

    Attributes:
        ids: Content id of each image.
        paths: Path of each image, relative to the data set's root.
        labels: Class numbers, int32 [n]; where images have several labels, numbers of sets in `label_sets`.
        logits: Logits, float32 [n, classes].
        label_sets: Sets of classes, each a tuple of class numbers; empty where each image has one label.
    """

    ids: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int32]
    logits: NDArray[np.float32]
    label_sets: Sets = ()

    @property
    def task(self) -> LabelTask:
        """What the images are labelled with."""
        return task_of(self.label_sets, self.logits.shape[1])

    @property
    def truth(self) -> Labels:
        """What the images are, as metrics take it: class numbers int32 [n], or bool [n, classes]."""
        return self.task.read_labels(self.labels)

    @property
    def targets(self) -> NDArray[np.bool_]:
        """Return which classes each image has, bool [n, classes]."""
        return self.task.to_targets(self.truth)

    @property
    def losses(self) -> NDArray[np.float64]:
        """Return the loss of each image in nats, float64 [n]."""
        return self.task.losses(self.truth, self.logits)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Return whether each image is correct, in every class where it has several: bool [n]."""
        return self.task.is_correct(self.truth, self.logits)

    def __post_init__(self) -> None:
        if len(set(self.ids)) != len(self.ids):
            raise RunError("The predictions contain an image twice.", "Scan the images again.")

    def in_order(self, ids: Sequence[str]) -> Predictions:
        """Return the predictions for some of the images, in the order of their ids.

        Args:
            ids: Content ids of images that there are predictions for, each once.

        Returns:
            The predictions.

        Raises:
            KeyError: There is no prediction for an image.
        """
        row_of_id = {id: row for row, id in enumerate(self.ids)}
        rows = [row_of_id[id] for id in ids]
        paths = tuple(self.paths[row] for row in rows)
        return replace(self, ids=tuple(ids), paths=paths, labels=self.labels[rows], logits=self.logits[rows])

    def samples(self, root: Path) -> Samples:
        """Return the images that the predictions are about.

        Args:
            root: Folder that the paths are relative to.

        Returns:
            The images with their labels, in the order of the predictions.
        """
        return Samples(root, self.ids, self.paths, self.labels, self.label_sets)

    def save(self, path: Path) -> None:
        """Write the predictions as one Parquet file with the columns id, path, label and logits.

        Args:
            path: File to make or replace.

        Raises:
            OSError: When the file cannot be written.
        """
        table = pa.table(
            {
                "id": list(self.ids),
                "path": list(self.paths),
                "label": pa.array(self.labels, pa.int32()),
                "logits": pa.array(list(self.logits), pa.list_(pa.float32())),
            }
        )
        if self.label_sets:
            table = table.replace_schema_metadata({"sets": encode_json(self.label_sets)})
        write_bytes(path, encode_parquet(table))


def load_predictions(path: Path) -> Predictions:
    """Load predictions that `Predictions.save` wrote.

    Args:
        path: The Parquet file.

    Returns:
        The predictions.

    Raises:
        RunError: When the file is missing or damaged, or holds an image twice.
    """
    try:
        table = read_parquet(path)
        logits = np.array(table["logits"].to_pylist(), np.float32)
        labels = table["label"].to_numpy().astype(np.int32)
        label_sets = tuple(map(tuple, decode_json((table.schema.metadata or {}).get(b"sets", b"[]"))))
        if not np.isfinite(logits).all():
            raise ValueError("a logit is not finite")
        return Predictions(tuple(table["id"].to_pylist()), tuple(table["path"].to_pylist()), labels, logits, label_sets)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}).", "Train again.") from error


def make_predictions(samples: Samples, logits: NDArray[np.float32]) -> Predictions:
    """Combine labelled samples with the logits of a network.

    Args:
        samples: The images of one split.
        logits: Logits in the order of the samples, float32 [n, classes].

    Returns:
        The predictions.

    Raises:
        RunError: When the labels of the samples are sealed, a logit is not finite, or an image occurs twice.
    """
    if np.any(samples.labels == SEALED):
        raise RunError(
            "The labels of the test set are sealed.",
            "Run `budwood test RUN` first; every use of the test set is counted.",
        )
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise RunError(
            f"The network's outputs are not finite (NaN or infinite) for {len(bad):,} of {len(logits):,} images, "
            f"the first {samples.paths[bad[0]]!r}.",
            "Train with a lower learning rate, or start from other weights.",
        )
    return Predictions(samples.ids, samples.paths, samples.labels, logits, samples.label_sets)
