"""The metrics of a split as a record: every figure by its name, and those of each class.

They can also be read as run.json has them, `metrics["accuracy"]["low"]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from budwood.evaluation.intervals import Metric, ReadByName


@dataclass(frozen=True, eq=False)
class ClassMetrics(ReadByName):
    """The figures of one class, and its number of images; `average_precision` where images have several labels."""

    precision: Metric
    recall: Metric
    f1: Metric
    support: int
    average_precision: Metric | None = None


@dataclass(frozen=True, eq=False)
class SplitMetrics(Mapping[str, Any]):
    """Every metric of one split by its name, and those of each class under `per_class`, as run.json has them."""

    figures: Mapping[str, Metric]
    per_class: Mapping[str, ClassMetrics]

    def __getitem__(self, name: str) -> Any:
        return self.per_class if name == "per_class" else self.figures[name]

    def __iter__(self) -> Iterator[str]:
        yield from (*self.figures, "per_class")

    def __len__(self) -> int:
        return len(self.figures) + 1

    @property
    def accuracy(self) -> Metric:
        """The share of images that are called what they are."""
        return self.figures["accuracy"]


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures, and mappings of them, as dicts for JSON."""
    return {name: plain(part) if isinstance(part, Mapping) else part for name, part in record.items()}
