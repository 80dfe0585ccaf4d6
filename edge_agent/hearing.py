"""`hushfleet agent test` for sensors: read what is named for a while, keep nothing, and show the owner what came."""

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from edge_agent.settings import AgentSettings
from edge_agent.sources.clock import ClockWatch, running
from edge_agent.sources.sensors import ChannelSettings
from hushfleet.units import canonical
from hushfleet.wire.schema import FORECAST, Channel, Schema

_PAUSE = 0.1
_HEADINGS = ("channel", "address", "readings", "newest", "fit", "left out")


@dataclass(slots=True)
class Heard:
    """What came for one channel.

    Attributes:
        channel: this device's settings of it.
        times, values: in the order of arrival; values in this device's unit.
        texts: readings that were text without a number.
        unit: what the sensor says that they are in, if it says so.
    """

    channel: ChannelSettings
    times: "array[float]" = field(default_factory=lambda: array("d"))
    values: "array[float]" = field(default_factory=lambda: array("d"), repr=False)
    texts: int = 0
    unit: str | None = None


def listen(settings: AgentSettings, seconds: float) -> tuple[list[Heard], list[float], list[str]]:
    """Read the channels for so many seconds; by how much the clock was set meanwhile; what hinders the feeds.

    Raises:
        ConfigurationError: a feed cannot be opened.
    """
    assert settings.sensors is not None
    addresses = settings.sensors.addresses()
    heard = {one.name: Heard(one) for one in settings.sensors.channel}
    feeds = [feed.open(dict.fromkeys(addresses, time.time())) for feed in settings.feeds]
    watch, moved = ClockWatch(), list[float]()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := watch.look(time.time(), running()):
                moved.append(found.by)
            for reading in (reading for feed in feeds for reading in feed.poll(time.time())):
                for channel in addresses.get(reading.address, ()):
                    _take(heard[channel.name], reading.time, channel.number(reading.value))
            time.sleep(_PAUSE)
        for quantity in (quantity for feed in feeds for quantity in feed.quantities()):
            for channel in addresses.get(quantity.address, ()):
                heard[channel.name].unit = quantity.unit
        return list(heard.values()), moved, [feed.trouble for feed in feeds if feed.trouble]
    finally:
        for feed in feeds:
            feed.close()


def _take(heard: Heard, moment: float, value: float | None) -> None:
    if value is None:
        heard.texts += 1
    else:
        heard.times.append(moment)
        heard.values.append(value)


def table(found: list[Heard], schema: Schema, now: float) -> Iterator[str]:
    """The lines of a table: each channel of the schema, what came for it, in the schema's unit."""
    here = {one.channel.name: one for one in found}
    rows = [_HEADINGS, *(_row(here[channel.name], channel, now) for channel in schema.channels)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def score_line(status: dict[str, Any]) -> str:
    """What a status says of the newest model on the rows kept aside; a forecast's error in its channel's unit."""
    score = {name: value for name, value in status["score"].items() if value is not None}
    said = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in score.items()}
    if "error" in score and status.get("schema"):
        schema = Schema.from_body(bytes.fromhex(status["schema"]))
        if schema.task == FORECAST:
            channel = schema.channels[schema.target]
            said["error"] = f"{channel.value(score['error']) - channel.value(0.0):.4g} {channel.unit}"
    return ", ".join(f"{name} {text}" for name, text in said.items())


def sensor_lines(status: dict[str, Any], now: float) -> Iterator[str]:
    """The lines of a status about sensors and decisions; they are a minute old at most."""
    if sensors := status["sensors"]:
        for name, kept in sorted(sensors["kept"].items()):
            newest = sensors["newest"].get(name)
            age = "none since the start" if newest is None else f"the newest {max(0, round(now - newest))} s ago"
            yield f"{'sensors':<12}{name}: {kept} readings, {age}"
        there, written = sensors["bytes"] / 1e6, sensors["written"] / 1e6
        yield f"{'sensors':<12}{there:.3g} MB kept; {written:.3g} MB written to the disk in {sensors['hours']:.3g} h"
        for reason, count in sorted(sensors["dropped"].items()):
            yield f"{'sensors':<12}dropped {count} times: {reason}"
        if clock := sensors["clock_set"]:
            yield f"{'sensors':<12}the clock was set {clock['times']} times, the last time by {clock['seconds']:+g} s"
        for what, why in sorted(sensors["trouble"].items()):
            yield f"{'sensors':<12}{what}: {why}"
    if (decisions := status["decisions"]) and decisions["model"] is not None:
        own = ", personalised" if decisions["personalised"] else ""
        yield f"{'decisions':<12}{decisions['told']} told; model version {decisions['model']} is at work{own}"
        if judged := decisions["judged"]:
            yield f"{'decisions':<12}held against how model version {judged} does in the whole fleet"
        if back := decisions["back"]:
            yield f"{'decisions':<12}went back from model version {back['version']}: {back['why']}"


def _row(heard: Heard, channel: Channel, now: float) -> tuple[str, ...]:
    import numpy as np

    from edge_agent.sources.quality import clean
    from edge_agent.sources.sensors import conversion_of

    factor, offset = conversion_of(heard.channel, channel)
    times, values = np.array(heard.times, np.float64), np.array(heard.values, np.float64) * factor + offset
    series, counts = clean(times, values, channel.low, channel.high, heard.channel.cleaning, now)
    newest = f"{series.values[-1]:.5g} {channel.unit}" if len(series) else ""
    left_out = [f"{count} {reason.replace('_', ' ')}" for reason, count in counts.reasons().items() if count]
    if heard.texts:
        left_out.append(f"{heard.texts} text without a number")
    expected = heard.channel.unit or channel.unit
    if heard.unit and canonical(heard.unit) != canonical(expected):
        left_out.append(f"none, but the sensor announces {heard.unit}, not {expected}: correct unit?")
    return (
        channel.name,
        heard.channel.address,
        str(counts.readings + heard.texts),
        newest,
        str(len(series)),
        ", ".join(left_out),
    )
