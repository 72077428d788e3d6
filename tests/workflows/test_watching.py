"""Drift, suggestions and learning curves of runs, from Python and from the command line."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import budwood as bw
from budwood.evaluation.learning_curve import draw_nested_subsets
from budwood.storage.context import open_context
from budwood.training.linear_head import HeadSplit, compute_head_logits
from budwood.workflows.learning_curve import choose_sizes, measure_curve, solve_plain_head
from budwood.workflows.suggest import save_suggestions
from conftest import TINY, fill, run_command

HEAD = {"model": "cnn", "widths": (8,), "fc": (), "size": 16, "weights": "none", "freeze": "trunk", "seed": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos` of two classes, `new` images like them, and the run `head` of a linear head."""
    folder = tmp_path_factory.mktemp("watching")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / "photos" / name, 80, hue=hue)
        fill(folder / "new" / name, 20, first=300, hue=hue)
        fill(folder / "red", 20, first=400 * hue)
    run = bw.train(bw.scan(folder / "photos"), bw.Recipe(**HEAD), out=folder / "runs", id="head")
    assert run.record.trained == "head"
    return folder


def test_images_like_those_of_validation_are_no_drift(made: Path) -> None:
    found = bw.drift(made / "runs" / "head", made / "new")
    assert (found.verdict, found.found) == ("no drift", False)
    assert [test.name for test in found.tests] == ["images", "confidence", "classes"]
    assert (found.n, found.reference) == (40, len(bw.open_run(made / "runs" / "head").dataset().samples("val")))
    assert bw.drift(made / "runs" / "head", made / "new").table() == found.table()


def test_images_of_another_kind_are_drift(made: Path) -> None:
    found = bw.drift(made / "runs" / "head", [made / "red"])
    assert found.found
    assert found.tests[0].found
    assert found.tests[0].size > 0.5
    assert "of another kind" in found.sentence
    assert len(found.strangest) == 12
    assert found.strangest[0].beyond == 1
    assert len(found.strangest[0].nearest) == 3


def test_one_class_only_is_another_mix_and_no_other_kind(made: Path) -> None:
    found = bw.drift(made / "runs" / "head", made / "new" / "leaf")
    assert [test.found for test in found.tests] == [False, False, True]
    assert found.sentence == "Drift: The images are of the same kind, in another mix of classes."
    assert not bw.drift(made / "runs" / "head", made / "new" / "leaf", least_size=0.9).found
    assert not bw.drift(made / "runs" / "head", made / "new" / "leaf", alpha=1e-4).found


def test_a_few_images_tell_nothing(made: Path) -> None:
    found = bw.drift(made / "runs" / "head", sorted((made / "red").iterdir())[:9])
    assert (found.verdict, found.tests) == ("unknown", ())
    assert "Cannot tell: 9 new" in found.sentence
    assert len(found.strangest) == 9


def test_copies_damage_and_archives_are_told(made: Path, tmp_path: Path) -> None:
    data = bw.open_run(made / "runs" / "head").dataset()
    folder = tmp_path / "mixed"
    shutil.copytree(made / "new" / "leaf", folder)
    for split in ("train", "val", "test"):
        shutil.copy(data.root / data.samples(split).paths[0], folder / f"{split}.png")
    shutil.copy(folder / "300.png", folder / "twice.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    (folder / "notes.txt").write_text("no image")
    with tarfile.open(tmp_path / "mixed.tar", "w") as tar:
        tar.add(folder, "mixed")
    for source in (folder, tmp_path / "mixed.tar"):
        found = bw.drift(made / "runs" / "head", source, n=15)
        said = "\n".join(found.notes)
        assert "1 of 25 files are copies of training images and were left out." in said
        assert "1 of 25 files are copies of validation images and were left out." in said
        assert "1 files are images of the run's test set; they are compared, as no label is read." in said
        assert "1 files are exact copies of other new ones and count once." in said
        assert "1 files cannot be decoded and were left out; the first:" in said
        assert "At most 15 images on either side are compared" in said
        assert (found.n, found.reference) == (15, 15)


def test_drift_from_the_command_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, page = made / "runs" / "head", tmp_path / "drift.html"
    out, _ = run_command(capsys, "drift", run, made / "new")
    assert out.startswith("No drift found")
    out, _ = run_command(capsys, "drift", "head", made / "red", "--out", made / "runs", "--html", page, code=4)
    assert "changed" in out
    assert f"Page: {page}" in out
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/jpeg") == 48
    assert "no picture" not in html
    out, _ = run_command(capsys, "drift", run, made / "red", "--json", code=4)
    told = json.loads(out)
    assert told["verdict"] == "drift"
    assert told["tests"][0]["found"] is True
    assert told["alpha"] == 0.01
    out, _ = run_command(capsys, "drift", run, sorted((made / "red").iterdir())[0])
    assert out.startswith("Cannot tell: 1 new")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha 0.0: expected a chance between 0 and 1"),
        ({"least_size": 1.5}, "size 1.5: expected a size from 0 to 1"),
        ({"n": 5}, "n 5: expected 10 images or more"),
    ],
)
def test_options_out_of_range_are_refused(made: Path, options: dict[str, float], message: str) -> None:
    with pytest.raises(bw.RunError, match=message):
        bw.drift(made / "runs" / "head", made / "new", **options)  # type: ignore[arg-type]


def test_places_without_images_are_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    run = made / "runs" / "head"
    for command in ("drift", "suggest"):
        _, err = run_command(capsys, command, run, tmp_path / "gone", code=2)
        assert "no such file or folder" in err
        _, err = run_command(capsys, command, run, tmp_path / "empty", code=2)
        assert "contains no image that can be decoded." in err
        (tmp_path / "bad.png").write_bytes(b"no")
        _, err = run_command(capsys, command, run, tmp_path / "bad.png", code=2)
        assert "the first of 1 that cannot be:" in err
        _, err = run_command(capsys, command, tmp_path, made / "new", code=2)
        assert "is not a run folder" in err


def test_suggested_images_are_labelled_and_trained_on(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, table = made / "runs" / "head", tmp_path / "label.csv"
    pool = tmp_path / "pool"
    shutil.copytree(made / "new", pool)
    shutil.copy(made / "photos" / "leaf" / "003.png", pool / "known.png")
    Image.open(pool / "leaf" / "300.png").resize((60, 60)).save(pool / "near.png")
    run_command(capsys, "suggest", run, pool, "--n", "2", "--csv", table)
    out, _ = run_command(capsys, "suggest", run, pool, "--n", "12", "--csv", table)
    assert out.startswith("12 images to label next, of 41 that are not labelled:")
    assert "1 file left out, being in the data set already." in out
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["path"] for row in rows}) == 12
    assert not {row["label"] + row["correct"] for row in rows} - {""}
    assert "known.png" not in {Path(row["path"]).name for row in rows}
    assert len({"near.png", "300.png"} & {Path(row["path"]).name for row in rows if "sky" not in row["path"]}) <= 1
    for row in rows:
        row["correct"] = "leaf" if Path(row["path"]).parent.name == "leaf" else "sky"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    filled = table.read_bytes()
    _, err = run_command(capsys, "suggest", run, pool, "--csv", table, code=2)
    assert "has classes filled in. It was left as it is." in err
    assert table.read_bytes() == filled
    options = ["--model", "cnn", "--weights", "none", "--freeze", "trunk", "-s", "widths=[8]", "-s", "fc=[]"]
    out, err = run_command(
        capsys, "train", made / "photos", *options, "--size", "16", "--corrections", table, "--out", tmp_path, "--json"
    )
    assert "label.csv adds 12 images to training." in err
    trained = bw.open_run(json.loads(out)["run"]).dataset()
    before = bw.open_run(run).dataset()
    assert {row["path"] for row in rows} <= set(trained.samples("train").paths)
    assert len(trained.samples("train")) == len(before.samples("train")) + 12
    assert trained.samples("val").ids == before.samples("val").ids
    assert trained.samples("test").ids == before.samples("test").ids


def test_suggestions_that_cannot_be_made_are_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made / "runs" / "head"
    with pytest.raises(bw.RunError, match="n 0: expected a number of images"):
        bw.suggest(run, made / "new", n=0)
    _, err = run_command(capsys, "suggest", run, made / "photos", code=2)
    assert "all 160 images are in the data set of the run already" in err
    with tarfile.open(tmp_path / "new.tar", "w") as tar:
        tar.add(made / "new", "new")
    _, err = run_command(capsys, "suggest", run, tmp_path / "new.tar", "--csv", tmp_path / "t.csv", code=2)
    assert "images in an archive have no lasting path" in err
    assert not (tmp_path / "t.csv").exists()
    found = bw.suggest(run, tmp_path / "new.tar", n=5)
    assert len(found.images) == 5
    with pytest.raises(bw.DataError, match="cannot hold several labels of an image"):
        save_suggestions(tmp_path / "t.csv", found, multilabel=True)
    for options, message in (
        (("--n", "3"), "--n: needs DIR"),
        (("--csv", "t.csv"), "--csv: needs DIR"),
        ((made / "new", "--target", "0.9"), "--target: is for the learning curve"),
        ((made / "new", "--html", "t.html"), "--html: is for the learning curve"),
    ):
        _, err = run_command(capsys, "suggest", run, *options, code=2)
        assert message in err


def test_the_learning_curve_of_a_run(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, page = made / "runs" / "head", tmp_path / "curve.html"
    out, _ = run_command(capsys, "suggest", run, "--html", page)
    assert "Linear heads on the run's frozen trunk" in out
    assert "forecast" in out
    assert "Twice the training images" in out
    html = page.read_text(encoding="utf-8")
    assert "<svg" in html
    assert "nan" not in html.lower().replace("nanny", "")
    out, _ = run_command(capsys, "suggest", run, "--json", "--target", "0.9")
    told = json.loads(out)
    images = len(bw.open_run(run).dataset().samples("train"))
    assert told["points"][-1]["images"] == images
    assert [one["images"] for one in told["forecasts"]] == [2 * images, 4 * images]
    assert all(0 <= one["accuracy"]["low"] <= one["accuracy"]["high"] <= 1 for one in told["forecasts"])
    assert told["target"] == 0.9
    assert {one["name"] for one in told["classes"]} == {"leaf", "sky"}


def test_runs_without_a_learning_curve_say_why(made: Path, tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(bw.RunError, match=r"target 1\.5: expected an accuracy"):
        bw.learning_curve(made / "runs" / "head", target=1.5)
    with pytest.raises(bw.RunError, match="was trained from scratch"):
        bw.learning_curve(tiny / "runs" / "one")
    few = bw.train(bw.scan(tiny / "photos"), bw.Recipe(**HEAD), out=tmp_path, id="few")
    with pytest.raises(bw.RunError, match="too few for a curve"):
        bw.learning_curve(few)
    both = bw.ensemble(
        [few, bw.train(bw.scan(tiny / "photos"), bw.Recipe(**{**HEAD, "seed": 1}), out=tmp_path)], out=tmp_path
    )
    with pytest.raises(bw.RunError, match="is an ensemble"):
        bw.learning_curve(both)
    assert bw.drift(both, made / "new").n == 40
    assert len(bw.suggest(both, made / "new", n=4).images) == 4


def test_images_with_several_labels(made: Path, tmp_path: Path) -> None:
    paths = fill(tmp_path / "many", 40)
    labels = np.random.default_rng(0).integers(1, 4, 40)
    words = {1: "a", 2: "b", 3: "a;b"}
    rows = [f"many/{path.name},{words[int(label)]}" for path, label in zip(paths, labels, strict=True)]
    (tmp_path / "table.csv").write_text("path,label\n" + "\n".join(rows))
    run = bw.train(bw.scan(tmp_path / "table.csv"), bw.Recipe(**TINY), out=tmp_path / "runs")
    assert run.task.multilabel
    assert bw.drift(run, made / "new").n == 40
    assert len(bw.suggest(run, made / "new", n=3).images) == 3
    with pytest.raises(bw.RunError, match="several labels, for which there is no learning curve"):
        bw.learning_curve(run)


def test_a_fine_tuned_run_has_the_curve_of_the_trunk_that_it_started_from(made: Path, tmp_path: Path) -> None:
    tuned = bw.train(
        bw.scan(made / "photos"),
        bw.Recipe(**{**TINY, "widths": (8,), "fc": (), "freeze": "none", "weights": f"run:{made / 'runs' / 'head'}"}),
        out=tmp_path,
        id="tuned",
    )
    assert tuned.record.trained == "network"
    told = bw.learning_curve(tuned)
    assert told.about.startswith("Linear heads on the trunk that the run started from, not the fine-tuned one")


def test_a_forecast_of_a_part_holds_with_all_images() -> None:
    """The small version of benchmarks/learning_curve.py."""
    random = np.random.default_rng(0)
    middles = random.normal(0, 0.7, (3, 12))

    def draw(n: int) -> HeadSplit:
        labels = random.integers(0, 3, n).astype(np.int32)
        return HeadSplit((middles[labels] + random.normal(0, 1, (n, 12))).astype(np.float32), labels)

    train, val, context = draw(500), draw(300), open_context()
    full = solve_plain_head(train, val, 3, context.progress)
    error = float((compute_head_logits(val.outputs, *full).argmax(axis=1) != val.labels).mean())
    held = 0
    for seed in range(6):
        (rows,) = draw_nested_subsets(train.labels, [200], np.random.default_rng(seed))
        part = HeadSplit(train.outputs[rows], train.labels[rows])
        told = measure_curve(part, val, 3, choose_sizes(200, 3), 3, context, seed).forecast(500)
        assert told.low is not None
        assert told.high is not None
        assert told.high - told.low < 0.2
        held += int(told.low <= error <= told.high)
    assert held >= 5
