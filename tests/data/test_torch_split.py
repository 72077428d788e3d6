"""A split as a data set of torch: in order, for processes of a DataLoader, and the test split sealed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

import budwood as bw
from conftest import picture


def test_images_come_with_their_labels_in_the_order_of_the_split(photos: Path) -> None:
    data = bw.scan(photos)
    split, samples = data.to_torch("train"), data.samples("train")
    assert isinstance(split, torch.utils.data.Dataset)
    assert (len(split), split.classes) == (len(samples), ("leaf", "sky"))
    image, label = split[3]
    number = int(Path(samples.paths[3]).stem)
    hue = 1 + label
    assert np.array_equal(np.asarray(image), np.asarray(picture(1000 * hue + number, hue)))
    assert [split[row][1] for row in range(5)] == samples.labels[:5].tolist()


def test_a_data_loader_reads_it_in_processes(photos: Path) -> None:
    split = bw.scan(photos).to_torch("val", size=24)
    pixels, labels = next(iter(DataLoader(split, batch_size=8, num_workers=2)))
    assert (pixels.shape, pixels.dtype) == ((8, 3, 24, 24), torch.uint8)
    assert labels.tolist() == split.samples.labels[:8].tolist()
    changed = bw.scan(photos).to_torch("val", to_tensor)
    assert changed[0][0].dtype == torch.float32


def test_several_labels_are_ones_and_zeros() -> None:
    images = np.stack([np.asarray(picture(n)) for n in range(8)])
    data = bw.scan(images, labels=[["a", "b"], ["a"], [], ["b"]] * 2)
    split = data.to_torch("train")
    rows = [data.label_sets[label] for label in split.samples.labels.tolist()]
    for row, members in enumerate(rows):
        assert split[row][1].tolist() == [float(number in members) for number in range(2)]


def test_the_test_split_stays_sealed_unless_asked_plainly(photos: Path) -> None:
    data = bw.scan(photos)
    with pytest.raises(bw.DataError, match="photos: the test split is sealed") as told:
        data.to_torch("test")
    assert "unseal=True" in told.value.hint
    assert len(data.to_torch("test", unseal=True)) == len(data.samples("test"))
    with pytest.raises(bw.DataError, match="the labels of the test split are sealed by the run"):
        data.sealed().to_torch("test", unseal=True)


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [("tset", {}, "'tset': is no split"), ("train", {"size": 0}, "size: expected a number of pixels from 1, found 0")],
)
def test_wrong_words_are_told(split: str, options: dict[str, Any], message: str, photos: Path) -> None:
    with pytest.raises(bw.DataError, match=message):
        bw.scan(photos).to_torch(split, **options)


def test_a_changed_file_and_an_empty_split_are_told(photos: Path, tmp_path: Path) -> None:
    data = bw.scan(photos)
    split = data.to_torch("train")
    (data.root / split.samples.paths[0]).write_bytes(b"other")
    with pytest.raises(bw.DataError, match="the file was changed after it was scanned"):
        split[0]
    images = np.stack([np.asarray(picture(n)) for n in range(8)])
    without = bw.scan({"train": (images, list("abababab")), "val": (images[:2], ["a", "b"])})
    with pytest.raises(bw.DataError, match="the test split has no images"):
        without.to_torch("test", unseal=True)
