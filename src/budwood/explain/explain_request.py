"""What is asked of an explanation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budwood.runs.explanation_record import PARTS
from budwood.runs.run import Run

OF_LAYERS: Final = ("maps", "units")  # parts that show any layer, beside other networks
USUAL: Final = tuple(part for part in PARTS if part not in ("classes", *OF_LAYERS))


@dataclass(frozen=True)
class ExplainRequest:
    """What an explanation of a run is to contain.

    Attributes:
        files: Images to explain, at most 200; empty to choose validation images.
        parts: Parts of the explanation, of `PARTS`.
        methods: Methods of attribution; empty for the usual ones.
        places: With the part `images`, the stage that `grad-cam` and `layer-cam` look at; else the layers that
            `filters`, `maps` and `units` show. Empty to choose them by the network.
        called: Name of the class to explain; None for the likeliest of each image.
        channels: Numbers of the channels that `maps` and `units` show; empty to choose them.
        beside: Networks that `maps` and `units` show beside the run's: other runs, `start`, `imagenet`.
        seed: Seed of what is drawn by chance in `images` (the checks of maps), `classes` and `units`; None for 0.
    """

    files: tuple[Path, ...] = ()
    parts: tuple[str, ...] = USUAL
    methods: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    called: str | None = None
    channels: tuple[int, ...] = ()
    beside: tuple[Run | str | Path, ...] = ()
    seed: int | None = None
