"""What a recipe makes of its network, as a record: stages before and after surgery, shapes, parameters, cost.

`surgery.plan_network` makes one and `plan.load_plan` remembers it. Reading one loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class Tap:
    """An earlier stage whose output the head sees, as its mean over the image, beside that of the trunk.

    Attributes:
        name: Name of the stage.
        shape: Shape of its output for one image.
        features: Number of inputs of the head that it gives.
    """

    name: str
    shape: tuple[int, ...]
    features: int


@dataclass(frozen=True)
class TrunkPlan:
    """The end of a trunk: where it is cut, how its output is pooled, and what the head sees beside it.

    Attributes:
        cut: Stage after which the network is cut; None where it is not cut.
        pool: How the output becomes a vector: `own`, `avg`, `max`, `avgmax`, `token` or `flatten`.
        features: Number of inputs of the head.
        shape: Shape of the output for one image, before pooling.
        taps: Earlier stages that the head sees, too, in the order of the network; their features come first.
    """

    cut: str | None
    pool: str
    features: int
    shape: tuple[int, ...]
    taps: tuple[Tap, ...] = ()


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
        taps: Earlier stages that the head sees, too, in the order of the network; their features come first.
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
    taps: tuple[Tap, ...] = ()
    schema_version: int = PLAN_VERSION

    @property
    def trunk(self) -> TrunkPlan:
        """Return how the trunk ends.

        Returns:
            Cut, pooling, number of features, shape and taps.
        """
        return TrunkPlan(self.cut, self.pool, self.features, self.shape, self.taps)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Return the widths of the blocks that the head's inputs consist of.

        Returns:
            The features of each tap, and of the trunk; empty without taps.
        """
        return list_blocks(self.taps, self.features)

    @property
    def versions(self) -> tuple[str, ...]:
        """Return what keys of the cache contain in addition to the network's name.

        Returns:
            The digest of a user's code; empty for networks of Budwood and of installed libraries.
        """
        return (self.code,) if self.code else ()

    @property
    def places(self) -> tuple[StagePlan, ...]:
        """Return the rows before the head on whose output alone all that follows depends.

        Returns:
            The stages after surgery, up to the first tap where there are taps, and the trunk.
        """
        rows = self._rows_before_head
        names = [row.name for row in rows]
        last = names.index(self.taps[0].name) if self.taps else len(rows)
        return tuple(row for number, row in enumerate(rows) if number <= last or row.name == TRUNK)

    @property
    def _rows_before_head(self) -> tuple[StagePlan, ...]:
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
        return {**recorded, "trunk_trained": any(row.trainable for row in self._rows_before_head), "removed": removed}


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
            "taps": tuple(Tap(**{**tap, "shape": tuple(tap["shape"])}) for tap in record.get("taps", ())),
        }
    )


def list_blocks(taps: Sequence[Tap], features: int) -> tuple[int, ...]:
    """List the widths of the blocks that a head's inputs consist of.

    Args:
        taps: The taps, whose features come first.
        features: Number of inputs of the head.

    Returns:
        The features of each tap, and of the trunk; empty without taps.
    """
    widths = [tap.features for tap in taps]
    return (*widths, features - sum(widths)) if widths else ()


def _stage(row: Mapping[str, Any]) -> StagePlan:
    return StagePlan(**{**row, "shape": tuple(row["shape"])})


def _plain(value: Any) -> Any:
    """A value with its tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
