"""Studies are carried out: shared, resumed, extended, on several processes, with the same table whatever happens."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import budwood as bw
from budwood.cli import main
from budwood.comparison.document import Comparison
from budwood.data import downloads
from budwood.data.scanning import scan
from budwood.data.selection import assign_fold, limit
from budwood.errors import DataError, StudyError
from budwood.runs.run import find_run
from budwood.studies import training_job
from budwood.studies.executors import WorkerDied
from budwood.studies.live_table import LiveTable, choose_visible_lines
from budwood.studies.monitor import RowLine, SilentMonitor
from budwood.studies.reports import report_study
from budwood.studies.runner import ExecutionOptions
from budwood.studies.training_job import JobResult, TrainingJob
from budwood.workflows.train import measure_recipe_cost, train_recipe
from conftest import fill
from killing import run_killer

SMALL = """
name = "small"
title = "Small networks"
data = "photos"
[base]
model = "cnn"
widths = [8, 8]
fc = [16]
size = 16
batch = 8
optimizer = "adam"
epochs = 3
"""
ROWS = """
[[rows]]
label = "slow"
lr = 0.001
published = { value = 0.9 }
[[rows]]
label = "fast"
lr = 0.01
[[rows]]
label = "wild"
optimizer = "sgd"
momentum = 1.2
refused = "momentum"
"""
UNTIMED = {"seconds", "training_seconds", "runs"}


@pytest.fixture
def here(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds `photos`, as the working directory."""
    monkeypatch.chdir(photos.parent)
    return photos.parent


def _file(folder: Path, text: str) -> Path:
    path = folder / "small.toml"
    path.write_text(text)
    return path


def _table(folder: Path) -> list[dict[str, str]]:
    """The rows of a study's table, without what takes its time."""
    with (folder / "table.csv").open(newline="") as handle:
        return [{name: value for name, value in row.items() if name not in UNTIMED} for row in csv.DictReader(handle)]


def _states(folder: Path) -> dict[str, str]:
    record = json.loads((folder / "study.json").read_text())
    return {row["label"]: row["state"] for row in record["rows"]}


def test_a_study_keeps_its_file_its_state_its_table_and_its_page(here: Path) -> None:
    made = bw.study(_file(here, SMALL + ROWS))
    assert isinstance(made, Comparison)
    assert [row.label for row in made.rows] == ["slow", "fast", "wild"]
    assert made.rows[2].problem == "momentum: expected under 1, or the steps grow without bound, found 1.2"
    assert made.rows[0].published
    assert [figure.missing for figure in made.rows[0].published.figures] == ["sealed"]
    assert [row.state for row in made.rows] == ["done", "done", "refused"]
    assert "R006" not in {finding.code for finding in made.findings}, "it was refused on purpose"
    folder = here / "runs" / "small"
    assert (folder / "study.toml").read_text() == SMALL + ROWS
    assert _states(folder) == {"slow": "done", "fast": "done", "wild": "refused"}
    assert [row["label"] for row in _table(folder)] == ["slow", "fast", "wild"]
    assert "Small networks" in (folder / "report.html").read_text()
    assert len(list(folder.glob("*/run.json"))) == 2
    assert all(find_run(path.parent).record.test is None for path in folder.glob("*/run.json"))


def test_the_report_of_a_study_is_made_again_from_its_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = bw.study(_file(here, SMALL + ROWS))
    folder = here / "runs" / "small"
    page, table = (folder / "report.html").read_text(), (folder / "table.csv").read_text()
    (folder / "report.html").unlink()
    (folder / "table.csv").write_text("lost")
    fill(here / "photos" / "leaf", 3, first=900)  # images play no part in it
    assert _said(capsys, "report", "small").strip() == str(Path("runs") / "small" / "report.html")
    assert (folder / "report.html").read_text() == page
    assert (folder / "table.csv").read_text() == table
    assert [row.label for row in report_study(folder).rows] == [row.label for row in made.rows]
    for run in folder.glob("*/run.json"):
        run.unlink()
    with pytest.raises(StudyError, match="no row of the study was trained"):
        report_study(folder)
    (folder / "study.json").write_text("{}")
    with pytest.raises(StudyError, match=r"study\.json: cannot be read"):
        report_study(folder)


def test_what_is_finished_is_not_repeated_and_rows_can_be_added_and_moved(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bw.study(_file(here, SMALL + ROWS))
    trained: list[str] = []
    train = train_recipe

    def noted(*arguments: Any, **options: Any) -> Any:
        trained.append(options["id"])
        return train(*arguments, **options)

    monkeypatch.setattr(training_job, "train_recipe", noted)
    bw.study(_file(here, SMALL + ROWS))
    assert trained == []
    added = '[[rows]]\nlabel = "new"\nlr = 0.02\n'
    made = bw.study(_file(here, SMALL + added + ROWS.replace("fast", "quicker")))
    assert [row.label for row in made.rows] == ["new", "slow", "quicker", "wild"]
    assert [id.rpartition("-")[0] for id in trained] == ["new"]


def test_rows_are_trained_once_a_seed_and_solved_ones_once(here: Path) -> None:
    heads = 'name = "heads"\ndata = "photos"\nseeds = [0, 1]\n[base]\nsize = 32\n[[rows]]\nlabel = "solved"\n'
    made = bw.study(_file(here, heads + '[[rows]]\nlabel = "steps"\noptimizer = "adam"\nepochs = 2\n'))
    assert [row.seeds for row in made.rows] == [1, 2]
    assert [find_run(path).record.recipe.seed for path in made.rows[1].runs] == [0, 1]


def test_folds_validate_every_image_once_and_leave_the_test_split_sealed(here: Path) -> None:
    made = bw.study(_file(here, "folds = 3\n" + SMALL + ROWS))
    data = scan("photos")
    held = [set(find_run(path).predictions("val").ids) for path in made.rows[0].runs]
    assert len(held) == 3
    assert sum(map(len, held)) == len(set.union(*held)) == len(data.samples("train")) + len(data.samples("val"))
    assert not set.union(*held) & set(data.samples("test").ids)
    assert made.rows[0].value
    assert made.rows[0].value["n"] == len(set.union(*held))


def test_a_row_that_fails_is_recorded_and_the_others_go_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = '[[rows]]\nlabel = "missing"\nweights = "nowhere.pth"\nmodel = "resnet18"\n'
    base = SMALL.replace("widths = [8, 8]\nfc = [16]\n", "").replace("size = 16", "size = 32")
    made = bw.study(_file(here, base + ROWS + missing))
    assert made.rows[3].problem == f"weights: {here / 'nowhere.pth'} is not a file."
    assert _states(here / "runs" / "small") == {"slow": "done", "fast": "done", "wild": "refused", "missing": "failed"}
    train = train_recipe

    def broken(*arguments: Any, **options: Any) -> Any:
        if options["id"].startswith("new"):
            raise ZeroDivisionError("oh")
        return train(*arguments, **options)

    monkeypatch.setattr(training_job, "train_recipe", broken)
    made = bw.study(_file(here, base + ROWS + '[[rows]]\nlabel = "new"\nlr = 0.5\n'))
    assert made.rows[3].problem == "ZeroDivisionError: oh"
    with pytest.raises(StudyError, match=r"small: no row could be trained: weights: \S*nowhere\.pth is not a file\.$"):
        bw.study(_file(here, base + missing), out="other")


def test_a_network_that_cannot_be_made_is_told_before_anything_is_trained(here: Path) -> None:
    wrong = '[[rows]]\nlabel = "cut"\ncut = "layer9"\n'
    with pytest.raises(StudyError, match=r"1 row that makes no network: cut: cut: 'layer9' is not a stage"):
        bw.study(_file(here, SMALL + ROWS + wrong))
    assert not list(here.glob("runs/small/*/run.json"))
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        bw.study(_file(here, SMALL + ROWS), "nowhere")


def test_rows_that_share_what_is_frozen_are_trained_together_and_it_is_computed_once(here: Path) -> None:
    file = _file(
        here,
        'name = "heads"\ndata = "photos"\n[base]\nsize = 32\noptimizer = "adam"\nepochs = 2\n'
        '[[rows]]\nlabel = "a"\nlr = 0.1\n[[rows]]\nlabel = "b"\nlr = 0.1\nresize = "pad"\n'
        '[[rows]]\nlabel = "c"\nlr = 0.2\n[[rows]]\nlabel = "d"\nlr = 0.2\nresize = "pad"\n',
    )
    seen: list[str] = []

    class Watching(SilentMonitor):
        def show(self, lines: Any, left: float | None) -> None:
            training = [line.label for line in lines if line.state == "training"]
            seen.extend(label for label in training if label not in seen)

    made = bw.study(file, monitor=Watching())
    assert seen == ["a", "c", "b", "d"]
    computed = [find_run(row.runs[0]).record.prefix.computed for row in made.rows]
    assert computed[2:] == [0, 0]


def test_quick_limits_images_and_says_what_was_put_over_the_rows(here: Path) -> None:
    file = _file(here, SMALL + ROWS + "[quick]\nimages = 8\nepochs = 1\nlr = 0.01\n")
    made = bw.study(file, quick=True)
    assert made.rows[1].problem == "the same experiment as 'slow', because options were set for every row"
    assert made.rows[0].value
    assert made.rows[0].value["n"] == 8
    run = find_run(made.rows[0].runs[0])
    assert len(run.dataset().samples("train")) == 8
    assert len(run.history) == 1
    page = (here / "runs/small/report.html").read_text()
    assert "Set for every row: images = 8, epochs = 1, lr = 0.01" in page


def test_one_process_at_a_time_carries_out_a_study(here: Path) -> None:
    from filelock import FileLock

    file = _file(here, SMALL + ROWS)
    (here / "runs/small").mkdir(parents=True)
    with FileLock(here / "runs/small/lock"), pytest.raises(StudyError, match="is already running in another process"):
        bw.study(file)


class Watching(SilentMonitor):
    """Remembers what was shown of rows that are being trained."""

    def __init__(self) -> None:
        self.shown: set[tuple[str, str]] = set()

    def show(self, lines: Any, left: float | None) -> None:
        self.shown |= {(line.label, line.text) for line in lines if line.state == "training"}


@pytest.mark.usefixtures("quick_processes")
def test_several_processes_give_the_same_table_and_show_every_epoch(here: Path) -> None:
    rows = ROWS + '[[rows]]\nlabel = "faster"\nlr = 0.03\n'
    alone, together = Watching(), Watching()
    bw.study(_file(here, SMALL + rows), out="alone", execution=ExecutionOptions(test=True), monitor=alone)
    bw.study(_file(here, SMALL + rows), out="together", execution=ExecutionOptions(jobs=2, test=True), monitor=together)
    assert {row["test_looks"] for row in _table(here / "together/small")} == {"1", ""}
    assert _table(here / "together/small") == _table(here / "alone/small")
    assert together.shown == alone.shown
    assert {("slow", f"epoch {epoch}") for epoch in (1, 2, 3)} <= together.shown


def test_a_row_whose_workers_die_three_times_has_failed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying:
        def run(self, job: TrainingJob, on_epoch_end: Any = None) -> JobResult:
            if job.label == "slow":
                raise WorkerDied("the worker that trained 'slow' ended unexpectedly")
            return JobResult("failed", "no")

        def close(self) -> None:
            pass

    monkeypatch.setattr("budwood.studies.runner.start_subprocesses", lambda context, count: [Dying(), Dying()])
    with pytest.raises(StudyError, match="the worker that trained 'slow' ended unexpectedly, 3 times; no"):
        bw.study(_file(here, SMALL + ROWS), execution=ExecutionOptions(jobs=2))


# Kills a study at random moments, starts it again until it has gone through, and says how often it was killed.
KILLER = """
import sys
from pathlib import Path
import budwood as bw
from budwood.reporting import comparison_page
from budwood.studies import executors
from budwood.training import loop
from budwood.studies import runner
from killing import killed_until_done

file, out, kills, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
tested = runner.ExecutionOptions(test=True)
killed_until_done(lambda folder: bw.study(file, out=folder, execution=tested), out, kills, seed)
"""
KILLS = int(os.environ.get("BUDWOOD_KILLS", "2"))  # more by hand


@pytest.mark.slow  # a search that is killed, which test_killed_commands.py has, is a study, too
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_random_moments_it_ends_with_the_same_table(here: Path) -> None:
    search = '[search]\nsampler = "random"\ntrials = 2\n[search.space]\nlr = { low = 1e-4, high = 1e-1, log = true }\n'
    file = _file(here, SMALL.replace("epochs = 3", "epochs = 2") + ROWS + search)
    done = run_killer(KILLER, file, here / "out", KILLS, 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == str(KILLS)
    whole = _table(here / "out/whole/small")
    assert [row["label"] for row in whole] == ["slow", "fast", "wild", "trial 0", "trial 1"]
    others = list(here.glob("out/killed-*/small"))
    assert others
    for other in others:
        assert _table(other) == whole
        assert len((other / "test-looks.csv").read_text().splitlines()) == 1, "one look, however often it was killed"
        assert not list(other.rglob("*.part"))


def _said(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    found = main.run([str(argument) for argument in arguments], as_json="--json" in arguments)
    out, err = capsys.readouterr()
    assert found == code, err
    assert "Traceback" not in err + out
    return out if code == 0 else err


def test_the_command_line_carries_out_a_study(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _file(here, SMALL + ROWS)
    said = _said(capsys, "study", file, "-s", "epochs=1", "--jobs", "1")
    assert "Small networks (set for every row: epochs = 1)" in said
    assert "Runs, table.csv and report.html: runs/small/" in said
    (told,) = json.loads(_said(capsys, "study", file, "photos", "-s", "epochs=1", "--json"))
    assert (told["study"], told["changed"]) == ("small", {"epochs": 1})
    assert set(told["rows"][0]["value"]) == {"value", "low", "high", "n"}
    assert "expected a study file (.toml)" in _said(capsys, "study", "photos", code=2)
    assert "no such study file" in _said(capsys, "study", "nowhere.toml", code=2)
    assert "time: " in _said(capsys, "study", file, "--time", "soon", code=2)
    assert "--ray: Ray is not installed" in _without_ray(capsys, file)


ABOUT = """source = "A report of 2019"
caveats = ["Its validation images are few."]
assumed = { "weight decay" = "0, as it is not told" }
[base]
stand_in = "a small network for VGG-16"
"""


def test_the_order_of_rows_and_where_they_come_from(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = 'published = { train = 0.99, val = [0.2, 0.3], test = 0.9, time = "6m4s" }'
    file = _file(here, (SMALL + ROWS).replace("[base]\n", ABOUT).replace("published = { value = 0.9 }", published))
    claim = '[[claims]]\nsays = "fast is better"\nbetter = "fast"\nthan = "slow"\n'
    Path(file).write_text(Path(file).read_text() + claim, encoding="utf-8")
    said = _said(capsys, "study", file, "-s", "epochs=1")
    assert "Caveat: Its validation images are few." in said
    assert "fast is better (fast against slow)" in said
    assert "these verdicts are of altered rows" in said
    assert "these verdicts are of altered rows" in (here / "runs/small/report.html").read_text()
    for part in ("99 % (ours ", "20 to 30 % (ours ", "90 % (ours sealed)", "a small network for VGG-16"):
        assert part in said, part
    assert "Refused: wild: momentum: expected under 1" in said
    (told,) = json.loads(_said(capsys, "study", file, "-s", "epochs=1", "--sort", "metric", "--json"))
    assert (told["caveats"], told["assumed"]) == (
        ["Its validation images are few."],
        {"weight decay": "0, as it is not told"},
    )
    assert [row["state"] for row in told["rows"]] == ["done", "done", "refused"], "in the order of the file"
    stand_ins = {row["label"]: row["stand_in"] for row in told["rows"]}
    assert stand_ins["slow"] == "a small network for VGG-16; epochs 1", "what -s put over a row that was published"
    assert stand_ins["wild"] == "a small network for VGG-16"
    assert told["findings"][-1]["code"] != "R006"
    assert {one["code"]: one["rows"] for one in told["findings"]}["R002"] == ["slow"]
    page = here / "runs/small/report.html"
    assert "3 rows, ranked by validation accuracy" in page.read_text()
    _said(capsys, "report", "small")
    html = page.read_text()
    assert "3 rows, in the order given, compared by validation accuracy" in html
    assert "Source: A report of 2019" in html
    assert "refused: momentum: expected under 1" in html
    _said(capsys, "report", "small", "--sort", "metric")
    assert "3 rows, ranked by validation accuracy" in page.read_text()
    one = next((here / "runs/small").glob("*/run.json")).parent
    assert "--sort: needs a study; a run has one row." in _said(capsys, "report", one, "--sort", "given", code=2)
    (estimate,) = json.loads(_said(capsys, "study", file, "--dry-run", "--json"))
    assert (estimate["caveats"], estimate["rows"][0]["published"]) == (told["caveats"], 0.9)


def _without_ray(capsys: pytest.CaptureFixture[str], file: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("budwood.studies.executors.find_spec", lambda name: None)
        return _said(capsys, "study", file, "--ray", "local", "-s", "lr=0.3", code=2)


def test_a_dry_run_measures_each_network_once_and_trains_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Any] = []

    def noted(*arguments: Any, **options: Any) -> Any:
        measured.append(arguments[1])
        return measure_recipe_cost(*arguments, **options)

    monkeypatch.setattr("budwood.studies.cost_estimate.measure_recipe_cost", noted)
    long = '[[rows]]\nlabel = "long"\nepochs = 300\nlr = 0.01\n'
    file = _file(here, SMALL + ROWS + long)
    (told,) = json.loads(_said(capsys, "study", file, "--dry-run", "--json"))
    rows = {row["label"]: row for row in told["rows"]}
    assert len(measured) == 1
    assert rows["slow"]["seconds"] == rows["fast"]["seconds"] < rows["long"]["seconds"]
    assert rows["wild"]["network"] is None
    assert rows["wild"]["problem"].startswith("refused: momentum: expected under 1")
    assert rows["slow"]["network"]["stages"][:2] == ["conv1", "conv2"]
    assert not (here / "runs").exists()
    said = _said(capsys, "study", file, "--dry-run")
    assert "Nothing was trained." in said


def test_all_five_studies_have_a_dry_run_without_their_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(__file__).parents[2] / "studies"
    files = sorted(path for path in folder.glob("study*.toml") if "lite0" not in path.name)
    told = json.loads(_said(capsys, "study", *files, "--dry-run", "--json"))
    assert [len(study["rows"]) for study in told] == [29, 24, 17, 8, 149]
    assert told[0]["seconds"] is None
    for study in told:
        for row in study["rows"]:
            assert row["network"] or row["problem"].startswith(("refused: momentum", "ensemble of")), row
            assert "was not found" in row["problem"] or not row["network"]
    fives = {row["label"]: row["network"] for row in told[4]["rows"]}
    counts = [sum(fives[label]["parameters"].values()) for label in list(fives)[1:5]]
    assert [round(count / 1e6, 1) for count in counts] == [7.0, 4.8, 1.4, 0.4]


def test_data_sets_are_fetched_by_name_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    fetched: list[str] = []

    def stub(name: str) -> Callable[..., Any]:
        def make(root: str, train: bool = True, download: bool = False) -> Any:
            assert download
            fetched.append(name)
            import numpy as np

            random = np.random.default_rng(int(train))

            class Cifar:
                classes = ("plane", "car")
                data = random.integers(0, 255, (20, 32, 32, 3), dtype=np.uint8)
                targets = (0, 1) * 10

            return Cifar()

        return make

    monkeypatch.setattr(downloads, "_import_dataset", stub)
    monkeypatch.chdir(tmp_path)
    data = scan("cifar10", cache=tmp_path / "cache")
    assert (data.classes, data.split_source, data.counts()["test"]) == (("car", "plane"), "given, val made", 20)
    assert len(data) == 40
    scan("cifar10", cache=tmp_path / "cache")
    assert fetched == ["CIFAR10", "CIFAR10"]

    def unreachable(name: str) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(downloads, "_import_dataset", unreachable)
    with pytest.raises(DataError, match=r"cifar100: cannot be downloaded \(no network\)"):
        scan("cifar100", cache=tmp_path / "cache")
    assert not (tmp_path / "cache/sources/cifar100").exists()


def test_folders_that_are_fetched_become_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stub(name: str) -> Callable[..., Any]:
        def make(root: str, download: bool = False) -> None:
            for hue, label in enumerate(("BACKGROUND_Google", "ant", "bee")):
                fill(Path(root) / "caltech101/101_ObjectCategories" / label, 12, hue=hue)

        return make

    monkeypatch.setattr(downloads, "_import_dataset", stub)
    monkeypatch.chdir(tmp_path)
    data = scan("caltech101", exclude=["BACKGROUND_Google"], cache=tmp_path / "cache")
    assert (data.classes, len(data)) == (("ant", "bee"), 24)
    assert not (tmp_path / "cache/sources/caltech101-download").exists()


def test_a_limited_data_set_has_the_fingerprint_of_the_whole(photos: Path, tmp_path: Path) -> None:
    data = scan(photos)
    small = limit(data, 10, 4)
    assert (len(small.samples("train")), len(small.samples("val"))) == (10, 4)
    assert small.samples("test").ids == data.samples("test").ids
    assert small.fingerprint == data.fingerprint
    whole = data.samples("train").labels
    assert abs(small.samples("train").labels.mean() - whole.mean()) <= 0.05, "each class keeps its share"
    with pytest.raises(DataError, match="has too few different images for 1000 folds"):
        assign_fold(data, 0, 1000)


def test_the_board_says_each_row_once_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    board = LiveTable()
    with board.watching("Study"), board.bar("Reading", 3) as step:
        step(1)
        board.show([RowLine("one", "done", "accuracy 90.00 %"), RowLine("two", "training", "epoch 1")], 12.0)
        board.show([RowLine("one", "done", "accuracy 90.00 %"), RowLine("two", "failed", "no weights")], None)
    assert capsys.readouterr().err.split("\n")[:2] == ["    done  one  accuracy 90.00 %", "  failed  two  no weights"]
    table = board._table()
    assert (table.row_count, table.title) == (2, "Study: 2 of 2")
    many = [RowLine(str(number), "done" if number < 50 else "waiting", "") for number in range(100)]
    shown = [line.label for line in choose_visible_lines(many)]
    assert len(shown) == 24
    assert "49" in shown
    assert "50" in shown


def test_a_storage_error_ends_a_study(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from budwood.errors import StorageError

    def full(*arguments: Any, **options: Any) -> Any:
        raise StorageError("no space left on the disk")

    monkeypatch.setattr(training_job, "train_recipe", full)
    with pytest.raises(StorageError, match="no space left"):
        bw.study(_file(here, SMALL + ROWS))


def test_no_row_is_begun_once_the_time_is_over(here: Path) -> None:
    file = _file(here, SMALL + ROWS)
    with pytest.raises(StudyError, match="its training did not finish"):
        bw.study(file, execution=ExecutionOptions(time=1e-9))
    assert json.loads((here / "runs/small/study.json").read_text())["state"] == "stopped"
    started = time.monotonic()
    assert len(bw.study(file).rows) == 3
    assert time.monotonic() - started < 60
