"""What every feed of sensor readings gives, and what it tells of the quantities it has found.

A further feed is one file with a dataclass of settings and a class of these forms, named in `feeds.py`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reading:
    """One measured value. No repr shows it.

    Attributes:
        address: names the quantity at its origin, as `zigbee2mqtt/kitchen/sensor#/temperature` (topic#pointer).
        time: seconds since 1970 of the measurement: what its origin says, else of its arrival.
        value: a finite number, or a text such as `ON`; truth values are `true` and `false`.
    """

    address: str
    time: float
    value: float | str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that can be read, as far as its origin describes it.

    Attributes:
        address: as in its readings.
        unit: as the origin writes it.
        low, high: the least and the largest value that the origin declares, in `unit`.
        values: the texts that it can take, if these are declared.
        about: for people: where it comes from, or why it cannot be read.
        rate: readings a second so far; None before the second one.
        readable: False for what is described in a way that its feed does not understand.
    """

    address: str
    unit: str | None = None
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()
    about: str = ""
    rate: float | None = None
    readable: bool = True


class Feed(Protocol):
    """Where readings come from."""

    @property
    def refused(self) -> Counter[str]:
        """How often something was dropped, by reason; no reason holds anything that was measured."""

    @property
    def trouble(self) -> str | None:
        """Why it cannot measure just now, with the remedy; None if it can."""

    def poll(self, now: float) -> list[Reading]:
        """What was measured since the last call, oldest first for each address; never blocks for long.

        Args:
            now: seconds since 1970.
        """

    def quantities(self) -> list[Quantity]:
        """What there is, as far as seen so far, by address."""

    def close(self) -> None:
        """Let go of sockets and files."""


class FeedDescription(Protocol):
    """The settings of a feed; each has a `kind` of its own besides."""

    def open(self, wanted: Mapping[str, float] | None) -> Feed:
        """Begin to read.

        Args:
            wanted: the addresses to read, each with the time of its newest reading that was taken before, in seconds
                since 1970; what a file has up to then is passed over. None for all there are, to discover them.

        Raises:
            ConfigurationError: something that the settings name cannot be used; with the remedy.
        """
