"""What is minimised: cross-entropy and what is done to it for unsure labels, blended images and rare classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from budwood.config.recipe import Recipe

Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(recipe: Recipe, labels: NDArray[np.int32], classes: int, device: str) -> Loss:
    """The training loss: logits [n, classes] and target shares [n, classes] to a scalar in nats.

    A target is one-hot, or a blend of two by mixup, or has several ones. `labels` are those of the training split: they
    give the weights of classes (n / (classes * n of the class), as scikit-learn has it) and the priors of logit
    adjustment (Menon et al. 2021). Label smoothing as in Szegedy et al. 2016; focal loss as in Lin et al. 2017. The
    weighted sum is divided by the weights of the true classes, as torch.nn.CrossEntropyLoss does. Binary cross-entropy
    is the mean over images and classes, each a yes or no of its own.
    """
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    weight = torch.tensor(len(labels) / (classes * counts), dtype=torch.float32, device=device)
    prior = torch.tensor(np.log(counts / counts.sum()), dtype=torch.float32, device=device)
    if not recipe.class_weights:
        weight = torch.ones_like(weight)
    if recipe.loss == "binary_cross_entropy":
        return F.binary_cross_entropy_with_logits
    smoothing, adjustment = recipe.label_smoothing or 0.0, recipe.logit_adjustment or 0.0
    gamma = recipe.focal_gamma if recipe.loss == "focal" else None

    def loss(logits: Tensor, shares: Tensor) -> Tensor:
        log_chance = F.log_softmax(logits + adjustment * prior, dim=1)
        targets = shares * (1 - smoothing) + smoothing / classes
        terms = targets * log_chance * weight
        if gamma is not None:
            terms = terms * (1 - log_chance.exp()) ** gamma
        return -terms.sum() / (shares * weight).sum()

    return loss


def draw_epoch_order(recipe: Recipe, labels: NDArray[np.int32], random: np.random.Generator) -> NDArray[np.int64]:
    """The rows of one epoch in order: each once, or with balanced sampling as many, drawn so that classes are alike."""
    if not recipe.balanced_sampling:
        return random.permutation(len(labels))
    share = 1 / np.bincount(labels)[labels]
    return random.choice(len(labels), len(labels), p=share / share.sum())


def blend(recipe: Recipe, inputs: Tensor, shares: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch with its images and targets blended in pairs: mixup, CutMix, or one of both by chance.

    `inputs` are pixels [n, height, width, channels] or outputs of a prefix [n, ...], float32; only pixels can be cut.
    Zhang et al. 2018, Yun et al. 2019: the share is drawn from Beta(alpha, alpha), one for the batch.
    """
    mixup, cutmix = recipe.mixup or 0.0, recipe.cutmix or 0.0
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
