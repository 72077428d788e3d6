"""Recipe: everything that decides one experiment, frozen, validated, one TOML table.

Options that the chosen optimizer does not use are refused, not ignored; all mistakes are told at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from budwood.config.augmentations import Fill, Policy
from budwood.config.metric_registry import LAST, SELECTABLE
from budwood.config.notation import normalize_value
from budwood.config.optimizers import Decay
from budwood.config.option_rules import (
    DEFAULT_MODEL,
    PER_CONVOLUTION,
    beyond_solving,
    complete,
    refused_options,
)
from budwood.config.options import (
    ALWAYS_TOLD,
    MOVING,
    NORM_OPTIONS,
    OF_PLAIN_STEPS,
    SMALL_NETWORK_OPTIONS,
    STEP_OPTIONS,
    TRUNK_OPTIONS,
    UNCHANGED,
    Activation,
    FrozenNorm,
    Init,
    Interpolation,
    Options,
    Pool,
    Precision,
    Resize,
    Resizing,
    TrainedNorm,
    TtaMode,
)
from budwood.config.recipe_fields import (
    ConvNorm,
    LossName,
    ModelName,
    OptimizerName,
    OwnAugmentations,
    OwnName,
    Phase,
    ScheduleName,
    Seconds,
    Selection,
    Share,
    Width,
    describe_augmentation,
)
from budwood.config.recipe_mistakes import find_unknown, list_mistakes
from budwood.config.schedules import BETWEEN_EPOCHS, Per
from budwood.config.toml import parse_value, read_toml, write_table
from budwood.display import Displayed
from budwood.errors import RecipeError, did_you_mean

_HEAD: Final = re.compile(r"linear|mlp:[1-9]\d*(,[1-9]\d*)*")


class Recipe(Displayed, BaseModel):
    """The complete description of one experiment, frozen and validated.

    Options that are not given are filled in on construction; values are final. Options that the chosen network,
    optimizer, schedule or loss does not use are refused, not ignored. Each field's description says what it means
    and which value stands in for it; None: it does not apply.

    Raises:
        RecipeError: There are mistakes; one error names them all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model: ModelName = Field(
        DEFAULT_MODEL,
        description="network; `budwood models` lists them; your own: package.module:name",
    )
    weights: str = Field(
        "imagenet",
        description="imagenet, none, a file (.pth, .safetensors), or run:ID of an earlier run of this network",
    )
    freeze: str | tuple[str, ...] = Field(
        "trunk",
        description="frozen layers: trunk (all before the head), none, upto:STAGE, or parameter names as features.*",
    )
    frozen_norm: FrozenNorm | None = Field(
        None,
        description="batch norm of frozen layers: eval keeps its statistics, as frozen; train uses those of each batch "
        "and goes on averaging them, as plain PyTorch does with requires_grad = False (default eval)",
    )
    trained_norm: TrainedNorm | None = Field(
        None,
        description="batch norm of trained layers: train uses the statistics of each batch; eval keeps those that the "
        "weights came with, as module.eval() does in PyTorch, and trains scale and shift alone (default train)",
    )
    cut: str | None = Field(None, description="last stage to keep; later stages are removed")
    pool: Pool = Field("own", description="pooling of the last feature map; own: as in the network, avg after a cut")
    taps: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="earlier stages that the head sees, too, as blocks.3,blocks.4: the mean of each over the image, "
        "beside the trunk's output",
    )
    head: str = Field(
        "linear", description="new head: linear, or mlp: and layer widths such as mlp:1024 or mlp:4096,4096"
    )
    dropout: Share = Field(0.0, description="dropout before the last layer and after hidden fully connected layers")
    batch_norm: bool = Field(False, description="batch norm in the head, and in hidden fully connected layers")
    init: Init = Field("default", description="initialisation of new weights")
    channels: Literal[1, 3] = Field(3, description="input channels; 1: greyscale, 3: colour")
    size: int | None = Field(
        None, ge=8, le=1024, description="width and height of the input in pixels [the network's own]"
    )
    size_start: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="width and height of training images at the start, in pixels; they grow to size in steps of 32, "
        "each with an equal share of training, which is faster; validation is at full size (default size)",
    )
    resize: Resize = Field("crop", description="how an image is made square")
    interpolation: Interpolation | None = Field(
        None,
        description="how the pixels of a resized image are computed; area is the mean of what each covers, nearest one "
        "pixel of it (default bicubic)",
    )
    tta: TtaMode = Field(
        "none",
        description="test-time augmentation: average the logits over the image and its mirror image (flip), "
        "or all four flips (flips)",
    )
    fc: tuple[Width, ...] | None = Field(None, description="mlp, cnn, vgg-small: widths of fully connected layers")
    activation: Activation | None = Field(None, description="mlp, cnn, vgg-small: activation function (default relu)")
    widths: tuple[Width, ...] | None = Field(None, min_length=1, description="cnn: widths of the convolutions")
    kernels: tuple[Width, ...] | None = Field(None, description="cnn: their kernels (default 5, then 3)")
    strides: tuple[Width, ...] | None = Field(None, description="cnn: their strides (default 2, then 1)")
    pools: tuple[Width, ...] | None = Field(None, description="cnn: max-pooling after each (default 1, at last 2)")
    padding: int | None = Field(None, ge=0, description="cnn: padding of the convolutions (default 0)")
    blocks: tuple[Annotated[tuple[Width, ...], Field(min_length=1)], ...] | None = Field(
        None, min_length=1, description="vgg-small: widths of the convolutions of each block, as [[64,64],[128,128]]"
    )
    conv_norm: ConvNorm | None = Field(
        None,
        description="cnn, vgg-small: batch norm after every convolution (true) or none (false); vgg-small: between "
        "those of a block, not after its last (between)",
    )
    norm_momentum: float | None = Field(None, ge=0, le=1, description="cnn, vgg-small: its momentum (default 0.1)")
    norm_affine: bool | None = Field(None, description="cnn, vgg-small: whether it scales and shifts (default true)")
    optimizer: OptimizerName = Field(
        "lbfgs",
        description="lbfgs solves a linear head on frozen layers; the others train in steps (adam if more is trained)",
    )
    regularisation: Literal["auto"] | NonNegativeFloat | None = Field(
        None, description="lbfgs: strength of the L2 penalty, or auto: chosen on the validation set"
    )
    epochs: int | None = Field(None, ge=1, description="passes over the training images (default 10)")
    time: Seconds | None = Field(
        None, gt=0, description="time limit of the whole command, such as 90s, 10m or 1.5h; schedules are adapted to it"
    )
    phases: tuple[Phase, ...] | None = Field(
        None,
        min_length=2,
        description="train in phases, each with its own freeze, epochs and lr, such as "
        '[{freeze="trunk",epochs=5,lr=1e-3},{freeze="none",epochs=9,lr=1e-4}]',
    )
    batch: int | None = Field(None, ge=1, description="batch size: images per step (default 64)")
    accumulate: int | None = Field(None, ge=1, description="gradient accumulation: batches per step (default 1)")
    lr: Literal["auto"] | Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="learning rate, or auto: found automatically (default depends on the optimizer; "
        "0.3 times that if pretrained stages are trained)",
    )
    momentum: float | None = Field(None, ge=0, description="sgd, rmsprop: momentum, under 1 (default 0.9, 0)")
    nesterov: bool | None = Field(None, description="sgd: Nesterov momentum (default false)")
    weight_decay: float | None = Field(
        None, ge=0, description="strength of weight decay, an L2 penalty; adamw: decoupled (default 0; adamw 0.01)"
    )
    decay: Decay | None = Field(
        None,
        description="adam, nadam, adamax: how weight decay acts; l2 adds it to the gradient, decoupled takes "
        "lr * weight_decay of the weights off before each step, as adamw does (default l2)",
    )
    decay_norms: bool | None = Field(None, description="whether weight decay acts on biases and norms (default true)")
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="layer-wise decay: factor of the learning rate for each stage further from the head (default 1)",
    )
    clip: float | None = Field(None, gt=0, description="gradient clipping: largest norm of the gradient")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of the moving average (EMA) of the weights, which is evaluated and kept"
    )
    probe: bool | None = Field(
        None,
        description="whether the head is solved on the frozen trunk first, and training starts from there instead of "
        "from a random head (default false)",
    )
    wise_ft: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="weights kept at the end: this share of those trained and the rest of those that training started "
        "from (WiSE-FT); auto: the share that validation prefers (default: those trained)",
    )
    schedule: ScheduleName | None = Field(None, description="how the learning rate changes (default constant)")
    warmup: float | None = Field(
        None, ge=0, description="warm-up: epochs in which the learning rate increases to its value (default 0)"
    )
    schedule_by: Per | None = Field(
        None, description="cosine: when it changes (default step; step and multistep change by epoch)"
    )
    schedule_every: int | None = Field(None, ge=1, description="step: epochs between changes (default 10)")
    schedule_at: tuple[Width, ...] | None = Field(None, min_length=1, description="multistep: epochs of the changes")
    schedule_factor: float | None = Field(
        None, gt=0, lt=1, description="step, multistep, plateau: factor of a change (default 0.1)"
    )
    schedule_t_max: float | None = Field(
        None, gt=0, description="cosine: epochs until the learning rate is 0 (default: all)"
    )
    schedule_patience: int | None = Field(
        None, ge=0, description="plateau: epochs without a lower validation loss before a change (default 3)"
    )
    loss: LossName | None = Field(
        None,
        description="loss function (default cross_entropy; binary_cross_entropy for multi-label data)",
    )
    focal_gamma: float | None = Field(
        None, ge=0, description="focal: gamma: how much less confident predictions count (default 2)"
    )
    label_smoothing: float | None = Field(
        None, ge=0, lt=1, description="label smoothing: share of the target spread over all classes"
    )
    class_weights: bool | None = Field(
        None,
        description="whether rare classes have more weight in the loss (multi-label data: images with a rare label)",
    )
    balanced_sampling: bool | None = Field(None, description="whether every class is sampled equally often in an epoch")
    logit_adjustment: float | None = Field(
        None, ge=0, description="strength of logit adjustment for imbalance (1 is full)"
    )
    mixup: float | None = Field(None, ge=0, description="alpha of mixup: pairs of images are blended (default 0: none)")
    cutmix: float | None = Field(
        None, ge=0, description="alpha of CutMix: a box of another image is put in (default 0)"
    )
    flip: float | None = describe_augmentation("flip")
    flip_vertical: float | None = describe_augmentation("flip_vertical")
    rotation: float | None = describe_augmentation("rotation")
    shift_x: float | None = describe_augmentation("shift_x")
    shift_y: float | None = describe_augmentation("shift_y")
    shear: float | None = describe_augmentation("shear")
    zoom: float | None = describe_augmentation("zoom")
    zoom_x: float | None = describe_augmentation("zoom_x")
    zoom_y: float | None = describe_augmentation("zoom_y")
    crop_padding: int | None = describe_augmentation("crop_padding")
    crop_scale: float | None = describe_augmentation("crop_scale")
    brightness: float | None = describe_augmentation("brightness")
    contrast: float | None = describe_augmentation("contrast")
    saturation: float | None = describe_augmentation("saturation")
    hue: float | None = describe_augmentation("hue")
    erase: float | None = describe_augmentation("erase")
    policy: Policy | None = describe_augmentation("policy")
    transform: OwnAugmentations | None = Field(
        None,
        description="your own as package.module:name: a function of a batch and a torch.Generator, or any other of one "
        'image (docs/own_parts.md); several, in order, as a:b,c:d; with options as [{name="a:b",strength=0.5}]',
    )
    fill: Fill | None = Field(None, description="how to fill the area outside a moved image (default reflect)")
    views: int | None = Field(
        None,
        ge=1,
        description="number of augmented versions of each training image, made once, so that frozen layers run "
        "once for each (default: new versions in every epoch)",
    )
    select: Selection | None = Field(
        None,
        description="validation metric that selects the epoch to keep (default loss), or your own package.module:name; "
        "last: the last epoch, whatever validation says: " + ", ".join(SELECTABLE),
    )
    metrics: tuple[OwnName, ...] | None = Field(
        None,
        min_length=1,
        description="metrics of your own as package.module:name, reported with an interval beside the usual ones: "
        "functions of labels and logits; several as a:b,c:d",
    )
    callbacks: tuple[OwnName, ...] | None = Field(
        None,
        min_length=1,
        description="your own as package.module:name, with on_epoch_end or on_step_end, which may stop training; "
        "several, in order, as a:b,c:d",
    )
    patience: int | None = Field(
        None, ge=1, description="early stopping: stop after this many epochs without improvement"
    )
    precision: Precision | None = Field(
        None, description="of the training steps; auto: bfloat16 on a GPU that has it, else float32 (default auto)"
    )
    seed: int | None = Field(None, ge=0, description="random seed of initial weights and image order (default 0)")

    def __init__(self, **options: Any) -> None:
        """Validate the options of a recipe and fill in those that are not given.

        Args:
            **options: Options by name, as TOML or the command line gives them; None counts as not given.

        Raises:
            RecipeError: There are mistakes; one error names them all.
        """
        given = {name: normalize_value(name, value) for name, value in options.items() if value is not None}
        refused = refused_options(given)
        applied = {name: value for name, value in given.items() if name not in refused}
        try:
            super().__init__(**complete(applied))
        except ValidationError as error:
            raise make_recipe_error([*refused.values(), *list_mistakes(error)], find_unknown(error)) from error
        if refused:
            raise make_recipe_error(list(refused.values()))

    @field_validator("momentum")
    @classmethod
    def _converges(cls, momentum: float | None) -> float | None:
        if momentum is not None and momentum >= 1:
            raise ValueError("expected under 1, or the steps grow without bound")
        return momentum

    @field_validator("head")
    @classmethod
    def _is_head(cls, head: str) -> str:
        if not _HEAD.fullmatch(head):
            raise ValueError("expected linear, or mlp: and widths, as mlp:1024 or mlp:4096,4096")
        return head

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        for name in PER_CONVOLUTION:
            values = getattr(self, name)
            if values is not None and self.widths is not None and len(values) != len(self.widths):
                raise ValueError(
                    f"{name}: expected one number, or {len(self.widths)}, one for each of widths; found {len(values)}"
                )
        if self.conv_norm == "between" and self.model == "cnn":
            raise ValueError("conv_norm: between is for the blocks of vgg-small; expected true or false for cnn")
        moving = [name for name in type(self).model_fields if name in MOVING]
        if self.fill and not any(getattr(self, name) for name in moving):
            raise ValueError(f"fill: expected one of {', '.join(moving)} beside it, or nothing is moved")
        if self.views:
            self._refuse_views()
        if self.frozen_norm and all(each.freeze == "none" for each in self.phases or (self,)):
            raise ValueError("frozen_norm: expected something frozen, as freeze = trunk or upto:STAGE")
        if self.size_start and all(each.freeze != "none" for each in self.phases or (self,)):
            raise ValueError("size_start: expected freeze = none, as frozen layers are computed once, at one size")
        if self.size_start and not (self.phases or self.epochs or self.time):
            raise ValueError("size_start: expected epochs or time, of which each size has its share")
        if self.select == LAST and self.patience:
            raise ValueError("patience: cannot be used with select = last, as it stops by the epoch that is best")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected a momentum above 0")
        if self.schedule == "multistep" and self.schedule_at is None:
            raise ValueError("schedule_at: expected the epochs of the changes, as 10,15, for the schedule multistep")
        if self.schedule in BETWEEN_EPOCHS and self.schedule_by == "step":
            raise ValueError(f"schedule_by: expected epoch, as the schedule {self.schedule} changes between epochs")
        return self

    def _refuse_views(self) -> None:
        """Raises `ValueError` where there is nothing of which several versions could be made once."""
        if self.mixup or self.cutmix:
            raise ValueError("views: cannot be used with mixup or cutmix, which mix images again in every step")
        if not self.augments:
            raise ValueError("views: expected augmentation beside it, as flip=0.5, or all versions are alike")
        if not self.phases and self.freeze == "none":
            raise ValueError("views: expected something frozen, or every version is computed in every epoch anyway")

    def __str__(self) -> str:
        return repr(self)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        plain = find_default_valued(table := self.table())
        return [(name, value) for name, value in table.items() if name not in plain]

    @property
    def resizing(self) -> Resizing:
        """Return how an image becomes the square that the network sees."""
        return Resizing(self.resize, self.interpolation or "bicubic")

    @property
    def hidden(self) -> tuple[int, ...]:
        """Return the widths of the head's hidden layers; empty for a linear head."""
        return tuple(int(width) for width in self.head.partition(":")[2].split(",") if width)

    @property
    def head_alone(self) -> bool:
        """Return whether nothing but a plain linear head is trained, in a way that needs no PyTorch."""
        plain = all(getattr(self, name) == value for name, value in STEP_OPTIONS.items() if name not in OF_PLAIN_STEPS)
        descended = self.optimizer in ("adam", "sgd") and plain and not self.nesterov
        return not beyond_solving(self.table()) and self.lr != "auto" and (self.optimizer == "lbfgs" or descended)

    @property
    def augments(self) -> bool:
        """Return whether images are changed at random before the network sees them."""
        changed = any((asked := getattr(self, name)) and asked != value for name, value in UNCHANGED.items())
        return changed or bool(self.mixup or self.cutmix)

    @property
    def own_options(self) -> dict[str, Any]:
        """Return the options of a small network of Budwood's own by name; empty for other networks."""
        if self.model not in SMALL_NETWORK_OPTIONS:
            return {}
        names = {*SMALL_NETWORK_OPTIONS[self.model], *(NORM_OPTIONS if self.model != "mlp" else ())}
        return {name: getattr(self, name) for name in (*sorted(names), "batch_norm", "dropout")}

    def table(self) -> dict[str, Any]:
        """Return the options that apply as plain values.

        Returns:
            Options by name, without None; of a recipe with phases, without what each phase has of its own.
        """
        held = {name: value for name, value in self.model_dump().items() if value is not None}
        return {name: value for name, value in held.items() if not (self.phases and name in Phase.model_fields)}

    def in_phases(self) -> list[Recipe]:
        """Return the recipes of the phases, each without phases.

        Returns:
            One recipe for each phase; empty for a recipe without phases.
        """
        return [self.model_copy(update={"phases": None, **phase.model_dump()}) for phase in self.phases or ()]

    def toml(self) -> str:
        """Return the recipe as a TOML table.

        Returns:
            Text that `load_recipe` reads back to the options of an equal recipe.
        """
        return write_table(self.table())


def find_default_valued(table: Options) -> set[str]:
    """Find the options that change nothing, as they have the value that stands in when none is given.

    A few, such as the model and the seed, are never among them: they are always shown.

    Args:
        table: The options of a recipe, as `Recipe.table` returns them.

    Returns:
        Names of options.
    """
    defaults = {
        **{name: field.default for name, field in Recipe.model_fields.items()},
        **STEP_OPTIONS,
        **TRUNK_OPTIONS,
        **NORM_OPTIONS,
    }
    return {name for name, value in table.items() if name not in ALWAYS_TOLD and value == defaults[name]}


def restore_recipe(options: Options) -> Recipe:
    """Restore the recipe of a run.

    Args:
        options: Its options as the run's record has them. Version 0.1 took `schedule_by = "step"` for schedules that
            change between epochs, where it had no effect.

    Returns:
        The recipe.

    Raises:
        RecipeError: There are mistakes; one error names them all.
    """
    ineffective = options.get("schedule") in BETWEEN_EPOCHS and options.get("schedule_by") == "step"
    return Recipe(**{**options, "schedule_by": "epoch"} if ineffective else options)


def load_recipe(path: Path) -> dict[str, Any]:
    """Load the options in a TOML file.

    Args:
        path: The file.

    Returns:
        Options by name, not validated yet.

    Raises:
        RecipeError: The file is missing, cannot be read or is not TOML.
    """
    return read_toml(
        path,
        "recipe",
        RecipeError,
        missing="Check the path given to --recipe.",
        malformed="Write one `key = value` per line.",
    ).table


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Parse `KEY=VALUE` strings as options.

    Args:
        settings: The strings; a value is read as TOML, else as a plain string.

    Returns:
        Options by name, not validated yet.

    Raises:
        RecipeError: A string is not of that form.
    """
    options = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise RecipeError(f"-s {setting}: expected KEY=VALUE.", "For example: -s optimizer=adam -s lr=0.001")
        options[key.strip()] = parse_value(text.strip())
    return options


def make_recipe_error(lines: Sequence[str], unknown: Sequence[str] = ()) -> RecipeError:
    """Make the error that tells all mistakes of a recipe at once.

    Args:
        lines: The mistakes.
        unknown: Names of options that there are not.

    Returns:
        The error, to be raised.
    """
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    hint = " ".join(did_you_mean(name, Recipe.model_fields) for name in unknown)
    return RecipeError(
        f"The recipe has {count}: {'; '.join(lines)}.",
        hint or "`budwood train --help-all` lists every option and its values.",
    )
