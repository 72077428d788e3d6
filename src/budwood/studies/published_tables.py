"""What a study file says of published results: the tables `published`, `[[grid.published]]`, `best` and `worst`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from budwood.comparison.published import LOSS, LOSSES, NAMES, Published, Reported
from budwood.config.file_checks import FileModel
from budwood.config.metric_registry import REPORTED, is_loss, is_metric
from budwood.config.notation import parse_duration
from budwood.errors import did_you_mean

_SHARE: Final = "a value from 0 to 1, or [low, high]"
_NATS: Final = "a number from 0, or [low, high]"
_TIME: Final = "a duration such as 6m4s"
_Text = Annotated[str, Field(description="text")]


def _read_figure(value: Any, info: ValidationInfo) -> Any:
    """A figure, or the ends of a range; those of a metric are shares, unless it is a loss."""
    is_share = info.field_name not in LOSSES and not is_loss(info.data.get("metric", ""))
    ends = value if isinstance(value, list) and len(value) == 2 else [value]
    known = all(isinstance(end, int | float) and not isinstance(end, bool) and 0 <= end < math.inf for end in ends)
    if not known or (is_share and max(ends) > 1) or ends != sorted(set(ends)):
        raise ValueError(f"expected {_SHARE if is_share else _NATS}, found {value!r}")
    return float(value) if len(ends) == 1 else tuple(map(float, ends))


def _read_time(value: Any) -> Any:
    """Seconds, or a duration with units."""
    seconds = parse_duration(value) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ValueError(f"expected {_TIME}, found {value!r}")
    return float(seconds)


def check_metric(name: str) -> str:
    """Return the name of a metric that is reported, or a user's own.

    Args:
        name: The name.

    Returns:
        The name.

    Raises:
        ValueError: There is no such metric.
    """
    if not is_metric(name, REPORTED):
        raise ValueError(f"found {name!r}. {did_you_mean(name, REPORTED)}")
    return name


def _check_own_metric(name: str) -> str:
    return check_metric(name) if name else name


_Figure = Annotated[Reported | None, BeforeValidator(_read_figure)]


class PublishedTable(FileModel):
    """What a source reports for a row.

    Figures are of the metric, or losses in nats: a value, or a range as a list of two.

    Attributes:
        metric: The metric of the figures; empty: that of the study.
        value: A figure of `split`, for tables that tell one figure only.
        split: The split of `value`: train, val or test.
        train: On the training images.
        val: On the validation images.
        test: On the test images.
        train_loss: Loss on the training images.
        val_loss: Loss on the validation images.
        test_loss: Loss on the test images.
        time: Duration of the training in seconds.
        machine: The machine of that duration; empty: that of the study's source.
        parameters: Number of parameters.
        note: A remark.
    """

    # Before the figures, which depend on it.
    metric: Annotated[str, AfterValidator(_check_own_metric), Field(description="the name of a metric")] = ""
    value: _Figure = None
    split: Annotated[Literal["train", "val", "test"], Field(description="train, val or test")] = "test"
    train: _Figure = None
    val: _Figure = None
    test: _Figure = None
    train_loss: _Figure = None
    val_loss: _Figure = None
    test_loss: _Figure = None
    time: Annotated[float | None, BeforeValidator(_read_time)] = None
    machine: _Text = ""
    parameters: Annotated[int | None, Field(ge=1, description="a whole number from 1")] = None
    note: _Text = ""

    @model_validator(mode="after")
    def _check_figures(self) -> Self:
        if self.value is None and "split" in self.model_fields_set:
            raise ValueError("expected `value` beside `split`, or figures by their split: train, val, test")
        if self.value is not None and getattr(self, self.split) is not None:
            raise ValueError(f"tells the {self.split} figure twice, as `value` and as `{self.split}`")
        for name, split in LOSSES.items() if self.metric == LOSS else ():
            key = "value" if self.value is not None and self.split == split else split
            if getattr(self, key) is not None and getattr(self, name) is not None:
                raise ValueError(f"tells the {split} loss twice, as `{key}` and as `{name}`")
        told = {"value", *NAMES, "time", "parameters", "note"} & self.model_fields_set
        if not told:
            raise ValueError(f"tells nothing, expected one or more of {', '.join(NAMES)}, time, parameters, note")
        return self

    def read(self, metric: str, machine: str) -> Published:
        """Return what the table tells.

        Args:
            metric: The metric of the study.
            machine: The machine of the study's source; empty: not told.

        Returns:
            The figures.
        """
        figures: dict[str, Any] = {name: getattr(self, name) for name in NAMES}
        if self.value is not None:
            figures[self.split] = self.value
        return Published(
            **figures,
            seconds=self.time,
            machine=(self.machine or machine) if self.time is not None else "",
            parameters=self.parameters,
            metric=self.metric or metric,
            note=self.note,
        )


class GridFigure(PublishedTable):
    """What a source reports for one row of a grid.

    Attributes:
        where: The options by which the row is found.
    """

    where: Annotated[Mapping[str, object], Field(min_length=1, description="a table of options of the grid")]


PublishedPart = Annotated[PublishedTable | None, Field(description="a table of figures")]
