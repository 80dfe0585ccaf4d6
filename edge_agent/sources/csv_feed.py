"""A feed of a CSV file that grows: a header, then one row of measurements a line, appended by some other program."""

import csv
import os
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_agent.sources.catalogue import Catalogue
from edge_agent.sources.payloads import NO_TIME, as_number, moment, time_zone, written_value
from edge_agent.sources.readings import Quantity, Reading
from edge_agent.sources.tail import Tail
from hushfleet.configuration import did_you_mean
from hushfleet.errors import ConfigurationError, MalformedError


@dataclass(frozen=True, slots=True)
class CsvFeedSettings:
    """One file and how to read it.

    Attributes:
        path: the file, or with `*` in its name the files that are read one after the other by name; UTF-8, a header in
            the first line of each.
        time: the column of the time of measurement; without it, rows that are added from now on count as measured when
            they are read.
        zone: time zone of dates and times that name none, as `UTC`; this device's own without it.
        separator: between columns.
        decimal: what stands before the decimals of a number.
        units: the unit of a column.
    """

    path: Path
    kind: Literal["csv"] = "csv"
    time: str | None = None
    zone: str | None = None
    separator: str = ","
    decimal: Literal[".", ","] = "."
    units: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.separator) != 1 or not self.separator.isascii() or self.separator in '"\r\n':
            raise ConfigurationError("a separator is one character, such as , or ;")
        if self.separator == self.decimal:
            raise ConfigurationError('decimal is the separator too; set separator = ";", or whatever stands there')
        if self.zone is not None:
            time_zone(self.zone)

    def open(self, wanted: Mapping[str, float] | None) -> "CsvFeed":
        """See `FeedDescription`."""
        return CsvFeed(self, wanted)


class CsvFeed:
    """See `Feed`. An address is the file's path, `#` and the column."""

    def __init__(self, settings: CsvFeedSettings, wanted: Mapping[str, float] | None) -> None:
        self._settings = settings
        # Whatever the way to the settings' file was.
        self._place = os.path.abspath(settings.path)
        self._zone = None if settings.zone is None else time_zone(settings.zone)
        self._catalogue = Catalogue(wanted)
        own = [time for address, time in (wanted or {}).items() if address.startswith(self._address(""))]
        self._tail = Tail(
            settings.path, from_start=settings.time is not None, has_header=True, since=min(own, default=0.0)
        )
        self._header = b""
        self._columns: list[str] = []
        self._mistake: str | None = None

    @property
    def refused(self) -> Counter[str]:
        """See `Feed`."""
        return self._catalogue.refused + self._tail.refused

    @property
    def trouble(self) -> str | None:
        """See `Feed`."""
        return self._tail.trouble or self._mistake

    def poll(self, now: float) -> list[Reading]:
        """See `Feed`."""
        lines = self._tail.lines()
        if self._tail.header != self._header:
            self._header = self._tail.header
            self._learn()
        found: list[Reading] = []
        for line in lines if self._columns else ():
            try:
                found += self._row(line, now)
            except MalformedError as error:
                self._catalogue.refused[str(error)] += 1
        return self._catalogue.take(found)

    def quantities(self) -> list[Quantity]:
        """See `Feed`."""
        return self._catalogue.quantities()

    def close(self) -> None:
        """See `Feed`."""
        self._tail.close()

    def _learn(self) -> None:
        """Take the columns from the header."""
        settings = self._settings
        try:
            self._columns = [name.strip() for name in self._cells(self._header.removeprefix(BOM_UTF8).rstrip(b"\r\n"))]
        except MalformedError as error:
            self._columns, self._mistake = [], f"{settings.path} does not begin with a header: it holds {error}"
            return
        if any(as_number(name) is not None for name in self._columns):
            # These may be measurements, which no message shows.
            self._columns, self._mistake = [], f"{settings.path}, line 1 holds numbers; name the columns in it"
            return
        self._mistake = None
        for name in (settings.time, *settings.units):
            if name is not None and name not in self._columns:
                self._mistake = f"{settings.path} has no column {name!r}; {did_you_mean(name, self._columns)}"
        if settings.time is not None and settings.time not in self._columns:
            self._columns = []
        self._catalogue.describe(
            Quantity(self._address(name), settings.units.get(name))
            for name in self._columns
            if name and name != settings.time
        )

    def _row(self, line: bytes, now: float) -> list[Reading]:
        if not line:
            return []
        cells = self._cells(line)
        if len(cells) != len(self._columns):
            raise MalformedError("a row with more or fewer cells than the header")
        row = dict(zip(self._columns, cells, strict=True))
        time = now if self._settings.time is None else moment(row[self._settings.time], self._zone)
        if time is None:
            raise MalformedError(NO_TIME)
        found = []
        for name, cell in row.items():
            if name and name != self._settings.time and cell.strip():
                try:
                    found.append(Reading(self._address(name), time, self._value(cell)))
                except MalformedError as error:
                    self._catalogue.refused[str(error)] += 1
        return found

    def _value(self, cell: str) -> float | str:
        number = as_number(cell.strip().replace(",", ".")) if self._settings.decimal == "," else None
        return written_value(cell) if number is None else number

    def _cells(self, line: bytes) -> list[str]:
        try:
            return next(csv.reader([line.decode("utf-8")], delimiter=self._settings.separator, strict=True), [])
        except UnicodeDecodeError:
            raise MalformedError("a line that is not UTF-8") from None
        except csv.Error:
            raise MalformedError("a line that is not CSV") from None

    def _address(self, column: str) -> str:
        return f"{self._place}#{column}"
