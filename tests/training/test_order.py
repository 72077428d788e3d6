"""The order of training follows the contents of images, and batch norm is told from one image in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import RecipeError
from budwood.inference.input_sources import ArraySource, Labelled
from budwood.inference.pytorch_backend import NetworkSlice
from budwood.progress import Silent
from budwood.training.loop import fit
from conftest import fill
from subjects import untrained

SMALL: dict[str, Any] = {"model": "cnn", "widths": (4,), "fc": (4,), "size": 16, "batch": 8, "epochs": 2}


@pytest.mark.parametrize("options", [{}, {"flip": 0.5, "balanced_sampling": True}])
def test_renamed_files_give_the_same_weights(tmp_path: Path, options: dict[str, Any]) -> None:
    for hue, label in enumerate(("leaf", "sky")):
        paths = fill(tmp_path / "a" / label, 12, hue=hue)
        (tmp_path / "b" / label).mkdir(parents=True)
        for number, path in enumerate(reversed(paths)):
            (tmp_path / "b" / label / f"image{number:02}.png").write_bytes(path.read_bytes())
    runs = [
        bw.train(bw.scan(tmp_path / name), bw.Recipe(**SMALL, **options), out=tmp_path / f"runs-{name}")
        for name in ("a", "b")
    ]
    first, second = (load_file(run.path / "weights.safetensors") for run in runs)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert runs[0].history[0]["train_loss"] == runs[1].history[0]["train_loss"]


def test_samples_are_sorted_by_content_with_their_labels(photos: Path) -> None:
    samples = bw.scan(photos).samples("train")
    ordered = samples.in_content_order()
    assert list(ordered.ids) == sorted(samples.ids) != list(samples.ids)
    assert dict(zip(ordered.ids, ordered.labels.tolist(), strict=True)) == dict(
        zip(samples.ids, samples.labels.tolist(), strict=True)
    )


@pytest.mark.parametrize(("batch", "images"), [(1, 6), (4, 1)])
def test_one_image_at_a_time_is_one_message_where_batch_norm_needs_two(batch: int, images: int) -> None:
    recipe = Recipe(**{**SMALL, "batch": batch, "batch_norm": True})
    labels = (np.arange(images) % 2).astype(np.int32)
    split = Labelled(ArraySource(np.zeros((images, 16, 16, 3), np.uint8)), labels)
    with pytest.raises(RecipeError, match="batch norm needs at least two values of each channel in training") as caught:
        fit(NetworkSlice(untrained(recipe, 2), None), resolve(recipe, False, 16), split, split, Silent())
    assert "Use a batch of at least 2" in caught.value.hint


@pytest.mark.parametrize("options", [{"batch": 1}, {"batch": 4, "batch_norm": True}])
def test_a_single_image_trains_where_it_can(options: dict[str, Any]) -> None:
    recipe = Recipe(**{**SMALL, **options})
    labels = (np.arange(9) % 2).astype(np.int32)
    split = Labelled(ArraySource(np.zeros((9, 16, 16, 3), np.uint8)), labels)
    found = fit(NetworkSlice(untrained(recipe, 2), None), resolve(recipe, False, 16), split, split, Silent())
    assert len(found.history) == 2
