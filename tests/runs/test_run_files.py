"""A file of a run that was changed, damaged or lost is never read as if it were the run's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import budwood as bw
from budwood.networks.weights import digest_file
from budwood.runs.explanation_record import EXPLANATION_FILE
from budwood.runs.run import Run, find_run, open_run
from budwood.runs.run_files import GIVEN_FILES, RUN_FILES
from budwood.storage.context import open_context
from budwood.workflows.explain import explain_run
from conftest import fill

SMALL = {"model": "cnn", "widths": (4,), "fc": (4,), "size": 16, "epochs": 1, "batch": 8, "lr": 0.01, "flip": 0.5}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained, tested and explained run, beside its images."""
    folder = tmp_path_factory.mktemp("kept")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / "photos" / name, 15, hue=hue)
    run = bw.test(bw.train(bw.scan(folder / "photos"), bw.Recipe(**SMALL), out=folder / "runs", id="one"))
    explain_run(run, open_context(), parts=["filters"])
    return folder


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Run:
    """A copy of that run, to be damaged."""
    shutil.copytree(kept / "runs", tmp_path / "runs")
    return open_run(tmp_path / "runs" / "one")


def _flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _photo(run: Run) -> list[Path]:
    return [Path(run.record.root) / run.predictions("val").paths[0]]


READERS: dict[str, list[Callable[[Run], object]]] = {
    "weights.safetensors": [
        Run.network,
        Run.head,
        lambda run: bw.predict(run, _photo(run)),
        lambda run: bw.explain.filters(run),
        lambda run: bw.train(
            bw.scan(run.record.root),
            bw.Recipe(model="cnn", widths=(4,), fc=(4,), size=16, weights="run:one", epochs=1),
            out=run.path.parent,
        ),
    ],
    "history.csv": [lambda run: run.history, bw.report, lambda run: bw.resume(run, epochs=2)],
    "predictions-val.parquet": [lambda run: run.predictions("val"), bw.report],
    "predictions-test.parquet": [lambda run: run.predictions("test")],
    "dataset.parquet": [Run.dataset, lambda run: bw.resume(run, epochs=2)],
    "augmented.jpg": [bw.report],
    "sealed.parquet": [lambda run: run.file("sealed.parquet")],
    "novelty.safetensors": [Run.novelty_scorer, Run.novelty_scores, bw.report],
}


def test_the_record_has_the_digest_of_every_file(run: Run) -> None:
    there = [name for name in RUN_FILES if (run.path / name).is_file()]
    assert run.record.files == {name: digest_file(run.path / name) for name in there}
    assert json.loads((run.path / "run.json").read_text())["files"] == dict(run.record.files)
    assert set(READERS) == set(RUN_FILES)
    longer = bw.resume(run, epochs=2)
    assert longer.record.files == {
        name: digest_file(run.path / name) for name in RUN_FILES if name != "predictions-test.parquet"
    }


@pytest.mark.parametrize("name", sorted(READERS))
def test_no_reader_takes_a_file_with_another_bit(name: str, run: Run) -> None:
    _flip_a_bit(run.path / name)
    for reader in READERS[name]:
        with pytest.raises(bw.RunError, match=rf"{name}: was changed or damaged .*expected the digest") as caught:
            reader(run)
        assert "Restore the file from a copy, or train again" in caught.value.hint
    (run.path / name).unlink()
    for reader in READERS[name]:
        with pytest.raises(bw.RunError, match=rf"{name}: cannot be read \(No such file"):
            reader(run)


def test_no_figure_of_the_record_changes_in_silence(run: Run) -> None:
    file = run.path / "run.json"
    whole = file.read_text()
    found = json.loads(whole)
    low = found["metrics"]["val"]["accuracy"]["low"]
    assert whole.count(str(low)) >= 1
    file.write_text(whole.replace(str(low), str(low)[:-1] + ("1" if str(low)[-1] != "1" else "2")))
    for reader in (open_run, find_run, bw.report, bw.test):
        with pytest.raises(bw.RunError, match=r"run\.json: was changed or damaged since the run wrote it") as caught:
            reader(run.path)
        assert "if you changed it yourself, remove its `digest`" in caught.value.hint
    found.pop("digest")
    file.write_text(json.dumps({**found, "source": "elsewhere"}))
    assert open_run(run.path).record.source == "elsewhere"


def test_a_changed_seal_costs_no_look(run: Run) -> None:
    looks = (run.path.parent / "test-looks.csv").read_bytes()
    untested = Run(run.path, run.record.model_copy(update={"test": None}))
    _flip_a_bit(run.path / "sealed.parquet")
    with pytest.raises(bw.RunError, match=r"sealed\.parquet: was changed or damaged"):
        bw.test(untested)
    assert (run.path.parent / "test-looks.csv").read_bytes() == looks


def test_a_changed_explanation_is_refused(run: Run) -> None:
    file = run.path / EXPLANATION_FILE
    file.write_text(file.read_text().replace("data:image/png", "data:image/gif", 1))
    with pytest.raises(bw.RunError, match=r"explanation\.json: was changed or damaged since it was written") as caught:
        bw.report(run)
    assert "Remove it, or restore it" in caught.value.hint
    file.unlink()
    assert "budwood explain" in (bw.report(run).path / "report.html").read_text()


def test_a_run_without_digests_is_read(run: Run) -> None:
    table = run.record.table()
    del table["files"]
    (run.path / "run.json").write_text(json.dumps(table))
    old = open_run(run.path)
    assert old.record.files == {}
    assert old.history == run.history
    assert bw.predict(old, _photo(old)) == bw.predict(run, _photo(run))
    (run.path / "weights.safetensors").write_bytes(b"no")
    with pytest.raises(bw.RunError, match=r"weights\.safetensors: cannot be read as the run's tensors"):
        old.head()
    (run.path / "history.csv").unlink()
    with pytest.raises(bw.RunError, match=r"history\.csv: cannot be read \(.*No such file"):
        len(old.history)


def test_a_training_that_stopped_has_the_digests_of_what_it_wrote(run: Run) -> None:
    def stop(history: object) -> None:
        raise KeyboardInterrupt

    (run.path / "run.json").write_text(json.dumps({**run.record.table(), "state": "running"}))
    with pytest.raises(KeyboardInterrupt):
        bw.resume(find_run(run.path), epochs=2, on_epoch_end=stop)
    assert set(find_run(run.path).record.files) == {*GIVEN_FILES, "history.csv"}
    _flip_a_bit(run.path / "history.csv")
    with pytest.raises(bw.RunError, match=r"history\.csv: was changed or damaged"):
        bw.resume(find_run(run.path), epochs=2)
