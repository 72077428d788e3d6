"""`budwood compare`: a table, JSON, CSV and a page; every refusal is one message and exit code 2."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from budwood.text import count_columns
from conftest import answers, run_command, scored_run

TRUTH = (np.arange(200) % 3).astype(np.int32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of four finished runs, two of them seeds of one recipe, and of one that was stopped."""
    rows: list[tuple[str, float, dict[str, Any]]] = [
        ("low", 0.6, {"lr": 0.001}),
        ("high-0", 0.8, {"lr": 0.01}),
        ("high-1", 0.82, {"lr": 0.01, "seed": 1}),
        ("other", 0.7, {"optimizer": "sgd", "lr": 0.01}),
        ("stopped", 0.79, {"lr": 0.5, "state": "stopped"}),
    ]
    for seed, (name, accuracy, options) in enumerate(rows):
        scored_run(tmp_path / "runs" / name, TRUTH, answers(TRUTH, accuracy, seed), **options)
    return tmp_path / "runs"


def test_a_folder_is_a_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, table = tmp_path / "new" / "page.html", tmp_path / "new" / "table.csv"
    out, err = run_command(capsys, "compare", folder, "--html", page, "--csv", table)
    assert "Left out, because it is not finished: stopped (stopped)." in err
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["row", "validation", "accuracy", "from"]
    assert lines[2].startswith("* adam, lr 0.01")
    assert "best" in lines[2]
    assert "not distinguishable from the best (statistical tie)" in out
    assert "Alone: p of this one difference, whose interval leaves out 0 where that p is below 0.05." in out
    assert (
        "p: McNemar's exact test, sign-flip permutation test against the best row, Holm correction for all 3 pairs."
        in out
    )
    assert "Training time on a cpu, 2 cores; trained on cpu." in out
    assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")
    with table.open() as handle:
        assert [line["seeds"] for line in csv.DictReader(handle)] == ["2", "1", "1"]
    assert sorted(path.name for path in page.parent.iterdir()) == ["page.html", "table.csv"], "no draft is left"


def test_json_is_one_document(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(run_command(capsys, "compare", folder / "low", "other", "--out", folder, "--json")[0])
    assert {"metric", "split", "best", "rows", "pairs", "findings"} <= set(record)
    assert set(record["rows"][0]["value"]) == {"value", "low", "high", "n"}
    assert [Path(row["runs"][0]).name for row in record["rows"]] == ["low", "other"]


def test_another_metric(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run_command(capsys, "compare", folder, "--metric", "macro_f1")
    assert "validation macro F1" in out
    assert "paired bootstrap" in out
    out, _ = run_command(capsys, "compare", folder, "--metric", "log_loss")
    assert "0.5" in out
    assert "validation log loss" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["low"], "A comparison needs two or more runs (low)."),
        (["low", "low"], "low: is given twice."),
        (["low", "nowhere"], "nowhere: is not a run folder"),
        (["low", "stopped"], "stopped: is not a finished run"),
        (["low", "other", "--metric", "f1"], "metric: these runs have no metric 'f1'."),
        (["low", "other", "--split", "test"], "The test set is still sealed for low, other"),
        (["low", "other", "--split", "train"], "'train' is not one of 'val', 'test'"),
        ([], "Missing argument 'RUN...'"),
    ],
)
def test_refusals_have_one_message_and_exit_code_2(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = run_command(capsys, "compare", *arguments, "--out", folder, code=2)
    assert message in err
    out, _ = run_command(capsys, "compare", *arguments, "--out", folder, "--json", code=2)
    assert message in json.loads(out)["error"]["message"]


@pytest.fixture
def mixed(folder: Path) -> Path:
    """The folder with two runs of other data, and one that is alone with its own."""
    for seed, (name, fingerprint) in enumerate((("cat", "c" * 64), ("dog", "c" * 64), ("alone", "a" * 64))):
        scored_run(folder / name, TRUTH, answers(TRUTH, 0.7, seed), fingerprint=fingerprint, lr=0.1 + seed)
    return folder


def test_runs_of_several_data_sets_have_a_table_each(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = run_command(capsys, "compare", mixed, "--csv", tmp_path / "t.csv", "--html", tmp_path / "p.html")
    assert "Left out, because no other run is of its data and split: alone, photos (aaaaaaaa)." in err
    heads = [line for line in out.splitlines() if line.startswith("photos (")]
    assert heads == ["photos (cccccccc): 2 runs", "photos (ffffffff): 4 runs"]
    assert out.count("statistical tie") == 2
    assert sorted(path.name for path in tmp_path.glob("*-?.*")) == ["p-1.html", "p-2.html", "t-1.csv", "t-2.csv"]
    assert f"Page: {tmp_path / 'p-2.html'}" in out
    groups = json.loads(run_command(capsys, "compare", mixed, "--json")[0])["groups"]
    assert [len(group["rows"]) for group in groups] == [2, 3]


def test_two_runs_that_cannot_be_compared_are_still_refused(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = run_command(capsys, "compare", mixed / "low", mixed / "cat", code=2)
    assert "was trained on other data or another split" in err


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_table_fits_the_terminal(
    width: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run_command(capsys, "compare", folder)[0].splitlines()
    table = lines[: next(number for number, line in enumerate(lines) if line.startswith("* not"))]
    assert max(map(count_columns, table)) <= width
    whole = " ".join(" ".join(table).split())
    assert "The same in all rows: " in whole
    assert "parameters 3.37 M" in whole


def test_a_page_that_cannot_be_written_is_one_message(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "file").write_text("")
    _, err = run_command(capsys, "compare", folder, "--html", folder / "file" / "page.html", code=2)
    assert "cannot be written" in err


def test_looks_are_refused_and_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for looks in (1, 2):
        said = answers(TRUTH, 0.7, looks)
        scored_run(tmp_path / f"run{looks}", TRUTH, said, lr=looks / 100, test=(TRUTH, said, looks))
    _, err = run_command(capsys, "compare", tmp_path, "--split", "test", code=2)
    assert "used a different number of times (looks): run1 (look 1), run2 (look 2)" in err
    out, _ = run_command(capsys, "compare", tmp_path, "--split", "test", "--allow-looks")
    assert "R009 warning: The test set was used a different number of times (looks)" in out
