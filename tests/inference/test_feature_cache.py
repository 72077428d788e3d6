"""The frozen prefix agrees with PyTorch, is computed once, and is never stale."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from budwood.config.recipe import Recipe
from budwood.data import loading
from budwood.data.dataset import Samples
from budwood.data.scanning import scan
from budwood.errors import DataError
from budwood.inference import engines as module
from budwood.inference import feature_cache as storing
from budwood.inference.bundle import Prefix, ensure_exported, make_prefix
from budwood.inference.feature_cache import compute_features
from budwood.inference.pytorch_backend import NetworkSlice, export
from budwood.networks.plan import spec_of
from budwood.networks.registry import TRUNK, find_network
from budwood.networks.weights import Weights, describe_random, find_imagenet
from budwood.progress import Silent
from budwood.storage.checked_files import read_checked, write_checked
from budwood.storage.context import Context
from conftest import picture

SIZE = 32


class Noted(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def _prefix(cache: Path, stop: str | None = TRUNK, **options: Any) -> Prefix:
    recipe = Recipe(**{"size": SIZE, **options})
    return make_prefix(spec_of(recipe, 2, _weights(), cache), stop, cache)


def _weights() -> Weights:
    return find_imagenet("lite0", find_network("tf_efficientnet_lite0").origins, Context(Path("none"), Silent()))


@pytest.fixture
def fresh(cache: Path, tmp_path: Path) -> Prefix:
    """A prefix with the shared export and an empty store of outputs and pixels."""
    shared = _prefix(cache)
    ensure_exported(shared)
    mine = replace(shared, cache=tmp_path / "mine")
    shutil.copytree(shared.bundle, mine.bundle)
    return mine


def _samples(photos: Path) -> Samples:
    return scan(photos).samples("train")


def _by_torch(samples: Samples) -> np.ndarray:
    """The outputs by plain timm and Pillow, without any of Budwood's preprocessing."""
    images = [Image.open(samples.root / path).convert("RGB") for path in samples.paths]
    pixels = np.stack([np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for image in images])
    with torch.inference_mode():
        normalised = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        return np.asarray(_plain_trunk()(normalised).numpy())


def _plain_trunk() -> torch.nn.Module:
    """The trunk by timm alone, its weights put in place in their order."""
    import timm

    whole: torch.nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    theirs = torch.load(_weights().path or "", map_location="cpu", weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), theirs.values(), strict=True)))
    whole.classifier = torch.nn.Identity()
    return whole.eval()


def test_outputs_equal_plain_pytorch(photos: Path, fresh: Prefix) -> None:
    samples = _samples(photos)
    found = compute_features(fresh, samples, Silent())
    expected = _by_torch(samples)
    assert found.engine.startswith("ONNX Runtime")
    assert found.computed == len(samples)
    assert np.abs(found.values - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_second_run_computes_nothing_and_only_new_images_are_computed(
    photos: Path, fresh: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = _samples(photos)
    half = samples.subset(range(20))
    first = compute_features(fresh, half, Silent())
    second = compute_features(fresh, samples, Silent())
    assert (second.computed, second.reused) == (len(samples) - 20, 20)
    assert np.array_equal(second.values[:20], first.values)
    monkeypatch.setattr(storing, "choose_engine", lambda *_: pytest.fail("an engine was asked for"))
    third = compute_features(fresh, samples, Silent())
    assert third.computed == 0
    assert np.array_equal(third.values, second.values)


def test_an_order_and_repetition_of_images_is_kept(photos: Path, fresh: Prefix) -> None:
    samples = _samples(photos)
    rows = [3, 0, 3, 7]
    chosen = samples.subset(rows)
    whole = compute_features(fresh, samples, Silent()).values
    assert np.array_equal(compute_features(fresh, chosen, Silent()).values, whole[rows])


def test_a_flipped_bit_is_computed_again(photos: Path, fresh: Prefix) -> None:
    samples = _samples(photos)
    first = compute_features(fresh, samples, Silent())
    file = next(f for f in (fresh.cache / "outputs").rglob("*.npy") if not f.name.endswith(".ids.npy"))
    data = bytearray(file.read_bytes())
    data[5000] ^= 64
    file.write_bytes(bytes(data))
    again = compute_features(fresh, samples, Silent())
    assert again.computed == 1
    assert np.array_equal(again.values, first.values)


def test_another_resize_or_size_is_another_prefix(photos: Path, fresh: Prefix) -> None:
    wide = photos / "sky" / "wide.png"
    picture(5, side=80).resize((80, 40)).save(wide)
    data = scan(photos)
    samples = data.samples("train")
    compute_features(fresh, samples, Silent())
    padded = _prefix(fresh.cache, resize="pad")
    assert compute_features(padded, samples, Silent()).computed == len(samples)
    assert _prefix(fresh.cache, size=64).key != fresh.key


def test_a_file_changed_after_the_scan_is_an_error(photos: Path, fresh: Prefix) -> None:
    samples = _samples(photos)
    picture(77).save(photos / samples.paths[5])
    with pytest.raises(DataError, match="was changed after it was scanned"):
        compute_features(fresh, samples, Silent())


def test_an_engine_that_disagrees_is_not_used(photos: Path, fresh: Prefix) -> None:
    write_checked(fresh.bundle / "checked.json", {"error": 0.3, "images": 16, "packed": None})
    progress = Noted()
    samples = _samples(photos)
    found = compute_features(fresh, samples, progress)
    assert found.engine.startswith("PyTorch")
    assert any("too different, so PyTorch is used" in note for note in progress.notes)
    assert np.allclose(found.values, _by_torch(samples), atol=1e-4)


def test_agreement_is_measured_on_real_images(photos: Path, fresh: Prefix, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh.bundle / "checked.json").unlink(missing_ok=True)
    monkeypatch.setattr(
        module, "_make_onnx_inference", lambda *_: lambda batch: np.full((len(batch), 1280), 9.0, np.float32)
    )
    assert compute_features(fresh, _samples(photos), Silent()).engine.startswith("PyTorch")
    measured = read_checked(fresh.bundle / "checked.json")
    assert measured is not None
    assert measured["error"] > 0.5


def test_a_cache_that_is_full_costs_the_cache_only(
    photos: Path, fresh: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from budwood.storage.shards import ShardStore

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardStore, "add", full)
    progress, samples = Noted(), _samples(photos)
    found = compute_features(fresh, samples, progress)
    assert np.allclose(found.values, _by_torch(samples), atol=1e-4)
    assert any("the disk is full" in note for note in progress.notes)


def test_pixels_beyond_the_limit_are_not_kept(photos: Path, fresh: Prefix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", "1000")
    progress = Noted()
    compute_features(fresh, _samples(photos), progress)
    assert any("Decoded pixels are not kept" in note for note in progress.notes)
    assert not list((fresh.cache / "pixels").rglob("*.npy"))


def test_kept_pixels_serve_another_network_of_the_same_size(
    photos: Path, fresh: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = _samples(photos)
    first = compute_features(fresh, samples, Silent())
    shutil.rmtree(fresh.cache / "outputs")
    monkeypatch.setattr(loading, "read_pixels", lambda *_: pytest.fail("a file was decoded again"))
    again = compute_features(fresh, samples, Silent())
    assert again.computed == len(samples)
    assert np.array_equal(again.values, first.values)


def test_an_interrupted_export_leaves_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from budwood.inference import bundle, pytorch_backend

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    prefix = _prefix(tmp_path)
    monkeypatch.setattr(bundle, "encode_checked", interrupted)  # once the other files are written
    with pytest.raises(KeyboardInterrupt):
        ensure_exported(prefix)
    assert list((tmp_path / "networks").iterdir()) == []
    monkeypatch.setattr(pytorch_backend, "export", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_exported(prefix)
    assert list((tmp_path / "networks").iterdir()) == []


@pytest.mark.parametrize(("off", "engine"), [(1.001, "half precision, channels last, CUDA"), (1.1, "CUDA")])
def test_half_precision_on_a_gpu_is_used_where_it_agrees(
    off: float, engine: str, photos: Path, fresh: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, compiles = module._make_eager_inference, []

    def half(prefix: Prefix, compiled: bool, _: object) -> module.InferenceFn:
        compiles.append(compiled)
        run = eager(prefix)
        return lambda batch: run(batch) * np.float32(off)

    monkeypatch.setattr(module, "has_cuda_device", lambda: True)
    monkeypatch.setattr(module, "_make_eager_inference", lambda prefix, device="cpu": eager(prefix))
    monkeypatch.setattr(module, "_make_half_cuda_inference", half)
    progress, samples = Noted(), _samples(photos)
    found = compute_features(fresh, samples, progress)
    assert found.engine == f"PyTorch {torch.__version__.split('+')[0]}, {engine}"
    assert np.allclose(found.values, _by_torch(samples) * (off if off < 1.01 else 1), atol=1e-3)
    assert any("too different, so full precision" in note for note in progress.notes) == (off > 1.01)
    monkeypatch.setattr(module, "COMPILE_PAYS", len(samples))
    shutil.rmtree(fresh.cache / "outputs")
    again = compute_features(fresh, samples, progress)
    assert compiles == [False, True]
    assert ("compiled" in again.engine) == (off < 1.01)


def test_the_writer_passes_on_what_went_wrong_and_keeps_the_order() -> None:
    written: list[int] = []
    writer = loading.Writer()
    for number in range(5):
        writer.do(lambda number=number: written.append(number))  # type: ignore[misc]
    writer.close()
    assert written == [0, 1, 2, 3, 4]
    failing = loading.Writer()

    def fail() -> None:
        raise ValueError("the disk caught fire")

    failing.do(fail)
    with pytest.raises(ValueError, match="caught fire"):
        failing.do(lambda: written.append(5))
    with pytest.raises(ValueError, match="caught fire"):
        failing.close()
    assert written == [0, 1, 2, 3, 4]


def test_a_network_that_cannot_be_exported_prints_nothing(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe(model="alexnet", weights="none", size=64, optimizer="adam")  # its pooling has no place in ONNX
    files, _, reason = export(NetworkSlice(spec_of(recipe, 2, describe_random("default", 0), cache), None))
    assert "adaptive_avg_pool2d" in reason
    assert list(files) == ["part.safetensors"]
    assert capfd.readouterr().out == ""
