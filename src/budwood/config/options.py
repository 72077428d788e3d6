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
    """A linear head is solved; `regularisation` is the strength of its L2 penalty, or auto: validation decides."""

    regularisation: float | Literal["auto"] = "auto"
    name: Literal["lbfgs"] = "lbfgs"


@dataclass(frozen=True)
class Steps:
    """What every optimizer that takes steps has.

    `lr` is the rate of the head before any schedule; each stage before it has that of the next times `layer_decay`.
    Where `lr_from_trial`, a trial is yet to find the rate, and `lr` stands in for it. Biases and norms have no weight
    decay unless `decay_norms`.
    """

    lr: float
    weight_decay: float = 0.0
    layer_decay: float = 1.0
    decay_norms: bool = True
    lr_from_trial: bool = False


@dataclass(frozen=True)
class SGD(Steps):
    """Stochastic gradient descent."""

    lr: float = 1e-2
    momentum: float = 0.9
    nesterov: bool = False
    name: Literal["sgd"] = "sgd"


@dataclass(frozen=True)
class Adam(Steps):
    """Adam (Kingma and Ba 2015)."""

    lr: float = 1e-3
    name: Literal["adam"] = "adam"


@dataclass(frozen=True)
class AdamW(Steps):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    lr: float = 1e-3
    weight_decay: float = 1e-2
    name: Literal["adamw"] = "adamw"


@dataclass(frozen=True)
class NAdam(Steps):
    """Adam with Nesterov's momentum (Dozat 2016)."""

    lr: float = 2e-3
    name: Literal["nadam"] = "nadam"


@dataclass(frozen=True)
class Adamax(Steps):
    """Adam by the largest gradient (Kingma and Ba 2015)."""

    lr: float = 2e-3
    name: Literal["adamax"] = "adamax"


@dataclass(frozen=True)
class Adagrad(Steps):
    """Adagrad (Duchi et al. 2011)."""

    lr: float = 1e-2
    name: Literal["adagrad"] = "adagrad"


@dataclass(frozen=True)
class Adadelta(Steps):
    """Adadelta (Zeiler 2012)."""

    lr: float = 1.0
    name: Literal["adadelta"] = "adadelta"


@dataclass(frozen=True)
class RMSprop(Steps):
    """RMSprop (Tieleman and Hinton 2012), with momentum where it is not 0."""

    lr: float = 1e-2
    momentum: float = 0.0
    name: Literal["rmsprop"] = "rmsprop"


@dataclass(frozen=True)
class CustomOptimizer(Steps):
    """A user's own: `name` is `package.module:name` of what makes it of parameter groups, lr and weight_decay."""

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
    """What every schedule has: `warmup`, the epochs in which the rate grows to the schedule's own value."""

    warmup: float


@dataclass(frozen=True)
class Constant(Warm):
    """The rate stays."""

    name: Literal["constant"] = "constant"


@dataclass(frozen=True)
class StepDecay(Warm):
    """Times `factor` every so many epochs."""

    every: int = 10
    factor: float = 0.1
    by: Per = "epoch"
    name: Literal["step"] = "step"


@dataclass(frozen=True, kw_only=True)
class MultiStep(Warm):
    """Times `factor` at each of some epochs."""

    at: tuple[int, ...]
    factor: float = 0.1
    by: Per = "epoch"
    name: Literal["multistep"] = "multistep"


@dataclass(frozen=True)
class Cosine(Warm):
    """Down to 0 along a cosine in `t_max` epochs, or by the end of training."""

    t_max: float | Literal["end"] = "end"
    by: Per = "step"
    name: Literal["cosine"] = "cosine"


@dataclass(frozen=True)
class OneCycle(Warm):
    """Up and down in one cycle over the whole training (Smith and Topin 2019)."""

    name: Literal["onecycle"] = "onecycle"


@dataclass(frozen=True)
class Plateau(Warm):
    """Times `factor` whenever the validation loss has not fallen for more than `patience` epochs."""

    patience: int = 3
    factor: float = 0.1
    name: Literal["plateau"] = "plateau"


@dataclass(frozen=True)
class CustomSchedule(Warm):
    """A user's own: `name` is `package.module:name` of a function from the share of training done to a factor."""

    name: str = ""


Schedule = Constant | StepDecay | MultiStep | Cosine | OneCycle | Plateau | CustomSchedule
SCHEDULES: Final[Registry[type[Schedule]]] = Registry(
    "schedule", {each.name: each for each in (Constant, StepDecay, MultiStep, Cosine, OneCycle, Plateau)}
)


# Losses


@dataclass(frozen=True)
class OneLabel:
    """What losses of images with one label have: the share of a target that is spread over all classes, whether rare
    classes weigh more, and the strength of logit adjustment (Menon et al. 2021)."""

    label_smoothing: float = 0.0
    class_weights: bool = False
    logit_adjustment: float = 0.0


@dataclass(frozen=True)
class CrossEntropy(OneLabel):
    """Cross-entropy."""

    name: Literal["cross_entropy"] = "cross_entropy"


@dataclass(frozen=True)
class Focal(OneLabel):
    """Cross-entropy in which sure answers count less, the more so the larger `gamma` (Lin et al. 2017)."""

    gamma: float = 2.0
    name: Literal["focal"] = "focal"


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Every class is a yes or no of its own."""

    name: Literal["binary_cross_entropy"] = "binary_cross_entropy"


@dataclass(frozen=True)
class CustomLoss(OneLabel):
    """A user's own: `name` is `package.module:name` of a function from logits and targets to a loss for each image."""

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
        section: Its record.
        prefix: What a recipe puts before the names of its options.

    Returns:
        The recipe's names of the options with the values that stand in for them; None: none does, or it follows from
        what is trained.
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
    """Marks the type of an option that names an entry of a table, or a user's own as `package.module:name`."""

    table: Registry[Any]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the table, in its order."""
        return tuple(self.table.entries)

    def __call__(self, name: str) -> str:
        """Return the name; raises `ValueError` where it is neither."""
        if name in self.table or is_entry_point(name):
            return name
        *others, last = map(repr, self.names)
        raise ValueError(f"input should be {', '.join(others)} or {last}, or your own as package.module:name")


def entry_point(name: str) -> str:
    """Return a name of the form `package.module:name`; raises `ValueError` where it is not of that form."""
    if not is_entry_point(name):
        raise ValueError("expected your own as package.module:name")
    return name
