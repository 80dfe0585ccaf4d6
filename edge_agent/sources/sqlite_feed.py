"""A feed of a table that grows in another program's SQLite file; it is opened for reading alone, and briefly."""

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from edge_agent.sources.catalogue import Catalogue
from edge_agent.sources.payloads import NO_TIME, moment, time_zone, values
from edge_agent.sources.readings import Quantity, Reading
from hushfleet.configuration import did_you_mean
from hushfleet.errors import ConfigurationError

LARGEST_BITE = 5_000
"""Rows that are read in one call."""
LONGEST_READ = 1.0
"""Seconds after which a query is given up: a table may be a view of anything."""
_LOCKED_FOR = 0.1
_REMEDIES = {
    "SQLITE_BUSY": "its writer has locked it; it is tried again",
    "SQLITE_CANTOPEN": "let the agent's user read it and, if it is in WAL mode, write in its directory",
    "SQLITE_NOTADB": "it is no SQLite file; name another",
}


@dataclass(frozen=True, slots=True)
class SqliteFeedSettings:
    """One table and how to read it.

    Attributes:
        path: the database file.
        table: a table whose rows are numbered as they come (it has a rowid), and are not changed later.
        time: the column of the time of measurement; without it, rows that are added from now on count as measured when
            they are read.
        zone: time zone of dates and times that name none; `UTC` for those that SQLite makes itself, as
            `CURRENT_TIMESTAMP` does; this device's own without it.
        units: the unit of a column.
    """

    path: Path
    table: str
    kind: Literal["sqlite"] = "sqlite"
    time: str | None = None
    zone: str | None = None
    units: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.zone is not None:
            time_zone(self.zone)

    def open(self, wanted: Mapping[str, float] | None) -> "SqliteFeed":
        """See `FeedDescription`."""
        return SqliteFeed(self, wanted)


class SqliteFeed:
    """See `Feed`. An address is the file's path, `#`, the table, `/` and the column."""

    def __init__(self, settings: SqliteFeedSettings, wanted: Mapping[str, float] | None) -> None:
        self._settings = settings
        # Whatever the way to the settings' file was.
        self._place = os.path.abspath(settings.path)
        self._zone = None if settings.zone is None else time_zone(settings.zone)
        self._catalogue = Catalogue(wanted)
        self._last: int | None = None if settings.time is None else 0
        self._file = (0, 0)
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
        path = self._settings.path
        if not path.is_file():
            self._trouble = f"there is no file {path}; it is read as soon as there is"
            return []
        try:
            self._look_whether_replaced(path.stat())
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_LOCKED_FOR)) as store:
                end = time.monotonic() + LONGEST_READ
                store.set_progress_handler(lambda: int(time.monotonic() > end), 10_000)
                found = self._read(store, now)
        except ConfigurationError as error:
            self._trouble = str(error)
        except (sqlite3.Error, OSError, OverflowError, UnicodeDecodeError) as error:
            # The text of an error may quote a statement, never a value.
            why = getattr(error, "sqlite_errorname", type(error).__name__)
            self._trouble = f"cannot read {path}: {_REMEDIES.get(why, why + '; is it an SQLite file?')}"
        else:
            self._trouble = None
            return self._catalogue.take(found)
        return []

    def quantities(self) -> list[Quantity]:
        """See `Feed`."""
        return self._catalogue.quantities()

    def close(self) -> None:
        """See `Feed`; no file stays open."""

    def _read(self, store: sqlite3.Connection, now: float) -> list[Reading]:
        settings = self._settings
        columns = self._columns(store)
        self._catalogue.describe(
            Quantity(self._address(name), settings.units.get(name)) for name in columns if name != settings.time
        )
        table = _quoted(settings.table)
        (newest,) = store.execute(f"SELECT max(rowid) FROM {table}").fetchone()  # noqa: S608  # a quoted identifier
        newest = newest or 0
        if self._last is None:
            self._last = newest
        elif newest < self._last:
            self._catalogue.refused["a table that was emptied, and is read anew"] += 1
            self._last = 0
        names = ", ".join(map(_quoted, columns))
        rows = store.execute(
            f"SELECT rowid, {names} FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT {LARGEST_BITE}",  # noqa: S608
            (self._last,),
        ).fetchall()
        found: list[Reading] = []
        for number, *cells in rows:
            found += self._row(dict(zip(columns, cells, strict=True)), now)
            self._last = number
        return found

    def _look_whether_replaced(self, found: os.stat_result) -> None:
        file = (found.st_dev, found.st_ino)
        if self._file not in ((0, 0), file):
            self._last = 0
        self._file = file

    def _columns(self, store: sqlite3.Connection) -> list[str]:
        settings = self._settings
        columns = [row[0] for row in store.execute("SELECT name FROM pragma_table_info(?)", (settings.table,))]
        if not columns:
            tables = [row[0] for row in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            remedy = did_you_mean(settings.table, tables)
            raise ConfigurationError(f"{settings.path} has no table {settings.table!r}; {remedy}")
        for name in (settings.time, *settings.units):
            if name is not None and name not in columns:
                place = f"table {settings.table!r} of {settings.path}"
                raise ConfigurationError(f"{place} has no column {name!r}; {did_you_mean(name, columns)}")
        return columns

    def _row(self, row: dict[str, Any], now: float) -> list[Reading]:
        at = now if self._settings.time is None else moment(row.pop(self._settings.time), self._zone)
        if at is None:
            self._catalogue.refused[NO_TIME] += 1
            return []
        found, refused = values(row.items())
        self._catalogue.refused.update(refused)
        return [Reading(self._address(name), at, value) for name, value in found]

    def _address(self, column: str) -> str:
        return f"{self._place}#{self._settings.table}/{column}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
