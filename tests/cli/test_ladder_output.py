"""What a search prints: a table that fits a terminal, what each rung gave, and its plan."""

from __future__ import annotations

import re
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from budwood.cli.ladder_output import show_ladder, show_ladder_plan
from budwood.runs.ladder_record import LadderRecord, PlannedRow, RungRecord
from budwood.text import count_columns
from conftest import answers, scored_run
from made_ladders import BEST, make_candidate, make_frozen, make_ladder, make_together, make_tuned

LONG = "a very long name of a candidate, with 字 and\nmore, " * 5


def print_ladder(
    folder: Path, ladder: LadderRecord | None, capsys: pytest.CaptureFixture[str], name: str = BEST
) -> list[str]:
    labels = (np.arange(30) % 3).astype(np.int32)
    with chdir(folder):
        run = scored_run(Path("runs") / name, labels, answers(labels, 0.9, 0))
        show_ladder(replace(run, record=run.record.model_copy(update={"ladder": ladder})))
    return capsys.readouterr().out.splitlines()


def test_a_search_in_few_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = print_ladder(tmp_path, make_ladder(), capsys)
    assert len(lines) <= 18
    assert max(map(count_columns, lines)) <= 100
    told = [re.sub(r"\s+", " ", line).strip() for line in lines]
    chosen = told.index("lite1 at 320 pixels, last stages 86.2 % (84.6 to 87.7) 1,968 17 s kept")
    assert told[chosen + 1] == "pooled"
    assert "resnet50 at 320 pixels – 1 min 35 s no time" in told
    assert "fine-tuned lite1, last 3 stages, 8 epochs 88.5 % (84.9 to 91.5) 391 2 min 22 s kept" in told
    assert "together frozen and fine-tuned, equal 89.3 % (85.8 to 92.1) 391 3 s chosen" in told
    whole = " ".join(told)
    assert "had 5 min and took 4 min 3 s: 6 candidates were tried, 1 was left out for want of time" in whole
    assert "1 more in the report" in whole
    assert "fine-tuned: +2.0 points over the best before (95 % interval −0.3 to +4.6, n = 391; p = 0.096)." in whole
    assert "Kept: its loss on validation is better." in whole
    assert lines[-1] == "  budwood train /photos --time 20m"


@pytest.mark.parametrize(
    "rungs",
    [
        (make_frozen(),),
        (make_frozen(candidates=tuple(make_candidate(LONG, 1900 - n, 123_456) for n in range(30)), chosen=29),),
        (make_frozen(), make_tuned(note=LONG), make_tuned(run=None, candidates=(), chosen=None), make_together()),
        (make_frozen(), RungRecord(name="fine-tuned", note="90 training images are too few."), make_together()),
    ],
)
def test_fits_a_terminal_whatever_was_tried(
    rungs: tuple[RungRecord, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = print_ladder(tmp_path, make_ladder(rungs=rungs), capsys)
    assert max(map(count_columns, lines)) <= 100
    assert len(lines) <= 24


def test_a_long_rung_shows_the_chosen_candidate_and_the_best_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = make_frozen(candidates=tuple(make_candidate(f"number {n}", 1000 + n) for n in range(20)), chosen=3)
    told = print_ladder(tmp_path, make_ladder(rungs=(many,), best=many.run), capsys)
    assert re.findall(r"number \d+", "\n".join(told)) == ["number 3", *(f"number {n}" for n in range(14, 20))]
    assert "13 more in the report" in " ".join(told)


def test_candidates_that_differ_in_their_last_words_can_be_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"tf_efficientnet_lite0, 224 pixels{end}" for end in (", squash", ", squash, 5 stages", ", 5 stages")]
    rung = make_frozen(candidates=tuple(make_candidate(name, 1900) for name in names), chosen=0)
    lines = print_ladder(tmp_path, make_ladder(rungs=(rung,), best=rung.run), capsys)
    told = re.sub(r"\s+", " ", " ".join(line[:44].strip() for line in lines))
    assert all(name in told for name in names)


def test_a_candidate_that_was_tried_again_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, three = make_candidate("one", 1000), make_candidate("two", 1100), make_candidate("three", 1200)
    late = three.model_copy(update={"state": "no time", "accuracy": None})
    rungs = (make_frozen(candidates=(one, two, late), chosen=1), make_frozen(candidates=(one, two, three), chosen=2))
    told = " ".join(print_ladder(tmp_path, make_ladder(rungs=rungs), capsys))
    assert [len(re.findall(rf" {name} ", told)) for name in ("one", "two", "three")] == [1, 2, 1]
    assert "no time" not in told
    assert "more in the report" not in told


def test_a_run_whose_candidate_was_not_compared_has_its_validation_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = make_tuned(candidates=(make_candidate("all after blocks.4", 0, 1, accuracy=None),))
    told = print_ladder(tmp_path, make_ladder(rungs=(make_frozen(), tuned)), capsys)
    assert any(re.fullmatch(r"fine-tuned +all after blocks.4 +88.5 % \(84.9 to 91.5\) +391 .*", line) for line in told)


def test_a_rung_that_was_not_begun_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rungs = (make_frozen(), RungRecord(name="fine-tuned", note="90 training images are too few."))
    told = print_ladder(tmp_path, make_ladder(rungs=rungs, best=rungs[0].run), capsys)
    assert any(re.fullmatch(r"fine-tuned +– +– +not begun", line) for line in told)
    assert "fine-tuned: 90 training images are too few." in told


def test_an_interrupted_search_and_a_run_that_was_not_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = " ".join(print_ladder(tmp_path, make_ladder(interrupted=True, longer=None), capsys, "another"))
    assert "took 4 min 3 s until it was interrupted" in told
    assert f"This run is not the one that was chosen: that is {BEST}." in told
    assert "budwood train" not in told


def test_nothing_is_printed_of_a_run_whose_recipe_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_ladder(tmp_path, None, capsys) == []


def test_a_plan_says_that_nothing_was_trained(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        PlannedRow("frozen", "3 trunks at 2 sizes", 61.4, "", True),
        PlannedRow("fine-tuned", LONG, 900, "+1 to +2 points, and much more than that", False),
    ]
    show_ladder_plan(rows, 300, ["Measured on 64 images.", LONG])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(count_columns, lines)) <= 100
    assert re.fullmatch(r"frozen +3 trunks at 2 sizes +1 min 1 s +yes", lines[2])
    assert re.fullmatch(r"fine-tuned .* 15 min .* no", lines[3])
    assert "Measured on 64 images." in lines
    assert lines[-1] == "The time for all of it is 5 min. Nothing was trained."
