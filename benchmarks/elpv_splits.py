"""Other 75/25 splits of ELPV, stratified by label and cell type as the built-in one, drawn by seed.

    .venv/bin/python benchmarks/elpv_splits.py FOLDER [--seeds 3]

Writes FOLDER/elpv_split1.csv and so on, and a link to the images: `budwood train FOLDER/elpv_split1.csv --seed 1`.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

from budwood.data.listing import Listing
from budwood.data.sources import list_elpv


def draw_test_cells(listing: Listing, seed: int) -> set[str]:
    """A quarter of the cells of each label and type, by path."""
    kinds = {
        line.split()[0]: line.split()[2] for line in (listing.root / "labels.csv").read_text().splitlines() if line
    }
    strata: dict[tuple[str, str], list[str]] = {}
    for path, label in zip(listing.paths, listing.labels, strict=True):
        strata.setdefault((label, kinds[path]), []).append(path)
    drawn = random.Random(seed)
    return {path for _, paths in sorted(strata.items()) for path in drawn.sample(sorted(paths), round(len(paths) / 4))}


def main() -> None:
    """One table a seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    listing = list_elpv()
    asked.folder.mkdir(parents=True, exist_ok=True)
    link = asked.folder / "elpv"
    if not link.exists():
        link.symlink_to(listing.root)
    for seed in range(1, asked.seeds + 1):
        held_out = draw_test_cells(listing, seed)
        with (asked.folder / f"elpv_split{seed}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "label", "split"])
            for path, label in zip(listing.paths, listing.labels, strict=True):
                table.writerow([f"elpv/{path}", label, "test" if path in held_out else "train"])


if __name__ == "__main__":
    main()
