"""Findings about results: each fires on what it is about, says the rows, and is silent otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import budwood as bw
from budwood.comparison.rows import make_outcome
from budwood.evaluation.intervals import Metric, proportion_interval
from budwood.evaluation.result_checks import Resolution, RowOutcome, check_run, check_table
from budwood.runs.run import Run
from budwood.runs.run_record import read_record
from conftest import answers, scored_run


def _history(val: list[float], train: list[float] | None = None, **more: float) -> list[dict[str, float]]:
    falling = train or list(np.linspace(1, 0.2, len(val)))
    return [
        {"epoch": float(epoch), "train_loss": a, "val_loss": b, **more}
        for epoch, (a, b) in enumerate(zip(falling, val, strict=True), 1)
    ]


def _codes(*outcomes: RowOutcome, **given: Any) -> list[str]:
    return [finding.code for finding in check_table(outcomes, **given)]


def _bare(value: float) -> Metric:
    """A figure as a paper prints it: without an interval or a number of images."""
    return Metric(value, None, None, 0)


def test_a_network_that_learns_by_heart() -> None:
    overfit = RowOutcome("a", train=proportion_interval(990, 1000), val=proportion_interval(160, 200))
    sound = RowOutcome("b", train=proportion_interval(900, 1000), val=proportion_interval(170, 200))
    found = check_table([overfit, sound])
    assert [(finding.code, finding.severity, finding.rows) for finding in found] == [("R001", "warning", ("a",))]
    assert "a: 99.0 % against 80.0 %" in found[0].message
    few = RowOutcome("c", train=proportion_interval(99, 100), val=proportion_interval(8, 9))
    assert _codes(few) == [], "nine images cannot tell"


# Study 1 of the five: transfer rows were published with 75 to 90 % on validation and these figures on test.
STUDY_1 = (0.91, 0.916, 0.962, 0.969, 0.964, 0.945, 0.968, 0.979, 0.981)


def test_the_published_table_of_study_1_looks_like_a_leak() -> None:
    val = np.linspace(0.75, 0.90, len(STUDY_1))
    for order in (val, val[::-1], np.random.default_rng(0).permutation(val)):
        rows = [
            RowOutcome(f"row {n}", val=_bare(v), test=_bare(t))
            for n, (v, t) in enumerate(zip(order, STUDY_1, strict=True))
        ]
        found = check_table(rows)
        assert [(finding.code, finding.severity) for finding in found] == [("R002", "error")]
        assert len(found[0].rows) >= 7, "whichever validation figure belongs to which test figure"
        assert "Test images may have been used for training." in found[0].message


def test_a_test_score_within_chance_of_validation_is_no_leak() -> None:
    assert _codes(RowOutcome("a", val=proportion_interval(160, 200), test=proportion_interval(170, 200))) == [], (
        "5 points may be chance on 200 images"
    )
    assert _codes(RowOutcome("a", val=proportion_interval(1600, 2000), test=proportion_interval(1700, 2000))) == [
        "R002"
    ]
    assert _codes(RowOutcome("a", val=proportion_interval(160, 200), test=proportion_interval(140, 200))) == []
    assert _codes(RowOutcome("a", val=_bare(0.9), test=proportion_interval(0, 0))) == []


@pytest.mark.parametrize(
    ("value", "tried", "said"),
    [
        (0.1, [0.001, 0.01, 0.1], "largest lr that was tried (0.1)"),
        (0.001, [0.1, 0.01, 0.001], "smallest lr that was tried (0.001)"),
        (0.01, [0.001, 0.01, 0.1], None),
        (0.1, [0.01, 0.1], None),
    ],
)
def test_the_edge_of_a_grid(value: float, tried: list[float], said: str | None) -> None:
    rows = [RowOutcome("best", options={"lr": value}), RowOutcome("other", options={"lr": 0.01})]
    found = check_table(rows, best="best", edges={"lr": tried})
    assert [said in finding.message for finding in found if said] == ([True] if said else [])
    assert bool(found) == bool(said)


def test_an_edge_that_cannot_be_passed_is_none() -> None:
    assert _codes(RowOutcome("a", options={"dropout": 0.0}), best="a", edges={"dropout": [0, 0.2, 0.4]}) == []
    assert _codes(RowOutcome("a", options={"flip": 1}), best="a", edges={"flip": [0, 0.5, 1]}) == []
    assert _codes(RowOutcome("a", options={"dropout": 0.4}), best="a", edges={"dropout": [0, 0.2, 0.4]}) == ["R003"]
    assert _codes(RowOutcome("a", options={"optimizer": "adam"}), best="a", edges={"optimizer": [1, 2, 3]}) == []


def test_too_few_images_to_tell_rows_apart() -> None:
    found = check_table([], resolution=Resolution(400, 28, 0.02, 0.03, 0.015, 5))
    assert found[0].code == "R004"
    assert (
        "5 rows (the best included) are not distinguishable from the best: 400 images can show a difference of 2.0"
        in found[0].message
    )
    assert "3.0 points when all 28 pairs are tested" in found[0].message
    assert "About 1,600 images would be needed to show the largest difference" in found[0].advice
    assert check_table([], resolution=Resolution(400, 28, 0.02, 0.03, 0.0, 1)) == ()
    loss = check_table([], resolution=Resolution(400, 1, 0.02, 0.03, 0.0, 2, loss=True))
    assert loss[0].message.endswith("show a difference of 0.02 nats between two rows.")


def test_one_run_on_few_images() -> None:
    found = check_run(RowOutcome("", val=proportion_interval(36, 40)))
    assert [finding.code for finding in found] == ["R004"]
    assert "With 40 validation images, accuracy is known only to within ±" in found[0].message
    assert check_run(RowOutcome("", val=proportion_interval(900, 1000))) == ()


def test_a_curve_that_had_not_flattened() -> None:
    falling = _history(list(np.linspace(1, 0.5, 10)))
    flat = _history([1, 0.7, 0.55, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    rising = _history([1, 0.5, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1])
    assert _codes(RowOutcome("a", histories=[falling])) == ["R005"]
    for history in (flat, rising, _history([1, 0.5]), []):
        assert _codes(RowOutcome("a", histories=[history])) == []
    assert _codes(RowOutcome("a", histories=[falling, flat])) == [], "every seed must say so"
    solved = [{"regularisation": s, "train_loss": s, "val_loss": s} for s in (5.0, 4.0, 3.0, 2.0, 1.0)]
    assert _codes(RowOutcome("a", histories=[solved])) == [], "penalties are no course of time"


def test_the_last_phase_is_judged() -> None:
    first = _history(list(np.linspace(2, 1, 6)), phase=1.0)
    second = _history([0.5] * 6, [0.3, 0.2, 0.2, 0.2, 0.2, 0.2], phase=2.0)
    assert _codes(RowOutcome("a", histories=[[*first, *second]])) == []


def test_rows_that_failed_and_rates_that_diverged() -> None:
    found = check_table([RowOutcome("a", problem="The loss is no longer a number."), RowOutcome("b")])
    assert (found[0].code, found[0].rows) == ("R006", ("a",))
    assert "1 row failed: a (The loss is no longer a number)." in found[0].message
    worse = _history([1.0, 1.1, 1.2], [1.0, 1.5, 2.0])
    assert _codes(RowOutcome("a", histories=[worse])) == ["R007"]
    lost = _history([1.0, 1.1, 1.2], [1.0, 1.5, float("nan")])
    assert _codes(RowOutcome("a", histories=[lost])) == ["R007"]


def test_seeds_that_spread_more_than_rows_differ() -> None:
    rows = [
        RowOutcome("best", scores=(0.80, 0.84, 0.82)),
        RowOutcome("near", scores=(0.79, 0.83, 0.81)),
        RowOutcome("far", scores=(0.60, 0.62, 0.61)),
        RowOutcome("single", scores=(0.82,)),
    ]
    found = check_table(rows, best="best")
    assert [(finding.code, finding.rows) for finding in found] == [("R008", ("best", "near"))]
    assert found[0].message == "In 1 row, seeds differ more than the row differs from the best: near."
    assert found[0].advice == "Another seed may change the order: add seeds, or use the cheaper row."
    assert _codes(rows[0], rows[2], best="best") == []
    assert _codes(rows[3], rows[1], best="single") == [], "one seed has no spread"
    (folds,) = check_table([replace(row, folds=True) for row in rows], best="best")
    assert folds.message == "In 1 row, folds differ more than the row differs from the best: near."
    assert folds.advice == "Another split may change the order: add folds, or use the cheaper row."


def test_advice_on_overfitting_fits_how_it_was_trained() -> None:
    def overfitted(label: str, history: list[dict[str, float]]) -> RowOutcome:
        train, val = (proportion_interval(count, 2000) for count in (1980, 1400))
        return RowOutcome(label, train, val, histories=[history])

    solved = overfitted("solved", [{"regularisation": 1.0, "train_loss": 0.1, "val_loss": 0.9}])
    steps = overfitted("steps", [{"epoch": 1.0, "train_loss": 0.1, "val_loss": 0.9}])
    advice = {
        row[0].label + str(len(row)): next(one.advice for one in check_table(row) if one.code == "R001")
        for row in ([solved], [steps], [solved, steps])
    }
    assert "a higher `regularisation`" in advice["solved1"]
    assert "epochs" not in advice["solved1"]
    assert advice["steps1"].endswith("freeze more layers, or train for fewer epochs.")
    assert "where training takes steps; for a solved head, use more training images" in advice["solved2"]


def test_looks_that_differ() -> None:
    found = check_table([RowOutcome("a", looks=(1,)), RowOutcome("b", looks=(4,)), RowOutcome("c")])
    assert (found[0].code, found[0].rows) == ("R009", ("b",))
    assert "a (1); b (4)" in found[0].message
    assert _codes(RowOutcome("a", looks=(1,)), RowOutcome("b", looks=(1,))) == []


def test_many_rows_are_counted_not_listed() -> None:
    rows = [
        RowOutcome(f"row {n}", train=proportion_interval(990, 1000), val=proportion_interval(160, 200))
        for n in range(9)
    ]
    found = check_table(rows)[0]
    assert "and 5 more" in found.message
    assert len(found.rows) == 9
    assert set(found.record()) == {"code", "severity", "message", "advice", "rows"}


def test_a_run_tells_its_own_findings(tmp_path: Path) -> None:
    truth = (np.arange(300) % 3).astype(np.int32)
    history = [{**row, "train_accuracy": 0.99, "val_accuracy": 0.7} for row in _history([1.0, 0.6, 0.5])]
    opened = (truth, answers(truth, 0.95, 1), 1)
    run = scored_run(tmp_path / "run", truth, answers(truth, 0.7, 0), history=history, test=opened)
    found = check_run(make_outcome("", [run]))
    assert [finding.code for finding in found] == ["R001", "R002", "R004"]
    assert found[0].message.startswith("Training accuracy is far above validation accuracy: 99.0 % against")


def test_rows_that_were_trained_on_a_leaking_split_are_told() -> None:
    outcomes = [RowOutcome("a", leaking=True), RowOutcome("b")]
    (found,) = [finding for finding in check_table(outcomes) if finding.code == "R010"]
    assert (found.severity, found.rows) == ("warning", ("a",))
    assert "1 row was trained although the given split leaks" in found.message
    assert not check_table([RowOutcome("b")])


def test_a_training_of_few_steps_says_little() -> None:
    rows = [
        RowOutcome("a", steps=[60, 12]),
        RowOutcome("b", steps=[20]),
        RowOutcome("solved"),
        RowOutcome("c", steps=[1]),
    ]
    (found,) = check_table(rows)
    assert (found.code, found.severity, found.rows) == ("R011", "warning", ("a", "c"))
    assert found.message == (
        "2 rows were trained for fewer than 20 optimizer steps, so that their figures say little about the recipe: "
        "a (12); c (1)."
    )
    assert found.advice.startswith("Train for more epochs or with a smaller batch before you compare")
    (alone,) = check_run(RowOutcome("", steps=[1]))
    assert alone.message == "Training took only 1 optimizer step in all: its figures say little about the recipe."
    assert check_run(RowOutcome("", steps=[20])) == ()


def test_the_steps_of_a_run_are_those_that_it_took(photos: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"model": "cnn", "widths": (4,), "fc": (4,), "size": 16, "optimizer": "sgd", "batch": 8}
    data, out = bw.scan(photos), tmp_path / "runs"
    images = len(data.samples("train"))
    epoch = images // 8 + (images % 8 > 1)
    made = bw.train(data, bw.Recipe(**small, epochs=2), out=out)
    assert make_outcome("", [made]).steps == [2 * epoch]
    assert "Training took only" in (made.path / "report.html").read_text()
    assert make_outcome("", [bw.resume(made, epochs=5)]).steps == [5 * epoch]
    phases = [{"freeze": "upto:conv1", "epochs": 1, "lr": 0.01}, {"freeze": "none", "epochs": 2, "lr": 0.01}]
    assert make_outcome("", [bw.train(data, bw.Recipe(**small, phases=phases), out=out)]).steps == [3 * epoch]


def test_the_steps_of_runs_that_do_not_tell_them_are_counted() -> None:
    kept = Path(__file__).parents[1] / "kept"
    single, solved = (Run(kept / name, read_record(kept / name)) for name in ("single", "solved"))
    assert single.record.choices.steps is None
    images = sum(single.record.dataset.counts.train.values())
    assert make_outcome("", [single]).steps == [len(single.history) * -(-images // (single.recipe.batch or 0))]
    assert make_outcome("", [solved]).steps == []
