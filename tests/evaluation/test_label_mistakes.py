"""Mistakes of labels, counted by hand and with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, multilabel_confusion_matrix

from budwood.evaluation.decisions import DecisionRule
from budwood.evaluation.label_mistakes import MistakenTogether, count_label_mistakes, list_mistaken_together
from budwood.evaluation.label_task import MultiLabel
from budwood.evaluation.metrics import evaluate

NAMES = ("a", "b", "c")
TARGETS = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1]], bool)
CALLED = np.array([[0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 1]], bool)


def test_mistakes_of_each_label_are_scikit_learns() -> None:
    found = {one.name: one for one in count_label_mistakes(TARGETS, CALLED, NAMES, (0.5, 0.4, 0.3))}
    for name, ((_, added), (missed, _)) in zip(NAMES, multilabel_confusion_matrix(TARGETS, CALLED), strict=True):
        assert (found[name].missed, found[name].added) == (missed, added)
        assert found[name].having + found[name].lacking == len(TARGETS)
    assert found["b"].threshold == 0.4
    assert next(iter(found)) == "a", "most mistakes first"


def test_what_is_missed_where_another_is_called() -> None:
    found = list_mistaken_together(TARGETS, CALLED, NAMES, 20)
    assert found == (MistakenTogether("a", "b", 1, 2), MistakenTogether("a", "c", 1, 2))
    assert list_mistaken_together(TARGETS, CALLED, NAMES, 1) == found[:1]
    assert list_mistaken_together(TARGETS, TARGETS, NAMES, 20) == ()


def test_shifted_logits_decide_what_the_thresholds_decide_and_rank_as_before() -> None:
    random = np.random.default_rng(5)
    targets = random.random((200, 3)) < [0.5, 0.2, 0.1]
    logits = (random.normal(size=(200, 3)) + 1.5 * targets - 1).astype(np.float32)
    rule = DecisionRule(MultiLabel(3), np.array([1.5, 1.0, 0.7]), np.array([0.3, 0.8, 0.0]))
    called = rule.decide(rule.to_probabilities(logits))
    shifted = rule.shift_logits(logits)
    assert np.array_equal(MultiLabel(3).decide(shifted), called)
    found = evaluate(MultiLabel(3), targets, shifted, NAMES, ("mean_average_precision", "macro_f1"))
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(targets, called, average="macro"))
    expected = average_precision_score(targets, logits, average="macro")
    assert found["mean_average_precision"]["value"] == pytest.approx(expected)
