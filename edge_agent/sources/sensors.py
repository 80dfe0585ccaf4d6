"""A device's rows made of its sensors' readings: the schema's channels, cleaned, in windows, with their targets."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from edge_agent.sources.clock import CLOCK, SET, twice
from edge_agent.sources.found import Found
from edge_agent.sources.labels import LABEL, LabelSettings, as_told, by_rules
from edge_agent.sources.quality import Cleaning, Counts, Series, clean
from edge_agent.sources.readings import Quantity
from edge_agent.sources.rows import MEMORY, Head, Judge, LocalData, Rows, rows_in
from edge_agent.sources.store import Keep, ReadingStore
from edge_agent.sources.windows import Grid, Windows, contents, forecasts, resample, windows
from hushfleet.configuration import Range, did_you_mean
from hushfleet.errors import ConfigurationError
from hushfleet.units import canonical, conversion
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.schema import ANOMALY, CLASSES, FORECAST, VALUE, Channel, Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HOLD_SAMPLES = 3
"""Samples for which a reading holds where nothing else is said."""


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """Which quantity of this device one channel of the fleet's schema is.

    Attributes:
        name: the channel's, in the schema.
        address: the quantity's, as `hushfleet agent discover` names it.
        unit: what the readings are in; the schema's unless it is said here.
        hold: seconds for which a reading stands for what comes after it: longer than the sensor is ever silent.
        values: numbers for what is text, `{ ON = 1, OFF = 0 }`, or for numbers that are codes, `{ 2 = 0 }`.
        cleaning: what its readings are held against.
    """

    name: str
    address: str
    unit: str | None = None
    hold: Annotated[float, Range(0)] | None = None
    values: dict[str, float] = field(default_factory=dict)
    cleaning: Cleaning = field(default_factory=Cleaning)

    def number(self, value: float | str) -> float | None:
        """A reading as it is kept, in this device's unit; None if it is text without a number."""
        if isinstance(value, str):
            return self.values.get(value)
        return self.values.get(f"{value:g}", value) if self.values else value


@dataclass(frozen=True, slots=True)
class SensorSettings:
    """`[sensors]`: the device's rows are made of its sensors' readings.

    Attributes:
        channel: for each channel of the schema, what it is here.
        label: where labels come from, if the fleet learns classes or a number.
        keep: how much is kept.
        holdout: 0 to 1, the part of the windows, the newest, that only score the model and never train it.
        memory: MiB that samples take at most, and windows besides: older samples are not looked at, and of more windows
            as many are used as fit, evenly spread over the time.
    """

    channel: tuple[ChannelSettings, ...] = ()
    label: LabelSettings | None = None
    keep: Keep = field(default_factory=Keep)
    holdout: Annotated[float, Range(0, 1)] = 0.2
    memory: Annotated[int, Range(1, 65_536)] = MEMORY

    def __post_init__(self) -> None:
        names = [one.name for one in self.channel]
        if len(set(names)) < len(names):
            raise ConfigurationError("two channels have the same name; each channel of the schema is one quantity here")
        if any(name.partition("/")[0] == LABEL for name in names):
            raise ConfigurationError(
                f"no channel can be called {LABEL!r}; say where labels come from under [sensors.label]"
            )
        if any(name.partition("/")[0] == CLOCK for name in names):
            raise ConfigurationError(f"no channel can be called {CLOCK!r}: how the device's clock was set stands there")

    def addresses(self) -> dict[str, tuple[ChannelSettings, ...]]:
        """The channels that each address feeds."""
        found: dict[str, tuple[ChannelSettings, ...]] = {}
        for one in self.channel:
            found[one.address] = (*found.get(one.address, ()), one)
        return found

    def announced_otherwise(self, quantities: Iterable[Quantity]) -> dict[str, str]:
        """By channel: that its sensor announces another unit than these settings name, with the remedy."""
        addresses = self.addresses()
        return {
            one.name: f"{quantity.address} is announced in {quantity.unit}, the settings say {one.unit!r}; correct "
            "unit, unless the announcement is wrong"
            for quantity in quantities
            for one in addresses.get(quantity.address, ())
            if one.unit and quantity.unit and canonical(one.unit) != canonical(quantity.unit)
        }

    def mapped(self, schema: Schema) -> list[ChannelSettings]:
        """This device's settings of each channel of the schema, in its order.

        Raises:
            ConfigurationError: a channel is missing, or its unit cannot be converted.
        """
        here = {one.name: one for one in self.channel}
        for channel in schema.channels:
            if channel.name not in here:
                raise ConfigurationError(
                    f"the fleet's model needs the channel {channel.name!r} ({channel.unit}); add a [[sensors.channel]] "
                    f"of that name, or {did_you_mean(channel.name, here)}"
                )
            conversion_of(here[channel.name], channel)
        return [here[channel.name] for channel in schema.channels]


@dataclass(frozen=True, slots=True)
class Sensors:
    """A device's readings and what the owner said of them."""

    settings: SensorSettings
    store: ReadingStore

    def read(self, model: ModelSpec, schema: Schema | None) -> LocalData:
        """See `Source`."""
        if schema is None:
            raise ConfigurationError(
                "the owners have signed no schema for this model, so that no rows can be made of sensor readings; "
                "[schema] in fleet.toml says what it takes in"
            )
        found = self.rows(schema, time.time())
        if not len(found.data.training):
            raise ConfigurationError(f"there are no windows to train on: {found.lacks()}")
        return found.data

    def rows(self, schema: Schema, now: float) -> Found:
        """The windows up to now, and their targets.

        Raises:
            ConfigurationError: the settings do not fit the schema, or the readings cannot be read.
        """
        import numpy as np

        grid, counts = self._kept(schema, now)
        found = windows(schema, grid)
        data, known, spare = self._rows(schema, grid, found)
        measured = grid.measured.mean(axis=1) if grid.measured.shape[1] else np.zeros(len(schema.channels))
        names = [channel.name for channel in schema.channels]
        return Found(
            data,
            dict(zip(names, counts, strict=True)),
            dict(zip(names, map(float, measured), strict=True)),
            found.refused,
            int((~known).sum()),
            spare,
        )

    def describe(self, schema: Schema, judge: Judge) -> "NDArray[np.float64]":
        """See `Source`: all samples that are kept, and the labels of all windows that have one."""
        import numpy as np

        from hushfleet.statistics import describe

        grid, _ = self._kept(schema, time.time())
        if not grid.measured.any():
            raise ConfigurationError("there are no readings yet that could be described")
        found = windows(schema, grid)
        labels, judged = np.zeros(0, np.int64), None
        if schema.task not in (CLASSES, VALUE) or self.settings.label is not None:
            judged = judge(self._rows(schema, grid, found)[0])
        if schema.task == CLASSES and self.settings.label is not None:
            y, known = self._targets(schema, grid, found)
            labels = y[known]
        there = zip(schema.channels, grid.values, grid.measured, strict=True)
        values = [channel.share(row[measured].astype(np.float64)) for channel, row, measured in there]
        missing = (1 - grid.measured.mean(axis=1)).tolist()
        return describe(schema, len(found.ends), labels, values, missing, judged)

    def _kept(self, schema: Schema, now: float) -> tuple[Grid, list[Counts]]:
        """The samples up to now that memory holds, from where every channel has readings, and what was left out."""
        last = math.ceil(now * schema.rate)
        holds, earliest = self._holds(schema), last - rows_in(self.settings.memory, len(schema.channels))
        series, counts = self.series(schema, now, (earliest - 1) / schema.rate - max(holds))
        begin = max((one.times[0] for one in series if len(one)), default=now)
        first = max(earliest, math.ceil(begin * schema.rate))
        return resample(schema, series, holds, first, last), counts

    def newest(self, schema: Schema, now: float, after: int | None) -> "tuple[int, NDArray[np.float32] | None] | None":
        """The newest window that is over, if it is not the one that ended with the sample of the number `after`.

        Returns:
            The number of its last sample, and its contents, None if too much of it had to be imputed.
        """
        # A sample's cell is over half a sample after it.
        last = math.floor(now * schema.rate - 0.5)
        last -= (last - schema.samples + 1) % schema.step
        if last == after:
            return None
        holds, first = self._holds(schema), last - schema.samples + 1
        series, _ = self.series(schema, now, (first - 1) / schema.rate - max(holds))
        grid = resample(schema, series, holds, first, last + 1)
        found = contents(schema, grid, windows(schema, grid).ends)
        return last, found[0] if len(found) else None

    def _holds(self, schema: Schema) -> list[float]:
        return [HOLD_SAMPLES / schema.rate if one.hold is None else one.hold for one in self.settings.mapped(schema)]

    def series(self, schema: Schema, now: float, since: float | None = None) -> tuple[list[Series], list[Counts]]:
        """Every channel's readings that are used, in the schema's unit and order, and what was left out.

        Args:
            since: seconds since 1970: of what is older not everything need be there; all that is kept without it.
        """
        kept = now - self.settings.keep.days * 86_400
        set_back, found = twice(*self.store.readings(SET)), []
        for one, channel in zip(self.settings.mapped(schema), schema.channels, strict=True):
            factor, offset = conversion_of(one, channel)
            times, values = self.store.readings(one.name, kept if since is None else max(since, kept))
            # A clock that was not set yet may have dated one of them decades back.
            if (times < kept).any():
                times, values = times[times >= kept], values[times >= kept]
            found.append(clean(times, values * factor + offset, channel.low, channel.high, one.cleaning, now, set_back))
        return [series for series, _ in found], [counts for _, counts in found]

    def _rows(self, schema: Schema, grid: Grid, found: Windows) -> "tuple[LocalData, NDArray[np.bool_], int]":
        """Rows that memory holds, evenly spread over the windows with a target; which have one; how many are left."""
        import numpy as np

        y, known = self._targets(schema, grid, found)
        used = np.flatnonzero(known)
        spare = max(0, len(used) - rows_in(self.settings.memory, schema.inputs()))
        if spare:
            used = used[np.linspace(0, len(used) - 1, len(used) - spare).astype(np.int64)]
        ends = found.ends[used]
        x = contents(schema, grid, ends)
        y = x if schema.task == ANOMALY else y[used]
        return _split(x, y, ends, schema, self.settings.holdout), known, spare

    def _targets(self, schema: Schema, grid: Grid, found: Windows) -> "tuple[NDArray[Any], NDArray[np.bool_]]":
        """What each window is to lead to, as `Rows.y` has it, and which windows have a target at all.

        For anomalies that is the window itself, which is not there yet: what comes first says nothing then.
        """
        import numpy as np

        if schema.task == ANOMALY:
            return found.ends, np.ones(len(found.ends), bool)
        if schema.task == FORECAST:
            values, measured = forecasts(schema, grid, found.ends)
            return values[:, None], measured
        told = self._told(schema, grid, found)
        known = np.isfinite(told)
        if schema.task == CLASSES:
            return np.where(known, told, 0).astype(np.int64), known
        return told.astype(np.float32)[:, None], known

    def _told(self, schema: Schema, grid: Grid, found: Windows) -> "NDArray[np.float64]":
        import numpy as np

        label = self.settings.label
        if label is None:
            raise ConfigurationError("the fleet learns from labels; say where they come from under [sensors.label]")
        label.check(schema)
        if label.address:
            return as_told(self.store, schema, label.hold, found.ends)
        if schema.task != CLASSES:
            raise ConfigurationError("the fleet learns a number: rules give classes; name the label's address instead")
        classes = by_rules(label, schema, grid, found)
        return np.where(classes < 0, np.nan, classes)


def conversion_of(one: ChannelSettings, channel: Channel) -> tuple[float, float]:
    """(factor, offset) from this device's unit to the schema's; ConfigurationError if there is none."""
    try:
        return conversion(one.unit or channel.unit, channel.unit)
    except ConfigurationError as error:
        raise ConfigurationError(f"channel {one.name!r}: {error}") from None


def _split(
    x: "NDArray[np.float32]", y: "NDArray[Any]", ends: "NDArray[np.int64]", schema: Schema, holdout: float
) -> LocalData:
    """The newest windows are kept aside; those that share samples with them are neither trained on nor scored."""
    kept = len(x) - int(len(x) * holdout)
    head: Head = "softmax" if schema.task == CLASSES else "mean_squared"
    trained = int((ends[:kept] <= ends[kept] - schema.samples).sum()) if kept < len(x) else kept
    return LocalData(Rows(x[:trained], y[:trained]), Rows(x[kept:], y[kept:]), head)


def readings_path(vault: Path) -> Path:
    """Where an agent keeps its sensors' readings, beside its vault."""
    return vault.with_name("readings.db")
