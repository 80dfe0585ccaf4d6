"""The device's own readings, kept on its disk for a while: a ring of compressed blocks in SQLite.

One block is one channel's readings of about a minute; one transaction a minute writes those of all channels, so that a
flash card is not worn by single readings. A power cut costs the last minute and nothing else. A file that is damaged is
put aside, not repaired: what a sensor says comes again.
"""

import sqlite3
import struct
import threading
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from hushfleet.configuration import Range
from hushfleet.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COMMIT_EVERY = 60.0
"""Seconds between two transactions."""
LARGEST_BLOCK = 2**20
"""Readings that wait for the next transaction at most; more are written at once."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS block (
    number INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, newest REAL NOT NULL, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_channel ON block (channel, newest);
"""
_COUNT = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Keep:
    """How much is kept. The oldest readings go first.

    Attributes:
        days: by the readings' own times.
        megabytes: of the file, about.
    """

    days: Annotated[float, Range(0.01, 3_660)] = 30.0
    megabytes: Annotated[float, Range(0.1, 1_000_000)] = 64.0


@dataclass(slots=True)
class _Waiting:
    times: "array[float]" = field(default_factory=lambda: array("d"))
    values: "array[float]" = field(default_factory=lambda: array("f"))


class ReadingStore:
    """One device's readings. Safe to use from several threads.

    Args:
        path: of the file, made if it is not there; a damaged one is put aside as `….damaged`.
        keep: how much is kept.

    Attributes:
        put_aside: the damaged file found at the start, if there was one.

    Raises:
        ConfigurationError: the file cannot be made or opened.
    """

    def __init__(self, path: Path, keep: Keep) -> None:
        self._path, self._keep = path, keep
        self._lock = threading.Lock()
        self._waiting: dict[str, _Waiting] = {}
        self._written = 0.0
        self._charged = 0
        self.put_aside: Path | None = None
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError:
            self.put_aside = path.with_name(path.name + ".damaged")
            path.replace(self.put_aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._connection = self._open()
        self._size = int(self._connection.execute("SELECT total(length(data)) FROM block").fetchone()[0])

    def _open(self) -> sqlite3.Connection:
        existed = self._path.exists()
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from None
        try:
            # A power cut may take the last transactions, but leaves the file whole: no commit waits for the disk.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
            if existed and connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("malformed")
        except sqlite3.Error as error:
            connection.close()
            if _is_damage(error):
                raise
            raise _unusable(self._path, error) from None
        self._path.chmod(0o600)
        return connection

    @classmethod
    def beside(cls, path: Path) -> "ReadingStore":
        """Another process's readings, to look at: nothing is changed, and what waits there is not seen.

        Raises:
            ConfigurationError: there is no such file, or it cannot be read.
        """
        store = cls.__new__(cls)
        store._path, store._lock, store._waiting, store.put_aside = path, threading.Lock(), {}, None
        try:
            place = path.resolve().as_uri() + "?mode=ro"
            store._connection = sqlite3.connect(place, uri=True, isolation_level=None, check_same_thread=False)
            store._connection.execute("SELECT count(*) FROM block").fetchone()
        except sqlite3.Error:
            raise ConfigurationError(
                f"no readings can be read from {path}; they are there a minute after hushfleet agent run began"
            ) from None
        return store

    # Writing.

    def add(self, channel: str, time: float, value: float) -> None:
        """Note one reading; it is on the disk after the next `flush`."""
        with self._lock:
            waiting = self._waiting.setdefault(channel, _Waiting())
            waiting.times.append(time)
            waiting.values.append(value)
            if len(waiting.times) >= LARGEST_BLOCK:
                self._write()

    def tick(self, now: float) -> None:
        """Write what waits, once a minute.

        Raises:
            ConfigurationError: the disk is full or fails; what waits is kept and tried again.
        """
        with self._lock:
            if not 0 <= now - self._written < COMMIT_EVERY:
                self._written = now
                self._write()

    def flush(self) -> None:
        """Write what waits, now; errors as `tick`."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        rows = [(name, max(one.times), _packed(one)) for name, one in self._waiting.items()]
        before = _pages_written()
        try:
            with self._transaction() as connection:
                connection.executemany("INSERT INTO block (channel, newest, data) VALUES (?, ?, ?)", rows)
                size = self._forget(connection, self._size + sum(len(data) for _, _, data in rows))
        except sqlite3.Error as error:
            if sum(len(one.times) for one in self._waiting.values()) > 2 * LARGEST_BLOCK:
                # Memory is bounded too; the oldest readings are those that waited longest.
                self._waiting.clear()
            raise _unusable(self._path, error) from None
        finally:
            self._charged += _pages_written() - before
        self._size = size
        self._waiting.clear()

    def _forget(self, connection: sqlite3.Connection, size: int) -> int:
        """Let the oldest blocks go until both bounds hold; the bytes that are left."""
        (newest,) = connection.execute("SELECT max(newest) FROM block").fetchone()
        # One reading with a time far ahead makes none of the others old, nor does a clock alone.
        newest = min(newest, self._written)
        oldest = "SELECT number, newest, length(data) FROM block ORDER BY number LIMIT 1"
        while (row := connection.execute(oldest).fetchone()) is not None:
            number, until, length = row
            if until >= newest - self._keep.days * 86_400 and size <= self._keep.megabytes * 1e6:
                break
            connection.execute("DELETE FROM block WHERE number = ?", (number,))
            size -= length
        return size

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    # Reading.

    def readings(self, channel: str, since: float = 0.0) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """(times, values), both float64[n], in the order of arrival, of all that may be of `since` or later.

        A block that cannot be read is left out.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        import numpy as np

        with self._lock:
            try:
                blocks = self._connection.execute(
                    "SELECT data FROM block WHERE channel = ? AND newest >= ? ORDER BY number", (channel, since)
                ).fetchall()
            except sqlite3.Error as error:
                raise _unusable(self._path, error) from None
            late = self._waiting.get(channel, _Waiting())
            late = _Waiting(late.times[:], late.values[:])
        # As two arrays for each block, millions of readings took twice the memory, and did not give it back.
        found = _Waiting()
        for (data,) in blocks:
            _unpack(data, found)
        found.times.extend(late.times)
        found.values.extend(late.values)
        return np.asarray(found.times), np.asarray(found.values).astype(np.float64)

    def newest(self) -> dict[str, float]:
        """The time of each channel's newest reading on the disk, in seconds since 1970.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        with self._lock:
            try:
                return dict(
                    self._connection.execute("SELECT channel, max(newest) FROM block GROUP BY channel").fetchall()
                )
            except sqlite3.Error as error:
                raise _unusable(self._path, error) from None

    def channels(self) -> list[str]:
        """Every channel of which something is kept."""
        with self._lock:
            found = {name for (name,) in self._connection.execute("SELECT DISTINCT channel FROM block")}
            return sorted(found | set(self._waiting))

    def size(self) -> int:
        """Bytes of the readings kept on the disk."""
        with self._lock:
            return self._size

    def written(self) -> int:
        """Bytes that the disk was given to write since the start, in whole pages: what wears flash."""
        with self._lock:
            return self._charged

    def close(self) -> None:
        """Write what waits, and close the file."""
        with self._lock:
            try:
                self._write()
            finally:
                self._connection.close()


def _packed(waiting: _Waiting) -> bytes:
    """`count u32 ‖ times f64 ‖ values f32`, compressed; of this machine's byte order, which the file never leaves."""
    return zlib.compress(_COUNT.pack(len(waiting.times)) + waiting.times.tobytes() + waiting.values.tobytes(), 6)


def _unpack(data: bytes, found: _Waiting) -> None:
    """Add a block's readings, if it can be read."""
    with suppress(zlib.error, struct.error):
        raw = memoryview(zlib.decompress(data))
        (count,) = _COUNT.unpack_from(raw)
        begin, middle, end = _COUNT.size, _COUNT.size + 8 * count, _COUNT.size + 12 * count
        if len(raw) == end:
            found.times.frombytes(raw[begin:middle])
            found.values.frombytes(raw[middle:end])


def _pages_written() -> int:
    """Bytes that the kernel has charged this thread with for the disk; 0 where it does not count."""
    with suppress(OSError, StopIteration), open("/proc/thread-self/io", encoding="ascii") as account:
        return int(next(line for line in account if line.startswith("write_bytes:")).split()[1])
    return 0


def _is_damage(error: sqlite3.Error) -> bool:
    return "malformed" in str(error) or "not a database" in str(error)


def _unusable(path: Path, error: sqlite3.Error) -> ConfigurationError:
    return ConfigurationError(f"readings cannot be kept in {path}: {error}; look at the disk and its free space")
