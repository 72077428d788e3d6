"""Every figure agrees with an independent implementation, and intervals cover at their rate."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from budwood.evaluation.label_task import SingleLabel
from budwood.evaluation.logits import confusion, cross_entropy, probabilities


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    labels = random.integers(0, 5, 400).astype(np.int32)
    logits = random.normal(0, 1, (400, 5)).astype(np.float32)
    logits[np.arange(400), labels] += 1.2
    return labels, logits


NAMES = tuple("abcde")


def test_figures_agree_with_scikit_learn(answers: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = answers
    guess = logits.argmax(1)
    scores = SingleLabel(5).evaluate(labels, logits, NAMES)
    assert np.array_equal(confusion(labels, logits), reference.confusion_matrix(labels, guess))
    assert scores["accuracy"]["value"] == pytest.approx(reference.accuracy_score(labels, guess))
    assert scores["balanced_accuracy"]["value"] == pytest.approx(reference.balanced_accuracy_score(labels, guess))
    assert scores["macro_f1"]["value"] == pytest.approx(reference.f1_score(labels, guess, average="macro"))
    assert scores["log_loss"]["value"] == pytest.approx(reference.log_loss(labels, probabilities(logits)), rel=1e-6)
    table = reference.precision_recall_fscore_support(labels, guess)
    for c, name in enumerate(NAMES):
        mine = scores["per_class"][name]
        values = [mine["precision"]["value"], mine["recall"]["value"], mine["f1"]["value"], mine["support"]]
        assert values == pytest.approx([column[c] for column in table])


def test_intervals_cover_at_their_rate() -> None:
    random, covered = np.random.default_rng(5), {"accuracy": 0, "balanced_accuracy": 0, "macro_f1": 0}
    chance = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.05, 0.05, 0.9]])
    joint = chance * np.array([0.5, 0.3, 0.2])[:, None]
    f1 = [2 * joint[c, c] / (joint[c].sum() + joint[:, c].sum()) for c in range(3)]
    recall = float(np.trace(chance)) / 3
    truth = {"accuracy": float(np.trace(joint)), "balanced_accuracy": recall, "macro_f1": float(np.mean(f1))}
    rounds = 300
    for _ in range(rounds):
        cells = random.choice(9, 200, p=joint.ravel())
        logits = np.eye(3, dtype=np.float32)[cells % 3]
        scores = SingleLabel(3).evaluate((cells // 3).astype(np.int32), logits, ("a", "b", "c"))
        for name in covered:
            covered[name] += scores[name]["low"] <= truth[name] <= scores[name]["high"]
    assert all(0.91 <= count / rounds <= 0.99 for count in covered.values()), covered


def test_a_class_without_images_is_undefined_and_left_out_of_the_means() -> None:
    labels = np.array([0, 0, 1, 1], np.int32)
    logits = np.array([[2, 0, 0], [2, 0, 0], [0, 2, 0], [2, 0, 0]], np.float32)
    scores = SingleLabel(3).evaluate(labels, logits, ("a", "b", "c"))
    assert scores["per_class"]["c"]["recall"] == {"value": None, "low": None, "high": None, "n": 0}
    assert scores["per_class"]["c"]["f1"]["value"] is None
    assert scores["balanced_accuracy"]["value"] == pytest.approx(0.75)
    assert scores["macro_f1"]["value"] == pytest.approx((0.8 + 2 / 3) / 2)


def test_no_images_at_all_is_undefined_not_an_error() -> None:
    scores = SingleLabel(2).evaluate(np.empty(0, np.int32), np.empty((0, 2), np.float32), ("a", "b"))
    assert scores["accuracy"]["value"] is None
    assert scores["macro_f1"]["value"] is None


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4]], np.float32)
    assert cross_entropy(np.array([1], np.int32), logits)[0] == pytest.approx(2e4)
    assert probabilities(logits).tolist() == [[1.0, 0.0]]


def test_a_thousand_classes_fit_in_memory() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 1000, 3000).astype(np.int32)
    logits = random.normal(0, 1, (3000, 1000)).astype(np.float32)
    assert SingleLabel(1000).evaluate(labels, logits, tuple(map(str, range(1000))))["accuracy"]["n"] == 3000


def test_reliability_bins_hold_every_image_once(answers: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = answers
    bins = SingleLabel(5).bin_reliability(labels, logits)
    assert sum(item.accuracy.n for item in bins) == len(labels)
    right = sum((item.accuracy.value or 0) * item.accuracy.n for item in bins)
    assert right == pytest.approx((logits.argmax(1) == labels).sum())
