"""A comparison pairs what can be paired, refuses the rest with the reason, and says which split a figure is of."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, f1_score

import budwood as bw
from budwood.comparison.compare import compare
from budwood.comparison.document import Comparison
from budwood.comparison.run_groups import find_runs
from budwood.comparison.text import format_comparison
from budwood.errors import RunError
from budwood.runs.run import Run
from conftest import answers, scored_run

N = 400
TRUTH = (np.arange(N) % 3).astype(np.int32)


def _run(folder: Path, accuracy: float, seed: int = 0, **given: Any) -> Run:
    return scored_run(folder, TRUTH, answers(TRUTH, accuracy, 100 * seed + round(1000 * accuracy)), seed=seed, **given)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Three recipes of one run each, of rising rate and accuracy."""
    return [_run(tmp_path / f"run{n}", acc, lr=10.0**-n) for n, acc in ((4, 0.6), (3, 0.75), (2, 0.8))]


def _row(made: Comparison, label: str) -> dict[str, Any]:
    return next(row for row in made.table() if row["label"] == label)


def test_a_table_has_a_row_for_each_recipe(runs: list[Run]) -> None:
    made = compare(runs)
    assert [row["label"] for row in made.table()] == ["lr 0.0001", "lr 0.001", "lr 0.01"]
    row = _row(made, "lr 0.01")
    assert row["value"] == runs[2].metrics["val"]["accuracy"], "one run has its own figure and interval"
    assert row["parameters"] == {"trainable": 2_562, "total": 3_373_570}
    assert (row["macs"], row["epochs"], row["seconds"], row["training_seconds"]) == (384_000_000, (1,), 1.5, 1.0)
    assert row["train"]["value"] == 0.9
    assert row["train"]["n"] == 300
    assert (row["differs"], row["seeds"], row["spread"], row["test"]) == ({"lr": 0.01}, 1, None, None)
    assert made.record()["base"]["optimizer"] == "adam"
    assert "lr" not in made.record()["base"]


def test_pairs_are_mcnemars_test_and_holms_correction(runs: list[Run]) -> None:
    made = compare(runs)
    right = [run.predictions("val").logits.argmax(axis=1) == TRUTH for run in runs]
    for pair, (one, other) in zip(made.pairs, ((0, 1), (0, 2), (1, 2)), strict=True):
        wins, losses = int((right[one] & ~right[other]).sum()), int((~right[one] & right[other]).sum())
        assert pair.p == pytest.approx(binomtest(wins, wins + losses).pvalue)
        assert pair.difference["value"] == pytest.approx((wins - losses) / N)
        assert pair.difference["low"] <= pair.difference["value"] <= pair.difference["high"]
        assert (pair.difference["low"] > 0 or pair.difference["high"] < 0) == (pair.p < 0.05)
        assert pair.test == "McNemar's exact test"
    ordered = sorted(made.pairs, key=lambda pair: pair.p)
    assert ordered[0].p_holm == pytest.approx(3 * ordered[0].p)
    assert ordered[2].p_holm >= ordered[1].p_holm


def test_the_rows_like_the_best_are_named(runs: list[Run], tmp_path: Path) -> None:
    near = _run(tmp_path / "near", 0.79, lr=0.02)
    made = compare([*runs, near])
    best = max(made.rows, key=lambda row: row.value["value"])  # type: ignore[index]
    assert best.best
    assert best.difference is None
    assert best.label in made.best
    assert "lr 0.02" in made.best
    assert "lr 0.0001" not in made.best
    worst = _row(made, "lr 0.0001")
    assert worst["p"] < 0.05
    assert worst["difference"]["high"] < 0


def test_predictions_are_paired_by_id_not_by_place(runs: list[Run], tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(N)
    said = runs[2].predictions("val")
    ids = [f"val{number:05}" for number in order]
    turned = scored_run(tmp_path / "turned", TRUTH[order], said.logits[order], ids=ids, lr=0.5)
    pair = compare([runs[2], turned]).pairs[0]
    assert (pair.difference["value"], pair.p) == (0, 1)


def test_runs_that_differ_in_the_seed_make_one_row(tmp_path: Path) -> None:
    low = [_run(tmp_path / f"low{seed}", 0.7, seed, lr=0.001) for seed in range(3)]
    high = [_run(tmp_path / f"high{seed}", 0.8, seed, lr=0.01) for seed in range(3)]
    made = compare([*low, *high])
    row = _row(made, "lr 0.001")
    values = [run.metrics["val"]["accuracy"]["value"] for run in low]
    assert row["seeds"] == 3
    assert row["value"]["value"] == pytest.approx(np.mean(values))
    assert row["value"]["n"] == N
    assert row["spread"] == {"low": min(values), "high": max(values), "sd": pytest.approx(np.std(values, ddof=1))}
    assert made.pairs[0].test == "sign-flip permutation test"
    assert made.best == ("lr 0.01",)
    alone = compare(low)
    assert [row.seeds for row in alone.rows] == [3]
    again = _run(tmp_path / "again", 0.7, 0, lr=0.001)
    assert [row.label for row in compare([*low, again]).rows] == ["low0", "again"], "a seed counts once in a row"


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "log_loss"])
def test_other_metrics_rank_and_test(metric: str, tmp_path: Path) -> None:
    rows = [_run(tmp_path / f"{acc}-{s}", acc, s, lr=acc) for acc in (0.6, 0.85) for s in (0, 1)]
    made = compare(rows, metric=metric)
    assert made.best == ("lr 0.85",)
    expected = "sign-flip permutation test" if metric == "log_loss" else "paired bootstrap"
    assert {pair.test for pair in made.pairs} == {expected}
    row = _row(made, "lr 0.85")
    assert row["value"]["low"] < row["value"]["value"] < row["value"]["high"]
    mean = np.mean([run.metrics["val"][metric]["value"] for run in rows[2:]])
    assert row["value"]["value"] == pytest.approx(mean)


def test_images_with_several_labels_count_when_every_label_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "dataset", lambda _: SimpleNamespace(samples=lambda _: range(300)))
    sets = ((), (0,), (1,), (0, 1))
    labels = (np.arange(N) % 4).astype(np.int32)
    targets = np.array([[0 in s, 1 in s] for s in sets])[labels]
    random = np.random.default_rng(0)
    rows = []
    for name, noise in (("a", 0.3), ("b", 2.5)):
        logits = (np.where(targets, 2, -2) + random.normal(0, noise, targets.shape)).astype(np.float32)
        rows.append(scored_run(tmp_path / name, labels, logits, label_sets=sets, lr=noise, loss="binary_cross_entropy"))
    made = compare(rows, metric="accuracy")
    right = (rows[1].predictions("val").logits > 0) == targets
    assert _row(made, "lr 2.5")["value"]["value"] == pytest.approx(right.all(axis=1).mean())
    assert made.best == ("lr 0.3",)
    score = compare(rows, metric="macro_f1")
    expected = f1_score(targets, rows[1].predictions("val").logits > 0, average="macro")
    assert _row(score, "lr 2.5")["value"]["value"] == pytest.approx(expected)
    usual = compare(rows)
    assert (usual.metric, usual.best) == ("mean_average_precision", ("lr 0.3",))
    assert {pair.test for pair in usual.pairs} == {"paired bootstrap"}
    expected = average_precision_score(targets, rows[1].predictions("val").logits, average="macro")
    assert _row(usual, "lr 2.5")["value"]["value"] == pytest.approx(expected)
    with pytest.raises(bw.RunError, match="these runs have no metric 'balanced_accuracy'"):
        compare(rows, metric="balanced_accuracy")


def _fold(folder: Path, fold: int, accuracy: float, **given: Any) -> Run:
    ids = [f"val{number:05}" for number in range(100 * fold, 100 * fold + 100)]
    truth = TRUTH[:100]
    logits = answers(truth, accuracy, fold + round(1000 * accuracy))
    return scored_run(folder, truth, logits, ids=ids, fingerprint=f"{fold}" * 64, **given)


def test_folds_are_pooled(tmp_path: Path) -> None:
    entries = [
        bw.RowSpec(name, tuple(_fold(tmp_path / f"{name}{k}", k, acc, lr=acc) for k in range(3)))
        for name, acc in (("a", 0.6), ("b", 0.9))
    ]
    made = compare(entries)
    values = [run.metrics["val"]["accuracy"]["value"] for run in entries[1].runs]
    row = _row(made, "b")
    assert row["value"]["value"] == pytest.approx(np.mean(values))
    assert row["value"]["n"] == 300
    assert made.best == ("b",)
    assert compare(entries, metric="macro_f1").best == ("b",)
    uneven = bw.RowSpec("c", (*entries[0].runs, _fold(tmp_path / "more", 0, 0.7, lr=0.6)))
    with pytest.raises(
        bw.RunError, match="c: its runs were evaluated on different images that are not folds of one data set"
    ):
        compare([entries[1], uneven])
    with pytest.raises(bw.RunError, match=r"c \(b0, b1\) has another validation split \(200 of its 200 images"):
        compare([entries[0], bw.RowSpec("c", entries[1].runs[:2])])


def test_each_published_figure_is_held_against_ours_of_the_same_split(runs: list[Run], tmp_path: Path) -> None:
    opened = _run(tmp_path / "opened", 0.8, lr=0.5, test=(TRUTH, answers(TRUTH, 0.7, 5), 1))
    smooth = _run(tmp_path / "smooth", 0.7, lr=0.6, label_smoothing=0.1)
    mixed = _run(tmp_path / "mixed", 0.7, lr=0.6, mixup=0.2)
    every = bw.Published(train=0.98, val=0.7, test=0.5, train_loss=0.4, test_loss=1.2, seconds=364, note="Table 2")
    entries = [
        bw.RowSpec("sealed", (runs[0],), every),
        bw.RowSpec("opened", (opened,), every),
        bw.RowSpec("smooth", (smooth,), every),
        bw.RowSpec("mixed", (mixed,), every),
        bw.RowSpec("f1", (_run(tmp_path / "f1", 0.66, lr=0.7),), bw.Published(val=0.6, train=0.9, metric="macro_f1")),
        bw.RowSpec(
            "other", (_run(tmp_path / "other", 0.67, lr=0.8),), bw.Published(val=0.6, metric="mean_average_precision")
        ),
    ]
    made = compare(entries)
    found = {
        row.label: {(one.split, one.metric): one for one in row.published.figures} for row in made.rows if row.published
    }
    assert list(found["sealed"]) == [
        *((split, "accuracy") for split in ("train", "val", "test")),
        *((split, "log_loss") for split in ("train", "test")),
    ]
    value = runs[0].metrics["val"]["accuracy"]["value"]
    assert found["sealed"]["val", "accuracy"].ours == runs[0].metrics["val"]["accuracy"]
    assert found["sealed"]["val", "accuracy"].difference == pytest.approx(value - 0.7)
    assert found["sealed"]["train", "accuracy"].difference == pytest.approx(0.9 - 0.98), "the mean over the kept epoch"
    assert found["sealed"]["train", "log_loss"].difference == pytest.approx(0.5 - 0.4)
    for figure in (found["sealed"]["test", "accuracy"], found["sealed"]["test", "log_loss"]):
        assert (figure.ours, figure.difference, figure.missing) == (None, None, "sealed")
    tested = opened.metrics["test"]
    assert found["opened"]["test", "accuracy"].ours == tested["accuracy"] == made.rows[1].test
    assert found["opened"]["test", "log_loss"].difference == pytest.approx(tested["log_loss"]["value"] - 1.2)
    assert found["smooth"]["train", "accuracy"].difference == pytest.approx(0.9 - 0.98)
    assert found["smooth"]["train", "log_loss"].missing == "not measured", "a smoothed loss is another one"
    assert found["mixed"]["train", "accuracy"].missing == "not measured", "answers for blended images"
    assert found["f1"]["val", "macro_f1"].ours == entries[4].runs[0].metrics["val"]["macro_f1"]
    assert found["f1"]["train", "macro_f1"].missing == "not measured"
    assert found["other"]["val", "mean_average_precision"].missing == "not measured"


def test_a_published_range_is_left_from_its_nearest_end(runs: list[Run]) -> None:
    value = runs[0].metrics["val"]["accuracy"]["value"]
    for low, high, expected in ((0.2, 0.3, value - 0.3), (0.9, 0.95, value - 0.9), (0.1, 0.9, 0.0)):
        made = compare([bw.RowSpec("a", (runs[0],), bw.Published(val=(low, high))), bw.RowSpec("b", (runs[1],))])
        assert made.rows[0].published
        (figure,) = made.rows[0].published.figures
        assert figure.value == pytest.approx((low + high) / 2)
        assert (figure.low, figure.high) == (low, high)
        assert figure.difference == pytest.approx(expected)


def test_a_loss_on_another_scale_is_not_compared(runs: list[Run]) -> None:
    """A network that is wrong for 19.36 % has a mean cross-entropy of ln 2 times that, 0.134, at least."""
    given = bw.Published(val=0.8064, val_loss=0.0033, train_loss=0.0001)
    made = compare(
        [bw.RowSpec("a", (runs[0],), given), bw.RowSpec("b", (runs[1],), bw.Published(val=0.8, val_loss=0.14))]
    )
    missing = {row.label: [one.missing for one in row.published.figures] for row in made.rows if row.published}
    assert missing == {"a": ["", "", "other scale"], "b": ["", ""]}
    assert "Other scale: a loss too low for its accuracy to be a mean over images" in format_comparison(made)


def test_the_figures_of_a_row_as_json_and_as_csv(runs: list[Run]) -> None:
    given = bw.Published(
        train=0.9706, val=0.5, test=(0.28, 0.3), val_loss=1.5, seconds=364, machine="a GPU", parameters=5
    )
    made = compare([bw.RowSpec("a", (runs[0],), given, stand_in="A for B"), bw.RowSpec("b", (runs[1],))])
    row = json.loads(json.dumps(_row(made, "a")))
    assert {name: row["published"][name] for name in ("value", "metric", "split", "ours_split")} == {
        "value": 0.5,
        "metric": "accuracy",
        "split": "val",
        "ours_split": "val",
    }
    assert [(one["split"], one["metric"]) for one in row["published"]["figures"]] == [
        ("train", "accuracy"),
        ("val", "accuracy"),
        ("test", "accuracy"),
        ("val", "log_loss"),
    ]
    assert (row["published"]["seconds"], row["published"]["machine"], row["stand_in"]) == (364, "a GPU", "A for B")
    first, second = csv.DictReader(io.StringIO(made.csv()))
    assert float(first["published_train_value"]) == 0.9706
    assert (first["published_test_low"], first["published_test_high"], first["published_test_difference"]) == (
        "0.28",
        "0.3",
        "",
    )
    assert float(first["published_val_difference"]) == float(first["published_difference"])
    assert (first["published_val_loss_value"], first["published_train_loss_value"]) == ("1.5", "")
    assert (first["published_seconds"], first["published_machine"], first["published_parameters"]) == (
        "364",
        "a GPU",
        "5",
    )
    assert (first["state"], first["stand_in"], second["stand_in"]) == ("done", "A for B", "")
    assert {second[name] for name in second if name.startswith("published")} == {""}


def test_a_published_leak_is_one_finding(runs: list[Run]) -> None:
    """Rows of study 1: transfer rows with test far above validation, one from scratch without."""
    rows = [
        bw.Published(val=0.8064, test=0.91),
        bw.Published(val=0.7489, test=0.962),
        bw.Published(val=0.0944, test=0.097),
    ]
    entries = [bw.RowSpec(str(n), (run,), given) for n, (run, given) in enumerate(zip(runs, rows, strict=True))]
    entries.append(bw.RowSpec("not run", (), bw.Published(val=(0.9, 0.905), test=0.979), "no weights"))
    (found,) = [finding for finding in compare(entries).findings if finding.code == "R002"]
    assert (found.severity, found.rows) == ("warning", ("0", "1", "not run"))
    assert found.message == (
        "The source reports test scores far above validation scores, in 3 of 4 rows with both: by 7.4 to 21.3 points "
        "(test 91.0 to 97.9 %, validation 74.9 to 90.5 %). Its test images may have been used for training."
    )


def test_a_row_that_failed_stands_in_the_table(runs: list[Run]) -> None:
    made = compare(
        [bw.RowSpec("good", (runs[0],)), bw.RowSpec("bad", (), bw.Published(test=0.9), "the loss is no number")]
    )
    row = _row(made, "bad")
    assert (row["value"], row["problem"], row["published"]["value"]) == (None, "the loss is no number", 0.9)
    assert [finding.code for finding in made.findings if "bad" in finding.rows] == ["R006"]
    assert made.best == ("good",)
    pruned = bw.RowSpec("trial 3", (), problem="pruned after epoch 3", state="pruned")
    kept = compare([bw.RowSpec("good", (runs[0],)), pruned])
    assert "R006" not in {finding.code for finding in kept.findings}
    assert kept.table()[1]["problem"] == "pruned after epoch 3"
    refused = bw.RowSpec("wild", (), problem="momentum: expected under 1", state="refused")
    table = compare([bw.RowSpec("good", (runs[0],)), refused])
    assert (table.rows[1].state, table.rows[1].problem) == ("refused", "momentum: expected under 1")
    assert not any("wild" in finding.rows for finding in table.findings), "nothing asks to run it again"
    assert "Refused: wild: momentum: expected under 1" in format_comparison(table)
    nothing = compare([bw.RowSpec("a", (), problem="x"), bw.RowSpec("b", (), problem="y")])
    assert nothing.best == ()
    assert json.loads(json.dumps(nothing.record()))["data"] == {}


def test_differences_are_told_from_a_base(runs: list[Run], tmp_path: Path) -> None:
    flipped = _run(tmp_path / "flipped", 0.7, lr=0.001, flip=0.5, clip=1.0)
    made = compare([*runs, flipped], base={"optimizer": "adam", "lr": 0.001})
    assert [row["differs"] for row in made.table()] == [{"lr": 0.0001}, {}, {"lr": 0.01}, {"clip": 1.0, "flip": 0.5}]
    assert _row(made, made.rows[0].label)["options"] == {"lr": 0.0001, "clip": None, "flip": 0.0}


def test_a_best_row_at_the_edge_is_found(runs: list[Run]) -> None:
    found = {finding.code: finding for finding in compare(runs).findings}
    assert "largest lr that was tried (0.01)" in found["R003"].message
    wider = compare(runs, edges={"lr": [1e-4, 1e-3, 1e-2, 1e-1]})
    assert "R003" not in {finding.code for finding in wider.findings}
    listed = [bw.RowSpec(str(number), (one,), varied=False) for number, one in enumerate(runs)]
    assert "R003" not in {finding.code for finding in compare(listed).findings}


def test_csv_and_json_hold_every_row(runs: list[Run]) -> None:
    made = compare(runs)
    lines = list(csv.DictReader(io.StringIO(made.csv())))
    assert [line["label"] for line in lines] == [row.label for row in made.rows]
    assert float(lines[2]["value_value"]) == runs[2].metrics["val"]["accuracy"]["value"]
    assert lines[2]["differs"] == "lr 0.01"
    assert lines[0]["test_value"] == ""
    record = json.loads(json.dumps(made.record()))
    assert set(record["rows"][0]["value"]) == {"value", "low", "high", "n"}
    assert len(record["pairs"]) == 3
    assert record["best"] == list(made.best)
    assert record["hardware"] == ["a cpu, 2 cores; trained on cpu"]


# Refusals.


def _other_ids(tmp_path: Path) -> Run:
    ids = [f"val{number:05}" for number in range(50, 50 + N)]
    return scored_run(tmp_path / "ids", TRUTH, answers(TRUTH, 0.7, 1), ids=ids, fingerprint="e" * 64)


def test_other_images_are_refused(runs: list[Run], tmp_path: Path) -> None:
    other = _other_ids(tmp_path)
    with pytest.raises(
        bw.RunError, match=r"compared with lr 0.0001 \(run4\): lr 0.001 \(ids\) has another validation split \(350 of"
    ):
        compare([runs[0], other])


def test_other_data_are_refused(runs: list[Run], tmp_path: Path) -> None:
    other = _run(tmp_path / "other", 0.7, fingerprint="e" * 64)
    with pytest.raises(bw.RunError, match=r"\(other\) was trained on other data or another split") as caught:
        compare([runs[0], other])
    assert "photos eeeeeeee instead of photos ffffffff" in caught.value.message


def test_other_classes_are_refused(runs: list[Run], tmp_path: Path) -> None:
    four = scored_run(tmp_path / "four", TRUTH, answers(TRUTH, 0.7, 1, classes=4))
    with pytest.raises(bw.RunError, match=r"\(four\) has other classes"):
        compare([runs[0], four])


def test_other_labels_are_refused(runs: list[Run], tmp_path: Path) -> None:
    turned = TRUTH[::-1].copy()
    other = scored_run(tmp_path / "labels", turned, answers(turned, 0.7, 1))
    with pytest.raises(bw.RunError, match=r"\(labels\) has other labels of the validation images"):
        compare([runs[0], other])


def test_rows_on_other_images_can_stand_apart(runs: list[Run], tmp_path: Path) -> None:
    other = _other_ids(tmp_path)
    made = compare([*runs, other], apart=True)
    assert [row.group for row in made.rows] == [1, 1, 1, 2]
    assert len(made.pairs) == 3
    assert other.path.name not in {name for pair in made.pairs for name in (pair.one, pair.other)}
    assert made.rows[3].tied, "it is the best on its own images"


def test_fewer_than_two_runs_are_refused(runs: list[Run]) -> None:
    with pytest.raises(bw.RunError, match=r"A comparison needs two or more runs \(none\)"):
        compare([])
    with pytest.raises(bw.RunError, match=r"A comparison needs two or more runs \(run4\)"):
        compare(runs[:1])
    with pytest.raises(bw.RunError, match="run4: is given twice"):
        compare([runs[0], runs[1], runs[0].path])


def test_unfinished_runs_are_refused(runs: list[Run], tmp_path: Path) -> None:
    stopped = _run(tmp_path / "stopped", 0.7, state="stopped")
    with pytest.raises(bw.RunError, match=r"stopped: is not a finished run \(state: stopped\)"):
        compare([runs[0], stopped])
    with pytest.raises(bw.RunError, match="its training was interrupted"):
        compare([runs[0], stopped.path])


def test_unknown_metrics_and_splits_are_refused(runs: list[Run]) -> None:
    with pytest.raises(bw.RunError, match="these runs have no metric 'acuracy'") as caught:
        compare(runs, metric="acuracy")
    assert "Did you mean 'accuracy'?" in caught.value.hint
    with pytest.raises(bw.RunError, match="runs cannot be compared on 'train'"):
        compare(runs, split="train")


def _opened(folder: Path, looks: int, seed: int = 0, truth: NDArray[np.int32] = TRUTH) -> Run:
    return _run(folder, 0.7, lr=looks / 100, test=(truth, answers(truth, 0.8, looks + 10 * seed), looks))


def test_a_sealed_test_split_is_refused(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(
        bw.RunError, match="The test set is still sealed for run4, so the runs cannot be compared on it"
    ):
        compare([_opened(tmp_path / "one", 1), runs[0]], split="test")


def test_test_splits_of_different_looks_are_refused_unless_allowed(tmp_path: Path) -> None:
    first, third = _opened(tmp_path / "first", 1), _opened(tmp_path / "third", 3)
    with pytest.raises(
        bw.RunError, match=r"used a different number of times \(looks\): first \(look 1\), third \(look 3\)"
    ):
        compare([first, third], split="test")
    made = compare([first, third], split="test", allow_looks=True)
    finding = next(finding for finding in made.findings if finding.code == "R009")
    assert "lr 0.01 (1); lr 0.03 (3)" in finding.message
    assert finding.rows == ("lr 0.03",)
    assert made.rows[0].value == first.metrics["test"]["accuracy"]
    same = _run(tmp_path / "same", 0.7, lr=0.5, test=(TRUTH, answers(TRUTH, 0.6, 2), 1))
    assert compare([first, same], split="test").best


def test_other_sealed_images_are_refused(tmp_path: Path) -> None:
    first = _opened(tmp_path / "first", 1)
    fewer = _run(tmp_path / "fewer", 0.7, lr=0.5, test=(TRUTH[:90], answers(TRUTH[:90], 0.6, 2), 1))
    with pytest.raises(bw.RunError, match=r"\(fewer\) has another test split \(90 of its 90 images are shared\)"):
        compare([first, fewer], split="test")


def test_a_folder_gives_its_finished_runs(runs: list[Run], tmp_path: Path) -> None:
    _run(tmp_path / "stopped", 0.7, state="stopped")
    found, left = find_runs(tmp_path)
    assert {run.path for run in found} == {run.path for run in runs}
    assert left == ["stopped (stopped)"]
    assert len(compare([tmp_path]).rows) == 3
    assert [run.path for run in find_runs("run4", tmp_path)[0]] == [tmp_path / "run4"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(bw.RunError, match="is not a run folder"):
        find_runs(tmp_path / "empty")
    _run(tmp_path / "only" / "one", 0.7, state="stopped")
    with pytest.raises(bw.RunError, match="contains no finished run"):
        find_runs(tmp_path / "only")


def test_a_metric_that_a_run_was_made_without_is_refused(runs: list[Run]) -> None:
    def without(run: Run) -> Run:
        val = run.record.val
        figures = {name: figure for name, figure in val.figures.items() if name != "macro_f1"}
        return Run(run.path, run.record.model_copy(update={"metrics": {"val": replace(val, figures=figures)}}))

    with pytest.raises(RunError, match="metric: these runs have no metric 'macro_f1'"):
        compare([without(runs[0]), runs[1]], metric="macro_f1")


def _table(folder: Path) -> Comparison:
    """Two seeds, one of them tested, against one run, a failure and a published figure."""
    test = (TRUTH, answers(TRUTH, 0.7, 1), 1)
    two = tuple(_run(folder / f"two{seed}", 0.7, seed, lr=0.1, test=test) for seed in (0, 1))
    entries = [bw.RowSpec("two", two, bw.Published(test=0.8)), bw.RowSpec("one", (_run(folder / "one", 0.8, lr=0.01),))]
    return compare([*entries, bw.RowSpec("none", (), problem="It failed.")], base={"optimizer": "adam"})


# Keys that version 0.1 has not written.
ADDED = {"p_alone", "state", "stand_in", "figures", "machine"}


def _without_added(part: Any) -> Any:
    """A document without the keys that version 0.1 has not written."""
    if isinstance(part, list):
        return [_without_added(one) for one in part]
    if not isinstance(part, dict):
        return part
    left_out = {*ADDED, "seconds", "parameters"} if "figures" in part else ADDED
    return {name: _without_added(one) for name, one in part.items() if name not in left_out}


def _without_intervals(part: Any) -> Any:
    """A document without the ends of its intervals."""
    if isinstance(part, list):
        return [_without_intervals(one) for one in part]
    if not isinstance(part, dict):
        return part
    left_out = {"low", "high"} if "n" in part else set()
    return {name: _without_intervals(one) for name, one in part.items() if name not in left_out}


def test_a_comparison_is_written_as_version_0_1_has_written_it(tmp_path: Path) -> None:
    kept = (Path(__file__).parents[1] / "kept" / "comparison-0.1.json").read_text()
    text = json.dumps(_table(tmp_path).record(), indent=1).replace(str(tmp_path), "/runs")
    record, expected = (json.loads(one, parse_float=lambda number: round(float(number), 6)) for one in (text, kept))
    as_then = _without_added(record)
    assert _without_intervals(as_then) == _without_intervals(expected)
    names = [line.split(":")[0] for line in json.dumps(as_then, indent=1).splitlines()]
    assert names == [line.split(":")[0] for line in kept.splitlines()], "the order of the keys"
    assert record["rows"][0]["p_alone"] == record["pairs"][0]["p"]
    for row, other in zip(record["rows"][:2], expected["rows"][:2], strict=True):  # another method, as good as equal
        for end in ("low", "high"):
            assert row["value"][end] == pytest.approx(other["value"][end], abs=0.005)
