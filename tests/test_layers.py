"""The order of the modules, the lines that torch does not cross, and the public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import budwood

SOURCE = Path(budwood.__file__).parent
ORDER = [
    "errors",
    "files",
    "progress",
    "explanations",
    "history",
    "board",
    "recipe",
    "images",
    "archives",
    "sources",
    "corrections",
    "listing",
    "facts",
    "duplicates",
    "splits",
    "dataset",
    "hygiene",
    "metrics",
    "statistics",
    "importance",
    "differences",
    "results",
    "small_networks",
    "networks",
    "weights",
    "stages",
    "surgery",
    "norms",
    "plan",
    "catalogue",
    "torch_engine",
    "space",
    "store",
    "decoding",
    "packing",
    "engines",
    "prefix",
    "inputs",
    "head",
    "solve",
    "descent",
    "schedule",
    "losses",
    "augment",
    "views",
    "checkpoints",
    "learner",
    "fit",
    "rates",
    "sheet",
    "subject",
    "maps",
    "attribution",
    "sanity",
    "faithfulness",
    "overlays",
    "training",
    "rehearsal",
    "tracking",
    "predictions",
    "quantised",
    "runs",
    "pairing",
    "rows",
    "comparison",
    "answers",
    "drawing",
    "tiles",
    "filters",
    "feature_maps",
    "maximisation",
    "plots",
    "stage_plots",
    "comparison_plots",
    "comparison_text",
    "page",
    "comparison_page",
    "pictures",
    "prepare",
    "run_parts",
    "embeddings",
    "scatter",
    "slices",
    "confusions",
    "suspects",
    "explain",
    "explanation_page",
    "jobs",
    "explaining",
    "searches",
    "studies",
    "searching",
    "works",
    "hands",
    "study_reports",
    "studying",
    "forecasts",
    "study_text",
    "demo",
    "flags",
    "told",
    "table_commands",
    "cli",
]
WITH_TORCH = {
    "small_networks",
    "stages",
    "surgery",
    "norms",
    "torch_engine",
    "losses",
    "augment",
    "views",
    "checkpoints",
    "learner",
    "sheet",
    "fit",
    "rates",
    "subject",
    "attribution",
    "sanity",
    "filters",
    "feature_maps",
    "maximisation",
}


def _imports(module: str) -> set[str]:
    tree = ast.parse((SOURCE / f"{module}.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "budwood":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("budwood."):
            found.add(node.module.split(".")[1])
    return found


def test_every_module_has_its_place() -> None:
    assert {path.stem for path in SOURCE.glob("*.py")} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_earlier_ones(module: str) -> None:
    assert _imports(module) <= set(ORDER[: ORDER.index(module)])


def test_only_one_module_loads_torch() -> None:
    others = sorted(set(ORDER) - WITH_TORCH)
    code = f"import sys, {', '.join(f'budwood.{name}' for name in others)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"], ["train", "--help"], ["--version"]])
def test_help_loads_neither_torch_nor_numpy(arguments: list[str]) -> None:
    code = (
        "import sys; from budwood.cli import run; code = run(sys.argv[1:]); "
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'numpy', 'pyarrow')))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_public_names_are_sorted_complete_and_documented() -> None:
    assert budwood.__all__ == sorted(budwood.__all__)
    assert set(budwood.__all__) == set(budwood._HOMES)
    for name in budwood.__all__:
        assert getattr(budwood, name).__doc__, name


def test_no_module_hides_a_public_name() -> None:
    assert set(budwood.__all__) & set(ORDER) == {"explain"}, "importing the module would put it in the function's place"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fastai'"):
        budwood.fastai  # noqa: B018
