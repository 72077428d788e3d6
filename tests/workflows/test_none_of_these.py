"""None of these: from training to calibrate, in ensembles, copies and runs whose images are gone."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.evaluation.novelty import BANK
from budwood.runs.confidence_record import NOVELTY_FILE, NoveltyRecord
from budwood.runs.run import Run, open_run
from budwood.workflows.novelty import estimate_seconds, measure_novelty
from budwood.workflows.train import resume
from conftest import SMALL_STUDY, TINY, Notes, fill, run_command


def make_strangers(folder: Path, count: int = 12) -> Path:
    """Pictures of hard edges, unlike the smooth ones that the runs know."""
    folder.mkdir(parents=True)
    for number in range(count):
        noise = 255 * np.random.default_rng(number).integers(0, 2, (40, 40), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos` of three classes, `strangers`, and the run `one` under `runs`."""
    folder = tmp_path_factory.mktemp("three")
    for hue, name in enumerate(("brick", "leaf", "sky")):
        fill(folder / "photos" / name, 15, hue=hue)
    make_strangers(folder / "strangers")
    bw.train(bw.scan(folder / "photos"), Recipe(**{**TINY, "epochs": 3}), out=folder / "runs", id="one")
    return folder


@pytest.fixture
def place(three: Path, tmp_path: Path) -> Path:
    """A copy of it, for tests that change something."""
    shutil.copytree(three / "runs", tmp_path / "runs")
    return tmp_path


def known(run: Run) -> NoveltyRecord:
    assert run.record.confidence is not None
    assert run.record.confidence.novelty is not None
    return run.record.confidence.novelty


class TestTraining:
    def test_a_run_tells_strangers_from_the_end_of_training_on(self, three: Path) -> None:
        run = open_run(three / "runs" / "one")
        novelty, scores = known(run), run.novelty_scores()["validation"]
        assert novelty.share == 0.05
        assert novelty.n == len(scores) == len(run.predictions("val").ids)
        assert set(novelty.auroc) == {"energy", "mahalanobis", "knn"}
        assert novelty.auroc[novelty.method].value == max(area.value or 0 for area in novelty.auroc.values())
        assert NOVELTY_FILE in run.record.files
        assert np.mean(scores > novelty.threshold) <= 0.05
        assert run.record.timings.novelty is not None
        assert "None of these" in (run.path / "report.html").read_text()

    def test_it_is_the_same_in_every_training(self, three: Path, tmp_path: Path) -> None:
        again = bw.train(bw.scan(three / "photos"), Recipe(**{**TINY, "epochs": 3}), out=tmp_path, id="two")
        assert known(again) == known(open_run(three / "runs" / "one"))

    def test_a_time_limit_leaves_the_extra_pass_to_calibrate(self, three: Path, tmp_path: Path) -> None:
        notes = Notes()
        recipe = Recipe(**{**TINY, "time": 8, "patience": 1})
        run = bw.train(bw.scan(three / "photos"), recipe, out=tmp_path, id="timed", progress=notes)
        assert run.record.confidence is not None
        assert run.record.confidence.novelty is None
        assert any("because of the time limit; `budwood calibrate" in note for note in notes.kept)
        assert known(bw.calibrate(run)).n == len(run.predictions("val").ids)

    def test_a_limit_keeps_back_what_it_takes(self) -> None:
        assert 0.3 < estimate_seconds(1280, 1500, 374, 8) < 3
        assert estimate_seconds(1280, 10**6, 10**6, 1000) < 30

    def test_rows_of_studies_leave_it_to_calibrate(self, three: Path, tmp_path: Path) -> None:
        file = tmp_path / "small.toml"
        rows = "[[rows]]\nlr = 0.01\n[[rows]]\nlr = 0.02\n"
        file.write_text(SMALL_STUDY.replace('"photos"', f'"{three / "photos"}"') + rows)
        bw.study(file, out=tmp_path / "study")
        for path in (tmp_path / "study").rglob("run.json"):
            run = open_run(path.parent)
            assert run.record.confidence is not None
            assert run.record.confidence.novelty is None
        assert known(bw.calibrate(run)).n > 0

    def test_images_that_go_while_it_is_measured_do_not_cost_the_run(self, three: Path, tmp_path: Path) -> None:
        shutil.copytree(three / "photos", tmp_path / "photos")
        notes = Notes()

        def remove(history: Any) -> None:
            for gone in (tmp_path / "photos", tmp_path / "cache" / "pixels"):
                shutil.rmtree(gone, ignore_errors=True)

        run = bw.train(
            bw.scan(tmp_path / "photos"),
            Recipe(**TINY),
            out=tmp_path / "runs",
            id="one",
            progress=notes,
            cache=tmp_path / "cache",
            on_epoch_end=remove,
        )
        assert run.record.state == "done"
        assert run.novelty_scorer() is None
        assert any("could not be measured" in note for note in notes.kept)


class TestCalibrate:
    def test_the_command_measures_strangers(self, place: Path, three: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = place / "runs" / "one"
        out, _ = run_command(capsys, "calibrate", folder, "--refuse", "0.2", "--unknown", three / "strangers", "--json")
        told = json.loads(out)["confidence"]["novelty"]
        assert told["share"] == 0.2
        strangers = told["strangers"]
        assert strangers["n"] == 12
        assert strangers["folder"] == str(three / "strangers")
        run = open_run(folder)
        scores = run.novelty_scores()
        assert strangers["refused"]["value"] == np.mean(scores["strangers"] > known(run).threshold)
        assert np.mean(scores["validation"] > known(run).threshold) <= 0.2
        out, _ = run_command(capsys, "calibrate", folder)
        assert "Refused as none of the classes: 20 % of images like the known ones" in out
        assert "FPR95" in out
        page = (folder / "report.html").read_text()
        assert "Your own strangers" in page

    def test_another_share_needs_no_image(self, place: Path, three: Path, tmp_path: Path) -> None:
        run = bw.calibrate(place / "runs" / "one", unknown=three / "strangers")
        strict, loose = (bw.calibrate(run.path, refuse=share, cache=tmp_path / "cache") for share in (0.5, 0.01))
        assert known(strict).threshold < known(loose).threshold
        assert 0 < np.mean(strict.novelty_scores()["validation"] > known(strict).threshold) <= 0.5
        refused = [known(one).strangers.refused.value for one in (strict, loose)]  # type: ignore[union-attr]
        assert refused[0] is not None
        assert refused[1] is not None
        assert refused[0] >= refused[1]

    def test_an_archive_of_strangers(self, place: Path, three: Path, tmp_path: Path) -> None:
        archive = shutil.make_archive(str(tmp_path / "strangers"), "zip", three / "strangers")
        run = bw.calibrate(place / "runs" / "one", unknown=archive)
        assert known(run).strangers is not None
        assert known(run).strangers.n == 12  # type: ignore[union-attr]

    def test_images_that_the_run_knows_are_no_strangers(self, place: Path, three: Path, tmp_path: Path) -> None:
        folder, notes = make_strangers(tmp_path / "mixed"), Notes()
        data = bw.scan(three / "photos")
        shutil.copy(three / "photos" / data.samples("train").paths[0], folder / "copy.png")
        (folder / "broken.png").write_bytes(b"no image")
        run = bw.calibrate(place / "runs" / "one", unknown=folder, progress=notes)
        assert known(run).strangers.n == 12  # type: ignore[union-attr]
        assert any("copy.png) is a copy or near copy" in note for note in notes.kept)
        assert any("broken.png) cannot be read" in note for note in notes.kept)

    def test_a_folder_of_known_images_alone(
        self, place: Path, three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "own").mkdir()
        data = bw.scan(three / "photos")
        shutil.copy(three / "photos" / data.samples("val").paths[0], tmp_path / "own" / "copy.png")
        _, err = run_command(capsys, "calibrate", place / "runs" / "one", "--unknown", tmp_path / "own", code=2)
        assert "has no image that this run does not know already" in err
        _, err = run_command(capsys, "calibrate", place / "runs" / "one", "--unknown", tmp_path / "none", code=2)
        assert "no such file or folder" in err

    @pytest.mark.parametrize("share", ["0", "1", "5"])
    def test_a_share_out_of_range(self, place: Path, share: str, capsys: pytest.CaptureFixture[str]) -> None:
        _, err = run_command(capsys, "calibrate", place / "runs" / "one", "--refuse", share, code=2)
        assert "refuse: expected a share above 0 and below 1" in err

    def test_a_run_whose_images_are_gone_keeps_what_it_has(self, three: Path, tmp_path: Path) -> None:
        shutil.copytree(three / "photos", tmp_path / "photos")
        data, notes = bw.scan(tmp_path / "photos"), Notes()
        without = bw.train(data, Recipe(**TINY), out=tmp_path / "runs", id="without", novelty=False)
        shutil.rmtree(tmp_path / "photos")
        cache = tmp_path / "cache"
        run = bw.calibrate(without, coverage=0.8, cache=cache, progress=notes)
        assert run.novelty_scorer() is None
        assert any("cannot be measured" in note for note in notes.kept)
        with pytest.raises(bw.DataError, match="photos"):
            bw.calibrate(without, refuse=0.1, cache=cache)
        shutil.copytree(three / "runs" / "one", tmp_path / "runs" / "one")
        run = bw.calibrate(tmp_path / "runs" / "one", refuse=0.1, cache=cache)
        assert known(run).share == 0.1


class TestRecord:
    def test_it_survives_a_copy_of_the_folder(self, place: Path, three: Path, tmp_path: Path) -> None:
        shutil.move(place / "runs" / "one", tmp_path / "elsewhere")
        run, first = open_run(tmp_path / "elsewhere"), open_run(three / "runs" / "one")
        assert known(run) == known(first)
        scorer, other = run.novelty_scorer(), first.novelty_scorer()
        assert scorer is not None
        assert other is not None
        rows = np.random.default_rng(0).normal(size=(5, run.record.network.features)).astype(np.float32)
        logits = rows[:, :3]
        np.testing.assert_array_equal(scorer.score(rows, logits), other.score(rows, logits))

    def test_more_training_measures_anew_at_the_same_share(self, place: Path, three: Path) -> None:
        run = bw.calibrate(place / "runs" / "one", refuse=0.25, unknown=three / "strangers")
        further = resume(run, epochs=4)
        assert known(further).share == 0.25
        assert known(further).strangers is None  # of another network
        assert "strangers" not in further.novelty_scores()
        assert known(open_run(further.path)) == known(further)

    def test_a_damaged_file_is_refused(self, place: Path) -> None:
        file = place / "runs" / "one" / NOVELTY_FILE
        file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
        run = open_run(place / "runs" / "one")
        with pytest.raises(bw.RunError, match="was changed or damaged"):
            run.novelty_scores()
        notes = Notes()
        mended = bw.calibrate(run, progress=notes)
        assert any("is measured anew" in note for note in notes.kept)
        assert len(mended.novelty_scores()["validation"]) == len(mended.predictions("val").ids)

    def test_an_ensemble_asks_its_first_member(self, three: Path, tmp_path: Path) -> None:
        data = bw.scan(three / "photos")
        for seed in (1, 2):
            bw.train(data, Recipe(**TINY, seed=seed), out=tmp_path / "runs", id=f"seed-{seed}")
        made = bw.ensemble([tmp_path / "runs" / "seed-1", tmp_path / "runs" / "seed-2"], out=tmp_path / "runs")
        leader = known(made.members()[0])
        if leader.method == "energy":
            assert made.novelty_scorer() is None
            made = bw.calibrate(made)
        assert known(made).method != "energy"
        assert not np.isnan(made.novelty_scores()["validation"]).any()
        again = bw.calibrate(made, unknown=three / "strangers")
        assert known(again).strangers.n == 12  # type: ignore[union-attr]

    def test_an_ensemble_takes_over_what_needs_no_logits(self, tiny: Path, tmp_path: Path) -> None:
        data = bw.scan(tiny / "photos")  # two classes, which have no energy
        for seed in (1, 2):
            bw.train(data, Recipe(**TINY, seed=seed), out=tmp_path / "runs", id=f"seed-{seed}")
        made = bw.ensemble([tmp_path / "runs" / "seed-1", tmp_path / "runs" / "seed-2"], out=tmp_path / "runs")
        assert known(made) == known(made.members()[0])
        scores = [run.novelty_scores()["validation"] for run in (made, made.members()[0])]
        np.testing.assert_array_equal(np.sort(scores[0]), np.sort(scores[1]))
        assert NOVELTY_FILE in made.record.files


class TestLabels:
    def test_images_with_several_labels_are_told_by_their_neighbours(self, tmp_path: Path) -> None:
        fill(tmp_path / "photos", 60)
        rows = [
            f"{number:03}.png,{';'.join(name for name, step in (('a', 2), ('b', 3), ('c', 5)) if number % step == 0)}"
            for number in range(60)
        ]
        (tmp_path / "photos" / "labels.csv").write_text("path,labels\n" + "\n".join(rows) + "\n")
        run = bw.train(bw.scan(tmp_path / "photos" / "labels.csv"), Recipe(**TINY), out=tmp_path / "runs")
        novelty, scorer = known(run), run.novelty_scorer()
        assert novelty.method == "knn"
        assert set(novelty.auroc) <= {"knn"}
        assert scorer is not None
        bank = scorer.arrays[BANK]
        assert bank.dtype == np.float32
        assert bank.shape == (len(run.dataset().samples("train")), run.record.network.features)
        np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1, atol=1e-2)


def test_no_more_images_are_looked_at_than_asked(three: Path, tmp_path: Path) -> None:
    from budwood.storage.context import open_context

    run = open_run(three / "runs" / "one")
    measured = measure_novelty(run, open_context(tmp_path, None), most_new=4)
    assert measured is not None
    assert measured.record.n == 4
    assert np.isnan(measured.arrays["validation"]).sum() == len(run.predictions("val").ids) - 4
    assert measure_novelty(run, open_context(tmp_path / "new", None), most_new=0) is None


@pytest.mark.slow
def test_photographs_of_other_things_are_refused_and_scenes_pass(real: Callable[[str], Path], tmp_path: Path) -> None:
    scenes, others = real("scenes8.tar"), real("cifar10.tar.xz")
    (tmp_path / "others").mkdir()
    with tarfile.open(others) as archive:
        images = (member for member in archive if member.isfile() and member.name.startswith("test/"))
        for number, member in enumerate(islice(images, 0, 1000, 4)):
            content = archive.extractfile(member)
            assert content is not None
            (tmp_path / "others" / f"{number:03}.jpg").write_bytes(content.read())
    run = bw.train(bw.scan(scenes), out=tmp_path / "runs", id="scenes")
    run = bw.calibrate(run, unknown=tmp_path / "others")
    strangers = known(run).strangers
    assert strangers is not None
    assert strangers.n == 250
    assert strangers.refused.value is not None
    assert strangers.refused.value >= 0.95
    assert np.mean(run.novelty_scores()["validation"] <= known(run).threshold) >= 0.95
