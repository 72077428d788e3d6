"""The licences of weights and data that are known; of all others it is said that they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from budwood.networks.registry import PACKAGED
from budwood.runs.run_record import NetworkRecord, RunRecord

WEIGHTS_LICENCES: Final = dict.fromkeys(PACKAGED, "Apache-2.0")  # of ImageNet weights, by network
ELPV_LICENCE: Final = "CC BY-NC-SA 4.0 (no commercial use; changed versions under the same licence)"


def describe_weights_licence(network: NetworkRecord) -> str:
    """Describe the licence of the weights that a network started from.

    Args:
        network: Record of the network.

    Returns:
        A sentence without its full stop.
    """
    weights = network.weights
    if weights.kind == "none":
        return "none needed: the weights were random at the start"
    if weights.kind == "run":
        return f"not known here: the weights come from {weights.about}; see the model card of that run"
    known = WEIGHTS_LICENCES.get(network.name) if weights.kind == "imagenet" and network.source == "timm" else None
    return known or "not known to Budwood; ask those who publish the weights"


def describe_data_licence(record: RunRecord) -> str:
    """Describe the licence of the images that a run was trained on.

    Args:
        record: Record of the run.

    Returns:
        A sentence without its full stop.
    """
    if record.source == "elpv" and "elpv_dataset" in Path(record.root).parts:
        return ELPV_LICENCE
    return "not known to Budwood; ask those whose images they are"
