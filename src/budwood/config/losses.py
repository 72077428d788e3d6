"""The losses: the options of each, with the values that stand in, the labels it is for, and what computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from budwood.config.registry import Registry


@dataclass(frozen=True)
class Loss:
    """The options of every loss.

    Attributes:
        name: Name in recipes.
    """

    function: ClassVar[str] = ""  # from the options and what is known of the classes to a loss, as `module:name`
    single_label: ClassVar[bool] = True  # whether it is for images with one label
    multilabel: ClassVar[bool] = True  # whether it is for images with several
    name: str = ""


@dataclass(frozen=True)
class OneLabel(Loss):
    """The options of losses for images with one label.

    Attributes:
        label_smoothing: Share of the target that is spread over all classes.
        class_weights: Whether rare classes weigh more.
        logit_adjustment: Strength of logit adjustment (Menon et al. 2021); 1 is full, 0 none.
    """

    multilabel = False
    label_smoothing: float = 0.0
    class_weights: bool = False
    logit_adjustment: float = 0.0


@dataclass(frozen=True)
class CrossEntropy(OneLabel):
    """Cross-entropy.

    Attributes:
        name: Name in recipes.
    """

    function = "budwood.training.losses:make_cross_entropy"
    name: Literal["cross_entropy"] = "cross_entropy"


@dataclass(frozen=True)
class Focal(OneLabel):
    """Cross-entropy, or binary cross-entropy of several labels, in which confident predictions count less.

    It is that of Lin et al. 2017, without their alpha: `class_weights` are there for imbalance.

    Attributes:
        gamma: How much less they count; 0: as much as others.
        name: Name in recipes.
    """

    function = "budwood.training.losses:make_focal_loss"
    multilabel = True
    gamma: float = 2.0
    name: Literal["focal"] = "focal"


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Binary cross-entropy, in which every class is a yes or no of its own.

    Attributes:
        class_weights: Whether the images that have a rare label weigh more in it.
        name: Name in recipes.
    """

    function = "budwood.training.losses:make_binary_cross_entropy"
    single_label = False
    class_weights: bool = False
    name: Literal["binary_cross_entropy"] = "binary_cross_entropy"


@dataclass(frozen=True)
class CustomLoss(OneLabel):
    """A user's own loss: `name` is a function from logits and targets to a loss for each image, or to their mean."""

    function = "budwood.training.own_losses:make_own_loss"
    multilabel = True


LOSSES: Final[Registry[type[Loss]]] = Registry(
    "loss", {each.name: each for each in (CrossEntropy, Focal, BinaryCrossEntropy)}
)
DEFAULT_LOSS: Final = {False: "cross_entropy", True: "binary_cross_entropy"}  # by whether images have several labels
