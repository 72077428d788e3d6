"""A loss of any kind: of shares or class numbers, of single values or their mean, a function, a class or a module."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.errors import RecipeError
from budwood.training.losses import LossOfBatch, make_loss

LABELS = np.array([0, 0, 0, 0, 1, 1], np.int32)
LOGITS = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
SHARES = torch.eye(2)[torch.from_numpy(LABELS).long()]


def made(loss: object, **options: Any) -> LossOfBatch:
    return make_loss(resolve(Recipe(freeze="none", loss=loss, **options), False, 16).loss, LABELS, 2, "cpu")


def of_numbers(logits: Tensor, targets: Tensor) -> Tensor:
    """A loss of class numbers, one value an image."""
    return -logits.log_softmax(1).gather(1, targets[:, None])[:, 0]


class Weighed(nn.Module):
    """A loss with an option and a buffer, that gives a mean."""

    weight: Tensor

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor([1.0, weight]))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, weight=self.weight)


class Learned(nn.Module):
    """A loss that would have to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets) * self.scale


def of_rounded_numbers(logits: Tensor, targets: Tensor) -> Tensor:
    """A loss of class numbers that takes shares for them where there are as many images as classes."""
    return -logits.log_softmax(1)[torch.arange(len(logits)), targets.long()].mean()


@pytest.mark.parametrize(
    "loss",
    [
        of_rounded_numbers,
        of_numbers,
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction="none"),
        Weighed,
        lambda a, b: of_numbers(a, b),
    ],
)
def test_every_kind_gives_the_cross_entropy(loss: object) -> None:
    assert float(made(loss)(LOGITS, SHARES)) == pytest.approx(float(F.cross_entropy(LOGITS, SHARES)))


def test_an_instance_has_its_options() -> None:
    expected = F.cross_entropy(LOGITS, SHARES, weight=torch.tensor([1.0, 5.0]))
    assert float(made(Weighed(5.0))(LOGITS, SHARES)) == pytest.approx(float(expected))


def test_single_values_are_weighed_by_class() -> None:
    each = F.cross_entropy(LOGITS, SHARES, reduction="none")
    weighed = made(of_numbers, class_weights=True)(LOGITS, SHARES)
    assert float(weighed) == pytest.approx(float((each[:4].mean() + each[4:].mean()) / 2))


def test_blended_images_need_shares() -> None:
    with pytest.raises(RecipeError, match=r"mixup, cutmix: blend two images, .*of_numbers takes class numbers"):
        made(of_numbers)(LOGITS, SHARES * 0.5 + 0.25)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (of_numbers, {"label_smoothing": 0.1}, "label_smoothing: spreads .* but .*of_numbers takes class numbers"),
        (Weighed, {"class_weights": True}, "class_weights: .*Weighed gives the mean over images"),
        (Learned, {}, r"loss: .*Learned has parameters of its own \(scale\), which are not trained here"),
        (lambda a, b: a, {}, r"gave a tensor of the shape \[3, 2\], expected one loss for each of 3 images, or their"),
        (lambda a, b: None, {}, "gave NoneType, expected one loss"),
        (lambda a, b: a / {}, {}, r"loss: .* failed \(TypeError: .*\) in .*test_own_losses.py, line \d+\."),
    ],
)
def test_what_does_not_fit_is_said_before_training(loss: object, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        made(loss, **options)


def test_trying_a_loss_moves_no_random_number_and_no_buffer() -> None:
    class Counting(Weighed):
        """A loss that counts its calls."""

        def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
            self.weight += torch.rand(())
            return super().forward(logits, targets)

    loss, before = Counting(), torch.get_rng_state().tolist()
    made(loss)
    assert loss.weight.tolist() == [1, 1]
    assert torch.get_rng_state().tolist() == before


def test_a_loss_of_several_labels_gets_all_of_them() -> None:
    recipe = Recipe(freeze="none", loss=nn.BCEWithLogitsLoss())
    sets = (frozenset({0, 1}), frozenset({1}))
    loss = make_loss(resolve(recipe, True, 16).loss, np.array([0, 1], np.int32), 2, "cpu", sets)  # type: ignore[arg-type]
    targets = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    expected = F.binary_cross_entropy_with_logits(LOGITS[:2], targets)
    assert float(loss(LOGITS[:2], targets)) == pytest.approx(float(expected))
