"""Losses, sampling and blending against torch, scikit-learn and calculations by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import ResolvedRecipe, resolve
from budwood.evaluation.label_task import SingleLabel
from budwood.evaluation.logits import probabilities
from budwood.training.losses import blend, draw_epoch_order, make_loss

LABELS = np.array([0] * 12 + [1] * 6 + [2] * 2, np.int32)
RANDOM = np.random.default_rng(0)
LOGITS = torch.from_numpy(RANDOM.normal(0, 2, (20, 3)).astype(np.float32))
TARGET = torch.from_numpy(LABELS).long()
SHARES = F.one_hot(TARGET, 3).float()
WEIGHT = torch.tensor(compute_class_weight("balanced", classes=np.arange(3), y=LABELS), dtype=torch.float32)


def _resolved(**options: Any) -> ResolvedRecipe:
    return resolve(Recipe(freeze="none", **options), False, 32)


def _loss(**options: Any) -> float:
    return float(make_loss(_resolved(**options).loss, LABELS, 3, "cpu")(LOGITS, SHARES))


def test_cross_entropy_weights_and_adjustment_are_those_of_torch_and_of_the_papers() -> None:
    assert _loss() == pytest.approx(float(F.cross_entropy(LOGITS, TARGET)), rel=1e-6)
    assert _loss(class_weights=True) == pytest.approx(float(F.cross_entropy(LOGITS, TARGET, WEIGHT)), rel=1e-6)
    smooth = float(F.cross_entropy(LOGITS, TARGET, label_smoothing=0.2))
    assert _loss(label_smoothing=0.2) == pytest.approx(smooth, rel=1e-6)
    both = float(F.cross_entropy(LOGITS, TARGET, WEIGHT, label_smoothing=0.2))
    assert _loss(label_smoothing=0.2, class_weights=True) == pytest.approx(both, rel=1e-6)
    prior = torch.log(torch.tensor([0.6, 0.3, 0.1]))
    assert _loss(logit_adjustment=1.5) == pytest.approx(float(F.cross_entropy(LOGITS + 1.5 * prior, TARGET)), rel=1e-6)


def test_the_focal_loss_by_hand() -> None:
    chance = LOGITS.softmax(1)[torch.arange(20), TARGET]
    by_hand = float((-((1 - chance) ** 1.5) * chance.log()).mean())
    assert _loss(loss="focal", focal_gamma=1.5) == pytest.approx(by_hand, rel=1e-5)
    assert _loss(loss="focal", focal_gamma=0) == pytest.approx(_loss(), rel=1e-6)


def test_blended_targets_give_the_blended_loss() -> None:
    others = SHARES.flip(0)
    recipe = _resolved(mixup=0.4)
    found = float(make_loss(recipe.loss, LABELS, 3, "cpu")(LOGITS, 0.3 * SHARES + 0.7 * others))
    expected = 0.3 * F.cross_entropy(LOGITS, TARGET) + 0.7 * F.cross_entropy(LOGITS, TARGET.flip(0))
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_balanced_sampling_draws_classes_alike() -> None:
    recipe = _resolved(balanced_sampling=True)
    random = np.random.default_rng(1)
    drawn = np.bincount(LABELS[np.concatenate([draw_epoch_order(recipe.sampling, LABELS, random) for _ in range(300)])])
    assert drawn.sum() == 6000
    assert drawn == pytest.approx([2000] * 3, rel=0.07)
    plain = draw_epoch_order(_resolved().sampling, LABELS, random)
    assert sorted(plain.tolist()) == list(range(20))


def test_mixup_blends_pairs_by_one_share() -> None:
    inputs = torch.rand(6, 4, 4, 3)
    shares = torch.eye(6)
    mixed, targets = blend(_resolved(mixup=0.4).mixing, inputs, shares, np.random.default_rng(2))
    random = np.random.default_rng(2)
    share = random.beta(0.4, 0.4)
    others = random.permutation(6)
    assert torch.allclose(mixed, share * inputs + (1 - share) * inputs[others])
    assert torch.allclose(targets, share * shares + (1 - share) * shares[others])


def test_cutmix_puts_in_a_box_and_weighs_by_its_area() -> None:
    shares = torch.eye(6)
    inputs = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 16, 12, 3)
    recipe = _resolved(cutmix=1.0)
    seen = []
    for seed in range(20):
        mixed, targets = blend(recipe.mixing, inputs, shares, np.random.default_rng(seed))
        assert torch.allclose(targets.sum(1), torch.ones(6))
        for row in range(6):
            kept = float((mixed[row, :, :, 0] == row).float().mean())
            own = float(targets[row, row])
            assert own == pytest.approx(kept if own < 1 else 1, abs=1e-6)
        seen.append(float(targets[0, 0]))
    assert 0.2 < float(np.mean(seen)) < 0.9


def test_mixup_and_cutmix_together_take_turns() -> None:
    inputs = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 8, 8, 3)
    recipe = _resolved(mixup=1.0, cutmix=1.0)
    cuts = 0
    for seed in range(40):
        mixed, _ = blend(recipe.mixing, inputs, torch.eye(4), np.random.default_rng(seed))
        cuts += bool((mixed == mixed.round()).all())
    assert 8 < cuts < 32


def test_nothing_is_blended_when_nothing_is_asked() -> None:
    inputs, shares = torch.rand(3, 4), torch.eye(3)
    same, targets = blend(_resolved().mixing, inputs, shares, np.random.default_rng(0))
    assert same is inputs
    assert targets is shares


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scores_are_those_of_scikit_learn(classes: int) -> None:
    random = np.random.default_rng(classes)
    labels = random.integers(0, classes, 200).astype(np.int32)
    logits = np.round(random.normal(0, 1, (200, classes)) + np.eye(classes)[labels], 1).astype(np.float32)
    chance, called = probabilities(logits), logits.argmax(1)
    score = SingleLabel(classes).score
    assert score("accuracy", labels, logits) == (called == labels).mean()
    assert score("balanced_accuracy", labels, logits) == pytest.approx(balanced_accuracy_score(labels, called))
    assert score("macro_f1", labels, logits) == pytest.approx(f1_score(labels, called, average="macro"))
    areas = [roc_auc_score(labels == c, chance[:, c]) for c in range(classes)]
    assert score("auroc", labels, logits) == pytest.approx(float(np.mean(areas)))


def test_an_auroc_without_pairs_is_one_half() -> None:
    assert (
        SingleLabel(2).score("auroc", np.zeros(4, np.int32), np.random.default_rng(0).random((4, 2)).astype(np.float32))
        == 0.5
    )
