"""Heads: the solved one agrees with scikit-learn, the descended one with torch's own optimizers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from budwood.config.optimizers import LBFGS
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import DivergedError, diverged
from budwood.progress import Silent
from budwood.training.head_solver import PATIENCE, PENALTIES, solve, standardize
from budwood.training.linear_head import HeadSplit, compute_head_logits, descend

CLASSES, FEATURES = 4, 12


def _split(seed: int, n: int = 240) -> HeadSplit:
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, n).astype(np.int32)
    centres = np.random.default_rng(9).normal(0, 1.0, (CLASSES, FEATURES))
    outputs = centres[labels] + random.normal(0, 1.2, (n, FEATURES))
    return HeadSplit((outputs * 3 + 5).astype(np.float32), labels)


TRAIN, VAL = _split(0), _split(1)


@pytest.mark.parametrize("strength", [1.0, 0.01, 0.0001])
def test_the_solution_is_scikit_learns(strength: float) -> None:
    head = solve(TRAIN, VAL, CLASSES, LBFGS(strength), Silent())
    scale = np.sqrt(TRAIN.outputs.var(axis=0).mean())
    inputs = (TRAIN.outputs - TRAIN.outputs.mean(axis=0)) / scale
    reference = LogisticRegression(C=1 / (strength * len(inputs)), tol=1e-8, max_iter=5000).fit(inputs, TRAIN.labels)
    expected = reference.decision_function((VAL.outputs - TRAIN.outputs.mean(axis=0)) / scale)
    found = compute_head_logits(VAL.outputs, head.weight, head.bias)
    centred = [values - values.mean(axis=1, keepdims=True) for values in (found, expected)]
    assert np.abs(centred[0] - centred[1]).max() < 0.02
    assert head.selected == {"regularisation": strength}


def test_the_strength_is_chosen_by_validation_loss_and_the_path_ends() -> None:
    head = solve(TRAIN, VAL, CLASSES, LBFGS(), Silent())
    losses = [row["val_loss"] for row in head.history]
    best = int(np.argmin(losses))
    assert head.selected["regularisation"] == PENALTIES[best]
    assert len(losses) == min(best + PATIENCE + 1, len(PENALTIES))
    mine = torch.nn.functional.cross_entropy(
        torch.from_numpy(compute_head_logits(VAL.outputs, head.weight, head.bias)), torch.from_numpy(VAL.labels).long()
    )
    assert float(mine) == pytest.approx(losses[best], rel=1e-4)


BLOCKS = (2, 7, 3)


def _in_blocks(split: HeadSplit) -> HeadSplit:
    """The same features, of which those of the second block are small and those of the third large."""
    return HeadSplit(split.outputs * np.repeat(np.array([1, 0.01, 50], np.float32), BLOCKS), split.labels, BLOCKS)


def test_every_block_of_features_gets_the_same_total_variance() -> None:
    outputs = _in_blocks(TRAIN).outputs
    standard = standardize(outputs, BLOCKS)
    totals = [part.var(axis=0).sum() for part in np.split(standard.inputs, np.cumsum(BLOCKS)[:-1], axis=1)]
    np.testing.assert_allclose(totals, FEATURES / len(BLOCKS), rtol=1e-4)
    within = standard.inputs.std(axis=0)[2:9] / outputs.std(axis=0)[2:9]
    np.testing.assert_allclose(within, within[0], rtol=1e-4)  # a block keeps its proportions
    np.testing.assert_allclose(standard.inputs * standard.scale + standard.centre, outputs, rtol=1e-3, atol=1e-3)


def test_a_block_that_is_constant_stays_zero() -> None:
    outputs = TRAIN.outputs.copy()
    outputs[:, :2] = 7
    inputs = standardize(outputs, BLOCKS).inputs
    assert not inputs[:, :2].any()
    assert np.isfinite(inputs).all()


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_the_solution_on_blocks_is_scikit_learns_on_the_scaled_features(strength: float) -> None:
    train, val = _in_blocks(TRAIN), _in_blocks(VAL)
    head = solve(train, val, CLASSES, LBFGS(strength), Silent())
    centre = train.outputs.mean(axis=0)
    totals = [part.var(axis=0).sum() for part in np.split(train.outputs.astype(float), np.cumsum(BLOCKS)[:-1], axis=1)]
    scale = np.repeat(np.sqrt(np.array(totals) * len(BLOCKS) / FEATURES), BLOCKS)
    inputs = (train.outputs - centre) / scale
    reference = LogisticRegression(C=1 / (strength * len(inputs)), tol=1e-8, max_iter=5000).fit(inputs, train.labels)
    expected = reference.decision_function((val.outputs - centre) / scale)
    found = compute_head_logits(val.outputs, head.weight, head.bias)
    centred = [values - values.mean(axis=1, keepdims=True) for values in (found, expected)]
    assert np.abs(centred[0] - centred[1]).max() < 0.02


@pytest.mark.parametrize("blocks", [(), (FEATURES,)])
def test_without_several_blocks_one_scale_serves_all_as_it_always_did(blocks: tuple[int, ...]) -> None:
    standard = standardize(TRAIN.outputs, blocks)
    scale = float(np.sqrt(TRAIN.outputs.var(axis=0).mean() + 1e-12))
    assert standard.scale == scale
    assert np.array_equal(standard.inputs, (TRAIN.outputs - TRAIN.outputs.mean(axis=0)) / np.float32(scale))
    solution = np.random.default_rng(3).normal(size=(CLASSES, FEATURES + 1))
    weight, bias = standard.fold_back(solution)
    assert np.array_equal(weight, (solution[:, :-1] / scale).astype(np.float32))
    shift = solution[:, :-1] @ TRAIN.outputs.mean(axis=0) / scale
    assert np.array_equal(bias, (solution[:, -1] - shift).astype(np.float32))


def _reference(recipe: Recipe) -> tuple[list[torch.Tensor], list[tuple[float, float]]]:
    """The same descent by torch: a Linear layer, autograd and an optimizer object; the weights after each epoch, and
    the norms of weights and of gradients."""
    random = np.random.default_rng(recipe.seed)
    layer = torch.nn.Linear(FEATURES, CLASSES)
    bound = FEATURES**-0.5
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(random.uniform(-bound, bound, (CLASSES, FEATURES))))
        layer.bias.copy_(torch.from_numpy(random.uniform(-bound, bound, CLASSES)))
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    extra = {"momentum": recipe.momentum} if recipe.optimizer == "sgd" else {}
    extra |= {"decoupled_weight_decay": True} if recipe.decay == "decoupled" else {}
    optimizer = kinds[recipe.optimizer](layer.parameters(), recipe.lr, weight_decay=recipe.weight_decay, **extra)
    inputs, labels = torch.from_numpy(TRAIN.outputs), torch.from_numpy(TRAIN.labels).long()
    states, norms = [], []
    for _ in range(recipe.epochs or 0):
        steps = []
        for rows in torch.split(torch.from_numpy(random.permutation(len(labels))), recipe.batch or 1):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(layer(inputs[rows]), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            steps.append(
                float(torch.nn.utils.get_total_norm([p.grad for p in layer.parameters() if p.grad is not None]))
            )
            optimizer.step()
        states.append(layer.weight.detach().clone())
        norms.append(
            (float(torch.nn.utils.get_total_norm([p.detach() for p in layer.parameters()])), float(np.mean(steps)))
        )
    return states, norms


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1},
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1, "decay": "decoupled"},
        {"optimizer": "sgd", "lr": 0.003, "momentum": 0.8, "weight_decay": 0.01},
        {"optimizer": "sgd", "lr": 0.003, "momentum": 0.0},
    ],
)
def test_descent_is_torchs(options: dict[str, object]) -> None:
    recipe = Recipe(**options, epochs=6, batch=50, seed=4)
    head = descend(TRAIN, VAL, CLASSES, resolve(recipe, False, 32), Silent())
    states, norms = _reference(recipe)
    assert np.allclose(head.weight, states[int(head.selected["epoch"]) - 1].numpy(), atol=1e-5)
    assert np.allclose([(row["weight/head"], row["gradient/head"]) for row in head.history], norms, rtol=1e-3)


def test_the_epoch_with_the_lowest_validation_loss_is_kept() -> None:
    recipe = Recipe(optimizer="adam", lr=0.5, epochs=12, batch=16)
    head = descend(TRAIN, VAL, CLASSES, resolve(recipe, False, 32), Silent())
    losses = [row["val_loss"] for row in head.history]
    assert head.selected["epoch"] == int(np.argmin(losses)) + 1
    assert len(losses) == 12


def test_the_same_seed_gives_the_same_head_and_another_seed_another() -> None:
    first, second, third = (
        descend(TRAIN, VAL, CLASSES, resolve(Recipe(optimizer="adam", epochs=2, seed=seed), False, 32), Silent())
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first.weight, second.weight)
    assert not np.array_equal(first.weight, third.weight)


def test_a_loss_that_is_no_number_stops_with_the_reason() -> None:
    broken = HeadSplit(np.full_like(TRAIN.outputs, np.nan), TRAIN.labels)
    with pytest.raises(
        DivergedError, match=r"no longer a number in epoch 1, step 1, at a learning rate of 0\.01"
    ) as found:
        descend(broken, VAL, CLASSES, resolve(Recipe(optimizer="sgd"), False, 32), Silent())
    assert (found.value.message, found.value.hint) == (diverged(1, 1, 0.01).message, diverged(1, 1, 0.01).hint)


def test_the_step_at_which_the_loss_was_lost_is_that_of_the_epoch() -> None:
    recipe = Recipe(optimizer="sgd", batch=32, lr=1e38, epochs=3)
    with np.errstate(all="ignore"), pytest.raises(DivergedError, match=r"epoch 1, step [2-8], at a .* of 1e\+38"):
        descend(TRAIN, VAL, CLASSES, resolve(recipe, False, 32), Silent())
