"""The table of Budwood's own networks, and which names are of a user's own code.

A new small network is written here once, beside the function that builds it. Reading this loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from budwood.config.registry import ENTRY_SEPARATOR, Registry, is_entry_point

LIBRARIES: Final = ("budwood", "torchvision", "timm")  # sources of networks, in the order in which a name is looked up


@dataclass(frozen=True)
class OwnNetwork:
    """A small network of Budwood's own.

    Attributes:
        build: Path of the function `(channels, size, options) -> nn.Sequential`, of named stages that end in
            `head`.
        options: Recipe options that it uses, with their defaults.
    """

    build: str
    options: Mapping[str, object]


OWN_NETWORKS: Final = Registry[OwnNetwork](
    "model",
    {
        "mlp": OwnNetwork("budwood.networks.small:mlp", {"fc": (4096, 4096), "activation": "relu"}),
        "cnn": OwnNetwork(
            "budwood.networks.small:cnn",
            {
                "widths": (32, 32, 32, 64),
                "kernels": (),
                "strides": (),
                "pools": (),
                "padding": 0,
                "conv_norm": False,
                "fc": (4096,),
                "activation": "relu",
            },
        ),
        "vgg-small": OwnNetwork(
            "budwood.networks.small:vgg_small",
            {"blocks": ((64, 64), (128, 128)), "conv_norm": True, "fc": (512,), "activation": "relu"},
        ),
    },
)


def is_users_code(model: object) -> bool:
    """Return whether a recipe's model is a factory of the user's own.

    Args:
        model: The model of a recipe.

    Returns:
        True for `package.module:name`; false for plain names and for those of a library, as `timm:NAME`.
    """
    if not isinstance(model, str) or model.partition(ENTRY_SEPARATOR)[0] in LIBRARIES:
        return False
    return is_entry_point(model)
