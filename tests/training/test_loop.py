"""The training loop makes the steps that plain PyTorch makes, on what is trained and on nothing else."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import RecipeError
from budwood.inference.input_sources import ArraySource, Labelled, batches
from budwood.inference.pytorch_backend import NetworkSlice, WithPreprocessing
from budwood.networks.freezing import find_frozen, set_modes
from budwood.networks.registry import IMAGENET_MEAN, IMAGENET_STD
from budwood.networks.stages import slice_stages
from budwood.networks.surgery import build
from budwood.progress import Silent
from budwood.training.device import disable_malloc_trim
from budwood.training.loop import LoopResult, fit
from budwood.training.training_record import Selected
from subjects import plan_with, untrained

SMALL: dict[str, Any] = {"model": "cnn", "widths": (8, 8), "fc": (16,), "size": 16, "conv_norm": True, "pools": (1, 2)}


def _split(n: int, size: int = 16, seed: int = 0) -> Labelled:
    """Pictures of two kinds, told apart by brightness, with noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n).astype(np.int32)
    pixels = random.integers(0, 120, (n, size, size, 3)) + 100 * labels[:, None, None, None]
    return Labelled(ArraySource(pixels.astype(np.uint8)), labels)


def _part(stop: str | None = None, **options: Any) -> NetworkSlice:
    recipe = Recipe(**{**SMALL, **options})
    return NetworkSlice(untrained(recipe, 2), stop)


def _fit(part: NetworkSlice, *rest: Any, **options: Any) -> LoopResult:
    """What training makes of a part, by its recipe."""
    return fit(part, resolve(part.spec.recipe, False, part.spec.plan.size), *rest, **options)


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        ({"optimizer": "sgd", "momentum": 0.0}, lambda p: torch.optim.SGD(p, 0.01, weight_decay=0.1)),
        ({"optimizer": "sgd"}, lambda p: torch.optim.SGD(p, 0.01, 0.9, weight_decay=0.1)),
        (
            {"optimizer": "sgd", "momentum": 0.8, "nesterov": True},
            lambda p: torch.optim.SGD(p, 0.01, 0.8, weight_decay=0.1, nesterov=True),
        ),
        ({"optimizer": "adam"}, lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)),
        ({"optimizer": "adam", "decay": "decoupled"}, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
        ({"optimizer": "adamw"}, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
        ({"optimizer": "nadam"}, lambda p: torch.optim.NAdam(p, 0.01, weight_decay=0.1)),
        ({"optimizer": "adamax"}, lambda p: torch.optim.Adamax(p, 0.01, weight_decay=0.1)),
        ({"optimizer": "adagrad"}, lambda p: torch.optim.Adagrad(p, 0.01, weight_decay=0.1)),
        ({"optimizer": "adadelta"}, lambda p: torch.optim.Adadelta(p, 0.01, weight_decay=0.1)),
        ({"optimizer": "rmsprop"}, lambda p: torch.optim.RMSprop(p, 0.01, weight_decay=0.1)),
        (
            {"optimizer": "rmsprop", "momentum": 0.5},
            lambda p: torch.optim.RMSprop(p, 0.01, weight_decay=0.1, momentum=0.5),
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_the_steps_are_those_of_plain_pytorch(
    options: dict[str, Any], reference: Callable[[Any], torch.optim.Optimizer]
) -> None:
    part = _part(epochs=1, batch=8, lr=0.01, weight_decay=0.1, seed=4, **options)
    train, val = _split(20), _split(9, seed=1)
    found = _fit(part, train, val, Silent())
    plain = build(part.spec)[0].module.train()
    _descend(plain, reference(plain.parameters()), train, [[8, 16], [16, 20]])
    _equal(found, plain, val)


def _descend(plain: nn.Module, steps: torch.optim.Optimizer, train: Labelled, ends: list[list[int]]) -> None:
    """The three batches of 8, 8 and 4 of seed 4, in plain PyTorch."""
    order = np.random.default_rng(4).permutation(20)
    for rows in (order[:8], *(order[first:last] for first, last in ends)):
        steps.zero_grad()
        _loss(plain, train, rows).backward()  # type: ignore[no-untyped-call]
        steps.step()


def _loss(plain: nn.Module, train: Labelled, rows: np.ndarray) -> torch.Tensor:
    return nn.functional.cross_entropy(plain(_normal(train, rows)), torch.from_numpy(train.labels[rows]).long())


def _equal(found: LoopResult, plain: nn.Module, val: Labelled) -> None:
    with torch.no_grad():
        expected = plain.eval()(_normal(val, np.arange(len(val.labels)))).numpy()
    assert np.allclose(found.logits, expected, atol=1e-3)
    for name, tensor in plain.state_dict().items():
        assert np.allclose(found.state[name], tensor.numpy(), atol=1e-4), name  # a step is a hundred times that


def test_accumulated_batches_make_one_step_and_the_gradient_is_clipped() -> None:
    plain_norm: dict[str, Any] = {"widths": (8, 8), "conv_norm": False}  # statistics of a batch would differ
    part = _part(
        epochs=1, batch=4, accumulate=2, clip=0.01, lr=0.1, optimizer="sgd", momentum=0.0, seed=4, **plain_norm
    )
    train, val = _split(20), _split(9, seed=1)
    found = _fit(part, train, val, Silent())
    plain = build(part.spec)[0].module.train()
    steps = torch.optim.SGD(plain.parameters(), 0.1)
    order = np.random.default_rng(4).permutation(20)
    for rows in (order[:8], order[8:16], order[16:]):
        steps.zero_grad()
        _loss(plain, train, rows).backward()  # type: ignore[no-untyped-call]
        norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None]))
        assert norm > 0.01
        for parameter in plain.parameters():
            assert parameter.grad is not None
            parameter.grad *= 0.01 / norm
        steps.step()
    _equal(found, plain, val)


def test_the_history_tells_the_norms_of_weights_and_gradients_by_stage() -> None:
    part = _part(epochs=1, batch=8, lr=0.1, optimizer="sgd", momentum=0.0, seed=4, freeze=["conv1.*"])
    train, val = _split(20), _split(9, seed=1)
    (row,) = _fit(part, train, val, Silent()).history
    made = build(part.spec)[0]
    plain = made.module
    frozen = find_frozen(made.staged, part.spec.recipe.freeze)
    set_modes(plain, frozen)
    trained = {name: p for name, p in plain.named_parameters() if p.requires_grad}
    steps = torch.optim.SGD(trained.values(), 0.1)
    order, norms = np.random.default_rng(4).permutation(20), []
    for rows in (order[:8], order[8:16], order[16:]):
        steps.zero_grad()
        _loss(plain, train, rows).backward()  # type: ignore[no-untyped-call]
        norms.append(_norm(p.grad for name, p in trained.items() if name.startswith("conv2.") and p.grad is not None))
        steps.step()
    assert row["gradient/conv2"] == pytest.approx(np.mean(norms), rel=1e-4)
    assert row["weight/conv2"] == pytest.approx(
        _norm(p.detach() for name, p in plain.named_parameters() if name.startswith("conv2.")), rel=1e-4
    )
    assert row["gradient/conv1"] == 0 < row["weight/conv1"]
    assert row["gradient/head"] > 0 < row["weight/head"]


def _norm(tensors: Iterable[torch.Tensor]) -> float:
    return float(np.sqrt(sum(float((tensor.double() ** 2).sum()) for tensor in tensors)))


def test_the_average_of_weights_is_torchs_and_is_what_is_kept() -> None:
    options: dict[str, Any] = {"epochs": 1, "batch": 8, "lr": 0.05, "seed": 4, "optimizer": "sgd"}
    part = _part(**options, conv_norm=False, momentum=0.0, ema=0.7)
    train, val = _split(20), _split(9, seed=1)
    found = _fit(part, train, val, Silent())
    plain = build(part.spec)[0].module.train()
    steps = torch.optim.SGD(plain.parameters(), 0.05)
    swa: Any = torch.optim.swa_utils
    average = swa.AveragedModel(plain, multi_avg_fn=swa.get_ema_multi_avg_fn(0.7))
    start = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    average.module.load_state_dict(start)
    average.n_averaged += 1  # the average starts at the initial weights
    order = np.random.default_rng(4).permutation(20)
    for rows in (order[:8], order[8:16], order[16:]):
        steps.zero_grad()
        _loss(plain, train, rows).backward()  # type: ignore[no-untyped-call]
        steps.step()
        average.update_parameters(plain)
    _equal(found, average.module, val)


def test_frozen_batch_norm_in_training_mode_is_what_requires_grad_false_leaves_in_pytorch() -> None:
    part = _part(epochs=1, batch=8, lr=0.01, seed=4, optimizer="adam", freeze="upto:conv2", frozen_norm="train")
    assert part.spec.plan.prefix is None, "with batch norm in it, nothing can be computed once"
    train, val = _split(20), _split(9, seed=1)
    found = _fit(part, train, val, Silent())
    plain = build(part.spec)[0].module
    start = {name: value.clone() for name, value in plain.state_dict().items()}
    for name, parameter in plain.named_parameters():
        parameter.requires_grad = not name.startswith("conv")
    trained = [parameter for parameter in plain.parameters() if parameter.requires_grad]
    _descend(plain.train(), torch.optim.Adam(trained, 0.01), train, [[8, 16], [16, 20]])
    _equal(found, plain, val)
    for name, value in plain.state_dict().items():
        assert np.allclose(found.state[name], value.numpy(), atol=1e-5), name
    assert np.array_equal(found.state["conv1.1.weight"], start["conv1.1.weight"].numpy())
    assert not np.allclose(found.state["conv1.1.running_mean"], start["conv1.1.running_mean"].numpy(), atol=1e-3)


@pytest.mark.parametrize("select", ["accuracy", "balanced_accuracy", "macro_f1", "auroc"])
def test_the_chosen_metric_decides_which_epoch_is_kept(select: str) -> None:
    from sklearn import metrics

    labels = _split(30, seed=3).labels
    references: dict[str, Callable[[np.ndarray], float]] = {
        "accuracy": lambda logits: metrics.accuracy_score(labels, logits.argmax(1)),
        "balanced_accuracy": lambda logits: metrics.balanced_accuracy_score(labels, logits.argmax(1)),
        "macro_f1": lambda logits: metrics.f1_score(labels, logits.argmax(1), average="macro"),
        "auroc": lambda logits: metrics.roc_auc_score(labels, logits[:, 1] - logits[:, 0]),
    }
    found = _fit(_part(epochs=4, batch=4, lr=0.02, select=select), _split(16), _split(30, seed=3), Silent())
    values = [row[f"val_{select}"] for row in found.history]
    assert found.selected == Selected(epoch=values.index(max(values)) + 1)
    assert references[select](found.logits) == pytest.approx(max(values), abs=1e-6)


def test_the_last_epoch_is_kept_where_the_recipe_says_so() -> None:
    noise = _split(16)
    wrong = Labelled(noise.inputs, (1 - noise.labels).astype(np.int32))  # the loss of validation rises
    options: dict[str, Any] = {"epochs": 4, "batch": 8, "lr": 0.01, "seed": 4}
    last, best = (_fit(_part(select=select, **options), noise, wrong, Silent()) for select in ("last", "loss"))
    assert (last.selected, best.selected) == (Selected(epoch=4), Selected(epoch=1))
    assert last.history == best.history, "what is kept changes nothing of the training"
    assert not np.array_equal(last.logits, best.logits)
    losses = nn.functional.cross_entropy(torch.from_numpy(last.logits), torch.from_numpy(wrong.labels).long())
    assert float(losses) == pytest.approx(last.history[-1]["val_loss"], rel=1e-5)
    assert set(last.history[0]) >= {"val_loss", "val_accuracy"}
    assert "val_last" not in last.history[0]


def test_training_stops_when_nothing_better_comes() -> None:
    noise = _split(16)
    wrong = Labelled(noise.inputs, (1 - noise.labels).astype(np.int32))
    found = _fit(_part(epochs=30, batch=8, lr=0.01, patience=2), noise, wrong, Silent())
    assert len(found.history) == (found.selected.epoch or 0) + 2 < 30


def test_half_precision_is_said_and_close() -> None:
    options: dict[str, Any] = {"epochs": 4, "batch": 8, "lr": 0.01}
    whole, half = (
        _fit(_part(precision=p, **options), _split(64), _split(40, seed=1), Silent()) for p in ("auto", "bfloat16")
    )
    assert (whole.choices.precision, half.choices.precision) == ("float32", "bfloat16 (autocast)")
    assert half.history != whole.history
    assert half.history[-1]["val_accuracy"] > 0.9


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_freed_memory_is_kept_between_steps_where_the_c_library_can() -> None:
    found = _fit(_part(epochs=1, batch=8), _split(16), _split(8, seed=1), Silent())
    able = hasattr(ctypes.CDLL(None), "mallopt")
    assert disable_malloc_trim() is able
    assert (found.choices.freed_memory == "kept between steps") is able


def test_the_rate_of_every_epoch_is_in_the_history() -> None:
    options: dict[str, Any] = {"schedule": "step", "schedule_every": 1, "schedule_factor": 0.5}
    found = _fit(_part(epochs=3, batch=8, lr=0.01, **options), _split(16), _split(8, seed=1), Silent())
    assert [row["lr"] for row in found.history] == pytest.approx([0.01, 0.005, 0.0025])


def _normal(split: Labelled, rows: np.ndarray) -> torch.Tensor:
    """Pixels of 0 to 1, less the mean of ImageNet and over its deviation."""
    images = torch.from_numpy(split.inputs.take(rows)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def test_a_frozen_prefix_cached_or_not_gives_the_same_losses() -> None:
    options: dict[str, Any] = {"freeze": "upto:conv1", "epochs": 3, "batch": 8, "seed": 2}
    whole = _part(**options)
    train, val = _split(24), _split(10, seed=1)
    uncached = _fit(whole, train, val, Silent())
    made, _, _ = build(whole.spec)
    prefix = WithPreprocessing(slice_stages(made.staged, None, "conv1"), whole.spec.plan).eval()
    cached = _fit(_part("conv1", **options), _after(prefix, train), _after(prefix, val), Silent())
    losses = [row["train_loss"] for row in uncached.history]
    assert [row["train_loss"] for row in cached.history] == pytest.approx(losses, rel=1e-5)
    assert np.allclose(cached.logits, uncached.logits, atol=1e-5)
    start = made.module.state_dict()
    for result in (cached, uncached):
        assert all(np.array_equal(result.state[n], start[n].numpy()) for n in start if n.startswith("conv1."))
        assert not np.array_equal(result.state["conv2.1.running_mean"], start["conv2.1.running_mean"].numpy())


def _after(prefix: nn.Module, split: Labelled) -> Labelled:
    """The prefix's outputs in the place of pixels."""
    with torch.inference_mode():
        values = prefix(torch.from_numpy(split.inputs.take(np.arange(len(split.labels))))).numpy()
    return Labelled(ArraySource(values), split.labels)


def test_the_epoch_with_the_lowest_validation_loss_is_kept() -> None:
    found = _fit(_part(epochs=6, batch=4, lr=0.05, seed=1), _split(16), _split(12, seed=3), Silent())
    losses = [row["val_loss"] for row in found.history]
    assert found.selected == Selected(epoch=losses.index(min(losses)) + 1)
    chance = torch.from_numpy(found.logits)
    labels = torch.from_numpy(_split(12, seed=3).labels).long()
    assert float(nn.functional.cross_entropy(chance, labels)) == pytest.approx(min(losses), rel=1e-3, abs=1e-6)


def test_a_small_network_learns_and_a_seed_decides_everything() -> None:
    part = _part(epochs=8, batch=8, dropout=0.2, lr=0.01)
    first, again = (_fit(part, _split(64), _split(40, seed=1), Silent()) for _ in range(2))
    assert first.history[-1]["val_accuracy"] > 0.9
    assert first.history == again.history
    other = _fit(_part(epochs=8, batch=8, dropout=0.2, lr=0.01, seed=5), _split(64), _split(40, seed=1), Silent())
    assert other.history != first.history


def test_a_loss_that_is_no_number_is_said() -> None:
    with pytest.raises(RecipeError, match=r"no longer a number in epoch \d+, step \d, at a learning rate of 1e\+30"):
        _fit(_part(optimizer="sgd", lr=1e30, epochs=3, batch=8), _split(24), _split(8, seed=1), Silent())


@pytest.mark.parametrize(("n", "sizes"), [(9, [4, 5]), (8, [4, 4]), (10, [4, 4, 2]), (1, [1]), (3, [3])])
def test_no_batch_of_one_is_left_over(n: int, sizes: list[int]) -> None:
    found = list(batches(np.arange(n), 4))
    assert [len(rows) for rows in found] == sizes
    assert np.concatenate(found).tolist() == list(range(n))


def test_grey_pixels_are_what_pillow_makes_of_them() -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    grey = WithPreprocessing(nn.Identity(), plan_with(channels=1))(torch.from_numpy(pixels))[0, 0].numpy() * 255
    assert np.abs(grey - np.asarray(Image.fromarray(pixels[0]).convert("L"))).max() < 1
