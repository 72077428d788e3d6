"""What stands in for the options of a recipe, and which option belongs to which optimizer, schedule, loss and network.

The tables follow from the records of the parts (`optimizers`, `schedules`, `losses`, `augmentations`). Nothing here
loads PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, Final, Literal

from budwood.config.augmentations import list_moving_options, list_neutral_values
from budwood.config.losses import LOSSES, Loss, OneLabel
from budwood.config.optimizers import LBFGS, OPTIMIZERS, CustomOptimizer, Optimizer
from budwood.config.own_networks import OWN_NETWORKS
from budwood.config.registry import is_entry_point
from budwood.config.schedules import SCHEDULES, Schedule

Resize = Literal["crop", "pad", "squash"]
Interpolation = Literal["bicubic", "bilinear", "nearest", "area"]
Precision = Literal["auto", "float32", "bfloat16"]
TtaMode = Literal["none", "flip", "flips"]
FrozenNorm = Literal["eval", "train"]
TrainedNorm = Literal["eval", "train"]
Pool = Literal["own", "avg", "max", "avgmax", "flatten", "token"]
Init = Literal["default", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal"]
Activation = Literal["elu", "gelu", "leaky_relu", "relu", "silu", "tanh"]
Options = Mapping[str, object]  # plain values by the names of options


@dataclass(frozen=True)
class Resizing:
    """How an image becomes the square that a network sees.

    Attributes:
        how: `crop` keeps the middle square, `pad` adds black borders, `squash` ignores the aspect ratio.
        interpolation: How its pixels are computed; all but `nearest` average over what a pixel covers.
    """

    how: Resize = "crop"
    interpolation: Interpolation = "bicubic"


# How images may be changed at random, and the values at which they are not.
UNCHANGED: Final[Options] = {**list_neutral_values(), "transform": None}
# What every optimizer that takes steps uses, and the value that stands in when none is given; None: nothing does.
STEP_OPTIONS: Final[Options] = {
    **UNCHANGED,
    "fill": None,
    "views": None,
    "epochs": 10,
    "time": None,
    "batch": 64,
    "accumulate": 1,
    "weight_decay": 0.0,
    "clip": None,
    "ema": None,
    "schedule": "constant",
    "warmup": 0.0,
    "loss": "cross_entropy",
    "label_smoothing": 0.0,
    "class_weights": False,
    "balanced_sampling": False,
    "logit_adjustment": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "select": "loss",
    "callbacks": None,
    "phases": None,
    "patience": None,
    "precision": "auto",
    "seed": 0,
}
# Of these, what has a meaning for a head that is solved, too; there nothing stands in where none is given.
SOLVED_OPTIONS: Final[Options] = dict.fromkeys(
    (
        "time",
        "select",
        "loss",
        "label_smoothing",
        "class_weights",
        "balanced_sampling",
        "logit_adjustment",
        "seed",
    )
)
# Of an optimizer that trains more than a linear head.
TRUNK_OPTIONS: Final[Options] = {"layer_decay": 1.0, "decay_norms": True}
FINE_TUNING: Final = 0.3  # of an optimizer's own rate, where pretrained stages are trained; BENCHMARKS.md, "Small data"


SCHEDULE_PREFIX: Final = "schedule_"
_SHARED: Final = {"name", "lr_from_trial", *TRUNK_OPTIONS} | {
    each.name for base in (Schedule, OneLabel) for each in fields(base)
}


def loss_prefix(name: str) -> str:
    """Return what a recipe puts before the names of the options that one loss has of its own.

    Args:
        name: The loss's name in recipes.

    Returns:
        The name and an underscore.
    """
    return f"{name}_"


def list_own_options(section: type[Optimizer | Schedule | Loss], prefix: str = "") -> Options:
    """List the options that an optimizer, a schedule or a loss has of its own.

    Args:
        section: The dataclass of its options.
        prefix: What a recipe puts before the names of its options.

    Returns:
        The default of each option by its name in recipes; None: there is none, it follows from what is trained, or it
        is not written into recipes that do not give it.
    """
    return {
        f"{prefix}{option.name}": option.default if _is_written(option) else None
        for option in fields(section)
        if option.name not in _SHARED
    }


def _is_written(option: Field[Any]) -> bool:
    """Whether the default of an option is written into recipes that do not give it."""
    return option.default not in (MISSING, "end") and bool(option.metadata.get("written", True))


def _list_optimizer_options(section: type[Optimizer]) -> Options:
    own = list_own_options(section)
    return {**(SOLVED_OPTIONS if section is LBFGS else STEP_OPTIONS), **own}


# What each optimizer uses, and each schedule and loss beside that.
OPTIMIZER_OPTIONS: Final[Mapping[str, Options]] = {
    name: _list_optimizer_options(OPTIMIZERS.get(name)) for name in OPTIMIZERS.entries
}
OWN_OPTIMIZER: Final = _list_optimizer_options(CustomOptimizer)
SCHEDULE_OPTIONS: Final[Mapping[str, Options]] = {
    name: list_own_options(SCHEDULES.get(name), SCHEDULE_PREFIX) for name in SCHEDULES.entries
}
LOSS_OPTIONS: Final[Mapping[str, Options]] = {
    name: list_own_options(LOSSES.get(name), loss_prefix(name)) for name in LOSSES.entries
}
OF_ONE_LABEL: Final = ("label_smoothing", "balanced_sampling", "logit_adjustment")
FINER: Final = {name for table in (SCHEDULE_OPTIONS, LOSS_OPTIONS) for names in table.values() for name in names}

# The options of the small networks; what depends on `widths` is filled in by `recipe`.
NORM_OPTIONS: Final[Options] = {"norm_momentum": 0.1, "norm_affine": True}
SMALL_NETWORK_OPTIONS: Final[Mapping[str, Options]] = {
    name: OWN_NETWORKS.get(name).options for name in OWN_NETWORKS.entries
}
SURGERY: Final = frozenset(  # the options that decide how a network is built
    {"freeze", "cut", "pool", "taps", "head", "dropout", "batch_norm", "channels", "size", *NORM_OPTIONS}
    | {name for options in SMALL_NETWORK_OPTIONS.values() for name in options}
)
MOVING: Final = list_moving_options()  # what needs a `fill`
ALWAYS_TOLD: Final = frozenset(
    {"model", "weights", "freeze", "head", "size", "resize", "optimizer", "epochs", "batch", "weight_decay", "seed"}
)
OF_PLAIN_STEPS: Final = ("epochs", "batch", "weight_decay", "seed")
DURATION: Final = "time"  # the option that may be written with units


@dataclass(frozen=True, eq=False)
class NameOf:
    """A validator for options that name an entry of a registry, or a user's own code.

    Attributes:
        entries: The entries of the registry.
    """

    entries: Mapping[str, object]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the registry, in its order."""
        return tuple(self.entries)

    def __call__(self, name: str) -> str:
        """Check a name.

        Args:
            name: A name of the registry, or `package.module:name`.

        Returns:
            The name.

        Raises:
            ValueError: It is neither.
        """
        if name in self.entries or is_entry_point(name):
            return name
        *others, last = map(repr, self.names)
        raise ValueError(f"input should be {', '.join(others)} or {last}, or your own as package.module:name")
