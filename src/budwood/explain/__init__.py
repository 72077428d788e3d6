"""What a run's network has learned: one function a question. Each returns data; other modules draw it.

>>> import budwood as bw
>>> run = bw.open_run("runs/20261121-100000-resnet18-1a2b")
>>> found = bw.explain.attribution(run, ["photos/leaf/001.jpg"])
>>> found.maps.shape
(1, 224, 224)

Images are files. Whatever is asked, the run and the images stay as they are. `cache` is the folder of what is kept for
the next time (None: the usual one); `progress` is told of what takes long.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from budwood.explain.api import (
        answering,
        attribution,
        confusions,
        embedding,
        faithfulness,
        feature_maps,
        filters,
        layers,
        maps_beside,
        maximised,
        maximised_beside,
        neighbours,
        pixels,
        sanity,
        seen_through,
        slices,
        strip,
        subject,
        suspects,
    )

__all__ = [
    "answering",
    "attribution",
    "confusions",
    "embedding",
    "faithfulness",
    "feature_maps",
    "filters",
    "layers",
    "maps_beside",
    "maximised",
    "maximised_beside",
    "neighbours",
    "pixels",
    "sanity",
    "seen_through",
    "slices",
    "strip",
    "subject",
    "suspects",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'budwood.explain' has no attribute {name!r}")
    from budwood.arguments import check_arguments

    return globals().setdefault(name, check_arguments(getattr(importlib.import_module("budwood.explain.api"), name)))
