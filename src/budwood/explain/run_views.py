"""What heatmaps are computed with: a run's one network, or all networks of an ensemble as one.

The heatmap of an ensemble is the mean of its members' heatmaps, each counted by the part that the member has in the
probability of the class, as the gradient of the mean's logarithm is the mean, with these parts, of the gradients of the
members' logarithms. At a place of one member, `members.0.layer4`, it is that member's heatmap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

from budwood.data.loading import Pixels, resize_pixels
from budwood.evaluation.label_task import LabelTask
from budwood.explain.heatmaps import AT_A_PLACE, Attribution, Maps, scale_maps
from budwood.explain.probe import NetworkProbe, make_probe
from budwood.explain.saliency import choose_default_methods, compute_attribution, make_eager_inference
from budwood.explain.sanity_checks import SanityCheck, check_sanity
from budwood.inference.engines import InferenceFn
from budwood.networks.plan import spec_of
from budwood.progress import Progress
from budwood.runs.ensembles import find_member, refuse_different_views
from budwood.runs.networks import describe_run_weights
from budwood.runs.run import Run


class RunView(ABC):
    """A run's network, or networks, as heatmaps see them.

    Attributes:
        leader: The network; of an ensemble that with the largest weight.
        prefix: What stands before the names of the leader's layers: `members.0.` in an ensemble, else nothing.
    """

    leader: NetworkProbe
    prefix: str = ""

    @abstractmethod
    def choose_methods(self) -> tuple[str, ...]:
        """Return the usual methods of attribution, as `choose_default_methods` does."""

    @abstractmethod
    def attribute(
        self,
        pixels: Pixels,
        method: str,
        classes: Sequence[int | str] | None,
        place: str | None,
        engine: InferenceFn,
        progress: Progress,
    ) -> Attribution:
        """Compute what in each image speaks for a class.

        Args:
            pixels: Images, uint8 [n, size, size, 3].
            method: Name of the method.
            classes: Number or name of a class for each image; None for the likeliest.
            place: Place inside a network that the method looks at; None to choose it.
            engine: From pixels to the run's logits, float32 [n, classes].
            progress: Where progress is shown.

        Returns:
            Maps float32 [n, size, size] of 0 to 1, with the classes and their probabilities.

        Raises:
            RecipeError: The method, a class or the place does not exist, or the place gives no map.
            RunError: The place is of no member of the ensemble.
        """

    @abstractmethod
    def check_sanity(
        self, pixels: Pixels, method: str, place: str | None, progress: Progress, seed: int = 0
    ) -> SanityCheck:
        """Test whether the maps of a method depend on what was learned, with all weights random.

        Of an ensemble the member is told whose maps depend on it least.
        """

    def fit(self, pixels: Pixels) -> Pixels:
        """Scale pixels uint8 [n, size, size, 3] down to the leader's input."""
        return resize_pixels(pixels, self.leader.plan.size)


def open_view(run: Run, cache: Path) -> RunView:
    """Open what heatmaps of a run are computed with.

    Args:
        run: A run.
        cache: The cache folder.

    Returns:
        The view.

    Raises:
        RunError: The members of an ensemble make images square in different ways, or one is missing or damaged.
        WeightsError: The weights do not fit a network.
    """
    made = run.record.ensemble
    if made is None:
        return SingleView(_open_probe(run, cache), run.task)
    refuse_different_views(run, "heatmaps")
    probes = tuple(_open_probe(member, cache) for member in run.members())
    return EnsembleView(run, probes, np.array([member.weight for member in made.members]))


def _open_probe(run: Run, cache: Path) -> NetworkProbe:
    return make_probe(spec_of(run.recipe, len(run.classes), describe_run_weights(run), cache), run.classes)


class SingleView(RunView):
    """The view of a run that was trained."""

    def __init__(self, network: NetworkProbe, task: LabelTask) -> None:
        """Make the view of one network.

        Args:
            network: The network.
            task: What the images are labelled with.
        """
        self.leader, self._task = network, task

    def choose_methods(self) -> tuple[str, ...]:
        """Return the usual methods of the network."""
        return choose_default_methods(self.leader)

    def attribute(
        self,
        pixels: Pixels,
        method: str,
        classes: Sequence[int | str] | None,
        place: str | None,
        engine: InferenceFn,
        progress: Progress,
    ) -> Attribution:
        """Return the heatmaps of the network."""
        return compute_attribution(
            self.leader, pixels, method, classes, place, run=engine, task=self._task, progress=progress
        )

    def check_sanity(
        self, pixels: Pixels, method: str, place: str | None, progress: Progress, seed: int = 0
    ) -> SanityCheck:
        """Return the test of the network."""
        return check_sanity(self.leader, pixels, method, place, stages=1, seed=seed, progress=progress)


@dataclass(frozen=True)
class _Part:
    """A member's heatmaps, and the part that it has in the probability of each image's class, float64 [n]."""

    found: Attribution
    share: NDArray[np.float64]


class EnsembleView(RunView):
    """The view of an ensemble."""

    prefix = "members.0."

    def __init__(self, run: Run, networks: tuple[NetworkProbe, ...], weights: NDArray[np.float64]) -> None:
        """Make the view of several networks.

        Args:
            run: The ensemble.
            networks: Its networks, the one with the largest weight first.
            weights: Weight of each, float64 [members].
        """
        self.leader, self._run, self._networks, self._weights = networks[0], run, networks, weights

    def choose_methods(self) -> tuple[str, ...]:
        """Return the usual methods of the networks; occlusion alone where they have not the same."""
        usual = {choose_default_methods(network) for network in self._networks}
        return usual.pop() if len(usual) == 1 else ("occlusion",)

    def attribute(
        self,
        pixels: Pixels,
        method: str,
        classes: Sequence[int | str] | None,
        place: str | None,
        engine: InferenceFn,
        progress: Progress,
    ) -> Attribution:
        """Return the heatmaps of one member at its place, or of all as one."""
        task, size = self._run.task, pixels.shape[1]
        if method == "occlusion" and place is None:
            return compute_attribution(self.leader, pixels, method, classes, run=engine, task=task, progress=progress)
        logits = engine(pixels)
        wanted: Sequence[int | str] = logits.argmax(axis=1).tolist() if classes is None else classes
        number, rest = self._find(place)
        some = range(len(self._networks)) if number is None else [number]
        parts = _share([self._attribute_member(one, pixels, method, wanted, rest, progress) for one in some])
        explained = parts[0].found.classes
        chances = task.to_probabilities(logits)[np.arange(len(pixels)), explained].astype(np.float32)
        first = replace(parts[0].found, probabilities=chances, place=place)
        maps, peaks, empty = scale_maps(_average_maps(parts, size))
        return replace(first, maps=maps, peaks=peaks, empty=empty, errors=_average_errors(parts))

    def _find(self, place: str | None) -> tuple[int | None, str | None]:
        """The number of the member that a place is of, and its name in it; None where all are asked."""
        if place is None:
            return None, None
        member, rest = find_member(self._run, place, "place")
        return int(member.path.name), rest

    def _attribute_member(
        self,
        number: int,
        pixels: Pixels,
        method: str,
        classes: Sequence[int | str],
        place: str | None,
        progress: Progress,
    ) -> _Part:
        network = self._networks[number]
        run, own = make_eager_inference(network), resize_pixels(pixels, network.plan.size)
        found = compute_attribution(
            network, own, method, classes, place, run=run, task=self._run.task, progress=progress
        )
        return _Part(found, self._weights[number] * found.probabilities.astype(np.float64))

    def check_sanity(
        self, pixels: Pixels, method: str, place: str | None, progress: Progress, seed: int = 0
    ) -> SanityCheck:
        """Return the test of the member whose maps depend least on what was learned."""
        number, rest = self._find(place if method in AT_A_PLACE else None)
        some = self._networks if number is None else [self._networks[number]]
        checks = [
            check_sanity(
                one, resize_pixels(pixels, one.plan.size), method, rest, stages=1, seed=seed, progress=progress
            )
            for one in some
        ]
        known = [one for one in checks if one.likeness[-1].value is not None]
        return max(known or checks, key=lambda one: one.likeness[-1].value or -1.0)


def _share(parts: Sequence[_Part]) -> list[_Part]:
    """The parts with shares that add up to 1 for each image."""
    total = np.sum([part.share for part in parts], axis=0)
    return [replace(part, share=part.share / np.where(total > 0, total, 1)) for part in parts]


def _average_maps(parts: Sequence[_Part], size: int) -> Maps:
    """The mean of members' maps by their shares: float32 [n, size, size]."""
    weighted = [part.share[:, None, None] * _resize_maps(part.found.maps, size) for part in parts]
    return np.asarray(np.sum(weighted, axis=0), np.float32)


def _average_errors(parts: Sequence[_Part]) -> NDArray[np.float32] | None:
    """The mean of members' errors by their shares, float32 [n]; None for a method that has none."""
    weighted = [part.share * part.found.errors for part in parts if part.found.errors is not None]
    return np.sum(weighted, axis=0).astype(np.float32) if weighted else None


def _resize_maps(maps: Maps, size: int) -> Maps:
    if not len(maps) or maps.shape[1] == size:
        return maps
    return np.stack([np.asarray(Image.fromarray(one).resize((size, size), Resampling.BILINEAR)) for one in maps])
