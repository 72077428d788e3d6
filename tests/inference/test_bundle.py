"""Whatever happens to the files of a bundle on the disk, what is computed with it stays right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.data.dataset import Samples
from budwood.data.scanning import scan
from budwood.errors import RunError, StorageError, WeightsError
from budwood.evaluation.predictions import make_predictions
from budwood.inference import bundle, engines
from budwood.inference.bundle import Prefix, ensure_exported, make_prefix, read_bundle_file
from budwood.inference.feature_cache import compute_features
from budwood.networks.plan import spec_of
from budwood.networks.weights import describe_random
from budwood.progress import Silent
from conftest import fill

Damage = Callable[[bytes], bytes]


def flip(share: float) -> Damage:
    def change(content: bytes) -> bytes:
        place = min(int(len(content) * share), len(content) - 1)
        return content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]

    return change


DAMAGES: dict[str, Damage] = {
    **{f"flip at {share}": flip(share) for share in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)},
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "other": lambda content: b"{}",
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("photos")
    for hue, name in enumerate(("leaf", "rock")):
        fill(folder / name, 6, hue=hue)
    return scan(folder).samples("train")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, samples: Samples) -> tuple[Prefix, NDArray[np.float32]]:
    """A small network's bundle, and what it computes."""
    cache = tmp_path_factory.mktemp("exported")
    recipe = Recipe(model="cnn", widths=(4,), fc=(8,), weights="none", size=8, epochs=1)
    prefix = make_prefix(spec_of(recipe, 2, describe_random("default", 0), cache), None, cache)
    return prefix, compute_features(prefix, samples, Silent()).values


@pytest.mark.parametrize("name", ["part.onnx", "part.safetensors", "bundle.json", "checked.json"])
def test_a_damaged_file_is_made_again(
    name: str, exported: tuple[Prefix, NDArray[np.float32]], samples: Samples, tmp_path: Path
) -> None:
    prefix, expected = exported
    for number, (kind, damage) in enumerate(DAMAGES.items()):
        cache = tmp_path / str(number)
        shutil.copytree(prefix.cache / "networks", cache / "networks")
        mine = make_prefix(prefix.spec, None, cache)
        file = mine.bundle / name
        file.write_bytes(damage(file.read_bytes()))
        found = compute_features(mine, samples, Silent())
        assert found.values == pytest.approx(expected, abs=1e-5), kind
        again = compute_features(mine, samples, Silent())
        assert (again.computed, again.values.tolist()) == (0, found.values.tolist()), kind


def test_a_bundle_without_its_files_or_of_another_kind_is_made_again(
    exported: tuple[Prefix, NDArray[np.float32]], tmp_path: Path
) -> None:
    prefix, _ = exported
    shutil.copytree(prefix.cache / "networks", tmp_path / "networks")
    mine = make_prefix(prefix.spec, None, tmp_path)
    (mine.bundle / "part.onnx").unlink()
    assert read_bundle_file(mine, "part.onnx")
    (mine.bundle / "bundle.json").write_text('{"network": "cnn", "aside": "", "no_graph": ""}')  # as 0.1 wrote it
    assert ensure_exported(mine).files.keys() == {"part.onnx", "part.safetensors"}


def test_a_disk_that_does_not_keep_what_is_written_is_told(
    exported: tuple[Prefix, NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine = make_prefix(exported[0].spec, None, tmp_path)
    monkeypatch.setattr(bundle, "read_if_whole", lambda *_: None)
    with pytest.raises(StorageError, match="is read differently from what was written"):
        read_bundle_file(mine, "part.onnx")


def test_a_damaged_graph_in_eight_bits_is_made_again(tmp_path: Path) -> None:
    for hue, name in enumerate(("leaf", "rock")):
        fill(tmp_path / "photos" / name, 12, hue=hue)
    recipe = bw.Recipe(model="cnn", widths=(4,), fc=(8,), weights="none", size=8, epochs=1)
    run = bw.train(bw.scan(tmp_path / "photos"), recipe, out=tmp_path / "runs", cache=tmp_path / "cache")
    files = [tmp_path / "photos"]
    expected = bw.predict(run, files, int8=True, cache=tmp_path / "cache")
    for name in ("int8.onnx", "int8.json", "int8.onnx.json"):
        for file in (tmp_path / "cache" / "networks").rglob(name):
            file.write_bytes(flip(0.5)(file.read_bytes()))
        shutil.rmtree(tmp_path / "cache" / "outputs", ignore_errors=True)
        found = bw.predict(run, files, int8=True, cache=tmp_path / "cache")
        assert [one.top for one in found] == [one.top for one in expected], name


def test_an_output_that_is_not_finite_is_refused_and_not_kept(
    exported: tuple[Prefix, NDArray[np.float32]],
    samples: Samples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(exported[0].cache / "networks", tmp_path / "networks")
    mine = make_prefix(exported[0].spec, None, tmp_path)
    real = engines._make_onnx_inference

    def spoiled(prefix: Prefix, threads: int) -> engines.InferenceFn:
        run = real(prefix, threads)

        def compute(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
            values = run(batch).copy()
            values[-1, 0] = np.inf
            return values

        return compute

    monkeypatch.setattr(engines, "_make_onnx_inference", spoiled)
    with pytest.raises(WeightsError, match=r"not finite \(NaN or infinite\) for 1 of \d+ images, the first '\w+/"):
        compute_features(mine, samples, Silent())
    assert not list((tmp_path / "outputs").rglob("*.npy"))
    with pytest.raises(RunError, match=r"not finite .* for 1 of \d+ images, the first"):
        make_predictions(samples, np.where(np.arange(len(samples))[:, None] == 3, np.nan, np.zeros((1, 2), np.float32)))
    monkeypatch.undo()
    assert compute_features(mine, samples, Silent()).values == pytest.approx(exported[1], abs=1e-5)
