"""A run made from what a program has in memory: tested, explained, reported and used by another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.runs.run import Run
from conftest import TINY, picture, run_command

COUNT = 40
PICTURES = [picture(number, 1 + number % 2) for number in range(COUNT)]
ARRAY = np.stack([np.asarray(one) for one in PICTURES])
NAMES = [("leaf", "sky")[number % 2] for number in range(COUNT)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return bw.train((ARRAY, NAMES), Recipe(**TINY), out=tmp_path_factory.mktemp("given"), id="one")


def test_another_process_tests_explains_and_reports_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys, budwood as bw; run = bw.test(sys.argv[1]); print(run.record.test is not None)"
    done = subprocess.run([sys.executable, "-c", code, run.path], check=False, capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
    assert len(bw.explain.embedding(bw.open_run(run.path)).paths) == len(run.dataset().samples("val"))
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "were given by a program, not as files" in page
    assert f"budwood train {run.record.source} --recipe" in page
    out, _ = run_command(capsys, "inspect", run.record.source)
    assert "40" in out


def test_every_form_of_an_image_gets_the_same_answer(run: Run) -> None:
    data = bw.scan((ARRAY, NAMES))
    paths = [data.root / path for path in data.table["path"].to_pylist()]
    expected = [one.top for one in bw.predict(run, paths)]
    forms: list[Any] = [
        ARRAY,
        PICTURES,
        (one for one in PICTURES),
        list(zip(PICTURES, NAMES, strict=True)),
        pd.DataFrame({"image": PICTURES}),
        pd.Series([path.read_bytes() for path in paths], index=range(7, 7 + COUNT)),
        ARRAY.transpose(0, 3, 1, 2) / 255,
        data,
    ]
    for form in forms:
        assert [one.top for one in bw.predict(run, form)] == expected
    assert [one.path for one in bw.predict(run, ARRAY[:2])] == ["image 0", "image 1"]
    assert len(bw.predict(run, ARRAY[0])) == len(bw.predict(run, PICTURES[0])) == 1


def test_wrong_images_are_told_before_anything_is_predicted(run: Run) -> None:
    with pytest.raises(bw.DataError, match=r"image 0: expected uint8, .*; found int64 from"):
        bw.predict(run, ARRAY.astype(int))
    with pytest.raises(bw.DataError, match="the data frame: has no column 'path'"):
        bw.predict(run, pd.DataFrame({"what": PICTURES}))
    (told,) = bw.predict(run, b"no image")
    assert told.problem == "not an image: unknown image format"


def test_all_functions_take_what_scan_takes(photos: Path, tmp_path: Path) -> None:
    data = bw.scan(photos)
    assert bw.findings(photos) == bw.findings(data)
    assert bw.select_per_class(photos, images_per_class=5).counts()["train"] == {"leaf": 5, "sky": 5}
    _, cost = bw.estimate_cost([photos / "leaf", photos / "sky"], Recipe(**TINY), out=tmp_path)
    assert cost.disk["run"] > 0
    table = bw.tune((ARRAY, NAMES), TINY, trials=1, out=tmp_path / "runs")
    assert len(table.rows) >= 1
