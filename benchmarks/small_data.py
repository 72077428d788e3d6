"""Which optimizer and schedule to start from when images are few: small training sets, every seed, validation only.

    python benchmarks/small_data.py FOLDER... [--seeds 3] [--epochs 10] [--scratch]

A FOLDER holds train/ and val/ with class folders, few images in train and many in val. What is trained is
EfficientNet-Lite0 from blocks.6 on, or with --scratch a small network from nothing. Prints one Markdown row a variant:
the mean validation accuracy over the seeds, its spread, and the difference to the first variant, with a 95 % interval
from 2,000 bootstrap resamples of the images (every seed's answers for an image stay together).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import budwood as bw

TUNED: dict[str, Any] = {"freeze": "upto:blocks.5", "batch": 32}
SCRATCH: dict[str, Any] = {"model": "vgg-small", "size": 32, "blocks": [[32, 32], [64, 64]], "fc": [128], "batch": 32}
SCRATCH |= {"flip": 0.5, "crop_padding": 4}
SMOOTH: dict[str, Any] = {"ema": 0.98, "label_smoothing": 0.1}
VARIANTS: dict[str, dict[str, Any]] = {  # `scale` multiplies the optimizer's own rate
    "adam, constant": {"optimizer": "adam"},
    "adam, constant, rate x 3": {"optimizer": "adam", "scale": 3},
    "adam, constant, rate x 10": {"optimizer": "adam", "scale": 10},
    "adamw, one cycle, rate x 10": {"optimizer": "adamw", "schedule": "onecycle", "scale": 10},
    "the same, average, smoothing": {"optimizer": "adamw", "schedule": "onecycle", "scale": 10, **SMOOTH},
    "sgd, Nesterov, one cycle, rate x 10": {"optimizer": "sgd", "nesterov": True, "schedule": "onecycle", "scale": 10},
}


def recipe_of(variant: dict[str, Any], base: dict[str, Any], epochs: int, seed: int) -> bw.Recipe:
    """The recipe of one variant and seed."""
    options = {name: value for name, value in variant.items() if name != "scale"}
    own = bw.Recipe(**base, **options, epochs=epochs, seed=seed)
    assert isinstance(own.lr, float)
    return bw.Recipe(**base, **options, epochs=epochs, seed=seed, lr=own.lr * variant.get("scale", 1))


def right_answers(folder: Path, variant: dict[str, Any], base: dict[str, Any], epochs: int, seeds: int) -> np.ndarray:
    """Whether each validation image was called rightly, bool [seeds, n]."""
    data = bw.scan(folder)
    rows = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as out:
            run = bw.train(data, recipe_of(variant, base, epochs, seed), out=out, leaks="allow")
            predictions = run.predictions("val")
            rows.append(predictions.logits.argmax(axis=1) == predictions.labels)
    return np.stack(rows)


def main() -> None:
    """Every variant on every folder, one Markdown table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--scratch", action="store_true")
    asked = parser.parse_args()
    base = SCRATCH if asked.scratch else TUNED
    for folder in asked.folders:
        print(
            f"\n| {folder.name} | validation accuracy, mean of {asked.seeds} seeds | lowest to highest | difference |"
        )
        print("|---|---|---|---|")
        first: np.ndarray | None = None
        for name, variant in VARIANTS.items():
            right = right_answers(folder, variant, base, asked.epochs, asked.seeds)
            first = right if first is None else first
            by_seed, by_image = right.mean(axis=1), right.mean(axis=0) - first.mean(axis=0)
            drawn = np.random.default_rng(0).integers(0, len(by_image), (2000, len(by_image)))
            low, high = np.percentile(by_image[drawn].mean(axis=1), [2.5, 97.5])
            told = (
                f"{100 * by_image.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})" if right is not first else "–"
            )
            spread = f"{100 * by_seed.min():.1f} to {100 * by_seed.max():.1f}"
            row = f"| {name} | {100 * by_seed.mean():.1f} %, n = {right.shape[1]:,} | {spread} | {told} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
