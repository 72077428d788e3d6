"""A head that is solved stays so under options that name no steps, and these enter what is solved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

import budwood as bw
from budwood.cli.main import run
from budwood.config.losses import BinaryCrossEntropy, CrossEntropy
from budwood.config.optimizers import LBFGS
from budwood.config.option_rules import explain_steps
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import Sampling, resolve
from budwood.errors import RecipeError
from budwood.evaluation.label_task import task_of
from budwood.progress import Silent
from budwood.training.head_solver import PENALTIES, Objective, solve
from budwood.training.linear_head import HeadSplit, LinearHead, compute_head_logits, find_best_row
from budwood.training.losses import draw_epoch_order, make_loss
from budwood.training.trainer import fit_head

CLASSES, FEATURES, STRENGTH = 3, 6, 0.01
SHARES = (0.7, 0.2, 0.1)


def _split(seed: int, n: int = 300) -> HeadSplit:
    """Classes that overlap, of which one is rare."""
    random = np.random.default_rng(seed)
    labels = random.choice(CLASSES, n, p=SHARES).astype(np.int32)
    centres = np.random.default_rng(9).normal(0, 0.8, (CLASSES, FEATURES))
    return HeadSplit((centres[labels] + random.normal(0, 1.2, (n, FEATURES))).astype(np.float32), labels)


TRAIN, VAL = _split(0), _split(1)
CENTRE = TRAIN.outputs.mean(axis=0)
SCALE = float(np.sqrt(TRAIN.outputs.var(axis=0).mean()))


def _answers(head: LinearHead) -> Any:
    answers = compute_head_logits(VAL.outputs, head.weight, head.bias)
    return answers - answers.mean(axis=1, keepdims=True)


def _solve(**options: Any) -> LinearHead:
    recipe = Recipe(regularisation=STRENGTH, **options)
    assert recipe.optimizer == "lbfgs"
    return fit_head(TRAIN, VAL, CLASSES, resolve(recipe, False, 32), Silent())


def _scikit_learn(weights: Any) -> Any:
    inputs = (TRAIN.outputs - CENTRE) / SCALE
    reference = LogisticRegression(C=1 / (STRENGTH * weights.sum()), tol=1e-8, max_iter=5000)
    reference.fit(inputs, TRAIN.labels, sample_weight=weights)
    answers = reference.decision_function((VAL.outputs - CENTRE) / SCALE)
    return answers - answers.mean(axis=1, keepdims=True)


def _torch(**options: Any) -> Any:
    """The same problem solved by torch, with the loss that a training in steps has."""
    inputs = torch.from_numpy((TRAIN.outputs - CENTRE) / SCALE).double()
    targets = F.one_hot(torch.from_numpy(TRAIN.labels).long(), CLASSES).double()
    loss_of = make_loss(CrossEntropy(**options), TRAIN.labels, CLASSES, "cpu")
    weight = torch.zeros(CLASSES, FEATURES, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(inputs @ weight.T + bias, targets) + STRENGTH / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    answers = (torch.from_numpy((VAL.outputs - CENTRE) / SCALE).double() @ weight.T + bias).detach().numpy()
    return answers - answers.mean(axis=1, keepdims=True)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"time": "60s"},
        {"select": "macro_f1"},
        {"loss": "cross_entropy"},
        {"class_weights": True},
        {"balanced_sampling": True},
        {"label_smoothing": 0.1},
        {"logit_adjustment": 1.0},
    ],
)
def test_an_option_of_another_matter_leaves_the_head_solved(options: dict[str, Any]) -> None:
    recipe = Recipe(**options)
    assert (recipe.optimizer, recipe.epochs, recipe.batch, recipe.head_alone) == ("lbfgs", None, None, True)
    assert set(recipe.table()) - set(Recipe().table()) == set(options), "nothing else is written"
    assert Recipe(**recipe.table()) == recipe
    assert not explain_steps(options)


@pytest.mark.parametrize(
    ("options", "optimizer"),
    [
        ({"epochs": 3}, "adam"),
        ({"lr": 0.1, "seed": 1}, "adam"),
        ({"batch": 8, "time": 60}, "adam"),
        ({"schedule": "cosine"}, "adam"),
        ({"flip": 0.5}, "adam"),
        ({"ema": 0.9}, "adam"),
        ({"clip": 1.0}, "adam"),
        ({"loss": "focal"}, "adam"),
        ({"select": "last"}, "adam"),
        ({"momentum": 0.5, "class_weights": True}, "sgd"),
    ],
)
def test_options_of_steps_choose_steps(options: dict[str, Any], optimizer: str) -> None:
    assert Recipe(**options).optimizer == optimizer


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"epochs": 3}, "--epochs trains the head in steps with Adam; without it the head is solved exactly."),
        (
            {"layer_decay": 1, "seed": 2, "weight_decay": 0, "nesterov": True, "momentum": 0.9},
            "--weight-decay and --nesterov and --momentum train the head in steps with SGD; "
            "without them the head is solved exactly.",
        ),
        ({"select": "last"}, "--select trains the head in steps with Adam; without it the head is solved exactly."),
        ({"epochs": 3, "optimizer": "adam"}, ""),
        ({"epochs": 3, "freeze": "none"}, ""),
        ({"epochs": 3, "head": "mlp:8"}, ""),
        ({}, ""),
    ],
)
def test_why_a_head_is_trained_in_steps_is_said(options: dict[str, Any], sentence: str) -> None:
    assert explain_steps(options) == sentence


def test_the_terminal_says_why_a_head_is_trained_in_steps(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", str(photos), "--size", "32", "--epochs", "3", "--dry-run"]) == 0
    assert "--epochs trains the head in steps with Adam; without it" in capsys.readouterr().err


def test_another_loss_than_that_of_the_solver_is_refused() -> None:
    with pytest.raises(RecipeError, match="loss: lbfgs minimises cross_entropy, found 'focal'; use adam or another"):
        Recipe(optimizer="lbfgs", loss="focal")
    assert Recipe(seed=3).seed == 3


def test_several_labels_are_trained_in_steps_with_the_options_of_solving() -> None:
    resolved = resolve(Recipe(seed=3, time=60), True, 32)
    assert (resolved.steps.name, resolved.seed, resolved.limits.seconds) == ("adam", 3, 60)
    assert resolve(Recipe(class_weights=True), True, 32).loss == BinaryCrossEntropy(class_weights=True)


def test_class_weights_are_scikit_learns_sample_weights() -> None:
    counts = np.bincount(TRAIN.labels)
    expected = _scikit_learn((len(TRAIN.labels) / (CLASSES * counts))[TRAIN.labels])
    assert np.abs(_answers(_solve(class_weights=True)) - expected).max() < 0.02
    assert np.abs(_answers(_solve()) - expected).max() > 0.3, "without them it is another head"


def test_balanced_sampling_is_solved_in_its_mean() -> None:
    random = np.random.default_rng(0)
    sampling = Sampling(batch=10, accumulate=1, balanced=True)
    drawn = np.concatenate([draw_epoch_order(sampling, TRAIN.labels, random) for _ in range(3000)])
    expected = _scikit_learn(np.bincount(drawn, minlength=len(TRAIN.labels)) / 3000)
    assert np.abs(_answers(_solve(balanced_sampling=True)) - expected).max() < 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.2},
        {"logit_adjustment": 1.0},
        {"label_smoothing": 0.1, "class_weights": True, "logit_adjustment": 0.5},
    ],
)
def test_the_objective_is_that_of_a_training_in_steps(options: dict[str, Any]) -> None:
    expected = _torch(**options)
    assert np.abs(_answers(_solve(**options)) - expected).max() < 0.02
    assert np.abs(_answers(_solve()) - expected).max() > 0.1, "without them it is another head"


@pytest.mark.parametrize("select", ["accuracy", "macro_f1", "balanced_accuracy"])
def test_the_penalty_is_chosen_by_the_metric_that_is_asked_for(select: str) -> None:
    head = solve(TRAIN, VAL, CLASSES, LBFGS(), Silent(), Objective(select=select))
    scores = [row[f"val_{select}"] for row in head.history]
    kept = [row["regularisation"] for row in head.history].index(head.selected["regularisation"])
    assert scores[kept] == max(scores) > scores[0]
    task = task_of((), CLASSES)
    logits = compute_head_logits(VAL.outputs, head.weight, head.bias)
    assert scores[kept] == pytest.approx(task.score(select, VAL.labels, logits))


def test_among_equal_scores_the_lowest_loss_is_kept() -> None:
    rows = [{"val_loss": loss, "val_accuracy": score} for loss, score in ((0.9, 0.5), (0.7, 0.8), (0.6, 0.8))]
    assert find_best_row(rows, "accuracy") == 2
    assert find_best_row([{"val_loss": 0.5, "val_accuracy": 0.1}, *rows]) == 0


class _Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("left", [0.0, -5.0])
def test_time_ends_the_path_of_penalties_with_a_head(left: float) -> None:
    progress = _Notes()
    head = solve(TRAIN, VAL, CLASSES, LBFGS(), progress, left=lambda: left)
    assert len(head.history) == 1
    assert head.selected == {"regularisation": PENALTIES[0]}
    assert progress.notes == ["The time limit was reached after 1 strength of the penalty, of at most 15."]


def test_time_enough_changes_nothing() -> None:
    progress = _Notes()
    limited = solve(TRAIN, VAL, CLASSES, LBFGS(), progress, left=lambda: 900.0)
    free = solve(TRAIN, VAL, CLASSES, LBFGS(), progress)
    assert np.array_equal(limited.weight, free.weight)
    assert progress.notes == []


def test_seed_and_time_are_recorded_and_the_solution_is_the_same(photos: Path, tmp_path: Path) -> None:
    data = bw.scan(photos)
    plain, seeded = (
        bw.train(data, bw.Recipe(size=32, **options), out=tmp_path) for options in ({}, {"seed": 7, "time": "10m"})
    )
    assert (seeded.record.recipe.seed, seeded.record.recipe.time) == (7, 600)
    assert seeded.record.selected == plain.record.selected
    assert np.array_equal(seeded.predictions("val").logits, plain.predictions("val").logits)
    _, cost = bw.estimate_cost(data, bw.Recipe(size=32, time="60s"), out=tmp_path)
    assert (cost.epochs, cost.steps) == (0, 0)
