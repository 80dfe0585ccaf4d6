"""A feed of the sensors that Linux drives itself: the files of its Industrial I/O subsystem in sysfs.

Written after the kernel's documentation, Documentation/ABI/testing/sysfs-bus-iio: a channel gives either its value
(`_input`) or a raw number, to which its offset is added before it is multiplied by its scale. Offset and scale may
belong to one channel or to all of a type; they are read every time, since drivers change the gain by themselves.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from edge_agent.sources.catalogue import Catalogue
from edge_agent.sources.payloads import as_number
from edge_agent.sources.readings import Quantity, Reading
from hushfleet.configuration import Range

MOST_CHANNELS = 256
"""Of all devices together."""
LOOK_EVERY = 60.0
"""Seconds after which devices that came or went are noticed."""

_CHANNEL = re.compile(r"in_(?P<channel>(?P<type>[a-z]+)\d*(?:-[a-z]+\d*)?(?:_[a-z0-9]+)*?)_(?P<form>raw|input)")
_UNITS: dict[str, tuple[str | None, float]] = {
    # Type: its unit, and what a value in the kernel's own unit is multiplied by to be in it.
    "accel": ("m/s2", 1.0),
    "anglvel": ("rad/s", 1.0),
    "concentration": ("%", 1.0),
    "current": ("mA", 1.0),
    "distance": ("m", 1.0),
    "humidityrelative": ("%", 1e-3),
    "illuminance": ("lx", 1.0),
    "power": ("mW", 1.0),
    "pressure": ("kPa", 1.0),
    "temp": ("°C", 1e-3),
    "voltage": ("mV", 1.0),
}


@dataclass(frozen=True, slots=True)
class IioFeedSettings:
    """Which sensors, and how often.

    Attributes:
        root: where the kernel shows them.
        every: seconds from one reading of all channels to the next.
    """

    kind: Literal["iio"] = "iio"
    root: Path = Path("/sys/bus/iio/devices")
    every: Annotated[float, Range(0.01, 86_400)] = 1.0

    def open(self, wanted: Mapping[str, float] | None) -> "IioFeed":
        """See `FeedDescription`."""
        return IioFeed(self, wanted)


@dataclass(frozen=True, slots=True)
class _Channel:
    """One channel: its address, and the files that give its value."""

    address: str
    value: Path
    offset: Path | None
    scale: Path | None
    unit: str | None
    factor: float


class IioFeed:
    """See `Feed`. An address is `iio/`, the device's label or name, `#` and the channel, such as `iio/bme280#temp`."""

    def __init__(self, settings: IioFeedSettings, wanted: Mapping[str, float] | None) -> None:
        self._settings = settings
        self._wanted = wanted
        self._catalogue = Catalogue(wanted)
        self._channels: list[_Channel] = []
        self._looked: float | None = None
        self._read: float | None = None
        self._trouble: str | None = None

    @property
    def refused(self) -> Counter[str]:
        """See `Feed`."""
        return self._catalogue.refused

    @property
    def trouble(self) -> str | None:
        """See `Feed`."""
        return self._trouble

    def poll(self, now: float) -> list[Reading]:
        """See `Feed`."""
        # A clock that is set back must not silence the feed.
        if self._read is not None and 0 <= now - self._read < self._settings.every:
            return []
        self._read = now
        if self._looked is None or not 0 <= now - self._looked < LOOK_EVERY:
            self._looked = now
            self._look()
        found = []
        for channel in self._channels:
            value = _value(channel)
            if value is None:
                self._catalogue.refused["a channel that gave no number"] += 1
            else:
                found.append(Reading(channel.address, now, value))
        return self._catalogue.take(found)

    def quantities(self) -> list[Quantity]:
        """See `Feed`."""
        return self._catalogue.quantities()

    def close(self) -> None:
        """See `Feed`; no file stays open."""

    def _look(self) -> None:
        root = self._settings.root
        try:
            devices = sorted(root.glob("iio:device*"))
            if not root.is_dir():
                raise FileNotFoundError
        except OSError:
            self._trouble = f"there is no directory {root}; is this a Linux whose kernel has sensors? Else correct root"
            return
        self._trouble = None if devices else f"the kernel shows no sensors in {root}; load their drivers"
        named: dict[str, Path] = {}
        for device in devices:
            name = _name(device)
            named[name if name not in named else f"{name}@{device.name}"] = device
        channels = [channel for name, device in named.items() for channel in _channels(name, device)]
        if len(channels) > MOST_CHANNELS:
            self._catalogue.refused[f"more than {MOST_CHANNELS} channels"] += 1
        self._channels = channels[:MOST_CHANNELS]
        self._catalogue.describe(Quantity(one.address, one.unit, *_range(one)) for one in self._channels)
        if self._wanted is not None:
            self._channels = [one for one in self._channels if one.address in self._wanted]


def _name(device: Path) -> str:
    for file in (device / "label", device / "name"):
        name = _text(file)
        if name and name.isprintable():
            return name
    return device.name


def _channels(name: str, device: Path) -> Iterator[_Channel]:
    for file in sorted(device.glob("in_*")):
        found = _CHANNEL.fullmatch(file.name)
        if found is None or (found["form"] == "raw" and file.with_name(f"in_{found['channel']}_input").exists()):
            continue
        is_raw = found["form"] == "raw"
        offset, scale = (_belonging(file, found, what) if is_raw else None for what in ("offset", "scale"))
        unit, factor = _UNITS.get(found["type"], (None, 1.0))
        yield _Channel(f"iio/{name}#{found['channel']}", file, offset, scale, unit, factor)


def _belonging(file: Path, found: "re.Match[str]", what: str) -> Path | None:
    """The file of a channel's offset or scale: its own, or that of all channels of its type."""
    for owner in (found["channel"], found["type"]):
        path = file.with_name(f"in_{owner}_{what}")
        if path.exists():
            return path
    return None


def _value(channel: _Channel) -> float | None:
    raw = _number(channel.value)
    return None if raw is None else _converted(channel, raw)


def _converted(channel: _Channel, raw: float) -> float | None:
    offset = 0.0 if channel.offset is None else _number(channel.offset)
    scale = 1.0 if channel.scale is None else _number(channel.scale)
    return None if offset is None or scale is None else (raw + offset) * scale * channel.factor


def _range(channel: _Channel) -> tuple[float | None, float | None]:
    """The least and the largest value, where the driver says `[least step largest]`."""
    available = (_text(channel.value.with_name(f"{channel.value.name}_available")) or "").strip("[]").split()
    if len(available) != 3:
        return None, None
    low, high = (None if number is None else _converted(channel, number) for number in map(as_number, available[::2]))
    return low, high


def _number(file: Path) -> float | None:
    text = _text(file)
    return None if text is None else as_number(text)


def _text(file: Path) -> str | None:
    """What a file of the kernel says; None if it cannot be read: the device is busy, or gone."""
    try:
        with file.open("rb") as opened:
            return opened.read(256).decode("utf-8", "replace").strip()
    except OSError:
        return None
