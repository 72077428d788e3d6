"""A later run is kept where it is better and not clearly less often right; copies of one run gain nothing together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss

from budwood.evaluation.predictions import Predictions
from budwood.workflows.ladder_verdict import (
    choose_weighting,
    compute_calibrated_losses,
    judge,
    measure_accuracy,
)
from conftest import answers

Labels = NDArray[np.int32]


def make_labels(n: int, classes: int = 3) -> Labels:
    return (np.arange(n) % classes).astype(np.int32)


def make(labels: Labels, logits: NDArray[np.float32], **changes: Any) -> Predictions:
    ids = tuple(f"{number:05}" for number in range(len(labels)))
    return Predictions(ids, ids, labels, logits, **changes)


def call(labels: Labels, right: NDArray[np.bool_], sure: float = 3.0) -> Predictions:
    """Predictions that are right as told and equally sure of all."""
    called = np.where(right, labels, (labels + 1) % 3)
    return make(labels, (sure * np.eye(3)[called]).astype(np.float32))


class TestJudge:
    def test_what_is_better_is_kept(self) -> None:
        labels = make_labels(400)
        before, after = (make(labels, answers(labels, share, seed)) for share, seed in ((0.7, 0), (0.9, 1)))
        verdict = judge(before, after)
        assert verdict.kept
        assert verdict.note == "Kept: its loss on validation is better."
        assert verdict.p < 0.001
        assert verdict.gain.value == pytest.approx(after.correct.mean() - before.correct.mean())
        assert (verdict.gain.low or 0) > 0
        assert verdict.accuracy == measure_accuracy(after)

    def test_what_is_worse_is_not(self) -> None:
        labels = make_labels(400)
        verdict = judge(make(labels, answers(labels, 0.9, 1)), make(labels, answers(labels, 0.7, 0)))
        assert not verdict.kept
        assert verdict.note == "Not kept: its loss on validation is no better."

    def test_a_lower_loss_does_not_make_up_for_clearly_fewer_right(self) -> None:
        labels = make_labels(300)
        random = np.random.default_rng(0)
        after = random.random(300) < 0.85
        before = after | (random.random(300) < 0.7)
        wrong = np.where(before[:, None], 0.0, -9 * np.eye(3)[labels])  # surely wrong
        first = make(labels, (np.eye(3)[labels] * 0.3 + wrong).astype(np.float32))
        second = call(labels, after, 4.0)
        assert compute_calibrated_losses(second).mean() < compute_calibrated_losses(first).mean()
        verdict = judge(first, second)
        assert not verdict.kept
        assert verdict.note == "Not kept: it gets too many validation images wrong that the best before it gets right."

    def test_a_tie_keeps_what_there_was(self) -> None:
        labels = make_labels(100)
        one = make(labels, answers(labels, 0.8, 0))
        verdict = judge(one, one)
        assert (verdict.kept, verdict.p, verdict.gain.value) == (False, 1.0, 0.0)

    def test_two_that_make_no_mistake(self) -> None:
        labels = make_labels(50)
        unsure, sure = (call(labels, np.ones(50, bool), scale) for scale in (1.0, 20.0))
        verdict = judge(unsure, sure)
        assert verdict.gain.value == 0
        assert verdict.p == 1
        assert (verdict.gain.low, verdict.gain.high) != (None, None)

    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_of_few_images(self, n: int) -> None:
        labels = make_labels(n)
        before, after = call(labels, np.arange(n) > 0), call(labels, np.ones(n, bool))
        verdict = judge(before, after)
        assert verdict.p == 1
        assert verdict.gain.n == n
        assert verdict.kept

    def test_being_too_sure_alone_does_not_count(self) -> None:
        labels = make_labels(300)
        logits = answers(labels, 0.8, 3)
        hot, cold = make(labels, logits * 5), make(labels, logits)
        np.testing.assert_allclose(
            compute_calibrated_losses(hot).mean(), compute_calibrated_losses(cold).mean(), atol=1e-4
        )

    def test_the_loss_is_that_after_the_best_temperature(self) -> None:
        labels = make_labels(300)
        logits = answers(labels, 0.8, 3) * 4
        chances = [np.exp(logits / t) / np.exp(logits / t).sum(axis=1, keepdims=True) for t in np.linspace(1, 20, 400)]
        least = min(log_loss(labels, chance) for chance in chances)
        assert compute_calibrated_losses(make(labels, logits)).mean() == pytest.approx(least, abs=1e-4)

    def test_by_the_metric_that_was_asked_for(self) -> None:
        labels = np.r_[np.zeros(180, np.int32), np.ones(20, np.int32)]
        often, rare = np.zeros((2, 200, 2), np.float32)
        often[:, 0] = 2.0  # always the common class
        rare[np.arange(200), labels] = 1.0
        rare[:25, :] = (0.0, 1.0)  # finds the rare class, at the cost of some common ones
        before, after = make(labels, often), make(labels, rare)
        assert f1_score(labels, rare.argmax(axis=1), average="macro") > f1_score(
            labels, often.argmax(axis=1), average="macro"
        )
        verdict = judge(before, after, "macro_f1")
        assert verdict.kept
        assert verdict.gain.value < 0, "a few common ones less are worth it"
        assert verdict.note == "Kept: its macro F1 on validation is better."
        back = judge(after, before, "macro_f1")
        assert not back.kept
        assert back.note == "Not kept: its macro F1 on validation is no better."

    def test_of_several_labels_an_image_is_right_where_all_are(self) -> None:
        sets = ((), (0,), (1,), (0, 1))
        labels = (np.arange(200) % 4).astype(np.int32)
        truth = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])[labels]
        good = (4.0 * truth - 2).astype(np.float32)
        bad = good.copy()
        bad[::5, 0] *= -1
        before, after = (make(labels, logits, label_sets=sets) for logits in (bad, good))
        verdict = judge(before, after)
        assert verdict.kept
        assert verdict.gain.value == pytest.approx(0.2)
        assert not judge(after, before).kept

    def test_the_order_of_images_does_not_matter(self) -> None:
        labels = make_labels(200)
        before, after = (make(labels, answers(labels, share, seed)) for share, seed in ((0.7, 0), (0.8, 1)))
        order = np.random.default_rng(0).permutation(200)
        ids = tuple(after.ids[row] for row in order)
        turned = Predictions(ids, ids, labels[order], after.logits[order])
        assert judge(before, turned) == judge(before, after)
        assert np.array_equal(turned.in_order(before.ids).logits, after.logits)

    def test_what_is_significantly_worse_is_never_kept(self) -> None:
        random, significant = np.random.default_rng(0), 0
        for seed in range(300):
            n = int(random.integers(20, 500))
            labels = make_labels(n)
            was, now = random.uniform(0.4, 1.0, 2)
            before, after = (
                make(labels, answers(labels, share, 2 * seed + place) * random.uniform(0.3, 3))
                for place, share in enumerate((was, now))
            )
            select = ("loss", "accuracy", "macro_f1")[seed % 3]
            verdict = judge(before, after, select)
            if verdict.gain.value < 0 and verdict.p < 0.05:
                significant += 1
                assert not verdict.kept, (seed, select)
        assert significant > 50


class TestTogether:
    def test_copies_of_one_run_are_never_better(self) -> None:
        for seed in range(20):
            labels = make_labels(60 + 20 * seed)
            one = make(labels, answers(labels, 0.75, seed))
            assert not choose_weighting([one] * 3, 1)

    def test_two_that_err_independently_are(self) -> None:
        labels = make_labels(600)
        members = [make(labels, answers(labels, 0.75, seed)) for seed in (1, 2)]
        assert choose_weighting(members, 0)

    def test_a_much_worse_one_does_not_help(self) -> None:
        labels = make_labels(300)
        best, random = make(labels, answers(labels, 0.99, 1)), make(labels, answers(labels, 0.33, 2))
        assert not choose_weighting([best, random], 0)

    def test_what_is_alike_is_averaged_alike(self) -> None:
        labels = make_labels(100)
        members = [make(labels, answers(labels, 0.75, seed)) for seed in range(6)]
        assert choose_weighting(members, 0) == "equal"

    def test_what_does_harm_gets_no_weight(self) -> None:
        labels = make_labels(600)
        members = [make(labels, answers(labels, 0.75, seed)) for seed in (1, 2)]
        wrong = make(labels, answers((labels + 1) % 3, 0.99, 3))
        assert choose_weighting([*members, wrong, wrong, wrong], 0) == "validation"

    def test_too_few_images_tell_nothing(self) -> None:
        labels = make_labels(9)
        assert not choose_weighting([make(labels, answers(labels, 0.5, seed)) for seed in (1, 2)], 0)

    def test_of_several_labels(self) -> None:
        sets = ((), (0,), (1,), (0, 1))
        labels = (np.arange(400) % 4).astype(np.int32)
        truth = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])[labels]
        random = np.random.default_rng(0)
        members = [
            make(labels, (2.0 * truth - 1 + random.normal(0, 1.5, truth.shape)).astype(np.float32), label_sets=sets)
            for _ in range(2)
        ]
        assert choose_weighting(members, 0)
        assert not choose_weighting([members[0]] * 2, 0)


def test_accuracy_has_its_exact_interval() -> None:
    labels = make_labels(100)
    figure = measure_accuracy(call(labels, np.arange(100) < 90))
    assert (figure.value, figure.n) == (0.9, 100)
    assert figure.low == pytest.approx(0.8238, abs=1e-4)
    assert figure.high == pytest.approx(0.9510, abs=1e-4)
