"""How good predictions are, with intervals: the definitions of the metrics, and all of them for one split.

What differs between images with one label and images with several is asked of a `Scoring`: `label_task` has two.
`intervals` has the 95 % intervals, `class_means` those of means over classes; what is neither has percentiles of
resampled images (`resampling`). An undefined value is None. `metric_registry` has the names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.config.metric_registry import METRICS, find_metric
from budwood.config.own_objects import make_failure
from budwood.config.registry import import_entry, make_entry
from budwood.errors import BudwoodError, RecipeError
from budwood.evaluation.class_counts import (
    compute_f1,
    compute_recall,
    count_images,
    mean_over_present,
    sum_counts,
)
from budwood.evaluation.class_means import (
    ClassFigures,
    class_mean_interval,
    f1_figures,
    recall_figures,
    variance_ratio,
)
from budwood.evaluation.intervals import (
    TAIL,
    Metric,
    Values,
    bounded_mean_interval,
    iterate_bootstrap_weights,
    percentile_interval,
    proportion_interval,
)
from budwood.evaluation.resampling import FEWEST, sample_with_added
from budwood.evaluation.scoring import ClassCounts, Labels, Logits, Scoring
from budwood.evaluation.split_metrics import ClassMetrics, SplitMetrics

PART: Final = 1024  # images at a time


class Evaluation:
    """The answers to one split: what several metrics need is computed once."""

    def __init__(self, task: Scoring, labels: Labels, logits: Logits) -> None:
        self.task, self.labels, self.logits = task, labels, logits

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def counts(self) -> ClassCounts:
        """Images by class, [classes] each."""
        return sum_counts(count_images(self.task, self.labels, self.logits))

    @cached_property
    def average_precision(self) -> tuple[Values, Values, Values]:
        """The average precision of each class, float64 [classes], and of samples with an image added.

        The image that is added is of every class; in the first samples it is ranked last, in the second first:
        float64 [resamples, classes] each.
        """
        targets = self.task.to_targets(self.labels)
        return _compute_average_precision(targets, self.logits), *_resample_with_added(targets, self.logits)


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
    """A mean over images of what each adds, float64 [n]: of 0s and 1s, or of losses where it `is_loss`."""

    values: Callable[[Scoring, Labels, Logits], Values]
    is_loss: bool = False

    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return the mean over the images."""
        return float(self.values(task, labels, logits).mean())

    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the mean with the interval of a proportion, or else of losses."""
        values = self.values(answers.task, answers.labels, answers.logits)
        if not self.is_loss:
            return proportion_interval(int(values.sum()), len(values))
        return bounded_mean_interval(values, 0.0, self.worst(answers.task, answers.labels, answers.logits))

    def worst(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return the most that one image more is thought to add.

        Of a proportion that is 1. A loss has no bound: it is what a wrong image costs on average, or the largest loss
        that there is. Without it a few images that are all right would seem to rule out a costly mistake.
        """
        if not self.is_loss or not len(labels):
            return 1.0
        return float(max(self.values(task, labels, logits).max(), task.mistake_losses(logits).mean()))


@dataclass(frozen=True)
class ClassMean(ResampledMetric):
    """A mean, over the classes that have an image, of recall, or of F1 where it `weighs_calls`."""

    weighs_calls: bool

    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return the mean over the classes that have an image."""
        return float(self._mean(sum_counts(count_images(task, labels, logits))))

    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the mean with the interval that those of the classes combine to."""
        counts = answers.counts
        present = np.flatnonzero(counts.support)
        if not len(present):
            return Metric(None, None, None, len(answers))
        correct, support, predicted = (
            count[present].astype(np.float64) for count in (counts.correct, counts.support, counts.predicted)
        )
        figures = f1_figures(correct, support, predicted) if self.weighs_calls else recall_figures(correct, support)
        concerned = 1 + self.weighs_calls if answers.labels.ndim == 1 else len(present)
        parts = self._iterate_influences(answers, figures.value, present)
        ratio = variance_ratio(parts, figures.n, min(len(present), concerned))
        return class_mean_interval(figures, ratio, len(answers))

    def _iterate_influences(self, answers: Evaluation, value: Values, present: NDArray[np.intp]) -> Iterator[Values]:
        """What each image adds to the figure of each class that is present, in parts of the images."""
        share, calls = 1 + self.weighs_calls, int(self.weighs_calls)
        total = answers.counts.support[present] + calls * answers.counts.predicted[present]
        for start in range(0, len(answers), PART):
            rows = slice(start, start + PART)
            counted = count_images(answers.task, answers.labels[rows], answers.logits[rows])
            correct, support, predicted = (count[:, present].astype(np.float64) for count in counted)
            yield (share * correct - value * (support + calls * predicted)) / total

    def resample(self, task: Scoring, labels: Labels, answers: Sequence[Logits]) -> tuple[Values, Values]:
        """Return the means of several networks, and those of shared bootstrap samples."""
        counts = [count_images(task, labels, logits) for logits in answers]
        stacked = [np.concatenate(count, axis=1).astype(np.float32) for count in counts]  # exact in float32
        drawn = [
            [self._mean(ClassCounts(*np.split((weights @ one).astype(np.int64), 3, axis=1))) for one in stacked]
            for part in iterate_bootstrap_weights(len(labels))
            for weights in [part.astype(np.float32)]
        ]
        values = [float(self._mean(sum_counts(count))) for count in counts]
        return np.array(values), np.concatenate([np.stack(part, axis=1) for part in drawn])

    def _mean(self, counts: ClassCounts) -> Values:
        by_class = compute_f1(counts) if self.weighs_calls else compute_recall(counts)
        return mean_over_present(by_class, counts.support)


@dataclass(frozen=True)
class MeanAveragePrecision(ResampledMetric):
    """The mean over the classes that have an image of the mean precision at each of its images, by falling logit."""

    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return the mean average precision."""
        targets = task.to_targets(labels)
        return float(self._mean(_compute_average_precision(targets, logits), targets.sum(axis=0)))

    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the mean average precision with the interval that those of the classes combine to."""
        present = np.flatnonzero(answers.counts.support)
        if not len(present):
            return Metric(None, None, None, len(answers))
        value, worse, better = (part[..., present] for part in answers.average_precision)
        ends = (np.nanquantile(worse, TAIL, axis=0), np.nanquantile(better, 1 - TAIL, axis=0))
        support = answers.counts.support[present].astype(np.float64)
        figures = ClassFigures(value, np.minimum(value, ends[0]), np.maximum(value, ends[1]), support)
        spread = np.nan_to_num(worse - np.nanmean(worse, axis=0))
        return class_mean_interval(
            figures, variance_ratio([spread / len(spread) ** 0.5], support, len(present)), len(answers)
        )

    def resample(self, task: Scoring, labels: Labels, answers: Sequence[Logits]) -> tuple[Values, Values]:
        """Return the mean average precision of several networks, and that of shared bootstrap samples."""
        targets = task.to_targets(labels)
        support = np.concatenate([part @ targets for part in iterate_bootstrap_weights(len(targets))])
        whole = [_compute_average_precision(targets, logits) for logits in answers]
        spread = [
            np.concatenate(list(_weigh_precision(targets, logits, iterate_bootstrap_weights(len(targets)))))
            for logits in answers
        ]
        values = [float(self._mean(one, targets.sum(axis=0))) for one in whole]
        return np.array(values), np.stack([self._mean(one, support) for one in spread], axis=1)

    def _mean(self, precision: Values, support: NDArray[Any]) -> Values:
        return mean_over_present(np.nan_to_num(precision), support)


@dataclass(frozen=True)
class FunctionMetric(ResampledMetric):
    """Any function of labels and logits; its interval is that of bootstrap samples of the images, one after another.

    Of fewer than FEWEST images there is none: nothing is known of the function, so nothing can be promised.
    """

    function: Callable[[Scoring, Labels, Logits], float]
    name: str = ""  # of a user's own

    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return what the function gives; raises `RecipeError` where a user's own fails."""
        try:
            return float(self.function(task, labels, logits))
        except Exception as error:  # a user's function can fail in any way
            if not self.name or isinstance(error, BudwoodError | MemoryError):
                raise
            raise make_failure(error, self.name, "metric") from error

    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the value with its bootstrap percentile interval; undefined where there is no image."""
        n, task = len(answers), answers.task
        if n == 0:
            return proportion_interval(0, 0)
        value = self.score(task, answers.labels, answers.logits)
        if n < FEWEST:
            return Metric(value, None, None, n)
        samples = sample_with_added(answers.labels, task.decide(answers.logits))
        drawn = [self._score_sample(task, labels, answers.logits[rows]) for rows, labels in samples]
        return percentile_interval(value, np.split(np.array(drawn, np.float64), 2), n)

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
            return float(self.function(task, labels, logits))
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
    definition = import_entry(find_metric(name).definition, "metric") if name in METRICS else make_entry(name, "metric")
    if isinstance(definition, MetricDefinition):
        return definition
    if not callable(definition):
        raise RecipeError(
            f"metric: {name} is no function, found {type(definition).__name__}.",
            "A metric is a function of labels and logits that gives a float.",
        )
    return FunctionMetric(lambda task, labels, logits: definition(labels, logits), name)


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
        value, worse, better = answers.average_precision
        for c, name in enumerate(classes):
            support = int(answers.counts.support[c])
            precision = percentile_interval(float(value[c]), [worse[:, c], better[:, c]], support)
            per_class[name] = replace(per_class[name], average_precision=precision)
    return SplitMetrics(scores, per_class)


def _evaluate_class(answers: Evaluation, c: int) -> ClassMetrics:
    counts = answers.counts
    correct, support, predicted = int(counts.correct[c]), int(counts.support[c]), int(counts.predicted[c])
    f1 = Metric(None, None, None, support)
    if support:
        ends = f1_figures(*(np.array([float(count)]) for count in (correct, support, predicted)))
        f1 = Metric(float(ends.value[0]), float(ends.low[0]), float(ends.high[0]), support)
    return ClassMetrics(proportion_interval(correct, predicted), proportion_interval(correct, support), f1, support)


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


def _compute_average_precision(targets: NDArray[np.bool_], logits: Logits) -> Values:
    """The mean precision at each image of a class, by falling logit: float64 [classes]; NaN without an image."""
    return np.asarray(next(_weigh_precision(targets, logits, [np.ones((1, len(targets)), np.int64)]))[0])


def _resample_with_added(targets: NDArray[np.bool_], logits: Logits) -> tuple[Values, Values]:
    """The same of samples of the images and one of every class, ranked last or first: [resamples, classes] each."""
    weights = list(iterate_bootstrap_weights(len(targets) + 1))
    every = np.concatenate([targets, np.ones((1, targets.shape[1]), np.bool_)])
    made = []
    for part, extreme in ((weights[::2], -np.inf), (weights[1::2], np.inf)):
        scores = np.concatenate([logits, np.full((1, logits.shape[1]), extreme, logits.dtype)])
        made.append(np.concatenate(list(_weigh_precision(every, scores, part))))
    return made[0], made[1]


def _weigh_precision(
    targets: NDArray[np.bool_], logits: Logits, parts: Iterable[NDArray[np.int64]]
) -> Iterator[Values]:
    """The average precision of images that are counted so often each: [rows of a part, classes] for each part."""
    orders = np.argsort(-logits, axis=0, kind="stable")
    for part in parts:
        values = []
        for c in range(targets.shape[1]):
            ordered = part[:, orders[:, c]]
            found = ordered * targets[orders[:, c], c]
            with np.errstate(invalid="ignore", divide="ignore"):
                precision = np.nan_to_num(np.cumsum(found, axis=1) / np.cumsum(ordered, axis=1))
                values.append((found * precision).sum(axis=1) / found.sum(axis=1))
        yield np.stack(values, axis=1)


ACCURACY: Final = ImageMean(lambda task, labels, logits: task.is_correct(labels, logits).astype(np.float64))
LOG_LOSS: Final = ImageMean(lambda task, labels, logits: task.losses(labels, logits), is_loss=True)
BALANCED_ACCURACY: Final = ClassMean(weighs_calls=False)
MACRO_F1: Final = ClassMean(weighs_calls=True)
MEAN_AVERAGE_PRECISION: Final = MeanAveragePrecision()
AUROC: Final = FunctionMetric(_mean_auroc)
