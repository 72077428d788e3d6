"""The first screen answers three questions; a page has contents, folds findings, and says where images are too few."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from budwood.data.checks import Finding, Severity
from budwood.evaluation.intervals import Metric, proportion_interval
from budwood.evaluation.label_task import SingleLabel
from budwood.evaluation.result_checks import ResultFinding
from budwood.evaluation.split_metrics import ClassMetrics, SplitMetrics
from budwood.reporting.confused_part import OTHERS, cut_confused_part
from budwood.reporting.contents import CONTENTS, add_contents
from budwood.reporting.first_screen import answer_first
from budwood.reporting.glossary import MEANINGS, Glossary
from budwood.reporting.judgements import judge_slice, judge_slices, judge_suspects
from budwood.reporting.run_page import Evidence, Pictures, render_run
from budwood.runs.explanation_record import JudgedLabels, SliceScore
from budwood.runs.run import open_any_run
from budwood.runs.run_record import RunRecord
from budwood.text import say_too_few

KEPT = Path(__file__).parents[1] / "kept"
ALL_CLEAR = {"findings": ()}


@pytest.fixture(scope="module")
def record() -> RunRecord:
    """The record of a finished run with one label an image."""
    return open_any_run(KEPT / "single").record.model_copy(update={"test": None})


def score(record: RunRecord, right: int, n: int) -> SplitMetrics:
    """Scores of which the class with most training images has two thirds of the images, and the others what is left."""
    classes, train = record.dataset.classes, record.dataset.counts.train
    usual, rest = max(classes, key=lambda name: train[name]), (n - 2 * n // 3) // (len(classes) - 1)
    nothing = Metric(None, None, None, 0)
    each = {}
    for name in classes:
        size = 2 * n // 3 if name == usual else rest
        each[name] = ClassMetrics(nothing, proportion_interval(size, size), proportion_interval(size, size), size)
    figures = dict.fromkeys(("balanced_accuracy", "macro_f1", "log_loss"), nothing)
    return SplitMetrics({"accuracy": proportion_interval(right, n), **figures}, each)


def answer(record: RunRecord, right: int, n: int, **changes: Any) -> Any:
    """The first screen of a run with so many right answers."""
    made = record.model_copy(update={"metrics": {"val": score(record, right, n)}, **changes})
    return answer_first(made, SingleLabel(len(made.dataset.classes)), (), None, "/r")


def show(record: RunRecord, **changes: Any) -> str:
    """The page of a run."""
    classes = len(record.dataset.classes)
    evidence = Evidence([], Pictures(), [[0] * classes] * classes, [])
    return render_run(record, replace(evidence, **changes))


class TestIsItGoodEnough:
    @pytest.mark.parametrize(
        ("right", "n", "said"),
        [
            (297, 300, "Clearly better than the simplest answer. Of 100 new images of the same kind, expect 97 to 100"),
            (210, 300, "Not clearly better than the simplest answer."),
            (30, 300, "Worse than the simplest answer: something is wrong."),
            (3, 3, "That is too few to tell (n = 3): add validation images."),
        ],
    )
    def test_a_score_is_held_against_the_simplest_answer(
        self, record: RunRecord, right: int, n: int, said: str
    ) -> None:
        found = answer(record, right, n)
        assert found.verdict.startswith(said)
        if n == 300:
            assert found.references[0].value == pytest.approx(2 / 3)

    def test_published_scores_stand_beside_those_of_data_that_have_some(self, record: RunRecord) -> None:
        names = [one.name for one in answer(record, 290, 300, source="elpv").references]
        assert names[1:] == ["Published: support vector machine", "Published: fine-tuned VGG-19"]

    def test_the_page_shows_score_interval_n_and_baseline(self, record: RunRecord) -> None:
        made = record.model_copy(update={"metrics": {"val": score(record, 297, 300)}})
        first = show(made).split('<nav class="contents"')[0]
        for part in ("Is it good enough?", "99.0", "to 99.8 %, n = 300", "Always answering", "66.7", "still sealed"):
            assert part in first


class TestWhatIsWrong:
    def test_the_most_important_finding_comes_first_and_others_are_folded(self, record: RunRecord) -> None:
        order: dict[str, Severity] = {
            "D030": "note",
            "D001": "warning",
            "D013": "warning",
            "D023": "error",
            "D021": "warning",
        }
        made = [Finding(code, severity, f"It is {code}.", "Do it.", ()) for code, severity in order.items()]
        html = show(record.model_copy(update={"findings": tuple(made)}))
        first, rest = html.split('<nav class="contents"')
        assert "It is D023." in first
        assert "1 error, 3 warnings, 1 note" in first
        told, folded = rest.split('<details class="folded">')
        assert re.findall(r"It is (\w+)", told) == ["D023", "D021", "D013"]
        assert "<summary>2 more (1 warning, 1 note)</summary>" in folded
        assert re.findall(r"It is (\w+)", folded) == ["D001", "D030"]

    def test_nothing_found_is_said(self, record: RunRecord) -> None:
        first = show(record.model_copy(update=ALL_CLEAR)).split('<nav class="contents"')[0]
        assert "Nothing was found" in first

    def test_a_serious_finding_about_the_result_is_named(self, record: RunRecord) -> None:
        results = [ResultFinding("R004", "note", "Few.", ""), ResultFinding("R002", "error", "Far above.", "")]
        first = show(record, results=results).split('<nav class="contents"')[0]
        assert "Far above." in first
        assert "Few." not in first


def test_what_next_is_commands_that_a_shell_reads_from_any_folder(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = show(record, folder=Path("my runs/one")).split('<nav class="contents"')[0]
    words = [shlex.split(unescape(one)) for one in re.findall(r"<pre><code>(.*?)</code>", first)]
    assert [one[1] for one in words][:4] == ["test", "predict", "export", "explain"]
    assert {one[2] for one in words} == {str(tmp_path / "my runs/one")}


def test_every_link_of_the_contents_leads_to_a_section(record: RunRecord) -> None:
    html = show(record)
    places = re.findall(r'id="([^"]+)"', html)
    assert len(places) == len(set(places))
    links = re.findall(r'href="#([^"]+)"', html)
    assert set(links) <= set(places)
    assert len(re.findall("<section", html)) == len(re.findall(r'<li><a href="#', html))
    page = add_contents(f"{CONTENTS}<section><h2>A</h2></section><section>\n<h2>A</h2></section>")
    assert '<a href="#a">A</a></li><li><a href="#a-more">A</a>' in page


class TestTooFewImages:
    def test_no_figure_of_fewer_than_five_is_told(self, record: RunRecord) -> None:
        made = record.model_copy(update={"metrics": {"val": score(record, 12, 12)}})
        by_class = show(made).split("<h2>Scores by class</h2>")[1].split("</section>")[0]
        n, name = min((one.support, name) for name, one in made.val.per_class.items())
        small = next(one for one in re.findall(r"<tr><td>.*?</tr>", by_class) if f"<td>{name}</td>" in one)
        assert 0 < n < 5
        assert say_too_few(n) in small
        assert "%" not in small

    def test_a_whole_set_of_three_has_no_score(self, record: RunRecord) -> None:
        html = show(record.model_copy(update={"metrics": {"val": score(record, 3, 3)}}))
        assert '<p class="figure quiet">too few to tell</p>' in html
        assert "100.0" not in html.split("<h2>Findings about")[0].split("<h2>Recipe")[0]


def judged(n: int, rest: int, right: int, right_rest: int, p: float) -> SliceScore:
    """A slice whose difference has an interval of so many images."""
    one, other = proportion_interval(right, n), proportion_interval(right_rest, rest)
    assert one.value is not None
    assert other.value is not None
    gap, half = one.value - other.value, (1 / n + 1 / rest) ** 0.5
    return SliceScore(
        property="size",
        label="small",
        n=n,
        metric=one,
        rest=other,
        difference=Metric(gap, gap - half, gap + half, n),
        p=p,
    )


def test_slices_say_when_they_are_too_weak_to_judge() -> None:
    worse, even = judged(500, 500, 300, 450, 0.001), judged(900, 900, 800, 801, 0.9)
    weak, tiny = judged(20, 60, 15, 50, 0.6), judged(3, 60, 0, 60, 0.001)
    assert [judge_slice(one) for one in (worse, even, weak, tiny)] == [
        "worse",
        "no difference seen",
        "too few to tell",
        "too few to tell (n = 3)",
    ]
    assert judge_slices((worse, even)) == "1 of 2 subsets differs from the other images."
    assert judge_slices((worse, weak)).startswith("1 of 2 subsets differs from the other images; 1 is too small")
    assert judge_slices((weak, tiny)).startswith("All of these subsets are too small to judge")


@pytest.mark.parametrize(("right", "n", "weak"), [(90, 100, ""), (60, 100, "agrees with only 60 %"), (3, 3, "n = 3")])
def test_suspects_say_when_their_judge_is_too_weak(right: int, n: int, weak: str) -> None:
    labels = JudgedLabels(
        reason="",
        file="x.csv",
        rows=(),
        threshold=0.1,
        suggested_threshold=0.1,
        why="",
        expected=1,
        n=n,
        not_judged=0,
        folds=5,
        accuracy=proportion_interval(right, n),
        trunk="",
    )
    assert weak in judge_suspects(labels)
    assert bool(weak) == bool(judge_suspects(labels))


def test_of_many_classes_the_most_confused_are_shown() -> None:
    counts = [[5 if true == guess else 0 for guess in range(40)] for true in range(40)]
    counts[7][30], counts[3][4], counts[4][9], counts[7][1] = 9, 2, 1, 1
    part, names = cut_confused_part(counts, [f"c{number}" for number in range(40)], most=4)
    assert names == ["c3", "c4", "c7", "c30", OTHERS]
    assert part[2] == [0, 0, 5, 9, 1]
    assert sum(map(sum, part)) == sum(map(sum, counts))
    assert cut_confused_part([[1, 0], [0, 1]], ["a", "b"]) == ([], [])


def test_a_word_is_explained_once_where_it_is_first_used(record: RunRecord) -> None:
    term = Glossary()
    assert MEANINGS["F1"] in term("F1")
    assert term("F1") == "F1"
    assert term("<no word>") == "&lt;no word&gt;"
    html = show(record)
    opened = re.findall(r'popovertarget="([^"]+)"', html)
    assert opened == re.findall(r'<span class="meaning" id="([^"]+)" popover>', html)
    assert len(opened) == len(set(opened))
    assert {"word-95---confidence-interval", "word-macro-f1"} <= set(opened)
