"""Losses of the user's own: functions, classes and modules of PyTorch, of shares or of class numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from budwood.config.losses import CustomLoss
from budwood.config.registry import make_entry
from budwood.errors import RecipeError
from budwood.training.losses import Classes, LossOfBatch, smooth_targets
from budwood.training.own_calls import telling_failures


def make_own_loss(loss: CustomLoss, of: Classes) -> LossOfBatch:
    """Make a user's own loss, with label smoothing, weights of classes and logit adjustment where they are asked for.

    It is tried on a few images first: with targets as shares [n, classes], and where it fails with them, with class
    numbers int64 [n], as many losses want them. It gives one value for each image, or their mean.

    Args:
        loss: Its options.
        of: What is known of the classes.

    Returns:
        A function from logits [n, classes] and targets [n, classes] to a scalar.

    Raises:
        RecipeError: It cannot be imported, fails, has parameters of its own, or an option asks for shares or for one
            value an image and it takes or gives others; the function returned raises it, too.
    """
    each = _prepare(make_entry(loss.name, "loss"), loss.name, of)
    takes_numbers, gives_mean = _try_out(each, loss.name, of)
    if takes_numbers and loss.label_smoothing:
        raise _make_shares_error(loss.name, "label_smoothing", "spreads the target over classes")
    if gives_mean and loss.class_weights:
        raise RecipeError(
            f"class_weights: {loss.name} gives the mean over images, which cannot be weighed by their classes.",
            "Let it give one value for each image (reduction='none'), or leave out class_weights.",
        )

    def compute(logits: Tensor, shares: Tensor) -> Tensor:
        adjusted = logits + loss.logit_adjustment * of.prior
        targets = _read_numbers(loss.name, shares) if takes_numbers else smooth_targets(loss, shares)
        with telling_failures(loss.name, "loss"):
            losses = each(adjusted, targets)
        _refuse_other_shape(loss.name, losses, len(logits), gives_mean)
        if gives_mean:
            return losses
        weights = (shares * of.weight).sum(dim=1) if loss.class_weights else torch.ones_like(losses)
        return (losses * weights).sum() / weights.sum()

    return compute


def _prepare(each: Any, name: str, of: Classes) -> Callable[..., Tensor]:
    """A loss on the device of training; raises `RecipeError` where it has parameters, which nothing would train."""
    if not isinstance(each, nn.Module):
        return each  # type: ignore[no-any-return]
    learned = [one for one, parameter in each.named_parameters() if parameter.requires_grad]
    if learned:
        raise RecipeError(
            f"loss: {name} has parameters of its own ({', '.join(learned)}), which are not trained here.",
            "Make them buffers, or parameters with requires_grad=False.",
        )
    return copy.deepcopy(each).to(of.weight.device)


def _try_out(each: Callable[..., Tensor], name: str, of: Classes) -> tuple[bool, bool]:
    """Whether a loss takes class numbers, and whether it gives the mean over images."""
    classes, device = len(of.weight), of.weight.device
    images = classes + 1  # another number than that of classes, or the two could be taken for each other unseen
    logits = torch.zeros(images, classes, device=device, requires_grad=True)
    shares = torch.eye(classes, device=device)[torch.arange(images) % classes]
    numbers = shares.argmax(dim=1)

    def call(targets: Tensor) -> Tensor:
        tried = copy.deepcopy(each) if isinstance(each, nn.Module) else each
        with torch.random.fork_rng(devices=[]):
            return tried(logits, targets)

    def fits(targets: Tensor) -> bool:
        try:
            losses = call(targets)
        except Exception:  # a user's code can fail in any way
            return False
        return isinstance(losses, Tensor) and losses.shape in ((), (images,))

    takes_numbers = of.positive is None and not fits(shares) and fits(numbers)
    with telling_failures(name, "loss"):
        losses = call(numbers if takes_numbers else shares)
    gives_mean = isinstance(losses, Tensor) and losses.ndim == 0
    _refuse_other_shape(name, losses, images, gives_mean)
    return takes_numbers, gives_mean


def _refuse_other_shape(name: str, losses: object, images: int, gives_mean: bool) -> None:
    """Raises `RecipeError` for what is neither one value an image nor their mean."""
    shape = () if gives_mean else (images,)
    if not isinstance(losses, Tensor) or losses.shape != shape:
        found = f"a tensor of the shape {list(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise RecipeError(
            f"loss: {name} gave {found}, expected one loss for each of {images} images, or their mean.",
            "Take the mean over classes, not over images: Budwood takes that.",
        )


def _read_numbers(name: str, shares: Tensor) -> Tensor:
    """The class numbers int64 [n] of targets; raises `RecipeError` where images are blended."""
    most, numbers = shares.max(dim=1)
    if float(most.min()) < 1:
        raise _make_shares_error(name, "mixup, cutmix", "blend two images, and their classes,")
    return numbers


def _make_shares_error(name: str, options: str, what: str) -> RecipeError:
    return RecipeError(
        f"{options}: {what} but {name} takes class numbers, not shares of classes.",
        "Let the loss take targets of the shape [n, classes], or leave the option out.",
    )
