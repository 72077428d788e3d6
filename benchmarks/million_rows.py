"""Peak memory and seconds of a manifest of a million rows: listed, clustered, split, validated, saved, loaded.

    .venv/bin/python benchmarks/million_rows.py [--rows 1000000]

The images are made up (every fact of a file but the file itself), with 1 % exact and 1 % near copies, so that what is
measured is everything in a scan apart from decoding.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from budwood.data.checks import findings
from budwood.data.dataset import load
from budwood.data.images import THUMBNAIL_SIDE, ImageMetadata
from budwood.data.scanning import build_dataset
from budwood.data.sources import list_files
from budwood.hardware import count_processors
from budwood.progress import Silent
from budwood.runs.machine import describe_hardware
from budwood.storage.context import Context

CLASSES = 1000


def main() -> None:
    """Do each step and print its seconds and the peak memory so far as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    laps: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        manifest = Path(scratch) / "manifest.csv"
        _write(manifest, rows)
        start = time.perf_counter()

        def lap(name: str) -> None:
            nonlocal start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            laps[name] = {"seconds": round(time.perf_counter() - start, 2), "peak_gib": round(peak, 3)}
            start = time.perf_counter()

        listing = list_files(manifest, Context(Path(scratch), Silent()))
        lap("list")
        data = build_dataset(listing, list(_facts(rows)), Context(Path(scratch), Silent()))
        del listing
        lap("cluster and split")
        found = findings(data)
        lap("validate")
        data.save(Path(scratch) / "dataset.parquet")
        lap("save")
        del data
        load(Path(scratch) / "dataset.parquet")
        lap("load")
    print(
        json.dumps(
            {
                "rows": rows,
                "findings": [f.code for f in found],
                "laps": laps,
                "hardware": describe_hardware(count_processors()).model_dump(),
            }
        )
    )


def _write(path: Path, rows: int) -> None:
    with path.open("w") as handle:
        handle.write("path,label,group\n")
        for row in range(rows):
            handle.write(f"images/{row % CLASSES:04}/photograph-{row:07}.jpg,class-{row % CLASSES:04},\n")


def _facts(rows: int) -> Iterator[ImageMetadata]:
    random = np.random.default_rng(0)
    for first in range(0, rows, 10_000):
        count = min(10_000, rows - first)
        coarse = random.integers(0, 255, (count, 8, 8), dtype=np.uint8)
        thumbs = coarse.repeat(THUMBNAIL_SIDE // 8, axis=1).repeat(THUMBNAIL_SIDE // 8, axis=2).reshape(count, -1)
        thumbs[1::100] = thumbs[0::100][: len(thumbs[1::100])] // 2 * 2
        for row in range(count):
            twin = row - 2 if row % 100 == 2 and row >= 2 else row
            yield ImageMetadata(f"{first + twin:032x}", 640, 480, "RGB", (), thumbs[twin].tobytes())


if __name__ == "__main__":
    main()
