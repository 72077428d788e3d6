"""What the report and the model card tell of the search that found a run."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from budwood.reporting.commands import write_longer_command
from budwood.reporting.ladder_section import draw_ladder, show_ladder_section
from budwood.reporting.ladder_text import describe_ladder, describe_rung_state
from budwood.reporting.model_card import render_model_card
from budwood.reporting.templating import load_template
from budwood.runs.ladder_record import Figure, LadderRecord, RungRecord
from budwood.runs.run import Run
from budwood.runs.run_record import read_record, save_record
from budwood.training.head_selection import choose_plan
from budwood.workflows.report import report
from conftest import answers, scored_run
from made_ladders import BEST, make_candidate, make_figure, make_frozen, make_ladder, make_together, make_tuned

KEPT = Path(__file__).parents[1] / "kept" / "single"
LABELS = (np.arange(60) % 3).astype(np.int32)


def make_run(folder: Path, ladder: LadderRecord | None, name: str = BEST) -> Run:
    run = scored_run(folder / name, LABELS, answers(LABELS, 0.9, 0))
    return replace(run, record=run.record.model_copy(update={"ladder": ladder}))


def render(folder: Path, ladder: LadderRecord, name: str = BEST, **dataset: Any) -> str:
    """The section as it is read, without marks."""
    record = make_run(folder, ladder, name).record
    record = record.model_copy(update={"dataset": record.dataset.model_copy(update=dataset)})
    module: Any = load_template("ladder.html").make_module({})
    html = module.section(show_ladder_section(record))
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def count_figures(ladder: LadderRecord) -> list[Figure]:
    """All figures that the section has to show."""
    figures = [figure for rung in ladder.rungs for figure in (rung.accuracy, rung.gain)]
    candidates = [one for rung in ladder.rungs for one in rung.candidates]
    return [one for one in (*figures, *(f for c in candidates for f in (c.accuracy, c.difference))) if one]


class TestSection:
    def test_every_figure_has_its_interval_and_its_number_of_images(self, tmp_path: Path) -> None:
        ladder = make_ladder()
        page = render(tmp_path, ladder)
        figures = count_figures(ladder)
        assert len(figures) == 3 + 2 + 6 + 3
        told = re.findall(r"[−+\d.]+ to [−+\d.]+(?: %)?, n = ([\d,]+\d)", page)
        twice = [391]  # the gain of the chosen run, in the sentence at the top
        drawn = [391] * 3  # the chart in words
        numbers = sorted(int(n.replace(",", "")) for n in told)
        assert numbers == sorted([*(one.n for one in figures), *twice])
        assert page.count("n = ") == len(numbers) + len(drawn)
        assert "86.2 % 84.6 to 87.7 %, n = 1,968" in page
        assert "+0.031 +0.023 to +0.040, n = 1,968" in page
        assert "88.5 % 84.9 to 91.5 %, n = 391 +2.0 −0.3 to +4.6, n = 391 0.096 3 min 41 s" in page

    def test_says_what_it_had_and_what_it_chose(self, tmp_path: Path) -> None:
        page = render(tmp_path, make_ladder())
        assert "had 5 min and took 4 min 3 s" in page
        assert "6 candidates were tried, 1 was left out for want of time and 1 failed." in page
        assert "It chose this network: together (frozen and fine-tuned, equal weights)." in page
        assert "+0.8 points over the best before (95 % interval −0.9 to +2.5, n = 391; p = 0.63)" in page
        assert "interrupted" not in page
        assert "sample of the training images" not in page
        assert "Given" not in page

    def test_says_what_became_of_each_candidate_and_rung(self, tmp_path: Path) -> None:
        page = render(tmp_path, make_ladder())
        assert "resnet50 at 320 pixels – – about 1 min 35 s left out: no time" in page
        assert "own & <b> – – 1 s failed: its weights cannot be read." in page
        assert re.search(r"lite1 at 320 pixels, last stages pooled 86.2 % .{20,40} – 17 s chosen", page)
        assert "1 Frozen: kept" in page
        assert "2 Fine-tuned: kept" in page
        assert "3 Together: chosen" in page
        assert "Kept: its loss on validation is better." in page

    def test_what_was_trained_without_being_compared_has_the_figures_of_its_rung(self, tmp_path: Path) -> None:
        alone = (make_candidate("all after blocks.4", 0, 1, accuracy=None, note="Flips do harm."),)
        tuned = make_tuned(candidates=alone, kept=False)
        page = render(tmp_path, make_ladder(rungs=(make_frozen(), tuned), best=make_frozen().run))
        assert "all after blocks.4 88.5 % 84.9 to 91.5 %, n = 391 9 s not kept: Flips do harm." in page
        assert "9 s chosen" not in page

    def test_every_cell_has_its_name_for_pages_too_narrow_for_columns(self, tmp_path: Path) -> None:
        record = make_run(tmp_path / BEST, make_ladder()).record
        module: Any = load_template("ladder.html").make_module({})
        html = module.section(show_ladder_section(record))
        for table in re.findall(r'<table class="ladder">.*?</table>', html, re.S):
            heads = re.findall(r"<th[^>]*>([^<]*)</th>", table.split("</thead>")[0])
            for row in re.findall(r"<tr.*?</tr>", table.split("</thead>")[1], re.S):
                assert re.findall(r'<td[^>]* data-name="([^"]*)"', row) == heads[1:]

    def test_explains_its_words_and_what_its_figures_are_worth(self, tmp_path: Path) -> None:
        page = render(tmp_path, make_ladder(compared=choose_plan(500, 1280, 2, 30).reason))
        for words in (
            "Frozen: the trunk",
            "Fine-tuned: from",
            "an ensemble",
            "parted into folds",
            "Breiman et al. 1984",
        ):
            assert words in page
        assert "500 images are compared by cross-validation with 5 folds, drawn 4 times." in page
        assert "the test split stayed sealed and took no part" in page
        assert "slightly too optimistic, as it is the best of 3 on the same images" in page
        assert "McNemar's test" in page

    def test_only_says_what_applies(self, tmp_path: Path) -> None:
        alone = make_frozen(candidates=(make_candidate("lite0", 40, 60),), chosen=0)
        ladder = make_ladder(rungs=(alone,), best=alone.run, compared="on the validation images", longer=None)
        page = render(tmp_path, ladder, str(alone.run))
        for words in ("parted into folds", "Breiman", "optimistic", "McNemar", "loss minus", "Dotted", "budwood train"):
            assert words not in page
        assert "Held-out accuracy and loss: on the validation images." in page

    def test_gives_the_command_for_more_time(self, tmp_path: Path) -> None:
        page = render(tmp_path, make_ladder())
        assert "What more time would give More time goes into fine-tuning all layers" in page
        assert "budwood train /photos --time 20m" in page

    def test_says_that_it_was_interrupted_and_that_images_were_left_out(self, tmp_path: Path) -> None:
        page = render(tmp_path, make_ladder(interrupted=True, images=2000, of=50_000))
        assert "It was interrupted (Ctrl-C), and the best network so far was kept." in page
        assert "2,000 of 50,000" in page

    def test_says_which_options_were_given(self, tmp_path: Path) -> None:
        given = {"model": "resnet50", "class_weights": True, "taps": ["layer3", "layer4"]}
        page = render(tmp_path, make_ladder(given=given))
        assert 'same in all of them: model resnet50, class weights, taps ["layer3", "layer4"].' in page

    def test_of_a_run_that_was_not_chosen_names_the_one_that_was(self, tmp_path: Path) -> None:
        page = render(tmp_path, make_ladder(), "another")
        assert f"It did not choose this network, but run {BEST}: together" in page

    def test_of_data_without_a_test_split_or_with_several_labels(self, tmp_path: Path) -> None:
        counts = make_run(tmp_path / "any", None).record.dataset.counts.model_copy(update={"test": 0})
        page = render(tmp_path, make_ladder(), counts=counts, several=True)
        assert "there is no test split" in page
        assert "sealed" not in page
        assert "the share of images with every label right" in page

    def test_of_too_few_images_for_an_interval(self, tmp_path: Path) -> None:
        few = make_tuned(accuracy=Figure(value=1, n=2), gain=Figure(value=0.5, n=2))
        page = render(tmp_path, make_ladder(rungs=(make_frozen(), few), best=few.run))
        assert "too few to tell n = 2 too few to tell n = 2" in page

    def test_a_rung_that_stands_there_twice_is_explained_once(self, tmp_path: Path) -> None:
        again = make_tuned(run="again", ended=260)
        page = render(tmp_path, make_ladder(rungs=(make_frozen(), make_tuned(), again), best="again"))
        assert page.count("Fine-tuned: from the best") == 1
        assert "2 Fine-tuned: kept" in page
        assert "3 Fine-tuned: chosen" in page

    def test_frozen_networks_that_were_tried_later_were_compared_on_the_same_images(self, tmp_path: Path) -> None:
        again = make_frozen(run="again", ended=260)
        page = render(tmp_path, make_ladder(rungs=(make_frozen(), again), best="again"))
        assert "Held-out accuracy and loss: on the same images as before, and chosen alike." in page
        assert "on the validation images" not in page.partition("2 Frozen")[2].partition("Their options")[0]


@pytest.mark.parametrize(
    ("rung", "state"),
    [
        (make_together(), "chosen"),
        (make_together(run="other"), "kept"),
        (make_together(run="other", kept=False), "not kept"),
        (make_together(run=None, chosen=None, kept=False), "not kept"),
        (RungRecord(name="together"), "not begun"),
        (RungRecord(name="frozen", candidates=(make_frozen().candidates[4],)), "no time"),
        (RungRecord(name="frozen", candidates=(make_frozen().candidates[5],)), "failed"),
    ],
)
def test_the_state_of_a_rung(rung: RungRecord, state: str) -> None:
    assert describe_rung_state(make_ladder(rungs=(rung,)), rung) == state


class TestChart:
    def test_draws_each_run_with_its_interval_at_its_time(self) -> None:
        svg = draw_ladder(make_ladder())
        assert svg.count("<circle") == 3
        assert svg.count('class="range"') == 3
        assert "1 frozen after 1 min 12 s: 86.4 % (82.6 to 89.7 %), n = 391, kept" in svg
        assert "minutes since the start" in svg

    def test_runs_that_end_together_are_drawn_apart(self) -> None:
        late = [make_tuned(ended=299 + number / 10) for number in range(4)]
        places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', draw_ladder(make_ladder(rungs=late)))]
        assert all(after - before >= 15.9 for before, after in pairwise(places))
        assert max(places) <= 446

    def test_a_run_that_was_not_kept_is_no_step_of_the_best_so_far(self) -> None:
        def find_path(svg: str) -> str:
            found = re.search(r'class="chosen" d="([^"]+)"', svg)
            assert found
            return found[1]

        kept = find_path(draw_ladder(make_ladder(rungs=(make_frozen(), make_tuned()))))
        left = find_path(draw_ladder(make_ladder(rungs=(make_frozen(), make_tuned(kept=False)))))
        assert kept.count("V") == 1
        assert left.count("V") == 0

    def test_equal_figures_and_a_short_search(self) -> None:
        same = make_figure(30, 30)
        rungs = (make_frozen(accuracy=same, ended=20), make_tuned(accuracy=same, ended=30))
        svg = draw_ladder(make_ladder(rungs=rungs, budget=60, seconds=35))
        assert "seconds since the start" in svg
        assert "nan" not in svg


class TestCommand:
    def test_repeats_the_options_that_were_given(self, tmp_path: Path) -> None:
        given = {"taps": ("blocks.3", "blocks.4"), "class_weights": True, "weights": "a b.pth"}
        record = make_run(tmp_path, make_ladder(given=given, longer=90)).record.model_copy(
            update={"source": "my photos"}
        )
        assert write_longer_command(record, None) == (
            "budwood train 'my photos' --taps blocks.3,blocks.4 --class-weights true --weights 'a b.pth' --time 90s"
        )

    def test_repeats_how_the_data_were_read(self, tmp_path: Path) -> None:
        reading = {"val": 0.3, "exclude": ["a b", "c"], "images_per_class": 5, "label_separator": ";"}
        record = make_run(tmp_path, make_ladder(longer=60)).record.model_copy(
            update={"source": "photos", "reading": reading}
        )
        assert write_longer_command(record, Path("my runs")) == (
            "budwood train photos --val 0.3 --exclude 'a b' --exclude c --images-per-class 5 --label-separator ';' "
            "--out 'my runs' --time 1m"
        )

    def test_is_empty_where_none_is_advised(self, tmp_path: Path) -> None:
        assert write_longer_command(make_run(tmp_path, make_ladder(longer=None)).record, None) == ""
        assert write_longer_command(make_run(tmp_path / "other", None).record, None) == ""


def test_the_report_and_the_card_tell_of_it_only_where_there_was_a_search(tmp_path: Path) -> None:
    shutil.copytree(KEPT, tmp_path / "single")
    told = []
    for ladder in (None, make_ladder(best="single")):
        if ladder:
            record = read_record(tmp_path / "single")
            save_record(tmp_path / "single", record.model_copy(update={"ladder": ladder}))
        run = report(tmp_path / "single")
        page, card = ((run.path / name).read_text(encoding="utf-8") for name in ("report.html", "model_card.md"))
        told.append((page.count("<h2>How this network was found</h2>"), card.count("Found by a search")))
        assert card == render_model_card(run)
    assert told == [(0, 0), (1, 1)]


def test_the_words_of_the_card() -> None:
    assert describe_ladder(make_ladder(), BEST) == (
        "Found by a search (rungs: frozen, fine-tuned, together) that had 5 min and took 4 min 3 s: 6 candidates were "
        "tried, 1 was left out for want of time and 1 failed. Chosen was together (frozen and fine-tuned, equal "
        "weights). Only training and validation images took part, no test image."
    )
    assert f"This run was not chosen: run {BEST} was" in describe_ladder(make_ladder(), "another")
    assert "Chosen was gone." in describe_ladder(make_ladder(best="gone"), "gone")
