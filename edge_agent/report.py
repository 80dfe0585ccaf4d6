"""`hushfleet agent report --html`: the quality of a device's readings, on one page that needs nothing else."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from edge_agent.sources.clock import SET
from edge_agent.sources.found import Found
from edge_agent.sources.quality import Counts, Series, drift
from edge_agent.sources.sensors import Sensors
from hushfleet.stability import MOVED, stability_index
from hushfleet.wire.schema import CLASSES, VALUE, Channel, Schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 120
BARS = 40
SMALLEST_SHARE = 1e-4
"""A share below stands for this much where the fleet's histogram is compared."""
LONG_GAP = 10
"""Times the usual pause between two readings."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222; }
h2 { margin: 2em 0 .2em; font-size: 1.15em; } h2 small { font-weight: normal; color: #666; }
table { border-collapse: collapse; } td, th { padding: .15em 1em .15em 0; text-align: left; vertical-align: top; }
td.number { text-align: right; } .bad { color: #b3261e; } .quiet { color: #666; }
figure { margin: .5em 0; display: inline-block; } figcaption { font-size: .85em; color: #666; }
svg { background: #f6f7f9; max-width: 100%; } polyline { fill: none; stroke: #2457a6; stroke-width: 1.2; }
rect { fill: #2457a6; }
"""
_WORDS = {
    "future": "ahead of this device's clock",
    "clock_set_back": "of a time that there was twice, as the clock was set back",
    "duplicate": "second readings of one moment",
    "out_of_range": "out of range",
    "spikes": "spikes",
    "stuck": "stuck",
}


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the newest statistics round tells of the fleet's readings.

    Attributes:
        devices: how many there were.
        channels: of each channel of the schema the shares over its range, or None where nobody measures it.
    """

    devices: int
    channels: Sequence[Sequence[float] | None]


def page(
    name: str,
    sensors: Sensors,
    schema: Schema,
    now: float,
    fleet: Fleet | None = None,
    told: Mapping[str, Any] | None = None,
) -> str:
    """The whole page.

    Args:
        name: the device's.
        sensors: its readings.
        schema: what the fleet's model takes in.
        now: seconds since 1970.
        fleet: what readings are elsewhere, which then stands beside what they are here.
        told: what the agent's status says of its sensors; None if nothing.

    Raises:
        ConfigurationError: the settings do not fit the schema, or the readings cannot be read.
    """
    found, (series, _) = sensors.rows(schema, now), sensors.series(schema, now)
    title = f"Readings of {name}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=quiet>{_clock('%Y-%m-%d %H:%M', now)}. Nothing on this page leaves the device by itself.</p>",
        *_windows(found, schema, len(sensors.store.readings(SET)[0])),
    ]
    beside = _beside(sensors, schema, fleet) if fleet and any(map(len, series)) else {}
    for channel, one in zip(schema.channels, series, strict=True):
        parts += _channel(channel, one, found.counts[channel.name], found.measured[channel.name], now)
        parts += beside.get(channel.name, [])
    parts += _feeds(told) if told else ()
    head = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    )
    return "\n".join([head, *parts, "</html>", ""])


def _windows(found: Found, schema: Schema, clock_set: int) -> Iterator[str]:
    data = found.data
    used, aside = len(data.training), len(data.evaluation)
    fit = used + found.spare
    seconds = schema.samples / schema.rate
    yield "<h2>Windows</h2><table>"
    yield _row("to train on", f"{used}", "" if used else "bad")
    yield _row("kept aside to score the model", f"{aside}")
    if found.spare:
        yield _row("not used: more than memory holds", f"{found.spare}")
    yield _row("refused: too much of them had to be imputed", f"{found.refused}", "bad" if found.refused > fit else "")
    what = "label" if schema.task in (CLASSES, VALUE) else "target"
    yield _row(f"without a {what}", f"{found.unlabelled}", "bad" if found.unlabelled > fit else "")
    if clock_set:
        yield _row("times that the device's clock was set meanwhile", f"{clock_set}", "bad")
    yield "</table>"
    channels = "one channel" if len(schema.channels) == 1 else f"{len(schema.channels)} channels"
    of = f"{seconds:g} s of {channels}, {schema.rate:g} samples a second"
    yield f"<p class=quiet>A window is {of}.</p>"
    if schema.task == CLASSES and used + aside:
        import numpy as np

        count = np.bincount(np.concatenate([data.training.y, data.evaluation.y]), minlength=len(schema.classes))
        yield "<table><tr><th>class</th><th>windows</th></tr>"
        for name, number in zip(schema.classes, count, strict=True):
            yield _row(name, f"{number}", "" if number else "bad")
        yield "</table>"


def _channel(channel: Channel, series: Series, counts: Counts, measured: float, now: float) -> Iterator[str]:
    yield f"<h2>{escape(channel.name)} <small>{escape(channel.unit)}, {channel.low:g} to {channel.high:g}</small></h2>"
    if not counts.readings:
        yield "<p class=bad>No reading is kept. Is the address right, and does the sensor speak?</p>"
        return
    yield "<table>"
    yield _row("readings", f"{counts.readings}")
    yield _row("samples that were measured", f"{measured:.1%}", "bad" if measured < 0.9 else "")
    for reason, number in counts.reasons().items():
        if number:
            yield _row(f"left out: {_WORDS[reason]}", f"{number}", "bad" if number > counts.readings / 100 else "")
    if counts.late:
        yield _row("late, used in their place", f"{counts.late}")
    if len(series):
        yield _row("newest", f"{now - series.times[-1]:.0f} s ago", "bad" if now - series.times[-1] > 86_400 else "")
    if (moved := drift(series)) is not None:
        yield _row(
            "last day's median, in deviations of the time before", f"{moved:+.1f}", "bad" if abs(moved) > 3 else ""
        )
    yield "</table>"
    if len(series) > 1:
        yield _line(series)
        yield _histogram(series, channel)


def _beside(sensors: Sensors, schema: Schema, fleet: Fleet) -> dict[str, list[str]]:
    """By channel, how often which value comes in the fleet, and how far that is from what this device would say."""
    import numpy as np

    from hushfleet.judgement import length
    from hushfleet.statistics import Numbers

    own = Numbers.split(schema, sensors.describe(schema, lambda _: np.zeros(length(schema)))).histograms()
    found = {}
    for channel, here, there in zip(schema.channels, own, fleet.channels, strict=True):
        if here is not None and there is not None:
            index = stability_index(np.array(there), np.array(here), SMALLEST_SHARE)
            found[channel.name] = [
                _figure(_bars(np.array(there)), WIDTH // 2, f"in the fleet: {fleet.devices} devices, each counts once"),
                "<table>",
                _row("distance from the fleet (population stability index)", f"{index:.2f}", "bad" * (index > MOVED)),
                "</table>",
            ]
    return found


def _feeds(told: Mapping[str, Any]) -> Iterator[str]:
    """What never became a reading, since the agent's last start."""
    yield "<h2>Feeds</h2>"
    for what, why in sorted(told["trouble"].items()):
        yield f"<p class=bad>{escape(what)}: {escape(why)}</p>"
    if told["dropped"]:
        yield "<table><tr><th>dropped since the agent's last start</th><th>times</th></tr>"
        yield from (_row(reason, f"{count}") for reason, count in sorted(told["dropped"].items()))
        yield "</table>"
    elif not told["trouble"]:
        yield "<p>Nothing was dropped since the agent's last start, and nothing hinders them.</p>"


def _row(what: str, value: str, look: str = "") -> str:
    return f'<tr class="{look}"><td>{escape(what)}</td><td class=number>{escape(value)}</td></tr>'


def _line(series: Series) -> str:
    """Least and greatest reading of each of some hundred stretches of time, no spike is lost; gaps stay open."""
    import numpy as np

    begin, end = float(series.times[0]), float(series.times[-1])
    low, high = float(series.values.min()), float(series.values.max())
    stretch = np.minimum((series.times - begin) / (end - begin) * (WIDTH / 2), WIDTH / 2 - 1).astype(int)
    # Readings stand in the order of time, so that each stretch is one run of them.
    starts = np.flatnonzero(np.diff(stretch, prepend=-1))
    least, most = np.minimum.reduceat(series.values, starts), np.maximum.reduceat(series.values, starts)
    gaps = np.diff(series.times)
    after_gaps = np.flatnonzero(gaps > LONG_GAP * np.median(gaps)) + 1
    y = HEIGHT - 4 - (np.stack([least, most], 1) - low) / ((high - low) or 1) * (HEIGHT - 8)
    lines: dict[int, list[str]] = {}
    for part, x, pair in zip(np.searchsorted(after_gaps, starts, side="right"), stretch[starts] * 2, y, strict=True):
        lines.setdefault(int(part), []).extend(f"{x},{end:.1f}" for end in pair)
    drawing = "".join(f'<polyline points="{" ".join(points)}"/>' for points in lines.values())
    caption = f"{_clock('%m-%d %H:%M', begin)} to {_clock('%m-%d %H:%M', end)}, from {low:.5g} to {high:.5g}"
    return _figure(drawing, WIDTH, caption)


def _histogram(series: Series, channel: Channel) -> str:
    import numpy as np

    count, _ = np.histogram(series.values, BARS, (channel.low, channel.high))
    return _figure(_bars(count), WIDTH // 2, f"how often, from {channel.low:g} to {channel.high:g}")


def _bars(count: "NDArray[Any]") -> str:
    wide, top = WIDTH / 2 / len(count), float(count.max()) or 1.0
    heights: Sequence[float] = [number / top * (HEIGHT - 8) for number in count]
    return "".join(
        f'<rect x="{at * wide:.1f}" y="{HEIGHT - height:.1f}" width="{wide - 1:.1f}" height="{height:.1f}"/>'
        for at, height in enumerate(heights)
        if height
    )


def _figure(drawing: str, width: int, caption: str) -> str:
    box = f'viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}"'
    return f'<figure><svg role="img" {box}>{drawing}</svg><figcaption>{escape(caption)}</figcaption></figure>'


def _clock(form: str, moment: float) -> str:
    return time.strftime(form, time.localtime(moment))
