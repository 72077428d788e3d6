"""What differs between images with one label each and images with several: one class for either, chosen once.

A data set numbers its labels. Where an image has one, the number is that of its class; where it may have several, or
none, it is that of a set of classes (`label_sets`). `LabelTask.read_labels` makes of numbers what all else here takes:
class numbers int32 [n], or bool [n, classes].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.config.label_rules import adapt_to_labels
from budwood.config.metric_registry import LAST, LOSS, METRICS, REPORTED, MetricInfo
from budwood.config.recipe import Recipe
from budwood.config.registry import is_entry_point
from budwood.data.dataset import Sets, make_membership_matrix
from budwood.evaluation.calibration import ReliabilityBin, bin_confidence, fit_label_temperatures, fit_temperature
from budwood.evaluation.ensembles import average_sigmoid, average_softmax
from budwood.evaluation.logits import binary_cross_entropy, confusion, cross_entropy, probabilities, sigmoid
from budwood.evaluation.metrics import define_metric, evaluate
from budwood.evaluation.scoring import Labels, Logits
from budwood.evaluation.split_metrics import SplitMetrics

NO_LABEL: Final = "none of them"  # of an image that has no label, in words
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelTask(ABC):
    """What images of so many `classes` are labelled with, and all that depends on it.

    `labels` are class numbers int32 [n], or bool [n, classes]; `logits` are float32 [n, classes].
    """

    classes: int

    @property
    @abstractmethod
    def multilabel(self) -> bool:
        """Whether an image may have several labels, as run.json has it under `several`."""

    @property
    @abstractmethod
    def default_loss(self) -> str:
        """The loss of a recipe that names none."""

    @property
    @abstractmethod
    def accuracy_note(self) -> str:
        """What accuracy means, where that is not plain; else empty."""

    @property
    @abstractmethod
    def chance_loss(self) -> float:
        """The loss of answers that know nothing, nats."""

    @property
    def default_metric(self) -> str:
        """The metric that runs are compared by."""
        return "accuracy"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics that every run is scored by, in order."""
        return tuple(name for name in REPORTED if self._is_defined(METRICS.get(name)))

    def choose_headline(self, figures: Container[str]) -> str:
        """Return the metric that runs are compared by; accuracy, where a run of an earlier version lacks it."""
        return self.default_metric if self.default_metric in figures else "accuracy"

    def list_others(self, figures: Container[str]) -> tuple[str, ...]:
        """Return the scores that stand beside that metric."""
        names = (name for name in self.metric_names if name in figures and not METRICS.get(name).is_loss)
        return tuple(name for name in names if name != self.choose_headline(figures))

    def note_metric(self, metric: str) -> str:
        """Return what a metric means, where that is not plain; else empty."""
        return self.accuracy_note if metric == "accuracy" else ""

    @abstractmethod
    def _is_defined(self, metric: MetricInfo) -> bool:
        """Whether a metric has a meaning for such labels."""

    @abstractmethod
    def read_labels(self, numbers: NDArray[np.int32]) -> Labels:
        """Return what a data set's label numbers, int32 [n], stand for."""

    @abstractmethod
    def to_targets(self, labels: Labels) -> Flags:
        """Return which classes each image has: bool [n, classes]."""

    @abstractmethod
    def decide(self, logits: Logits) -> Flags:
        """Return which classes are predicted for each image: bool [n, classes]."""

    @abstractmethod
    def is_correct(self, labels: Labels, logits: Logits) -> Flags:
        """Return whether each image is correct, in every class where it has several: bool [n]."""

    @abstractmethod
    def losses(self, labels: Labels, logits: Logits) -> Floats:
        """Return the loss of each image, nats: float64 [n]."""

    @abstractmethod
    def to_probabilities(self, logits: Logits) -> Floats:
        """Return the probability of each class: float64 [n, classes]."""

    @abstractmethod
    def true_probabilities(self, labels: Labels, logits: Logits) -> Floats:
        """Return the probability of what is true: of each image float64 [n], or of each label float64 [n, classes]."""

    @abstractmethod
    def average_logits(self, logits: Sequence[Logits], weights: Floats) -> Logits:
        """Return the logits of the mean of probabilities, weighted by float64 [members]: float32 [n, classes]."""

    @abstractmethod
    def rank_scores(self, logits: Logits) -> Floats:
        """Return the scores that rank the images for each class: float64 [n, classes]."""

    @abstractmethod
    def mistake_losses(self, logits: Logits) -> Floats:
        """Return the loss that each image would have if it were called wrongly, nats: float64 [n]."""

    @abstractmethod
    def judge_confidence(self, labels: Labels, logits: Logits) -> tuple[Floats, Flags]:
        """Return the confidence of each answer, float64 [answers], and whether it is right, bool [answers].

        An answer is an image's likeliest class, or, where images have several labels, each label of each image.
        """

    @abstractmethod
    def fit_temperatures(self, labels: Labels, logits: Logits) -> Floats:
        """Return the temperature of all classes, float64 [1], or of each label, float64 [classes]."""

    def bin_reliability(self, labels: Labels, logits: Logits) -> list[ReliabilityBin]:
        """Return confidence against accuracy in bins, as `bin_confidence` makes them."""
        return bin_confidence(*self.judge_confidence(labels, logits))

    @abstractmethod
    def count_confusion(self, labels: Labels, logits: Logits) -> list[list[int]]:
        """Return images by true (row) and predicted class (column); empty where an image may have several."""

    @abstractmethod
    def name_label(self, number: int, classes: Sequence[str]) -> str:
        """Return a label number of the data set in words."""

    @abstractmethod
    def call_image(self, chances: Floats, classes: Sequence[str]) -> tuple[str, float]:
        """Return what an image is called, from its probabilities float64 [classes], and how probable that is."""

    def score(self, metric: str, labels: Labels, logits: Logits) -> float:
        """Return one metric's value; `metric` may be `package.module:name`."""
        return define_metric(metric).score(self, labels, logits)

    def evaluate(
        self, labels: Labels, logits: Logits, classes: Sequence[str], select: str = LOSS, more: Sequence[str] = ()
    ) -> SplitMetrics:
        """Return every metric of one split with its interval.

        Args:
            labels: True labels: class numbers int32 [n], or bool [n, classes].
            logits: Logits, float32 [n, classes].
            classes: The names of the classes.
            select: The recipe's metric; where it is the user's own it is given, too.
            more: Metrics of the user's own.

        Returns:
            The metrics by name, and those of each class.
        """
        own = dict.fromkeys((*((select,) if is_entry_point(select) else ()), *more))
        return evaluate(self, labels, logits, classes, (*self.metric_names, *own))

    def adapt_recipe(self, recipe: Recipe) -> Recipe:
        """Return the recipe as it applies to such labels.

        Args:
            recipe: A recipe for any labels.

        Raises:
            RecipeError: An option has no meaning for such labels, or the metric to select by cannot be imported.
        """
        adapted = adapt_to_labels(recipe, self.multilabel)
        selected = adapted.select or LOSS
        for name in (*(() if selected in (LOSS, LAST) else (selected,)), *(adapted.metrics or ())):
            define_metric(name)
        return adapted


@dataclass(frozen=True)
class SingleLabel(LabelTask):
    """Every image is of one class; it is called the likeliest."""

    @property
    def multilabel(self) -> bool:
        """Return False."""
        return False

    @property
    def default_loss(self) -> str:
        """Return the name of the cross-entropy."""
        return "cross_entropy"

    @property
    def accuracy_note(self) -> str:
        """Return an empty note, as accuracy has its plain meaning."""
        return ""

    @property
    def chance_loss(self) -> float:
        """Return the cross-entropy of equal probabilities, nats."""
        return math.log(self.classes)

    def _is_defined(self, metric: MetricInfo) -> bool:
        return metric.single_label

    def read_labels(self, numbers: NDArray[np.int32]) -> Labels:
        """Return the numbers, which are class numbers already."""
        return numbers

    def to_targets(self, labels: Labels) -> Flags:
        """Return the one-hot labels, bool [n, classes]."""
        return np.asarray(labels[:, None] == np.arange(self.classes))

    def decide(self, logits: Logits) -> Flags:
        """Return the likeliest class, one-hot: bool [n, classes]."""
        return np.asarray(logits.argmax(axis=1)[:, None] == np.arange(self.classes))

    def is_correct(self, labels: Labels, logits: Logits) -> Flags:
        """Return whether the likeliest class is the true one: bool [n]."""
        return np.asarray(logits.argmax(axis=1) == labels)

    def losses(self, labels: Labels, logits: Logits) -> Floats:
        """Return the cross-entropy of each image, nats: float64 [n]."""
        return cross_entropy(labels, logits)

    def to_probabilities(self, logits: Logits) -> Floats:
        """Return the softmax of the logits: float64 [n, classes]."""
        return probabilities(logits)

    def true_probabilities(self, labels: Labels, logits: Logits) -> Floats:
        """Return the probability of each image's class: float64 [n]."""
        return np.asarray(probabilities(logits)[np.arange(len(labels)), labels])

    def average_logits(self, logits: Sequence[Logits], weights: Floats) -> Logits:
        """Return the logarithms of the weighted mean of the softmax: float32 [n, classes]."""
        return average_softmax(logits, weights)

    def rank_scores(self, logits: Logits) -> Floats:
        """Return the softmax of the logits, as images are ranked by it: float64 [n, classes]."""
        return probabilities(logits)

    def mistake_losses(self, logits: Logits) -> Floats:
        """Return the cross-entropy of each image if it were of the second likeliest class, nats: float64 [n]."""
        second = logits.argsort(axis=1)[:, -2 if self.classes > 1 else -1]
        return cross_entropy(second.astype(np.int32), logits)

    def judge_confidence(self, labels: Labels, logits: Logits) -> tuple[Floats, Flags]:
        """Return the likeliest class's probability, and whether it is the true one, each [n]."""
        return np.asarray(probabilities(logits).max(axis=1)), self.is_correct(labels, logits)

    def fit_temperatures(self, labels: Labels, logits: Logits) -> Floats:
        """Return the temperature of the softmax, float64 [1]."""
        return np.array([fit_temperature(labels, logits)])

    def count_confusion(self, labels: Labels, logits: Logits) -> list[list[int]]:
        """Return the confusion matrix as lists."""
        counts: list[list[int]] = confusion(labels, logits).tolist()
        return counts

    def name_label(self, number: int, classes: Sequence[str]) -> str:
        """Return the name of the class."""
        return classes[number]

    def call_image(self, chances: Floats, classes: Sequence[str]) -> tuple[str, float]:
        """Return the name of the likeliest class and its probability."""
        best = int(chances.argmax())
        return classes[best], float(chances[best])


@dataclass(frozen=True)
class MultiLabel(LabelTask):
    """An image has several labels or none; it is called every class whose probability is over one half.

    `label_sets` are the sets of classes that the data set's label numbers stand for; only `read_labels` and
    `name_label` need them.
    """

    label_sets: Sets = ()

    @property
    def multilabel(self) -> bool:
        """Return True."""
        return True

    @property
    def default_loss(self) -> str:
        """Return the name of the binary cross-entropy."""
        return "binary_cross_entropy"

    @property
    def default_metric(self) -> str:
        """Return the name of mean average precision: images of which every label is right may be very few."""
        return "mean_average_precision"

    @property
    def accuracy_note(self) -> str:
        """Return that an image counts as correct only if all its labels are."""
        return "all labels of an image correct"

    @property
    def chance_loss(self) -> float:
        """Return the binary cross-entropy of probabilities of one half, nats."""
        return math.log(2)

    def _is_defined(self, metric: MetricInfo) -> bool:
        return metric.multilabel

    def read_labels(self, numbers: NDArray[np.int32]) -> Labels:
        """Return which classes are in each image's label set: bool [n, classes]."""
        return np.asarray(make_membership_matrix(self.label_sets, self.classes)[numbers])

    def to_targets(self, labels: Labels) -> Flags:
        """Return the labels, which are targets already."""
        return labels

    def decide(self, logits: Logits) -> Flags:
        """Return the classes whose probability is over one half: bool [n, classes]."""
        return np.asarray(logits > 0)

    def is_correct(self, labels: Labels, logits: Logits) -> Flags:
        """Return whether every class of each image is correct: bool [n]."""
        return np.asarray((self.decide(logits) == labels).all(axis=1))

    def losses(self, labels: Labels, logits: Logits) -> Floats:
        """Return the binary cross-entropy of each image, nats: float64 [n]."""
        return binary_cross_entropy(labels, logits)

    def to_probabilities(self, logits: Logits) -> Floats:
        """Return the sigmoid of the logits: float64 [n, classes]."""
        return sigmoid(logits)

    def true_probabilities(self, labels: Labels, logits: Logits) -> Floats:
        """Return the probability of each label, of those that an image has and those that it has not, [n, classes]."""
        return sigmoid(np.where(labels, logits, -logits))

    def average_logits(self, logits: Sequence[Logits], weights: Floats) -> Logits:
        """Return the logarithms of the odds of the weighted mean of the sigmoid: float32 [n, classes]."""
        return average_sigmoid(logits, weights)

    def rank_scores(self, logits: Logits) -> Floats:
        """Return the logits, as images are ranked by them: float64 [n, classes]."""
        return logits.astype(np.float64)

    def mistake_losses(self, logits: Logits) -> Floats:
        """Return the binary cross-entropy of each image if every class were called wrongly, nats: float64 [n]."""
        return binary_cross_entropy(~self.decide(logits), logits)

    def judge_confidence(self, labels: Labels, logits: Logits) -> tuple[Floats, Flags]:
        """Return each label's probability, and whether the image has it, each [n x classes]."""
        return sigmoid(logits).ravel(), labels.ravel()

    def fit_temperatures(self, labels: Labels, logits: Logits) -> Floats:
        """Return the temperature of each label's sigmoid, float64 [classes]."""
        return fit_label_temperatures(labels, logits)

    def count_confusion(self, labels: Labels, logits: Logits) -> list[list[int]]:
        """Return an empty list, as an image may be of several classes."""
        return []

    def name_label(self, number: int, classes: Sequence[str]) -> str:
        """Return the names of the set's classes, or that there are none."""
        return ", ".join(classes[one] for one in self.label_sets[number]) or NO_LABEL

    def call_image(self, chances: Floats, classes: Sequence[str]) -> tuple[str, float]:
        """Return the names of the classes over one half, and the probability of exactly this set."""
        called = chances > 0.5
        names = ", ".join(name for name, one in zip(classes, called.tolist(), strict=True) if one)
        return names or NO_LABEL, float(np.where(called, chances, 1 - chances).prod())


def task_of(label_sets: Sets, classes: int) -> LabelTask:
    """Return the task of a data set.

    Args:
        label_sets: The sets of classes that its label numbers stand for; empty where an image has one label.
        classes: How many classes there are.
    """
    return MultiLabel(classes, label_sets) if label_sets else SingleLabel(classes)
