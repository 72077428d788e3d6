"""The bundle of a prefix in the cache: its graph, its weights, and how they were made, each checked when it is used.

A file of a bundle that does not have the digest that was noted when it was made - a flipped bit, a cut file - is never
used: the bundle is removed and exported again. What was measured of a bundle (agreement, threads) lies beside it in
files of its own, which are measured again where they are damaged.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from budwood.errors import StorageError
from budwood.networks.plan import hash_json, toolchain_digest
from budwood.networks.registry import TRUNK
from budwood.networks.spec import NetworkSpec
from budwood.storage.atomic import draft_folder, is_writable, write_bytes
from budwood.storage.checked_files import (
    digest_bytes,
    encode_checked,
    name_place,
    read_checked,
    read_if_whole,
    write_checked,
)

if TYPE_CHECKING:
    from budwood.inference.pytorch_backend import NetworkSlice

RECORD: Final = "bundle.json"
GRAPH: Final = "part.onnx"  # the graph in full precision
STATE: Final = "part.safetensors"
TRIES: Final = 3  # times that a bundle is exported before a disk counts as broken


@dataclass(frozen=True)
class Prefix:
    """The part of a recipe's network from the image to a place, ready to run.

    Attributes:
        spec: The whole network.
        stop: Place with which the part ends: a stage or the trunk; None for the logits.
        shape: Shape of the output for one image.
        key: Identifies weights, stages and preprocessing.
        cache: Folder of Budwood's cache.
        graph: File in the bundle that ONNX Runtime runs.
    """

    spec: NetworkSpec
    stop: str | None
    shape: tuple[int, ...]
    key: str
    cache: Path
    graph: str = GRAPH

    @property
    def bundle(self) -> Path:
        """Return the folder with the exported graph and the weights.

        Returns:
            Path in the cache; it depends on the key and on the library versions. Where the cache can only be read or
            is full, and has no such folder, a path in a folder of this process, which goes with it.
        """
        kept = self.cache / self._place
        if _has_spare_cache() and self.spare_bundle.is_dir():
            return self.spare_bundle
        return kept if kept.is_dir() or is_writable(kept) else self.spare_bundle

    @property
    def spare_bundle(self) -> Path:
        """Return the bundle's place outside of the cache, in a folder of this process, which goes with it."""
        return _make_spare_cache() / hash_json(str(self.cache)) / self._place

    @property
    def _place(self) -> Path:
        return Path("networks") / f"{self.key}-{toolchain_digest()}"


@dataclass(frozen=True)
class BundleRecord:
    """How a bundle was made.

    Attributes:
        network: Name of the network.
        aside: A sentence on which tensors of the weights' file were not used; empty where all were.
        no_graph: Why there is no graph; empty where there is one.
        files: Digest of each file by its name.
    """

    network: str
    aside: str
    no_graph: str
    files: dict[str, str]


@cache
def _make_spare_cache() -> Path:
    """A folder of this process for what a cache that can only be read cannot take."""
    folder = tempfile.mkdtemp(prefix="budwood-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _has_spare_cache() -> bool:
    return _make_spare_cache.cache_info().currsize > 0


def make_prefix(spec: NetworkSpec, stop: str | None, cache: Path) -> Prefix:
    """Describe the prefix of a network up to a place; loads no torch.

    Args:
        spec: The whole network.
        stop: The plan's `prefix`, the trunk (`TRUNK`), or None for the logits.
        cache: Folder of Budwood's cache.

    Returns:
        The prefix, with the key of its outputs in the cache.
    """
    recipe, plan = spec.recipe, spec.plan
    kept_parts = [plan.source, plan.name, plan.channels, plan.size, plan.mean, plan.std, *plan.versions]
    parts = [spec.weights.digest, *kept_parts, recipe.own_options, stop, recipe.resizing.interpolation]
    if stop in (TRUNK, None):
        parts += [plan.cut, plan.pool, *([[tap.name for tap in plan.taps]] if plan.taps else [])]
    if stop is None:
        parts += [recipe.head, recipe.batch_norm, recipe.activation, spec.classes]
    return Prefix(spec, stop, _shape_at(spec, stop), hash_json(parts), cache)


def _shape_at(spec: NetworkSpec, stop: str | None) -> tuple[int, ...]:
    """The shape of one image's output at a place."""
    if stop is None:
        return (spec.classes,)
    if stop == TRUNK:
        return (spec.plan.features,)
    assert spec.plan.prefix_shape is not None
    return spec.plan.prefix_shape


def slice_network(prefix: Prefix) -> NetworkSlice:
    """Return the part of the network that a prefix is, for PyTorch."""
    from budwood.inference.pytorch_backend import NetworkSlice

    return NetworkSlice(prefix.spec, prefix.stop)


def ensure_exported(prefix: Prefix) -> BundleRecord:
    """Export a prefix unless its bundle exists: graph, weights and record appear together or not at all.

    Args:
        prefix: Part of the network.

    Returns:
        How the bundle was made.

    Raises:
        WeightsError: The weights cannot be read or do not fit.
        OSError: Neither the cache nor a temporary folder can be written.
    """
    record = _read_record(prefix)
    if record is not None:
        return record
    from budwood.inference import pytorch_backend

    files, aside, no_graph = pytorch_backend.export(slice_network(prefix))
    digests = {name: digest_bytes(content) for name, content in files.items()}
    record = BundleRecord(prefix.spec.plan.name, aside, no_graph, digests)
    shutil.rmtree(prefix.bundle, ignore_errors=True)  # without a record that holds, it is worth nothing
    try:
        _write_bundle(prefix.bundle, files, record)
    except OSError:  # a full disk costs the time to export it again
        _write_bundle(prefix.spare_bundle, files, record)
    return record


def _write_bundle(folder: Path, files: Mapping[str, bytes], record: BundleRecord) -> None:
    """Write all files of a bundle, or none."""
    with draft_folder(folder) as draft:
        for name, content in files.items():
            (draft / name).write_bytes(content)
        text = encode_checked(asdict(record), name_place(folder / RECORD))
        (draft / RECORD).write_text(text, encoding="utf-8")


def read_bundle_file(prefix: Prefix, name: str) -> bytes:
    """Read a file of a prefix's bundle, which is exported where it is missing or damaged.

    Args:
        prefix: Part of the network.
        name: `GRAPH` or `STATE`.

    Returns:
        The content, as it was made.

    Raises:
        WeightsError: The weights cannot be read or do not fit.
        StorageError: What was just written is read differently.
    """
    for _ in range(TRIES):
        digest = ensure_exported(prefix).files[name]
        content = read_if_whole(prefix.bundle / name, digest)
        if content is not None:
            return content
        shutil.rmtree(prefix.bundle, ignore_errors=True)
    raise StorageError(
        f"{prefix.bundle / name}: is read differently from what was written.",
        "Check the disk, or move the cache with BUDWOOD_CACHE=/other/disk.",
    )


def add_bundle_file(prefix: Prefix, name: str, content: bytes) -> None:
    """Add a file to a bundle that exists, with a note of its digest.

    Args:
        prefix: Part of the network.
        name: Name of the file.
        content: Its content.

    Raises:
        OSError: The cache cannot be written.
    """
    write_bytes(prefix.bundle / name, content)
    write_checked(_note_of(prefix, name), {"digest": digest_bytes(content)})


def read_added_file(prefix: Prefix, name: str) -> bytes | None:
    """Read a file that was added to a bundle.

    Args:
        prefix: Part of the network.
        name: Name of the file.

    Returns:
        Its content; None where it is missing or damaged.
    """
    note = read_checked(_note_of(prefix, name))
    return read_if_whole(prefix.bundle / name, note["digest"]) if note else None


def _note_of(prefix: Prefix, name: str) -> Path:
    return prefix.bundle / f"{name}.json"


def remember(file: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Read what was measured of a bundle, or measure it now and note it.

    Args:
        file: Where it is noted.
        measure: Measures it; the result is plain values.

    Returns:
        What was measured.
    """
    known = read_checked(file)
    if known is None:
        known = measure()
        with suppress(OSError):  # then it is measured again the next time
            write_checked(file, known)
    return known


def _read_record(prefix: Prefix) -> BundleRecord | None:
    held = read_checked(prefix.bundle / RECORD)
    return BundleRecord(**held) if held is not None else None
