"""Which pretrained networks can be used at once: an installed package or a local cache has their ImageNet weights.

Where only packages have weights, and the caches of torch, of the Hugging Face hub and of Budwood have none, no library
is loaded. Else the catalogues are asked once, and the answer is remembered until a file or a library changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from budwood.config.recipe import Recipe
from budwood.errors import RecipeError
from budwood.networks.plan import hash_json, load_plan, plan_source_digest, toolchain_digest
from budwood.networks.registry import PACKAGED, find_network, find_package_file, list_origins
from budwood.networks.weights import find_torch_home, is_local
from budwood.storage.checked_files import read_checked, write_checked

VERSION: Final = 1  # of the remembered answer; one of another version is not found
WEIGHT_FILES: Final = frozenset((".pth", ".pt", ".bin", ".safetensors"))
OWN_COST: Final[Mapping[str, tuple[int, int]]] = {  # side in pixels and multiply-adds, as the plans of the packaged say
    "tf_efficientnet_lite0": (224, 383_907_552),
    "tf_efficientnet_lite1": (240, 598_905_232),
    "tf_efficientnet_lite2": (260, 858_456_272),
}


@dataclass(frozen=True)
class LocalTrunk:
    """A network whose ImageNet weights are on this machine.

    Attributes:
        name: Name of the network, as a recipe's `model`.
        source: `torchvision` or `timm`.
        size: Side in pixels of the images that its weights were trained on.
        accuracy: Published top-1 accuracy on ImageNet, 0 to 1; None where the source does not publish it.
        macs: Multiply-adds of the trunk for one image of that size, without the head.
    """

    name: str
    source: str
    size: int
    accuracy: float | None
    macs: int


def list_local_trunks(cache: Path) -> tuple[LocalTrunk, ...]:
    """List the networks whose ImageNet weights an installed package or a local cache has.

    The first call after a file of weights has come or gone loads torch, torchvision and timm and makes the plans of
    the networks that are new; later calls, and those on a machine without such files, load none of them. Whether a
    file fits its network is seen when it is loaded, not here. A network that Budwood cannot plan is left out.

    Args:
        cache: Folder of Budwood's cache, in whose `weights` files are looked for, and which remembers the answer.

    Returns:
        The networks, by falling accuracy, those without a published one last; equals by growing cost.
    """
    packaged = {
        name: LocalTrunk(name, "timm", *_size_first(name, accuracy))
        for name, (package, accuracy) in PACKAGED.items()
        if find_package_file(package) is not None
    }
    files = _list_files(cache)
    found = [trunk for trunk in _find_by_files(files, cache) if trunk.name not in packaged] if files else []
    return tuple(sorted([*packaged.values(), *found], key=lambda one: (-(one.accuracy or 0.0), one.macs, one.name)))


def _size_first(name: str, accuracy: float) -> tuple[int, float, int]:
    size, macs = OWN_COST[name]
    return size, accuracy, macs


def _list_files(cache: Path) -> list[str]:
    """The files of weights in the caches: names of plain files, and REPOSITORY/FILE of the hub's."""
    places = (find_torch_home() / "hub" / "checkpoints", cache / "weights")
    plain = {file.name for place in places for file in _iterate_folder(place) if file.suffix in WEIGHT_FILES}
    return sorted(plain | set(_iterate_hub()))


def _iterate_hub() -> Iterator[str]:
    """The files of weights of the newest version of each repository in the cache of the Hugging Face hub."""
    for folder in _iterate_folder(_find_hub_cache()):
        kind, _, repository = folder.name.partition("--")
        if kind != "models":
            continue
        with suppress(OSError, ValueError):  # never downloaded to the end, or another's
            newest = folder / "snapshots" / (folder / "refs" / "main").read_text(encoding="utf-8").strip()
            for file in _iterate_folder(newest):
                if file.suffix in WEIGHT_FILES:
                    yield f"{repository.replace('--', '/')}/{file.name}"


def _find_hub_cache() -> Path:
    """Where the Hugging Face hub keeps what it downloads, as it decides it itself; to ask it takes 0.1 s."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    usual = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(named or Path(os.environ.get("HF_HOME", usual)) / "hub").expanduser()


def _iterate_folder(folder: Path) -> Iterator[Path]:
    """The content of a folder; nothing where it does not exist or cannot be read."""
    with suppress(OSError):
        yield from folder.iterdir()


def _find_by_files(files: list[str], cache: Path) -> list[LocalTrunk]:
    """The networks that files of the caches belong to, as remembered, else as the libraries say."""
    key = hash_json([VERSION, files, toolchain_digest(), plan_source_digest()])
    remembered = cache / "plans" / f"local-{key}.json"
    record = read_checked(remembered)
    if record is not None:
        return [LocalTrunk(**one) for one in record["trunks"]]
    named = _name_owners(set(files))
    trunks = [trunk for name in named if (trunk := _describe(name, cache)) is not None]
    document: dict[str, Any] = {"trunks": [asdict(trunk) for trunk in trunks]}
    with suppress(OSError):  # a cache that cannot be written costs time only
        write_checked(remembered, document)
    return trunks


def _name_owners(files: set[str]) -> list[str]:
    """The networks that have files here; a file that two libraries publish is that of the first."""
    owners = []
    for name, origins in list_origins().items():
        has = {place for one in origins for place in (one.file, f"{one.repository}/{one.name}")} & files
        if has:
            owners.append(name)
            files = files - has
    return owners


def _describe(name: str, cache: Path) -> LocalTrunk | None:
    """A network by its name; None where its file cannot be found after all, or it cannot be planned."""
    net = find_network(name)
    if net.code or not is_local(net.origins, cache):  # what a user has registered is known to this process alone
        return None
    try:
        plan = load_plan(Recipe(model=name), 2, cache)
    except RecipeError:
        return None
    return LocalTrunk(name, net.source, net.size, net.accuracy, sum(row.macs for row in plan.places))
