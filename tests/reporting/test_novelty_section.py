"""What the report tells of images that show none of the classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from budwood.evaluation.intervals import Metric
from budwood.reporting.novelty_section import draw_scores, find_strangest, show_novelty
from budwood.reporting.templating import load_template
from budwood.runs.confidence_record import ConfidenceRecord, NoveltyRecord, StrangersRecord
from budwood.runs.run import Run
from conftest import answers, scored_run

AREA = Metric(0.9, 0.8, 0.95, 40)
KNOWN = np.linspace(0, 1, 100).astype(np.float32)


def make_record(**changes: Any) -> NoveltyRecord:
    usual: dict[str, Any] = {"method": "knn", "threshold": 0.95, "share": 0.05, "neighbour": 5, "n": 100}
    return NoveltyRecord(**{**usual, "auroc": {"knn": AREA, "mahalanobis": AREA}, **changes})


def render(folder: Path, novelty: NoveltyRecord, scores: Mapping[str, NDArray[np.float32]]) -> str:
    labels = (np.arange(100) % 3).astype(np.int32)
    run: Run = scored_run(folder, labels, answers(labels, 0.9, 0))
    record = run.record.model_copy(update={"confidence": ConfidenceRecord(novelty=novelty)})
    module: Any = load_template("novelty.html").make_module({"record": record, "place": "run"})
    return re.sub(r"\s+", " ", module.section(show_novelty(record, scores, ()), lambda images: ""))


def count_bars(svg: str) -> int:
    return len(re.findall(r"<rect [^>]*fill-opacity", svg))


def test_the_strangest_images_come_first_and_those_without_a_score_never() -> None:
    scores = np.array([0.1, np.nan, 0.9, 0.5, np.inf], np.float32)
    assert find_strangest({"validation": scores}) == [4, 2, 3, 0]
    assert find_strangest({}) == []


class TestChart:
    def test_says_how_many_are_refused(self) -> None:
        svg = draw_scores(make_record(), KNOWN, np.full(10, 2, np.float32))
        assert "Of 100 validation images 5.0 % are refused" in svg
        assert "Of 10 strangers 100.0 % are refused" in svg
        assert ">refused</text>" in svg

    @pytest.mark.parametrize("strangers", [None, np.array([np.inf, 1e30, 0.5], np.float32)])
    def test_scores_without_end_are_drawn_at_the_end(self, strangers: NDArray[np.float32] | None) -> None:
        svg = draw_scores(make_record(), KNOWN, strangers)
        assert "nan" not in svg
        assert "inf" not in svg
        assert count_bars(svg) >= 10

    @pytest.mark.parametrize("known", [np.zeros(1), np.zeros(50), np.full(3, -4.5)])
    def test_scores_that_are_all_the_same(self, known: NDArray[np.float64]) -> None:
        svg = draw_scores(make_record(threshold=float(known[0])), known.astype(np.float32), None)
        assert count_bars(svg) == 1


class TestWords:
    def test_name_score_threshold_and_share(self, tmp_path: Path) -> None:
        page = render(tmp_path / "run", make_record(), {"validation": KNOWN})
        assert "distance of its features to those of its 5th nearest training image (nearest neighbours)" in page
        assert "With a score above 0.95 it is refused as none of the classes" in page
        assert "5 % are refused; 5 of the 100 validation images are" in page
        assert "budwood calibrate run --unknown FOLDER" in page

    @pytest.mark.parametrize(("k", "named"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (50, "50th")])
    def test_count_the_neighbour(self, k: int, named: str, tmp_path: Path) -> None:
        page = render(tmp_path / "run", make_record(neighbour=k), {"validation": KNOWN})
        assert f"its {named} nearest training image" in page

    def test_of_too_few_images(self, tmp_path: Path) -> None:
        page = render(tmp_path / "run", make_record(n=8), {"validation": KNOWN[:8]})
        assert "The 8 validation images are too few to refuse no more than 5 %" in page

    def test_of_nothing_to_compare(self, tmp_path: Path) -> None:
        page = render(tmp_path / "run", make_record(auroc={}), {"validation": KNOWN})
        assert "No class could be left out" in page

    def test_of_strangers(self, tmp_path: Path) -> None:
        strangers = StrangersRecord(folder="odd <b>", n=1, auroc=AREA, fpr95=AREA, refused=AREA)
        scores = {"validation": KNOWN, "strangers": np.ones(1, np.float32)}
        page = render(tmp_path / "run", make_record(strangers=strangers), scores)
        assert "1 image of <code>odd &lt;b&gt;</code>" in page
        assert "90.0&nbsp;% <small>80–95</small>" in page


def test_a_run_that_cannot_tell_strangers_shows_nothing(tmp_path: Path) -> None:
    labels = (np.arange(30) % 3).astype(np.int32)
    run = scored_run(tmp_path / "run", labels, answers(labels, 0.9, 0))
    assert show_novelty(run.record, {}, ()) is None
    assert run.novelty_scores() == {}
    assert run.novelty_scorer() is None
