"""What is at hand is listed: packages without loading a library, cached files after asking the libraries once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from budwood.config.recipe import Recipe
from budwood.networks import local_trunks as module
from budwood.networks.local_trunks import OWN_COST, LocalTrunk, list_local_trunks
from budwood.networks.registry import PACKAGED, Origin, find_network, find_package_file, list_origins
from budwood.networks.surgery import plan_network

RESNET = "resnet18-f37072fd.pth"
PACKAGES = ["tf_efficientnet_lite2", "tf_efficientnet_lite1", "tf_efficientnet_lite0"]


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of torch and of the hub."""
    import huggingface_hub.constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def put(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"weights")
    return file


def put_in_hub(caches: Path, repository: str, name: str = "model.safetensors") -> Path:
    folder = caches / "hub" / f"models--{repository.replace('/', '--')}"
    put(folder / "refs" / "main").write_text("0" * 40)
    return put(folder / "snapshots" / ("0" * 40) / name)


def names(cache: Path) -> list[str]:
    return [trunk.name for trunk in list_local_trunks(cache)]


def test_packages_are_listed_by_their_accuracy(tmp_path: Path) -> None:
    found = list_local_trunks(tmp_path / "cache")
    assert [trunk.name for trunk in found] == PACKAGES
    assert found[-1] == LocalTrunk("tf_efficientnet_lite0", "timm", 224, 0.751, 383_907_552)
    assert not (tmp_path / "cache").exists()


def test_what_is_known_of_packaged_networks_is_what_their_plans_say() -> None:
    assert OWN_COST.keys() == PACKAGED.keys()
    for name, known in OWN_COST.items():
        plan = plan_network(Recipe(model=name), 2)
        assert known == (find_network(name).size, sum(row.macs for row in plan.places))
        assert known[1] == plan.macs - plan.stages[-1].macs, "all but the head"


def test_a_package_that_is_not_installed_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "find_package_file", lambda package: None if "lite1" in package else find_package_file(package)
    )
    assert names(tmp_path / "cache") == ["tf_efficientnet_lite2", "tf_efficientnet_lite0"]


def test_files_of_torchvision_are_found_in_either_cache(tmp_path: Path) -> None:
    for folder in (tmp_path / "torch" / "hub" / "checkpoints", tmp_path / "cache" / "weights"):
        file = put(folder / RESNET)
        found = {trunk.name: trunk for trunk in list_local_trunks(tmp_path / "cache")}
        assert sorted(found) == ["resnet18", *sorted(PACKAGES)]
        assert found["resnet18"].accuracy == pytest.approx(0.69758)
        assert replace(found["resnet18"], accuracy=None) == LocalTrunk(
            "resnet18", "torchvision", 224, None, 1_813_561_344
        )
        file.unlink()
        assert names(tmp_path / "cache") == PACKAGES


def test_networks_of_timm_are_found_by_repository(tmp_path: Path) -> None:
    put_in_hub(tmp_path, "timm/resnet18.a1_in1k")  # what timm means by its plain name, which is torchvision's, too
    put_in_hub(tmp_path, "timm/resnet18.tv_in1k")
    put_in_hub(tmp_path, "timm/mobilenetv4_conv_small.e2400_r224_in1k")
    put_in_hub(tmp_path, "somebody/else")
    put_in_hub(tmp_path, "timm/resnet26.bt_in1k", "config.json")
    found = {trunk.name: trunk for trunk in list_local_trunks(tmp_path / "cache")}
    ours = {"timm:resnet18", "resnet18.tv_in1k", "mobilenetv4_conv_small"}
    assert set(found) == {*PACKAGES, *ours}
    assert all(found[name].source == "timm" and found[name].accuracy is None for name in ours)
    assert list(found)[:3] == PACKAGES, "those without a published accuracy come last"
    for name in ours:
        assert plan_network(Recipe(model=name), 2).size == found[name].size


def test_a_file_of_a_packaged_network_is_the_network_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_hub(tmp_path, "timm/tf_efficientnet_lite0.in1k")
    assert names(tmp_path / "cache") == PACKAGES
    monkeypatch.setattr(module, "find_package_file", lambda _: None)
    assert list_local_trunks(tmp_path / "cache") == (
        LocalTrunk("tf_efficientnet_lite0", "timm", 224, 0.751, 383_907_552),
    )


def test_the_catalogues_are_asked_once_for_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def ask() -> dict[str, tuple[Origin, ...]]:
        asked.append(1)
        return list_origins()

    monkeypatch.setattr(module, "list_origins", ask)
    put(tmp_path / "cache" / "weights" / RESNET)
    first = list_local_trunks(tmp_path / "cache")
    assert list_local_trunks(tmp_path / "cache") == first
    assert len(asked) == 1
    put(tmp_path / "cache" / "weights" / "mine.pth")
    assert list_local_trunks(tmp_path / "cache") == first
    assert len(asked) == 2
    for file in (tmp_path / "cache" / "plans").glob("local-*.json"):
        file.write_text(file.read_text().replace("resnet18", "resnet34"))
    assert list_local_trunks(tmp_path / "cache") == first, "a damaged answer is asked for again"
    assert len(asked) == 3


def test_a_half_downloaded_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "list_origins", lambda: pytest.fail("there is no file of weights to ask about"))
    put(tmp_path / "torch" / "hub" / "checkpoints" / f"{RESNET}.0123.partial")
    put(tmp_path / "hub" / "models--timm--resnet18.a1_in1k" / "blobs" / "abc.incomplete")
    put(tmp_path / "hub" / "datasets--timm--a" / "refs" / "main").write_bytes(b"\xff")
    put(tmp_path / "hub" / "models--timm--b" / "refs" / "main").write_bytes(b"\xff")
    assert names(tmp_path / "cache") == PACKAGES


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    put(tmp_path / "cache" / "weights" / RESNET)
    (tmp_path / "cache" / "plans").write_text("in the way")
    assert "resnet18" in names(tmp_path / "cache")


@pytest.mark.parametrize("file", ["", RESNET])
def test_no_library_is_loaded_without_need(file: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    if file:
        put(cache / "weights" / file)
        list_local_trunks(cache)
    code = (
        "import sys; from pathlib import Path; from budwood.networks.local_trunks import list_local_trunks; "
        "print([trunk.name for trunk in list_local_trunks(Path(sys.argv[1]))]); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'torchvision', 'timm', 'huggingface_hub')))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(cache)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("resnet18" in done.stdout) == bool(file)
