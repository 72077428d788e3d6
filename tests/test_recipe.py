"""A recipe refuses what does not apply, names every mistake at once, and survives a round trip."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from budwood.errors import RecipeError
from budwood.recipe import Recipe, load_recipe, parse_settings


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam"}, {"optimizer": "sgd", "epochs": 3, "lr": 0.5}])
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
        ({"epochs": 5}, "epochs: optimizer 'lbfgs' does not use it; it uses regularisation"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum: optimizer 'adam' does not use it"),
        ({"optimizer": "adam", "regularisation": 1.0}, "regularisation: optimizer 'adam' does not use it"),
        (
            {"optimizer": "sgd", "momentum": 1.2},
            "momentum: expected under 1, or the steps grow without bound, found 1.2",
        ),
        ({"optimizer": "adm"}, "optimizer: input should be 'lbfgs', 'adam' or 'sgd', found 'adm'"),
        ({"optimizer": "adam", "lr": float("nan")}, "lr: .*found nan"),
        ({"optimizer": "adam", "batch": 0}, "batch: input should be greater than or equal to 1, found 0"),
        ({"regularisation": -1}, "regularisation: .*found -1"),
        ({"freeze": "none"}, "freeze: input should be 'trunk', found 'none'"),
        ({"size": 8}, "size: input should be greater than or equal to 32, found 8"),
    ],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe(**options)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(lr=3, freeze="no", sise=200, size=1)
    assert caught.value.message.startswith("The recipe has 4 mistakes:")
    assert all(name in caught.value.message for name in ("lr:", "freeze:", "sise:", "size:"))
    assert "Did you mean 'size'?" in caught.value.hint


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
