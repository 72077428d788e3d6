"""An augmentation and a loss that somebody adds, as CONTRIBUTING.md says, and several of a user's own."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from budwood.cli.main import run as run_command
from budwood.config.augmentations import AUGMENTATIONS, Augmentation, AugmentationEntry, Option
from budwood.config.losses import Loss
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import own_parts, resolve
from budwood.data.scanning import scan
from budwood.errors import RecipeError
from budwood.reporting.augmentation_sheet import draw_augmentation_sheet
from budwood.reporting.recipe_text import describe_recipe
from budwood.runs.run_record import parse_record, read_record
from budwood.training.augmentation import augment, sample_parameters
from budwood.training.cached_augmentation import make_augmentation_transform
from budwood.training.losses import Classes, LossOfBatch, make_loss

SOURCE = """
import torch

def add(images, generator, *, amount=1.0):
    return images + amount

def double(images, generator):
    return images * 2

def noisy(images, generator, *, strength):
    return images + strength * torch.rand(images.shape, generator=generator)

def cropped(images, generator):
    return images[..., 1:]

def whole(images, generator):
    return images.long()

def divided(images, generator):
    return images / 0

def broken(images, generator):
    raise KeyError("colour")

def needy(images, generator, amount):
    return images + amount
"""
IMAGES = torch.full((2, 4, 4, 3), 10.0)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module `several_own` in the folder that is worked in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "several_own.py"
    file.write_text(SOURCE)
    yield file
    sys.modules.pop("several_own", None)


def _ranges(transform: object) -> Augmentation:
    return resolve(Recipe(freeze="none", transform=transform), False, 16).augmentation


def _changed(ranges: Augmentation, seed: int = 0) -> Tensor:
    return augment(IMAGES, sample_parameters(ranges, 2, 4, np.random.default_rng(seed)), ranges)


def posterize(pictures: Tensor, seeds: NDArray[np.int64], *, posterize: int) -> Tensor:
    """Reduces the number of bits, as a new augmentation might."""
    step = float(2 ** (8 - posterize))
    return pictures.div(step).floor().mul(step)


def sample_margins(n: int, size: int, random: np.random.Generator, *, margin: int) -> NDArray[np.int64]:
    """Draws what a new augmentation might."""
    return random.integers(1, margin + 1, n)


def blacken(pictures: Tensor, drawn: NDArray[np.int64], *, margin: int) -> Tensor:
    """Makes the top rows black."""
    for row, height in enumerate(drawn.tolist()):
        pictures = pictures.clone()
        pictures[row, :, :height] = 0
    return pictures


def test_a_new_augmentation_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    flipped = Augmentation({"flip": 0.5, "brightness": 0.3})
    before = sample_parameters(flipped, 4, 8, np.random.default_rng(3))
    key = flipped.describe()
    table = cast("MutableMapping[str, object]", AUGMENTATIONS.entries)
    entry = AugmentationEntry("photometric", {"posterize": Option("bits")}, apply=f"{__name__}:posterize")
    monkeypatch.setitem(table, "posterize", entry)
    options = {"margin": Option("largest height of the black rows, pixels")}
    entry = AugmentationEntry("photometric", options, f"{__name__}:sample_margins", f"{__name__}:blacken")
    monkeypatch.setitem(table, "margin", entry)

    ranges = Augmentation({"posterize": 2, "margin": 3})
    assert ranges.used == ("posterize", "margin")
    images = torch.full((4, 8, 8, 3), 130.0)
    what = sample_parameters(ranges, 4, 8, np.random.default_rng(3))
    found = augment(images, what, ranges)
    for image, height in zip(found, what.drawn["margin"].tolist(), strict=True):
        assert (image[:height] == 0).all()
        assert (image[height:] == 128).all()
    assert ranges.describe() == {**Augmentation().describe(), "posterize": 2, "margin": 3}

    after = sample_parameters(flipped, 4, 8, np.random.default_rng(3))
    assert all(np.array_equal(before.drawn[name], after.drawn[name]) for name in ("flip", "brightness"))
    assert flipped.describe() == key, "what is cached without it is found again"


@dataclass(frozen=True)
class Hinge(Loss):
    """A loss that somebody adds."""

    function = f"{__name__}:make_hinge_loss"
    margin: float = 1.0
    name: Literal["hinge"] = "hinge"


def make_hinge_loss(loss: Hinge, of: Classes) -> LossOfBatch:
    """Makes the mean of margins that are missed."""
    return lambda logits, shares: (loss.margin - logits * (2 * shares - 1)).clamp(min=0).mean()


def test_a_new_loss_is_one_record_and_one_function() -> None:
    labels, logits = np.array([0, 1], np.int32), torch.tensor([[3.0, -3.0], [1.0, 1.0]])
    found = make_loss(Hinge(margin=2.0), labels, 2, "cpu")(logits, torch.eye(2))
    assert float(found) == pytest.approx((0 + 0 + 3 + 1) / 4)


def test_several_own_ones_are_applied_in_their_order_with_their_options(own: Path) -> None:
    first = _changed(_ranges([{"name": "several_own:add", "amount": 5}, "several_own:double"]))
    other = _changed(_ranges("several_own:double, several_own:add"))
    assert (first == 30).all()
    assert (other == 21).all()
    once = _changed(_ranges('{name="several_own:noisy",strength=9.0}'))
    twice = _changed(_ranges('[{name="several_own:noisy",strength=9},{name="several_own:noisy",strength=9}]'))
    assert not torch.equal(twice - once, once - IMAGES), "each has a seed of its own"


def test_recipes_keep_own_ones_as_they_are_given(own: Path) -> None:
    recipe = Recipe(freeze="none", transform=["several_own:double", {"name": "several_own:add", "amount": 2}])
    assert recipe.table()["transform"] == ({"name": "several_own:double"}, {"name": "several_own:add", "amount": 2})
    assert Recipe(**tomllib.loads(recipe.toml())) == recipe
    one = Recipe(freeze="none", transform="several_own:double")
    assert one.table()["transform"] == "several_own:double"
    assert Recipe(freeze="none", transform=[{"name": "several_own:double"}]) == one
    assert list(own_parts(one)) == ["transform"]
    parts = own_parts(recipe)
    assert {option: (part.name, part.file) for option, part in parts.items()} == {
        "transform 1": ("several_own:double", "several_own.py"),
        "transform 2": ("several_own:add", "several_own.py"),
    }


def test_cached_versions_differ_by_options_and_source(own: Path) -> None:
    def key(transform: object) -> str:
        recipe = Recipe(freeze="trunk", views=2, transform=transform)
        return make_augmentation_transform(resolve(recipe, False, 16), 0).name

    asked: list[dict[str, object]] = [{"name": "several_own:add", "amount": 1}, {"name": "several_own:double"}]
    keys = [key(asked), key(asked[::-1]), key([{**asked[0], "amount": 2}, asked[1]]), key(asked[:1])]
    own.write_text(SOURCE + "# changed\n")
    assert len({*keys, key(asked)}) == 5


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("several_own:cropped", r"several_own:cropped gave the shape \[2, 3, 4, 3\], expected .* \[2, 3, 4, 4\]"),
        ("several_own:whole", r"several_own:whole gave values of type int64, expected a tensor .* float32"),
        ("several_own:divided", "several_own:divided gave 96 values that are not finite"),
        ("several_own:broken", r"several_own:broken failed \(KeyError: 'colour'\)"),
        ("several_own:absent", "the module several_own has no 'absent'"),
        ("own_absent:add", "there is no module 'own_absent'"),
    ],
)
def test_what_an_own_one_does_wrongly_is_said(own: Path, transform: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"transform: {message}"):
        _changed(_ranges(transform))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("several_own:needy", r"several_own:needy cannot be called as needy\(images, generator\) \(missing"),
        ('{name="several_own:add",much=1}', r"cannot be called as add\(images, generator, much=\.\.\.\) \(.*'much'"),
        ('{name="several_own:noisy"},', "expected your own as package.module:name"),
        ('{name="several_own:add",amount={x=1}}', "expected numbers, words or a list of them for the option amount"),
        ("[]", "expected your own as package.module:name"),
        ("[{amount=1}]", "expected your own as package.module:name"),
        ("several_own:add,double", "expected your own as package.module:name"),
    ],
)
def test_what_is_asked_wrongly_is_said_before_training(own: Path, transform: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"transform: .*{message}"):
        own_parts(Recipe(freeze="none", transform=transform))


def test_the_sheet_shows_own_ones(own: Path, photos: Path) -> None:
    training = scan(photos).samples("train")
    plain = resolve(Recipe(freeze="none"), False, 16)
    changed = resolve(Recipe(freeze="none", transform="several_own:double"), False, 16)
    sheets = [np.asarray(draw_augmentation_sheet(recipe, training), np.float64) for recipe in (plain, changed)]
    assert sheets[1].mean() > sheets[0].mean() * 1.02


def test_a_report_says_what_was_used_of_the_user_s_own(own: Path) -> None:
    recipe = Recipe(freeze="none", transform=[{"name": "several_own:add", "amount": 2}, "several_own:double"])
    kept = read_record(Path(__file__).parents[1] / "kept" / "single")
    record = kept.model_copy(update={"recipe": recipe.model_copy(update={"size": 16}), "parts": own_parts(recipe)})
    assert describe_recipe(record).count("Code of your own") == 1
    assert (
        "Code of your own was used: transform 1 several_own:add (amount 2, several_own.py); "
        "transform 2 several_own:double (several_own.py)."
    ) in describe_recipe(record)
    assert "Code of your own" not in describe_recipe(kept)
    assert parse_record(json.loads(json.dumps(record.table()))).parts == record.parts


def test_a_mistake_ends_the_command_with_one_message(
    own: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--html", str(own.parent / "look.html"), "--augment", "transform=several_own:needy"]
    assert run_command(["inspect", str(photos), *asked]) == 2
    said = capsys.readouterr().err
    assert (
        "transform: several_own:needy failed (TypeError: needy() missing 1 required positional argument: 'amount')"
        in said
    )
    assert "Traceback" not in said
