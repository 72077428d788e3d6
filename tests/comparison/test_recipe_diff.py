"""What differs between recipes is told in as few words as tell them apart."""

from __future__ import annotations

from typing import Any

import pytest

from budwood.comparison.recipe_diff import (
    describe_options,
    drop_defaults,
    fill_defaults,
    find_differing,
    find_varying,
    label_rows,
    make_distinct,
    normalize_options,
)
from budwood.config.recipe import Recipe


def _tables(*recipes: dict[str, Any]) -> list[dict[str, Any]]:
    return [normalize_options(Recipe(**recipe).table()) for recipe in recipes]


def test_options_that_do_not_apply_are_not_told() -> None:
    solved, stepped = find_varying(_tables({}, {"optimizer": "adam"}))
    assert solved == {"optimizer": "lbfgs"}
    assert stepped == {"optimizer": "adam"}


def test_options_that_change_nothing_are_not_told() -> None:
    one, other = find_varying(_tables({"optimizer": "adam", "lr": 0.1}, {"optimizer": "sgd", "lr": 0.1}))
    assert (one, other) == ({"optimizer": "adam"}, {"optimizer": "sgd"}), "nesterov and momentum follow from sgd"


def test_an_option_that_is_not_given_is_a_value_where_it_could_be() -> None:
    one, other = find_varying(_tables({"optimizer": "adam"}, {"optimizer": "adam", "clip": 1.0}))
    assert (one, other) == ({"clip": None}, {"clip": 1.0})
    assert (describe_options(one), describe_options(other)) == ("no clip", "clip 1")


def test_seeds_are_no_difference() -> None:
    assert find_varying(_tables({"optimizer": "adam", "seed": 1}, {"optimizer": "adam", "seed": 2})) == [{}, {}]


def test_differences_from_a_base() -> None:
    base = fill_defaults({"optimizer": "adam", "clip": 1.0})
    assert base["epochs"] == 10, "what stands in is part of the base"
    table = _tables({"optimizer": "adam", "lr": 0.1, "flip": 0.5, "crop_scale": 0.8})[0]
    assert find_differing(table, base) == {"lr": 0.1, "clip": None, "flip": 0.5, "crop_scale": 0.8}
    assert find_differing(base, base) == {}
    assert fill_defaults({"momentum": 3, "lr": 1}) == {"momentum": 3, "lr": 1}, "what makes no recipe stays as it is"


@pytest.mark.parametrize(
    ("options", "long", "short"),
    [
        ({"optimizer": "adam", "lr": 0.001}, "optimizer adam, lr 0.001", "adam, lr 0.001"),
        ({"class_weights": True, "nesterov": False}, "class weights, no nesterov", "class weights, no nesterov"),
        ({"widths": [8, 16], "policy": "none"}, "widths [8, 16], policy none", "widths [8, 16], policy none"),
        ({}, "", ""),
    ],
)
def test_options_in_words(options: dict[str, Any], long: str, short: str) -> None:
    assert (describe_options(options), describe_options(options, short=True)) == (long, short)


def test_labels_leave_out_what_is_usual_and_are_all_different() -> None:
    stepped = {"optimizer": "adam", "flip": 0.0, "weight_decay": 0.0}
    options: list[dict[str, Any]] = [stepped, {"flip": 0.0}, {"flip": 0.5}, {"flip": 0.5}, {}]
    assert label_rows(options, ["a", "b", "c", "d", "e"]) == ["adam", "flip 0", "flip 0.5", "flip 0.5 (2)", "e"]
    long = label_rows([{"freeze": "x" * 100}], ["a"])[0]
    assert len(long) == 60
    assert long.endswith("…")
    assert drop_defaults({"lr": 0.001, "optimizer": "adam"}) == {"lr": 0.001, "optimizer": "adam"}, (
        "a rate is always told"
    )
    assert make_distinct(["a", "a", "b", "a"]) == ["a", "a (2)", "b", "a (3)"]
