"""How good predictions are, with intervals: pure functions of labels and logits.

What differs between images with one label and images with several is asked of a `Scoring`: `label_task` has two.
Labels are here what scikit-learn takes: class numbers int32 [n], or bool [n, classes] where an image may have several.
`intervals` has the 95 % intervals: Wilson's for shares, a normal one for means, percentiles of resampled images for the
rest. An undefined value is None. `metric_registry` has the names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from budwood.config.metric_registry import find_metric
from budwood.config.registry import import_entry
from budwood.errors import RecipeError
from budwood.evaluation.intervals import (
    RESAMPLES,
    Metric,
    ReadByName,
    Values,
    iterate_bootstrap_weights,
    mean_interval,
    percentile_interval,
    proportion_interval,
)

Labels = NDArray[Any]
Logits = NDArray[np.float32]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClassMetrics(ReadByName):
    """The figures of one class, and its number of images; `average_precision` where images have several labels."""

    precision: Metric
    recall: Metric
    f1: Metric
    support: int
    average_precision: Metric | None = None


@dataclass(frozen=True, eq=False)
class SplitMetrics(Mapping[str, Any]):
    """Every metric of one split by its name, and those of each class under `per_class`, as run.json has them."""

    figures: Mapping[str, Metric]
    per_class: Mapping[str, ClassMetrics]

    def __getitem__(self, name: str) -> Any:
        return self.per_class if name == "per_class" else self.figures[name]

    def __iter__(self) -> Iterator[str]:
        yield from (*self.figures, "per_class")

    def __len__(self) -> int:
        return len(self.figures) + 1

    @property
    def accuracy(self) -> Metric:
        """The share of images that are called what they are."""
        return self.figures["accuracy"]


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures, and mappings of them, as dicts for JSON."""
    return {name: plain(part) if isinstance(part, Mapping) else part for name, part in record.items()}


@dataclass(frozen=True)
class ClassCounts:
    """Images by class, int64 [..., classes]: called it and of it, of it, called it."""

    correct: Counts
    support: Counts
    predicted: Counts


class Scoring(Protocol):
    """What metrics ask of a kind of labels."""

    def to_targets(self, labels: Labels) -> NDArray[np.bool_]:
        """Return which classes each image has: bool [n, classes]."""

    def decide(self, logits: Logits) -> NDArray[np.bool_]:
        """Return which classes are predicted for each image: bool [n, classes]."""

    def is_correct(self, labels: Labels, logits: Logits) -> NDArray[np.bool_]:
        """Return whether each image is correct, in every class where it has several: bool [n]."""

    def losses(self, labels: Labels, logits: Logits) -> Values:
        """Return the loss of each image, nats: float64 [n]."""

    def rank_scores(self, logits: Logits) -> Values:
        """Return the scores that rank the images for each class: float64 [n, classes]."""

    def resample_counts(self, labels: Labels, logits: Logits) -> ClassCounts:
        """Return the counts of RESAMPLES bootstrap samples of the images: [resamples, classes] each."""


class Evaluation:
    """The answers to one split: what several metrics need is computed once."""

    def __init__(self, task: Scoring, labels: Labels, logits: Logits) -> None:
        self.task, self.labels, self.logits = task, labels, logits

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def counts(self) -> ClassCounts:
        """Images by class, [classes] each."""
        return _sum_counts(count_images(self.task, self.labels, self.logits))

    @cached_property
    def resampled(self) -> ClassCounts:
        """The same of bootstrap samples, [resamples, classes] each."""
        return self.task.resample_counts(self.labels, self.logits)

    @cached_property
    def f1(self) -> tuple[Values, Values]:
        """The F1 of each class, float64 [classes], and of bootstrap samples, [resamples, classes]."""
        return _compute_f1(self.counts), _compute_f1(self.resampled)

    @cached_property
    def average_precision(self) -> tuple[Values, Values]:
        """The average precision of each class, float64 [classes], and of bootstrap samples, [resamples, classes]."""
        return _compute_average_precision(self.task.to_targets(self.labels), self.logits)


class MetricDefinition(ABC):
    """How a metric is computed."""

    @abstractmethod
    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return the value alone."""

    @abstractmethod
    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the value with its 95 % interval."""


class ResampledMetric(MetricDefinition):
    """A metric that is no mean over images, so that intervals and tests need bootstrap samples of them."""

    @abstractmethod
    def resample(self, task: Scoring, labels: Labels, answers: Sequence[Logits]) -> tuple[Values, Values]:
        """Return the values of several networks on the same images, and on bootstrap samples of them.

        Args:
            task: What the images are labelled with.
            labels: Class numbers int32 [n], or bool [n, classes] where an image may have several.
            answers: Logits of each network, float32 [n, classes].

        Returns:
            The values, float64 [networks], and the same for every bootstrap sample, float64 [resamples, networks]. All
            networks share the samples.
        """


@dataclass(frozen=True)
class ImageMean(MetricDefinition):
    """A mean over images of what each adds, float64 [n]: of 0s and 1s where it `is_proportion`."""

    values: Callable[[Scoring, Labels, Logits], Values]
    is_proportion: bool

    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return the mean over the images."""
        return float(self.values(task, labels, logits).mean())

    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the mean with the interval of a proportion, or else of a mean."""
        values = self.values(answers.task, answers.labels, answers.logits)
        return proportion_interval(int(values.sum()), len(values)) if self.is_proportion else mean_interval(values)


@dataclass(frozen=True)
class ClassMean(ResampledMetric):
    """A mean, over the classes that have an image, of a figure that the counts of a class give: float64 [classes]."""

    by_class: Callable[[ClassCounts], Values]

    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return the mean over the classes that have an image."""
        return float(self._mean(_sum_counts(count_images(task, labels, logits))))

    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the mean with its bootstrap percentile interval."""
        return percentile_interval(self._mean(answers.counts), self._mean(answers.resampled), len(answers))

    def resample(self, task: Scoring, labels: Labels, answers: Sequence[Logits]) -> tuple[Values, Values]:
        """Return the means of several networks, and those of shared bootstrap samples."""
        counts = [count_images(task, labels, logits) for logits in answers]
        stacked = [np.concatenate(count, axis=1).astype(np.float32) for count in counts]  # exact in float32
        drawn = [
            [self._mean(ClassCounts(*np.split((weights @ one).astype(np.int64), 3, axis=1))) for one in stacked]
            for part in iterate_bootstrap_weights(len(labels))
            for weights in [part.astype(np.float32)]
        ]
        values = [float(self._mean(_sum_counts(count))) for count in counts]
        return np.array(values), np.concatenate([np.stack(part, axis=1) for part in drawn])

    def _mean(self, counts: ClassCounts) -> Values:
        return _mean_over_present(self.by_class(counts), counts)


@dataclass(frozen=True)
class MeanAveragePrecision(ResampledMetric):
    """The mean over the classes that have an image of the mean precision at each of its images, by falling logit."""

    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return the mean average precision."""
        return float(self._of_all(Evaluation(task, labels, logits)))

    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the mean average precision with its bootstrap percentile interval."""
        drawn = _mean_over_present(np.nan_to_num(answers.average_precision[1]), answers.resampled)
        return percentile_interval(self._of_all(answers), drawn, len(answers))

    def resample(self, task: Scoring, labels: Labels, answers: Sequence[Logits]) -> tuple[Values, Values]:
        """Return the mean average precision of several networks, and that of shared bootstrap samples."""
        targets = task.to_targets(labels)
        support = np.concatenate([part @ targets for part in iterate_bootstrap_weights(len(targets))])
        drawn = ClassCounts(support, support, support)
        made = [Evaluation(task, labels, logits) for logits in answers]
        spread = [_mean_over_present(np.nan_to_num(one.average_precision[1]), drawn) for one in made]
        return np.array([float(self._of_all(one)) for one in made]), np.stack(spread, axis=1)

    def _of_all(self, answers: Evaluation) -> Values:
        return _mean_over_present(answers.average_precision[0], answers.counts)


@dataclass(frozen=True)
class FunctionMetric(ResampledMetric):
    """Any function of labels and logits; its interval is that of bootstrap samples of the images, one after another."""

    function: Callable[[Scoring, Labels, Logits], float]

    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return what the function gives."""
        return float(self.function(task, labels, logits))

    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the value with its bootstrap percentile interval; undefined where there is no image."""
        n = len(answers)
        if n == 0:
            return proportion_interval(0, 0)
        values, spread = self.resample(answers.task, answers.labels, [answers.logits])
        return percentile_interval(values[0], spread[:, 0], n)

    def resample(self, task: Scoring, labels: Labels, answers: Sequence[Logits]) -> tuple[Values, Values]:
        """Return the values of several networks, and those of shared bootstrap samples; NaN where one has none."""
        samples = [
            np.repeat(np.arange(len(labels)), weights)
            for part in iterate_bootstrap_weights(len(labels))
            for weights in part
        ]
        drawn = [[self._score_sample(task, labels[rows], logits[rows]) for logits in answers] for rows in samples]
        return np.array([self.score(task, labels, logits) for logits in answers]), np.array(drawn, np.float64)

    def _score_sample(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """The value; NaN where a sample, which may lack a class, has none."""
        try:
            return self.score(task, labels, logits)
        except (ValueError, ZeroDivisionError):
            return float("nan")


def define_metric(name: str) -> MetricDefinition:
    """Return how a metric is computed.

    Args:
        name: A name of `metric_registry`, or `package.module:name` of a function of labels (class numbers int32 [n], or
            bool [n, classes] where an image may have several) and logits float32 [n, classes] that gives a float.

    Raises:
        RecipeError: There is no such metric, or what is named is no function.
    """
    definition = import_entry(find_metric(name).definition, "metric")
    if isinstance(definition, MetricDefinition):
        return definition
    if not callable(definition):
        raise RecipeError(
            f"metric: {name} is no function, found {type(definition).__name__}.",
            "A metric is a function of labels and logits that gives a float.",
        )
    return FunctionMetric(lambda task, labels, logits: definition(labels, logits))


def evaluate(
    task: Scoring, labels: Labels, logits: Logits, classes: Sequence[str], names: Sequence[str]
) -> SplitMetrics:
    """Compute the metrics of one split.

    Balanced accuracy and macro F1 are means over the classes that have an image. Undefined values are None. The loss is
    in nats.

    Args:
        task: What the images are labelled with.
        labels: True classes, int32 [n], or bool [n, classes] where an image may have several.
        logits: Logits, float32 [n, classes].
        classes: Names of the classes.
        names: Names of the metrics, as `define_metric` takes them.

    Returns:
        The metrics by name, each with its 95 % confidence interval; and `per_class`, with precision, recall, F1 and
        support of each class by name, and its average precision where `mean_average_precision` is asked for.
    """
    answers = Evaluation(task, labels, logits)
    scores = {name: define_metric(name).evaluate(answers) for name in names}
    per_class = {name: _evaluate_class(answers, c) for c, name in enumerate(classes)}
    if "mean_average_precision" in names:
        for c, name in enumerate(classes):
            whole, drawn = answers.average_precision
            support = int(answers.counts.support[c])
            precision = percentile_interval(whole[c], drawn[:, c], support)
            per_class[name] = replace(per_class[name], average_precision=precision)
    return SplitMetrics(scores, per_class)


def count_images(task: Scoring, labels: Labels, logits: Logits) -> list[NDArray[np.bool_]]:
    """Return whether each class is a true positive, a label and predicted for each image: bool [n, classes] each."""
    targets, decided = task.to_targets(labels), task.decide(logits)
    return [targets & decided, targets, decided]


def resample_images(task: Scoring, labels: Labels, logits: Logits) -> ClassCounts:
    """Return the counts of RESAMPLES bootstrap samples of the images: [resamples, classes] each."""
    counts = count_images(task, labels, logits)
    return ClassCounts(
        *(np.concatenate([part @ count for part in iterate_bootstrap_weights(len(labels))]) for count in counts)
    )


def resample_confusion(matrix: Counts) -> ClassCounts:
    """Return the same from a confusion matrix int64 [classes, classes], whose cells are drawn: [resamples, classes]."""
    classes, n = len(matrix), int(matrix.sum())
    true, guess = np.nonzero(matrix)
    correct, support, predicted = (np.zeros((RESAMPLES, classes), np.int64) for _ in range(3))
    if n:
        drawn = np.random.default_rng(0).multinomial(n, matrix[true, guess] / n, RESAMPLES)
        _add_by(true, drawn, support)
        _add_by(guess, drawn, predicted)
        _add_by(true[true == guess], drawn[:, true == guess], correct)
    return ClassCounts(correct, support, predicted)


def confusion(labels: NDArray[np.int32], logits: Logits) -> Counts:
    """Compute the confusion matrix.

    Args:
        labels: True classes, int32 [n].
        logits: Logits, float32 [n, classes].

    Returns:
        Number of images by true class (row) and predicted class (column), int64 [classes, classes].
    """
    classes = logits.shape[1]
    cells = labels.astype(np.int64) * classes + logits.argmax(axis=1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def probabilities(logits: Logits) -> Values:
    """Compute the softmax of logits.

    Args:
        logits: Logits, float32 [n, classes].

    Returns:
        Probabilities, float64 [n, classes]; each row adds up to 1.
    """
    return np.exp(_log_softmax(logits))


def sigmoid(logits: Logits) -> Values:
    """Compute the probability of each class where images have several labels.

    Args:
        logits: Logits, float32 [n, classes].

    Returns:
        Probabilities, float64 [n, classes], each class by itself.
    """
    return np.asarray(1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -700, 700))))


def binary_cross_entropy(targets: NDArray[np.bool_], logits: Logits) -> Values:
    """Compute the binary cross-entropy of each image, as a mean over classes.

    Args:
        targets: Which classes each image has, bool [n, classes].
        logits: Logits, float32 [n, classes].

    Returns:
        The loss of each image in nats, float64 [n].
    """
    signed = np.where(targets, logits, -logits).astype(np.float64)
    return np.asarray(np.logaddexp(0, -signed).mean(axis=1))


def cross_entropy(labels: NDArray[np.int32], logits: Logits) -> Values:
    """Compute the cross-entropy of each image.

    Args:
        labels: True classes, int32 [n].
        logits: Logits, float32 [n, classes].

    Returns:
        The loss of each image in nats, float64 [n].
    """
    return np.asarray(-_log_softmax(logits)[np.arange(len(labels)), labels])


def bin_confidence(confidence: Values, correct: NDArray[np.bool_], bins: int = 10) -> list[dict[str, Any]]:
    """Return confidence against accuracy: for each bin that holds an answer its mean confidence and its accuracy.

    Args:
        confidence: The probability of each answer, float64 [answers].
        correct: Whether each is right, bool [answers].
        bins: Bins of equal width from 0 to 1.

    Returns:
        For each bin `confidence`, a number, and `accuracy`, a metric.
    """
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(confidence[which == b].mean()),
            "accuracy": proportion_interval(int(correct[which == b].sum()), int(np.sum(which == b))),
        }
        for b in np.unique(which).tolist()
    ]


def _log_softmax(logits: Logits) -> Values:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _mean_auroc(task: Scoring, labels: Labels, logits: Logits) -> float:
    """The mean over classes that have an image of the AUROC of each against all others (Hanley and McNeil 1982)."""
    targets, scores = task.to_targets(labels), task.rank_scores(logits)
    present = np.flatnonzero(targets.any(axis=0)).tolist()
    return float(np.mean([_compute_auroc(targets[:, c], scores[:, c]) for c in present]))


def _compute_auroc(positive: NDArray[np.bool_], scores: Values) -> float:
    """The share of pairs of a positive and a negative that are in the right order; one half where there is no pair."""
    _, rank, count = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2
    hits, misses = int(positive.sum()), int((~positive).sum())
    if not hits or not misses:
        return 0.5
    return float((middle[rank][positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def _compute_average_precision(targets: NDArray[np.bool_], logits: Logits) -> tuple[Values, Values]:
    """The mean precision at each image of a class, by falling logit: float64 [classes], and [resamples, classes]."""
    orders = np.argsort(-logits, axis=0, kind="stable")

    def weighed(part: Counts) -> Values:
        values = []
        for c in range(targets.shape[1]):
            ordered = part[:, orders[:, c]]
            found = ordered * targets[orders[:, c], c]
            with np.errstate(invalid="ignore", divide="ignore"):
                precision = np.nan_to_num(np.cumsum(found, axis=1) / np.cumsum(ordered, axis=1))
                values.append((found * precision).sum(axis=1) / found.sum(axis=1))
        return np.stack(values, axis=1)

    whole = weighed(np.ones((1, len(targets)), np.int64))[0]
    return whole, np.concatenate([weighed(part) for part in iterate_bootstrap_weights(len(targets))])


def _evaluate_class(answers: Evaluation, c: int) -> ClassMetrics:
    counts = answers.counts
    correct, support, predicted = int(counts.correct[c]), int(counts.support[c]), int(counts.predicted[c])
    return ClassMetrics(
        precision=proportion_interval(correct, predicted),
        recall=proportion_interval(correct, support),
        f1=percentile_interval(answers.f1[0][c], answers.f1[1][:, c], support),
        support=support,
    )


def _sum_counts(counts: Sequence[NDArray[np.bool_]]) -> ClassCounts:
    return ClassCounts(*(np.asarray(count.sum(axis=0), np.int64) for count in counts))


def _add_by(column: NDArray[np.intp], drawn: Counts, total: Counts) -> None:
    """Sum the columns of `drawn` that belong to one class into that column of `total`."""
    if not len(column):
        return
    order = np.argsort(column, kind="stable")
    names, starts = np.unique(column[order], return_index=True)
    total[:, names] = np.add.reduceat(drawn[:, order], starts, axis=1)


def _compute_f1(counts: ClassCounts) -> Values:
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * counts.correct / (counts.support + counts.predicted))


def _compute_recall(counts: ClassCounts) -> Values:
    with np.errstate(invalid="ignore"):
        return np.asarray(counts.correct / counts.support)


def _mean_over_present(values: Values, counts: ClassCounts) -> Values:
    """The mean over the classes that have an image."""
    present = counts.support > 0
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(present, values, 0).sum(axis=-1) / present.sum(axis=-1))


ACCURACY: Final = ImageMean(lambda task, labels, logits: task.is_correct(labels, logits).astype(np.float64), True)
LOG_LOSS: Final = ImageMean(lambda task, labels, logits: task.losses(labels, logits), False)
BALANCED_ACCURACY: Final = ClassMean(_compute_recall)
MACRO_F1: Final = ClassMean(_compute_f1)
MEAN_AVERAGE_PRECISION: Final = MeanAveragePrecision()
AUROC: Final = FunctionMetric(_mean_auroc)
