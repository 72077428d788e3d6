"""One scale from stored values of more than 8 bits to 8 bits, for all images of a data set.

Files seldom fill the range of their type: 12 bits in a 16-bit file leave 16 grey levels where 65,535 is white. Scaled
each by its own values, two images of one scene would differ. So the range is chosen once, from the training images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FEWEST_BITS: Final = 8  # of a range: smaller values are 8-bit values in a wider type
MOST_BITS: Final = 16


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Stored values that become black and white.

    Attributes:
        low: Value that becomes 0.
        high: Value that becomes 255; more than `low`.
    """

    low: float
    high: float

    @property
    def key(self) -> str:
        """Return what tells this range from others in the names of caches."""
        return f"{float(self.low)!r}..{float(self.high)!r}"

    def __str__(self) -> str:
        return f"{_format_value(self.low)} to {_format_value(self.high)}"


@dataclass(frozen=True, slots=True)
class StoredValues:
    """Values of more than 8 bits that one image has or, by its header, may have.

    Attributes:
        low: Smallest value.
        high: Largest value.
        floating: Whether they are floating-point numbers.
    """

    low: float
    high: float
    floating: bool


def round_outwards(stored: StoredValues) -> ValueRange:
    """Round the values of images outwards to the range that their recording most likely had.

    Args:
        stored: Values of one image, or of many together.

    Returns:
        0 to 1 for floating-point numbers within it; 0 to the next 2^k - 1 of 8 to 16 bits for other values from 0 on;
        else, as for signed values, the values themselves.
    """
    low, high = float(stored.low), float(stored.high)
    if low >= 0 and stored.floating and high <= 1:
        return ValueRange(0.0, 1.0)
    if low >= 0 and high < 2**MOST_BITS:
        return ValueRange(0.0, float(2 ** max(FEWEST_BITS, int(np.ceil(high)).bit_length()) - 1))
    return ValueRange(low, high if high > low else low + 1)


def choose_value_range(images: Sequence[StoredValues | None], training: NDArray[np.bool_]) -> ValueRange | None:
    """Choose the range of a data set.

    Args:
        images: Values of each image; None of one with 8 bits.
        training: Whether each image is in the training split, bool [n].

    Returns:
        The rounded range of the training images, so that held-out images decide nothing; of all images where no
        training image has more than 8 bits; None where no image has.
    """
    deep = [(one, bool(trains)) for one, trains in zip(images, training.tolist(), strict=True) if one is not None]
    chosen = [one for one, trains in deep if trains] or [one for one, _ in deep]
    if not chosen:
        return None
    low, high = min(one.low for one in chosen), max(one.high for one in chosen)
    return round_outwards(StoredValues(low, high, all(one.floating for one in chosen)))


def scale_to_8_bits(values: NDArray[Any], scale: ValueRange, inverted: bool = False) -> NDArray[np.uint8]:
    """Scale values to 8 bits; what lies outside the range is clipped.

    Args:
        values: Finite values of any type, [height, width, ...].
        scale: The values that become 0 and 255.
        inverted: Whether small values are white.

    Returns:
        The rounded values, uint8, in the same shape.
    """
    result = values.astype(np.float64)
    result -= scale.low
    result *= 255 / (scale.high - scale.low)
    np.clip(np.rint(result, out=result), 0, 255, out=result)
    return (255 - result if inverted else result).astype(np.uint8)


def _format_value(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
