"""`budwood predict` takes images from anywhere, writes as it goes, goes on after a kill, names what it cannot read."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import budwood as bw
from budwood.cli import main
from budwood.cli.predict_command import describe_prediction
from budwood.data import image_streams
from budwood.data.image_streams import stream_images
from budwood.evaluation.prediction_rows import make_cells, make_document, make_table, name_columns
from budwood.evaluation.prediction_table import ImagePrediction
from budwood.storage.atomic import cache_folder
from budwood.workflows import prediction_files
from budwood.workflows.sorting import name_folders
from conftest import TINY, Notes, fill, run_command


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos` of two classes, whose names need care, and the run `one`."""
    folder = tmp_path_factory.mktemp("made")
    fill(folder / "photos" / "=leaf, green", 12, hue=1)
    fill(folder / "photos" / "sky", 12, hue=2)
    bw.train(bw.scan(folder / "photos"), bw.Recipe(**TINY), out=folder / "runs", id="one")
    return folder


@pytest.fixture
def new(made: Path, tmp_path: Path) -> Path:
    """New images in folders, one of them no image; and one that is hidden."""
    fill(tmp_path / "new" / "a", 3, first=100, hue=1)
    fill(tmp_path / "new" / "b", 2, first=100, hue=2)
    (tmp_path / "new" / "b" / "bad.png").write_text("no image")
    (tmp_path / "new" / ".hidden.png").write_bytes((tmp_path / "new" / "a" / "100.png").read_bytes())
    return tmp_path / "new"


def names(sources: Sequence[str | Path], listed: bytes = b"") -> list[str]:
    return [one.name for one in stream_images(sources, io.BytesIO(listed))]


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_images_come_from_folders_patterns_lists_and_archives(new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = names([new])
    assert found == [
        str(new / name) for name in ("a/100.png", "a/101.png", "a/102.png", "b/100.png", "b/101.png", "b/bad.png")
    ]
    assert names([new / "a" / "100.png", f"{new}/b/*.png"]) == [found[0], *found[3:]]
    assert names([f"{new}/**/*.png"]) == found
    assert names([f"{new}/**"]) == found
    assert names([f"{new}/*"]) == found
    assert names(["-"], "\n".join(found).encode()) == found
    assert names(["-"], "\r\n".join(found).encode() + b"\r\n\r\n") == found
    assert names(["-"], b"\0".join(map(os.fsencode, [*found, "with\nline"])) + b"\0") == [*found, "with\nline"]
    assert names(["-"], f"{new / 'a'}\n".encode()) == found[:3], "a folder in a list"
    long = [f"x{number:05}.png" for number in range(5000)]
    assert names(["-"], "\n".join(long).encode()) == long, "longer than what is read at once"
    assert names(["-"]) == []
    monkeypatch.chdir(new)
    assert names(["."]) == ["a/100.png", "a/101.png", "a/102.png", "b/100.png", "b/101.png", "b/bad.png"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_are_read_without_unpacking(new: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = new.parent / f"some.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for file in sorted(new.rglob("*.png")):
                packed.write(file, file.relative_to(new))
    else:
        with tarfile.open(archive, "w:gz" if kind == "tar.gz" else "w") as packing:
            packing.add(new, "new")
            link = tarfile.TarInfo("new/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "a/100.png"
            packing.addfile(link)
    found = list(stream_images([archive]))
    files = [one for one in found if not one.problem]
    assert len(files) == 6, "what is hidden is passed over"
    assert all(one.name.startswith(f"{archive}/") for one in files)
    contents = {Path(one.name).parts[-2:]: one.content for one in files}
    assert contents["a", "101.png"] == (new / "a" / "101.png").read_bytes()
    assert [one.problem for one in found if one.problem] == ["unreadable: a symlink in an archive, no file"] * (
        kind != "zip"
    )
    assert names(["-"], str(archive).encode()) == [one.name for one in found]
    monkeypatch.setattr(image_streams, "MOST_BYTES", 10)
    large = [one for one in stream_images([archive]) if "bad" not in one.name and "link" not in one.name]
    assert all(one.problem.startswith("too large: ") for one in large)


def test_what_is_not_there_is_told_before_anything_is_loaded(
    made: Path, new: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made / "runs" / "one"
    assert "nowhere.png: no such file or folder." in run_command(capsys, "predict", run, "nowhere.png", code=2)[1]
    with pytest.raises(bw.DataError, match="no such file or folder"):
        bw.predict(run, "nowhere.png")
    with pytest.raises(bw.DataError, match="no such file or folder"):
        names(["nowhere.png"])
    assert "no file matches this pattern" in run_command(capsys, "predict", run, "no*where.png", code=2)[1]
    cut = new.parent / "cut.zip"
    cut.write_bytes(b"PK\3\4 no archive")
    assert (
        "the archive cannot be read further (the directory at its end"
        in run_command(capsys, "predict", run, cut, code=2)[1]
    )
    for options, message in (
        (["--copy"], "--copy: needs --sort-into DIR."),
        (["--csv", "x", "--jsonl", "x"], "two of them name the same file"),
        (["--sort-into", str(new / "sorted")], f"lies in {new}, whose images it is to receive."),
        (["--features", "x.txt"], "--features: expected a file named .npy or .parquet, found x.txt."),
        (["--coverage", "1"], "coverage: expected a number above 0 and below 1, found 1."),
    ):
        monkeypatch.chdir(new.parent)
        before = list_files(new.parent)
        assert message in run_command(capsys, "predict", run, new, *options, code=2)[1]
        assert list_files(new.parent) == before


def test_the_exit_code_tells_whether_all_some_or_none_could_be_read(
    made: Path, new: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made / "runs" / "one"
    out, err = run_command(capsys, "predict", run, new / "a")
    assert (len(out.splitlines()), err) == (3, "")
    out, err = run_command(capsys, "predict", run, new, code=3)
    assert f"{new / 'b' / 'bad.png'}: cannot be read (not an image: " in out
    assert err.splitlines()[0] == "1 of 6 images cannot be read."
    assert err.splitlines()[1].startswith(f"  {new / 'b' / 'bad.png'} (not an image: ")
    run_command(capsys, "predict", run, new / "b" / "bad.png", code=2)
    monkeypatch.setattr(prediction_files, "SHOWN", 1)
    missing = f"{new / 'gone.png'}\n{new / 'b' / 'bad.png'}\n{new / 'a' / '100.png'}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(missing.encode())))
    _, err = run_command(capsys, "predict", run, "-", code=3)
    assert "gone.png (unreadable: No such file or directory)" in err
    assert "  and 1 more" in err


def test_every_file_has_every_image(made: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = made / "runs" / "one", tmp_path / "out"
    files: list[str | Path] = ["--csv", out / "a.csv", "--jsonl", out / "a.jsonl", "--parquet", out / "a.parquet"]
    said = json.loads(
        run_command(capsys, "predict", run, new, *files, "--features", out / "f.npy", "--json", "--top", "1", code=3)[0]
    )
    assert [set(one) >= {"path", "top", "problem", "label", "refused", "candidates", "probabilities"} for one in said]
    expected = bw.predict(run, [new], top=1, features=True)
    assert [one["path"] for one in said] == [one.path for one in expected]
    assert [one["top"] for one in said[:1]] == [[{"class": n, "probability": p} for n, p in expected[0].top]]
    assert [json.loads(line) for line in (out / "a.jsonl").read_text().splitlines()] == said
    with (out / "a.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0])[:4] == ["path", "class_1", "probability_1", "problem"]
    assert [row["path"] for row in rows] == [one.path for one in expected]
    assert rows[0]["label"] == "'=leaf, green", "a spreadsheet takes it for no formula"
    assert float(rows[0]["p: =leaf, green"]) == pytest.approx(said[0]["probabilities"]["=leaf, green"], abs=1e-6)
    assert rows[-1]["label"] == rows[-1]["p: sky"] == rows[-1]["refused"] == ""
    assert rows[-1]["problem"] == expected[-1].problem
    table = pq.read_table(out / "a.parquet").to_pylist()
    for row, one in zip(table, said, strict=True):
        assert {name: row[name] for name in ("path", "label", "labels", "candidates", "notes", "refused")} == {
            name: one[name] for name in ("path", "label", "labels", "candidates", "notes", "refused")
        }
        assert row["p: sky"] == (one["probabilities"] or {}).get("sky")
    features = np.load(out / "f.npy")
    assert features.dtype == np.float32
    assert np.array_equal(features, np.stack([one.features for one in expected if one.features is not None]))
    paths = [json.loads(line) for line in (out / "f.paths.jsonl").read_text().splitlines()]
    assert paths == [one.path for one in expected if not one.problem]
    run_command(capsys, "predict", run, new, "--features", out / "f.parquet", code=3)
    table = pq.read_table(out / "f.parquet").to_pylist()
    assert [row["path"] for row in table] == paths
    assert np.array_equal([row["features"] for row in table], features)
    assert sorted(path.name for path in out.iterdir()) == [
        "a.csv",
        "a.jsonl",
        "a.parquet",
        "f.npy",
        "f.parquet",
        "f.paths.jsonl",
    ]


def test_files_of_no_image_are_whole(made: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--csv", "a.csv", "--parquet", "a.parquet", "--features", "f.npy"]
    more = [part if part.startswith("-") else str(tmp_path / part) for part in files]
    run_command(capsys, "predict", made / "runs" / "one", new / "b" / "bad.png", *more, code=2)
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 1
    assert np.load(tmp_path / "f.npy").shape == (0, 0)
    run_command(
        capsys, "predict", made / "runs" / "one", new / "b" / "bad.png", "--features", tmp_path / "f.parquet", code=2
    )
    assert pq.read_table(tmp_path / "f.parquet").num_rows == 0
    (tmp_path / "empty").mkdir()
    run_command(capsys, "predict", made / "runs" / "one", tmp_path / "empty", "--json", *more, code=2)
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0


def test_what_is_written_into_the_folder_of_the_images_is_none_of_them(
    made: Path, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        run_command(capsys, "predict", made / "runs" / "one", new, "--csv", new / "a.csv", code=3)
        assert len((new / "a.csv").read_text().splitlines()) == 7


class Killed(BaseException):
    """Stands for a kill, after which nothing is tidied up but what the system does."""


def predict_until(
    run: Path, source: str | Path, out: Path, batches: int | None, monkeypatch: pytest.MonkeyPatch, *more: str
) -> int:
    """Predict into files, and end as if killed after some batches; returns how many batches were computed."""
    done, add = 0, prediction_files.PartialFiles.add

    def add_or_die(self: prediction_files.PartialFiles, answers: Sequence[ImagePrediction]) -> None:
        nonlocal done
        done += 1
        if batches is not None and done > batches:
            for handle in self._handles:  # a later write than the note of it
                handle.write(b"half a li")
                handle.flush()
            raise Killed
        add(self, answers)

    files = ["--csv", out / "a.csv", "--parquet", out / "a.parquet", "--features", out / "f.npy"]
    with monkeypatch.context() as patch:
        patch.setattr(prediction_files.PartialFiles, "add", add_or_die)
        patch.setattr(prediction_files, "EVERY", 0)
        if batches is not None:
            patch.setattr(prediction_files.PartialFiles, "__exit__", lambda self, *_: self._stack.close())
            with pytest.raises(Killed):
                main.run(["predict", str(run), str(source), *map(str, files), *more])
        else:
            assert main.run(["predict", str(run), str(source), *map(str, files), *more]) == 3
    return done


def test_a_killed_command_goes_on_where_it_stopped(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made / "runs" / "one"
    fill(tmp_path / "many", 40, first=500, hue=1)
    (tmp_path / "many" / "501.png").write_text("no image")
    assert predict_until(run, tmp_path / "many", tmp_path / "whole", None, monkeypatch) == 3
    out = tmp_path / "out"
    predict_until(run, tmp_path / "many", out, 1, monkeypatch)
    assert not (out / "a.csv").exists()
    capsys.readouterr()
    assert predict_until(run, tmp_path / "many", out, None, monkeypatch) == 2, "two of three batches were left"
    said = capsys.readouterr()
    assert "17 images were done before an interruption; going on." in said.err
    assert "1 of 40 images cannot be read." in said.err, "the one before the interruption, too"
    for name in ("a.csv", "f.npy", "f.paths.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert pq.read_table(out / "a.parquet") == pq.read_table(tmp_path / "whole" / "a.parquet")
    assert sorted(path.name for path in out.iterdir()) == ["a.csv", "a.parquet", "f.npy", "f.paths.jsonl"]


def test_with_other_options_or_images_it_starts_anew(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out, many = made / "runs" / "one", tmp_path / "out", tmp_path / "many"
    fill(many, 40, first=500, hue=1)
    (many / "501.png").write_text("no image")
    predict_until(run, many, out, 1, monkeypatch)
    assert predict_until(run, many, out, None, monkeypatch, "--top", "1") == 3, "other options"
    predict_until(run, many, out, 1, monkeypatch)
    fill(many, 1, first=400)
    assert predict_until(run, many, out, None, monkeypatch) == 3, "another image among the first"
    predict_until(run, many, out, 1, monkeypatch)
    (out / "a.csv.part").write_text("")
    assert predict_until(run, many, out, None, monkeypatch) == 3, "a part was lost"
    assert "were done before" not in capsys.readouterr().err
    files = "".join(f"{file}\n" for file in sorted(many.iterdir())).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(files)))
    predict_until(run, "-", out, 1, monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(files[10:])))
    assert main.run(["predict", str(run), "-", *_files_of(out)]) == 2
    assert "a.csv.part: is of other images than those of this list." in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(files)))
    assert predict_until(run, "-", out, None, monkeypatch) == 2


def _files_of(out: Path) -> list[str]:
    return ["--csv", str(out / "a.csv"), "--parquet", str(out / "a.parquet"), "--features", str(out / "f.npy")]


def test_two_commands_do_not_write_one_file(
    made: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = prediction_files.PartialFiles([prediction_files.make_csv(tmp_path / "a.csv", ("a",), 1)], "")
    with held:
        held.begin(lambda: iter(()), True, True, Notes())
        code = main.run(["predict", str(made / "runs" / "one"), str(new), "--csv", str(tmp_path / "a.csv")])
        assert code == 2
        assert "a.csv: is being written by another process." in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("a.csv*")] == ["a.csv"]


def test_images_are_sorted_into_folders_and_none_is_lost(
    made: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, linked, copied = made / "runs" / "one", tmp_path / "linked", tmp_path / "copied"
    before = list_files(new)
    for _ in range(2):  # again, it finds its own links
        run_command(capsys, "predict", run, new, "--sort-into", linked, code=3)
        run_command(capsys, "predict", run, new, "--sort-into", copied, "--copy", code=3)
        found = {path.relative_to(linked).parts[0] for path in linked.rglob("*.png")}
        assert found == {"=leaf, green", "sky", "unreadable"}
        assert {os.path.realpath(path) for path in linked.rglob("*.png")} == {
            os.path.realpath(path) for path in [*(new / "a").iterdir(), *(new / "b").iterdir()]
        }
        assert all(path.is_symlink() for path in linked.rglob("*.png"))
        contents = sorted(path.read_bytes() for path in copied.rglob("*.png"))
        assert contents == sorted(path.read_bytes() for path in linked.rglob("*.png"))
        assert not any(path.is_symlink() for path in copied.rglob("*"))
    assert list_files(new) == before
    other = tmp_path / "other"
    fill(other, 1, first=100, hue=1)
    Image.open(other / "100.png").rotate(90).save(other / "100.png")
    for folder, more in ((linked, []), (copied, ["--copy"])):
        held = {path: path.read_bytes() for path in folder.rglob("*.png")}
        run_command(capsys, "predict", run, other, "--sort-into", folder, *more)
        after = {path: path.read_bytes() for path in folder.rglob("*.png")}
        assert len(after) == len(held) + 1, "two files of one name are both kept"
        assert after.items() >= held.items()


def test_members_of_archives_are_sorted_as_files(
    made: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.make_archive(str(tmp_path / "some"), "zip", new / "a")
    for _ in range(2):
        run_command(capsys, "predict", made / "runs" / "one", tmp_path / "some.zip", "--sort-into", tmp_path / "sorted")
        found = list((tmp_path / "sorted").rglob("*.png"))
        assert sorted(one.read_bytes() for one in found) == sorted(one.read_bytes() for one in (new / "a").iterdir())


def test_a_disk_without_links_is_told(
    made: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("privilege not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    _, err = run_command(capsys, "predict", made / "runs" / "one", new / "a", "--sort-into", tmp_path / "s", code=2)
    assert "a link cannot be made here (privilege not held)." in err
    assert "Use --copy." in err


def test_folders_have_names_that_every_system_takes() -> None:
    given = ["none of these", "a/b", "a_b", "A_B", "..", "", "con", "nul.txt", "x. ", "tab\tbed", "plain", "ä" * 100]
    found = name_folders(given)
    assert found[:7] == ["none of these", "a_b", "a_b-2", "A_B-3", "_", "_-2", "_con"]
    assert found[7:11] == ["_nul.txt", "x", "tab_bed", "plain"]
    assert len(found[-1].encode()) <= 120
    assert len({name.casefold() for name in found}) == len(given)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (ImagePrediction("a", (("x", 0.9), ("y", 0.1)), label="x"), "a: x 90.0%, y 10.0%"),
        (ImagePrediction("a", (("x", 0.9),), label="y"), "a: y: x 90.0%"),
        (ImagePrediction("a", (("x", 0.9),), label="x", refused=True), "a: none of these (nearest: x 90.0%)"),
        (ImagePrediction("a", (("x", 0.9),), label="x", refused=False, candidates=("x",)), "a: x 90.0%"),
        (ImagePrediction("a", (("x", 0.6),), label="x", candidates=("x", "y")), "a: x 60.0% [may be: x, y]"),
        (ImagePrediction("a", (("x", 0.6),), label="x", notes=("grey",)), "a: x 60.0% [grey]"),
        (ImagePrediction("a", (), "empty: no bytes"), "a: cannot be read (empty: no bytes)"),
    ],
)
def test_an_answer_is_one_plain_line(answer: ImagePrediction, line: str) -> None:
    assert describe_prediction(answer) == line


def test_each_of_several_labels_is_answered_with_yes_or_no() -> None:
    shares, classes = np.linspace(0.9, 0.1, 17), tuple(f"c{number}" for number in range(17))
    answer = ImagePrediction(
        "a", (("c0", 0.9),), label="c0, c3", probabilities=shares, decisions=tuple(k in (0, 3) for k in range(17))
    )
    said = describe_prediction(answer, classes)
    assert said.startswith("a: c0, c3 (c0 yes 90.0%, c3 yes 75.0%, c1 no 85.0%, c2 no 80.0%, ")
    assert said.endswith(", 3 more no)")
    cells = dict(zip(name_columns(classes, 1, True), make_cells(answer, 17, 1, True), strict=True))
    assert (cells["is: c0"], cells["is: c1"], cells["is: c3"]) == ("yes", "no", "yes")
    document = make_document(answer, classes)
    assert document["decisions"]["c3"] is True
    assert document["decisions"]["c4"] is False
    row = make_table([document], classes, True).to_pylist()[0]
    assert (row["is: c3"], row["is: c4"], row["p: c3"]) == (True, False, 0.75)
    single = ImagePrediction("a", (("c0", 0.9),), label="c0")
    assert make_document(single, classes)["decisions"] is None
    assert not [name for name in name_columns(classes, 1) if name.startswith("is: ")]


def test_an_image_goes_into_the_folder_of_each_of_its_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = fill(tmp_path / "photos", 24)
    rows = [f"{file.name},{('red', 'red|round', 'round', '')[number % 4]}" for number, file in enumerate(files)]
    (tmp_path / "photos" / "labels.csv").write_text("\n".join(["path,labels", *rows]))
    data = bw.scan(tmp_path / "photos" / "labels.csv")
    bw.train(data, bw.Recipe(**TINY), out=tmp_path / "runs", id="one", novelty=False)
    found = bw.predict(tmp_path / "runs" / "one", files)
    options: list[str | Path] = ["--sort-into", tmp_path / "sorted", "--csv", tmp_path / "a.csv"]
    out, _ = run_command(capsys, "predict", tmp_path / "runs" / "one", *files, *options)
    expected = {(label, Path(one.path).name) for one in found for label in one.labels or ("none of them",)}
    assert {path.relative_to(tmp_path / "sorted").parts for path in (tmp_path / "sorted").rglob("*.png")} == expected
    with (tmp_path / "a.csv").open(newline="") as handle:
        assert [row["label"] for row in csv.DictReader(handle)] == [one.label for one in found]
    assert len(out.splitlines()) == 24


def test_sets_follow_the_coverage(made: Path, new: Path) -> None:
    run = made / "runs" / "one"
    small, large = (bw.predict(run, new / "a", coverage=coverage) for coverage in (0.5, 0.999))
    for one, other in zip(small, large, strict=True):
        assert one.candidates is not None
        assert other.candidates is not None
        assert set(one.candidates) <= set(other.candidates) == {"=leaf, green", "sky"}
        assert one.top == other.top


def test_predicting_loads_no_torch_and_keeps_nothing_of_the_images(made: Path, new: Path, tmp_path: Path) -> None:
    bw.predict(made / "runs" / "one", new)
    before = list_files(cache_folder())
    code = (
        "import sys; from budwood.cli.main import run; code = run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    (tmp_path / "cwd").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", made / "runs" / "one", new],
        cwd=tmp_path / "cwd",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert len(done.stdout.splitlines()) == 6
    assert list_files(cache_folder()) == before
    assert list_files(tmp_path / "cwd") == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_a_process_that_is_killed_goes_on(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list comes slowly, so that the kill comes in the middle."""
    run, out = made / "runs" / "one", tmp_path / "a.jsonl"
    files = [str(file) for file in fill(tmp_path / "many", 100, first=500, hue=1)]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from budwood.cli.main import main; main()",
            "predict",
            str(run),
            "-",
            "--jsonl",
            str(out),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    lines = b"".join(os.fsencode(file) + b"\n" for file in files)
    padding = b"\n" * 8192  # empty lines are no paths, and let what was sent be read
    process.stdin.write(lines + padding)
    process.stdin.flush()
    for _ in range(16):
        process.stdout.readline()
    time.sleep(0.1)
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert not out.exists()
    assert main.run(["predict", str(run), str(tmp_path / "many"), "--jsonl", str(out)]) == 0
    rows: list[dict[str, Any]] = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["path"] for row in rows] == files
    assert not list(tmp_path.glob("a.jsonl.*"))


def test_images_whose_names_begin_like_an_output_are_predicted(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = fill(tmp_path / "photos", 2, hue=1)
    for number, file in enumerate(files):
        file.rename(tmp_path / "photos" / f"res{number}.png")
    options: list[str | Path] = ["--csv", tmp_path / "photos" / "res", "--features", tmp_path / "photos" / "f.npy"]
    for _ in range(2):  # the second time its own files lie among the images
        out, err = run_command(capsys, "predict", tiny / "runs" / "one", tmp_path / "photos", *options)
        assert len(out.splitlines()) == 2
        assert not err


def test_outputs_that_would_replace_each_other_are_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: list[str | Path] = ["--features", tmp_path / "f.npy", "--jsonl", tmp_path / "f.paths.jsonl"]
    _, err = run_command(capsys, "predict", tiny / "runs" / "one", tiny / "photos", *options, code=2)
    assert "two of them name the same file" in err


def test_no_images_at_all_are_told(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    _, err = run_command(capsys, "predict", tiny / "runs" / "one", tmp_path / "empty", code=2)
    assert "There are no images in what was named. Check the folder, the pattern or the list." in err
    _, err = run_command(capsys, "predict", tiny / "runs" / "one", "", code=2)
    assert "IMAGES: an empty path." in err


def test_names_of_classes_cannot_break_a_line() -> None:
    answer = ImagePrediction("a", (("x\ny", 0.9), ("\u202ez", 0.1)), label="x\ny", candidates=("x\ny", "\u202ez"))
    assert describe_prediction(answer) == r"a: x\ny 90.0%, \u202ez 10.0% [may be: x\ny, \u202ez]"
    several = replace(answer, candidates=None, probabilities=np.array([0.9, 0.1]), decisions=(True, False))
    assert describe_prediction(several, ("x\ny", "\u202ez")) == r"a: x\ny (x\ny yes 90.0%, \u202ez no 10.0%)"


@pytest.mark.parametrize("files", [None, 3, {"a.png": 1}], ids=lambda one: type(one).__name__)
def test_what_is_neither_path_nor_image_is_told(tiny: Path, files: Any) -> None:
    with pytest.raises(bw.DataError, match=r"images: expected paths or images, found \w+\."):
        bw.predict(tiny / "runs" / "one", files)


def test_drift_wants_paths(tiny: Path) -> None:
    with pytest.raises(bw.ArgumentError, match=r"^drift: images: expected a path or a list of these, found"):
        bw.drift(tiny / "runs" / "one", b"bytes")  # type: ignore[arg-type]


@pytest.mark.parametrize("top", [0, -1, "3", 1.5])
def test_a_number_of_classes_that_is_none_is_told(tiny: Path, top: Any) -> None:
    with pytest.raises(bw.BudwoodError, match=r"top: expected a whole number(| from 1 on), found"):
        bw.predict(tiny / "runs" / "one", tiny / "photos", top=top)
    with pytest.raises(bw.DataError, match="top: expected a whole number from 1 on, found"):
        bw.Predictor.open(tiny / "runs" / "one").predict(np.zeros((4, 4, 3), np.uint8), top=top)


@pytest.mark.parametrize("images", [None, 3, {"a": 1}])
def test_what_is_no_image_is_told(tiny: Path, images: Any) -> None:
    with pytest.raises(bw.DataError, match="images: expected one image or a sequence of images, found"):
        bw.Predictor.open(tiny / "runs" / "one").predict(images)
    with pytest.raises(bw.RunError, match="run: expected a run, its path or its name, found"):
        bw.Predictor.open(images)
