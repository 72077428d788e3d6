"""What the project needs: declared, pinned, installed in CI or refused there with one message."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conftest import absent

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements}


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def _closure(requirements: list[str]) -> set[str]:
    """Everything that an installation of the requirements brings here."""
    found: set[str] = set()
    waiting = [Requirement(one) for one in requirements]
    seen = set()
    while waiting:
        asked = waiting.pop()
        key = (canonicalize_name(asked.name), frozenset(asked.extras))
        if key in seen:
            continue
        seen.add(key)
        found.add(key[0])
        for text in requires(asked.name) or ():
            one = Requirement(text)
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *asked.extras)):
                waiting.append(one)
    return found


def test_the_core_brings_no_plotting_and_no_reference_implementation() -> None:
    core = _closure(PROJECT["dependencies"])
    assert not core & {"captum", "matplotlib", "scikit-learn", "statsmodels", "ray", "umap-learn"}
    assert "captum" in _names(EXTRAS["dev"])


def test_every_package_of_a_full_set_up_is_pinned_at_what_is_installed() -> None:
    needed = _closure([*PROJECT["dependencies"], *EXTRAS["demo"], *EXTRAS["dev"]])
    pins = _pins()
    assert needed <= pins.keys()
    assert {name: version(name) for name in needed} == {name: pins[name] for name in needed}
    pinned = [f"{name}=={number}" for name, number in pins.items()]
    assert pinned == sorted(pinned)  # one order, so that changes show


def test_what_the_tests_import_is_in_the_set_up() -> None:
    """So that no test is skipped for want of a package."""
    declared = _names([*PROJECT["dependencies"], *EXTRAS["demo"], *EXTRAS["dev"]])
    own = {path.stem for path in (ROOT / "tests").glob("*.py")} | {"budwood"} | sys.stdlib_module_names
    homes = packages_distributions()
    for path in (ROOT / "tests").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in {name.split(".")[0] for name in names} - own:
                assert {canonicalize_name(home) for home in homes[name]} & declared, f"{path.name}: {name}"


def test_what_extras_offer_is_used() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/budwood").rglob("*.py"))
    for extra in EXTRAS.keys() - {"demo", "dev", "docs", "track"}:
        assert f"budwood[{extra}]" in source, extra


@pytest.mark.parametrize("ci", ["", "true"])
def test_what_a_machine_lacks_skips_a_test_but_fails_in_ci(ci: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(pytest.fail.Exception if ci else pytest.skip.Exception, match="Chromium is not installed"):
        absent("Chromium")


@pytest.mark.parametrize("apt", [None, "exit 100"])
def test_ci_ends_with_one_message_where_it_cannot_install(apt: str | None, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "id", "ls"):
        (tools / name).symlink_to(shutil.which(name) or name)
    (tools / "initdb").symlink_to("/bin/true")
    if apt is not None:
        (tools / "apt-get").write_text(f"#!/bin/sh\necho noise >&2\n{apt}\n")
        (tools / "apt-get").chmod(0o755)
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    done = subprocess.run(
        [tools / "bash", tmp_path / ".ci/run"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert re.fullmatch(r"\.ci/run: .* need chromium, which is not here and .*\n", done.stderr)
    assert done.stdout == ""
