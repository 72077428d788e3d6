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
    from budwood.comparison.compare import compare
    from budwood.comparison.document import Comparison
    from budwood.comparison.published import Published
    from budwood.comparison.rows import RowSpec
    from budwood.comparison.run_list import list_runs
    from budwood.config.recipe import Recipe
    from budwood.data.checks import Finding, findings
    from budwood.data.dataset import Dataset
    from budwood.data.scanning import scan
    from budwood.data.selection import select_per_class
    from budwood.errors import BudwoodError, DataError, RecipeError, RunError, StorageError, StudyError, WeightsError
    from budwood.runs.base_predictor import Predictor
    from budwood.runs.run import Run, open_run
    from budwood.studies.runner import study, tune
    from budwood.workflows.confidence import calibrate
    from budwood.workflows.drift import drift
    from budwood.workflows.ensemble import ensemble
    from budwood.workflows.evaluate import test
    from budwood.workflows.export import export
    from budwood.workflows.ladder import train
    from budwood.workflows.learning_curve import learning_curve
    from budwood.workflows.predict import predict
    from budwood.workflows.publish import publish
    from budwood.workflows.report import report
    from budwood.workflows.suggest import suggest
    from budwood.workflows.train import estimate_cost, resume

__version__ = "0.1.0"

_HOMES = {  # the module of each public name; a module is its own
    "BudwoodError": "errors",
    "Comparison": "comparison.document",
    "DataError": "errors",
    "Dataset": "data.dataset",
    "Finding": "data.checks",
    "Predictor": "runs.base_predictor",
    "Published": "comparison.published",
    "Recipe": "config.recipe",
    "RecipeError": "errors",
    "RowSpec": "comparison.rows",
    "Run": "runs.run",
    "RunError": "errors",
    "StorageError": "errors",
    "StudyError": "errors",
    "WeightsError": "errors",
    "calibrate": "workflows.confidence",
    "compare": "comparison.compare",
    "drift": "workflows.drift",
    "ensemble": "workflows.ensemble",
    "estimate_cost": "workflows.train",
    "explain": "",
    "export": "workflows.export",
    "findings": "data.checks",
    "learning_curve": "workflows.learning_curve",
    "list_runs": "comparison.run_list",
    "open_run": "runs.run",
    "predict": "workflows.predict",
    "publish": "workflows.publish",
    "report": "workflows.report",
    "resume": "workflows.train",
    "scan": "data.scanning",
    "select_per_class": "data.selection",
    "study": "studies.runner",
    "suggest": "workflows.suggest",
    "test": "workflows.evaluate",
    "train": "workflows.ladder",
    "tune": "studies.runner",
}

__all__ = [
    "BudwoodError",
    "Comparison",
    "DataError",
    "Dataset",
    "Finding",
    "Predictor",
    "Published",
    "Recipe",
    "RecipeError",
    "RowSpec",
    "Run",
    "RunError",
    "StorageError",
    "StudyError",
    "WeightsError",
    "calibrate",
    "compare",
    "drift",
    "ensemble",
    "estimate_cost",
    "explain",
    "export",
    "findings",
    "learning_curve",
    "list_runs",
    "open_run",
    "predict",
    "publish",
    "report",
    "resume",
    "scan",
    "select_per_class",
    "study",
    "suggest",
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
