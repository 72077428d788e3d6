"""Networks of the five studies take the steps that hand-written PyTorch takes: the same losses, step by step.

Each starts from the same weights and sees the same images in the same order; widths are reduced, so that it is fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.inference.input_sources import ArraySource, Labelled
from budwood.inference.pytorch_backend import NetworkSlice
from budwood.networks.registry import IMAGENET_MEAN, IMAGENET_STD
from budwood.networks.spec import NetworkSpec
from budwood.networks.surgery import build
from budwood.progress import Silent
from budwood.runs.run import Run
from budwood.training import loop
from budwood.training.losses import LossOfBatch, make_loss
from conftest import fill
from subjects import untrained

STEPS = 20
CLASSES = 3
Losses = list[float]


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> Losses:
    """The loss of every step that is taken in the loop, in order."""
    found: Losses = []

    def recording(*arguments: Any) -> LossOfBatch:
        made = make_loss(*arguments)

        def measure(logits: Tensor, shares: Tensor) -> Tensor:
            loss = made(logits, shares)
            found.append(float(loss.detach()))
            return loss

        return measure

    monkeypatch.setattr(loop, "make_loss", recording)
    return found


def _split(n: int, size: int) -> Labelled:
    """Noise, a class the brighter the larger its number."""
    random = np.random.default_rng(size)
    labels = random.integers(0, CLASSES, n).astype(np.int32)
    pixels = random.integers(0, 120, (n, size, size, 3)) + 60 * labels[:, None, None, None]
    return Labelled(ArraySource(pixels.astype(np.uint8)), labels)


def _fit(spec: NetworkSpec, train: Labelled) -> None:
    loop.fit(NetworkSlice(spec, None), resolve(spec.recipe, False, spec.plan.size), train, train, Silent())


def _iterate_batches(n: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """The rows of each step, epoch by epoch."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(n)
        yield from (order[start : start + size] for start in range(0, n, size))


def _normalize(pixels: np.ndarray) -> Tensor:
    """(x / 255 - mean) / std as one multiplication and one addition.

    Training of a deep network with batch norm on few images is chaos: other last bits, be it of this or of the memory
    format, make plain PyTorch differ from itself by more than 0.1 after 20 steps.
    """
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() * (1 / (255 * std)) + -mean / std


def _descend(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Labelled,
    batch: int,
    steps: int,
    end_epoch: Callable[[], object] = lambda: None,
    seed: int = 0,
) -> Losses:
    """The plain loop, as a student writes it; what is drawn in it is drawn from the same seed."""
    found = []
    torch.manual_seed(seed)
    an_epoch = len(train.labels) // batch
    for step, rows in zip(range(steps), _iterate_batches(len(train.labels), batch, seed), strict=False):
        optimizer.zero_grad()
        logits = network(_normalize(np.asarray(train.inputs.take(rows))))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(train.labels[rows]).long())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        found.append(float(loss.detach()))
        if (step + 1) % an_epoch == 0:
            end_epoch()
    return found


def _start_alike(theirs: nn.Module, spec: NetworkSpec) -> nn.Module:
    """A hand-written network with the weights that ours begins with, which stand in the same order."""
    ours = build(spec)[0].module.state_dict()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.values(), strict=True)))
    return theirs.to(memory_format=torch.channels_last).train()


def _convolve(*layers: tuple[int, int, int, int, int, bool]) -> list[nn.Module]:
    """Convolutions with ReLU: channels before and after, kernel, stride, padding, and whether batch norm follows."""
    parts: list[nn.Module] = []
    for before, after, kernel, stride, padding, norm in layers:
        parts.append(nn.Conv2d(before, after, kernel, stride, padding, bias=not norm))
        parts += [nn.BatchNorm2d(after), nn.ReLU()] if norm else [nn.ReLU()]
    return parts


def _tutorial() -> nn.Module:
    """Study 2: the network of PyTorch's CIFAR-10 tutorial."""
    first, second = _convolve((3, 6, 5, 1, 0, False)), _convolve((6, 16, 5, 1, 0, False))
    full = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, CLASSES)]
    return nn.Sequential(*first, nn.MaxPool2d(2), *second, nn.MaxPool2d(2), nn.Flatten(), *full)


def _model_a() -> nn.Module:
    """Study 2, model A, narrower: two convolutions with one batch norm between them, twice."""
    first = _convolve((3, 8, 3, 1, 1, True), (8, 8, 3, 1, 1, False))
    second = _convolve((8, 16, 3, 1, 1, True), (16, 16, 3, 1, 1, False))
    full = [nn.Linear(16 * 4 * 4, 32), nn.ReLU(), nn.Linear(32, CLASSES)]
    return nn.Sequential(*first, nn.MaxPool2d(2), *second, nn.MaxPool2d(2), nn.Flatten(), *full)


def _study_3() -> nn.Module:
    """Study 3, 128/128/128/256 narrower, with batch norm after every convolution and dropout on the last layer."""
    layers = [(3, 8, 5, 2, 0, True), (8, 8, 3, 1, 0, True), (8, 8, 3, 1, 0, True), (8, 16, 3, 1, 0, True)]
    full = [nn.Linear(16 * 4 * 4, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, CLASSES)]
    return nn.Sequential(*_convolve(*layers), nn.MaxPool2d(2), nn.Flatten(), *full)


Theirs = Callable[[Any], torch.optim.Optimizer]
SMALL: dict[str, tuple[dict[str, Any], Callable[[], nn.Module], Theirs]] = {
    "the tutorial's network": (
        {
            **{"model": "cnn", "widths": [6, 16], "kernels": 5, "strides": 1, "pools": 2, "fc": [120, 84], "size": 32},
            **{"optimizer": "sgd", "lr": 0.01, "momentum": 0.92},
        },
        _tutorial,
        lambda parameters: torch.optim.SGD(parameters, 0.01, momentum=0.92),
    ),
    "model A": (
        {
            **{"model": "vgg-small", "blocks": [[8, 8], [16, 16]], "conv_norm": "between", "fc": [32], "size": 16},
            **{"optimizer": "adam", "lr": 0.001},
        },
        _model_a,
        lambda parameters: torch.optim.Adam(parameters, 0.001),
    ),
    "study 3 with batch norm and dropout": (
        {
            **{"model": "cnn", "widths": [8, 8, 8, 16], "conv_norm": True, "fc": [64], "dropout": 0.5, "size": 32},
            **{"optimizer": "nadam", "lr": 0.001, "weight_decay": 0.01, "decay": "decoupled"},
        },
        _study_3,
        lambda parameters: torch.optim.NAdam(parameters, 0.001, weight_decay=0.01, decoupled_weight_decay=True),
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_loses_what_plain_pytorch_loses(name: str, losses: Losses) -> None:
    options, make, optimizer = SMALL[name]
    spec = untrained(Recipe(**options, batch=8, epochs=7, select="last"), CLASSES)
    train = _split(24, spec.plan.size)
    theirs = _start_alike(make(), spec)
    _fit(spec, train)
    expected = _descend(theirs, optimizer(theirs.parameters()), train, 8, STEPS)
    assert losses[:STEPS] == pytest.approx(expected, abs=1e-4)
    assert losses[0] != pytest.approx(losses[STEPS - 1], abs=1e-2), "it has learned something"


@pytest.mark.slow
def test_resnet18_with_frozen_children_as_study_4_trained_it(losses: Losses) -> None:
    """Children 1 to 5 have requires_grad = False, and their batch norm stays in training mode; cosine, T_max 200."""
    from torchvision.models import resnet18

    options: dict[str, Any] = {"model": "resnet18", "weights": "none", "size": 32, "optimizer": "adam", "lr": 0.001}
    options |= {"freeze": "upto:layer1", "frozen_norm": "train"}
    cosine: dict[str, Any] = {"schedule": "cosine", "schedule_by": "epoch", "schedule_t_max": 200}
    spec = untrained(Recipe(**options, **cosine, batch=4, epochs=7, select="last"), CLASSES)
    train = _split(12, 32)
    theirs = _start_alike(resnet18(num_classes=CLASSES), spec)
    for child in list(theirs.children())[:5]:
        for parameter in child.parameters():
            parameter.requires_grad = False
    optimizer = torch.optim.Adam([each for each in theirs.parameters() if each.requires_grad], 0.001)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=200)
    _fit(spec, train)
    expected = _descend(theirs, optimizer, train, 4, STEPS, schedule.step)
    assert losses[:STEPS] == pytest.approx(expected, abs=1e-4)


class _CutDenseNet(nn.Module):
    """DenseNet-121 up to its first transition, pooled, with a new head, as study 5 cuts it."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import densenet121

        features = densenet121(weights=None).features
        names = [name for name, _ in features.named_children()]
        self.trunk = features[: names.index("transition1") + 1]
        self.head = nn.Linear(128, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.trunk(images).mean(dim=(2, 3))))


def test_a_cut_densenet_in_two_phases_as_study_5_trained_it(losses: Losses, tmp_path: Path) -> None:
    """A new head on the frozen trunk, whose features are cached, then everything; of files, through the whole of it."""
    for hue, name in enumerate(("coast", "forest", "street")):
        for split, count in (("train", 8), ("val", 2)):
            fill(tmp_path / "photos" / split / name, count, first=100 * count, hue=hue)
    phases = [{"freeze": "trunk", "epochs": 4, "lr": 0.01}, {"freeze": "none", "epochs": 4, "lr": 0.0003}]
    cut: dict[str, Any] = {"model": "densenet121", "weights": "none", "cut": "features.transition1", "pool": "avg"}
    recipe = Recipe(
        **cut, size=32, optimizer="sgd", momentum=0.8, weight_decay=0.001, batch=8, phases=phases, select="last"
    )
    run = bw.train(bw.scan(tmp_path / "photos"), recipe, out=tmp_path / "runs")
    theirs, train = _CutDenseNet(), _load_training_images(run)
    assert len(train.labels) == 24
    _start_alike(theirs, untrained(run.recipe, CLASSES))
    theirs.trunk.eval()
    sgd: dict[str, Any] = {"momentum": 0.8, "weight_decay": 0.001}
    expected = _descend(theirs, torch.optim.SGD(theirs.head.parameters(), 0.01, **sgd), train, 8, 12)
    theirs.train()
    expected += _descend(theirs, torch.optim.SGD(theirs.parameters(), 0.0003, **sgd), train, 8, 12)
    assert len(losses) == len(expected) >= STEPS
    assert losses == pytest.approx(expected, abs=1e-4)


def _load_training_images(run: Run) -> Labelled:
    """The images that a run was trained on, in its order, resized by hand."""
    from PIL import Image

    samples = run.dataset().samples("train").in_content_order()
    files: Sequence[Path] = [samples.root / path for path in samples.paths]
    pixels = [
        np.asarray(Image.open(file).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC, reducing_gap=3.0))
        for file in files
    ]
    return Labelled(ArraySource(np.stack(pixels)), samples.labels)
