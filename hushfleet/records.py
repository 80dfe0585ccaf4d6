"""Durable records by key, in transactions: what the vault and the ledger promise alike, whatever driver they use.

The runner begins, writes the records of many events, commits once, and only then lets anything of those events leave
the process. After any failure the store answers nothing further: the process ends and continues from the disk.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hushfleet.errors import StorageError
from hushfleet.storage import DRIVER_FAILURES, DatabaseFile, FileKind, kind_of, record_checksum

Row = tuple[bytes, bytes, bytes]
"""Key, value, checksum."""

BATCH = 64
"""Records read at once by a scan."""


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

    def get(self, key: str) -> bytes | None:
        """The record as the open transaction sees it, or None."""
        with self._working():
            row = self._select(key.encode())
            return None if row is None else self._verified(row)

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """All records whose key starts with `prefix`, ascending by key. Writing while iterating is allowed."""
        start = prefix.encode()
        # UTF-8 never holds the byte 255: this is above every key with the prefix.
        end = start + b"\xff"
        while True:
            with self._working():
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
        name = key.encode()
        checksum = record_checksum(self._file.store, name, value)
        with self._working(in_transaction=True):
            self._upsert((name, value, checksum))
            self._changed = True

    def erase(self, key: str) -> None:
        """Remove a record within the open transaction; a missing one is no error.

        After the commit none of its value is left in any file of the store; its key may be, and what the disk itself
        keeps of old blocks is beyond reach.
        """
        with self._working(in_transaction=True):
            if self._delete(key.encode()):
                self._changed = self._erased = True

    def commit(self) -> None:
        """Return when the transaction is on the disk."""
        with self._working(in_transaction=True):
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
    def _upsert(self, row: Row) -> None: ...

    @abstractmethod
    def _delete(self, key: bytes) -> bool: ...
