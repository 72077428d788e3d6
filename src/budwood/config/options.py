"""The options of a recipe: their words, what each optimizer, schedule and loss has of its own, and what stands in.

Each optimizer, schedule and loss is a frozen record of its options, with the values that stand in where none is given.
Its name is that of an entry in a table here, and in the table of what carries it out (`optimizers`, `schedules`,
`losses`). A recipe may name a user's own as `package.module:name`. Nothing here loads PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final, Literal

from budwood.config.own_networks import OWN_NETWORKS
from budwood.config.registry import Registry, is_entry_point

Resize = Literal["crop", "pad", "squash"]
Policy = Literal["none", "randaugment", "trivialaugment"]
Precision = Literal["auto", "float32", "bfloat16"]
TtaMode = Literal["none", "flip", "flips"]
Fill = Literal["reflect", "border", "black"]
Pool = Literal["own", "avg", "max", "avgmax", "flatten", "token"]
Init = Literal["default", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal"]
Activation = Literal["elu", "gelu", "leaky_relu", "relu", "silu", "tanh"]
Per = Literal["epoch", "step"]


# Optimizers. The rates are those of torch.optim, but ten times its rate for SGD.


@dataclass(frozen=True)
class LBFGS:
    """The solver of a linear head.

    Attributes:
        regularisation: Strength of the L2 penalty, or auto: chosen on validation.
        name: Name in recipes.
    """

    regularisation: float | Literal["auto"] = "auto"
    name: Literal["lbfgs"] = "lbfgs"


@dataclass(frozen=True)
class Steps:
    """The options of every optimizer that takes steps.

    Attributes:
        lr: Learning rate of the head before any schedule.
        weight_decay: Strength of the weight decay.
        layer_decay: Factor on the rate for each stage further from the head.
        decay_norms: Whether weight decay acts on biases and norms, too.
        lr_from_trial: Whether a trial has yet to find the rate; `lr` stands in for it until then.
    """

    lr: float
    weight_decay: float = 0.0
    layer_decay: float = 1.0
    decay_norms: bool = True
    lr_from_trial: bool = False


@dataclass(frozen=True)
class SGD(Steps):
    """Stochastic gradient descent.

    The default rate is ten times that of torch.optim.

    Attributes:
        lr: Learning rate of the head.
        momentum: Momentum, from 0 to under 1.
        nesterov: Whether the momentum is Nesterov's.
        name: Name in recipes.
    """

    lr: float = 1e-2
    momentum: float = 0.9
    nesterov: bool = False
    name: Literal["sgd"] = "sgd"


@dataclass(frozen=True)
class Adam(Steps):
    """Adam (Kingma and Ba 2015).

    Attributes:
        lr: Learning rate of the head.
        name: Name in recipes.
    """

    lr: float = 1e-3
    name: Literal["adam"] = "adam"


@dataclass(frozen=True)
class AdamW(Steps):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Attributes:
        lr: Learning rate of the head.
        weight_decay: Strength of the decoupled weight decay.
        name: Name in recipes.
    """

    lr: float = 1e-3
    weight_decay: float = 1e-2
    name: Literal["adamw"] = "adamw"


@dataclass(frozen=True)
class NAdam(Steps):
    """Adam with Nesterov's momentum (Dozat 2016).

    Attributes:
        lr: Learning rate of the head.
        name: Name in recipes.
    """

    lr: float = 2e-3
    name: Literal["nadam"] = "nadam"


@dataclass(frozen=True)
class Adamax(Steps):
    """The variant of Adam by the infinity norm (Kingma and Ba 2015).

    Attributes:
        lr: Learning rate of the head.
        name: Name in recipes.
    """

    lr: float = 2e-3
    name: Literal["adamax"] = "adamax"


@dataclass(frozen=True)
class Adagrad(Steps):
    """Adagrad (Duchi et al. 2011).

    Attributes:
        lr: Learning rate of the head.
        name: Name in recipes.
    """

    lr: float = 1e-2
    name: Literal["adagrad"] = "adagrad"


@dataclass(frozen=True)
class Adadelta(Steps):
    """Adadelta (Zeiler 2012).

    Attributes:
        lr: Learning rate of the head.
        name: Name in recipes.
    """

    lr: float = 1.0
    name: Literal["adadelta"] = "adadelta"


@dataclass(frozen=True)
class RMSprop(Steps):
    """RMSprop (Tieleman and Hinton 2012), with momentum where it is not 0.

    Attributes:
        lr: Learning rate of the head.
        momentum: Momentum, from 0 to under 1.
        name: Name in recipes.
    """

    lr: float = 1e-2
    momentum: float = 0.0
    name: Literal["rmsprop"] = "rmsprop"


@dataclass(frozen=True)
class CustomOptimizer(Steps):
    """A user's own optimizer.

    Attributes:
        lr: Learning rate of the head.
        name: `package.module:name` of a function from parameter groups, `lr` and `weight_decay` to an optimizer.
    """

    lr: float = 1e-3
    name: str = ""


StepOptimizer = SGD | Adam | AdamW | NAdam | Adamax | Adagrad | Adadelta | RMSprop | CustomOptimizer
Optimizer = LBFGS | StepOptimizer
OPTIMIZERS: Final[Registry[type[Optimizer]]] = Registry(
    "optimizer",
    {each.name: each for each in (LBFGS, SGD, Adam, AdamW, NAdam, Adamax, Adagrad, Adadelta, RMSprop)},
)


# Schedules


@dataclass(frozen=True)
class Warm:
    """The options of every schedule.

    Attributes:
        warmup: Epochs in which the rate grows to the schedule's own value.
    """

    warmup: float


@dataclass(frozen=True)
class Constant(Warm):
    """A learning rate that stays the same.

    Attributes:
        name: Name in recipes.
    """

    name: Literal["constant"] = "constant"


@dataclass(frozen=True)
class StepDecay(Warm):
    """A learning rate that is multiplied by a factor at regular intervals.

    Attributes:
        every: Epochs between changes.
        factor: Factor of a change.
        by: Whether epochs are counted whole (`epoch`) or as fractions (`step`).
        name: Name in recipes.
    """

    every: int = 10
    factor: float = 0.1
    by: Per = "epoch"
    name: Literal["step"] = "step"


@dataclass(frozen=True, kw_only=True)
class MultiStep(Warm):
    """A learning rate that is multiplied by a factor at given epochs.

    Attributes:
        at: Epochs of the changes.
        factor: Factor of a change.
        by: Whether epochs are counted whole (`epoch`) or as fractions (`step`).
        name: Name in recipes.
    """

    at: tuple[int, ...]
    factor: float = 0.1
    by: Per = "epoch"
    name: Literal["multistep"] = "multistep"


@dataclass(frozen=True)
class Cosine(Warm):
    """A learning rate that falls to 0 along a cosine.

    Attributes:
        t_max: Epochs until the rate is 0; end: all of them.
        by: Whether the rate changes every epoch or every step.
        name: Name in recipes.
    """

    t_max: float | Literal["end"] = "end"
    by: Per = "step"
    name: Literal["cosine"] = "cosine"


@dataclass(frozen=True)
class OneCycle(Warm):
    """A learning rate that rises and falls in one cycle over the whole training (Smith and Topin 2019).

    Attributes:
        name: Name in recipes.
    """

    name: Literal["onecycle"] = "onecycle"


@dataclass(frozen=True)
class Plateau(Warm):
    """A learning rate that is multiplied by a factor whenever the validation loss stops falling.

    Attributes:
        patience: Epochs without a lower validation loss that are tolerated before a change.
        factor: Factor of a change.
        name: Name in recipes.
    """

    patience: int = 3
    factor: float = 0.1
    name: Literal["plateau"] = "plateau"


@dataclass(frozen=True)
class CustomSchedule(Warm):
    """A user's own schedule.

    Attributes:
        name: `package.module:name` of a function from the share of training done (0 to 1) to a factor.
    """

    name: str = ""


Schedule = Constant | StepDecay | MultiStep | Cosine | OneCycle | Plateau | CustomSchedule
SCHEDULES: Final[Registry[type[Schedule]]] = Registry(
    "schedule", {each.name: each for each in (Constant, StepDecay, MultiStep, Cosine, OneCycle, Plateau)}
)


# Losses


@dataclass(frozen=True)
class OneLabel:
    """The options of losses for images with one label.

    Attributes:
        label_smoothing: Share of the target that is spread over all classes.
        class_weights: Whether rare classes weigh more.
        logit_adjustment: Strength of logit adjustment (Menon et al. 2021); 1 is full, 0 none.
    """

    label_smoothing: float = 0.0
    class_weights: bool = False
    logit_adjustment: float = 0.0


@dataclass(frozen=True)
class CrossEntropy(OneLabel):
    """Cross-entropy.

    Attributes:
        name: Name in recipes.
    """

    name: Literal["cross_entropy"] = "cross_entropy"


@dataclass(frozen=True)
class Focal(OneLabel):
    """Cross-entropy in which confident predictions count less (Lin et al. 2017).

    Attributes:
        gamma: How much less they count; 0: as much as others.
        name: Name in recipes.
    """

    gamma: float = 2.0
    name: Literal["focal"] = "focal"


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Binary cross-entropy, in which every class is a yes or no of its own.

    Attributes:
        name: Name in recipes.
    """

    name: Literal["binary_cross_entropy"] = "binary_cross_entropy"


@dataclass(frozen=True)
class CustomLoss(OneLabel):
    """A user's own loss.

    Attributes:
        name: `package.module:name` of a function from logits and targets to a loss for each image.
    """

    name: str = ""


Loss = CrossEntropy | Focal | BinaryCrossEntropy | CustomLoss
LOSSES: Final[Registry[type[Loss]]] = Registry(
    "loss", {each.name: each for each in (CrossEntropy, Focal, BinaryCrossEntropy)}
)


# How images may be changed at random, and the values at which they are not.
AUGMENTATIONS: Final[Mapping[str, Any]] = {
    "flip": 0.0,
    "flip_vertical": 0.0,
    "rotation": 0.0,
    "shift_x": 0.0,
    "shift_y": 0.0,
    "shear": 0.0,
    "zoom": 0.0,
    "crop_padding": 0,
    "crop_scale": None,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "erase": 0.0,
    "policy": "none",
    "transform": None,
}
# What every optimizer that takes steps uses, and the value that stands in when none is given; None: nothing does.
STEP_OPTIONS: Final[Mapping[str, Any]] = {
    **AUGMENTATIONS,
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
    "phases": None,
    "patience": None,
    "precision": "auto",
    "seed": 0,
}
TRUNK_OPTIONS: Final = {"layer_decay": 1.0, "decay_norms": True}  # of an optimizer that trains more than a linear head
FINE_TUNING: Final = 0.3  # of an optimizer's own rate, where pretrained stages are trained; BENCHMARKS.md, "Small data"


def own_options(section: type[Any], prefix: str = "") -> dict[str, Any]:
    """Return the options that an optimizer, a schedule or a loss has of its own.

    Args:
        section: The dataclass of its options.
        prefix: What a recipe puts before the names of its options.

    Returns:
        The default of each option by its name in recipes; None: there is none, or it follows from what is trained.
    """
    shared = {"name", "lr_from_trial", *TRUNK_OPTIONS} | {
        each.name for base in (Warm, OneLabel) for each in fields(base)
    }
    return {
        f"{prefix}{option.name}": None if option.default in (MISSING, "end") else option.default
        for option in fields(section)
        if option.name not in shared
    }


SCHEDULE_PREFIX: Final = "schedule_"
LOSS_PREFIX: Final = "focal_"


def _of_optimizer(section: type[Any]) -> dict[str, Any]:
    return own_options(section) if section is LBFGS else {**STEP_OPTIONS, **own_options(section)}


# What each optimizer uses, and each schedule and loss beside that.
OPTIMIZER_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    name: _of_optimizer(OPTIMIZERS.get(name)) for name in OPTIMIZERS.entries
}
OWN_OPTIMIZER: Final[Mapping[str, Any]] = _of_optimizer(CustomOptimizer)
SCHEDULE_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    name: own_options(SCHEDULES.get(name), SCHEDULE_PREFIX) for name in SCHEDULES.entries
}
LOSS_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    name: own_options(LOSSES.get(name), LOSS_PREFIX) for name in LOSSES.entries
}
OF_ONE_LABEL: Final = ("label_smoothing", "class_weights", "balanced_sampling", "logit_adjustment")
FINER: Final = {name for table in (SCHEDULE_OPTIONS, LOSS_OPTIONS) for names in table.values() for name in names}

# The options of the small networks; what depends on `widths` is filled in by `recipe`.
NORM_OPTIONS: Final = {"norm_momentum": 0.1, "norm_affine": True}
SMALL_NETWORK_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    name: OWN_NETWORKS.get(name).options for name in OWN_NETWORKS.entries
}
SURGERY: Final = frozenset(  # the options that decide how a network is built
    {"freeze", "cut", "pool", "head", "dropout", "batch_norm", "channels", "size", *NORM_OPTIONS}
    | {name for options in SMALL_NETWORK_OPTIONS.values() for name in options}
)
MOVING: Final = ("rotation", "shift_x", "shift_y", "shear", "zoom", "crop_padding")  # what needs a `fill`
ALWAYS_TOLD: Final = frozenset(
    {"model", "weights", "freeze", "head", "size", "resize", "optimizer", "epochs", "batch", "weight_decay", "seed"}
)
OF_PLAIN_STEPS: Final = ("epochs", "batch", "weight_decay", "seed")
DURATION: Final = "time"  # the option that may be written with units


@dataclass(frozen=True, eq=False)
class NameOf:
    """A validator for options that name an entry of a registry, or a user's own code.

    Attributes:
        table: The registry.
    """

    table: Registry[Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the registry, in its order."""
        return tuple(self.table.entries)

    def __call__(self, name: str) -> str:
        """Check a name.

        Args:
            name: A name of the registry, or `package.module:name`.

        Returns:
            The name.

        Raises:
            ValueError: It is neither.
        """
        if name in self.table or is_entry_point(name):
            return name
        *others, last = map(repr, self.names)
        raise ValueError(f"input should be {', '.join(others)} or {last}, or your own as package.module:name")


def entry_point(name: str) -> str:
    """Check that a name is of the form `package.module:name`.

    Args:
        name: The name.

    Returns:
        The name.

    Raises:
        ValueError: It is not of that form.
    """
    if not is_entry_point(name):
        raise ValueError("expected your own as package.module:name")
    return name
