"""`weights = "run:ID"` for a network with batch norm, whose counters have no dimension, or one in older files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import budwood as bw
from budwood.cli.main import run as command
from budwood.runs.run import Run, open_run
from budwood.runs.run_files import digest_run_files
from budwood.runs.run_record import save_record
from conftest import fill

SMALL = {"model": "cnn", "widths": (4,), "fc": (4,), "conv_norm": True, "size": 16, "epochs": 1, "batch": 8, "lr": 0.01}
COUNTER = "num_batches_tracked"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / name, 15, hue=hue)
    return folder


@pytest.fixture(scope="module")
def first(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return bw.train(bw.scan(photos), bw.Recipe(**SMALL), out=tmp_path_factory.mktemp("runs"), id="first")


def test_the_counters_of_a_run_have_no_dimension(first: Run) -> None:
    counters = {name: t.shape for name, t in load_file(first.path / "weights.safetensors").items() if COUNTER in name}
    assert counters
    assert set(counters.values()) == {()}


@pytest.mark.parametrize("older", [False, True])
def test_a_run_with_batch_norm_is_the_trunk_of_the_next(older: bool, first: Run, photos: Path) -> None:
    file = first.path / "weights.safetensors"
    tensors = load_file(file)
    if older:  # as runs of earlier versions have them
        save_file({name: np.atleast_1d(t) if COUNTER in name else t for name, t in tensors.items()}, file)
        save_record(first.path, first.record.model_copy(update={"files": digest_run_files(first.path)}))
    recipe = bw.Recipe(**SMALL, weights="run:first", freeze="trunk", optimizer="adam")
    second = bw.train(bw.scan(photos), recipe, out=first.path.parent)
    after = load_file(second.path / "weights.safetensors")
    assert after.keys() == tensors.keys()
    trunk = [name for name in tensors if not name.startswith(second.record.network.head) and COUNTER not in name]
    assert all(np.array_equal(after[name], tensors[name]) for name in trunk)
    assert all(tensor.shape == tensors[name].shape for name, tensor in after.items())
    assert len(bw.predict(open_run(first.path), [photos])) == 30
    assert open_run(first.path).network().state_dict().keys() == tensors.keys()


def test_the_command_of_the_readme_works(first: Run, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {**SMALL, "weights": "run:first", "widths": "[4]", "fc": "[4]", "conv_norm": "true"}
    flags = [part for name, value in options.items() for part in ("-s", f"{name}={value}")]
    code = command(["train", str(photos), "--out", str(first.path.parent), *flags])
    assert code == 0, capsys.readouterr().err
