"""What is kept of a frozen prefix equals what it stands for, wherever the network is divided."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from test_feature_cache import Noted
from test_stages import NETWORKS
from torch import nn

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import ResolvedRecipe, resolve
from budwood.data.dataset import Samples
from budwood.data.scanning import scan
from budwood.errors import RecipeError, WeightsError
from budwood.inference import engines
from budwood.inference import feature_cache as storing
from budwood.inference.bundle import Prefix, ensure_exported, make_prefix
from budwood.inference.engines import PACKED
from budwood.inference.feature_cache import Transform, compute_features, flip_transform, why_not_cached
from budwood.networks.plan import load_plan, spec_of
from budwood.networks.registry import TRUNK, find_network
from budwood.networks.spec import NetworkSpec
from budwood.networks.weights import Weights, describe_file, describe_random
from budwood.progress import Silent
from budwood.storage.context import Context
from budwood.storage.packing import pack, unpack
from budwood.storage.shards import ShardStore
from budwood.training.cached_augmentation import make_augmentation_transform
from budwood.training.frozen_features import SplitFeatures, load_features, prefix_is_untrained
from budwood.training.inputs import make_inputs, make_trained_slice
from budwood.training.loop import LoopResult, fit
from budwood.training.task import TrainingTask
from budwood.training.training_record import PrefixRecord
from conftest import fill, picture

SIZE = 64
STEPS = 12
LARGER = {"efficientnet_b0": 96}  # at 64 its batch norms see four places an image, and rounding grows a hundredfold
SMALL = {"model": "cnn", "widths": [8, 8, 16], "pools": [1, 1, 2], "fc": [16], "conv_norm": True, "weights": "none"}
QUICK = "shufflenet_v2_x0_5"  # cut at one place; all networks at three places are slow


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of eight pictures."""
    folder = tmp_path_factory.mktemp("few")
    fill(folder / "leaf", 8, hue=1)
    fill(folder / "sky", 8, hue=2)
    return folder


def _tame(model: str, size: int, file: Path) -> Weights:
    """Random weights whose batch norms let most of a signal pass, as trained ones do.

    Where half of it is cut off at every activation, rounding grows by a factor in each layer while statistics are those
    of a batch, so that two runs of PyTorch itself part after a few steps.
    """
    torch.manual_seed(0)
    module = find_network(model).make(3, size)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.constant_(part.weight, 0.3)
            nn.init.constant_(part.bias, 1.0)
    save_file({name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}, file)
    return describe_file(file)


def _task(folder: Path, cache: Path, **options: Any) -> TrainingTask:
    recipe = Recipe(**{"size": SIZE, "batch": 8, "optimizer": "sgd", "lr": 1e-4, "momentum": 0.0, **options})
    data = scan(folder)
    plan = load_plan(recipe, 2, cache)
    weights = describe_random("default", 0)
    context = Context(cache, Silent())
    return TrainingTask(NetworkSpec(recipe, plan, 2, weights), data.samples("train"), data.samples("val"), context)


def _fitted(task: TrainingTask, features: SplitFeatures | None) -> LoopResult:
    return fit(make_trained_slice(task, features), task.resolved, *make_inputs(task, features), Silent())


def _uncached(task: TrainingTask) -> LoopResult:
    """Training on pixels, the frozen part in PyTorch with the rest."""
    train, val = make_inputs(replace(task, spec=task.spec.with_recipe(flip=0.5)), None)
    return fit(replace(make_trained_slice(task, None), stop=None), task.resolved, train, val, Silent())


def _same_losses(task: TrainingTask) -> None:
    features = load_features(task)
    assert features is not None
    cached, uncached = _fitted(task, features), _uncached(task)
    assert len(cached.history) == len(uncached.history) > 0
    assert cached.history[0]["train_loss"] != cached.history[-1]["train_loss"]
    for ours, theirs in zip(cached.history, uncached.history, strict=True):
        for name in ("train_loss", "val_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), (task.spec.recipe.freeze, name)


def _boundaries(model: str, size: int, cache: Path) -> list[str]:
    """The first, a middle and the last place whose output is kept."""
    whole = load_plan(Recipe(model=model, weights="none", size=size, freeze="trunk"), 2, cache)
    names = [row.name for row in whole.stages if row.name not in (TRUNK, whole.head)]
    plans = {n: load_plan(Recipe(model=model, weights="none", size=size, freeze=f"upto:{n}"), 2, cache) for n in names}
    kept = [name for name in names if plans[name].prefix]
    return list(dict.fromkeys([f"upto:{kept[0]}", f"upto:{kept[len(kept) // 2]}", "trunk"]))


@pytest.mark.parametrize(
    ("model", "places"), [(QUICK, 1), *(pytest.param(name, 3, marks=pytest.mark.slow) for name in NETWORKS)]
)
def test_training_on_kept_outputs_is_training(
    model: str, places: int, few: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "why_not_cached", lambda *_: "")
    monkeypatch.setattr("budwood.training.frozen_features.why_not_cached", lambda *_: "")
    size = LARGER.get(model, NETWORKS[model])
    boundaries, weights = _boundaries(model, size, cache), _tame(model, size, tmp_path / "tame.safetensors")
    assert len(boundaries) == 3
    for freeze in boundaries[-places:]:
        task = _task(few, tmp_path, model=model, weights="none", size=size, freeze=freeze, head="mlp:8", epochs=1)
        steps = -(-len(task.training) // 8)
        spec = replace(task.spec.with_recipe(epochs=-(-STEPS // steps)), weights=weights)
        _same_losses(replace(task, spec=spec))
        shutil.rmtree(tmp_path / "networks", ignore_errors=True)  # not there where the boundary is that before


def _map_prefix(cache: Path, **options: Any) -> Prefix:
    recipe = Recipe(**{**SMALL, "size": 32, "freeze": "upto:conv2", "epochs": 1, **options})
    plan = load_plan(recipe, 2, cache)
    return make_prefix(NetworkSpec(recipe, plan, 2, describe_random("default", 0)), plan.prefix, cache)


def _samples(folder: Path) -> Samples:
    return scan(folder).samples("train")


def test_maps_are_kept_in_16_bits_and_read_back_as_they_were_given(few: Path, tmp_path: Path) -> None:
    prefix = _map_prefix(tmp_path)
    first = compute_features(prefix, _samples(few), Silent())
    assert first.computed == len(_samples(few))
    again = compute_features(prefix, _samples(few), Silent())
    assert again.computed == 0
    assert np.array_equal(first.values, again.values)
    assert _types(tmp_path) == {np.dtype(np.int16)}
    assert storing.count_feature_bytes(prefix) == first.values[0].size * 2
    exact = engines._make_eager_inference(prefix)(storing.take_first_images(prefix, _samples(few)))
    steps = np.abs(exact).max(axis=(1, 2, 3), keepdims=True) / 32767
    assert (np.abs(first.values[: len(exact)] - exact) <= 0.6 * steps).all()


def _types(cache: Path) -> set[np.dtype[Any]]:
    files = (cache / "outputs").rglob("*.npy")
    return {np.load(file, "r").dtype for file in files if not file.name.endswith(".ids.npy")}


def test_maps_whose_rounding_shows_are_kept_in_full(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_measure_packing_error", lambda *_: 2 * PACKED)
    found = compute_features(_map_prefix(tmp_path), _samples(few), Silent())
    assert _types(tmp_path) == {np.dtype(np.float32)}
    assert np.array_equal(found.values, compute_features(_map_prefix(tmp_path), _samples(few), Silent()).values)


def test_values_that_are_no_numbers_are_refused_and_not_kept(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = _map_prefix(tmp_path)
    ensure_exported(prefix)
    real = engines._make_onnx_inference
    monkeypatch.setattr(engines, "_measure_packing_error", lambda *_: 0.0)
    monkeypatch.setattr(
        engines,
        "_make_onnx_inference",
        lambda *given: (lambda run: lambda batch: run(batch) / np.float32(0))(real(*given)),
    )
    monkeypatch.setattr(engines, "_measure_disagreement", lambda *_: 0.0)
    with np.errstate(divide="ignore", invalid="ignore"), pytest.raises(WeightsError, match="is not finite"):
        compute_features(prefix, _samples(few), Silent())
    monkeypatch.undo()
    found = compute_features(prefix, _samples(few), Silent())
    assert found.computed == len(_samples(few))
    assert np.isfinite(found.values).all()


def test_how_much_rounding_changes_is_measured_on_the_rest_of_the_network(few: Path, tmp_path: Path) -> None:
    prefix = _map_prefix(tmp_path)
    values = np.random.default_rng(0).normal(0, 1, (4, *prefix.shape)).astype(np.float32)
    error = engines._measure_packing_error(prefix, values)
    assert error is not None
    assert 0 < error < PACKED
    assert engines._measure_packing_error(_map_prefix(tmp_path, freeze="trunk"), np.ones((2, 16), np.float32)) is None


def test_packing_is_within_half_a_step_of_each_images_largest_value() -> None:
    random = np.random.default_rng(0)
    values = (random.normal(0, 1, (5, 3, 4)) * 10.0 ** np.arange(-3, 2)[:, None, None]).astype(np.float32)
    values[2] = 0
    rows = pack(values)
    assert rows.dtype == np.int16
    assert rows.shape == (5, 2 + 12)
    error = np.abs(unpack(rows, (3, 4)) - values).max(axis=(1, 2))
    assert (error <= 0.5001 * np.abs(values).max(axis=(1, 2)) / 32767).all()
    assert pack(np.zeros((0, 3), np.float32)).shape == (0, 5)


def test_a_map_larger_than_its_pixels_is_computed_as_it_is_needed(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _task(few, tmp_path, **{**SMALL, "widths": [64, 8, 8]}, freeze="upto:conv1", size=32, epochs=3)
    said = Noted()
    features = load_features(replace(task, context=Context(tmp_path, said)))
    assert features is None
    assert said.notes == [
        "Features of conv1 are computed again in every epoch, not kept in the cache: the features of an image "
        "take 24 KiB, "
        "its pixels only 3 KiB."
    ]
    ours, theirs = _fitted(task, None), _uncached(task)
    assert make_trained_slice(task, None).stop == "conv1"
    assert [r["train_loss"] for r in ours.history] == pytest.approx([r["train_loss"] for r in theirs.history], rel=1e-4)
    assert not (tmp_path / "outputs").exists()


def test_more_than_the_limit_is_computed_as_it_is_needed(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", "50k")
    prefix = _map_prefix(tmp_path)
    assert why_not_cached(prefix, 10) == ""
    assert why_not_cached(prefix, 1000).endswith("MiB, and the cache limit is 0.0 MiB")


def test_a_run_says_what_ran_the_frozen_part(few: Path, tmp_path: Path) -> None:
    recipe = bw.Recipe(**{**SMALL, "widths": [64, 8, 8]}, freeze="upto:conv1", size=32, epochs=1, tta="flip")
    run = bw.train(scan(few), recipe, out=tmp_path / "runs", cache=tmp_path / "cache")
    assert run.record.prefix == PrefixRecord(stage=None, computed=0, reused=0)
    assert run.record.choices.engine.endswith("for the frozen layers, in every step; PyTorch for the rest")
    answers = bw.predict(run, [few / "leaf"])
    assert len(answers) == 8


def test_outputs_that_are_many_lie_in_a_file_without_a_name(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = _map_prefix(tmp_path)
    held = compute_features(prefix, _samples(few), Silent()).values
    monkeypatch.setattr(storing, "HELD", 1000)
    mapped = compute_features(prefix, _samples(few), Silent()).values
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(held, mapped)
    assert {path.name for path in tmp_path.iterdir()} == {"networks", "outputs", "pixels", "plans"}


def test_what_is_made_of_outputs_is_all_that_is_held(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = _map_prefix(tmp_path)
    one = _samples(few)
    monkeypatch.setattr(storing, "SHARD", 16)
    n = 4
    many = Samples(one.root, one.ids * n, one.paths * n, np.tile(one.labels, n))
    expected = compute_features(prefix, one, Silent()).values.mean(axis=(1, 2, 3))
    sizes: list[int] = []

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        sizes.append(len(values))
        return np.asarray(values.mean(axis=(1, 2, 3))[:, None], np.float32)

    found = compute_features(prefix, many, Silent(), flip_transform(""), mean).values
    assert found.shape == (len(many), 1)
    assert np.allclose(found[:, 0], np.tile(expected, n), atol=1e-6)
    assert max(sizes) <= 16 < len(many)


# Several views of training images


def test_a_view_depends_on_the_image_and_its_number_alone(few: Path) -> None:
    recipe = Recipe(flip=0.5, rotation=30, brightness=0.4, erase=0.5, freeze="trunk")
    pixels = np.stack([np.asarray(picture(number)) for number in range(3)])
    whole = make_augmentation_transform(_resolved(recipe), 0).change(pixels, ["a", "b", "c"])
    assert whole.dtype == np.uint8
    alone = make_augmentation_transform(_resolved(recipe), 0).change(pixels[2:], ["c"])
    assert np.abs(whole[2].astype(int) - alone[0]).max() <= 1  # a batch may be summed in another order
    names = {
        make_augmentation_transform(_resolved(Recipe(**options, freeze="trunk")), number).name
        for options, number in _variants()
    }
    assert len(names) == len(_variants())
    assert not np.array_equal(whole, make_augmentation_transform(_resolved(recipe), 1).change(pixels, ["a", "b", "c"]))


def _resolved(recipe: Recipe) -> ResolvedRecipe:
    return resolve(recipe, False, 40)


def _variants() -> list[tuple[dict[str, Any], int]]:
    return [
        ({"flip": 0.5}, 0),
        ({"flip": 0.5}, 1),
        ({"flip": 0.4}, 0),
        ({"flip": 0.5, "seed": 1}, 0),
        ({"zoom": 0.1}, 0),
        ({"zoom_x": 0.1}, 0),
        ({"zoom_y": 0.1}, 0),
    ]


def test_views_are_computed_once_and_an_epoch_sees_one_of_each_image(few: Path, tmp_path: Path) -> None:
    options = {**SMALL, "freeze": "upto:conv2", "size": 32, "flip": 0.5, "zoom": 0.2, "views": 3, "epochs": 4}
    task = _task(few, tmp_path, **options)
    features = load_features(task)
    assert features is not None
    n, held_out = len(task.training), len(task.validation)
    assert len(features.training) == 3
    assert features.computed == 3 * n + held_out
    assert not np.array_equal(features.training[0], features.training[1])
    again = load_features(task)
    assert again is not None
    assert (again.computed, again.reused) == (0, 3 * n + held_out)
    train, val = make_inputs(task, features)
    assert len(train.inputs) == 3 * n
    assert np.array_equal(np.asarray(train.inputs.take(np.array([n + 1]))[0]), features.training[1][1])
    ours = fit(make_trained_slice(task, features), task.resolved, train, val, Silent())
    reached: list[NDArray[np.int64]] = []
    take = train.inputs.take

    class Watched:
        def __len__(self) -> int:
            return 3 * n

        def take(self, rows: NDArray[np.int64]) -> Any:
            reached.append(rows)
            return take(rows)

    again_fit = fit(make_trained_slice(task, features), task.resolved, replace(train, inputs=Watched()), val, Silent())
    assert again_fit.history == ours.history
    rows = np.concatenate(reached)
    assert {int(row) // n for row in rows} == {0, 1, 2}
    for epoch in np.split(rows, 4):
        assert sorted(epoch % n) == list(range(n))


def test_a_run_of_several_views(few: Path, tmp_path: Path) -> None:
    recipe = bw.Recipe(**SMALL, freeze="trunk", size=32, flip=0.5, views=2, epochs=2)
    run = bw.train(scan(few), recipe, out=tmp_path / "runs", cache=tmp_path / "cache")
    n = len(_samples(few))
    assert run.record.prefix.stage == TRUNK
    assert run.record.prefix.computed >= 2 * n
    again = bw.train(scan(few), recipe, out=tmp_path / "runs", cache=tmp_path / "cache")
    assert again.record.prefix.computed == 0
    assert again.history == run.history
    told, cost = bw.estimate_cost(scan(few), recipe, out=tmp_path / "runs", cache=tmp_path / "other")
    assert told.views == 2
    assert cost.disk["cache"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 3}, "views: expected augmentation beside it, as flip=0.5"),
        ({"views": 3, "flip": 0.5, "mixup": 0.2}, "views: cannot be used with mixup or cutmix"),
        ({"views": 3, "flip": 0.5, "freeze": "none"}, "views: expected something frozen"),
        ({"views": 0, "flip": 0.5}, "views: input should be greater than or equal to 1"),
    ],
)
def test_views_that_have_no_meaning_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe(**options)


def test_views_where_the_first_stage_is_trained_are_refused(few: Path, tmp_path: Path) -> None:
    recipe = Recipe(**SMALL, freeze=["conv2.*"], size=32, flip=0.5, views=2)
    with pytest.raises(RecipeError, match="views: the first stages are not frozen"):
        bw.train(scan(few), recipe, out=tmp_path / "runs")


# Phases


@pytest.mark.parametrize(
    ("second", "kept"), [("upto:conv2", True), ("trunk", True), ("upto:conv1", True), ("none", False)]
)
def test_a_later_phase_uses_what_no_phase_before_has_trained(
    second: str, kept: bool, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budwood.training.frozen_features.why_not_cached", lambda *_: "")
    phases = [{"freeze": "upto:conv2", "epochs": 2, "lr": 0.01}, {"freeze": second, "epochs": 2, "lr": 0.01}]
    task = _task(few, tmp_path, **{**SMALL, "freeze": "trunk"}, size=32)
    first, later = Recipe(**SMALL, size=32, batch=4, phases=phases).in_phases()
    stop = load_plan(first, 2, tmp_path).prefix
    spec = spec_of(later, 2, task.spec.weights, tmp_path)
    phase = replace(task, spec=spec, before=(stop,), phase=2)
    assert prefix_is_untrained(phase) == (kept and second != "trunk")
    assert not prefix_is_untrained(replace(phase, before=(None,)))


def test_phases_with_and_without_the_cache_end_alike(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = [{"freeze": "trunk", "epochs": 3, "lr": 0.01}, {"freeze": "upto:conv2", "epochs": 3, "lr": 0.001}]
    recipe = Recipe(**SMALL, size=32, batch=4, phases=phases)
    asked: list[str | None] = []
    real = storing.compute_features

    def watched(prefix: Prefix, *given: Any) -> storing.Features:
        asked.append(prefix.stop)
        return real(prefix, *given)

    monkeypatch.setattr("budwood.training.frozen_features.compute_features", watched)
    cached = bw.train(scan(few), recipe, out=tmp_path / "runs", cache=tmp_path / "cache")
    assert asked == [TRUNK, "conv2"]
    monkeypatch.setattr("budwood.training.frozen_features.prefix_is_untrained", lambda _: False)
    uncached = bw.train(scan(few), recipe, out=tmp_path / "runs", cache=tmp_path / "cache")
    for ours, theirs in zip(cached.history, uncached.history, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4, abs=1e-6)


# Faults

WRITER = """
import sys, numpy as np
from pathlib import Path
from budwood.storage.shards import ShardStore as Store
folder, first = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
store = Store(folder, (5000,), np.float32)
for shard in range(first, first + 50):
    ids = [f"{shard * 8 + row:032x}" for row in range(8)]
    store.add(ids, np.stack([np.full(5000, shard * 8 + row, np.float32) for row in range(8)]))
"""


def _writer(folder: Path, first: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(first)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _right_rows(folder: Path) -> int:
    """How many rows are there; every one of them has the value that belongs to its id."""
    store, count = ShardStore(folder, (5000,), np.float32), 0
    for number in range(2 * 50 * 8):
        row = store.row(f"{number:032x}")
        if row is not None:
            assert (np.asarray(row) == number).all()
            count += 1
    return count


def test_writers_killed_at_random_moments_leave_no_wrong_row(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    process = _writer(tmp_path, 0)
    counts = []
    for _ in range(10):
        time.sleep(random.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL) if hasattr(signal, "SIGKILL") else process.kill()
        process.wait()
        counts.append(_right_rows(tmp_path))
        process = _writer(tmp_path, int(random.integers(0, 50)))
    process.kill()
    process.wait()
    assert counts == sorted(counts)
    assert counts[-1] > 0


def test_two_writers_and_a_reader_share_a_store(tmp_path: Path) -> None:
    writers = [_writer(tmp_path, 0), _writer(tmp_path, 50)]
    while any(writer.poll() is None for writer in writers):
        _right_rows(tmp_path)
        time.sleep(0.1)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert _right_rows(tmp_path) == 2 * 50 * 8


def _outputs_of(folder: str, cache: str) -> NDArray[np.float32]:
    return compute_features(_map_prefix(Path(cache)), _samples(Path(folder)), Silent()).values


def test_processes_that_compute_the_same_at_once_agree(few: Path, tmp_path: Path, quick_processes: BaseContext) -> None:
    with quick_processes.Pool(2) as pool:
        first, second = pool.starmap(_outputs_of, [(str(few), str(tmp_path))] * 2)
    assert np.array_equal(first, second)
    assert np.array_equal(first, compute_features(_map_prefix(tmp_path), _samples(few), Silent()).values)


def test_a_disk_that_is_full_costs_the_cache_only(few: Path, tmp_path: Path) -> None:
    """On a real file system of 300 KiB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        prefix = _map_prefix(tmp_path / "cache")
        expected = compute_features(prefix, _samples(few), Silent()).values
        shutil.copytree(prefix.bundle, disk / "networks" / prefix.bundle.name)
        ballast = disk / "ballast"
        free = shutil.disk_usage(disk).free
        ballast.write_bytes(bytes(max(free - 8192, 0)))
        said = Noted()
        found = compute_features(replace(prefix, cache=disk), _samples(few), said)
        assert np.array_equal(found.values, expected)
        assert found.computed == len(_samples(few))
        assert any("are not kept" in note or "the disk is full" in note for note in said.notes)
        ballast.unlink()
        assert np.array_equal(compute_features(replace(prefix, cache=disk), _samples(few), Silent()).values, expected)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_image_replaced_by_another_of_the_same_name_is_computed_anew(few: Path, tmp_path: Path) -> None:
    photos, prefix = tmp_path / "photos", _map_prefix(tmp_path / "cache")
    shutil.copytree(few, photos)
    before = _everything(photos)
    first = compute_features(prefix, before, Silent())
    file = photos / before.paths[3]
    times = file.stat()
    picture(99).save(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = _everything(photos)
    assert sorted(after.paths) == sorted(before.paths)
    again = compute_features(prefix, after, Silent())
    assert again.computed == 1
    known = {path: (id, value) for path, id, value in zip(before.paths, before.ids, first.values, strict=True)}
    for path, id, value in zip(after.paths, after.ids, again.values, strict=True):
        assert (id == known[path][0]) == np.array_equal(value, known[path][1]) == (path != before.paths[3])


def _everything(folder: Path) -> Samples:
    data = scan(folder)
    return data.samples("train").join(data.samples("val")).join(data.sealed().samples("test"))


def test_threads_are_measured_once_where_there_are_many(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "count_threads", lambda: 8)
    asked: list[int] = []
    real = engines._make_onnx_inference

    def watched(prefix: Prefix, threads: int) -> engines.InferenceFn:
        asked.append(threads)
        return real(prefix, 1)

    monkeypatch.setattr(engines, "_make_onnx_inference", watched)
    monkeypatch.setattr(engines, "_time_batch", lambda run, batch: 1.0 if len(asked) == 2 else 0.5)
    prefix = _map_prefix(tmp_path)
    compute_features(prefix, _samples(few), Silent())
    assert asked == [8, 8, 4, 4]
    shutil.rmtree(tmp_path / "outputs")
    compute_features(prefix, _samples(few), Silent())
    assert asked[4:] == [4]


def test_another_view_is_another_store(few: Path, tmp_path: Path) -> None:
    prefix = _map_prefix(tmp_path)
    plain = compute_features(prefix, _samples(few), Silent())
    mirrored = compute_features(prefix, _samples(few), Silent(), flip_transform("h"))
    own = compute_features(prefix, _samples(few), Silent(), Transform("own", lambda pixels, ids: 255 - pixels))
    assert mirrored.computed == own.computed == len(_samples(few))
    assert not np.allclose(plain.values, mirrored.values)
    assert not np.allclose(plain.values, own.values)
