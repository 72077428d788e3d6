"""A predictor answers from many threads, about images in every form, as the command does, and writes nothing."""

from __future__ import annotations

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import budwood as bw
from budwood.explain import api
from budwood.inference.bundle import make_prefix
from budwood.networks.plan import hash_json, spec_of
from budwood.networks.weights import describe_random
from budwood.runs.run import Run
from budwood.storage.atomic import cache_folder
from conftest import fill

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for hue, name in enumerate(("leaf", "rock")):
        fill(folder / name, 12, hue=hue)
    return folder


@pytest.fixture(scope="module", params=["head", "small"])
def run(request: pytest.FixtureRequest, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = {
        "head": {"size": 32, "tta": "flip"},
        "small": {"model": "mlp", "weights": "none", "size": 8, "optimizer": "adam", "epochs": 1},
    }[request.param]
    return bw.train(bw.scan(photos), bw.Recipe(**recipe), out=tmp_path_factory.mktemp("runs"))


def list_files(*folders: Path) -> list[tuple[str, int, int]]:
    found = [file for folder in folders for file in sorted(folder.rglob("*"))]
    return [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in found]


def test_every_form_of_an_image_has_the_answer_of_the_command(run: Run, photos: Path) -> None:
    files = sorted(photos.rglob("*.png"))[:5]
    expected = bw.predict(run, files)
    predictor = bw.Predictor.open(run)
    images = [Image.open(file) for file in files]
    for given in (
        files,
        [str(file) for file in files],
        [file.read_bytes() for file in files],
        images,
        [np.asarray(image.convert("RGB")) for image in images],
        np.stack([np.asarray(image.convert("RGB")) for image in images]),
    ):
        found = predictor.predict(given)
        assert [one.top[0][0] for one in found] == [one.top[0][0] for one in expected]
        for one, other in zip(found, expected, strict=True):
            assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-5)
    assert [one.path for one in predictor.predict(images[:2])] == ["image 0", "image 1"]
    assert predictor.predict(files[0])[0].path == str(files[0])


def test_probabilities_are_whole_and_add_up(run: Run, photos: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    found = bw.Predictor.open(run).compute_probabilities(files)
    assert found.shape == (len(files), 2)
    assert found.sum(axis=1) == pytest.approx(1)
    assert bw.Predictor.open(run).compute_probabilities([]).shape == (0, 2)
    assert bw.Predictor.open(run).predict([]) == []


def test_many_threads_get_the_answers_of_one_and_nothing_is_written(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(photos.rglob("*.png"))
    predictor = bw.Predictor.open(run)
    monkeypatch.chdir(tmp_path)
    before = list_files(cache_folder(), run.path, tmp_path)

    def ask(number: int) -> NDArray[np.float64]:
        file = files[number % len(files)]
        return predictor.compute_probabilities(file if number % 2 else file.read_bytes())

    alone = [ask(number) for number in range(len(files))]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(400)))
    assert all(np.array_equal(one, alone[number % len(files)]) for number, one in enumerate(together))
    assert list_files(cache_folder(), run.path, tmp_path) == before


def test_images_are_turned_and_converted_as_files_are(run: Run, tmp_path: Path) -> None:
    predictor = bw.Predictor.open(run)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    image.convert("RGBA").save(tmp_path / "alpha.png")
    image.convert("L").save(tmp_path / "grey.png")
    for name in ("turned", "alpha", "grey"):
        file = tmp_path / f"{name}.png"
        assert np.array_equal(
            predictor.compute_probabilities(file), predictor.compute_probabilities(Image.open(file))
        ), name
    grey = np.asarray(Image.open(tmp_path / "grey.png"))
    expected = predictor.compute_probabilities(tmp_path / "grey.png")
    assert np.array_equal(predictor.compute_probabilities(grey), expected)
    assert np.array_equal(predictor.compute_probabilities(grey[..., None]), expected)
    stored = io.BytesIO()
    image.save(stored, "PNG")
    assert np.array_equal(
        predictor.compute_probabilities(np.asarray(image)), predictor.compute_probabilities(stored.getvalue())
    )


def test_what_is_no_image_is_told(run: Run, photos: Path, tmp_path: Path) -> None:
    predictor = bw.Predictor.open(run)
    good = next(photos.rglob("*.png"))
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])
    found = predictor.predict([good, tmp_path / "cut.png", b"", tmp_path / "none.png"])
    assert [bool(one.top) for one in found] == [True, False, False, False]
    assert found[1].problem.startswith(("truncated", "broken"))
    assert found[2].problem == "empty: there are no bytes"
    assert found[3].problem == "unreadable: No such file or directory"
    with pytest.raises(bw.DataError, match=r"cut\.png: .*truncated"):
        predictor.compute_probabilities([good, tmp_path / "cut.png"])
    with pytest.raises(bw.DataError, match=r"image 1: there are no bytes"):
        predictor.compute_probabilities([good, b""])
    for odd in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(bw.DataError, match=r"expected an array uint8 .*found"):
            predictor.predict([odd])
    with pytest.raises(bw.DataError, match="found int"):
        predictor.predict([3])  # type: ignore[list-item]
    with pytest.raises(bw.DataError, match="no pixels"):
        predictor.compute_probabilities([Image.new("RGB", (0, 4))])


def test_a_run_predicts_from_its_own_folder_alone(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(photos.rglob("*.png"))[:4]
    expected = bw.Predictor.open(run).compute_probabilities(files)
    moved = shutil.copytree(run.path, tmp_path / "moved")
    data = bw.open_run(moved)
    monkeypatch.setenv("BUDWOOD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("budwood.runs.networks.is_local", lambda *_: False)  # the trunk's file is gone
    monkeypatch.chdir(tmp_path)
    assert bw.Predictor.open(data).compute_probabilities(files) == pytest.approx(expected, abs=1e-5)
    found = bw.predict(data, files)
    assert [one.top[0][1] for one in found] == pytest.approx(expected.max(axis=1).tolist(), abs=1e-5)


def test_an_engine_is_checked_on_made_images_where_the_data_are_gone(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = next(photos.rglob("*.png")).read_bytes()
    expected = bw.Predictor.open(run).compute_probabilities(file)
    hidden = photos.rename(photos.with_name("elsewhere"))
    try:
        monkeypatch.setenv("BUDWOOD_CACHE", str(tmp_path / "cache"))
        assert bw.Predictor.open(run).compute_probabilities(file) == pytest.approx(expected, abs=1e-5)
    finally:
        hidden.rename(photos)


@pytest.mark.parametrize(("model", "trained"), [pytest.param("mlp", "network", marks=pytest.mark.slow), (None, "head")])
def test_the_interpolation_of_a_run_is_that_of_its_predictions(
    model: str | None, trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise looks different by every interpolation; the network is exported and run by ONNX Runtime."""
    monkeypatch.setenv("BUDWOOD_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for number in range(24):
        file = tmp_path / "photos" / ("leaf", "rock")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(100 * (number % 2), 156 + 100 * (number % 2), (96, 96, 3), np.uint8)).save(file)
    options = {"model": model, "weights": "none", "optimizer": "adam", "epochs": 1} if model else {"freeze": "trunk"}
    recipe = bw.Recipe(**{**options, "size": 32, "interpolation": "nearest"})
    run = bw.train(bw.scan(tmp_path / "photos"), recipe, out=tmp_path / "runs")
    assert run.record.trained == trained
    known, network = run.predictions("val"), run.network().eval()
    files = [tmp_path / "photos" / path for path in known.paths]
    images = [np.asarray(Image.open(file).resize((32, 32), Image.Resampling.NEAREST)) for file in files]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (run.record.network.mean, run.record.network.std))
    with torch.inference_mode():
        pixels = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255 - mean) / std
        expected = network(pixels).softmax(dim=1).numpy()
    for found in (
        [dict(one.top) for one in bw.predict(run, files)],
        [dict(one.top) for one in bw.Predictor.open(run).predict([file.read_bytes() for file in files])],
        [dict(zip(run.classes, row, strict=True)) for row in run.task.to_probabilities(known.logits)],
    ):
        assert np.allclose([[one[name] for name in run.classes] for one in found], expected, atol=1e-3)
    assert np.array_equal(api.pixels(run, files), np.stack(images)), "explain sees them, too"
    assert [folder.name for folder in (tmp_path / "cache" / "pixels").iterdir()] == ["32-crop-nearest"]
    assert "scaled to 32 x 32 pixels (nearest interpolation)." in (run.path / "report.html").read_text()


def test_what_is_cached_is_kept_apart_by_interpolation_and_named_as_ever_without_one() -> None:
    weights = describe_random("default", 0)
    keys = {}
    for name in (None, "bicubic", "bilinear", "nearest", "area"):
        recipe = bw.Recipe(model="mlp", size=8, **({"interpolation": name} if name else {}))
        keys[name] = make_prefix(spec_of(recipe, 2, weights, cache_folder()), None, cache_folder()).key
    assert keys[None] == keys["bicubic"], "which is what is done without the option"
    assert len(set(keys.values())) == 4
    parts = [weights.digest, "budwood", "mlp", 3, 8, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]
    ever = [
        *parts,
        bw.Recipe(model="mlp", size=8).own_options,
        None,
        "bicubic",
        None,
        "own",
        "linear",
        False,
        "relu",
        2,
    ]
    assert keys[None] == hash_json(ever)
