"""What is known of an ensemble beside its record: its members as one network, and a member by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from budwood.errors import RunError
from budwood.networks.network_plan import ParameterCount
from budwood.networks.plan import hash_json
from budwood.runs.run import Run
from budwood.runs.run_record import NetworkRecord, WeightsRecord
from budwood.text import listed

MEMBERS: Final = "members"
_MEMBER: Final = re.compile(r"members\.(\d+)(?:\.(.+))?")


def describe_ensemble_network(members: Sequence[Run], weights: Sequence[float]) -> NetworkRecord:
    """Describe the networks of an ensemble as one: what it takes and gives, its parameters and multiply-adds.

    Args:
        members: The members.
        weights: Weight of each.

    Returns:
        The record of the network that `load_ensemble_network` makes, which has no stages of its own.
    """
    networks = [member.record.network for member in members]
    names = [one.name for one in networks]
    told = listed([f"{names.count(name)} x {name}" for name in dict.fromkeys(names)], 4)
    digests = [digest for member in members for digest in member.record.files.values()]
    return NetworkRecord(
        name=f"ensemble of {told}",
        source="ensemble",
        size=max(one.size for one in networks),
        channels=3,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        head="",
        stages=(),
        pool="",
        features=sum(one.features for one in networks),
        shape=(len(members[0].classes),),
        parameters=ParameterCount(
            trainable=sum(one.parameters.trainable for one in networks),
            frozen=sum(one.parameters.frozen for one in networks),
        ),
        macs=sum(one.macs for one in networks),
        weights=WeightsRecord(kind="ensemble", digest=hash_json([digests, list(weights)])),
        trunk_trained=any(one.trunk_trained for one in networks),
    )


def refuse_different_views(run: Run, what: str) -> None:
    """Refuse an ensemble whose members do not see the same part of an image, where one picture for all is needed.

    Args:
        run: A run.
        what: What needs the picture, for the message.

    Raises:
        RunError: The members make images square in different ways.
    """
    members = run.members()
    ways = sorted({member.recipe.resize for member in members})
    if len(ways) > 1:
        raise RunError(
            f"{run.path}: the members of this ensemble make images square in different ways "
            f"(resize {' and '.join(ways)}), so there is no one picture for {what}.",
            "`budwood predict` and `bw.Predictor` read an image for each member; a member, such as "
            f"{members[0].path}, is a run of its own.",
        )


def find_member(run: Run, name: str | None, option: str) -> tuple[Run, str | None]:
    """Find the network that the name of a layer or stage belongs to.

    Args:
        run: A run.
        name: The name; in an ensemble with its member in front, such as `members.0.layer4`; None for none.
        option: Name of the option, for the message.

    Returns:
        The member and the name in it; the run itself and the name where it is no ensemble, or the name is None.

    Raises:
        RunError: The run is an ensemble, and the name has no member in front, or one that it does not have.
    """
    if run.record.ensemble is None or name is None:
        return run, name
    members, found = run.members(), _MEMBER.fullmatch(name)
    if found is None or int(found[1]) >= len(members):
        raise RunError(
            f"{option}: expected the name of a layer with its member in front, found {name!r}.",
            f"This ensemble has members.0 to members.{len(members) - 1}: write members.0.{name.rpartition('.')[2]}.",
        )
    return members[int(found[1])], found[2]
