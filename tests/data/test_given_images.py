"""Data sets from what a program has: one identity, whatever form it comes in, and one message for what is wrong."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image

import budwood as bw
from budwood.data.dataset import Dataset, load
from budwood.data.images import compute_content_id
from budwood.data.pixel_files import encode_png, read_given
from conftest import fill, picture

COUNT = 12
PICTURES = [picture(number, number % 2) for number in range(COUNT)]
ARRAY = np.stack([np.asarray(one) for one in PICTURES])
NUMBERS = np.arange(COUNT) % 2
NAMES = ["ab"[number] for number in NUMBERS.tolist()]


class Items(torch.utils.data.Dataset[tuple[Any, Any]]):
    """A data set of torch."""

    def __init__(self, images: Sequence[Any], labels: Sequence[Any], classes: list[str] | None = None) -> None:
        self.images, self.labels = images, labels
        if classes:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return self.images[row], self.labels[row]


class Hub:
    """What a data set of Hugging Face's library has of use here."""

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Any]) -> None:
        self.columns, self.features, self.column_names = columns, features, list(columns)

    def __len__(self) -> int:
        return len(self.columns["image"])

    def __getitem__(self, key: Any) -> Any:
        return self.columns[key] if isinstance(key, str) else {name: all[key] for name, all in self.columns.items()}

    def cast_column(self, name: str, feature: Any) -> Hub:
        assert feature.decode is False
        files = [{"bytes": _encode(one), "path": f"{row}.png"} for row, one in enumerate(self.columns[name])]
        return Hub({**self.columns, name: files}, self.features)


def _encode(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def make_hub() -> Hub:
    image = type("Image", (), {"__init__": lambda self, decode=True: setattr(self, "decode", decode)})
    label = type("ClassLabel", (), {"names": ["a", "b"]})
    return Hub({"image": list(PICTURES), "label": NUMBERS.tolist()}, {"image": image(), "label": label()})


SAME: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "array and labels": lambda: (ARRAY, {"labels": NUMBERS, "classes": ["a", "b"]}),
    "pair": lambda: ((ARRAY, NAMES), {}),
    "labels in a column": lambda: (ARRAY, {"labels": NUMBERS[:, None], "classes": ["a", "b"]}),
    "pictures and a series": lambda: (PICTURES, {"labels": pd.Series(NAMES, index=range(5, 5 + COUNT))}),
    "list of pairs": lambda: (list(zip(PICTURES, NAMES, strict=True)), {}),
    "generator": lambda: (((one, name) for one, name in zip(list(ARRAY), NAMES, strict=True)), {}),
    "torch": lambda: (Items(PICTURES, NUMBERS.tolist(), ["a", "b"]), {}),
    "tensors": lambda: (
        Items([torchvision.transforms.functional.to_tensor(one) for one in PICTURES], NAMES),
        {},
    ),
    "tensor": lambda: (
        torch.from_numpy(ARRAY).permute(0, 3, 1, 2),
        {"labels": torch.from_numpy(NUMBERS), "classes": ["a", "b"]},
    ),
    "subset": lambda: (torch.utils.data.Subset(Items(PICTURES, NUMBERS.tolist(), ["a", "b"]), range(COUNT)), {}),
    "pandas": lambda: (pd.DataFrame({"Image": PICTURES, "label": NAMES}), {}),
}


@pytest.mark.parametrize("form", SAME)
def test_the_same_pixels_are_the_same_data_set_in_every_form(form: str) -> None:
    source, options = SAME[form]()
    data = bw.scan(source, **options)
    assert (data.classes, len(data)) == (("a", "b"), COUNT)
    assert data.fingerprint == bw.scan((ARRAY, NAMES)).fingerprint
    expected = compute_content_id(encode_png(ARRAY[3]))
    assert data.table["id"].to_pylist()[3] == expected


FILES: dict[str, Callable[[], Any]] = {
    "structs": lambda: pl.DataFrame(
        {"image": [{"bytes": _encode(one), "path": "x.png"} for one in PICTURES], "label": NAMES}
    ),
    "lazy": lambda: pl.DataFrame({"img": [_encode(one) for one in PICTURES], "category": NAMES}).lazy(),
    "arrow": lambda: pa.table({"image": [_encode(one) for one in PICTURES], "label": NAMES}),
    "hub": make_hub,
    "pairs": lambda: [(_encode(one), name) for one, name in zip(PICTURES, NAMES, strict=True)],
}


@pytest.mark.parametrize("form", FILES)
@pytest.mark.filterwarnings("error")
def test_the_bytes_of_files_are_kept_as_they_are(form: str) -> None:
    data = bw.scan(FILES[form]())
    assert (data.classes, data.table["label"].to_pylist()) == (("a", "b"), NUMBERS.tolist())
    assert data.table["id"].to_pylist() == [compute_content_id(_encode(one)) for one in PICTURES]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for hue, name in enumerate("ab"):
        fill(tmp_path / "f" / name, 8, hue=hue)
    return tmp_path / "f"


def test_files_in_lists_and_frames_stay_where_they_are(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bw.scan(files)
    paths = sorted(files.rglob("*.png"))
    names = [path.parent.name for path in paths]
    folder = torchvision.datasets.ImageFolder(str(files), transform=torchvision.transforms.RandomHorizontalFlip())
    monkeypatch.chdir(files)
    relative = [str(path.relative_to(files)) for path in paths]
    given: list[tuple[Any, dict[str, Any]]] = [
        (list(zip(paths, names, strict=True)), {}),
        (list(map(str, paths)), {"labels": names}),
        (pd.DataFrame({"filename": relative, "class": names}), {}),
        (pd.DataFrame({"a": relative, "b": names}), {"image_column": "a", "label_column": "b"}),
        (
            pd.DataFrame({"path": [path[2:] for path in relative], "label": names}).assign(path=relative),
            {"root": files},
        ),
        (folder, {}),
    ]
    for source, options in given:
        data = bw.scan(source, **options)
        assert data.fingerprint == expected.fingerprint
        assert data.root == files
        assert [one.code for one in bw.findings(data) if one.code.startswith(("D07", "D08"))] == ["D080"]
        assert data.table["path"].to_pylist() == expected.table["path"].to_pylist()


def test_later_commands_read_what_a_program_gave(tmp_path: Path) -> None:
    data = bw.scan({"train": (ARRAY[:8], NAMES[:8]), "test": (ARRAY[8:], NAMES[8:])})
    again = bw.scan(data.source)
    assert again.fingerprint == data.fingerprint
    assert again.split_source == data.split_source == "given, val made"
    (found,) = (one for one in bw.findings(data) if one.code == "D080")
    assert found.message.startswith("12 images of 12 and the labels were given by a program, not as files;")
    assert data.source in found.advice
    assert "On another machine" in found.advice
    data.save(tmp_path / "data.parquet")
    assert load(tmp_path / "data.parquet").remarks == data.remarks


def test_what_a_full_cache_has_lost_is_restored_by_the_same_data(tmp_path: Path) -> None:
    data = bw.scan((ARRAY, NAMES), cache=tmp_path)
    lost = data.root / data.table["path"].to_pylist()[0]
    content = lost.read_bytes()
    lost.unlink()
    assert bw.scan((ARRAY, NAMES), cache=tmp_path).root == data.root
    assert lost.read_bytes() == content


def test_copies_are_found_and_stay_in_one_split() -> None:
    data = bw.scan((np.concatenate([ARRAY, ARRAY]), NAMES * 2))
    assert len(data) == 2 * COUNT
    assert sum(len(data.samples(split)) for split in ("train", "val", "test")) == COUNT
    assert any(one.code.startswith("D01") for one in bw.findings(data))


def test_several_labels_an_image_are_lists() -> None:
    labels = [["a", "b"], ["a"], [], ["b"]] * 3
    data = bw.scan(ARRAY, labels=labels)
    assert data.classes == ("a", "b")
    sets = [data.label_sets[label] for label in data.table["label"].to_pylist()[:4]]
    assert sets == [(0, 1), (0,), (), (1,)]
    assert bw.scan(data.source).fingerprint == data.fingerprint


def test_rows_of_a_frame_without_a_label_are_left_out_and_told() -> None:
    frame = pd.DataFrame({"image": PICTURES, "label": [*NAMES[:-1], None], "split": ["train"] * 8 + ["test"] * 4})
    data = bw.scan(frame)
    assert len(data) == COUNT - 1
    assert len(data.samples("test")) == 3
    assert "D071" in {one.code for one in bw.findings(data)}
    assert bw.scan(data.source).fingerprint == data.fingerprint


def test_groups_of_a_frame_stay_together() -> None:
    frame = pl.DataFrame(
        {"image": [_encode(one) for one in PICTURES], "label": NAMES, "group": [f"g{n // 4}" for n in range(COUNT)]}
    )
    split = bw.scan(frame).column("split")
    assert all(len(set(split[start : start + 4])) == 1 for start in (0, 4, 8))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16"])
def test_pictures_of_every_mode_are_kept_by_their_pixels(mode: str) -> None:
    made = picture(1).convert("L") if mode.startswith("I") else picture(1)
    image = Image.fromarray(np.asarray(made).astype(np.uint16) * 100) if mode == "I;16" else made.convert(mode)
    content = read_given(image, "image 0")
    assert isinstance(content, bytes)
    with Image.open(io.BytesIO(content)) as kept:
        if mode in ("L", "RGB", "RGBA", "I;16"):
            assert kept.mode == mode
            assert np.array_equal(np.asarray(kept), np.asarray(image))
        else:
            assert np.array_equal(np.asarray(kept.convert("RGB")), np.asarray(image.convert("RGB"))) or mode == "I"


def test_a_picture_is_kept_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    picture(1).crop((0, 0, 40, 20)).save(out, "PNG", exif=exif)
    content = read_given(Image.open(out), "image 0")
    assert isinstance(content, bytes)
    assert Image.open(io.BytesIO(content)).size == (20, 40)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_, np.float32])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4), (3, 5, 7)])
def test_arrays_are_kept_without_loss(shape: tuple[int, ...], dtype: Any) -> None:
    values = np.random.default_rng(0).integers(0, 2 if dtype == np.bool_ else 256, shape)
    made: NDArray[Any] = values.astype(dtype) / (np.float32(255) if dtype == np.float32 else 1)
    content = read_given(made.astype(dtype), "image 0")
    assert isinstance(content, bytes)
    expected = values * 255 if dtype == np.bool_ else values
    expected = np.moveaxis(expected, 0, 2) if shape[0] == 3 else expected
    if dtype == np.uint16 and expected.ndim == 3:  # of which Pillow keeps the high bytes
        expected = expected[..., 0] if expected.shape[2] == 1 else expected >> 8
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), expected.squeeze())


WRONG: dict[str, tuple[Callable[[], tuple[Any, dict[str, Any]]], str]] = {
    "no labels": (lambda: (ARRAY, {}), r"labels: none are given with the array \[12, 40, 40, 3\]"),
    "few labels": (lambda: (ARRAY, {"labels": [0, 1]}), "labels: expected one for each of 12 images, found 2"),
    "one-hot": (
        lambda: (ARRAY, {"labels": np.eye(2)[NUMBERS]}),
        r"labels: expected one value an image, found an array of \[12, 2\]",
    ),
    "flat": (
        lambda: (ARRAY.reshape(12, -1), {"labels": NAMES}),
        r"images: expected an array \[n, height, width\].*found \[12, 4800\]",
    ),
    "integers": (
        lambda: (ARRAY.astype(int), {"labels": NAMES}),
        "image 0: expected uint8, .*; found int64 from 0 to 2",
    ),
    "normalized": (
        lambda: (ARRAY / 127.5 - 1, {"labels": NAMES}),
        "image 0: expected uint8, .*; found float64 from -1 to",
    ),
    "channels": (
        lambda: (np.zeros((2, 8, 8, 5), np.uint8), {"labels": [0, 1]}),
        r"image 0: expected .*found uint8 \[8, 8, 5\]",
    ),
    "no image": (lambda: ([(object(), "a")], {}), "image 0: expected a path, .*; found object"),
    "empty image": (lambda: ([(Image.new("L", (0, 4)), "a")], {}), r"image 0: the image has no pixels \(0 x 4\)"),
    "cut image": (
        lambda: ([(Image.open(io.BytesIO(_encode(PICTURES[0])[:400])), "a")], {}),
        "image 0: the image cannot be decoded",
    ),
    "missing": (lambda: (ARRAY, {"labels": [*NAMES[:-1], None]}), r"image 11: has no label \(None\)"),
    "nan": (lambda: (ARRAY, {"labels": [float("nan"), *NAMES[1:]]}), r"image 0: has no label \(nan\)"),
    "numbers": (
        lambda: (ARRAY, {"labels": NUMBERS + 0.5}),
        r"image 0: expected the name or the number of a class, found 0\.5",
    ),
    "detection": (
        lambda: (Items(PICTURES, [{"boxes": []}] * COUNT), {}),
        r"image 0: expected the name .*found \{'boxes'",
    ),
    "range": (lambda: (ARRAY, {"labels": NUMBERS, "classes": ["a"]}), r"image 1: the label 1 is none of the 1 classes"),
    "unknown": (lambda: (ARRAY, {"labels": NAMES, "classes": ["a", "c"]}), "image 1: the label 'b' is none of classes"),
    "nothing": (lambda: ([], {}), "images: there are none"),
    "triples": (lambda: ([(ARRAY[0], "a", 1)], {}), r"images, item 0: expected \(image, label\), found 3 values"),
    "images only": (lambda: (PICTURES, {}), r"images, item 0: expected \(image, label\), found Image"),
    "a number": (lambda: (3, {}), "the images: expected what a data set is made from, found int"),
    "scalars": (lambda: (PICTURES, {"labels": "a"}), "labels: expected a sequence, found str"),
    "other keys": (lambda: ({"train": (ARRAY, NAMES), "extra": (ARRAY, NAMES)}, {}), "found the key 'extra'"),
    "no keys": (lambda: ({}, {}), "the mapping is empty"),
    "mixed": (lambda: ({"train": make_hub(), "test": (ARRAY, NAMES)}, {}), "test: its labels are given otherwise"),
    "columns": (
        lambda: (pd.DataFrame({"image": PICTURES, "truth": NAMES}), {}),
        "the data frame: has no column 'label'; found image, truth",
    ),
    "a column": (
        lambda: (pd.DataFrame({"image": PICTURES, "label": NAMES}), {"label_column": "lable"}),
        "the data frame: has no column 'lable'",
    ),
    "columns of no table": (lambda: (ARRAY, {"labels": NAMES, "label_column": "x"}), "label_column.* do not apply"),
    "classes of a table": (
        lambda: (pd.DataFrame({"image": PICTURES, "label": NAMES}), {"classes": "ab"}),
        "classes: does not apply to a table",
    ),
    "classes of a folder": (lambda: (".", {"classes": "ab"}), "classes: does not apply to folders"),
    "root of a folder": (lambda: (".", {"root": "x"}), "root: does not apply to folders"),
    "split": (lambda: (pd.DataFrame({"image": PICTURES, "label": NAMES, "split": "x"}), {}), "unknown split 'x'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told_in_one_message(what: str) -> None:
    make, message = WRONG[what]
    source, options = make()
    with pytest.raises(bw.DataError, match=message):
        bw.scan(source, **options)


def test_a_streamed_data_set_is_told() -> None:
    streamed = SimpleNamespace(features={}, cast_column=None)
    with pytest.raises(bw.DataError, match="is streamed, so that its images cannot be split"):
        bw.scan(streamed)


def test_random_transforms_are_told() -> None:
    class Random(Items):
        def __getitem__(self, row: int) -> tuple[Any, Any]:
            return self.images[row].rotate(random.randrange(1, 360)), self.labels[row]

    with pytest.raises(bw.DataError, match="image 0 is another each time that it is read") as told:
        bw.scan(Random(PICTURES, NAMES))
    assert "without random transforms" in told.value.hint


def test_a_hugging_face_table_is_read_by_its_class_names(tmp_path: Path) -> None:
    features = {"info": {"features": {"fine": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
    table = pa.table({"img": [{"bytes": _encode(one), "path": "x.png"} for one in PICTURES], "fine": NUMBERS})
    pa.parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "train.parquet"
    )
    data: Dataset = bw.scan(tmp_path / "train.parquet", label_column="fine")
    assert (data.classes, len(data)) == (("a", "b"), COUNT)
