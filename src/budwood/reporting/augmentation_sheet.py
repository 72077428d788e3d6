"""A contact sheet of augmented images, so that what the network is shown can be looked at."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from PIL import Image

from budwood.config.resolved_recipe import ResolvedRecipe
from budwood.data.dataset import Samples
from budwood.data.loading import decode_sample
from budwood.training.augmentation import augment, sample_parameters
from budwood.training.losses import blend

ROWS: Final = 4
VERSIONS: Final = 7
CELL: Final = 112  # pixels
GAP: Final = 4
PAPER: Final = (150, 155, 160)  # between a light and a dark page


def draw_augmentation_sheet(recipe: ResolvedRecipe, samples: Samples) -> Image.Image:
    """Draw a contact sheet of augmented images.

    Each row is one image, from all over the split: as the network sees it in validation, then as training may see
    it. The random versions follow the seed of the recipe.

    Args:
        recipe: The recipe whose augmentation is shown.
        samples: Images of the training split.
        size: Side in pixels at which the network sees images.

    Returns:
        An RGB picture with up to 4 rows of 8 cells.
    """
    network = recipe.network
    random = np.random.default_rng(recipe.seed)
    chosen = np.unique(np.linspace(0, len(samples) - 1, ROWS).round().astype(int)).tolist()
    pixels = torch.from_numpy(
        np.stack([decode_sample(samples, row, network.size, network.resizing) for row in chosen])
    ).float()
    versions = [pixels]
    for _ in range(VERSIONS):
        changed = augment(
            pixels, sample_parameters(recipe.augmentation, len(pixels), network.size, random), recipe.augmentation
        )
        versions.append(blend(recipe.mixing, changed, torch.eye(len(pixels)), random)[0])
    step = CELL + GAP
    sheet = Image.new("RGB", (len(versions) * step + 2 * GAP, len(chosen) * step + GAP), PAPER)
    for column, batch in enumerate(versions):
        for row, picture in enumerate(batch.round().clamp(0, 255).to(torch.uint8).numpy()):
            cell = Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(cell, (column * step + (GAP if column == 0 else 2 * GAP), row * step + GAP))
    return sheet
