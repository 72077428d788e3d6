"""The tensors of a network out of what training code has put around them: wrappers, and prefixes of names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

from budwood.networks.registry import State

WRAPPERS: Final = (  # keys of a checkpoint that hold its tensors, the best first: averaged weights before others
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "params_ema",
    "ema",
    "teacher",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "params",
    "weights",
    "backbone",
    "encoder",
)
PREFIXES: Final = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
COVERED: Final = 0.5  # of a network's names that a prefix must explain


def unwrap(found: Mapping[str, Any]) -> State:
    """Find the named tensors of a checkpoint, out of the mappings around them.

    Args:
        found: The content of a checkpoint: tensors by name, or mappings that hold them beside other values.

    Returns:
        Tensors by name, those of the likeliest mapping where there are several; empty where there are none.
    """
    tensors = {str(name): value for name, value in found.items() if hasattr(value, "shape")}
    inside = {str(name): unwrap(value) for name, value in found.items() if isinstance(value, Mapping)}
    inside = {name: state for name, state in inside.items() if state}
    named = next((inside[name] for name in WRAPPERS if name in inside), None)
    if named is None and inside:
        named = max(inside.values(), key=len)
    return named if named is not None and len(named) >= len(tensors) else tensors


def strip_prefix(found: State, expected: Collection[str]) -> tuple[State, State]:
    """Take a prefix off the names of tensors: what wrappers and larger models put before a network's own names.

    Args:
        found: Tensors by name.
        expected: The network's own names.

    Returns:
        The tensors under the prefix by their names without it, and those that are not under it. Without a prefix,
        the tensors as they are.
    """
    prefix = _find_prefix(found, expected)
    if prefix is None:
        return _strip_known_prefixes(found, expected), {}
    inside = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
    return inside, {name: tensor for name, tensor in found.items() if not name.startswith(prefix)}


def _find_prefix(found: State, expected: Collection[str]) -> str | None:
    """The prefix with which most names are those of the network; None where no prefix makes them so."""
    own = set(expected)
    counted: Counter[str] = Counter()
    for name in found:
        starts = [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]
        counted.update(name[:start] for start in starts if name[start:] in own)
    if not counted:
        return None
    best = min(counted, key=lambda prefix: (-counted[prefix], len(prefix)))
    return best if counted[best] >= COVERED * len(own) else None


def _strip_known_prefixes(found: State, expected: Collection[str]) -> State:
    """Names that are not the network's yet, as of another version of it, without what is usual before them."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in PREFIXES:
            ours = any(name.startswith(prefix) for name in expected)
            if not ours and found and all(name.startswith(prefix) for name in found):
                found, stripped = {name.removeprefix(prefix): tensor for name, tensor in found.items()}, True
    return found
