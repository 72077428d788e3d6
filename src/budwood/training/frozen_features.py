"""The outputs of the frozen prefix for both splits: whether they are kept for all epochs, and for which images."""

from __future__ import annotations

from dataclasses import dataclass

from budwood.data.dataset import Samples
from budwood.inference.bundle import Prefix, make_prefix
from budwood.inference.engines import Floats
from budwood.inference.feature_cache import IDENTITY, Transform, compute_features, why_not_cached
from budwood.training.task import TrainingTask, trains_linear_head_only


@dataclass(frozen=True)
class SplitFeatures:
    """The outputs of the frozen prefix for both splits.

    Attributes:
        training: Outputs for the training images, float32 [n, *shape], once for each view.
        validation: Outputs for the validation images, float32 [n, *shape].
        computed: Number of images computed now, over all views.
        reused: Number of images taken from the cache, over all views.
        engine: Name of the engine that computed them.
        agreement: How well the engine agrees with PyTorch.
    """

    training: tuple[Floats, ...]
    validation: Floats
    computed: int
    reused: int
    engine: str
    agreement: str


def load_features(task: TrainingTask) -> SplitFeatures | None:
    """Load or compute the outputs of the frozen prefix for both splits.

    The reason is noted where outputs could be kept but are not worth it.

    Args:
        task: What is to be trained.

    Returns:
        The outputs; None where they are not kept.
    """
    network = task.resolved.network
    if network.frozen_norm == "train" and network.freeze != "none":
        task.context.progress.note(
            "Frozen layers are computed in every step from their first batch norm on, not once for each image: with "
            "frozen_norm = train what it does changes from batch to batch."
        )
    if not caches_features(task):
        if prefix_is_separable(task):
            why = why_not_cached(make_frozen_prefix(task), _count_images(task))
            task.context.progress.note(
                f"Features of {task.spec.plan.prefix} are computed again in every epoch, not kept in the cache: {why}."
            )
        return None
    features = [
        compute_features(make_frozen_prefix(task), samples, task.context.progress, view)
        for samples, view in list_feature_requests(task)
    ]
    newest, n = max(features, key=lambda part: part.computed), len(task.training)
    return SplitFeatures(
        training=tuple(part.values for part in features[1:]) or (features[0].values[:n],),
        validation=features[0].values[len(features[0].values) - len(task.validation) :],
        computed=sum(part.computed for part in features),
        reused=sum(part.reused for part in features),
        engine=newest.engine,
        agreement=newest.agreement,
    )


def caches_features(task: TrainingTask) -> bool:
    """Return whether the outputs of the frozen prefix are kept for all epochs.

    They are where there is such a prefix, images are either not augmented or augmented in a fixed number of views,
    and the outputs are worth their room. A head that is trained alone needs them in any case.

    Args:
        task: What is to be trained.

    Returns:
        Whether they are kept.
    """
    if trains_linear_head_only(task):
        return True
    apart = prefix_is_separable(task) or (task.resolved.versions and prefix_is_untrained(task))
    return bool(apart) and not why_not_cached(make_frozen_prefix(task), _count_images(task))


def list_feature_requests(task: TrainingTask) -> list[tuple[Samples, Transform]]:
    """List the images for which the frozen prefix is computed.

    Args:
        task: What is to be trained.

    Returns:
        Samples with the transform that is applied to them: both splits as they are; or validation as it is, and
        then training once for each augmented view.
    """
    if not task.resolved.versions:
        return [(task.training.join(task.validation), IDENTITY)]
    from budwood.training.cached_augmentation import make_augmentation_transform

    views = [make_augmentation_transform(task.resolved, number) for number in range(task.resolved.versions)]
    return [(task.validation, IDENTITY), *((task.training, view) for view in views)]


def prefix_is_separable(task: TrainingTask) -> bool:
    """Return whether the frozen prefix can be computed apart from what is trained.

    Args:
        task: What is to be trained.

    Returns:
        True where images are not augmented and no earlier phase has trained the prefix.
    """
    return not task.resolved.augments and prefix_is_untrained(task)


def prefix_is_untrained(task: TrainingTask) -> bool:
    """Return whether there is a frozen prefix whose weights are still the recipe's.

    Args:
        task: What is to be trained.

    Returns:
        True where there is a frozen prefix and no earlier phase has trained any of it.
    """
    places = [row.name for row in task.spec.plan.stages]
    stop = task.spec.plan.prefix
    return stop is not None and all(other and places.index(stop) <= places.index(other) for other in task.before)


def make_frozen_prefix(task: TrainingTask) -> Prefix:
    """Make the frozen prefix of a recipe's network.

    Args:
        task: What is to be trained.

    Returns:
        The prefix, from the image to its last frozen stage.
    """
    return make_prefix(task.spec, task.spec.plan.prefix, task.context.cache)


def _count_images(task: TrainingTask) -> int:
    """How many images a frozen prefix is shown, views of one counted each."""
    return len(task.training) * max(task.resolved.versions, 1) + len(task.validation)
