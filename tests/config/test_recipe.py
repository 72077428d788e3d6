"""A recipe refuses what does not apply, names every mistake at once, and survives a round trip."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from budwood.config.recipe import Recipe, load_recipe, parse_settings
from budwood.errors import RecipeError


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "adam"},
        {"optimizer": "sgd", "epochs": 3, "lr": 0.5},
        {"model": "vgg-small", "blocks": [[8, 8], [16]], "conv_norm": False},
        {"model": "vgg-small", "blocks": [[8, 8], [16]], "conv_norm": "between"},
        {"freeze": "none", "probe": True, "wise_ft": "auto", "trained_norm": "eval"},
        {"freeze": "upto:blocks.2", "wise_ft": "0.3"},
        {"freeze": ["features.*", "classifier.1.*"], "weights": 'a "quoted" path.pth', "dropout": 0.25},
    ],
)
def test_round_trip(options: dict[str, object]) -> None:
    recipe = Recipe(**options)
    assert Recipe(**tomllib.loads(recipe.toml())) == recipe


def test_defaults_are_filled_in_by_optimizer() -> None:
    assert Recipe().table()["regularisation"] == "auto"
    assert Recipe(optimizer="sgd").momentum == 0.9
    assert Recipe(optimizer="adam").momentum is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"epochs": 5, "optimizer": "lbfgs"},
            "epochs: optimizer 'lbfgs' does not use it; it is an option of optimizers that train in steps",
        ),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum: optimizer 'adam' does not use it"),
        ({"optimizer": "adam", "regularisation": 1.0}, "regularisation: optimizer 'adam' does not use it"),
        (
            {"optimizer": "sgd", "momentum": 1.2},
            "momentum: expected under 1, or the steps grow without bound, found 1.2",
        ),
        ({"optimizer": "adm"}, "optimizer: input should be 'lbfgs', 'sgd', 'adam', .*found 'adm'"),
        ({"optimizer": "adam", "lr": float("nan")}, "lr: .*found nan"),
        ({"optimizer": "adam", "batch": 0}, "batch: input should be greater than or equal to 1, found 0"),
        ({"regularisation": -1}, "regularisation: .*found -1"),
        ({"size": 4}, "size: input should be greater than or equal to 8, found 4"),
        ({"freeze": "none", "optimizer": "lbfgs"}, "lbfgs solves a linear head on a frozen trunk, not a network with"),
        ({"head": "mlp:64", "optimizer": "lbfgs"}, "not the head 'mlp:64'; use adam or another"),
        ({"dropout": 0.5, "optimizer": "lbfgs"}, "not dropout; use adam or another"),
        ({"batch_norm": True, "optimizer": "lbfgs"}, "not batch norm; use adam or another"),
        ({"init": "orthogonal", "optimizer": "lbfgs"}, "not new weights that start orthogonal; use adam or another"),
        ({"head": "mlp"}, "head: expected linear, or mlp: and widths, as mlp:1024 or mlp:4096,4096, found 'mlp'"),
        ({"head": "mlp:0"}, "head: expected linear, or mlp: and widths"),
        ({"dropout": 1.0}, "dropout: input should be less than 1, found 1.0"),
        ({"interpolation": "lanczos"}, "interpolation: input should be 'bicubic', 'bilinear', 'nearest' or 'area'"),
        ({"channels": 4}, "channels: input should be 1 or 3, found 4"),
        ({"pool": "sum"}, "pool: input should be 'own', 'avg'"),
        ({"widths": [8]}, "widths: 'tf_efficientnet_lite0' does not use it; it is an option of cnn"),
        ({"model": "mlp", "conv_norm": True}, "conv_norm: 'mlp' does not use it; it is an option of cnn and vgg-small"),
        (
            {"model": "cnn", "widths": [8, 8], "kernels": [3, 3, 3]},
            "kernels: expected one number, or 2, one for each of widths; found 3",
        ),
        (
            {"model": "vgg-small", "conv_norm": "inside"},
            "1 mistake: conv_norm: expected true, false or between",
        ),
        (
            {"model": "cnn", "conv_norm": "between"},
            "conv_norm: between is for the blocks of vgg-small",
        ),
        ({"model": "cnn", "widths": "eight"}, "widths: input should be"),
        ({"optimizer": "adam", "layer_decay": 0.5}, "layer_decay: not used when only a linear head is trained"),
        (
            {"freeze": "none", "select": "last", "patience": 3},
            "patience: cannot be used with select = last, as it stops by the epoch that is best",
        ),
        (
            {"optimizer": "lbfgs", "select": "last"},
            "select: lbfgs solves the head and has no last epoch; name a metric, or use adam or another optimizer",
        ),
        (
            {"frozen_norm": "train", "optimizer": "lbfgs"},
            "optimizer: lbfgs solves a linear head on a frozen trunk, not frozen layers whose batch norm changes in "
            "every step .frozen_norm = train.; use adam or another",
        ),
        ({"freeze": "none", "frozen_norm": "train"}, "frozen_norm: expected something frozen, as freeze = trunk"),
        ({"size_start": 128}, "size_start: expected freeze = none, as frozen layers are computed once, at one size"),
        ({"freeze": "none", "size_start": 4}, "size_start: input should be greater than or equal to 8, found 4"),
        ({"frozen_norm": "moving"}, "frozen_norm: input should be 'eval' or 'train', found 'moving'"),
        ({"freeze": "none", "select": "first"}, "select: expected one of loss, last, accuracy, .*found 'first'"),
        ({"freeze": "none", "layer_decay": 2}, "layer_decay: input should be less than or equal to 1, found 2"),
        (
            {"layer_decay": 0.5},
            "layer_decay: not used when only a linear head is trained; it needs more",
        ),
        (
            {"probe": True},
            "probe: nothing but the head is trained with freeze = trunk; expected more, as freeze",
        ),
        ({"probe": True, "dropout": 0.5}, "probe: nothing but the head is trained with freeze = trunk"),
        ({"wise_ft": 0, "epochs": 2}, "wise_ft: nothing but the head is trained with freeze = trunk"),
        ({"trained_norm": "eval", "epochs": 2}, "trained_norm: nothing but the head is trained with freeze = trunk"),
        (
            {"probe": True, "phases": [{"freeze": "trunk", "epochs": 1, "lr": 0.1}] * 2},
            "probe: nothing but the head is trained with freeze = trunk",
        ),
        (
            {"probe": True, "freeze": "none", "optimizer": "lbfgs"},
            "optimizer: lbfgs solves a linear head on a frozen trunk, not a network with freeze = 'none'",
        ),
        (
            {"probe": True, "freeze": "none", "head": "mlp:64"},
            "probe: solves a linear head, and cannot be used with the head 'mlp:64'",
        ),
        (
            {"probe": True, "freeze": "none", "batch_norm": True},
            "probe: solves a linear head, and cannot be used with batch norm in the head .batch_norm.",
        ),
        (
            {"probe": True, "freeze": "none", "init": "orthogonal"},
            "probe: solves a linear head, and cannot be used with init = orthogonal, which would be replaced",
        ),
        (
            {"probe": True, "weights": "none"},
            "probe: expected weights, as imagenet or run:ID; a head that is solved on a random trunk is no",
        ),
        (
            {"wise_ft": "auto", "model": "cnn"},
            "wise_ft: expected weights, as imagenet or run:ID; it averages what was trained with the weights that",
        ),
        (
            {"trained_norm": "eval", "weights": "none"},
            "trained_norm: expected weights, as imagenet or run:ID; a random network has no statistics of batch norm",
        ),
        (
            {"wise_ft": 0.5, "phases": [{"freeze": f, "epochs": 1, "lr": 0.1} for f in ("trunk", "none")]},
            "wise_ft: cannot be used with phases, of which each starts from the one before",
        ),
        ({"freeze": "none", "wise_ft": 1.5}, "wise_ft: input should be less than or equal to 1, found 1.5"),
        ({"freeze": "none", "trained_norm": "batch"}, "trained_norm: input should be 'eval' or 'train', found 'batch'"),
    ],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe(**options)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(lr=3, head="no", sise=200, size=1, optimizer="lbfgs")
    assert caught.value.message.startswith("The recipe has 5 mistakes:")
    assert all(name in caught.value.message for name in ("lr:", "head:", "sise:", "size:", "optimizer:"))
    assert "Did you mean 'size'?" in caught.value.hint


def test_what_is_trained_decides_the_optimizer_and_its_rate() -> None:
    assert Recipe().optimizer == "lbfgs"
    assert Recipe(head="mlp:8").optimizer == "adam"
    assert (Recipe(head="mlp:8").lr, Recipe(freeze="none").lr) == (1e-3, 3e-4)
    assert Recipe(freeze="none", weights="none").lr == 1e-3
    assert (Recipe(epochs=3).optimizer, Recipe(momentum=0.5).optimizer) == ("adam", "sgd")
    own = Recipe(model="cnn")
    assert (own.weights, own.freeze, own.optimizer) == ("none", "none", "adam")
    assert Recipe(weights="none").freeze == "none"
    assert Recipe(weights="none", freeze="trunk").optimizer == "lbfgs"


def test_options_of_small_networks_can_be_short() -> None:
    recipe = Recipe(model="cnn", widths="8,8,16", kernels=3, strides="[2]", pools="1,1,4", fc="32")
    assert (recipe.widths, recipe.kernels, recipe.strides) == ((8, 8, 16), (3, 3, 3), (2, 2, 2))
    assert (recipe.pools, recipe.fc) == ((1, 1, 4), (32,))
    assert Recipe(model="cnn").kernels == (5, 3, 3, 3)
    assert Recipe(model="vgg-small", blocks="[8,8],[16]").blocks == ((8, 8), (16,))
    assert Recipe(model="vgg-small", conv_norm="false").conv_norm is False
    assert Recipe(model="vgg-small", conv_norm="between").conv_norm == "between"


def test_settings_are_read_as_toml_else_as_words() -> None:
    assert parse_settings(["lr=0.1", "model=resnet18", 'head="linear"', "epochs = 3"]) == {
        "lr": 0.1,
        "model": "resnet18",
        "head": "linear",
        "epochs": 3,
    }
    with pytest.raises(RecipeError, match="-s lr: expected KEY=VALUE"):
        parse_settings(["lr"])


def test_recipe_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe(tmp_path / "r.toml")
    (tmp_path / "r.toml").write_text("lr = = 3")
    with pytest.raises(RecipeError, match="cannot be read as TOML"):
        load_recipe(tmp_path / "r.toml")
    (tmp_path / "r.toml").write_text(Recipe(optimizer="adam").toml())
    assert Recipe(**load_recipe(tmp_path / "r.toml")) == Recipe(optimizer="adam")


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().size = 300
