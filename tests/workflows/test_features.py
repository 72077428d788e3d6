"""Features as arrays: what the head receives, as plain PyTorch computes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import budwood as bw


def _compute_plainly(run: bw.Run, files: list[Path]) -> np.ndarray:
    """What the last layer receives, from pixels that Pillow alone has made, float32 [n, features]."""
    record = run.record.network
    side = (record.size, record.size)
    images = [np.asarray(Image.open(file).convert("RGB").resize(side, Image.Resampling.BICUBIC)) for file in files]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (record.mean, record.std))
    pixels = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255 - mean) / std
    network, seen = run.network(), []
    network.get_submodule(record.head).register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with torch.inference_mode():
        network(pixels)
    return np.asarray(seen[0].flatten(1))


@pytest.fixture
def run(tiny: Path) -> bw.Run:
    return bw.open_run(tiny / "runs" / "one")


@pytest.fixture
def files(tiny: Path) -> list[Path]:
    return sorted((tiny / "photos").rglob("*.png"))[:20]


def test_they_are_what_the_head_of_the_plain_network_receives(run: bw.Run, files: list[Path]) -> None:
    found = bw.features(run, files)
    assert (found.dtype, found.shape) == (np.dtype("float32"), (20, run.record.network.features))
    np.testing.assert_allclose(found, _compute_plainly(run, files), atol=1e-4)
    assert found.std(axis=0).max() > 0.01, "of other images they are others"


def test_images_in_memory_and_folders_give_the_same(run: bw.Run, tiny: Path, files: list[Path]) -> None:
    one = bw.features(run, files[0])
    assert one.shape == (1, run.record.network.features)
    for same in (str(files[0]), [files[0].read_bytes()], Image.open(files[0]), np.asarray(Image.open(files[0]))):
        np.testing.assert_allclose(bw.features(run, same), one, atol=1e-6)
    folder = bw.features(run.path, tiny / "photos" / "leaf")
    np.testing.assert_allclose(folder, bw.features(run, sorted((tiny / "photos" / "leaf").iterdir())), atol=1e-6)


def test_of_no_images_there_are_none(run: bw.Run) -> None:
    assert bw.features(run, []).shape == (0, run.record.network.features)


def test_a_file_that_is_missing_or_broken_is_named(run: bw.Run, files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(bw.DataError, match=r"gone\.png and 1 more: no such file or folder\."):
        bw.features(run, [files[0], tmp_path / "gone.png", tmp_path / "too.png"])
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(bw.DataError, match=r"text\.png: .*\.") as told:
        bw.features(run, [files[0], tmp_path / "text.png"])
    assert told.value.hint == "Leave it out, or replace it by an image."
    with pytest.raises(bw.ArgumentError, match=r"features: files: expected a path, the bytes of a file, .*found 3"):
        bw.features(run, [3])  # type: ignore[list-item]
