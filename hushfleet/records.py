"""Durable records by key, in transactions: what the vault and the ledger promise alike, whatever driver they use.

The runner begins, writes the records of many events, commits once, and only then lets anything of those events leave
the process. After any failure the store answers nothing further: the process ends and continues from the disk.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from hushfleet.errors import StorageError
from hushfleet.storage import DRIVER_FAILURES, DatabaseFile, FileKind, kind_of, record_checksum

Row = tuple[bytes, bytes, bytes]
"""Key, value, checksum."""

BATCH = 64
"""Records read at once by a scan."""
WAITING = 512
"""Records of a transaction that wait in memory, to be written together."""


class RecordStore(ABC):
    """A `hushfleet.actions.Store` in one file, written in transactions.

    Every method raises StorageError when the file or the disk under it fails, and from then on always.
    """

    def __init__(self, path: Path, kind: FileKind) -> None:
        """Open or create the file; see `hushfleet.storage.DatabaseFile`.

        Raises:
            StorageError: the file cannot be used; the text says why and what to do.
        """
        self._file = DatabaseFile(path, kind)
        self._failure: StorageError | None = None
        self._open = self._changed = self._erased = False
        # Of the open transaction, written together: what many events save under one key is written once.
        self._saves: dict[bytes, bytes] = {}
        self._erasures: set[bytes] = set()

    def get(self, key: str) -> bytes | None:
        """The record as the open transaction sees it, or None."""
        name = key.encode()
        with self._working():
            if name in self._saves or name in self._erasures:
                return self._saves.get(name)
            row = self._select(name)
            return None if row is None else self._verified(row)

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """All records whose key starts with `prefix`, ascending by key. Writing while iterating is allowed."""
        start = prefix.encode()
        # UTF-8 never holds the byte 255: this is above every key with the prefix.
        end = start + b"\xff"
        while True:
            with self._working():
                self._write()
                rows = self._range(start, end, BATCH)
                records = [(row[0].decode(), self._verified(row)) for row in rows]
            yield from records
            if len(rows) < BATCH:
                return
            # The least key above the last one.
            start = rows[-1][0] + b"\0"

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block, durable at its end, or, when it raises, nothing of it."""
        self.begin()
        try:
            yield
        except BaseException:
            self.rollback()
            raise
        self.commit()

    def begin(self) -> None:
        """Start a transaction; there is one at a time."""
        with self._working(in_transaction=False):
            self._begin()
            self._open, self._changed, self._erased = True, False, False

    def save(self, key: str, value: bytes) -> None:
        """Write a record, or replace it, within the open transaction."""
        with self._working(in_transaction=True):
            self._saves[key.encode()] = value
            self._write_many()

    def erase(self, key: str) -> None:
        """Remove a record within the open transaction; a missing one is no error.

        After the commit none of its value is left in any file of the store; its key may be, and what the disk itself
        keeps of old blocks is beyond reach.
        """
        name = key.encode()
        with self._working(in_transaction=True):
            self._saves.pop(name, None)
            self._erasures.add(name)
            self._write_many()

    def commit(self) -> None:
        """Return when the transaction is on the disk."""
        with self._working(in_transaction=True):
            self._write()
            if self._changed:
                self._file.count_commit()
            self._commit()
            self._open = False
            if self._changed:
                self._file.committed(self._erased)

    def rollback(self) -> None:
        """Forget the open transaction."""
        with self._working(in_transaction=True):
            self._rollback()
            self._saves.clear()
            self._erasures.clear()
            self._open = False

    def close(self) -> None:
        """Give the file free; an open transaction is forgotten. Every later call raises StorageError."""
        self._failure = self._failure or StorageError(f"{self._file.path}: closed")
        self._file.close()

    @contextmanager
    def _working(self, in_transaction: bool | None = None) -> Iterator[None]:
        if self._failure is not None:
            raise StorageError(str(self._failure))
        if in_transaction not in (None, self._open):
            raise RuntimeError("no transaction is open" if in_transaction else "a transaction is open")
        try:
            yield
        except DRIVER_FAILURES as error:
            self._failure = self._file.explain(error)
            raise self._failure from error
        except StorageError as error:
            self._failure = error
            raise
        except BaseException:
            # Nobody knows how far the statement came.
            self._failure = StorageError(f"{self._file.path}: interrupted; start again")
            raise

    def _write_many(self) -> None:
        if len(self._saves) + len(self._erasures) >= WAITING:
            self._write()

    def _write(self) -> None:
        """Bring what is saved and erased so far into the open transaction."""
        # A key that is erased and then saved again loses its old record whole, not only its value.
        if self._erasures and self._delete(self._erasures):
            self._changed = self._erased = True
        if self._saves:
            store = self._file.store
            self._upsert([(key, value, record_checksum(store, key, value)) for key, value in self._saves.items()])
            self._changed = True
        self._saves.clear()
        self._erasures.clear()

    def _verified(self, row: Row) -> bytes:
        key, value, checksum = row
        if checksum != record_checksum(self._file.store, key, value):
            raise self._file.damaged(f"a record of the kind {kind_of(key)} has changed")
        return value

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _commit(self) -> None: ...

    @abstractmethod
    def _rollback(self) -> None: ...

    @abstractmethod
    def _select(self, key: bytes) -> Row | None: ...

    @abstractmethod
    def _range(self, start: bytes, end: bytes, limit: int) -> list[Row]: ...

    @abstractmethod
    def _upsert(self, rows: Collection[Row]) -> None: ...

    @abstractmethod
    def _delete(self, keys: Collection[bytes]) -> int:
        """Remove the records of these keys; how many there were."""
