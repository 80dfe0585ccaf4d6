"""A feed of InfluxDB's line protocol: a file that grows, as Telegraf writes one, or datagrams."""

import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from edge_agent.sources.catalogue import Catalogue
from edge_agent.sources.line_protocol import parse_line
from edge_agent.sources.payloads import values
from edge_agent.sources.readings import Quantity, Reading
from edge_agent.sources.tail import Tail
from hushfleet.configuration import Range
from hushfleet.errors import ConfigurationError, MalformedError

LARGEST_BITE = 2**18
"""Bytes of datagrams that are taken in one call, about."""
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, slots=True)
class InfluxFeedSettings:
    """Where the lines are: one of `path` and `port`.

    Attributes:
        path: a file of lines; what stands there already is read too. A line without a time counts as measured when it
            is read.
        port: UDP, on which datagrams of lines are taken.
        address: of this machine, on which they are; its own alone unless it is said here.
        precision: what times are in.
    """

    kind: Literal["influx"] = "influx"
    path: Path | None = None
    port: Annotated[int, Range(1, 65535)] | None = None
    address: str = "127.0.0.1"
    precision: Literal["s", "ms", "us", "ns"] = "ns"

    def __post_init__(self) -> None:
        if (self.path is None) == (self.port is None):
            raise ConfigurationError("lines come from a file or as datagrams; set path or port")

    def open(self, wanted: Mapping[str, float] | None) -> "InfluxFeed":
        """See `FeedDescription`."""
        lines = Tail(self.path, from_start=True) if self.path is not None else _Datagrams(self.address, self.port or 0)
        return InfluxFeed(lines, _TICKS[self.precision], Catalogue(wanted))


class _Lines(Protocol):
    refused: Counter[str]

    @property
    def trouble(self) -> str | None: ...

    def lines(self) -> list[bytes]: ...

    def close(self) -> None: ...


class _Datagrams:
    """Lines in UDP datagrams."""

    def __init__(self, address: str, port: int) -> None:
        self.refused: Counter[str] = Counter()
        self.trouble = None
        self._socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((address, port))
        except OSError as error:
            self._socket.close()
            raise ConfigurationError(
                f"cannot take datagrams on {address}, port {port}: {error.strerror}; choose another, or end what does"
            ) from None
        self._socket.setblocking(False)

    def lines(self) -> list[bytes]:
        found: list[bytes] = []
        taken = 0
        while taken < LARGEST_BITE:
            try:
                datagram = self._socket.recv(65_536)
            except BlockingIOError:
                break
            taken += max(1, len(datagram))
            found += datagram.split(b"\n")
        return found

    def close(self) -> None:
        self._socket.close()


class InfluxFeed:
    """See `Feed`. An address is measurement and tags as in the line, the tags sorted, then `#` and the field.

    Args:
        source: where the lines come from.
        ticks: of a time, in a second.
        catalogue: this feed's.
    """

    def __init__(self, source: _Lines, ticks: int, catalogue: Catalogue) -> None:
        self._source = source
        self._ticks = ticks
        self._catalogue = catalogue

    @property
    def refused(self) -> Counter[str]:
        """See `Feed`."""
        return self._catalogue.refused + self._source.refused

    @property
    def trouble(self) -> str | None:
        """See `Feed`."""
        return self._source.trouble

    def poll(self, now: float) -> list[Reading]:
        """See `Feed`."""
        return self._catalogue.take(self._read(self._source.lines(), now))

    def quantities(self) -> list[Quantity]:
        """See `Feed`."""
        return self._catalogue.quantities()

    def close(self) -> None:
        """See `Feed`."""
        self._source.close()

    def _read(self, lines: Iterable[bytes], now: float) -> Iterable[Reading]:
        for line in lines:
            try:
                parsed = parse_line(line.decode("utf-8"))
            except UnicodeDecodeError:
                self._catalogue.refused["a line that is not UTF-8"] += 1
            except MalformedError as error:
                self._catalogue.refused[str(error)] += 1
            else:
                if parsed is None:
                    continue
                series = ",".join(
                    [parsed.measurement, *(f"{key}={value}" for key, value in sorted(parsed.tags.items()))]
                )
                time = now if parsed.timestamp is None else parsed.timestamp / self._ticks
                found, refused = values(parsed.fields.items())
                self._catalogue.refused.update(refused)
                for name, value in found:
                    yield Reading(f"{series}#{name}", time, value)
