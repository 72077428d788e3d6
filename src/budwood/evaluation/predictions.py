"""From images to Predictions, the waist of the system: everything after it needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from budwood.data.dataset import SEALED, Samples, Sets
from budwood.data.value_range import ValueRange
from budwood.display import Displayed
from budwood.errors import RunError
from budwood.evaluation.confusion import Confusion
from budwood.evaluation.decisions import DecisionRule
from budwood.evaluation.intervals import describe_share_of, proportion_interval
from budwood.evaluation.label_task import LabelTask, task_of
from budwood.evaluation.scoring import Labels
from budwood.storage.atomic import encode_parquet, read_parquet, write_bytes
from budwood.storage.strict_json import decode_json, encode_json
from budwood.storage.tabular import Tabular
from budwood.text import SPLITS, counted


@dataclass(frozen=True)
class PredictionOrigin:
    """What a run knows of its predictions beside them.

    Attributes:
        split: `val` or `test`.
        classes: Names of the classes, in the order of the logits.
        root: Folder that the paths of the images are relative to.
        rule: How logits become probabilities.
        value_range: Values of more than 8 bits that become black and white; None for the range of their type.
        chosen_from: Number of images among which these were chosen by their answers; None where they are all.
    """

    split: str
    classes: tuple[str, ...]
    root: Path
    rule: DecisionRule
    value_range: ValueRange | None = None
    chosen_from: int | None = None


@dataclass(frozen=True, repr=False)
class Predictions(Displayed, Tabular):
    """Logits of a network for the images of one split, with their labels.

    Ids are unique, so that two runs can be compared image by image; the constructor raises `RunError` if they are
    not.

    Attributes:
        ids: Content id of each image.
        paths: Path of each image, relative to the data set's root.
        labels: Class numbers, int32 [n]; where images have several labels, numbers of sets in `label_sets`.
        logits: Logits, float32 [n, classes].
        label_sets: Sets of classes, each a tuple of class numbers; empty where each image has one label.
        origin: What the run that they are of knows beside them; None where they are of none.
    """

    ids: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int32]
    logits: NDArray[np.float32]
    label_sets: Sets = ()
    origin: PredictionOrigin | None = field(default=None, compare=False)

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

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        split = f"{SPLITS[self.origin.split]} " if self.origin else ""
        if self.origin and self.origin.chosen_from is not None:
            return f"Predictions({len(self):,} of {counted(self.origin.chosen_from, f'{split}image')})"
        share = describe_share_of(proportion_interval(int(self.correct.sum()), len(self)))
        return f"Predictions({counted(len(self), f'{split}image')}: accuracy {share})"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes in the order of the logits; their numbers where names are not known."""
        return self.origin.classes if self.origin else tuple(map(str, range(self.logits.shape[1])))

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Return the probability of each class, calibrated where the run is, float64 [n, classes]."""
        rule = self.origin.rule if self.origin else DecisionRule(self.task)
        return rule.to_probabilities(self.logits)

    @property
    def confusion(self) -> Confusion:
        """Count which classes were taken for which.

        Raises:
            RunError: Images have several labels each, so that no class is taken for another.
        """
        if self.task.multilabel:
            raise RunError(
                "confusion: images have several labels each, so no class is taken for another.",
                "`run.metrics['val']['per_class']` has the figures of each label; the report shows their mistakes.",
            )
        counts = np.array(self.task.count_confusion(self.truth, self.logits), np.int64)
        return Confusion(self.class_names, counts, self.origin.split if self.origin else "")

    def wrong(self) -> Predictions:
        """Select the mistakes, as accuracy counts them: the likeliest class is not the label.

        Returns:
            The predictions for images that are called wrongly, the surest mistake first.
        """
        rows = np.argsort(-self.losses, kind="stable")
        chosen = self.take(rows[~self.correct[rows]])
        return replace(chosen, origin=replace(self.origin, chosen_from=len(self)) if self.origin else None)

    def take(self, rows: NDArray[np.int64]) -> Predictions:
        """Take some of the predictions.

        Args:
            rows: Row numbers from 0, each once, int64 [n].

        Returns:
            The predictions in the order of `rows`.
        """
        ids, paths = (tuple(values[row] for row in rows.tolist()) for values in (self.ids, self.paths))
        return replace(self, ids=ids, paths=paths, labels=self.labels[rows], logits=self.logits[rows])

    def to_arrow(self) -> pa.Table:
        """Convert to an Arrow table.

        Returns:
            A row an image: path, label, predicted, probability (of what is predicted; of several labels, of exactly
            these), correct, loss (nats), and `p: NAME` with the probability of each class.
        """
        names, chances = self.class_names, self.probabilities
        called = [self.task.call_image(row, names) for row in chances]
        columns = [
            ("path", list(self.paths)),
            ("label", [self.task.name_label(int(label), names) for label in self.labels]),
            ("predicted", [name for name, _ in called]),
            ("probability", [chance for _, chance in called]),
            ("correct", self.correct),
            ("loss", self.losses),
            *((f"p: {name}", chances[:, number]) for number, name in enumerate(names)),
        ]
        return pa.Table.from_arrays([pa.array(values) for _, values in columns], [name for name, _ in columns])

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
        return self.take(np.array([row_of_id[id] for id in ids], np.int64))

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
