"""The device classes that come with the package, and an owner's own: one TOML file each (docs/planning.md).

What a figure rests on stands beside it in the file and is carried along, so that a plan can say what it guesses.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from hushfleet.configuration import Key, Range, did_you_mean
from hushfleet.configuration import load as load_file
from hushfleet.errors import ConfigurationError
from hushfleet.wire.layers import Gru, Layer, parameter_count, use_count, value_count

_SHELF = Path(__file__).parent
_LONGEST_NAME = 64
_WINDOW = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
DAY = 1_440
"""Minutes."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number about a device, and what it rests on. Written as a bare number it rests on its writer's word.

    Attributes:
        value: above 0, in the unit of its field.
        source: where it was measured or published.
        guess: how it was guessed, where nobody measured it. At most one of the two is given.
    """

    value: Annotated[float, Range(0)]
    source: str = ""
    guess: str = ""

    BARE: ClassVar[str] = "value"

    def __post_init__(self) -> None:
        if self.value <= 0:
            raise ConfigurationError("a figure is above 0; leave out what the device does not have")
        if self.source and self.guess:
            raise ConfigurationError("a figure has a source or is a guess, not both")


@dataclass(frozen=True, slots=True)
class Compute:
    """How fast one core is; `hushfleet agent calibrate` measures all of it.

    Attributes:
        step: µs, what a training step costs besides its arithmetic.
        update: ns a training step costs for each parameter, however many rows it has.
        training: ns for each use of a parameter by a row of a training step, forward and backward.
        sequence: ns for each value that a layer along time makes of a row of a training step, besides those.
        recurrence: µs for each step of a GRU in a training step, besides those.
        multiplication: µs of a scalar multiplication in the masking group.
        keystream: ns for each byte of a mask.
        encoding: ns for each parameter of an update, from clipping to residues, with the plain codec.
        rotation: the same with the rotated codec at a tenth of the coordinates, what is dropped included.
        sync: ms of one durable commit.
    """

    step: Figure
    update: Figure
    training: Figure
    sequence: Figure
    recurrence: Figure
    multiplication: Figure
    keystream: Figure
    encoding: Figure
    rotation: Figure
    sync: Figure

    def training_step(self, layers: Sequence[Layer], rows: int) -> float:
        """Seconds of one core of a training step with so many rows; how near that comes: docs/planning.md."""
        of_a_row = self.training.value * use_count(layers) + self.sequence.value * value_count(layers)
        recurrent = sum(layer.length for layer in layers if isinstance(layer, Gru))
        once = 1e-6 * (self.step.value + self.recurrence.value * recurrent)
        return once + 1e-9 * (self.update.value * parameter_count(layers) + of_a_row * rows)


@dataclass(frozen=True, slots=True)
class Energy:
    """What the device draws, in W, beyond what it draws anyway while it waits.

    Attributes:
        idle: W while it waits with its radio attached; for comparison only, since it is drawn without training too.
        compute: W more with one core at work.
        sending, receiving: W more while the radio does.
        tail: s for which the radio stays on, at `receiving`, after the last byte.
        battery: Wh; left out where there is mains.
    """

    idle: Figure
    compute: Figure
    sending: Figure
    receiving: Figure
    tail: Figure | None = None
    battery: Figure | None = None


@dataclass(frozen=True, slots=True)
class Flash:
    """What the device keeps its memory on.

    Attributes:
        endurance: TB that may be written before it wears out, as its maker rates it.
        amplification: bytes written to cells for each byte of a small synchronised write.
    """

    endurance: Figure
    amplification: Figure


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the device may work.

    Attributes:
        duty_cycle: largest share of time in which it may use its link, in an hour.
        asleep: daily windows "HH:MM-HH:MM", local time, in which it is off the air; one may run over midnight.
        spread: s over which the beginning of its part in a round is drawn, so that a cell's uploads do not collide; at
            most half of what the plan leaves it.
    """

    duty_cycle: Annotated[float, Range(0.0001, 1)] = 1.0
    asleep: tuple[str, ...] = ()
    spread: Annotated[int, Range(0, 86_400)] = 0

    def __post_init__(self) -> None:
        for window in self.asleep:
            if _WINDOW.fullmatch(window) is None:
                raise ConfigurationError(f'asleep: {window!r} is not a window like "23:00-05:00"')
        if self.awake_share() == 0:
            raise ConfigurationError("asleep: the device never wakes")

    def awake_share(self) -> float:
        """Share of the day outside every window, 0 to 1."""
        return 1 - len(_asleep(self.asleep)) / DAY

    def sleeps_on(self, minute: int) -> int:
        """Minutes until the device is awake, at this minute of the day, 0 to 1,439; 0 if it is."""
        asleep = _asleep(self.asleep)
        return next(ahead for ahead in range(DAY) if (minute + ahead) % DAY not in asleep)


@cache
def _asleep(windows: tuple[str, ...]) -> frozenset[int]:
    """The minutes of the day that are in any window."""
    asleep: set[int] = set()
    for window in windows:
        begin_hour, begin_minute, end_hour, end_minute = map(int, re.split("[:-]", window))
        begin, end = 60 * begin_hour + begin_minute, 60 * end_hour + end_minute
        asleep.update(minute % DAY for minute in range(begin, end if end > begin else end + DAY))
    return frozenset(asleep)


@dataclass(frozen=True, slots=True)
class Link:
    """How a device class talks to the broker (docs/protocol.md, section 11.5; the facts: docs/operations.md).

    Attributes:
        link_class: what carries the packets.
        chunk: bytes of one slice of an upload, 256 to 61,440.
        window: slices under way at once; `window · chunk` should reach rate · round trip.
        keepalive: seconds between pings on an idle connection; the broker takes at most 3,600.
        daily_bytes: most bytes that the device may spend on its link in a day, both ways; 0 for no limit.
        rate_up, rate_down: kbit/s that the link carries, headers included.
        round_trip: ms.
    """

    link_class: Annotated[Literal["ethernet", "wifi", "lte-m", "2g", "nb-iot", "satellite"], Key("class")]
    chunk: Annotated[int, Range(256, 61_440)]
    window: Annotated[int, Range(1, 64)]
    keepalive: Annotated[int, Range(5, 3_600)]
    daily_bytes: Annotated[int, Range(0)] = 0
    rate_up: Figure | None = None
    rate_down: Figure | None = None
    round_trip: Figure | None = None


@dataclass(frozen=True, slots=True)
class FirmwareProfile:
    """A device class. An agent needs its link and its schedule alone; the rest is for planning.

    Attributes:
        name: as certificates and the roster name it, ASCII, at most 64 characters.
        description: one line for people.
        memory: MiB of RAM.
        link: the connection to the broker.
        compute, energy, flash: what its work costs; None where its writer did not say.
        schedule: when it may work.
    """

    name: str
    description: str
    memory: Figure
    link: Link
    compute: Compute | None = None
    energy: Energy | None = None
    flash: Flash | None = None
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if not self.name.isascii() or not self.name.isprintable() or not 1 <= len(self.name) <= _LONGEST_NAME:
            raise ConfigurationError(f"name {self.name!r} is not 1 to {_LONGEST_NAME} plain ASCII characters")
        if self.schedule.duty_cycle < 1 and None in (self.link.rate_up, self.link.rate_down):
            raise ConfigurationError("schedule.duty_cycle needs link.rate_up and link.rate_down: give them")

    def figures(self) -> dict[str, Figure]:
        """Every figure that is given, by its place in the file."""
        found = {"memory": self.memory}
        for name in ("link", "compute", "energy", "flash"):
            found |= {f"{name}.{key}": figure for key, figure in _figures(getattr(self, name))}
        return found

    def lacking(self) -> tuple[str, ...]:
        """What a plan needs and this profile does not give, by its place in the file."""
        tables = tuple(name for name in ("compute", "energy", "flash") if getattr(self, name) is None)
        rates = ("rate_up", "rate_down", "round_trip")
        return (*(f"link.{name}" for name in rates if getattr(self.link, name) is None), *tables)


def _figures(table: Link | Compute | Energy | Flash | None) -> Iterator[tuple[str, Figure]]:
    if table is None:
        return
    for column in fields(table):
        value = getattr(table, column.name)
        if isinstance(value, Figure):
            yield column.name, value


def names() -> tuple[str, ...]:
    """The profiles that come with the package."""
    return tuple(sorted(file.stem for file in _SHELF.glob("*.toml")))


def load(name: str) -> FirmwareProfile:
    """The profile of that name, or of the file if `name` is a path: with a slash in it, or ending in `.toml`.

    Raises:
        ConfigurationError: the name is unknown, or the file cannot be used.
    """
    return load_file(path(name), FirmwareProfile)


def path(name: str) -> Path:
    """Where the profile of that name stands; `name` itself if it is a path. ConfigurationError if it is unknown."""
    if "/" in name or name.endswith(".toml"):
        return Path(name)
    if name not in names():
        raise ConfigurationError(
            f"there is no firmware profile {name!r}; {did_you_mean(name, names())} (a file of your own: give its path)"
        )
    return _SHELF / f"{name}.toml"
