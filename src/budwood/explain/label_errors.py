"""Suspected label errors: images whose label disagrees with what a network says that has not seen this label.

    features -> folds -> a linear head in each -> out-of-fold probabilities -> confident learning -> Suspects

Every training and validation image is judged, never one of the test split. The method is confident learning (Northcutt,
Jiang and Chuang, Journal of Artificial Intelligence Research 70, 2021).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.config.optimizers import LBFGS
from budwood.data.dataset import Dataset, Samples
from budwood.data.listing import SPLITS
from budwood.data.splits import assign_folds
from budwood.display import Displayed
from budwood.errors import DataError, RunError
from budwood.evaluation.intervals import Metric, proportion_interval
from budwood.evaluation.logits import probabilities
from budwood.inference.bundle import Prefix
from budwood.inference.feature_cache import compute_features
from budwood.progress import Progress
from budwood.runs.networks import make_initial_trunk, make_trunk
from budwood.runs.run import Run
from budwood.storage.atomic import raise_storage_errors, write_bytes
from budwood.storage.context import Context
from budwood.text import counted, format_csv
from budwood.training.head_solver import solve
from budwood.training.linear_head import HeadSplit, compute_head_logits

FOLDS: Final = 5
HEADER: Final = ("path", "label", "suggested", "p_label", "p_suggested", "split", "correct")
WHY: Final = (
    "Confident learning counts {count} images whose label disagrees with a class that reached the mean probability "
    "which this class has among its own images; the {count} with the least probability of their label have {limit:.2g} "
    "at the most."
)


@dataclass(frozen=True)
class Suspect:
    """One image whose label is doubted.

    Probabilities are those of a head that has not seen the image's label.

    Attributes:
        path: Path relative to the data set.
        id: Content id of the image.
        split: `train` or `val`.
        label: Name of its class as labelled.
        suggested: Name of the class that is suggested.
        p_label: Probability of the label, 0 to 1.
        p_suggested: Probability of the suggested class, 0 to 1.
    """

    path: str
    id: str
    split: str
    label: str
    suggested: str
    p_label: float
    p_suggested: float


@dataclass(frozen=True, repr=False)
class Suspects(Displayed):
    """Images with suspect labels, and how they were found.

    Attributes:
        rows: Images whose label has a probability of at most `threshold` and is not the likeliest class, the least
            probable label first.
        threshold: Highest probability of a label that is suspected, 0 to 1.
        suggested_threshold: The threshold that `why` gives the reason for; 0 where nothing is suspected.
        why: The reason for the suggested threshold, in words.
        expected: Number of label errors that confident learning expects among the `n` images.
        n: Number of images that were judged.
        not_judged: Number of images of classes too small for the folds.
        folds: Number of folds.
        accuracy: Accuracy of the out-of-fold predictions by the labels as they are.
        trunk: Whose features were used, and whether that trunk may have seen the labels, in words.
    """

    rows: tuple[Suspect, ...]
    threshold: float
    suggested_threshold: float
    why: str
    expected: int
    n: int
    not_judged: int
    folds: int
    accuracy: Metric
    trunk: str

    def __repr__(self) -> str:
        return f"Suspects({len(self.rows):,} of {counted(self.n, 'image')}, about {self.expected:,} expected)"

    def record(self) -> dict[str, Any]:
        """Convert the suspects to plain values.

        Returns:
            The fields by name, those of the rows included.
        """
        return asdict(self)


@dataclass(frozen=True)
class Joint:
    """Estimates of confident learning for labels [i] and latent classes [j].

    Attributes:
        counts: int64 [classes, classes], the confident joint.
        shares: float64 [classes, classes], the estimated joint distribution.
        thresholds: float64 [classes], the mean probability of a class among the images labelled so; infinite for a
            class without images.
    """

    counts: NDArray[np.int64]
    shares: NDArray[np.float64]
    thresholds: NDArray[np.float64]


def find_suspects(run: Run, context: Context, threshold: float | None = None, *, folds: int = FOLDS) -> Suspects:
    """Find the training and validation images with suspect labels, by out-of-fold predictions.

    The features are those of the trunk that the run started from, which has not seen these labels unless `trunk` of
    the result says so. Copies and groups are in one fold.

    Args:
        run: The run.
        context: The cache folder, and where progress is shown.
        threshold: Highest probability of its label, 0 to 1, at which an image is named. None names as many images
            as the confident joint has off its diagonal.
        folds: Number of folds, from 2.

    Returns:
        The suspects, the least probable label first.

    Raises:
        RunError: When images have several labels each, the threshold is out of range, or the weights that the run
            started from are not on this machine.
        DataError: When there are fewer clusters of images than folds, or fewer than 2 folds.
        StorageError: When the cache cannot be written.
    """
    data = run.dataset()
    if run.task.multilabel:
        raise RunError(
            f"{run.path}: label errors cannot be searched for in multi-label data (several labels for an image).",
            "Use data with one label for each image.",
        )
    if threshold is not None and not 0 <= threshold <= 1:
        raise RunError(
            f"threshold: expected a number from 0 to 1, found {threshold}.",
            "With 0.01, only very likely errors are listed.",
        )
    judged = collect_labelled(data)
    prefix, trunk = _find_untouched_trunk(run, context)
    with raise_storage_errors(context.cache):
        features = compute_features(prefix, judged.samples, context.progress).values
    fold = _draw_folds(data, judged, folds)
    labels, blocks = judged.samples.labels, prefix.spec.plan.blocks
    chances, known = predict_out_of_fold(features, labels, fold, len(data.classes), context.progress, blocks)
    return judge_labels(data, judged, chances, known, threshold, folds, trunk)


@dataclass(frozen=True)
class LabelledSamples:
    """Images of the training and validation splits, each content once.

    Attributes:
        samples: The images with their labels.
        rows: int64 [n], their rows in the data set's table.
    """

    samples: Samples
    rows: NDArray[np.int64]


def collect_labelled(data: Dataset) -> LabelledSamples:
    """Collect all used images of the training and validation splits, each content once.

    Args:
        data: The data set.

    Returns:
        The images, in the order of the table.
    """
    held_out = SPLITS.index("test")
    rows = np.flatnonzero((data.column("split") != held_out) & data.column("used"))
    ids = data.table["id"].to_pylist()
    _, first = np.unique([ids[row] for row in rows.tolist()], return_index=True)
    rows = rows[np.sort(first)]
    return LabelledSamples(data.take(rows), rows)


def predict_out_of_fold(
    features: NDArray[np.float32],
    labels: NDArray[np.int32],
    fold: NDArray[np.int8],
    classes: int,
    progress: Progress,
    blocks: tuple[int, ...] = (),
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Predict each image by a linear head that was solved without the image's fold.

    The strength of the penalty is the one that is best on the first fold.

    Args:
        features: float32 [n, features].
        labels: int32 [n].
        fold: int8 [n], from 0.
        classes: Number of classes.
        progress: Where progress is shown.
        blocks: Widths of the blocks that the features consist of.

    Returns:
        Probabilities float64 [n, classes], and whether that head was trained on the image's class bool [n].
    """
    chances = np.zeros((len(labels), classes))
    known = np.zeros(len(labels), bool)
    section = LBFGS()
    for number in range(int(fold.max()) + 1):
        inside = fold == number
        train, held_out = (HeadSplit(features[rows], labels[rows], blocks) for rows in (~inside, inside))
        head = solve(train, held_out, classes, section, progress)
        section = LBFGS(head.selected["regularisation"])
        chances[inside] = probabilities(compute_head_logits(held_out.outputs, head.weight, head.bias))
        known[inside] = np.isin(held_out.labels, train.labels)
    return chances, known


def estimate_joint(chances: NDArray[np.float64], labels: NDArray[np.int32]) -> Joint:
    """Estimate the joint distribution of labels and latent classes (Northcutt et al. 2021, equations 1 to 3).

    An image is counted for the likeliest class among those whose probability is at least the mean that this class
    has among the images labelled so; an image that reaches no mean is not counted. The joint distribution is the
    counts of each label scaled to all of its images.

    Args:
        chances: Out-of-fold probabilities, float64 [n, classes].
        labels: int32 [n].

    Returns:
        The confident joint, the joint distribution and the thresholds.
    """
    classes = chances.shape[1]
    sizes = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, chances[np.arange(len(labels)), labels], classes)
    thresholds = np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf)
    reached = np.where(chances >= thresholds, chances, -1.0)
    latent = np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels[latent >= 0], latent[latent >= 0]), 1)
    totals = counts.sum(axis=1, keepdims=True)
    scaled = np.where(totals > 0, counts / np.maximum(totals, 1), np.eye(classes)) * sizes[:, None]
    return Joint(counts, scaled / max(1, len(labels)), thresholds)


def judge_labels(
    data: Dataset,
    judged: LabelledSamples,
    chances: NDArray[np.float64],
    known: NDArray[np.bool_],
    threshold: float | None,
    folds: int,
    trunk: str,
) -> Suspects:
    """Find the suspects among images by their out-of-fold probabilities.

    Args:
        data: The data set.
        judged: Its training and validation images.
        chances: Out-of-fold probabilities, float64 [n, classes].
        known: bool [n], whether the head knew the image's class; others are not judged.
        threshold: Highest probability of a suspect label, 0 to 1; None to choose it by the confident joint.
        folds: Number of folds, to be recorded.
        trunk: Description of the trunk, to be recorded.

    Returns:
        The suspects, the least probable label first.
    """
    rows = np.flatnonzero(known)
    labels, chance = judged.samples.labels[rows], chances[rows]
    joint = estimate_joint(chance, labels)
    own = chance[np.arange(len(rows)), labels]
    suggested = chance.argmax(axis=1)
    order = np.argsort(own, kind="stable")
    order = order[suggested[order] != labels[order]]
    count = min(int(joint.counts.sum() - np.trace(joint.counts)), len(order))
    limit = float(own[order[count - 1]]) if count else 0.0
    chosen = limit if threshold is None else threshold
    named = [place for place in order.tolist() if own[place] <= chosen and (count or threshold is not None)]
    split = data.column("split")[judged.rows[rows]]
    made = [
        Suspect(
            path=judged.samples.paths[rows[place]],
            id=judged.samples.ids[rows[place]],
            split=SPLITS[split[place]],
            label=data.classes[labels[place]],
            suggested=data.classes[suggested[place]],
            p_label=float(own[place]),
            p_suggested=float(chance[place, suggested[place]]),
        )
        for place in named
    ]
    return Suspects(
        rows=tuple(made),
        threshold=chosen,
        suggested_threshold=limit,
        why=WHY.format(count=count, limit=limit) if count else "Confident learning estimates no label errors.",
        expected=round((1 - float(np.trace(joint.shares))) * len(rows)) if len(rows) else 0,
        n=len(rows),
        not_judged=int(np.sum(~known)),
        folds=folds,
        accuracy=proportion_interval(int(np.sum(suggested == labels)), len(rows)),
        trunk=trunk,
    )


def save_suspects(path: Path, suspects: Suspects) -> None:
    """Write the suspects as a CSV table for people and spreadsheets.

    There is one row for each suspect, with an empty column `correct` to be filled in: the name of a class, or `-`
    to leave the image out. A row that stays empty changes nothing. `bw.scan(data, corrections=path)` applies the
    table to the data. The file is UTF-8 with a byte order mark, without which some spreadsheets assume another
    encoding.

    Args:
        path: File to make or replace.
        suspects: The suspects.

    Raises:
        StorageError: When the file cannot be written.
    """
    text = format_csv([HEADER, *(_csv_row(one) for one in suspects.rows)])
    with raise_storage_errors(path):
        write_bytes(path, text.encode("utf-8-sig"))


def _csv_row(one: Suspect) -> list[str]:
    return [one.path, one.label, one.suggested, f"{one.p_label:.4f}", f"{one.p_suggested:.4f}", one.split, ""]


def _draw_folds(data: Dataset, judged: LabelledSamples, folds: int) -> NDArray[np.int8]:
    """The fold of each image: copies and groups in one."""
    cluster = data.column("cluster")[judged.rows]
    if folds < 2 or len(np.unique(cluster)) < folds:
        raise DataError(
            f"{data.root}: has too few different images for {folds} folds.",
            "Use 2 folds or more, but not more than there are different images.",
        )
    groups = data.table["group"].to_pylist()
    own_groups = [groups[row] or "" for row in judged.rows.tolist()]
    return assign_folds(judged.samples.ids, judged.samples.labels, own_groups, cluster, folds)


def _find_untouched_trunk(run: Run, context: Context) -> tuple[Prefix, str]:
    """The trunk whose features are judged by, and whether it has seen the labels, in words."""
    if run.record.ensemble:
        member = run.members()[0]
        prefix, about = _find_untouched_trunk(member, context)
        return prefix, f"Of the ensemble's first member, {member.record.id}: {about[0].lower()}{about[1:]}"
    if run.recipe.weights == "none" and run.record.network.trunk_trained:
        return make_trunk(run, context), (
            "The run's own trunk, trained from scratch on these labels: it may have memorised some errors, "
            "which are then not suspected."
        )
    prefix = make_initial_trunk(run, context)
    if run.recipe.weights.startswith("run:"):
        about = run.record.network.weights.about
        return prefix, f"The trunk of {about}, from which the run started: it has seen the labels of that run."
    return prefix, "The trunk that the run started from: it has not seen these labels."
