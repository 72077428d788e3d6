"""The optimizers: the options of each, with the values that stand in, and what makes it.

The rates are those of torch.optim, but ten times its rate for SGD.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from budwood.config.registry import Registry

Decay = Literal["l2", "decoupled"]
NOT_WRITTEN: Final = {"written": False}  # of newer options: recipes that do not give them are written as in 0.1


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
class StepOptimizer:
    """The options of every optimizer that takes steps.

    Attributes:
        lr: Learning rate of the head before any schedule.
        weight_decay: Strength of the weight decay.
        layer_decay: Factor on the rate for each stage further from the head.
        decay_norms: Whether weight decay acts on biases and norms, too.
        lr_from_trial: Whether a trial has yet to find the rate; `lr` stands in for it until then.
        name: Name in recipes.
    """

    function: ClassVar[str] = ""  # what makes it of parameter groups and its own options, as `module:name`
    lr: float
    weight_decay: float = 0.0
    layer_decay: float = 1.0
    decay_norms: bool = True
    lr_from_trial: bool = False
    name: str = ""


@dataclass(frozen=True)
class SGD(StepOptimizer):
    """Stochastic gradient descent.

    The default rate is ten times that of torch.optim.

    Attributes:
        lr: Learning rate of the head.
        momentum: Momentum, from 0 to under 1.
        nesterov: Whether the momentum is Nesterov's.
        name: Name in recipes.
    """

    function = "torch.optim:SGD"
    lr: float = 1e-2
    momentum: float = 0.9
    nesterov: bool = False
    name: Literal["sgd"] = "sgd"


@dataclass(frozen=True)
class Adam(StepOptimizer):
    """Adam (Kingma and Ba 2015).

    Attributes:
        lr: Learning rate of the head.
        decay: How weight decay acts: `l2` adds it to the gradient, `decoupled` takes it off the weights.
        name: Name in recipes.
    """

    function = "budwood.training.optimizers:make_adam"
    lr: float = 1e-3
    decay: Decay = field(default="l2", metadata=NOT_WRITTEN)
    name: Literal["adam"] = "adam"


@dataclass(frozen=True)
class AdamW(StepOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Attributes:
        lr: Learning rate of the head.
        weight_decay: Strength of the decoupled weight decay.
        name: Name in recipes.
    """

    function = "torch.optim:AdamW"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    name: Literal["adamw"] = "adamw"


@dataclass(frozen=True)
class NAdam(StepOptimizer):
    """Adam with Nesterov's momentum (Dozat 2016).

    Attributes:
        lr: Learning rate of the head.
        decay: How weight decay acts: `l2` adds it to the gradient, `decoupled` takes it off the weights.
        name: Name in recipes.
    """

    function = "budwood.training.optimizers:make_nadam"
    lr: float = 2e-3
    decay: Decay = field(default="l2", metadata=NOT_WRITTEN)
    name: Literal["nadam"] = "nadam"


@dataclass(frozen=True)
class Adamax(StepOptimizer):
    """The variant of Adam by the infinity norm (Kingma and Ba 2015).

    Attributes:
        lr: Learning rate of the head.
        decay: How weight decay acts: `l2` adds it to the gradient, `decoupled` takes it off the weights.
        name: Name in recipes.
    """

    function = "budwood.training.optimizers:make_adamax"
    lr: float = 2e-3
    decay: Decay = field(default="l2", metadata=NOT_WRITTEN)
    name: Literal["adamax"] = "adamax"


@dataclass(frozen=True)
class Adagrad(StepOptimizer):
    """Adagrad (Duchi et al. 2011).

    Attributes:
        lr: Learning rate of the head.
        name: Name in recipes.
    """

    function = "torch.optim:Adagrad"
    lr: float = 1e-2
    name: Literal["adagrad"] = "adagrad"


@dataclass(frozen=True)
class Adadelta(StepOptimizer):
    """Adadelta (Zeiler 2012).

    Attributes:
        lr: Learning rate of the head.
        name: Name in recipes.
    """

    function = "torch.optim:Adadelta"
    lr: float = 1.0
    name: Literal["adadelta"] = "adadelta"


@dataclass(frozen=True)
class RMSprop(StepOptimizer):
    """RMSprop (Tieleman and Hinton 2012), with momentum where it is not 0.

    Attributes:
        lr: Learning rate of the head.
        momentum: Momentum, from 0 to under 1.
        name: Name in recipes.
    """

    function = "torch.optim:RMSprop"
    lr: float = 1e-2
    momentum: float = 0.0
    name: Literal["rmsprop"] = "rmsprop"


@dataclass(frozen=True)
class CustomOptimizer(StepOptimizer):
    """A user's own optimizer: `name` is a function of parameter groups, `lr` and `weight_decay`.

    Attributes:
        lr: Learning rate of the head.
    """

    lr: float = 1e-3


Optimizer = LBFGS | StepOptimizer
OPTIMIZERS: Final[Registry[type[Optimizer]]] = Registry(
    "optimizer",
    {each.name: each for each in (LBFGS, SGD, Adam, AdamW, NAdam, Adamax, Adagrad, Adadelta, RMSprop)},
)
