"""Options that narrow the search stay as they are given in all that it tries; no option of a recipe changes another."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from budwood.config.ladder_options import NARROWING, explain_recipe, lay_over, list_recipe_options
from budwood.config.recipe import Recipe
from budwood.errors import RecipeError
from budwood.networks.local_trunks import LocalTrunk
from budwood.workflows.ladder_rules import FrozenCandidate, make_tuning_options

GIVEN: dict[str, Any] = {  # a value for every option that narrows the search, none of which is what stands in for it
    "model": "resnet18",
    "weights": "weights.pth",
    "cut": "layer3",
    "taps": ("layer1", "layer2"),
    "pool": "max",
    "channels": 1,
    "size": 96,
    "resize": "squash",
    "interpolation": "bilinear",
    "tta": "flip",
    "class_weights": True,
    "balanced_sampling": True,
    "logit_adjustment": 0.5,
    "label_smoothing": 0.05,
    "select": "macro_f1",
    "metrics": ("mine:spread",),
    "seed": 7,
}
EVERY: dict[str, Any] = {  # and for options that ask for one recipe
    **GIVEN,
    "freeze": "upto:layer2",
    "head": "mlp:16",
    "dropout": 0.2,
    "batch_norm": True,
    "init": "orthogonal",
    "optimizer": "sgd",
    "epochs": 3,
    "batch": 16,
    "accumulate": 2,
    "lr": 0.02,
    "momentum": 0.5,
    "weight_decay": 0.01,
    "layer_decay": 0.8,
    "decay_norms": False,
    "clip": 1.0,
    "ema": 0.9,
    "schedule": "cosine",
    "warmup": 1.0,
    "focal_gamma": 1.0,
    "loss": "focal",
    "mixup": 0.2,
    "cutmix": 0.3,
    "flip": 0.5,
    "flip_vertical": 0.4,
    "rotation": 10.0,
    "zoom": 0.2,
    "brightness": 0.1,
    "callbacks": ("mine:stop",),
    "patience": 2,
    "precision": "float32",
    "time": 60.0,
    "regularisation": 0.01,
    "frozen_norm": "train",
    "trained_norm": "eval",
    "probe": True,
    "wise_ft": 0.5,
    "views": 2,
}
CANDIDATES: tuple[dict[str, Any], ...] = (
    FrozenCandidate(LocalTrunk("tf_efficientnet_lite0", "timm", 224, 0.75, 1), 288, "crop", 1.0).options,
    {"model": "resnet18", "size": 224, "resize": "crop", "taps": ("layer2",)},
    {
        "model": "resnet18",
        "size": 224,
        "resize": "crop",
        **make_tuning_options("upto:layer1", 500, 4, 2, ("h",), multilabel=False),
    },
    {
        "model": "resnet18",
        "size": 224,
        "resize": "crop",
        **make_tuning_options("none", 500, 4, 0, (), multilabel=False),
    },
)


def test_every_option_that_narrows_the_search_is_tried_here() -> None:
    assert set(NARROWING) == {*GIVEN, "time"}


@pytest.mark.parametrize(("one", "other"), list(combinations(GIVEN, 2)))
def test_no_option_that_narrows_the_search_changes_another(one: str, other: str) -> None:
    given = {one: GIVEN[one], other: GIVEN[other]}
    assert not list_recipe_options(given)
    for candidate in CANDIDATES:
        recipe = Recipe(**lay_over(candidate, given))
        assert (getattr(recipe, one), getattr(recipe, other)) == (GIVEN[one], GIVEN[other])


def test_no_option_of_a_recipe_changes_another() -> None:
    kept = 0
    for one, other in combinations(EVERY, 2):
        try:
            recipe = Recipe(**{one: EVERY[one], other: EVERY[other]})
        except RecipeError:  # what does not go together is refused, and said
            continue
        assert (getattr(recipe, one), getattr(recipe, other)) == (EVERY[one], EVERY[other])
        kept += 1
    assert kept > len(EVERY) * 8


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, []),
        ({"time": 60.0, "model": "resnet18", "size": 96}, []),
        ({"epochs": 3}, ["epochs"]),
        ({"size": 64, "optimizer": "adam", "lr": 0.1}, ["optimizer", "lr"]),
        ({"model": "cnn"}, ["model"]),
        ({"weights": "none"}, ["weights"]),
        ({"weights": "run:first"}, ["weights"]),
        ({"select": "last"}, ["select"]),
    ],
)
def test_options_that_say_how_to_train_ask_for_one_recipe(given: dict[str, Any], named: list[str]) -> None:
    assert list_recipe_options(given) == named
    assert bool(explain_recipe(named)) == bool(named)


def test_the_time_limits_the_search_and_not_what_it_tries() -> None:
    assert "time" not in lay_over({"model": "resnet18"}, {"time": 60.0, "seed": 1})


def test_what_asks_for_one_recipe_is_said() -> None:
    said = "--lr, --epochs say how to train, so this one recipe is trained. Without them, several are tried."
    assert explain_recipe(["lr", "epochs"]) == said
