"""What a recipe makes of its network, as a record: stages before and after surgery, shapes, parameters, cost.

`surgery.plan_network` makes one and `plan.load_plan` remembers it. Reading one loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from budwood.networks.registry import TRUNK, Origin

PLAN_VERSION: Final = 1  # of the record; one of another version is not read
UNRECORDED: Final = (
    "schema_version",
    "code",
    "origins",
    "before",
    "prefix",
    "prefix_shape",
)  # what `run.json` leaves out


@dataclass(frozen=True)
class StagePlan:
    """One stage in a plan.

    Attributes:
        name: Name of the stage, the trunk or the head.
        shape: Shape of its output for one image, without the batch.
        parameters: Number of its parameters.
        trainable: How many of them are trained.
        macs: Multiply-adds for one image.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    trainable: int
    macs: int


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of trained and frozen parameters of a network.

    Attributes:
        trainable: Number of parameters that are trained.
        frozen: Number of parameters that are not.
    """

    trainable: int
    frozen: int

    @property
    def total(self) -> int:
        """Return the number of all parameters.

        Returns:
            The sum of trained and frozen parameters.
        """
        return self.trainable + self.frozen


@dataclass(frozen=True)
class TrunkPlan:
    """The end of a trunk: where it is cut, and how its output is pooled.

    Attributes:
        cut: Stage after which the network is cut; None where it is not cut.
        pool: How the output becomes a vector: `own`, `avg`, `max`, `avgmax`, `token` or `flatten`.
        features: Number of inputs of the head.
        shape: Shape of the output for one image, before pooling.
    """

    cut: str | None
    pool: str
    features: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class NetworkPlan:
    """A network as a recipe will build it.

    Attributes:
        name: What its source calls it.
        source: `budwood`, `torchvision`, `timm`, or the user's module.
        size: Side of its square input in pixels.
        channels: Number of its input channels: 1 (grey) or 3.
        mean: Mean of each channel, for pixels of 0 to 1.
        std: Standard deviation of each channel, for pixels of 0 to 1.
        head: Name of the part that gives the logits.
        origins: Where its ImageNet weights are available.
        accuracy: Published top-1 accuracy on ImageNet, 0 to 1; None where its source does not publish it.
        before: Its stages as its source makes them, the trunk and the head last.
        stages: Its stages after surgery, the trunk and the head last.
        cut: Stage after which it is cut; None where it is not cut.
        pool: How the trunk's output becomes a vector.
        features: Number of inputs of the head.
        shape: Shape of the trunk's output for one image, before pooling.
        prefix: The last place up to which everything is frozen; None where the first stage is trained.
        prefix_shape: Shape of one image's output there; None without a prefix.
        parameters: Numbers of trained and frozen parameters.
        macs: Multiply-adds for one image.
        code: Digest of the user's code that makes it; empty for networks of Budwood and of installed libraries.
        schema_version: Version of the plan's record.
    """

    name: str
    source: str
    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    head: str
    origins: tuple[Origin, ...]
    accuracy: float | None
    before: tuple[StagePlan, ...]
    stages: tuple[StagePlan, ...]
    cut: str | None
    pool: str
    features: int
    shape: tuple[int, ...]
    prefix: str | None
    prefix_shape: tuple[int, ...] | None
    parameters: ParameterCount
    macs: int
    code: str = ""
    schema_version: int = PLAN_VERSION

    @property
    def trunk(self) -> TrunkPlan:
        """Return how the trunk ends.

        Returns:
            Cut, pooling, number of features and shape.
        """
        return TrunkPlan(self.cut, self.pool, self.features, self.shape)

    @property
    def versions(self) -> tuple[str, ...]:
        """Return what keys of the cache contain in addition to the network's name.

        Returns:
            The digest of a user's code; empty for networks of Budwood and of installed libraries.
        """
        return (self.code,) if self.code else ()

    @property
    def places(self) -> tuple[StagePlan, ...]:
        """Return the rows before the head.

        Returns:
            The stages after surgery, and the trunk.
        """
        return tuple(row for row in self.stages if row.name != self.head)

    @property
    def removed(self) -> tuple[StagePlan, ...]:
        """Return the stages that the cut removes.

        Returns:
            Stages of the source's network after the cut, without trunk and head; empty where nothing is cut.
        """
        if self.cut is None:
            return ()
        names = [row.name for row in self.before]
        return tuple(row for row in self.before[names.index(self.cut) + 1 :] if row.name not in (TRUNK, self.head))

    def record(self) -> dict[str, Any]:
        """Convert the plan to plain values.

        Returns:
            All fields, with lists in place of tuples, as JSON has them; `plan_from_record` reads them.
        """
        return {name: _plain(value) for name, value in asdict(self).items()}

    def run_record(self) -> dict[str, Any]:
        """Convert the plan to plain values, as a run's record keeps them.

        Returns:
            The fields without those of `UNRECORDED`, and in addition `trunk_trained` (whether a part before the head is
            trained) and `removed` (the stages that the cut removes).
        """
        recorded = {name: value for name, value in self.record().items() if name not in UNRECORDED}
        removed = [_plain(asdict(row)) for row in self.removed]
        return {**recorded, "trunk_trained": any(row.trainable for row in self.places), "removed": removed}


def plan_from_record(record: Mapping[str, Any]) -> NetworkPlan:
    """Restore a plan from what `NetworkPlan.record` returned.

    Args:
        record: Plain values, as they come from JSON.

    Returns:
        The plan.

    Raises:
        KeyError: The record lacks a field.
        TypeError: The record is not one of a plan.
        ValueError: The record is of another version.
    """
    if record["schema_version"] != PLAN_VERSION:
        raise ValueError(f"a plan of version {record['schema_version']}, expected {PLAN_VERSION}")
    shape = record["prefix_shape"]
    return NetworkPlan(
        **{
            **record,
            "mean": tuple(record["mean"]),
            "std": tuple(record["std"]),
            "origins": tuple(Origin(**origin) for origin in record["origins"]),
            "before": tuple(_stage(row) for row in record["before"]),
            "stages": tuple(_stage(row) for row in record["stages"]),
            "shape": tuple(record["shape"]),
            "prefix_shape": None if shape is None else tuple(shape),
            "parameters": ParameterCount(**record["parameters"]),
        }
    )


def _stage(row: Mapping[str, Any]) -> StagePlan:
    return StagePlan(**{**row, "shape": tuple(row["shape"])})


def _plain(value: Any) -> Any:
    """A value with its tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
