"""A user's own optimizer, schedule, loss and transform are named in a recipe, used, and recorded with their source."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import ResolvedRecipe, own_parts, resolve
from budwood.errors import RecipeError
from budwood.training.augmentation import augment, sample_parameters
from budwood.training.cached_augmentation import make_augmentation_transform
from budwood.training.losses import make_loss
from budwood.training.schedules import compute_rate_factor
from conftest import Notes

SMALL: dict[str, Any] = {"model": "cnn", "widths": (8, 8), "fc": (16,), "size": 16, "batch": 8}
SOURCE = """
import torch

def slow(params, lr, weight_decay):
    return torch.optim.SGD(params, lr=lr, weight_decay=weight_decay)

def linear(progress):
    return 1 - progress

def squares(logits, shares):
    return ((logits.softmax(1) - shares) ** 2).sum(1)

def darker(images, generator):
    return images * torch.rand(1, generator=generator)

def nothing(*arguments, **options):
    return None

def network(classes):
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, classes))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module `own_parts_of_a_user` in the folder that is worked in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "own_parts_of_a_user.py"
    file.write_text(SOURCE)
    yield file
    sys.modules.pop("own_parts_of_a_user", None)


def named(name: str) -> str:
    return f"own_parts_of_a_user:{name}"


def resolved(**options: Any) -> ResolvedRecipe:
    return resolve(Recipe(**{"freeze": "none", **options}), False, 16)


def test_a_run_uses_them_and_records_their_source(own: Path, photos: Path, tmp_path: Path) -> None:
    options = {
        "optimizer": named("slow"),
        "schedule": named("linear"),
        "loss": named("squares"),
        "transform": named("darker"),
    }
    recipe = bw.Recipe(**SMALL, **options, epochs=2, lr=0.05)
    run = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs", cache=tmp_path / "cache")
    parts = run.record.parts
    assert {name: part.name for name, part in parts.items()} == options
    assert all(len(part.digest) == 24 for part in parts.values())
    assert run.record.recipe.table() == {**recipe.table(), "size": 16}
    assert named("slow") in (run.path / "report.html").read_text()
    rates = [row["lr"] for row in run.history]
    assert 0 < rates[1] < rates[0] < 0.05, "the rate falls from step to step"
    assert max(row["train_loss"] for row in run.history) < 2, "squares of shares are at most 2"


def test_a_run_says_which_file_it_used_and_a_resumed_one_whether_it_has_changed(
    own: Path, photos: Path, tmp_path: Path
) -> None:
    recipe = bw.Recipe(
        **{**SMALL, "model": named("network"), "widths": None, "fc": None}, loss=named("squares"), epochs=1
    )
    said, cache = Notes(), tmp_path / "cache"
    run = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs", cache=cache, progress=said)
    read = [
        f"Code of your own: {each} is read from own_parts_of_a_user.py."
        for each in (f"model {named('network')}", f"loss {named('squares')}")
    ]
    assert said.kept[:2] == read
    assert run.record.parts["loss"].file == run.record.parts["model"].file == own.name

    same = Notes()
    run = bw.resume(run, epochs=2, cache=cache, progress=same)
    assert [note for note in same.kept if "own" in note] == read
    own.write_text(SOURCE + "# changed\n")
    changed = Notes()
    bw.resume(run, epochs=3, cache=cache, progress=changed)
    warned = [note for note in changed.kept if note.startswith("Warning")]
    assert warned == [
        f"Warning: {option}: the source of {named(name)} has changed since this run was trained. The epochs before and "
        "after are of different code; start a new training to have one."
        for option, name in (("model", "network"), ("loss", "squares"))
    ]


def test_a_recipe_without_any_records_none() -> None:
    assert own_parts(Recipe()) == {}


def test_a_schedule_is_given_the_share_of_training_that_is_done(own: Path) -> None:
    schedule = resolved(schedule=named("linear"), warmup=1).schedule
    assert compute_rate_factor(schedule, 15, 5, [], 4) == pytest.approx(1 / 4)
    assert compute_rate_factor(schedule, 0, 5, [], 4) == pytest.approx(1 / 5), "warming up"
    assert compute_rate_factor(schedule, 10, 5, [], float("inf")) == 1, "the end is not known yet"


def test_a_loss_is_averaged_over_images_and_by_the_weights_of_classes(own: Path) -> None:
    logits, shares = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.eye(2)[[0, 0, 0, 0, 1, 1]]
    labels = np.array([0, 0, 0, 0, 1, 1], np.int32)
    each = ((logits.softmax(1) - shares) ** 2).sum(1)
    plain = make_loss(resolved(loss=named("squares")).loss, labels, 2, "cpu")(logits, shares)
    assert float(plain) == pytest.approx(float(each.mean()))
    weighed = make_loss(resolved(loss=named("squares"), class_weights=True).loss, labels, 2, "cpu")(logits, shares)
    assert float(weighed) == pytest.approx(float((each[:4].mean() + each[4:].mean()) / 2))


def test_a_transform_follows_the_seed_and_stays_in_range(own: Path) -> None:
    ranges = resolved(transform=named("darker")).augmentation
    images = torch.full((3, 16, 16, 3), 200.0)
    first, again, other = (
        augment(images, sample_parameters(ranges, 3, 16, np.random.default_rng(seed)), ranges) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 <= float(first.min()) <= float(first.max()) < 200


def test_cached_versions_are_others_where_the_source_is_another(own: Path) -> None:
    recipe = resolved(freeze="trunk", transform=named("darker"), views=2)
    pixels = np.full((2, 16, 16, 3), 200, np.uint8)
    view = make_augmentation_transform(recipe, 0)
    both = view.change(pixels, ["a", "b"])
    assert np.array_equal(both[1:], view.change(pixels[1:], ["b"])), "whatever company an image comes in"
    own.write_text(SOURCE + "# changed\n")
    sys.modules.pop("own_parts_of_a_user")
    assert make_augmentation_transform(recipe, 0).name != view.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": named("nothing")}, "made a NoneType, expected a torch.optim.Optimizer"),
        ({"loss": "own_parts_of_a_user:absent"}, "loss: the module own_parts_of_a_user has no 'absent'"),
        ({"schedule": "own_absent:linear"}, "schedule: there is no module 'own_absent'"),
        ({"transform": named("nothing")}, "transform: .* gave NoneType, expected a tensor of the shape"),
    ],
)
def test_what_cannot_be_used_is_said(
    options: dict[str, Any], message: str, own: Path, photos: Path, tmp_path: Path
) -> None:
    recipe = bw.Recipe(**SMALL, **options, epochs=1)
    with pytest.raises(RecipeError, match=message):
        bw.train(bw.scan(photos), recipe, out=tmp_path / "runs", cache=tmp_path / "cache")
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize("option", ["optimizer", "schedule", "loss"])
def test_a_name_that_is_neither_known_nor_a_path_lists_what_is_known(option: str) -> None:
    with pytest.raises(RecipeError, match=rf"{option}: input should be .*, or your own as package\.module:name"):
        Recipe(freeze="none", **{option: "mine"})
    with pytest.raises(RecipeError, match=r"transform: expected your own as package\.module:name, found 'mine'"):
        Recipe(freeze="none", transform="mine")
