"""Accuracy by property: planted weaknesses are found, with the tests that SciPy and statsmodels give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import fisher_exact
from statsmodels.stats.multitest import multipletests

import budwood as bw
from budwood.evaluation.predictions import Predictions
from budwood.explain.subgroups import (
    SliceMask,
    find_slices,
    make_aspect_masks,
    make_group_masks,
    make_quarter_masks,
    score_slices,
)
from budwood.storage.context import open_context
from conftest import scored_run

N = 400


def test_each_slice_has_the_exact_test_and_holms_correction() -> None:
    random = np.random.default_rng(0)
    right = random.random(N) < 0.8
    parts = [SliceMask("size", str(number), random.random(N) < 0.1 + number / 10) for number in range(5)]
    right[parts[2].rows] &= random.random(int(parts[2].rows.sum())) < 0.7
    found = score_slices(parts, right, [str(number) for number in range(N)])
    plain = []
    for part, one in zip(parts, found, strict=True):
        hits, others = right[part.rows], right[~part.rows]
        table = [[hits.sum(), (~hits).sum()], [others.sum(), (~others).sum()]]
        plain.append(min(1, 2 * min(fisher_exact(table, alternative=side).pvalue for side in ("less", "greater"))))
        assert one.p_alone == pytest.approx(plain[-1])
        assert one.n == one.metric["n"] == len(hits)
        assert one.metric["value"] == pytest.approx(hits.mean())
        assert one.rest["value"] == pytest.approx(others.mean())
        assert one.difference["value"] == pytest.approx(hits.mean() - others.mean())
        told = one.difference["low"] > 0 or one.difference["high"] < 0
        assert told == (one.p_alone < 0.05), "interval and test are one"
        assert one.ids == tuple(str(row) for row in np.flatnonzero(part.rows))
        assert "ids" not in one.record()
    assert [one.p for one in found] == pytest.approx(multipletests(plain, method="holm")[1].tolist())
    assert min(found, key=lambda one: one.p).label == "2"


def test_quarters_are_cut_at_the_quartiles_and_named() -> None:
    parts = make_quarter_masks("brightness", np.linspace(0.2, 0.6, 101))
    assert [part.label for part in parts] == [
        "darkest quarter: mean luma below 0.30",
        "second darkest quarter: mean luma from 0.30 to below 0.40",
        "second brightest quarter: mean luma from 0.40 to below 0.50",
        "brightest quarter: mean luma at least 0.50",
    ]
    assert [int(part.rows.sum()) for part in parts] == [25, 25, 25, 26]
    assert np.sum([part.rows for part in parts], axis=0).tolist() == [1] * 101


def test_equal_values_make_fewer_parts_that_are_no_quarters() -> None:
    parts = make_quarter_masks("size", np.array([1e4] * 70 + [2e6] * 30))
    assert [part.label for part in parts] == ["below 2,000,000 pixels", "at least 2,000,000 pixels"]
    assert [int(part.rows.sum()) for part in parts] == [70, 30]
    assert make_quarter_masks("size", np.full(50, 9.0)) == []
    assert make_quarter_masks("size", np.full(3, np.nan)) == []
    some = make_quarter_masks("brightness", np.array([np.nan, *np.arange(8) / 10]))
    assert [int(part.rows.sum()) for part in some] == [2, 2, 2, 2]
    assert not any(part.rows[0] for part in some)


def test_aspects_and_groups() -> None:
    width, height = np.array([100.0, 100, 100, 104]), np.array([200.0, 50, 100, 100])
    parts = {part.label.partition(":")[0]: part.rows.tolist() for part in make_aspect_masks(width, height)}
    assert parts == {
        "portrait": [True, False, False, False],
        "landscape": [False, True, False, False],
        "square": [False, False, True, True],
    }
    assert make_aspect_masks(width[2:], height[2:]) == []
    names = ["a"] * 12 + ["b"] * 10 + ["c"] * 9 + [""] * 5
    assert [(part.label, int(part.rows.sum())) for part in make_group_masks(names)] == [
        ("group a", 12),
        ("group b", 10),
    ]
    assert make_group_masks(["a"] * 30) == []


def test_a_planted_weakness_of_dark_and_of_high_images_is_found(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    dark, high = random.random(240) < 0.25, random.random(240) < 0.5
    for number in range(240):
        folder = tmp_path / "photos" / "val" / ("ab"[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        level = (20 if dark[number] else 150) + random.integers(0, 30, (6, 4, 3))
        image = Image.fromarray(level.astype(np.uint8)).resize((20, 36 if high[number] else 20))
        image.save(folder / f"{number:03}.png")
    train = tmp_path / "photos" / "train"
    for number, name in enumerate("ab"):
        (train / name).mkdir(parents=True)
        Image.fromarray(random.integers(0, 255, (20, 20, 3), np.uint8)).save(train / name / f"t{number}.png")
    data = bw.scan(tmp_path / "photos")
    samples = data.samples("val")
    numbers = np.array([int(Path(path).stem) for path in samples.paths])
    wrong = (dark[numbers] & (random.random(len(numbers)) < 0.5)) | (random.random(len(numbers)) < 0.05)
    logits = np.eye(2, dtype=np.float32)[np.where(wrong, 1 - samples.labels, samples.labels)]
    run = scored_run(tmp_path / "run", samples.labels, logits)
    Predictions(samples.ids, samples.paths, samples.labels, logits).save(run.path / "predictions-val.parquet")
    data.save(run.path / "dataset.parquet")
    found = {one.label.partition(":")[0]: one for one in find_slices(run, open_context())}
    darkest = found["darkest quarter"]
    assert darkest.p < 0.001
    assert darkest.difference["high"] is not None
    assert darkest.difference["high"] < 0
    assert found["portrait"].n == int(high[numbers].sum())
    assert found["portrait"].p > 0.05
    assert {one.property for one in found.values()} == {"brightness", "size", "aspect"}

    first = data.root / samples.paths[0]
    first.unlink()
    assert sum(one.n for one in find_slices(run, open_context()) if one.property == "brightness") == len(samples) - 1
