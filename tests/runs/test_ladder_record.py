"""The record of a search is part of a run's file, and comes back as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from budwood.runs.run_record import read_record, save_record
from conftest import answers, scored_run
from made_ladders import BEST, make_frozen, make_ladder, make_tuned

LABELS = (np.arange(30) % 3).astype(np.int32)


def test_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "run", LABELS, answers(LABELS, 0.9, 0))
    ladder = make_ladder(given={"size": 224}, interrupted=True)
    save_record(run.path, run.record.model_copy(update={"ladder": ladder}))
    assert read_record(run.path).ladder == ladder


def test_a_run_without_one_has_no_word_of_it_in_its_file(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "run", LABELS, answers(LABELS, 0.9, 0))
    assert read_record(run.path).ladder is None
    assert "ladder" not in (run.path / "run.json").read_text()


def test_the_best_rung_is_the_last_that_left_the_best_run() -> None:
    best = make_ladder().find_best()
    assert best is not None
    assert (best.name, best.run) == ("together", BEST)
    again = make_tuned(run=make_frozen().run)
    assert make_ladder(rungs=(make_frozen(), again), best=again.run).find_best() is again
    assert make_ladder(best="gone").find_best() is None
