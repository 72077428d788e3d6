"""What a recipe makes of its network, as a record: stages before and after surgery, shapes, parameters, cost.

`surgery.planned` makes one and `plan.plan_of` remembers it. Reading one loads no torch.
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
    """One stage: the shape of its output for one image, its parameters, how many of them are trained, multiply-adds."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    trainable: int
    macs: int


@dataclass(frozen=True)
class ParameterCount:
    """How many parameters of a network are trained, and how many are not."""

    trainable: int
    frozen: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.trainable + self.frozen


@dataclass(frozen=True)
class TrunkPlan:
    """How a trunk ends: the stage after which it is cut (None: nowhere), the shape of its output for one image, how
    that is pooled, and the features that the head is given."""

    cut: str | None
    pool: str
    features: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class NetworkPlan:
    """A network as a recipe will have it.

    Attributes:
        name: What its source calls it.
        source: `budwood`, `torchvision`, `timm`, or the user's module.
        code: A digest of the user's code that makes it; empty for networks of Budwood and of installed libraries.
        size: Side of its square input in pixels.
        channels: Of its input: 1 (grey) or 3.
        mean: Of each channel, for pixels of 0 to 1.
        std: Of each channel.
        head: The part that gives the logits.
        origins: Where its ImageNet weights can be had.
        accuracy: Published top-1 on ImageNet, 0 to 1, where its source tells it.
        before: Its stages as its source makes them, the trunk and the head last.
        stages: Its stages after surgery, the trunk and the head last.
        cut: The stage after which it is cut; None where it is not.
        pool: How the trunk's output becomes a vector.
        features: How many numbers the head is given.
        shape: Of the trunk's output for one image, before pooling.
        prefix: The last place up to which everything is frozen; None where the first stage is trained.
        prefix_shape: Of one image's output there.
        parameters: How many are trained, and how many are not.
        macs: Multiply-adds for one image.
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
        """How its trunk ends."""
        return TrunkPlan(self.cut, self.pool, self.features, self.shape)

    @property
    def versions(self) -> tuple[str, ...]:
        """What keys of a cache hold beside the network's name: the digest of a user's code, or nothing."""
        return (self.code,) if self.code else ()

    @property
    def places(self) -> tuple[StagePlan, ...]:
        """The rows before the head: the stages and the trunk."""
        return tuple(row for row in self.stages if row.name != self.head)

    @property
    def removed(self) -> tuple[StagePlan, ...]:
        """The stages that the cut has taken off."""
        if self.cut is None:
            return ()
        names = [row.name for row in self.before]
        return tuple(row for row in self.before[names.index(self.cut) + 1 :] if row.name not in (TRUNK, self.head))

    def record(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def run_record(self) -> dict[str, Any]:
        """Return what a run's record tells of the plan, as plain values."""
        told = {name: value for name, value in self.record().items() if name not in UNRECORDED}
        removed = [_plain(asdict(row)) for row in self.removed]
        return {**told, "trunk_trained": any(row.trainable for row in self.places), "removed": removed}


def plan_from_record(record: Mapping[str, Any]) -> NetworkPlan:
    """Return the plan that `NetworkPlan.record` has told of.

    Args:
        record: Plain values, as they come from JSON.

    Raises:
        KeyError, TypeError, ValueError: The record is of another version, or not of a plan.
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
