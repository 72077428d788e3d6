"""The augmentations: the options of each, how it is drawn and carried out, and in which order they are applied.

A new one is an entry of the table, at the place at which it is to be applied. It names the functions that carry it
out, which are imported when they are used, so that nothing here loads PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core.core_schema import ValidatorFunctionWrapHandler

from budwood.config.own_objects import ObjectName
from budwood.config.registry import Registry, is_entry_point

Fill = Literal["reflect", "border", "black"]
Policy = Literal["none", "randaugment", "trivialaugment"]
OptionValue = bool | int | float | str
OwnValue = OptionValue | tuple[OptionValue, ...]


@dataclass(frozen=True)
class Option:
    """An option of a recipe.

    Attributes:
        words: What it means, for `--help`.
        neutral: The value that stands in where none is given, and changes nothing. A new option has None, so that
            recipes without it are written, and their caches named, as before.
        ge: Smallest value.
        gt: The value must be larger than this.
        le: Largest value.
        lt: The value must be smaller than this.
    """

    words: str
    neutral: OptionValue | None = None
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None


@dataclass(frozen=True)
class AugmentationEntry:
    """An augmentation: a change of images, drawn for every image of a batch.

    Functions are named as `package.module:name`, and get the options as keywords.

    Attributes:
        kind: What it changes. `geometric`: where pixels are; `photometric`: their values.
        options: Its options, by their names in recipes.
        sample: The function `(n, size, random, **options)` that draws what happens to n images. Geometric: affine
            maps, float64 [n, 3, 3], from places of the result to places of the image, both from -1 to 1, x first.
            Photometric: whatever `apply` takes, an array [n, ...]; empty: a seed is drawn for each image, int64 [n].
        apply: Photometric: the function `(pictures, drawn, **options)` from pictures, float32 [n, 3, height, width]
            of 0 to 255, to pictures of the same kind.
        moves: Whether an area outside of the image comes into sight, for which there is a `fill`.
        drawn: Place among the augmentations that are drawn whether they are used or not, as in version 0.1, so that
            every seed gives the images that it gave then; None: drawn after those, where it is used.
    """

    kind: Literal["geometric", "photometric"]
    options: Mapping[str, Option]
    sample: str = ""
    apply: str = ""
    moves: bool = False
    drawn: int | None = None


_MAPS: Final = "budwood.training.affine_maps"
_PIXELS: Final = "budwood.training.pixel_changes"


def _colour(name: str, words: str, drawn: int, *, most: float = 1) -> AugmentationEntry:
    """An augmentation of the colours."""
    sample = f"{_PIXELS}:{'sample_turns' if name == 'hue' else 'sample_factors'}"
    options = {name: Option(f"largest change of {words}", 0.0, ge=0, le=most)}
    return AugmentationEntry("photometric", options, sample, f"{_PIXELS}:change_{name}", drawn=drawn)


# In the order in which they are applied to an image.
AUGMENTATIONS: Final[Registry[AugmentationEntry]] = Registry(
    "augmentation",
    {
        "policy": AugmentationEntry(
            "photometric",
            {"policy": Option("automatic augmentation policy (default none)", "none")},
            apply=f"{_PIXELS}:apply_policy",
        ),
        "crop_padding": AugmentationEntry(
            "geometric",
            {"crop_padding": Option("random crop after so many pixels of padding", 0, ge=0)},
            f"{_MAPS}:sample_padded_crops",
            moves=True,
            drawn=7,
        ),
        "crop_scale": AugmentationEntry(
            "geometric",
            {"crop_scale": Option("random resized crop: smallest share of the area", None, gt=0, le=1)},
            f"{_MAPS}:sample_resized_crops",
            drawn=8,
        ),
        "flip": AugmentationEntry(
            "geometric",
            {"flip": Option("chance that an image is mirrored left to right", 0.0, ge=0, le=1)},
            f"{_MAPS}:sample_flips",
            drawn=5,
        ),
        "flip_vertical": AugmentationEntry(
            "geometric",
            {"flip_vertical": Option("chance that it is mirrored upside down", 0.0, ge=0, le=1)},
            f"{_MAPS}:sample_vertical_flips",
            drawn=6,
        ),
        "zoom": AugmentationEntry(
            "geometric",
            {
                "zoom": Option(
                    "largest zoom in or out, of width and height alike: the image becomes 1 - zoom to 1 + zoom times "
                    "as large",
                    0.0,
                    ge=0,
                    lt=1,
                )
            },
            f"{_MAPS}:sample_zooms",
            moves=True,
            drawn=3,
        ),
        "zoom_apart": AugmentationEntry(
            "geometric",
            {
                "zoom_x": Option(
                    "largest zoom sideways, drawn apart from zoom_y, both as Keras' zoom_range draws them: the part "
                    "that is seen becomes 1 - zoom_x to 1 + zoom_x times as wide",
                    ge=0,
                    lt=1,
                ),
                "zoom_y": Option("largest zoom up and down, of the height that is seen, as zoom_x", ge=0, lt=1),
            },
            f"{_MAPS}:sample_zooms_apart",
            moves=True,
        ),
        "shear": AugmentationEntry(
            "geometric",
            {"shear": Option("largest shear sideways, degrees", 0.0, ge=0, lt=90)},
            f"{_MAPS}:sample_shears",
            moves=True,
            drawn=2,
        ),
        "rotation": AugmentationEntry(
            "geometric",
            {"rotation": Option("largest rotation, degrees", 0.0, ge=0, le=180)},
            f"{_MAPS}:sample_rotations",
            moves=True,
            drawn=1,
        ),
        "shift": AugmentationEntry(
            "geometric",
            {
                "shift_x": Option("largest shift sideways, share of the width", 0.0, ge=0, lt=1),
                "shift_y": Option("largest shift up or down, share of the height", 0.0, ge=0, lt=1),
            },
            f"{_MAPS}:sample_shifts",
            moves=True,
            drawn=4,
        ),
        "brightness": _colour("brightness", "brightness, share", 9),
        "contrast": _colour("contrast", "contrast, share", 10),
        "saturation": _colour("saturation", "saturation, share", 11),
        "hue": _colour("hue", "hue, share of the colour circle", 12, most=0.5),
        "erase": AugmentationEntry(
            "photometric",
            {"erase": Option("chance that a box of an image is erased", 0.0, ge=0, le=1)},
            f"{_PIXELS}:sample_boxes",
            f"{_PIXELS}:erase_boxes",
            drawn=13,
        ),
    },
)
# The options of 0.1, in the order in which the keys of caches have them.
_KEYED: Final = (
    *("flip", "flip_vertical", "rotation", "shift_x", "shift_y", "shear", "zoom", "crop_padding", "crop_scale"),
    *("brightness", "contrast", "saturation", "hue", "erase", "policy"),
)


def find_option(name: str) -> Option:
    """Find an option of an augmentation.

    Args:
        name: Its name in recipes.

    Returns:
        The option.

    Raises:
        KeyError: No augmentation has such an option.
    """
    return next(each.options[name] for each in _entries().values() if name in each.options)


def list_neutral_values() -> dict[str, OptionValue | None]:
    """List the options of all augmentations with the values at which they change nothing.

    Returns:
        The values by option.
    """
    return {name: option.neutral for each in _entries().values() for name, option in each.options.items()}


def list_moving_options() -> tuple[str, ...]:
    """List the options that bring an area outside of the image into sight.

    Returns:
        The names.
    """
    return tuple(name for each in _entries().values() if each.moves for name in each.options)


def _entries() -> dict[str, AugmentationEntry]:
    """The augmentations in the order of the table."""
    return {name: AUGMENTATIONS.get(name) for name in AUGMENTATIONS.entries}


class OwnAugmentation(BaseModel):
    """A user's own augmentation, with its options, which are plain values by any other name.

    Attributes:
        name: `package.module:name` of a function of pictures and a `torch.Generator`, and of the options by name.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, OwnValue] = Field(init=False)

    name: str

    @field_validator("name", mode="wrap")
    @classmethod
    def _keep_object(cls, value: object, read: ValidatorFunctionWrapHandler) -> object:
        return value if isinstance(value, ObjectName) else read(value)

    @property
    def keywords(self) -> dict[str, OwnValue]:
        """Return the options by name."""
        return dict(self.__pydantic_extra__ or {})


@dataclass(frozen=True)
class Augmentation:
    """How images are changed at random, one by one; the defaults change nothing.

    Attributes:
        values: The options that change something, by name.
        own: The user's own augmentations, applied after all others, in this order.
        fill: What is beyond the edge of a moved image.
    """

    values: Mapping[str, OptionValue] = field(default_factory=dict)
    own: tuple[OwnAugmentation, ...] = ()
    fill: Fill = "reflect"

    @property
    def used(self) -> tuple[str, ...]:
        """Return the names of the augmentations that change something, in the order in which they are applied."""
        return tuple(name for name, entry in _entries().items() if entry.options.keys() & self.values.keys())

    def options_of(self, name: str) -> dict[str, OptionValue | None]:
        """Return the options of an augmentation.

        Args:
            name: Its name in the table.

        Returns:
            Values by option; that which changes nothing where none is given.
        """
        options = AUGMENTATIONS.get(name).options
        return {option: self.values.get(option, known.neutral) for option, known in options.items()}

    def describe(self) -> dict[str, object]:
        """Describe the augmentation for the key of a cache, as version 0.1 did.

        Returns:
            Plain values.
        """
        values = {**list_neutral_values(), **self.values}
        scale = values["crop_scale"]
        crop = {"name": "whole"} if scale is None else {"scale": scale, "name": "resized"}
        known = {"crop" if name == "crop_scale" else name: values[name] for name in _KEYED}
        own = [each.model_dump() if each.keywords else each.name for each in self.own]
        later = {name: value for name, value in self.values.items() if name not in _KEYED}
        return {**known, "crop": crop, "transforms": own, "fill": self.fill, **later}


def read_own_augmentations(value: object) -> str | tuple[OwnAugmentation, ...]:
    """Read the user's own augmentations as a recipe gives them.

    Args:
        value: `package.module:name`; a table of such a `name` and options; or a list of these, in the order in which
            they are applied.

    Returns:
        The name, where there is one without options; else each with its options.

    Raises:
        ValueError: It is something else.
    """
    listed = value if isinstance(value, list | tuple) else [value]
    read = tuple(_read_own(each) for each in listed)
    if not read:
        raise ValueError("expected your own as package.module:name")
    return read[0].name if len(read) == 1 and not read[0].keywords else read


def _read_own(value: object) -> OwnAugmentation:
    if isinstance(value, OwnAugmentation):
        return value
    table = value if isinstance(value, Mapping) else {"name": value}
    name = table.get("name")
    if not isinstance(name, str) or not is_entry_point(name):
        raise ValueError("expected your own as package.module:name")
    try:
        return OwnAugmentation.model_validate(dict(table))
    except ValidationError as error:
        option = error.errors()[0]["loc"][0]
        raise ValueError(f"expected numbers, words or a list of them for the option {option} of {name}") from error
