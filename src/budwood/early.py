"""Loading what takes seconds to load, while images are read."""

from __future__ import annotations

import importlib
from pathlib import Path
from threading import Thread

from budwood.recipe import Recipe


def load_early(recipe: Recipe, cache: Path) -> None:
    """Begin to load PyTorch and timm in a thread, where they will be needed.

    A head on kept outputs needs neither; whether outputs are kept is not known yet, but nothing is before a first run.
    """
    if not recipe.head_alone or not any((cache / "networks").glob("*/bundle.json")):
        Thread(target=importlib.import_module, args=("timm",)).start()
