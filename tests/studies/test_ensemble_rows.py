"""Rows of a study that are ensembles of its other rows: made last, not made twice, shown beside the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import budwood as bw
from budwood.cli.main import run
from budwood.comparison.text import format_rows
from budwood.errors import StudyError
from budwood.runs.run import Run, open_run
from budwood.studies.ensemble_rows import list_study_runs
from budwood.studies.reports import report_study
from budwood.studies.runner import ExecutionOptions
from budwood.studies.study import Study
from budwood.studies.study_file import load_study, parse_study
from budwood.workflows.train import train_recipe

FILE = """
name = "small"
data = "{data}"
[base]
model = "cnn"
widths = [4]
fc = [4]
size = 16
batch = 8
optimizer = "adam"
epochs = 1
[[rows]]
label = "slow"
lr = 0.001
[[rows]]
label = "fast"
lr = 0.01
[[rows]]
label = "wild"
optimizer = "sgd"
momentum = 1.2
refused = "momentum"
[[ensembles]]
label = "both"
of = ["slow", "fast"]
[[ensembles]]
weights = "validation"
"""


@pytest.fixture
def file(tiny: Path, tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(FILE.format(data=tiny / "photos"), encoding="utf-8")
    return path


def _ensembles(folder: Path) -> dict[str, Run]:
    state = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    rows = {row["label"]: row["runs"] for row in state["rows"]}
    return {label: open_run(folder / rows[label][0]) for label in ("both", "ensemble of all") if rows[label]}


class TestCarriedOut:
    def test_they_are_made_last_and_shown_like_other_rows(self, file: Path, tmp_path: Path) -> None:
        comparison = bw.study(file, out=tmp_path / "runs")
        assert [row.label for row in comparison.rows] == ["slow", "fast", "wild", "both", "ensemble of all"]
        made = _ensembles(tmp_path / "runs" / "small")
        for row in comparison.rows[3:]:
            record = made[row.label].record
            assert row.value
            assert row.value == record.val.accuracy
            assert row.group == 1, "beside the rows that it is made of"
        assert [one.record.ensemble.rule for one in made.values() if one.record.ensemble] == ["equal", "validation"]
        assert comparison.rows[3].differs["ensemble"] == "of 2 runs"
        with pytest.raises(StudyError, match="these rows are ensembles themselves"):
            list_study_runs(tmp_path / "runs" / "small", ["both", "ensemble of all"])
        assert {"R020"} <= {one.code for one in comparison.findings}
        (short,) = (one for one in comparison.findings if one.code == "R011")
        assert short.rows == ("slow", "fast"), "an ensemble was not trained"
        table = (tmp_path / "runs" / "small" / "table.csv").read_text(encoding="utf-8")
        page = (tmp_path / "runs" / "small" / "report.html").read_text(encoding="utf-8")
        assert "ensemble of all" in table
        assert "ensemble of all" in page

    def test_what_was_made_is_not_made_again_but_of_other_members(self, file: Path, tmp_path: Path) -> None:
        bw.study(file, out=tmp_path / "runs")
        folder = tmp_path / "runs" / "small"
        first = {label: one.record.created + one.path.name for label, one in _ensembles(folder).items()}
        bw.study(file, out=tmp_path / "runs")
        assert {label: one.record.created + one.path.name for label, one in _ensembles(folder).items()} == first
        file.write_text(file.read_text().replace("lr = 0.001", "lr = 0.002"), encoding="utf-8")
        bw.study(file, out=tmp_path / "runs")
        assert _ensembles(folder)["both"].path.name not in first["both"]

    def test_a_report_is_written_again_from_the_folder(self, file: Path, tmp_path: Path) -> None:
        made = bw.study(file, out=tmp_path / "runs")
        again = report_study(tmp_path / "runs" / "small")
        assert [(row.label, row.value) for row in again.rows] == [(row.label, row.value) for row in made.rows]

    def test_seeds_and_a_search_are_members_too_and_test_sets_are_opened(self, tiny: Path, tmp_path: Path) -> None:
        study = _parse(
            tiny,
            seeds=[0, 1],
            rows=[{"label": "trial run", "lr": 0.01, "published": {"note": "its own"}}],
            search={"sampler": "random", "trials": 2, "space": {"lr": [0.02, 0.03]}, "best": {"note": "a trial's"}},
            ensembles=[{"of": ["trial run"]}, {"of": "all"}],
        )
        comparison = bw.study(study, out=tmp_path, execution=ExecutionOptions(test=True))
        seeds, every = (row for row in comparison.rows if row.label.startswith("ensemble"))
        assert (seeds.label, every.label) == ("ensemble of 1 row", "ensemble of all")
        assert [len(open_run(row.runs[0]).members()) for row in (seeds, every)] == [2, 4]
        notes = {row.label: row.published.note for row in comparison.rows if row.published}
        assert notes.pop("trial run") == "its own", "a row is no trial, whatever its label"
        assert list(notes.values()) == ["a trial's"]
        assert seeds.test
        assert every.test
        assert len((tmp_path / "s" / "test-looks.csv").read_text().splitlines()) == 1

    def test_folds_of_a_row_are_cross_validated(self, tiny: Path, tmp_path: Path) -> None:
        study = _parse(
            tiny,
            folds=2,
            rows=[{"label": "one"}, {"label": "few", "images_per_class": 2}],
            ensembles=[{"label": "folds", "of": ["one"]}, {"label": "both"}],
            claims=[{"says": "joined is better", "better": "both", "than": "few"}],
        )
        comparison = bw.study(study, out=tmp_path)
        one, _, folds, both = comparison.rows
        assert both.value, "a row of fewer training images is a fold of the same images"
        assert [row.group for row in comparison.rows] == [1] * 4, "all answer the same images"
        assert comparison.claims[0].verdict != "not tested"
        told = [cells.differs for cells in format_rows(comparison, "given")]
        assert (told[0], told[1]) == ("", "4 training images"), "what tells the row apart is no option of its recipe"
        assert {(pair.one, pair.other): pair.p for pair in comparison.pairs}["one", "folds"] == 1.0, "the same answers"
        assert one.value
        assert folds.value
        assert folds.value.value == pytest.approx(one.value.value)
        assert folds.value.n == one.value.n

    def test_of_a_row_that_failed_fails_and_says_so(
        self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _fail_rows(monkeypatch, lambda lr: lr == 0.5)
        study = _parse(
            tiny,
            rows=[{"label": "bad", "lr": 0.5}, {"label": "one", "lr": 0.01}, {"label": "two", "lr": 0.02}],
            ensembles=[{"label": "named", "of": ["bad", "one"]}, {"label": "rest"}],
        )
        rows = {row.label: row for row in bw.study(study, out=tmp_path).rows}
        assert rows["named"].problem == "is made of bad, which failed"
        assert len(open_run(rows["rest"].runs[0]).members()) == 2, "of all that did not fail"

    def test_of_one_run_is_refused_or_fails_with_the_reason(
        self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = {"label": "one"}
        for made_of in ({"of": ["one"]}, {"of": "all"}):
            with pytest.raises(StudyError, match="an ensemble needs two or more runs, and this would be of one"):
                _parse(tiny, rows=[one], ensembles=[made_of])
        searched = {"sampler": "random", "trials": 2, "space": {"lr": [0.02, 0.03]}}
        assert _parse(tiny, rows=[one], ensembles=[{}], search=searched).ensembles, "trials are members, too"
        _fail_rows(monkeypatch, lambda lr: lr == 0.5)
        study = _parse(tiny, rows=[one, {"label": "bad", "lr": 0.5}], ensembles=[{"label": "alone"}])
        rows = {row.label: row for row in bw.study(study, out=tmp_path).rows}
        assert "An ensemble needs two or more finished runs" in rows["alone"].problem

    def test_of_the_same_rows_as_another_is_a_mistake(self, tiny: Path) -> None:
        rows = [{"label": "bad", "lr": 0.5}, {"label": "one", "lr": 0.01}, {"label": "two", "lr": 0.02}]
        for first, second in (({"of": ["one", "two"]}, {"of": ["two", "one"]}), ({}, {"of": ["two", "bad", "one"]})):
            with pytest.raises(StudyError, match="is the same ensemble as 'a'"):
                _parse(tiny, rows=rows, ensembles=[{"label": "a", **first}, {"label": "b", **second}])
        both = [{"label": "a", "weights": "validation"}, {"label": "b"}]
        assert len(_parse(tiny, rows=rows, ensembles=both).ensembles) == 2, "weighted otherwise"

    def test_waits_for_rows_that_have_no_time(self, tiny: Path, tmp_path: Path) -> None:
        study = _parse(tiny, rows=[{"label": "one"}, {"label": "two", "lr": 0.02}], ensembles=[{"label": "mean"}])
        with pytest.raises(StudyError, match="no row could be trained"):
            bw.study(study, out=tmp_path, execution=ExecutionOptions(time=0.0))
        state = json.loads((tmp_path / "s" / "study.json").read_text(encoding="utf-8"))
        assert (state["state"], state["rows"][-1]["state"]) == ("stopped", "waiting")
        assert state["rows"][-1]["problem"] == "waits for one, two"
        assert bw.study(study, out=tmp_path).rows[-1].value


def _fail_rows(monkeypatch: pytest.MonkeyPatch, fails: Callable[[object], bool]) -> None:
    train = train_recipe

    def failing(data: bw.Dataset, recipe: bw.Recipe, **options: Any) -> Run:
        if fails(recipe.lr):
            raise bw.RunError("It broke.", "")
        return train(data, recipe, **options)

    monkeypatch.setattr("budwood.studies.training_job.train_recipe", failing)


def _parse(tiny: Path, **tables: object) -> Study:
    base = {"model": "cnn", "widths": [4], "fc": [4], "size": 16, "batch": 8, "optimizer": "adam", "epochs": 1}
    return parse_study({"name": "s", "data": str(tiny / "photos"), "base": base, **tables}, "s", "")


def test_a_dry_run_says_what_they_are(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", str(file), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "ensemble of 'slow', 'fast', equal weights: made of copies of finished runs, nothing is trained" in out
    assert "ensemble of all rows, weights selected on validation" in out
    assert "in total" in out, "they cost nothing, so the sum is known"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('of = ["slow", "fast"]', 'of = ["slwo", "fast"]', "there is no row 'slwo'"),
        ('of = ["slow", "fast"]', 'of = ["slow", "wild"]', "the row 'wild' is refused, so it has no runs"),
        ('of = ["slow", "fast"]', 'of = ["slow", "slow"]', "names the row 'slow' twice"),
        ('of = ["slow", "fast"]', 'of = "some"', "expected 'all' or a list of labels of rows"),
        ('of = ["slow", "fast"]', "of = []", "expected 'all' or a list of labels of rows"),
        ('of = ["slow", "fast"]', "of = [1]", "expected 'all' or a list of labels of rows, found [1]"),
        ('label = "both"', 'label = "slow"', "has the label of another row, 'slow', so give it a `label` of its own"),
        ('weights = "validation"', 'weights = "best"', "found 'best'. Valid: equal, validation"),
        ('weights = "validation"', "weight = 1", "weight"),
        ("[base]", "folds = 3\n[base]", "folds cannot be weighted by validation"),
    ],
)
def test_mistakes_are_told_with_their_line(file: Path, before: str, after: str, message: str) -> None:
    text = file.read_text(encoding="utf-8").replace(before, after, 1)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match="line") as caught:
        load_study(file)
    assert message in caught.value.message
    assert "has 1 mistake: line" in caught.value.message
