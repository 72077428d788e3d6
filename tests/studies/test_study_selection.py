"""What a study selects: images of each class, what `--quick` keeps, what a setting takes out of a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import budwood as bw
from budwood.cli import main
from budwood.errors import StudyError
from budwood.runs.run import find_run
from budwood.storage.context import open_context
from budwood.studies.reports import report_study
from budwood.studies.study import Overrides, Study
from budwood.studies.study_file import make_tuning_study, parse_study
from budwood.studies.training_job import DatasetCache, digest_job
from conftest import SMALL_STUDY, fill

BASE: dict[str, Any] = {"name": "small", "data": "photos", "base": {"optimizer": "adam", "epochs": 3}}
GRID: dict[str, Any] = {"label": "all", "lr": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]}
SPACE: dict[str, Any] = {
    "optimizer": ["adam", "sgd"],
    "batch": [8, 16],
    "momentum": {"low": 0.5, "high": 0.9, "when": {"optimizer": ["sgd"]}},
}


def _study(overrides: Overrides | None = None, **table: Any) -> Study:
    return parse_study({**BASE, **table}, "small.toml", "", overrides)


def _refused(**table: Any) -> str:
    with pytest.raises(StudyError) as refused:
        _study(**table)
    return refused.value.message


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    found = main.run(list(arguments), as_json="--json" in arguments)
    out, err = capsys.readouterr()
    assert found == 0, err
    return out


class TestImagesPerClass:
    def test_rows_grids_and_the_base_have_them(self) -> None:
        made = _study(
            base={**BASE["base"], "test_images_per_class": 8},
            rows=[{"label": "small", "images_per_class": 32, "val_images_per_class": 4}],
            grid={"images_per_class": [20, 50], "lr": [0.1]},
        )
        assert [row.images.per_class() for row in made.rows] == [
            {"images_per_class": 32, "val_images_per_class": 4, "test_images_per_class": 8},
            {"images_per_class": 20, "test_images_per_class": 8},
            {"images_per_class": 50, "test_images_per_class": 8},
        ]
        assert [row.label for row in made.rows[1:]] == ["images per class 20", "images per class 50"]

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ({"rows": [{"images_per_class": 0}]}, "images_per_class: expected a whole number from 1, found 0"),
            (
                {"rows": [{"test_images_per_class": 2.5}]},
                "test_images_per_class: expected a whole number from 1, found",
            ),
            (
                {"rows": [{"label": "a", "images_per_class": 5, "images": 9}]},
                "rows (a): images_per_class: expected either images (in total, at most) or images_per_class (of each",
            ),
            (
                {"base": {**BASE["base"], "images_per_class": 5}, "rows": [{"label": "a", "images": 9}]},
                "rows (a): images: expected either images",
            ),
            ({"base": {"images": 9}, "grid": {"images_per_class": [5]}}, "grid: images_per_class: expected either"),
            (
                {"base": {"images": 9, "images_per_class": 5}, "search": {"space": {"batch": [8, 16]}}},
                "base: images: expected either",
            ),
            (
                {"base": {"images": 9}, "search": {"base": {"images_per_class": 5}, "space": {"batch": [8]}}},
                "search: base.images_per_class: expected either",
            ),
        ],
    )
    def test_a_mistake_has_its_message(self, table: dict[str, Any], message: str) -> None:
        assert message in _refused(**table)

    def test_they_decide_the_run_and_nothing_changes_without_them(self) -> None:
        plain, exact, fewer = _study(
            rows=[{"label": "plain"}, {"images_per_class": 5}, {"images_per_class": 4}], base=BASE["base"]
        ).rows
        assert plain.images.record() == {"data": "photos"}
        assert exact.recipe
        digests = {digest_job(exact.recipe, row.images, "f" * 64, None, None) for row in (plain, exact, fewer)}
        assert len(digests) == 3

    def test_each_row_trains_on_its_number_and_few_images_fail_their_row_alone(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(photos.parent)
        fill(photos / "leaf", 6, first=700, hue=1)
        rows = "".join(
            f'[[rows]]\nlabel = "{count}"\nimages_per_class = {count}\nval_images_per_class = 3\n'
            f"test_images_per_class = 5\n"
            for count in (4, 6, 400)
        )
        file = photos.parent / "small.toml"
        file.write_text(SMALL_STUDY + rows)
        made = bw.study(file)
        runs = [find_run(row.runs[0]) for row in made.rows[:2]]
        assert [run.record.dataset.counts.train for run in runs] == [{"leaf": n, "sky": n} for n in (4, 6)]
        assert {(*run.record.dataset.counts.val.values(), run.record.dataset.counts.test) for run in runs} == {
            (3, 3, 10)
        }
        assert set(runs[0].dataset().samples("train").ids) < set(runs[1].dataset().samples("train").ids)
        assert made.rows[2].problem == (
            "photos: images_per_class: expected 400 training images of each class, 'leaf' has 23, 'sky' has 19."
        )
        assert [find.message for find in runs[0].record.findings if find.code == "D063"][2] == (
            "10 of 13 test images were drawn, 5 of each class; the others were not selected."
        )
        tested = bw.test(runs[0]).opened().metrics.accuracy
        assert tested.n == 10

    def test_quick_limits_them_in_total(self, photos: Path, tmp_path: Path) -> None:
        rows = [{"images_per_class": 12, "val_images_per_class": 4}]
        made = _study(Overrides(quick=True), data=str(photos), rows=rows, quick={"images": 8})
        data = DatasetCache(open_context(tmp_path / "cache")).load(made.rows[0].images).data
        assert data.counts()["train"] == data.counts()["val"] == {"leaf": 4, "sky": 4}


class TestQuick:
    def _labels(self, points: int, *published: float) -> list[str]:
        figures = [{"where": {"lr": lr}, "value": 0.5} for lr in published]
        made = _study(Overrides(quick=True), grid={**GRID, "published": figures}, quick={"points": points})
        return [row.label.removeprefix("all: lr ") for row in made.rows]

    def test_points_with_published_figures_are_kept_and_others_are_spread_evenly(self) -> None:
        assert self._labels(3) == ["0.1", "0.4", "0.7"]
        assert self._labels(3, 0.2) == ["0.1", "0.2", "0.7"]
        assert self._labels(4, 0.7, 0.2) == ["0.1", "0.2", "0.6", "0.7"]
        assert self._labels(1, 0.3) == ["0.3"]
        assert self._labels(2, 0.3, 0.4, 0.5) == ["0.3", "0.4", "0.5"], (
            "all that are published, though more than points"
        )
        assert len(self._labels(9, 0.3)) == 7

    def test_what_is_left_out_is_told(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(photos.parent)
        grid = '[[grid]]\nlabel = "rates"\nlr = [0.001, 0.01, 0.1]\n'
        grid += "[[grid.published]]\nwhere = { lr = 0.01 }\nvalue = 0.5\n"
        search = '[search]\nsampler = "random"\ntrials = 3\n[search.space]\ndropout = [0.1, 0.2]\n'
        file = photos.parent / "small.toml"
        file.write_text(SMALL_STUDY + grid + search + "[quick]\nimages = 8\npoints = 2\ntrials = 1\n")
        told = "Left out: 1 of 3 rows of the grid 'rates' (points = 2); 2 of 3 trials of the search (trials = 1)."
        assert told in _said(capsys, "study", "small.toml", "--quick", "--dry-run")
        (record,) = json.loads(_said(capsys, "study", "small.toml", "--quick", "--dry-run", "--json"))
        assert len(record["left_out"]) == 2
        made = bw.study(file, quick=True)
        assert told in [finding.message for finding in made.findings]
        page = (photos.parent / "runs/small/report.html").read_text()
        assert "1 of 3 rows of the grid" in page
        assert report_study(Path("runs/small")).findings == made.findings
        assert (photos.parent / "runs/small/report.html").read_text() == page
        assert not _study(rows=[{}], grid=GRID).left_out


class TestSearch:
    def test_what_applies_with_a_setting_is_searched_and_what_does_not_is_told(self) -> None:
        sgd = _study(Overrides(settings={"optimizer": "sgd"}), search={"space": SPACE})
        assert sgd.search
        assert {name: dict(axis.when) for name, axis in sgd.search.space.items()} == {"batch": {}, "momentum": {}}
        assert sgd.left_out == ("the search for optimizer (set for every row)",)
        adam = _study(Overrides(settings={"optimizer": "adam"}), search={"space": SPACE})
        assert adam.search
        assert list(adam.search.space) == ["batch"]
        assert adam.left_out == (
            "the search for optimizer (set for every row)",
            "the search for momentum (it applies only with optimizer = sgd)",
        )
        assert not _study(search={"space": SPACE}).left_out

    def test_a_default_search_in_a_grid_is_refused(self) -> None:
        with pytest.raises(StudyError, match="sampler: 'grid' goes through lists of values, but a default") as refused:
            make_tuning_study("photos", {"optimizer": "adam"}, sampler="grid")
        assert "write a study file" in str(refused.value.hint)
        with pytest.raises(StudyError, match=r"sampler: found 'cma'\. Valid: grid, random, tpe"):
            make_tuning_study("photos", {}, sampler="cma")

    def test_quick_refuses_a_single_image(self) -> None:
        """Of two classes none could be told from the other."""
        assert "quick: images: expected a whole number from 2, found 1" in _refused(rows=[{}], quick={"images": 1})
