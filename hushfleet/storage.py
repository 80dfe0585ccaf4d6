"""One SQLite file that keeps its word: what was committed is there, what was erased is gone, or it is refused.

A file is first looked at read-only and refused untouched if anything about it is wrong; then it is locked for life.
Beside `x.db` stands `x.db-mark`, the high-water mark: how many commits this file has acknowledged, and who holds it.
A database with fewer commits than its mark has lost some (a damaged or deleted write-ahead log, an old copy) and is
refused. After a power cut the mark itself may be some seconds old; then it proves less, never more.
A copy of everything together agrees with its own mark; `x.db-place` tells it (place.py). It is taken, and carries the
record RESTORED from then on, until a role has acted on it.

SQLite has no checksum of its pages, hence one per record. Its `secure_delete` leaves remains of erased cells when a
b-tree page is rebuilt, but never of overflow pages; the padding before each value pushes it into those, whole.
"""

import errno
import os
import sqlite3
import stat
import uuid
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from hushfleet.actions import RESTORED
from hushfleet.errors import StorageError
from hushfleet.hashing import digest
from hushfleet.place import NONCE, Place

PAGE_SIZE = 4096
PADDING = 1002
"""Bytes: the most a WITHOUT ROWID table keeps of a record outside its overflow pages, (4096 − 12)·64/255 − 23."""

DRIVER_FAILURES = (sqlite3.Error, OSError, UnicodeDecodeError)
"""What the driver raises; the last when it quotes a damaged schema."""

SCHEMA: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (store BLOB NOT NULL, commits INTEGER NOT NULL, place BLOB NOT NULL, coming BLOB NOT NULL)",
        "CREATE TABLE records (key BLOB PRIMARY KEY NOT NULL, padding BLOB NOT NULL, value BLOB NOT NULL,"
        " checksum BLOB NOT NULL) WITHOUT ROWID",
    ),
)
"""Schema versions: the statements that lead to version 1, from there to version 2, and so on."""

_SETTINGS = (
    "locking_mode = EXCLUSIVE",
    f"page_size = {PAGE_SIZE}",
    "journal_mode = WAL",
    "synchronous = FULL",
    "secure_delete = ON",
    "temp_store = MEMORY",
)

_CAUSES = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and start again",
    sqlite3.SQLITE_IOERR: "the disk refuses to read or write; look for a full disk, a limit on file sizes or a failing"
    " disk (dmesg), and start again",
    sqlite3.SQLITE_READONLY: "it cannot be written; make the file and its file system writable for this user",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; let this user own the file and its directory",
}


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a file is for.

    Attributes:
        name: as the owner calls it ("vault").
        application_id: 31 bits in the file's header that tell it from every other SQLite file.
        remedy: what the owner does when the content is lost, one sentence.
    """

    name: str
    application_id: int
    remedy: str


def record_checksum(store: bytes, key: bytes, value: bytes) -> bytes:
    """16 bytes that bind a value to its key and to the file it was written to."""
    return digest("stor", len(key).to_bytes(4, "big"), key, value, key=store, size=16)


@dataclass(frozen=True, slots=True)
class _Mark:
    """The content of the mark file: one line of fixed length, replaced in place."""

    store: bytes
    commits: int
    process: int

    def line(self) -> bytes:
        text = f"{self.store.hex()} {self.commits:020} {self.process:010} ".encode()
        return text + digest("mark", text, size=8).hex().encode() + b"\n"

    @classmethod
    def read(cls, path: Path) -> "_Mark | None":
        """The mark, or None where there is none that can be trusted."""
        try:
            line = path.read_bytes()
            store, commits, process, _ = line.split()
            mark = cls(bytes.fromhex(store.decode()), int(commits), int(process))
        except (FileNotFoundError, ValueError):
            return None
        return mark if mark.line() == line else None


class DatabaseFile:
    """A checked and locked database; it belongs to the thread that opened it.

    Attributes:
        connection: in autocommit mode; `BEGIN IMMEDIATE` starts a transaction.
        store: 16 bytes that name this file, drawn when it was created.
        commits: how many transactions with changes it has committed; 0 for a new file.
    """

    def __init__(self, path: Path, kind: FileKind) -> None:
        """Open the file, or create it where neither it nor its mark exists.

        Raises:
            StorageError: another process holds it; it is damaged, incomplete, foreign or too new; others may read
                it; the disk fails. Then its bytes are as they were.
        """
        self.path = path
        self.kind = kind
        self._log = path.with_name(path.name + "-wal")
        self._mark_path = path.with_name(path.name + "-mark")
        self._place = Place(path)
        try:
            self._open()
        except DRIVER_FAILURES as error:
            raise self.explain(error) from error

    def count_commit(self) -> None:
        """Part of every transaction that changes a record."""
        self.connection.execute("UPDATE meta SET commits = ?", (self.commits + 1,))

    def committed(self, erased: bool) -> None:
        """After the commit: raise the mark; where a record was erased, remove what the log still holds of it."""
        self.commits += 1
        self._write_mark()
        if erased:
            self._empty_log()

    def close(self) -> None:
        """Give the file free. Safe after any failure."""
        try:
            self.connection.close()
        except sqlite3.Error as error:
            raise self.explain(error) from error
        finally:
            os.close(self._mark_file)

    def explain(self, error: Exception) -> StorageError:
        """The same failure in words for the owner: which file, what is wrong, what to do."""
        if isinstance(error, OSError):
            other = f"{error.strerror}; repair this and start again"
            cause = _CAUSES[sqlite3.SQLITE_IOERR] if error.errno == errno.EIO else other
            return StorageError(f"{error.filename or self.path}: {cause}")
        code = (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            mark = _Mark.read(self._mark_path)
            holder = f"process {mark.process}" if mark and mark.process else "another process"
            return StorageError(f"{self.path}: in use by {holder}; only one at a time may use it, stop that one first")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or isinstance(error, UnicodeDecodeError):
            return self.damaged(str(error))
        return StorageError(f"{self.path}: {_CAUSES.get(code, 'the database failed')} ({error})")

    def damaged(self, detail: str) -> StorageError:
        """A refusal that names what was found and what the owner does now."""
        return StorageError(f"{self.path}: this {self.kind.name} is damaged ({detail}); {self.kind.remedy}")

    def _open(self) -> None:
        self._check_places()
        self._undo_creation()
        if not os.path.lexists(self.path):
            self._create_files()
        state = self._inspect()
        self.connection = self._connect("rw")
        try:
            for setting in _SETTINGS:
                self.connection.execute(f"PRAGMA {setting}").fetchall()
            # Only the read-only look makes this index of the log, and the exclusive lock says that nobody else looks.
            self.path.with_name(self.path.name + "-shm").unlink(missing_ok=True)
            self.store, self.commits = self._upgrade(state)
            self._mark_file = os.open(self._mark_path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            self._write_mark()
            self._settle_place()
            self._empty_log()
        except BaseException:
            self.connection.close()
            raise

    def _check_places(self) -> None:
        directory = self.path.parent
        if not directory.exists():
            if not directory.parent.is_dir():
                raise StorageError(
                    f"{directory}: there is no {directory.parent} to make it in; make that directory, or name another "
                    f"place for the {self.kind.name}"
                )
            directory.mkdir(mode=0o700)
            _sync(directory.parent)
        if directory.stat().st_mode & 0o077:
            raise StorageError(f"{directory}: other users may enter this directory; run: chmod 700 {directory}")
        for path in (self.path, self._log, self._mark_path, self._place.path):
            if not os.path.lexists(path):
                continue
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode):
                raise StorageError(f"{path}: not a regular file; move it away or name another {self.kind.name}")
            if mode & 0o077:
                raise StorageError(f"{path}: other users may use this file; run: chmod 600 {path}")

    def _undo_creation(self) -> None:
        """A rollback journal is there only while the file is being made; nothing was acknowledged yet: begin again."""
        journal, mark = self.path.with_name(self.path.name + "-journal"), _Mark.read(self._mark_path)
        if mark and not mark.commits and journal.exists():
            journal.unlink()
            self.path.unlink(missing_ok=True)

    def _create_files(self) -> None:
        mark = _Mark.read(self._mark_path)
        if mark and mark.commits:
            raise self.damaged(f"the file is missing, but its mark counts {mark.commits} commits")
        if self._log.exists():
            raise self.damaged(f"the file is missing, but {self._log.name} is there")
        # The mark comes first: an empty database beside a mark of 0 commits is one whose creation was interrupted.
        for path, content in ((self._mark_path, _Mark(bytes(16), 0, 0).line()), (self.path, b"")):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            os.write(file, content)
            os.fsync(file)
            os.close(file)
        _sync(self.path.parent)

    def _upgrade(self, state: tuple[bytes, int] | None) -> tuple[bytes, int]:
        """Bring the tables to the newest version in one transaction: after a crash they are of the old one or of it."""
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        if state is not None and version == len(SCHEMA):
            return state
        self.connection.execute("BEGIN IMMEDIATE")
        for statement in chain.from_iterable(SCHEMA[version:]):
            self.connection.execute(statement)
        if state is None:
            state = uuid.uuid4().bytes, 0
            self.connection.execute("INSERT INTO meta (store, commits, place, coming) VALUES (?, ?, x'', x'')", state)
            self.connection.execute(f"PRAGMA application_id = {self.kind.application_id}")
        self.connection.execute(f"PRAGMA user_version = {len(SCHEMA)}")
        self.connection.execute("COMMIT")
        return state

    def _settle_place(self) -> None:
        """Tell a copy from the original, note it durably, and renew the place; at whichever step the process dies."""
        kept, coming = self.connection.execute("SELECT place, coming FROM meta").fetchone()
        found = self._place.look()
        # The nonce that was coming is in the file if the process died before it noted what became of it.
        same = found == kept or (found and found[:NONCE] == coming)
        nonce = os.urandom(NONCE)
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.execute("UPDATE meta SET coming = ?", (nonce,))
        # A store that never committed anything has nothing that a copy could bring back.
        if self.commits and not same:
            row = (RESTORED.encode(), PADDING, b"", record_checksum(self.store, RESTORED.encode(), b""))
            self.connection.execute("INSERT OR REPLACE INTO records VALUES (?, zeroblob(?), ?, ?)", row)
        self.connection.execute("COMMIT")
        place = self._place.renew(nonce)
        _sync(self.path.parent)
        self.connection.execute("UPDATE meta SET place = ?, coming = x''", (place,))

    def _inspect(self) -> tuple[bytes, int] | None:
        """Read everything and write nothing: the store's name and its commits, or None if it has no tables yet."""
        mark = _Mark.read(self._mark_path)
        if not self.path.stat().st_size and not (mark and not mark.commits):
            # Refused before SQLite, which deletes the log beside an empty database.
            raise self.damaged("it is empty")
        connection = self._connect("ro")
        try:
            application_id, version, tables = connection.execute(
                "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)"
                " FROM pragma_application_id, pragma_user_version"
            ).fetchone()
            if not tables and not application_id:
                if mark and not mark.commits:
                    return None
                raise self.damaged("it is empty")
            self._check_identity(application_id, version)
            findings = [str(finding) for (finding,) in connection.execute("PRAGMA quick_check(1)")]
            if findings != ["ok"]:
                self._read_plainly()
                raise self.damaged(" ".join(" ".join(findings).split()))
            store, commits = self._counted(connection, mark)
            self._check_records(connection, store)
            return store, commits
        finally:
            connection.close()

    def _read_plainly(self) -> None:
        """OSError if the disk does not give the files' bytes, which the check of the pages takes for damage."""
        for path in (self.path, self._log):
            if path.exists():
                with path.open("rb") as file:
                    while file.read(2**20):
                        pass

    def _check_identity(self, application_id: int, version: int) -> None:
        if application_id != self.kind.application_id:
            raise StorageError(f"{self.path}: an SQLite file, but not hushfleet's {self.kind.name}; name another file")
        if version > len(SCHEMA):
            raise StorageError(
                f"{self.path}: written by a newer version of hushfleet (schema {version}, this one knows"
                f" {len(SCHEMA)}); upgrade hushfleet on this machine"
            )
        if version < 1:
            raise self.damaged(f"schema version {version}")

    def _counted(self, connection: sqlite3.Connection, mark: _Mark | None) -> tuple[bytes, int]:
        rows = connection.execute("SELECT store, commits FROM meta").fetchall()
        if len(rows) != 1:
            raise self.damaged("its count of commits is lost")
        store, commits = rows[0]
        if not isinstance(store, bytes) or len(store) != 16 or not isinstance(commits, int):
            raise self.damaged("its count of commits is unreadable")
        if mark and mark.commits and mark.store != store:
            raise self.damaged(f"{self._mark_path.name} or {self._log.name} belongs to another file")
        if mark and commits < mark.commits:
            raise self.damaged(f"it holds {commits} commits, but {mark.commits} were acknowledged")
        return store, commits

    def _check_records(self, connection: sqlite3.Connection, store: bytes) -> None:
        last = b""
        for key, value, checksum in connection.execute("SELECT key, value, checksum FROM records ORDER BY key"):
            if not isinstance(key, bytes) or not isinstance(value, bytes) or key < last:
                raise self.damaged("a record has lost its form")
            if checksum != record_checksum(store, key, value):
                raise self.damaged(f"a record of the kind {kind_of(key)} has changed")
            last = key

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0)

    def _write_mark(self) -> None:
        os.pwrite(self._mark_file, _Mark(self.store, self.commits, os.getpid()).line(), 0)

    def _empty_log(self) -> None:
        (busy, _, _) = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StorageError(f"{self.path}: erased records may still stand in {self._log.name}; start again")


def kind_of(key: bytes) -> str:
    """The part of a record's key before the first slash: what it is, without the name it has."""
    return repr(key.split(b"/")[0].decode(errors="replace"))


def _sync(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(file)
    os.close(file)
