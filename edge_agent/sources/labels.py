"""What a window shows, where the fleet learns to tell: by rules over its channels, by the clock, or as it is told."""

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from edge_agent.sources.store import ReadingStore
from edge_agent.sources.windows import Grid, Windows
from hushfleet.configuration import Key, Range, did_you_mean
from hushfleet.errors import ConfigurationError
from hushfleet.wire.schema import Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABEL = "label"
"""The name under which what the owner says is kept beside the channels."""
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition, and the class of the windows that meet it. What is not said does not matter.

    Attributes:
        label: name of the class.
        channel: whose mean over the window, in the schema's unit, is to be above or below something.
        above, below: that mean's bounds.
        begin, end: hours of the device's own local time, `HH:MM`, between which the window ends; past midnight too.
    """

    label: Annotated[str, Key("class")]
    channel: str = ""
    above: float | None = None
    below: float | None = None
    begin: Annotated[str, Key("from")] = ""
    end: Annotated[str, Key("to")] = ""

    def __post_init__(self) -> None:
        bounded = self.above is not None or self.below is not None
        if bool(self.channel) != bounded:
            raise ConfigurationError("a channel needs above or below, and these need a channel")
        if bool(self.begin) != bool(self.end):
            raise ConfigurationError("from and to belong together")
        for moment in filter(None, (self.begin, self.end)):
            if not _CLOCK.fullmatch(moment):
                raise ConfigurationError(f"{moment!r} is no time of day; write it as HH:MM, like 06:30")
        if not bounded and not self.begin:
            raise ConfigurationError("a rule needs a channel with above or below, or from and to")


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """Where labels come from: told by a feed, or made by the first rule that fits, or else `otherwise`.

    Attributes:
        address: the quantity that tells the label, as `hushfleet agent discover` names it.
        values: the class for each text or number that may be told there; without it the text itself is the class, or
            the number what is to be predicted.
        hold: seconds for which what was told is so.
        rule: the rules, the first that fits counts.
        otherwise: the class of a window that no rule fits; without it such windows are not used.
    """

    address: str = ""
    values: dict[str, str] | None = None
    hold: Annotated[float, Range(0)] = 60.0
    rule: tuple[Rule, ...] = ()
    otherwise: str = ""

    def __post_init__(self) -> None:
        if bool(self.address) == bool(self.rule):
            raise ConfigurationError("labels are told at an address or made by rules, one of the two")

    def check(self, schema: Schema) -> None:
        """ConfigurationError if a class or channel named here is not the schema's."""
        names = [channel.name for channel in schema.channels]
        told = list((self.values or {}).values())
        for word in filter(None, [*(rule.label for rule in self.rule), self.otherwise, *told]):
            if word not in schema.classes:
                raise ConfigurationError(
                    f"label: the fleet knows no class {word!r}; {did_you_mean(word, schema.classes)}"
                )
        for rule in self.rule:
            if rule.channel and rule.channel not in names:
                raise ConfigurationError(
                    f"label: the fleet's schema has no channel {rule.channel!r}; {did_you_mean(rule.channel, names)}"
                )

    def told(self, value: float | str) -> tuple[str, float] | None:
        """The channel and value under which what was told is kept; None for what means nothing."""
        if self.values is not None:
            word = self.values.get(value if isinstance(value, str) else f"{value:g}")
            return None if word is None else (f"{LABEL}/{word}", 1.0)
        return (f"{LABEL}/{value}", 1.0) if isinstance(value, str) else (LABEL, value)


def by_rules(settings: LabelSettings, schema: Schema, grid: Grid, found: Windows) -> "NDArray[np.int64]":
    """The class of each window, int64[n]; -1 for none.

    Raises:
        ConfigurationError: as `LabelSettings.check`.
    """
    import numpy as np

    settings.check(schema)
    number = {name: position for position, name in enumerate(schema.classes)}
    labels = np.full(len(found.ends), number.get(settings.otherwise, -1))
    # The first rule counts: the later ones are written before it.
    for rule in reversed(settings.rule):
        labels[_fits(rule, schema, grid, found.ends)] = number[rule.label]
    return labels


def _fits(rule: Rule, schema: Schema, grid: Grid, ends: "NDArray[np.int64]") -> "NDArray[np.bool_]":
    import numpy as np

    fits = np.ones(len(ends), bool)
    if rule.channel:
        mean = _means(rule.channel, schema, grid, ends)
        if rule.above is not None:
            fits &= mean > rule.above
        if rule.below is not None:
            fits &= mean < rule.below
    if rule.begin:
        hours = np.array([time.strftime("%H:%M", time.localtime(end / schema.rate)) for end in ends], "U5")
        after, before = hours >= rule.begin, hours < rule.end
        fits &= (after & before) if rule.begin <= rule.end else (after | before)
    return fits


def _means(name: str, schema: Schema, grid: Grid, ends: "NDArray[np.int64]") -> "NDArray[np.float64]":
    """A channel's mean over each window, in its own unit."""
    import numpy as np

    (position,) = (at for at, channel in enumerate(schema.channels) if channel.name == name)
    channel = schema.channels[position]
    sums = np.concatenate(([0.0], np.cumsum(grid.values[position], dtype=np.float64)))
    last = ends - grid.first + 1
    mean = (sums[last] - sums[last - schema.samples]) / schema.samples
    result: NDArray[np.float64] = channel.value(mean)
    return result


def as_told(store: ReadingStore, schema: Schema, hold: float, ends: "NDArray[np.int64]") -> "NDArray[np.float64]":
    """What was told last when each window ended, float64[n]: a class's number or one to predict; nan for nothing."""
    import numpy as np

    words: dict[str, int | None] = {f"{LABEL}/{name}": number for number, name in enumerate(schema.classes)}
    times, values = [], []
    for channel, number in (words or {LABEL: None}).items():
        moments, told = store.readings(channel)
        times.append(moments)
        values.append(told if number is None else np.full(len(moments), float(number)))
    told_at = np.concatenate(times)
    order = np.argsort(told_at, kind="stable")
    told_at, told = told_at[order], np.concatenate(values)[order]
    moments = ends / schema.rate
    newest = np.searchsorted(told_at, moments, side="right") - 1
    found = np.full(len(ends), np.nan)
    known = newest >= 0
    known[known] = moments[known] - told_at[newest[known]] <= hold
    found[known] = told[newest[known]]
    return found
