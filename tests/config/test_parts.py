"""Losses, schedules, optimizers and augmentations are complete: an entry, its options in the recipe, a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import pytest

from budwood.config.augmentations import AUGMENTATIONS, AugmentationEntry, Option
from budwood.config.label_rules import adapt_to_labels
from budwood.config.losses import LOSSES, BinaryCrossEntropy, CustomLoss, Loss, OneLabel
from budwood.config.optimizers import LBFGS, OPTIMIZERS, CustomOptimizer
from budwood.config.options import SCHEDULE_PREFIX, list_own_options, loss_prefix
from budwood.config.recipe import Recipe, restore_recipe
from budwood.config.registry import Registry, load_function
from budwood.config.resolved_recipe import resolve
from budwood.config.schedules import SCHEDULES, CustomSchedule, Schedule
from budwood.errors import RecipeError

Put = Callable[[Registry[Any], str, object], None]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts an entry into a registry for the time of a test."""
    return lambda table, name, entry: monkeypatch.setitem(
        cast("MutableMapping[str, object]", table.entries), name, entry
    )


@dataclass(frozen=True)
class Hinge(OneLabel):
    """A loss that somebody adds."""

    function = "os:make_hinge_loss"
    margin: float = 1.0
    name: Literal["hinge"] = "hinge"


@dataclass(frozen=True)
class Asymmetric(Loss):
    """A loss for several labels that somebody adds."""

    single_label = False
    name: Literal["asymmetric"] = "asymmetric"


def _options() -> Iterator[tuple[str, str]]:
    """Every part in words, and each of its options as recipes name it."""
    for name in LOSSES.entries:
        yield from ((f"loss {name}", option) for option in list_own_options(LOSSES.get(name), loss_prefix(name)))
    for name in SCHEDULES.entries:
        yield from ((f"schedule {name}", each) for each in list_own_options(SCHEDULES.get(name), SCHEDULE_PREFIX))
    for name in OPTIMIZERS.entries:
        yield from ((f"optimizer {name}", option) for option in list_own_options(OPTIMIZERS.get(name)))
    for name in AUGMENTATIONS.entries:
        yield from ((f"augmentation {name}", option) for option in AUGMENTATIONS.get(name).options)


def _functions() -> Iterator[tuple[str, str]]:
    """Every part in words, and each function that it names."""
    kinds: list[tuple[str, type[Any]]] = [
        *((f"loss {name}", LOSSES.get(name)) for name in LOSSES.entries),
        *((f"schedule {name}", SCHEDULES.get(name)) for name in SCHEDULES.entries),
        *((f"optimizer {name}", kind) for name in OPTIMIZERS.entries if (kind := OPTIMIZERS.get(name)) is not LBFGS),
        ("a user's own loss", CustomLoss),
        ("a user's own schedule", CustomSchedule),
    ]
    yield from ((part, kind.function) for part, kind in kinds)
    for name in AUGMENTATIONS.entries:
        entry = AUGMENTATIONS.get(name)
        named = [entry.sample] if entry.kind == "geometric" else [entry.apply, *filter(None, [entry.sample])]
        yield from ((f"augmentation {name}", function) for function in named)


def _missing() -> list[str]:
    """What is not there of a part, in words for whoever adds it."""
    found = [
        f"{part}: its option {option} is no field of Recipe; add it to config/recipe.py"
        for part, option in _options()
        if option not in Recipe.model_fields
    ]
    for part, function in _functions():
        try:
            load_function(function)
        except (AttributeError, ImportError, ValueError):
            found.append(f"{part}: there is no function {function!r}; write it, or mend its path in config/")
    return found


def test_every_part_has_its_options_in_the_recipe_and_its_function() -> None:
    assert _missing() == []


def test_what_is_missing_of_a_part_is_said(put: Put) -> None:
    put(LOSSES, "hinge", Hinge)
    put(AUGMENTATIONS, "posterize", AugmentationEntry("photometric", {"posterize": Option("bits")}, apply="os:absent"))
    assert _missing() == [
        "loss hinge: its option hinge_margin is no field of Recipe; add it to config/recipe.py",
        "augmentation posterize: its option posterize is no field of Recipe; add it to config/recipe.py",
        "loss hinge: there is no function 'os:make_hinge_loss'; write it, or mend its path in config/",
        "augmentation posterize: there is no function 'os:absent'; write it, or mend its path in config/",
    ]


def test_every_field_of_an_augmentation_has_the_range_of_its_entry() -> None:
    for name in AUGMENTATIONS.entries:
        for option, known in AUGMENTATIONS.get(name).options.items():
            field = Recipe.model_fields[option]
            assert field.description == known.words
            ranges = {key: getattr(known, key) for key in ("ge", "gt", "le", "lt")}
            found = {key: getattr(mark, key) for mark in field.metadata for key in ranges if hasattr(mark, key)}
            assert found == {key: value for key, value in ranges.items() if value is not None}


def test_a_user_s_own_optimizer_has_the_options_of_every_optimizer_alone() -> None:
    assert list_own_options(CustomOptimizer) == {"lr": 1e-3, "weight_decay": 0.0}


def test_the_options_of_a_loss_start_with_its_name() -> None:
    assert list_own_options(Hinge, loss_prefix("hinge")) == {"hinge_margin": 1.0}
    assert list_own_options(LOSSES.get("focal"), loss_prefix("focal")) == {"focal_gamma": 2.0}


def test_a_loss_for_one_label_is_refused_for_several_and_the_other_way_round(put: Put) -> None:
    put(LOSSES, "hinge", Hinge)
    put(LOSSES, "asymmetric", Asymmetric)
    with pytest.raises(RecipeError, match=r"loss: multi-label data .* use focal or binary_cross_entropy or asymmetric"):
        adapt_to_labels(Recipe(freeze="none", loss="hinge"), True)
    with pytest.raises(RecipeError, match="loss: asymmetric is for multi-label data; these images have one label each"):
        adapt_to_labels(Recipe(freeze="none", loss="asymmetric"), False)
    assert adapt_to_labels(Recipe(freeze="none", loss="asymmetric"), True).loss == "asymmetric"
    assert resolve(Recipe(freeze="none", loss="asymmetric"), True, 32).loss == Asymmetric()
    assert resolve(Recipe(freeze="none"), True, 32).loss == BinaryCrossEntropy()


@pytest.mark.parametrize("options", [{"schedule": "step"}, {"schedule": "multistep", "schedule_at": [3, 8]}])
def test_a_schedule_that_changes_between_epochs_cannot_change_in_steps(options: dict[str, Any]) -> None:
    message = f"schedule_by: expected epoch, as the schedule {options['schedule']} changes between epochs"
    with pytest.raises(RecipeError, match=message):
        Recipe(freeze="none", **options, schedule_by="step")
    assert Recipe(freeze="none", **options, schedule_by="epoch").schedule_by == "epoch"
    kept = restore_recipe({"freeze": "none", **options, "schedule_by": "step"})
    assert kept == Recipe(freeze="none", **options), "a run of version 0.1 can still be read"
    assert restore_recipe({"schedule": "cosine", "schedule_by": "step"}).schedule_by == "step"


def test_a_new_loss_or_schedule_is_one_record_where_it_has_no_options(put: Put) -> None:
    @dataclass(frozen=True)
    class Halved(Schedule):
        function = "budwood.training.schedules:stay_constant"
        name: Literal["halved"] = "halved"

    put(SCHEDULES, "halved", Halved)
    assert resolve(Recipe(freeze="none", schedule="halved", warmup=1), False, 32).schedule == Halved(1.0)
