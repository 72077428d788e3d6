"""What was published of data sets that Budwood knows by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Deitsch et al., Automatic classification of defective photovoltaic module cells in electroluminescence images,
# Solar Energy 185 (2019): accuracy on a quarter of the same 2,624 images.
KNOWN_SCORES: Final[Mapping[str, Mapping[str, float]]] = {
    "elpv": {"support vector machine": 0.8242, "fine-tuned VGG-19": 0.8842}
}
