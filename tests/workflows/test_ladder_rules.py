"""What the ladder tries with so many images and so much time."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from budwood.config.recipe import Recipe
from budwood.networks.local_trunks import LocalTrunk
from budwood.workflows import ladder_rules as rules
from budwood.workflows.ladder_rules import (
    FrozenCandidate,
    Speed,
    choose_views,
    count_epochs,
    guess_speed,
    list_frozen,
    make_tuning_options,
    rank_costs,
    share_for_frozen,
    shrink,
    why_not_tuned,
)

SMALL = LocalTrunk("small", "timm", 224, 0.75, 400_000_000)
MIDDLE = LocalTrunk("middle", "timm", 240, 0.77, 600_000_000)
LARGE = LocalTrunk("large", "timm", 260, 0.78, 860_000_000)
UNKNOWN = LocalTrunk("unknown", "timm", 224, None, 4_000_000_000)
SPEED = Speed(1e10, 0.001)


def list_names(trunks: tuple[LocalTrunk, ...], **changes: Any) -> list[str]:
    usual: dict[str, Any] = {"resizes": ("crop",), "larger": {}, "images": 100, "speed": SPEED, "size": None}
    return [one.name for one in list_frozen(trunks, **{**usual, **changes})]


class TestFrozen:
    def test_the_cheapest_is_first_and_the_most_accurate_follows(self) -> None:
        found = list_names((LARGE, MIDDLE, SMALL), larger={"small": 288, "large": 320, "middle": 304})
        assert found == [
            "small, 224 pixels",
            "large, 260 pixels",
            "small, 288 pixels",
            "large, 320 pixels",
            "middle, 240 pixels",
        ]

    def test_a_network_without_a_published_accuracy_comes_last(self) -> None:
        assert list_names((UNKNOWN, LARGE, SMALL))[-1] == "unknown, 224 pixels"

    def test_a_trunk_alone_that_is_cheapest_and_best_is_enlarged_once(self) -> None:
        assert list_names((SMALL,), larger={"small": 288}) == ["small, 224 pixels", "small, 288 pixels"]

    def test_ways_to_make_an_image_square_are_tried_with_the_cheapest(self) -> None:
        found = list_names((LARGE, SMALL), resizes=("squash", "crop"))
        assert found == ["small, 224 pixels, squash", "small, 224 pixels", "large, 260 pixels, squash"]

    def test_a_size_that_was_given_is_everyones(self) -> None:
        found = list_names((LARGE, SMALL), size=96, larger={"small": 288, "large": 320})
        assert found == ["small, 96 pixels", "large, 96 pixels"]

    def test_no_more_than_may_be_compared(self) -> None:
        many = tuple(LocalTrunk(f"net{n}", "timm", 224, 0.7 + n / 100, 10**9 + n) for n in range(20))
        found = list_frozen(many, ("crop", "squash", "pad"), {"net0": 300, "net19": 300}, 100, SPEED, None)
        assert len(found) == rules.MOST_FROZEN
        assert len({one.name for one in found}) == len(found)

    def test_a_candidate_says_what_it_takes_and_is_a_recipe(self) -> None:
        first, larger = list_frozen((SMALL,), ("crop",), {"small": 448}, 1000, SPEED, None)
        assert first.seconds == rules.STARTING + 1000 * 0.04
        assert larger.seconds == rules.STARTING + 1000 * 0.16, "twice the side is four times the work"
        assert first.options == {"model": "small", "size": 224, "resize": "crop"}

    def test_decoding_limits_the_speed_of_a_small_network(self) -> None:
        assert Speed(1e12, 0.01).estimate(100, 1000) == rules.STARTING + 1.0
        assert guess_speed(4).macs == 2 * guess_speed(2).macs


class TestShrinking:
    FIRST = FrozenCandidate(SMALL, 224, "crop", 0.0)

    def test_what_fits_stays(self) -> None:
        found, used = shrink(self.FIRST, 64, 1000, SPEED, 60.0)
        assert (found.size, used, found.seconds) == (224, 1000, 48.0)

    def test_the_input_becomes_smaller_first_where_images_are_small(self) -> None:
        found, used = shrink(self.FIRST, 64, 3000, SPEED, 60.0)
        assert used == 3000
        assert 64 <= found.size < 224
        assert found.seconds <= 60
        assert (224 - found.size) % rules.SIZE_STEP == 0

    def test_no_smaller_where_that_would_save_too_little(self) -> None:
        found, used = shrink(self.FIRST, 64, 20, SPEED, 2.0)
        assert (found.size, used) == (224, 20), "what takes the time is to start, whatever the size"

    def test_no_smaller_than_the_images(self) -> None:
        found, used = shrink(self.FIRST, 200, 3000, SPEED, 60.0)
        assert (found.size, used) == (224, rules.FEWEST_SAMPLED), "a step of 32 would lose pixels"

    def test_then_fewer_images_are_used(self) -> None:
        found, used = shrink(self.FIRST, 224, 10_000, SPEED, 150.0)
        assert used == pytest.approx((150 - rules.STARTING) / 0.04, abs=1)
        assert found.seconds == pytest.approx(150, abs=0.1)

    @pytest.mark.parametrize("allowed", [0.0, 3.0, 10.0])
    def test_never_fewer_than_some_however_short_the_time(self, allowed: float) -> None:
        assert shrink(self.FIRST, 64, 10**6, SPEED, allowed)[1] == rules.FEWEST_SAMPLED
        assert shrink(self.FIRST, 64, 50, Speed(1e6, 1), allowed)[1] == 50, "there are no more"


@pytest.mark.parametrize(
    ("budget", "quick", "share"), [(300.0, False, 120.0), (1200.0, False, 480.0), (300.0, True, 294.0), (60.0, 0, 54.0)]
)
def test_the_first_rung_has_all_of_a_short_time(budget: float, quick: bool, share: float) -> None:
    assert share_for_frozen(budget, quick) == share


@pytest.mark.parametrize(
    ("training", "validation", "said"),
    [
        (1000, 200, ""),
        (100, 30, ""),
        (99, 200, "99 training images are too few to train more than a head (from 100 on)."),
        (2000, 29, "29 validation images are too few to tell whether it helps (from 30 on)."),
    ],
)
def test_what_is_too_little_to_tune_is_said(training: int, validation: int, said: str) -> None:
    assert why_not_tuned(training, validation) == said


@pytest.mark.parametrize("images", [100, 500, 1600, 16_000, 10**6])
def test_epochs_stay_in_their_range_and_in_the_time(images: int) -> None:
    free = count_epochs(images, 1e9)
    assert rules.EPOCHS[0] <= free <= rules.EPOCHS[1]
    assert free >= count_epochs(10 * images, 1e9), "fewer images are seen more often"
    for most in (0.2, 1.0, 2.9, 7.5):
        assert count_epochs(images, most) == max(1, min(free, int(most)))


def test_as_many_views_as_the_time_allows() -> None:
    assert choose_views(500, True, 1.0, 100.0) == 8
    assert choose_views(500, True, 1.0, 7.9) == 4
    assert choose_views(500, False, 1.0, 100.0) == 0, "without a flip all versions are alike"
    assert choose_views(50_000, True, 1.0, 100.0) == 4, "many images vary by themselves"
    assert choose_views(500, True, 1.0, 2.0) == 2
    assert choose_views(500, True, 1.0, 1.9) == 0


class TestTuning:
    @pytest.mark.parametrize(
        ("freeze", "views", "flips", "multilabel"),
        list(product(("upto:blocks.4", "none"), (0, 2, 8), ((), ("h",), ("h", "v")), (False, True))),
    )
    @pytest.mark.parametrize(("images", "epochs"), [(100, 1), (101, 30), (1577, 8), (10**6, 4)])
    def test_every_result_is_a_recipe(
        self, freeze: str, views: int, flips: tuple[str, ...], multilabel: bool, images: int, epochs: int
    ) -> None:
        views = 0 if freeze == "none" else views
        options = make_tuning_options(freeze, images, epochs, views, flips, multilabel)
        recipe = Recipe(model="tf_efficientnet_lite0", size=224, resize="crop", **options)
        assert (recipe.freeze, recipe.epochs) == (freeze, epochs)
        assert recipe.ema is not None
        assert 0.9 <= recipe.ema <= 0.999
        assert bool(recipe.probe) is not multilabel, "no head is solved for several labels"
        changed = bool(views) or freeze == "none"
        assert bool(recipe.flip) is (changed and "h" in flips)
        assert bool(recipe.flip_vertical) is (changed and "v" in flips)
        assert recipe.augments is (changed and bool(flips)), "what is frozen sees unchanged images, or cached views"
        assert bool(recipe.views) is (bool(views) and bool(flips)), "without a flip all versions are alike"

    @pytest.mark.parametrize(
        ("multilabel", "norms", "kept"), [(False, True, True), (False, False, False), (True, True, False)]
    )
    def test_batch_norm_keeps_the_statistics_that_the_head_was_solved_on(
        self, multilabel: bool, norms: bool, kept: bool
    ) -> None:
        options = make_tuning_options("none", 500, 8, 0, (), multilabel, norms=norms)
        assert ("trained_norm" in options) is kept
        assert Recipe(model="tf_efficientnet_lite0", **options).trained_norm == ("eval" if kept else None)

    def test_the_whole_network_takes_smaller_steps(self) -> None:
        parts, whole = (
            make_tuning_options(freeze, 500, 8, 0, (), multilabel=False) for freeze in ("upto:layer2", "none")
        )
        assert whole["lr"] < parts["lr"]

    def test_the_average_of_weights_spans_a_tenth_of_the_steps(self) -> None:
        steps = 8 * 50
        options = make_tuning_options("none", 50 * rules.BATCH, 8, 0, (), multilabel=False)
        assert 1 / (1 - options["ema"]) == pytest.approx(steps / 10, rel=0.01)


def test_less_than_twice_the_cost_is_no_reason_against_a_candidate() -> None:
    assert rank_costs([100, 165, 199, 200, 340, 400, 800]) == [0, 0, 0, 1, 1, 2, 3]
