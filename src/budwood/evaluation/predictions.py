"""From images to Predictions, the waist of the system: everything after it needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from budwood.data.dataset import SEALED, Samples, Sets, make_membership_matrix
from budwood.errors import RunError
from budwood.evaluation.metrics import score_images
from budwood.storage.atomic import encode_parquet, write_bytes


@dataclass(frozen=True)
class Predictions:
    """What a network says of the images of one split: ids, paths, labels int32 [n], logits float32 [n, classes].

    Where images have several labels each, a label is the number of a set of classes in `sets`. Ids are unique, so that
    two runs can be compared image by image. Raises `RunError` when they are not.
    """

    ids: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int32]
    logits: NDArray[np.float32]
    sets: Sets = ()

    @property
    def targets(self) -> NDArray[np.bool_]:
        """Which classes each image has: bool [n, classes]."""
        classes = self.logits.shape[1]
        if not self.sets:
            return np.asarray(self.labels[:, None] == np.arange(classes))
        return np.asarray(make_membership_matrix(self.sets, classes)[self.labels])

    @property
    def losses(self) -> NDArray[np.float64]:
        """The loss of each image, nats: float64 [n]."""
        return score_images("log_loss", self.targets, self.logits, bool(self.sets))

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image is called rightly, in every class where it has several: bool [n]."""
        return np.asarray(score_images("accuracy", self.targets, self.logits, bool(self.sets)) > 0)

    def __post_init__(self) -> None:
        if len(set(self.ids)) != len(self.ids):
            raise RunError("Predictions hold one image twice.", "Scan the images again.")

    def save(self, path: Path) -> None:
        """Write one Parquet file with the columns id, path, label, logits."""
        table = pa.table(
            {
                "id": list(self.ids),
                "path": list(self.paths),
                "label": pa.array(self.labels, pa.int32()),
                "logits": pa.array(list(self.logits), pa.list_(pa.float32())),
            }
        )
        if self.sets:
            table = table.replace_schema_metadata({"sets": json.dumps(self.sets)})
        write_bytes(path, encode_parquet(table))


def load_predictions(path: Path) -> Predictions:
    """The predictions in a file; raises `RunError` when it is missing or damaged."""
    try:
        table = pq.read_table(path)
        logits = np.array(table["logits"].to_pylist(), np.float32)
        labels = table["label"].to_numpy().astype(np.int32)
        sets = tuple(map(tuple, json.loads((table.schema.metadata or {}).get(b"sets", b"[]"))))
        return Predictions(tuple(table["id"].to_pylist()), tuple(table["path"].to_pylist()), labels, logits, sets)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}).", "Train again.") from error


def make_predictions(samples: Samples, logits: NDArray[np.float32]) -> Predictions:
    """The predictions for labelled samples; raises `RunError` when their labels are sealed."""
    if np.any(samples.labels == SEALED):
        raise RunError("The labels of the test split are sealed.", "`budwood test RUN` opens it and counts the look.")
    return Predictions(samples.ids, samples.paths, samples.labels, logits, samples.sets)
