"""Pages of runs on images with several labels: headed, ranked and searched by mean average precision."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import budwood as bw
from budwood.cli.main import run as command
from budwood.runs.confidence_record import ConfidenceRecord, DecisionsRecord
from budwood.runs.run import Run, open_run
from budwood.runs.run_record import save_record
from budwood.workflows.report import render_report
from conftest import picture

SMALL: dict[str, Any] = {"model": "cnn", "widths": (4,), "fc": (8,), "size": 16, "epochs": 2, "batch": 16}


def _write_table(folder: Path) -> Path:
    """Pictures with a white or a black corner, both or none of them."""
    folder.mkdir()
    lines = ["path,labels"]
    for number in range(80):
        image = picture(number)
        corners = [name for name, bit in (("white", 1), ("black", 2)) if number & bit]
        for name in corners:
            place = (0, 0, 12, 12) if name == "white" else (28, 28, 40, 40)
            image.paste(Image.new("RGB", (12, 12), name), place)
        image.save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'; '.join(corners)}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_table(tmp_path_factory.mktemp("several") / "photos")


@pytest.fixture(scope="module")
def run(table: Path) -> Run:
    return bw.train(bw.scan(table), bw.Recipe(**SMALL), out=table.parents[1] / "runs")


def test_the_report_is_headed_by_mean_average_precision(run: Run) -> None:
    page = (run.path / "report.html").read_text()
    assert "Validation mean average precision</p>" in page
    assert f"{100 * run.metrics['val']['mean_average_precision']['value']:.1f}\u00a0%" in page
    assert "accuracy: all labels of an image correct</dt>" in page
    assert ">average precision</button>" in page
    assert "<h2>Mistakes by label</h2>" in page
    train, val = (len(run.dataset().samples(split)) for split in ("train", "val"))
    assert re.search(rf"<p>{train} images for training and {val} for validation; \d+ and \d+ of them have none", page)
    assert "mean average precision" in page.split("<h2>Curves</h2>")[1]


def test_every_label_of_a_mistake_is_a_yes_or_a_no_at_its_threshold(run: Run) -> None:
    never = ConfidenceRecord(decisions=DecisionsRecord(rule="recall=0.9", thresholds=(1.0, 1.0)))
    page = render_report(replace(run, record=run.record.model_copy(update={"confidence": never})))
    mistakes = page.split("<h2>Worst mistakes</h2>")[1].split("<h2>")[0]
    assert '<b class="wrong">none of them</b>' in mistakes
    assert '<b class="wrong">no</b>' in mistakes
    assert "yes" not in mistakes.split("</p>", 1)[1]
    told = page.split("<h2>Mistakes by label</h2>")[1].split("<h2>")[0]
    assert told.count('<td class="number">1.00</td>') == 2
    assert "thresholds chosen on the validation set by the rule recall=0.9" in told
    assert "its threshold (see Mistakes by label)" in page
    half = render_report(run)
    assert half.split("<h2>Mistakes by label</h2>")[1].count('<td class="number">0.50</td>') == 2


def test_the_terminal_and_the_comparison_put_it_first(
    run: Run, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = table.parents[1] / "runs"
    options = ["--model", "cnn", "--widths", "4", "--fc", "8", "--size", "16", "--epochs", "2", "--seed", "1"]
    assert command(["train", str(table), *options, "--class-weights", "true", "--out", str(out)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Validation ")]
    assert told[0].startswith("Validation mean average precision")
    assert told[-1].endswith("; all labels of an image correct")
    assert command(["compare", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metric"] == "mean_average_precision"
    assert command(["compare", str(out), "--metric", "accuracy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metric"] == "accuracy"
    assert command(["report", str(run.path), "--json"]) == 0
    assert Path(json.loads(capsys.readouterr().out)["card"]).is_file()


def test_runs_that_lack_it_are_compared_by_accuracy(run: Run, tmp_path: Path) -> None:
    copies = []
    for number in range(2):
        scores = run.record.val
        old = replace(
            scores, figures={name: one for name, one in scores.figures.items() if name != "mean_average_precision"}
        )
        record = run.record.model_copy(update={"id": f"old{number}", "metrics": {"val": old}})
        folder = tmp_path / f"old{number}"
        folder.mkdir()
        for file in run.path.iterdir():
            if file.is_file():
                (folder / file.name).write_bytes(file.read_bytes())
        save_record(folder, record)
        copies.append(open_run(folder))
    assert bw.compare(copies).metric == "accuracy"


def test_a_search_ranks_by_it_unless_it_began_with_another(table: Path, tmp_path: Path) -> None:
    options = {**SMALL, "optimizer": "adam"}
    found = bw.tune(table, options, trials=1, out=tmp_path)
    assert found.metric == "mean_average_precision"
    (folder,) = tmp_path.iterdir()
    state = json.loads((folder / "study.json").read_text())
    assert state["metric"] == "mean_average_precision"
    (folder / "study.json").write_text(json.dumps({**state, "metric": "accuracy"}))
    assert command(["report", str(folder)]) == 0
    assert "validation accuracy" in (folder / "report.html").read_text()
    assert bw.tune(table, options, trials=1, out=tmp_path).metric == "accuracy"
    assert bw.tune(table, options, trials=1, metric="macro_f1", out=tmp_path).metric == "macro_f1"


def test_the_members_of_an_ensemble_are_compared_by_it(run: Run, table: Path, tmp_path: Path) -> None:
    other = bw.train(bw.scan(table), bw.Recipe(**SMALL, seed=2), out=tmp_path)
    made = bw.ensemble([run, other], out=tmp_path)
    page = (made.path / "report.html").read_text()
    assert '<th class="number">validation score</th>' in page
    assert "by mean average precision" in page
