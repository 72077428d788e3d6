"""Callbacks are told of epochs and steps, may stop a training, and their mistakes are told; metrics are reported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import budwood as bw
from budwood.errors import RecipeError
from budwood.evaluation.metrics import define_metric
from budwood.runs.run import Run, find_run
from conftest import TINY, Notes

SOURCE = """
class Stop:
    def __init__(self):
        self.steps = 0

    def on_step_end(self, moment):
        self.steps += 1
        assert 0 < moment.loss < 100
        if self.steps == 8:
            moment.stop("8 steps are enough")

def spread(labels, logits):
    return float((logits.argmax(1) == labels).mean())

class Tracker:
    def log(self, epoch, figures):
        with open("told.txt", "a") as file:
            file.write(f"{epoch} {sorted(figures)[0]}\\n")

    def close(self):
        with open("told.txt", "a") as file:
            file.write("closed\\n")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module `own_callbacks` in the folder that is worked in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_callbacks.py").write_text(SOURCE)
    yield tmp_path
    sys.modules.pop("own_callbacks", None)


def trained(photos: Path, folder: Path, said: Notes | None = None, track: Any = (), **options: Any) -> Run:
    recipe = bw.Recipe(**{**TINY, **options})
    return bw.train(
        bw.scan(photos), recipe, out=folder / "runs", cache=folder / "cache", progress=said, track=track, novelty=False
    )


def test_a_callback_a_metric_and_a_tracker_of_a_module_serve_and_are_recorded(own: Path, photos: Path) -> None:
    said = Notes()
    run = trained(
        photos,
        own,
        said,
        epochs=9,
        callbacks="own_callbacks:Stop",
        metrics="own_callbacks:spread",
        track="own_callbacks:Tracker",
    )
    assert "Stopped in epoch 2 by the callback own_callbacks:Stop: 8 steps are enough." in said.kept
    assert len(run.history) == 2
    assert run.record.choices.stopped_by == "own_callbacks:Stop: 8 steps are enough"
    assert "8 steps are enough" in (run.path / "report.html").read_text()
    val = run.metrics["val"]
    assert val["own_callbacks:spread"]["value"] == val["accuracy"]["value"]
    assert val["own_callbacks:spread"]["low"] <= val["accuracy"]["value"] <= val["own_callbacks:spread"]["high"]
    assert set(run.record.parts) == {"callbacks", "metrics", "track 1"}
    bw.resume(run, epochs=3, cache=own / "cache", novelty=False)
    told = (own / "told.txt").read_text().split("\n")
    assert [line.split(" ")[0] for line in told] == ["1", "2", "closed", "3", "closed", ""]


def test_objects_are_called_in_order_and_see_where_training_stands(photos: Path, tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watch:
        """Notes every moment."""

        def on_step_end(self, moment: Any) -> None:
            seen.append(("step", moment.epoch, moment.step))

        def on_epoch_end(self, moment: Any) -> None:
            seen.append(("epoch", moment.epoch, len(moment.history)))
            assert next(moment.network.parameters()).requires_grad
            assert moment.optimizer.param_groups[0]["lr"] > 0
            if moment.epoch == 2:
                moment.stop()

    def half(labels: Any, logits: Any) -> float:
        return 0.5

    said = Notes()
    run = trained(
        photos,
        tmp_path,
        said,
        epochs=5,
        batch=32,
        callbacks=[Watch(), lambda moment: seen.append("after")],
        metrics=half,
    )
    steps = [each for each in seen if each[0] == "step"]
    assert [each for each in seen if each not in steps] == [("epoch", 1, 1), "after", ("epoch", 2, 2)]
    assert [each[1:] for each in steps if each[1] == 1] == [(1, n) for n in range(1, len(steps) // 2 + 1)]
    assert len(run.history) == 2
    assert any(
        note.startswith("Warning: metrics ") and "callbacks 1 " in note and "were defined in a script" in note
        for note in said.kept
    )
    assert "were defined in a script, a notebook or a session" in (run.path / "report.html").read_text()
    run = bw.resume(run, epochs=3, cache=tmp_path / "cache", novelty=False)
    assert len(run.history) == 3, "they are still here"
    tested = bw.test(run).metrics["test"]
    assert [figure["value"] for name, figure in tested.items() if name.endswith(":<half>")] == [0.5]
    with pytest.raises(RecipeError, match=r"metrics: .*<half> was defined in the script"):
        bw.resume(find_run(run.path), epochs=6, cache=tmp_path / "cache")


def test_a_stop_ends_all_phases(photos: Path, tmp_path: Path) -> None:
    phases = [{"freeze": "none", "epochs": 2, "lr": 0.01}, {"freeze": "none", "epochs": 2, "lr": 0.01}]
    options = dict.fromkeys(("epochs", "lr"))
    run = trained(photos, tmp_path, phases=phases, callbacks=lambda moment: moment.stop("now"), **options)
    assert len(run.history) == 1
    assert str(run.record.choices.stopped_by).endswith(": now")


def test_mistakes_in_callbacks_and_trackers_are_told_with_their_line(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"callbacks: .* failed \(ZeroDivisionError: .*test_callbacks.py, line \d+"):
        trained(photos, tmp_path, callbacks=lambda moment: 1 / 0)
    said = Notes()
    trained(photos, tmp_path, said, track=lambda epoch, figures: figures["absent"])
    (noted,) = [note for note in said.kept if "could not log" in note]
    assert "(KeyError: 'absent') in " in noted
    assert "test_callbacks.py, line" in noted
    with pytest.raises(RecipeError, match=r"track: .*<set> has no method log|track: .* has no method log, found a set"):
        trained(photos, tmp_path, track={1})
    with pytest.raises(RecipeError, match="track: expected the name of a tool, found 3"):
        trained(photos, tmp_path, track=[3])


def test_a_metric_that_fails_is_told_with_its_line_and_a_test_without_it_counts_no_look(
    own: Path, photos: Path
) -> None:
    def broken(labels: Any, logits: Any) -> float:
        raise OSError("no")

    name = bw.Recipe(metrics=broken).metrics
    assert name
    from budwood.evaluation.label_task import SingleLabel

    with pytest.raises(RecipeError, match=r"metric: .*<broken> failed \(OSError: no\) in .*test_callbacks.py, line"):
        define_metric(name[0]).score(SingleLabel(2), np.zeros(2, np.int32), np.zeros((2, 2), np.float32))
    run = trained(photos, own, metrics="own_callbacks:spread")
    (own / "own_callbacks.py").write_text("")
    sys.modules.pop("own_callbacks")
    with pytest.raises(RecipeError, match="metric: the module own_callbacks has no 'spread'"):
        bw.test(run)
    assert not (run.path.parent / "test-looks.csv").exists()


def test_predicting_imports_nothing_that_only_training_needs(own: Path, photos: Path) -> None:
    run = trained(photos, own, callbacks="own_callbacks:Stop", track="own_callbacks:Tracker")
    sys.modules.pop("own_callbacks")
    (own / "own_callbacks.py").write_text("raise SystemExit('this must not run')")
    assert bw.predict(run.path, next(photos.rglob("*.png")))[0].top
    assert "own_callbacks" not in sys.modules
