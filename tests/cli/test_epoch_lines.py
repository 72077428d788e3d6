"""A line an epoch: what it says, how much time is left, and that every epoch is said once."""

from __future__ import annotations

import pytest

from budwood.cli.epoch_lines import ENOUGH, EpochLines, format_epoch
from budwood.config.recipe import Recipe
from conftest import Notes

ROW = {
    "epoch": 3.0,
    "lr": 0.001,
    "train_loss": 0.41234,
    "train_accuracy": 0.9,
    "val_loss": 0.395,
    "val_accuracy": 0.912,
}


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_history(count: int) -> list[dict[str, float]]:
    return [{**ROW, "epoch": float(number), "val_loss": 1 / number} for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("changes", "epochs", "left", "line"),
    [
        ({}, 20, "9 s left", "epoch  3/20  loss 0.412, validation 0.395  accuracy 91.2 %  rate 0.001  9 s left"),
        ({}, None, "", "epoch 3  loss 0.412, validation 0.395  accuracy 91.2 %  rate 0.001"),
        ({"val_mean_average_precision": 0.5}, 3, "", "epoch 3/3  loss 0.412, validation 0.395  mAP 50.0 %  rate 0.001"),
    ],
)
def test_an_epoch_in_a_line(changes: dict[str, float], epochs: int | None, left: str, line: str) -> None:
    assert format_epoch({**ROW, **changes}, epochs, left) == line
    assert len(line) <= 80


def test_the_time_left_is_that_of_the_epochs_to_come() -> None:
    clock, notes = Clock(), Notes()
    lines = EpochLines(notes, Recipe(optimizer="adam", epochs=4), clock=clock)
    for count, now in ((1, 150.0), (2, 160.0), (3, 172.0), (4, 180.0)):
        clock.now = now
        lines(make_history(count))
    assert [line.rpartition("  ")[2] for line in notes.kept] == [
        "at most 2 min left",
        "20 s left",
        "11 s left",
        "0.0 s left",
    ]
    lines.tell_unsaid(make_history(4))
    assert len(notes.kept) == 4, "what was said is not said again"


def test_a_limit_ends_it_earlier() -> None:
    clock, notes = Clock(), Notes()
    lines = EpochLines(notes, None, limit=60.0, clock=clock)
    clock.now = 120.0
    lines(make_history(1))
    clock.now = 170.0
    lines(make_history(2))
    assert [line.rpartition("  ")[2] for line in notes.kept] == ["40 s left", "0.0 s left"]


def test_a_resumed_training_says_only_what_is_new() -> None:
    notes = Notes()
    lines = EpochLines(notes, Recipe(optimizer="adam", epochs=9))
    lines(make_history(6))
    lines(make_history(7))
    assert [line.split()[1] for line in notes.kept] == ["6/9", "7/9"]


def test_the_next_training_of_a_search_begins_anew() -> None:
    notes = Notes()
    lines = EpochLines(notes)
    lines(make_history(1))
    lines([{**ROW, "epoch": 1.0, "val_loss": 9.0}])
    assert [line.split()[1] for line in notes.kept] == ["1", "1"]


def test_what_was_over_at_once_is_told_in_the_end() -> None:
    notes = Notes()
    EpochLines(notes, Recipe(optimizer="adam", epochs=100)).tell_unsaid(make_history(100))
    assert len(notes.kept) <= ENOUGH
    assert notes.kept[-1].startswith("epoch 100/100")
    EpochLines(notes).tell_unsaid([{"regularisation": 0.1}])
    assert notes.kept[-1].startswith("epoch 100/100"), "strengths of a penalty are no epochs"
