"""A damaged checkpoint is one clear error, and never another training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from budwood.errors import RunError
from budwood.training.checkpoints import LAST, Checkpoints, LoopState

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3), "b": torch.ones(4).bfloat16()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a checkpoint whose best epoch is the second."""
    best = {"a.weight": torch.full((2, 3), 0.5)}
    state = LoopState(epoch=3, best_epoch=2, best=best, best_logits=np.ones((2, 2), np.float32), losses=1.5)
    Checkpoints(tmp_path).save(state, TENSORS, np.random.default_rng(1))
    return tmp_path


def _load(folder: Path) -> tuple[LoopState, dict[str, torch.Tensor]]:
    return Checkpoints(folder).load(np.random.default_rng()) or pytest.fail("nothing was found")


def _same(one: tuple[LoopState, dict[str, torch.Tensor]], other: tuple[LoopState, dict[str, torch.Tensor]]) -> bool:
    return (
        one[0].losses == other[0].losses
        and one[0].epoch == other[0].epoch
        and torch.equal(one[0].best["a.weight"], other[0].best["a.weight"])
        and np.array_equal(one[0].best_logits, other[0].best_logits)
        and one[1].keys() == other[1].keys()
        and all(torch.equal(tensor, other[1][name]) for name, tensor in one[1].items())
    )


def _find_problem(folder: Path, whole: tuple[LoopState, dict[str, torch.Tensor]]) -> str:
    """What is said of a checkpoint; empty where it is the whole one."""
    try:
        return "" if _same(_load(folder), whole) else "another checkpoint"
    except RunError as error:
        return error.message


@pytest.mark.parametrize("name", [LAST, "best-2.safetensors"])
def test_no_flipped_bit_and_no_cut_is_another_checkpoint(name: str, folder: Path) -> None:
    whole, file = _load(folder), folder / name
    content = file.read_bytes()
    header = int.from_bytes(content[:8], "little")
    places = sorted({*range(8), *range(8, 8 + header, 7), *range(8 + header, len(content), 31)})
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        problem = _find_problem(folder, whole)
        assert not problem or f"{name}: the checkpoint cannot be read (" in problem
    file.write_bytes(content[:-1])
    with pytest.raises(RunError, match="the checkpoint cannot be read"):
        _load(folder)


def test_a_changed_value_is_found_and_the_best_epoch_of_another_checkpoint_too(folder: Path) -> None:
    last = folder / LAST
    with safe_open(last, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file({**tensors, "a.weight": tensors["a.weight"] + 1}, last, metadata)
    with pytest.raises(RunError, match=r"cannot be read \(its content has another digest than when it was written"):
        _load(folder)
    save_file(tensors, last, {"digest": metadata["digest"]})
    with pytest.raises(RunError, match="the checkpoint cannot be read"):
        _load(folder)
    save_file(tensors, last, metadata)
    save_file({"a.weight": torch.zeros(2, 3), "/logits": torch.ones(2, 2)}, folder / "best-2.safetensors")
    with pytest.raises(RunError, match=r"best-2\.safetensors: the checkpoint cannot be read \(it has another digest"):
        _load(folder)


def test_a_checkpoint_without_digests_is_read_and_gets_them(folder: Path) -> None:
    last = folder / LAST
    with safe_open(last, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    whole = _load(folder)
    about = metadata["about"].replace('"best": "', '"old": "')
    save_file(tensors, last, {"about": about})
    checkpoints = Checkpoints(folder)
    state, found = checkpoints.load(np.random.default_rng()) or pytest.fail("nothing was found")
    assert _same((state, found), whole)
    checkpoints.save(state, found, np.random.default_rng())
    (folder / "best-2.safetensors").write_bytes(b"other")
    with pytest.raises(RunError, match="it has another digest"):
        _load(folder)


def test_what_a_killed_training_left_is_not_the_best_of_the_next(folder: Path) -> None:
    (folder / LAST).unlink()
    best = {"a.weight": torch.full((2, 3), 0.25)}
    state = LoopState(epoch=3, best_epoch=2, best=best, best_logits=np.zeros((2, 2), np.float32))
    Checkpoints(folder).save(state, TENSORS, np.random.default_rng())
    assert torch.equal(_load(folder)[0].best["a.weight"], best["a.weight"])
