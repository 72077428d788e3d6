"""Records of searches that never took place."""

from __future__ import annotations

from typing import Any

from budwood.evaluation.intervals import proportion_interval
from budwood.runs.ladder_record import CandidateRecord, Figure, LadderRecord, RungRecord

BEST = "20260101-000300-together-cccc"


def make_figure(right: int, n: int) -> Figure:
    """The share of `right` images of `n`, with its exact interval."""
    metric = proportion_interval(right, n)
    assert metric.value is not None
    return Figure(value=metric.value, low=metric.low, high=metric.high, n=n)


def make_candidate(name: str, right: int, n: int = 1968, **changes: Any) -> CandidateRecord:
    """A candidate that has got so many held-out images right."""
    usual: dict[str, Any] = {"recipe": {}, "accuracy": make_figure(right, n), "loss": 0.4, "seconds": 9.0}
    return CandidateRecord(name=name, **{**usual, **changes})


def make_frozen(**changes: Any) -> RungRecord:
    """The first rung: four candidates were tried, the third was chosen; one was left out and one failed."""
    behind = [Figure(value=v, low=v - 0.008, high=v + 0.009, n=1968) for v in (0.031, 0.022, -0.004)]
    candidates = (
        make_candidate("lite0 at 224 pixels", 1640, difference=behind[0], seconds=8.2),
        make_candidate("lite0 at 320 pixels", 1672, difference=behind[1], seconds=14),
        make_candidate(
            "lite1 at 320 pixels, last stages pooled",
            1697,
            recipe={"model": "tf_efficientnet_lite1", "size": 320, "taps": ["blocks.4", "blocks.6"]},
            seconds=17,
        ),
        make_candidate("lite2 at 380 pixels", 1701, difference=behind[2], seconds=27),
        CandidateRecord(name="resnet50 at 320 pixels", recipe={}, state="no time", seconds=95),
        CandidateRecord(name="own & <b>", recipe={}, state="failed", seconds=1, note="its weights cannot be read."),
    )
    usual: dict[str, Any] = {"run": "20260101-000100-frozen-aaaa", "accuracy": make_figure(338, 391), "kept": True}
    return RungRecord(**{"name": "frozen", "candidates": candidates, "chosen": 2, "ended": 72, **usual, **changes})


def make_tuned(**changes: Any) -> RungRecord:
    """The second rung, which was kept."""
    usual: dict[str, Any] = {
        "name": "fine-tuned",
        "candidates": (make_candidate("lite1, last 3 stages, 8 epochs", 346, 391, seconds=142),),
        "chosen": 0,
        "run": "20260101-000200-tuned-bbbb",
        "accuracy": make_figure(346, 391),
        "gain": Figure(value=8 / 391, low=-0.003, high=0.046, n=391),
        "p": 0.096,
        "kept": True,
        "ended": 221,
        "note": "Kept: its loss on validation is better.",
    }
    return RungRecord(**{**usual, **changes})


def make_together(**changes: Any) -> RungRecord:
    """The third rung, which left the best run soon after the second."""
    usual: dict[str, Any] = {
        "name": "together",
        "candidates": (make_candidate("frozen and fine-tuned, equal weights", 349, 391, seconds=3),),
        "chosen": 0,
        "run": BEST,
        "accuracy": make_figure(349, 391),
        "gain": Figure(value=3 / 391, low=-0.009, high=0.025, n=391),
        "p": 0.63,
        "kept": True,
        "ended": 224,
    }
    return RungRecord(**{**usual, **changes})


def make_ladder(**changes: Any) -> LadderRecord:
    """A search over three rungs."""
    usual: dict[str, Any] = {
        "budget": 300,
        "seconds": 243,
        "compared": "5-fold cross-validation, repeated twice, on training and validation images",
        "images": 1577,
        "of": 1577,
        "rungs": (make_frozen(), make_tuned(), make_together()),
        "best": BEST,
        "advice": "More time goes into fine-tuning all layers, which typically gives 1 to 2 points more.",
        "longer": 1200,
    }
    return LadderRecord(**{**usual, **changes})
