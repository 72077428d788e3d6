"""A report shows an image only if it is the one that the run saw, and reads none outside the data folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import budwood as bw
from budwood.data.images import compute_content_id, find_inside
from budwood.explain.scatter import make_small_pictures
from budwood.reporting.thumbnails import collect_pictures, make_thumbnail
from budwood.runs.run import Run, open_run
from budwood.runs.run_files import digest_run_files
from budwood.runs.run_record import save_record
from budwood.storage.context import open_context
from budwood.workflows.explain import explain_run
from conftest import fill, picture

RECIPE = {"model": "cnn", "widths": (4,), "fc": (4,), "size": 16, "epochs": 1, "batch": 8, "lr": 0.01}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / "photos" / name, 15, hue=hue)
    shutil.copy(folder / "photos/leaf/000.png", folder / "photos/leaf/copy.png")  # of which a finding tells
    bw.train(bw.scan(folder / "photos"), bw.Recipe(**RECIPE), out=folder / "runs", id="one")
    return folder


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Run:
    """A copy of a run and of its images."""
    shutil.copytree(kept, tmp_path / "all")
    run = open_run(tmp_path / "all" / "runs" / "one")
    save_record(run.path, run.record.model_copy(update={"root": str(tmp_path / "all" / "photos")}))
    return open_run(run.path)


def _pages(run: Run) -> str:
    return (bw.report(run).path / "report.html").read_text()


def _point_elsewhere(run: Run, path: str, private: Path) -> Run:
    """The run of a stranger, whose predictions name a file for their first image, content id and digests included."""
    known = run.predictions("val")
    ids = (compute_content_id(private.read_bytes()), *known.ids[1:])
    replace(known, paths=(path, *known.paths[1:]), ids=ids).save(run.path / "predictions-val.parquet")
    record = run.record.model_copy(update={"files": digest_run_files(run.path)})
    save_record(run.path, record)
    return Run(run.path, record)


def test_a_picture_of_the_run_is_shown_and_none_is_left_out(run: Run) -> None:
    found = collect_pictures(run.record, run.root, run.dataset(), run.predictions("val"))
    assert found.left_out == 0
    assert all(image.thumbnail for image in (*found.mistakes, *found.hits))
    assert {"leaf/000.png", "leaf/copy.png"} <= set(found.thumbnails)
    assert "left out of this report" not in _pages(run)


@pytest.mark.parametrize("how", ["up", "absolute", "link"])
def test_a_file_outside_the_data_folder_is_not_shown(how: str, run: Run, tmp_path: Path) -> None:
    private, root = tmp_path / "private.png", Path(run.record.root)
    picture(7777, side=64).save(private)
    (root / "link.png").symlink_to(private)
    path = {"up": "../../private.png", "absolute": str(private), "link": "link.png"}[how]
    assert (root / path).is_file()
    theirs = _point_elsewhere(run, path, private)
    found = collect_pictures(theirs.record, theirs.root, theirs.dataset(), theirs.predictions("val"))
    assert [image.path for image in (*found.mistakes, *found.hits) if image.thumbnail is None] == [path]
    assert "1 picture is left out of this report: the files are missing, have changed" in _pages(theirs)
    shown, _ = explain_run(theirs, open_context(), parts=["images"])
    assert path not in str(shown.record.table())
    assert make_small_pictures(root, [path], [compute_content_id(private.read_bytes())]) == {}


def test_an_image_that_was_replaced_is_not_shown_beside_old_predictions(run: Run) -> None:
    before = collect_pictures(run.record, run.root, run.dataset(), run.predictions("val"))
    shown = before.hits[0].path if before.hits else before.mistakes[0].path
    for path in (shown, "leaf/000.png"):
        picture(4242).save(Path(run.record.root) / path)
    found = collect_pictures(run.record, run.root, run.dataset(), run.predictions("val"))
    missing = {image.path for image in (*found.mistakes, *found.hits) if image.thumbnail is None}
    assert shown in missing
    assert "leaf/000.png" not in found.thumbnails
    assert found.left_out == len(missing | {"leaf/000.png"}) == 2
    assert "2 pictures are left out of this report" in _pages(run)


def test_training_images_that_were_replaced_are_not_shown_by_an_explanation(run: Run) -> None:
    explanation, _ = explain_run(run, open_context(), parts=["images"])
    assert explanation.left_out == 0
    assert explanation.record.images is not None
    near = {one.path for row in explanation.record.images.rows for one in row.near}
    for path in sorted(near)[:2]:
        picture(4242 + len(path)).save(Path(run.record.root) / path)
    (run.path / "explanation.json").unlink()  # its pictures were of the right images, and would be kept
    explanation, page = explain_run(run, open_context(), parts=["images"])
    assert explanation.record.images is not None
    again = {one.path for row in explanation.record.images.rows for one in row.near}
    assert explanation.left_out == len(again & set(sorted(near)[:2])) > 0
    assert "left out of the explanation: when it was made" in page.read_text()


def test_a_path_leads_inside_or_nowhere(tmp_path: Path) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "loop").symlink_to("loop")
    (tmp_path / "root" / "b").symlink_to("a")
    assert find_inside(tmp_path / "root", "b/1.png") == (tmp_path / "root" / "a" / "1.png").resolve()
    for path in ("../root/a/1.png", "a/../../x", "/etc/passwd", "a\0b"):
        assert find_inside(tmp_path / "root", path) is None
    assert make_thumbnail(tmp_path / "root", "loop", "f" * 32) is None
    assert make_thumbnail(tmp_path / "root", "a", None) is None
