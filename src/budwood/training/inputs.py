"""The inputs of training and validation: pixels, outputs of the frozen prefix, or outputs that are computed anew."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from budwood.config.resolved_recipe import ResolvedRecipe
from budwood.data.loading import TTA_FLIPS, PixelSource
from budwood.hardware import count_threads
from budwood.inference.engines import choose_engine, has_cuda_device
from budwood.inference.feature_cache import compute_features, flip_transform, take_first_images
from budwood.inference.input_sources import ArraySource, ConcatSource, FeatureSource, InputSource, Labelled, flip_source
from budwood.training.frozen_features import SplitFeatures, make_frozen_prefix, prefix_is_separable
from budwood.training.linear_head import HeadSplit
from budwood.training.task import TrainingTask
from budwood.training.training_record import Choices

if TYPE_CHECKING:
    from budwood.inference.pytorch_backend import NetworkSlice


def make_inputs(task: TrainingTask, features: SplitFeatures | None) -> tuple[Labelled, Labelled]:
    """Make the inputs of training and validation.

    Args:
        task: What is to be trained.
        features: Outputs of the frozen prefix; None where they are not kept.

    Returns:
        The training and validation split, with kept outputs, with outputs that are computed when asked for, or with
        pixels.
    """
    label_sets = task.training.label_sets
    if features:
        outputs: InputSource = (
            ArraySource(features.training[0]) if len(features.training) == 1 else ConcatSource(features.training)
        )
        return (
            Labelled(outputs, task.training.labels, label_sets),
            Labelled(ArraySource(features.validation), task.validation.labels, label_sets),
        )
    network = task.resolved.network
    inputs: list[InputSource] = [
        PixelSource(split, network.size, network.resizing, task.context) for split in (task.training, task.validation)
    ]
    if _uses_engine(task):
        prefix = make_frozen_prefix(task)
        epochs = task.resolved.limits.epochs
        steps = len(task.training) * (int(epochs) if math.isfinite(epochs) else 1)
        engine = choose_engine(prefix, lambda: take_first_images(prefix, task.training), steps, task.context.progress)
        inputs = [FeatureSource(engine, pixels) for pixels in inputs]
    train, val = inputs
    return Labelled(train, task.training.labels, label_sets), Labelled(val, task.validation.labels, label_sets)


def make_head_splits(features: SplitFeatures, task: TrainingTask) -> tuple[HeadSplit, HeadSplit]:
    """Make the inputs of a head that is trained alone.

    Args:
        features: Outputs of the trunk.
        task: What is to be trained.

    Returns:
        Training and validation features with their labels.
    """
    blocks = task.spec.plan.blocks
    training = HeadSplit(features.training[0], task.training.labels, blocks)
    return training, HeadSplit(features.validation, task.validation.labels, blocks)


def make_trained_slice(task: TrainingTask, features: SplitFeatures | None) -> NetworkSlice:
    """Make the part of the network that PyTorch runs in training.

    Args:
        task: What is to be trained.
        features: Outputs of the frozen prefix; None where they are not kept.

    Returns:
        The network from the end of the prefix on, or the whole network where the inputs are pixels.
    """
    from budwood.inference.pytorch_backend import NetworkSlice

    stop = task.spec.plan.prefix if features or _uses_engine(task) else None
    return NetworkSlice(task.spec, stop)


def make_tta_views(task: TrainingTask, features: SplitFeatures | None, val: Labelled) -> list[InputSource]:
    """Make what evaluation sees of the validation images beside the images themselves, for test-time augmentation.

    Args:
        task: What is to be trained.
        features: Outputs of the frozen prefix; None where they are not kept.
        val: The validation split.

    Returns:
        The inputs of each mirrored view, with the rows of `val`; none where the recipe has no `tta`.
    """
    others = TTA_FLIPS[task.spec.recipe.tta][1:]
    if features:
        prefix, progress = make_frozen_prefix(task), task.context.progress
        return [
            ArraySource(compute_features(prefix, task.validation, progress, flip_transform(letters)).values)
            for letters in others
        ]
    return [flip_source(val.inputs, view) for view in others]


def take_one_step(recipe: ResolvedRecipe, train: Labelled, val: Labelled) -> tuple[Labelled, Labelled]:
    """Take one step's worth of training inputs, and the first validation input, into memory.

    Args:
        recipe: How many images a step has.
        train: The training split.
        val: The validation split.

    Returns:
        The first images of both splits.
    """
    rows = np.arange(min(len(train.labels), recipe.sampling.step))
    step = Labelled(ArraySource(np.asarray(train.inputs.take(rows))), train.labels[rows], train.label_sets)
    return step, Labelled(ArraySource(np.asarray(val.inputs.take(rows[:1]))), val.labels[:1], val.label_sets)


def describe_input_choices(inputs: InputSource) -> Choices:
    """Describe what runs a network of which no outputs are kept.

    Args:
        inputs: The training inputs.

    Returns:
        The engine, its check and the number of threads.
    """
    if not isinstance(inputs, FeatureSource):
        return Choices(engine="PyTorch for the whole network", threads=count_threads())
    name = f"{inputs.engine.name} for the frozen layers, in every step; PyTorch for the rest"
    return Choices(engine=name, engine_check=inputs.engine.agreement, threads=count_threads())


def describe_feature_choices(features: SplitFeatures) -> Choices:
    """Describe what computed the outputs of the frozen prefix.

    Args:
        features: The outputs.

    Returns:
        The device, the engine, its check and the number of threads.
    """
    return Choices(
        device="cuda" if "CUDA" in features.engine else "cpu",
        engine=features.engine,
        engine_check=features.agreement,
        threads=count_threads(),
    )


def _uses_engine(task: TrainingTask) -> bool:
    """Whether what is frozen is computed in an engine of its own when its outputs are not kept: on a GPU it is not."""
    return prefix_is_separable(task) and not has_cuda_device()
