"""A model card says what the run's files say, is read by the hub, and takes no name of the user's for markup."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]
from markdown_it import MarkdownIt

import budwood as bw
from budwood.evaluation.intervals import Metric, proportion_interval
from budwood.reporting.licences import describe_data_licence, describe_weights_licence
from budwood.reporting.markdown import escape_markdown, escape_prose, format_code, format_markdown_table
from budwood.reporting.model_card import render_model_card
from budwood.runs.confidence_record import (
    CalibrationRecord,
    ConfidenceRecord,
    DecisionsRecord,
    NoveltyRecord,
    SetsRecord,
    StrangersRecord,
)
from budwood.runs.run import Run
from conftest import fill

HOSTILE = ("a|b `c`", "<img src=x onerror=alert(1)>", "[d](http:e) *f* _g_ ~h~ $i$", "1. j & k\\l", "- m", "# n")
READER = MarkdownIt("commonmark").enable("table")


def _read(text: str) -> str:
    """The text of Markdown as a reader sees it; raw HTML is an error."""
    parts = []
    for token in READER.parse(text):
        assert token.type != "html_block"
        for child in token.children or ():
            assert child.type not in ("html_inline", "link_open", "image", "em_open", "strong_open")
            parts.append(child.content)
    return "".join(parts)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on two classes with names that are markup."""
    folder = tmp_path_factory.mktemp("card")
    for hue, name in enumerate(("a|b `c`", "<script>d")):
        fill(folder / "photos" / name, 24, hue=hue)
    recipe = bw.Recipe(model="cnn", widths=(4,), fc=(4,), size=16, epochs=1, batch=8)
    return bw.train(bw.scan(folder / "photos"), recipe, out=folder / "runs", novelty=False)


def _with(run: Run, **changes: Any) -> Run:
    return replace(run, record=run.record.model_copy(update=changes))


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_read_as_they_are(name: str) -> None:
    assert _read(escape_markdown(name)) == name
    assert _read(f"- {escape_markdown(name)}") == name
    table = "\n".join(format_markdown_table(["class", "n"], [[escape_markdown(name), "3"]], right=(1,)))
    assert _read(table) == f"classn{name}3"
    assert _read(escape_prose(f"{name} has ` in it")).startswith(name.split("`")[0])


def test_code_is_code_whatever_backticks_it_has() -> None:
    for text in ("plain", "a`b", "``", "`a", "<b>|"):
        assert _read(format_code(text)) == text
    assert format_code("") == ""
    assert _read(escape_prose("Run `budwood test RUN` now.")) == "Run budwood test RUN now."


def test_the_hub_reads_its_head(run: Run) -> None:
    _, head, body = render_model_card(run).split("---\n", 2)
    assert yaml.safe_load(head) == {
        "license": "unknown",
        "library_name": "budwood",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "budwood", "cnn"],
        "metrics": ["accuracy", "f1"],
    }
    assert body.startswith("\n# photos: image classifier\n")


def test_it_is_written_beside_every_report_and_says_what_the_record_says(run: Run) -> None:
    written = (run.path / "model_card.md").read_text()
    assert written == render_model_card(run)
    told = _read(written.split("---\n", 2)[2])
    val = run.metrics["val"]
    for name in ("accuracy", "macro_f1"):
        figure = val[name]
        assert f"{100 * figure['value']:.1f} % (95 % interval {100 * figure['low']:.1f} to" in told
    assert f"n = {val['accuracy']['n']}" in told
    assert run.record.dataset.fingerprint in told
    assert "a|b `c`" in told
    assert "<script>d" in told
    assert "40 pixels wide and 40 high (colour; png)" in told
    assert 'it has no answer "none of these"' in told
    assert "is still sealed" in told
    assert "Not calibrated" in render_model_card(_with(run, confidence=None))
    assert "No slices of the images were scored" in told
    assert "Not checked: the score on images that took no part in any choice" in told
    assert "Weights of cnn: none needed: the weights were random at the start." in told
    assert "Data: not known to Budwood" in told
    page = (run.path / "report.html").read_text()
    assert "<h2>Model card</h2>" in page
    assert "Data: not known to Budwood" in page
    assert "<script>d" not in page


def test_the_lines_of_its_example_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    card = render_model_card(run)
    code = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(run.path.parents[1])
    photo = next((run.path.parents[1] / "photos").rglob("*.png"))
    said: list[Any] = []
    exec(code.replace('"photo.jpg"', repr(str(photo))), {"print": said.append})
    assert {name for name, _ in said[0]} == set(run.classes)


def test_the_opened_test_set_stands_there_with_its_looks(run: Run) -> None:
    opened = bw.test(run)
    card = _read((opened.path / "model_card.md").read_text().split("---\n", 2)[2])
    assert "The test set was looked at 1 time." in card
    assert f"n = {opened.metrics['test']['accuracy']['n']}" in card
    later = opened.opened().model_copy(update={"looks": 3})
    again = _read(render_model_card(_with(opened, test=later)).split("---\n", 2)[2])
    assert "looked at 3 times, so its scores are no longer those of a first look" in again


def test_what_is_known_of_confidence_stands_there(run: Run) -> None:
    half = proportion_interval(5, 10)
    strangers = StrangersRecord(folder="odd|ones", n=7, auroc=half, fpr95=half, refused=half)
    confidence = ConfidenceRecord(
        calibration=CalibrationRecord(
            temperature=(1.5,),
            before=Metric(0.2, None, None, 10),
            after=half,
            noise={"val": 0.02},
            test={"before": half, "after": half},
        ),
        sets=SetsRecord(coverage=0.9, limits=(0.1, 0.2), per_class=(True, False), n=10),
        decisions=DecisionsRecord(rule="costs", costs=((0.0, 1.0), (5.0, 0.0))),
        novelty=NoveltyRecord(
            method="energy", threshold=1.0, share=0.05, auroc={"energy": half}, neighbour=1, n=10, strangers=strangers
        ),
    )
    card = _read(
        render_model_card(_with(run, confidence=confidence))
        .replace("*None", "None")
        .replace("these*", "these")
        .split("---\n", 2)[2]
    )
    assert "expected calibration error 50.0 % (95 % interval" in card
    assert "On the test set, calibrated: 50.0 %" in card
    assert "Prediction sets hold the true class of 90 % of images like the 10" in card
    assert "the class with the lowest expected cost" in card
    assert "odd|ones, which show none of the classes: 50.0 %" in card
    assert "5.0 % of the images that do show one are refused, too" in card
    assert "calibration); images that show" not in card


ALL, MOST = proportion_interval(100, 100), proportion_interval(91, 100)


@dataclass(frozen=True)
class Parity:
    n: int = 100
    largest_difference: float = 3.2e-5
    agreement: Metric = ALL
    accuracy: Metric = MOST
    run_accuracy: Metric = MOST


def test_the_check_of_an_export_stands_there_where_there_is_one(run: Run) -> None:
    card = render_model_card(run, Parity())
    assert "## The exported file" in card
    assert "checked against the run on 100 images" in card
    assert "largest difference of a probability: 3.2e-05" in card
    assert "accuracy of the run: 91.0 % (95 % interval" in card
    assert "## The exported file" not in render_model_card(run)


def test_licences_are_known_or_said_not_to_be(run: Run) -> None:
    network, record = run.record.network, run.record
    weights = network.weights.model_copy(update={"kind": "imagenet"})
    lite = network.model_copy(update={"name": "tf_efficientnet_lite0", "source": "timm", "weights": weights})
    assert describe_weights_licence(lite) == "Apache-2.0"
    assert describe_weights_licence(lite.model_copy(update={"name": "tf_efficientnet_lite2"})) == "Apache-2.0"
    assert "not known" in describe_weights_licence(lite.model_copy(update={"name": "resnet18"}))
    own = weights.model_copy(update={"kind": "file"})
    assert "not known" in describe_weights_licence(lite.model_copy(update={"weights": own}))
    other = weights.model_copy(update={"kind": "run", "about": "run 7 on birds"})
    assert "run 7 on birds" in describe_weights_licence(lite.model_copy(update={"weights": other}))
    elpv = record.model_copy(update={"source": "elpv", "root": "/lib/elpv_dataset/data"})
    assert describe_data_licence(elpv).startswith("CC BY-NC-SA 4.0")
    assert "not known" in describe_data_licence(record.model_copy(update={"source": "elpv", "root": "/mine/elpv"}))


def test_labels_that_have_thresholds_are_scored_at_these(tmp_path: Path) -> None:
    fill(tmp_path / "photos", 40)
    lines = [f'{number:03}.png,"{"x" if number % 2 else "x; y"}"' for number in range(40)]
    (tmp_path / "photos" / "t.csv").write_text("path,labels\n" + "\n".join(lines) + "\n")
    recipe = bw.Recipe(model="cnn", widths=(4,), fc=(4,), size=16, epochs=1, batch=8)
    run = bw.train(bw.scan(tmp_path / "photos" / "t.csv"), recipe, out=tmp_path / "runs")
    limits = tuple(np.quantile(run.task.to_probabilities(run.predictions("val").logits), 0.5, axis=0).tolist())
    chosen = ConfidenceRecord(decisions=DecisionsRecord(rule="f1", thresholds=limits))
    plain, card = render_model_card(run), render_model_card(_with(run, confidence=chosen))
    assert "An image has a label where its probability is over 0.5." in plain
    assert f"(f1): x {limits[0]:.2f}, y {limits[1]:.2f}." in card
    assert "any number of labels, or none, of 2 classes: x, y." in card
    assert '- "multi-label"' in card
    rows = {line for text in (plain, card) for line in text.splitlines() if line.startswith("| y |")}
    assert len(rows) == 2
    assert "mean average precision" in card
