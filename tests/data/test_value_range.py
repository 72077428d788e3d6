"""Values of more than 8 bits have one scale in a data set, which fits them, is kept, and is used again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from deep_files import encode_png, encode_tiff
from numpy.typing import NDArray
from PIL import Image

import budwood as bw
from budwood.config.options import Resizing
from budwood.data.dataset import Dataset, Samples, load
from budwood.data.deep_images import find_deep_colours
from budwood.data.image_inputs import read_input
from budwood.data.images import BadImage, decode, read_image_metadata
from budwood.data.loading import decode_sample, open_pixel_store
from budwood.data.value_range import StoredValues, ValueRange, choose_value_range, round_outwards, scale_to_8_bits
from budwood.runs.contents import describe_dataset
from conftest import picture

TWELVE = ValueRange(0, 4095)
SIZE = 16


def make_grey(seed: int, low: float, high: float) -> NDArray[np.float64]:
    """A smooth picture that reaches from the lowest value to the highest."""
    grey = np.asarray(picture(seed, side=SIZE).convert("L"), np.float64)
    return np.asarray(low + (grey - grey.min()) / np.ptp(grey) * (high - low))


def make_data(
    folder: Path, low: float, high: float, encode: Callable[[NDArray[np.float64]], bytes], ending: str = "tif"
) -> Dataset:
    for number in range(8):
        file = folder / ("leaf", "rock")[number % 2] / f"{number}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(make_grey(number, low, high)))
    return bw.scan(folder)


def read_greys(data: Dataset) -> NDArray[np.uint8]:
    return decode_sample(data.samples("train"), 0, SIZE, Resizing("squash"))[..., 0]


def encode_as(kind: type[np.number]) -> Callable[[NDArray[np.float64]], bytes]:
    whole = np.issubdtype(kind, np.integer)
    return lambda values: encode_tiff((np.rint(values) if whole else values).astype(kind))


@pytest.mark.parametrize(
    ("kind", "low", "high", "expected"),
    [
        (np.uint16, 0, 3900, TWELVE),
        (np.uint16, 0, 250, ValueRange(0, 255)),
        (np.uint16, 3, 65000, ValueRange(0, 65535)),
        (np.int16, -1000, 3000, ValueRange(-1000, 3000)),
        (np.int32, 0, 1000, ValueRange(0, 1023)),
        (np.int32, 10, 1_000_000, ValueRange(10, 1_000_000)),
        (np.uint32, 10, 4_000_000_000, ValueRange(10, 4_000_000_000)),
        (np.float32, 0, 0.75, ValueRange(0, 1)),
        (np.float32, 0, 4000.5, TWELVE),
        (np.float32, -0.5, 0.25, ValueRange(-0.5, 0.25)),
    ],
)
def test_values_keep_their_grey_levels(
    kind: type[np.number], low: float, high: float, expected: ValueRange, tmp_path: Path
) -> None:
    data = make_data(tmp_path, low, high, encode_as(kind))
    assert data.value_range == expected
    values = make_grey(int(Path(data.samples("train").paths[0]).stem), low, high)
    stored = values.astype(np.float32) if kind == np.float32 else np.rint(values)
    wanted = np.rint((stored - expected.low) * (255 / (expected.high - expected.low)))
    assert np.abs(read_greys(data) - wanted).max() <= 1
    assert len(np.unique(read_greys(data))) > 50


def test_colours_of_16_bits_keep_their_low_bytes(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (9, 7, 4)).astype(np.uint16)
    values[..., 3] = 65535
    wanted = np.rint(values[..., :3] / 4095 * 255)
    colours = values[..., :3]
    little, big, packed = encode_tiff(colours), encode_tiff(colours, order=">"), encode_tiff(colours, packed=True)
    for file in (encode_png(values[..., :3]), encode_png(values), little, big, packed):
        assert np.array_equal(np.asarray(decode(file, TWELVE)), wanted)
    grey = np.asarray(decode(encode_png(values[..., [0, 3]]), TWELVE))
    assert np.array_equal(grey, wanted[..., [0, 0, 0]])
    (tmp_path / "a.png").write_bytes(encode_png(values))
    facts = read_image_metadata(tmp_path / "a.png")
    assert facts.notes == ("16-bit",)
    assert facts.values == StoredValues(float(values[..., :3].min()), float(values[..., :3].max()), False)


def test_opacity_of_16_bits_is_laid_on_white() -> None:
    values = np.full((2, 2, 4), 4095, np.uint16)
    values[..., :3], values[0, 0, 3] = 0, 65535
    values[1, 1, 3] = 0
    rgb = np.asarray(decode(encode_png(values), TWELVE))
    assert rgb[0, 0].tolist() == [0, 0, 0]
    assert rgb[1, 1].tolist() == [255, 255, 255]


def test_colours_of_8_bits_are_decoded_once() -> None:
    assert find_deep_colours(Image.new("RGB", (2, 2))) is None


def test_small_is_white_where_the_file_says_so() -> None:
    values = np.array([[0, 4095]], np.uint16)
    assert np.asarray(decode(encode_tiff(values, white_is_small=True), TWELVE))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [(((280, 0), (281, 4095)), 4095), (((280, 0), (281, 65535)), 700), (((281, 20),), 700), ((), 700)],
)
def test_a_header_tells_the_range_of_a_dark_image(
    tags: tuple[tuple[int, int], ...], expected: float, tmp_path: Path
) -> None:
    (tmp_path / "a.tif").write_bytes(encode_tiff(np.array([[0, 700]], np.uint16), tags=tags))
    values = read_image_metadata(tmp_path / "a.tif").values
    assert values == StoredValues(0, expected, False)


@pytest.mark.parametrize("order", ["<", ">"])
def test_either_order_of_bytes_is_read_a_strip_at_a_time(
    order: Literal["<", ">"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budwood.data.deep_images._STRIP", 2 * SIZE)
    values = make_grey(1, 0, 4095).astype(np.uint16)
    wanted = np.rint(values / 4095 * 255)
    assert np.array_equal(np.asarray(decode(encode_tiff(values, order=order), TWELVE))[..., 1], wanted)


def test_held_out_images_decide_nothing() -> None:
    small, large = StoredValues(0, 3000, False), StoredValues(-5, 60000, False)
    assert choose_value_range([small, None, large], np.array([True, True, False])) == TWELVE
    assert choose_value_range([None, large], np.array([True, False])) == ValueRange(-5, 60000)
    assert choose_value_range([None], np.array([True])) is None
    assert scale_to_8_bits(np.array([[-5, 60000]]), TWELVE).tolist() == [[0, 255]]


def test_a_range_is_never_empty() -> None:
    assert round_outwards(StoredValues(-7, -7, False)) == ValueRange(-7, -6)
    assert round_outwards(StoredValues(0, 0, False)) == ValueRange(0, 255)


def test_dark_files_are_told_apart(tmp_path: Path) -> None:
    """Thumbnails of 12 bits in 16, from which near copies are found, are not black."""
    data = make_data(tmp_path, 0, 4000, encode_as(np.uint16))
    assert {finding.code for finding in bw.findings(data)} & {"D012", "D013", "D033"} == set()
    values = np.frombuffer(read_image_metadata(tmp_path / "leaf/0.tif").thumb, np.uint8)
    assert np.ptp(values.astype(int)) > 150


def test_the_finding_says_the_range(tmp_path: Path) -> None:
    data = make_data(tmp_path, 0, 3900, encode_as(np.uint16))
    (found,) = (finding for finding in bw.findings(data) if finding.code == "D041")
    assert found.message == "8 files are stored with more than 8 bits a value."
    assert found.advice == (
        "All are scaled alike to 8 bits: 0 to 4,095 become black to white; what lies outside is clipped. "
        "The range comes from the training images, rounded outwards."
    )
    assert str(ValueRange(-0.5, 0.25)) == "-0.5 to 0.25"


def test_the_range_is_kept_with_the_data_and_in_the_names_of_caches(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", 0, 3900, encode_as(np.uint16))
    data.save(tmp_path / "data.parquet")
    kept = load(tmp_path / "data.parquet")
    assert kept.value_range == TWELVE
    assert bw.scan(tmp_path / "d").value_range == TWELVE, "what was scanned before is remembered with its values"
    samples = kept.samples("train")
    assert samples.subset([0]).join(samples).value_range == TWELVE
    open_pixel_store(SIZE, Resizing("crop"), tmp_path, TWELVE).add(["a" * 32], np.zeros((1, SIZE, SIZE, 3), np.uint8))
    assert [file.name for file in (tmp_path / "pixels").iterdir()] == ["16-crop-bicubic-0.0..4095.0"]
    assert ValueRange(0.0, 4095.0).key == TWELVE.key


def test_data_of_8_bits_say_nothing_of_a_range(photos: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    data = bw.scan(photos)
    data.save(tmp_path / "data.parquet")
    assert data.value_range is None
    assert "value_range" not in describe_dataset(data).model_dump(exclude_unset=True)
    assert "value_range" not in json.loads(pq.read_schema(tmp_path / "data.parquet").metadata[b"budwood"])


def test_without_a_range_the_type_decides_as_before() -> None:
    values = np.array([[0, 4095]], np.uint16)
    assert np.asarray(decode(encode_tiff(values)))[0, :, 0].tolist() == [0, 16]
    assert np.asarray(decode(encode_tiff(values, white_is_small=True)))[0, :, 0].tolist() == [0, 16]
    colours = np.full((1, 1, 3), 511, np.uint16)
    assert np.asarray(decode(encode_png(colours))).tolist() == [[[1, 1, 1]]]


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(encode_tiff(np.array([[0, np.nan]], np.float32)))
    with pytest.raises(BadImage, match="expected finite ones"):
        read_image_metadata(tmp_path / "a.tif")
    with pytest.raises(BadImage, match="expected finite ones"):
        decode((tmp_path / "a.tif").read_bytes(), TWELVE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> bw.Run:
    folder = tmp_path_factory.mktemp("deep")
    for number in range(12):
        file = folder / ("leaf", "rock")[number % 2] / f"{number:02}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(make_grey(number, 0, 3900).astype(np.uint16)).save(file)
    recipe = bw.Recipe(model="mlp", weights="none", size=8, optimizer="adam", epochs=1)
    return bw.train(bw.scan(folder), recipe, out=tmp_path_factory.mktemp("runs"))


def test_a_run_predicts_by_the_range_it_was_trained_with(run: bw.Run) -> None:
    assert json.loads((run.path / "run.json").read_text())["dataset"]["value_range"] == {"low": 0.0, "high": 4095.0}
    known = run.predictions("val")
    files = [Path(run.record.root) / path for path in known.paths]
    expected = [dict(one.top) for one in bw.predict(run, files)]
    chances = known.task.to_probabilities(known.logits)
    assert [one[run.classes[0]] for one in expected] == pytest.approx(chances[:, 0].tolist(), abs=1e-6)
    arrays = [np.asarray(Image.open(file)) for file in files]
    predictor = bw.Predictor.open(run)
    for given in (
        files,
        [file.read_bytes() for file in files],
        [Image.open(file) for file in files],
        arrays,
        [array.astype(np.float32)[..., None] for array in arrays],
        [np.repeat(array[..., None], 3, axis=2) for array in arrays],
    ):
        assert predictor.compute_probabilities(given) == pytest.approx(chances, abs=1e-5)


def test_pixels_and_features_of_other_samples_have_the_range_of_the_run(run: bw.Run) -> None:
    samples = run.dataset().samples("val")
    plain = Samples(samples.root, samples.ids, samples.paths, samples.labels)
    assert np.array_equal(bw.explain.pixels(run, plain), bw.explain.pixels(run, samples))
    assert bw.explain.pixels(run, samples).max() > 200


def test_arrays_that_do_not_fit_are_refused(run: bw.Run) -> None:
    predictor = bw.Predictor.open(run)
    with pytest.raises(bw.DataError, match=r"found uint16 \[4, 4, 4\]") as caught:
        predictor.predict(np.zeros((4, 4, 4), np.uint16))
    assert "other numbers are taken too; 0 to 4,095 become black to white" in str(caught.value.hint)
    (found,) = predictor.predict(np.full((4, 4), np.nan, np.float32))
    assert found.problem == "broken: values that are not finite (NaN or infinite)"


def test_without_a_range_arrays_have_8_bits() -> None:
    with pytest.raises(bw.DataError, match=r"expected an array uint8 .* found uint16 \[4, 4\]") as caught:
        read_input(np.zeros((4, 4), np.uint16), [(SIZE, Resizing("crop"))])
    assert "other numbers" not in str(caught.value.hint)
