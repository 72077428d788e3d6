"""The order of the packages, the lines that torch does not cross, and the public names."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import budwood
from budwood import explain

SOURCE = Path(budwood.__file__).parent
PROJECT = Path(__file__).parents[1]
WITH_TORCH = {
    "data.torch_split",
    "explain.activations",
    "explain.convolutions",
    "explain.feature_visualization",
    "explain.layer_outputs",
    "explain.layer_parts",
    "explain.probe",
    "explain.run_views",
    "explain.saliency",
    "explain.sanity_checks",
    "explain.side_by_side",
    "exporting.torch_program",
    "inference.pytorch_backend",
    "networks.freezing",
    "networks.layers",
    "networks.pooling",
    "networks.small",
    "networks.stages",
    "networks.surgery",
    "networks.taps",
    "reporting.augmentation_sheet",
    "runs.ensemble_network",
    "training.augmentation",
    "training.cached_augmentation",
    "training.checkpoints",
    "training.depthwise",
    "training.device",
    "training.ema",
    "training.growth",
    "training.loop",
    "training.loop_notes",
    "training.losses",
    "training.lr_finder",
    "training.norms",
    "training.optimizers",
    "training.own_losses",
    "training.own_transforms",
    "training.pixel_changes",
    "training.profiling",
    "training.state",
    "training.wise_ft",
}


def _modules() -> list[str]:
    """Every module by its dotted name under `budwood`; packages by their own."""
    names = (path.relative_to(SOURCE).with_suffix("").as_posix() for path in SOURCE.rglob("*.py"))
    return sorted(name.removesuffix("/__init__").replace("/", ".") for name in names if name != "__init__")


MODULES = _modules()


def _layers() -> list[str]:
    """The packages of the contract, the first of which may import all others."""
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    layers: list[str] = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return layers


def test_every_package_has_its_place_in_the_contract() -> None:
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    modules = {path.stem for path in SOURCE.glob("*.py")} - {"__init__"}
    named = {name for layer in _layers() for name in layer.split(" : ")}
    assert named == packages | modules


def test_the_packages_import_only_those_below_them() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=PROJECT,
        env={"PYTHONPATH": str(SOURCE.parent), "PATH": ""},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is(module: str) -> None:
    file = SOURCE / (module.replace(".", "/") + ".py")
    text = (file if file.is_file() else file.with_suffix("") / "__init__.py").read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))


def test_what_loads_torch_is_listed_here() -> None:
    others = sorted(set(MODULES) - WITH_TORCH)
    code = f"import sys, {', '.join(f'budwood.{name}' for name in others)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"], ["train", "--help"], ["--version"]])
def test_help_loads_neither_torch_nor_numpy(arguments: list[str]) -> None:
    code = (
        "import sys; from budwood.cli.main import run; code = run(sys.argv[1:]); "
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
    at_the_root = {path.stem for path in SOURCE.iterdir()}
    assert set(budwood.__all__) & at_the_root == {"explain"}, "importing the module would put it in the name's place"
    in_explain = {path.stem for path in (SOURCE / "explain").glob("*.py")}
    assert not set(explain.__all__) & in_explain, "importing the module would put it in the function's place"
    for name in explain.__all__:
        assert callable(getattr(explain, name))


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fastai'"):
        budwood.fastai  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'fastai'"):
        explain.fastai  # noqa: B018
