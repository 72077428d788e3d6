"""Budwood: a folder of labelled images in, an image classifier and the evidence that it is the right one out.

>>> import budwood as bw
>>> run = bw.train(bw.scan("photos/"), bw.Recipe(optimizer="adam", epochs=20))

Names are loaded when they are first used, so that importing the package loads neither torch nor NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from budwood import explain
    from budwood.comparison import Comparison, Entry, Published, compare
    from budwood.dataset import Dataset, scan
    from budwood.errors import (
        BudwoodError,
        DataError,
        RecipeError,
        RunError,
        StorageError,
        StudyError,
        WeightsError,
    )
    from budwood.hygiene import Finding, findings
    from budwood.jobs import predict, rehearse, report, resume, test, train
    from budwood.recipe import Recipe
    from budwood.runs import Run, open_run
    from budwood.studying import study, tune

__version__ = "0.1.0"

_HOMES = {  # the module of each public name; a module is its own
    "BudwoodError": "errors",
    "Comparison": "comparison",
    "DataError": "errors",
    "Dataset": "dataset",
    "Entry": "comparison",
    "Finding": "hygiene",
    "Published": "comparison",
    "Recipe": "recipe",
    "RecipeError": "errors",
    "Run": "runs",
    "RunError": "errors",
    "StorageError": "errors",
    "StudyError": "errors",
    "WeightsError": "errors",
    "compare": "comparison",
    "explain": "",
    "findings": "hygiene",
    "open_run": "runs",
    "predict": "jobs",
    "rehearse": "jobs",
    "report": "jobs",
    "resume": "jobs",
    "scan": "dataset",
    "study": "studying",
    "test": "jobs",
    "train": "jobs",
    "tune": "studying",
}

__all__ = [
    "BudwoodError",
    "Comparison",
    "DataError",
    "Dataset",
    "Entry",
    "Finding",
    "Published",
    "Recipe",
    "RecipeError",
    "Run",
    "RunError",
    "StorageError",
    "StudyError",
    "WeightsError",
    "compare",
    "explain",
    "findings",
    "open_run",
    "predict",
    "rehearse",
    "report",
    "resume",
    "scan",
    "study",
    "test",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'budwood' has no attribute {name!r}")
    home = _HOMES[name]
    if not home:
        return importlib.import_module(f"budwood.{name}")
    return getattr(importlib.import_module(f"budwood.{home}"), name)
