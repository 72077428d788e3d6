"""What is minimised: cross-entropy and what is done to it for unsure labels, blended images and rare classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from budwood.config.losses import BinaryCrossEntropy, CrossEntropy, Focal, Loss, OneLabel
from budwood.config.registry import load_function
from budwood.config.resolved_recipe import Mixing, Sampling
from budwood.data.dataset import Sets, make_membership_matrix

LossOfBatch = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Classes:
    """What a loss knows of the classes.

    Attributes:
        weight: Weight of each class, float32 [classes].
        prior: Logarithm of each class's share of the training images, float32 [classes].
        positive: Where images have several labels, the weight of the images that have each label, beside 1 for those
            that have not, float32 [classes]; None where images have one.
    """

    weight: Tensor
    prior: Tensor
    positive: Tensor | None = None


def make_loss(loss: Loss, labels: NDArray[np.int32], classes: int, device: str, label_sets: Sets = ()) -> LossOfBatch:
    """Make the training loss of a recipe.

    A target is one-hot, or a blend of two by mixup, or has several ones. Class weights are n / (classes * n of the
    class), as in scikit-learn; logit adjustment follows Menon et al. 2021, label smoothing Szegedy et al. 2016, and
    focal loss Lin et al. 2017. The weighted sum is divided by the weights of the true classes, as in
    torch.nn.CrossEntropyLoss. Where images have several labels, the mean is over images and classes, each a yes or
    no of its own; class weights are then the number of images without a label divided by that of those with it, the
    `pos_weight` of torch.nn.BCEWithLogitsLoss. Of a user's own loss, which
    gives one value for each image, the weighted mean is taken.

    Args:
        loss: The options of the loss.
        labels: Labels of the training split, int32 [n]; they give the class weights and priors.
        classes: Number of classes.
        device: The device of training.
        label_sets: Sets of classes that the labels stand for; empty where images have one label.

    Returns:
        A function from logits [n, classes] and targets [n, classes] to a scalar in nats.

    Raises:
        RecipeError: A user's own loss cannot be imported or fails; the function returned raises it, too.
    """
    make = cast("Callable[[Loss, Classes], LossOfBatch]", load_function(loss.function))
    if label_sets:
        return make(loss, _know_labels(loss, make_membership_matrix(label_sets, classes)[labels], device))
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    weight = torch.tensor(len(labels) / (classes * counts), dtype=torch.float32, device=device)
    prior = torch.tensor(np.log(counts / counts.sum()), dtype=torch.float32, device=device)
    if isinstance(loss, OneLabel) and not loss.class_weights:
        weight = torch.ones_like(weight)
    return make(loss, Classes(weight, prior))


def _know_labels(loss: Loss, targets: NDArray[np.bool_], device: str) -> Classes:
    """What a loss knows of the labels, of which images, bool [n, classes], may have several."""
    having = targets.sum(axis=0)
    ratio = np.maximum(len(targets) - having, 1) / np.maximum(having, 1)
    neutral = torch.ones(targets.shape[1], device=device)
    weighs = getattr(loss, "class_weights", False)
    positive = torch.tensor(ratio, dtype=torch.float32, device=device) if weighs else neutral
    return Classes(neutral, torch.zeros_like(neutral), positive)


def make_cross_entropy(loss: CrossEntropy, of: Classes) -> LossOfBatch:
    """Make the cross-entropy.

    Args:
        loss: Its options.
        of: What is known of the classes.

    Returns:
        A function from logits [n, classes] and targets [n, classes] to a scalar in nats.
    """
    return _weigh_log_chances(loss, of)


def make_focal_loss(loss: Focal, of: Classes) -> LossOfBatch:
    """Make the focal loss.

    Args:
        loss: Its options.
        of: What is known of the classes.

    Returns:
        A function from logits [n, classes] and targets [n, classes] to a scalar in nats.
    """
    if of.positive is None:
        return _weigh_log_chances(loss, of, loss.gamma)
    positive = of.positive

    def compute(logits: Tensor, shares: Tensor) -> Tensor:
        terms = F.binary_cross_entropy_with_logits(logits, shares, reduction="none", pos_weight=positive)
        chance = logits.sigmoid()
        missed = chance * (1 - shares) + (1 - chance) * shares  # one minus the probability of what is true
        return (terms * missed**loss.gamma).mean()

    return compute


def make_binary_cross_entropy(loss: BinaryCrossEntropy, of: Classes) -> LossOfBatch:
    """Make the binary cross-entropy.

    Args:
        loss: Its options.
        of: What is known of the classes.

    Returns:
        A function from logits [n, classes] and targets [n, classes] to a scalar in nats.
    """
    if not loss.class_weights:
        return F.binary_cross_entropy_with_logits
    return partial(F.binary_cross_entropy_with_logits, pos_weight=of.positive)


def _weigh_log_chances(loss: OneLabel, of: Classes, gamma: float | None = None) -> LossOfBatch:
    """The mean of log-chances, negative, weighed by targets and classes; with `gamma`, confident ones count less."""

    def compute(logits: Tensor, shares: Tensor) -> Tensor:
        log_chance = F.log_softmax(logits + loss.logit_adjustment * of.prior, dim=1)
        terms = smooth_targets(loss, shares) * log_chance * of.weight
        if gamma is not None:
            terms = terms * (1 - log_chance.exp()) ** gamma
        return -terms.sum() / (shares * of.weight).sum()

    return compute


def smooth_targets(loss: OneLabel, shares: Tensor) -> Tensor:
    """Spread a share of each target over all classes.

    Args:
        loss: The options of the loss.
        shares: Targets [n, classes].

    Returns:
        The targets [n, classes].
    """
    return shares * (1 - loss.label_smoothing) + loss.label_smoothing / shares.shape[1]


def draw_epoch_order(sampling: Sampling, labels: NDArray[np.int32], random: np.random.Generator) -> NDArray[np.int64]:
    """Draw the order of the training images for one epoch.

    Args:
        sampling: Whether classes are balanced.
        labels: Labels of the training split, int32 [n].
        random: The generator to draw from.

    Returns:
        Row numbers int64 [n]: each once; with balanced sampling drawn with replacement, each class equally often on
        average.
    """
    if not sampling.balanced:
        return random.permutation(len(labels))
    share = 1 / np.bincount(labels)[labels]
    return random.choice(len(labels), len(labels), p=share / share.sum())


def blend(mixing: Mixing, inputs: Tensor, shares: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Blend the images and targets of a batch in pairs: mixup, CutMix, or one of both by chance.

    The share is drawn from Beta(alpha, alpha), once for the batch (Zhang et al. 2018, Yun et al. 2019).

    Args:
        mixing: The alphas; 0 for none.
        inputs: float32 pixels [n, height, width, channels], or outputs of a prefix [n, ...], for mixup only.
        shares: Targets float32 [n, classes].
        random: The generator to draw from.

    Returns:
        The blended inputs and targets, of the same shapes.
    """
    mixup, cutmix = mixing.mixup, mixing.cutmix
    if not mixup and not cutmix:
        return inputs, shares
    cuts = bool(cutmix) and (not mixup or random.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = float(random.beta(alpha, alpha))
    others = torch.from_numpy(random.permutation(len(inputs))).to(inputs.device)
    if cuts:
        top, bottom, left, right = _sample_box(inputs.shape[1], inputs.shape[2], share, random)
        mixed = inputs.clone()
        mixed[:, top:bottom, left:right] = inputs[others, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (inputs.shape[1] * inputs.shape[2])
    else:
        mixed = share * inputs + (1 - share) * inputs[others]
    return mixed, share * shares + (1 - share) * shares[others]


def _sample_box(height: int, width: int, share: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    """A box of 1 - share of the picture about a random place, cut off at the picture's edge."""
    side = (1 - share) ** 0.5
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    y, x = int(random.integers(height)), int(random.integers(width))
    return max(y - half_height, 0), min(y + half_height, height), max(x - half_width, 0), min(x + half_width, width)
