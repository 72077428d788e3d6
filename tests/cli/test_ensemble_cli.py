"""`budwood ensemble`: what it prints, its JSON, its study folders, and each refusal as one message and exit code 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.runs.run import open_run
from budwood.studies.study_file import parse_study
from conftest import TINY, run_command

ROWS = [{"label": "low", "lr": 0.001}, {"label": "high", "lr": 0.02}]
STUDY = {"base": {**TINY, "widths": [4], "fc": [4], "optimizer": "adam"}, "rows": ROWS}


@pytest.fixture
def runs(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs `one` and `two`, in the working folder."""
    shutil.copytree(tiny / "runs", tmp_path / "runs")
    bw.train(bw.scan(tiny / "photos"), Recipe(**{**TINY, "seed": 1}), out=tmp_path / "runs", id="two")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def _made(runs: Path) -> Path:
    (found,) = runs.glob("*-ensemble-*")
    return found


def test_prints_the_score_the_members_and_what_comes_next(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run_command(capsys, "ensemble", "one", runs / "two")
    assert out.startswith("Validation accuracy")
    assert "  weight 0.50  one\n  weight 0.50  two\n" in out
    assert "The answer is the mean of the probabilities of 2 networks, each with the same weight." in out
    assert f"budwood test {_made(Path('runs'))}" in out


def test_then_tests_predicts_and_compares_like_any_run(
    runs: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(run_command(capsys, "ensemble", "one", "two", "--weights", "validation", "--json")[0])
    assert document["ensemble"]["rule"] == "validation"
    assert set(document["metrics"]["val"]["accuracy"]) == {"value", "low", "high", "n"}
    name = Path(document["run"]).name
    assert json.loads(run_command(capsys, "test", name, "--json")[0])["looks"] == 1
    table = runs / "answers.csv"
    said = json.loads(run_command(capsys, "predict", name, tiny / "photos" / "sky", "--csv", table, "--json")[0])
    assert len(said) == 15
    assert len(table.read_text(encoding="utf-8").splitlines()) == 16
    out, _ = run_command(capsys, "compare", "one", "two", name)
    assert "ensemble of" in out
    assert "R020" in out
    assert run_command(capsys, "report", name)[0].strip().endswith("report.html")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one"], "An ensemble needs two or more finished runs"),
        (["one", "one"], "is given twice"),
        (["one", "three"], "three: is not a run folder"),
        (["one", "two", "--row", "low"], "--row: needs the folder of a study in place of RUN"),
        (["one", "two", "--weights", "best"], "'best' is not one of 'equal', 'validation'"),
    ],
)
def test_a_refusal_is_one_message(
    runs: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(runs.iterdir())
    assert message in run_command(capsys, "ensemble", *arguments, code=2)[1]
    assert sorted(runs.iterdir()) == before


class TestStudy:
    def test_stands_for_its_finished_runs_selected_greedily(
        self, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = {"name": "two", "data": str(tiny / "photos"), **STUDY}
        bw.study(parse_study(table, "two", ""), out=tmp_path)
        document = json.loads(run_command(capsys, "ensemble", tmp_path / "two", "--json")[0])
        assert document["ensemble"]["rule"] == "validation"
        assert Path(document["run"]).parent == tmp_path / "two", "beside its members, where their looks are counted"
        assert len(document["ensemble"]["candidates"]) == 2
        again = json.loads(run_command(capsys, "ensemble", tmp_path / "two", "--weights", "equal", "--json")[0])
        assert len(again["ensemble"]["members"]) == 2, "the first ensemble is no row of the study"
        assert "no row 'hihg'" in run_command(capsys, "ensemble", tmp_path / "two", "--row", "hihg", code=2)[1]
        one = run_command(capsys, "ensemble", tmp_path / "two", "--row", "high", code=2)[1]
        assert "needs two or more finished runs" in one
        shutil.rmtree(next((tmp_path / "two").glob("low-*")))
        assert (
            "Left out, because it is not finished: low (done)."
            in run_command(capsys, "ensemble", tmp_path / "two", code=2)[1]
        )
        shutil.rmtree(next((tmp_path / "two").glob("high-*")))
        assert "none of these rows has a finished run" in run_command(capsys, "ensemble", tmp_path / "two", code=2)[1]

    def test_the_folds_of_a_row_are_one_with_the_cross_validated_score(
        self, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = {"name": "cv", "data": str(tiny / "photos"), "folds": 2, **STUDY}
        comparison = bw.study(parse_study(table, "cv", ""), out=tmp_path)
        out, _ = run_command(capsys, "ensemble", tmp_path / "cv", "--row", "high", "--out", tmp_path / "own")
        assert out.startswith("Cross-validated accuracy")
        (found,) = (tmp_path / "own").iterdir()
        scored = open_run(found).record.val.accuracy
        (row,) = [row for row in comparison.rows if row.label == "high"]
        assert row.value
        assert scored.n == row.value.n
        assert scored.value == pytest.approx(row.value.value)
        both = json.loads(run_command(capsys, "ensemble", tmp_path / "cv", "--json")[0])
        assert len(both["ensemble"]["members"]) == 4, "two rows, two folds"
        assert both["ensemble"]["folds"] is True
