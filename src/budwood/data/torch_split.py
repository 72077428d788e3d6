"""One split of a data set as a data set of torch, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from budwood.config.options import Resizing
from budwood.data.dataset import Samples, make_membership_matrix
from budwood.data.images import BadImage, decode, make_square_pixels, read_known_bytes
from budwood.errors import DataError


class TorchSplit(TorchDataset[tuple[Any, Any]]):
    """Images and labels of one split, decoded when they are asked for; processes of a DataLoader may share it.

    Attributes:
        samples: The images.
        classes: Names of the classes, in the order of their numbers.
        targets: Class number of each image; of images with several labels, float32 [classes] of zeros and ones.
    """

    def __init__(
        self, samples: Samples, classes: tuple[str, ...], transform: Callable[[Any], Any] | None, size: int | None
    ) -> None:
        """Keep what is needed to decode.

        Args:
            samples: The images.
            classes: Names of the classes.
            transform: Function of an image; None for none.
            size: Side of the square that images become; None for images of their own size.
        """
        self.samples, self.classes, self._transform, self._size = samples, classes, transform, size
        self.targets: list[Any] = samples.labels.tolist()
        if samples.label_sets:
            table = make_membership_matrix(samples.label_sets, len(classes)).astype(np.float32)
            self.targets = [torch.from_numpy(table[label]) for label in self.targets]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        image = self._read(row)
        return image if self._transform is None else self._transform(image), self.targets[row]

    def _read(self, row: int) -> Any:
        path = self.samples.root / self.samples.paths[row]
        try:
            image = decode(read_known_bytes(path, self.samples.ids[row]), self.samples.value_range)
        except BadImage as problem:
            raise DataError(f"{path}: {problem.detail}.", "Scan the images again.") from problem
        if self._size is None:
            return image
        pixels = make_square_pixels(image, self._size, Resizing())
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
