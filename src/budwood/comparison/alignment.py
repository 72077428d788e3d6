"""Which rows may be held against each other, and what each says of every image: runs to aligned answers.

A row is one run, or one run a seed, a fold, or both. Rows can be compared when they were scored on the same images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budwood.errors import RunError
from budwood.evaluation.intervals import Metric, Values, bounded_mean_interval, mean_proportion_interval
from budwood.evaluation.label_task import LabelTask
from budwood.evaluation.metrics import ClassMean, Evaluation, ImageMean, ResampledMetric, define_metric
from budwood.evaluation.predictions import Predictions
from budwood.evaluation.scoring import Labels
from budwood.runs.run import Run
from budwood.text import quote_path


@dataclass(frozen=True)
class AlignedPredictions:
    """Predictions of one row for its images, those of all folds together, in the order of the images' ids.

    Attributes:
        ids: Ids of the images, sorted.
        labels: True labels as metrics take them: classes int32 [n], or bool [n, classes] for several labels.
        logits: Logits, float32 [n, classes], of every repeat; of folds the first runs of all are one, and so on.
        task: What the images are labelled with.
    """

    ids: tuple[str, ...]
    labels: Labels
    logits: tuple[NDArray[np.float32], ...]
    task: LabelTask

    @property
    def n(self) -> int:
        """Return the number of images.

        Returns:
            The sum over all folds.
        """
        return len(self.ids)

    @property
    def repeats(self) -> int:
        """Return the number of runs that predict each image.

        Returns:
            The number of repeats, such as seeds; equal in all folds.
        """
        return len(self.logits)

    @property
    def images(self) -> str:
        """Compute the digest of the images and their labels.

        Returns:
            SHA-256 in hex, equal for rows that can be paired.
        """
        return hashlib.sha256("".join(self.ids).encode() + self.task.to_targets(self.labels).tobytes()).hexdigest()


@dataclass(frozen=True)
class ScoredRow:
    """A metric of one row, with what its tests need.

    Attributes:
        value: The metric, a mean over the row's repeats.
        n: Number of images.
        repeats: Number of runs that predict each image.
        means: Contribution of each image, float64 [n]; None where the metric is not a mean over images.
        spread: Bootstrap resamples of the metric, float64 [resamples]; None where it is a mean over images.
        whole: The metric with its interval, over all images and repeats.
        answers: What the runs say of each image, [n, ...]: classes where the metric counts these, else logits.
        unit: How much one image more may change the difference of two rows.
    """

    value: float
    n: int
    repeats: int
    means: Values | None
    spread: Values | None
    whole: Metric
    answers: NDArray[Any]
    unit: float


def align_predictions(name: str, runs: Sequence[Run], split: str) -> AlignedPredictions:
    """Align the predictions of one row's runs for a split.

    Args:
        name: Label of the row, for messages.
        runs: Runs of the row, one or more: seeds, folds or both.
        split: `val` or `test`.

    Returns:
        The predictions, with images in the order of their ids.

    Raises:
        RunError: The runs were scored on different images that are not folds of one whole.
    """
    held = [_sort_by_id(run.predictions(split)) for run in runs]
    folds: dict[tuple[str, ...], list[Predictions]] = {}
    for predictions in held:
        folds.setdefault(predictions.ids, []).append(predictions)
    if len({len(found) for found in folds.values()}) > 1 or len({id for ids in folds for id in ids}) < sum(
        map(len, folds)
    ):
        raise RunError(
            f"{name}: its runs were evaluated on different images that are not folds of one data set.",
            "Give runs on the same split, or one run (or the same number of seeds) for every fold.",
        )
    parts = [found for _, found in sorted(folds.items())]
    ids = [id for found in parts for id in found[0].ids]
    order = np.array(sorted(range(len(ids)), key=lambda row: ids[row]), np.intp)
    labels = np.concatenate([found[0].truth for found in parts])[order]
    logits = tuple(np.concatenate([one.logits for one in repeat])[order] for repeat in zip(*parts, strict=True))
    return AlignedPredictions(tuple(ids[row] for row in order.tolist()), labels, logits, held[0].task)


def score_rows(rows: Sequence[AlignedPredictions], metric: str) -> list[ScoredRow]:
    """Compute a metric of rows that predict the same images.

    For metrics that are not means over images, all rows share the bootstrap resamples, so that they are paired.

    Args:
        rows: Predictions of each row, all with the same digest `images`.
        metric: Name of the metric, or the import path of a user's own.

    Returns:
        The scored rows, in the order given.
    """
    definition = define_metric(metric)
    if isinstance(definition, ImageMean):
        return [_score_mean(row, definition) for row in rows]
    assert isinstance(definition, ResampledMetric)
    task, labels = rows[0].task, rows[0].labels
    joined = [row.logits for row in rows]
    values, spread = definition.resample(task, labels, [logits for row in joined for logits in row])
    ends = np.cumsum([len(row) for row in joined])
    unit = _measure_unit(task.to_targets(labels))
    made = []
    for row, end in zip(joined, ends.tolist(), strict=True):
        own = slice(end - len(row), end)
        whole = _average_metrics([definition.evaluate(Evaluation(task, labels, logits)) for logits in row])
        counted = [task.decide(logits) if isinstance(definition, ClassMean) else logits for logits in row]
        value, drawn = float(values[own].mean()), spread[:, own].mean(axis=1)
        made.append(ScoredRow(value, len(labels), len(row), None, drawn, whole, np.stack(counted, axis=1), unit))
    return made


def _score_mean(row: AlignedPredictions, metric: ImageMean) -> ScoredRow:
    """A metric that is a mean over images."""
    means = np.mean([metric.values(row.task, row.labels, logits) for logits in row.logits], axis=0)
    if metric.is_loss:
        worst = max((metric.worst(row.task, row.labels, logits) for logits in row.logits), default=1.0)
        whole = bounded_mean_interval(means, 0.0, worst)
    else:
        whole = mean_proportion_interval(means, row.repeats)
    return ScoredRow(float(means.mean()), row.n, row.repeats, means, None, whole, np.stack(row.logits, axis=1), 0.0)


def _average_metrics(metrics: Sequence[Metric]) -> Metric:
    """The mean of a metric over repeats on the same images; its ends are the means of theirs, so never too near."""
    value, low, high = (
        None if None in ends else float(np.mean([end for end in ends if end is not None]))
        for ends in ([getattr(metric, name) for metric in metrics] for name in ("value", "low", "high"))
    )
    return Metric(value, low, high, metrics[0].n)


def _measure_unit(targets: NDArray[np.bool_]) -> float:
    """How much one image more of each class may change the difference of two means over classes."""
    support = targets.sum(axis=0)
    present = support[support > 0]
    return float(np.sqrt(np.square(1 / (present + 2)).sum())) / max(1, len(present))


def refuse_unfinished(runs: Sequence[Run]) -> None:
    """Refuse runs that were not trained to their end.

    Args:
        runs: Runs to check.

    Raises:
        RunError: A run is not finished.
    """
    for run in runs:
        if run.record.state != "done":
            raise RunError(
                f"{run.path}: is not a finished run (state: {run.record.state}), so it cannot be compared.",
                f"Finish it with `budwood resume {quote_path(run.path)}`, or leave it out.",
            )


def refuse_unopened(runs: Sequence[Run], allow_looks: bool) -> None:
    """Refuse runs whose test splits are sealed, or were opened at different looks.

    Args:
        runs: Runs to check.
        allow_looks: Whether different looks are allowed; a finding then reports them.

    Raises:
        RunError: The test split of a run is sealed, or looks differ and are not allowed to.
    """
    sealed = [run.path.name for run in runs if not run.record.test]
    if sealed:
        raise RunError(
            f"The test set is still sealed for {_name_some(sealed)}, so the runs cannot be compared on it.",
            "Run `budwood test RUN` first (every use is counted), or compare with --split val.",
        )
    looks = {run.path.name: run.record.test.looks for run in runs if run.record.test}
    if len(set(looks.values())) > 1 and not allow_looks:
        told = _name_some([f"{name} (look {count})" for name, count in looks.items()])
        raise RunError(
            f"The test set was used a different number of times (looks): {told}.",
            "Choosing after more looks makes a score too optimistic. Compare with --split val, "
            "or use --allow-looks and read the finding.",
        )


def refuse_different(rows: Mapping[str, Sequence[Run]], answers: Mapping[str, AlignedPredictions], split: str) -> None:
    """Refuse rows that differ from the first in classes, data or held-out images.

    Args:
        rows: Runs of each row by label.
        answers: Predictions of each row by label.
        split: `val` or `test`.

    Raises:
        RunError: At least one row differs; the message says which, and why.
    """
    first = next(iter(rows))
    reasons = [
        f"{_describe_row(name, rows[name])} {why}"
        for name in rows
        if name != first and (why := _explain_difference(rows, answers, first, name, split))
    ]
    if reasons:
        raise RunError(
            f"These runs cannot be compared with {_describe_row(first, rows[first])}: {_name_some(reasons, '; ')}.",
            "Give runs with the same data set and split: `budwood train` with the same DATA, --val and --test.",
        )


def _describe_row(label: str, runs: Sequence[Run]) -> str:
    """A row's label with the directories of its runs."""
    names = _name_some([run.path.name for run in runs])
    return label if label == names else f"{label} ({names})"


def _explain_difference(
    rows: Mapping[str, Sequence[Run]], answers: Mapping[str, AlignedPredictions], first: str, name: str, split: str
) -> str:
    """Why a row cannot be compared with the first; empty when it can."""
    theirs, mine = rows[first][0], rows[name][0]
    if theirs.classes != mine.classes:
        return f"has other classes ({_name_some(mine.classes)} instead of {_name_some(theirs.classes)})"
    if answers[first].images != answers[name].images:
        known, found = (set(answers[row].ids) for row in (first, name))
        which = {"val": "validation", "test": "test"}[split]
        if known == found:
            return f"has other labels of the {which} images"
        return f"has another {which} split ({len(known & found):,} of its {len(found):,} images are shared)"
    if _collect_fingerprints(rows[first]) != _collect_fingerprints(rows[name]):
        return (
            f"was trained on other data or another split ({_describe_data(mine)} instead of {_describe_data(theirs)})"
        )
    return ""


def _collect_fingerprints(runs: Sequence[Run]) -> set[str]:
    return {run.record.dataset.fingerprint for run in runs}


def _describe_data(run: Run) -> str:
    return f"{run.record.dataset.name} {run.record.dataset.fingerprint[:8]}"


def _sort_by_id(predictions: Predictions) -> Predictions:
    """Predictions by sorted id."""
    order = sorted(range(len(predictions.ids)), key=lambda row: predictions.ids[row])
    return Predictions(
        tuple(predictions.ids[row] for row in order),
        tuple(predictions.paths[row] for row in order),
        predictions.labels[order],
        predictions.logits[order],
        predictions.label_sets,
    )


def _name_some(names: Sequence[str], separator: str = ", ") -> str:
    """Up to three names, and how many more there are."""
    more = len(names) - 3
    return separator.join(names) if more < 1 else f"{separator.join(names[:3])} and {more:,} more"
