"""Training on small images first: progressive sizes (Tan and Le 2021, EfficientNetV2, section 4)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from budwood.config.resolved_recipe import Network
from budwood.errors import RecipeError

STRIDE: Final = 32  # pixels from one size to the next: what most networks divide a side by


def list_sides(network: Network) -> list[int]:
    """List the sides of the squares that are trained on, in order; each has an equal share of training.

    Args:
        network: The size, and the size at the start.

    Returns:
        Sides in pixels: from the start on, each 32 above the one before, and the size itself; that alone where
        there is no other start.
    """
    return [*range(network.size_start, network.size, STRIDE), network.size]


def find_side(network: Network, done: float) -> int:
    """Find the side of the squares that a step is trained on.

    Args:
        network: The size, and the size at the start.
        done: Share of the training that is done, 0 to 1.

    Returns:
        The side in pixels.
    """
    sides = list_sides(network)
    return sides[min(int(done * len(sides)), len(sides) - 1)]


def estimate_work(network: Network) -> float:
    """Estimate how much of the work of training at one size there is at growing ones.

    Args:
        network: The size, and the size at the start.

    Returns:
        The mean of the squared sides, as a share of the last: 1 where there is no other start.
    """
    sides = list_sides(network)
    return sum(side**2 for side in sides) / len(sides) / network.size**2


def shrink(images: Tensor, side: int) -> Tensor:
    """Make images smaller: each new pixel is a mean of what it covers, with bilinear weights.

    Args:
        images: Images, uint8 or float32 [n, size, size, 3], of 0 to 255.
        side: Side of the smaller images, pixels.

    Returns:
        float32 [n, side, side, 3]; the images as they are where they are no larger.
    """
    if images.shape[1] <= side:
        return images
    planes = images.permute(0, 3, 1, 2).float()
    small = functional.interpolate(planes, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return small.permute(0, 2, 3, 1)


def refuse_fixed_size(module: nn.Module, network: Network, name: str) -> None:
    """Refuse to train a network on small images first where it takes images of one size only.

    Args:
        module: Takes pixels, uint8 [n, size, size, 3], and returns logits; it is left in evaluation mode.
        network: The size, and the size at the start.
        name: The network's name, for the message.

    Raises:
        RecipeError: The network cannot compute an image of the size at the start.
    """
    sides = list_sides(network)[:-1]
    device = next(module.parameters()).device
    module.eval()
    try:
        with torch.inference_mode():
            for side in sides:
                module(torch.zeros((1, side, side, 3), dtype=torch.uint8, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise RecipeError(
            f"size_start: {name} takes images of {network.size} x {network.size} pixels only, found {side}.",
            "Leave out size_start, or choose a network without layers of a fixed size, such as one that ends in a "
            "pooling.",
        ) from error
