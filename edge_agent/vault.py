"""What a device must never forget, and what it must forget for good: keys, outbox, answered rounds, privacy spent."""

from collections.abc import Collection
from pathlib import Path

from hushfleet.actions import Draw
from hushfleet.records import RecordStore, Row
from hushfleet.storage import PADDING, FileKind

KIND = FileKind(
    name="vault",
    application_id=0x68667661,  # "hfva"
    remedy="move its files away and enrol this device anew; an older copy could make it answer a round twice",
)

_SELECT = "SELECT key, value, checksum FROM records WHERE key = ?"
_RANGE = "SELECT key, value, checksum FROM records WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
_UPSERT = (
    "INSERT INTO records (key, padding, value, checksum) VALUES (?, zeroblob(?), ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, checksum = excluded.checksum"
)
_DELETE = "DELETE FROM records WHERE key = ?"


class Vault(RecordStore):
    """The durable store of an agent: one SQLite file of mode 0600 in a directory of mode 0700.

    Record `vault/secret`: 32 random bytes, drawn at creation, that key what must not repeat (docs/protocol.md,
    sections 3 and 4).
    """

    def __init__(self, path: Path, draw: Draw) -> None:
        """Open the vault, or create it with its secret.

        Args:
            path: of the database; its directory is created if missing.
            draw: the source of the secret.

        Raises:
            StorageError: the file cannot be used; the text says why and what to do.
        """
        super().__init__(path, KIND)
        self._connection = self._file.connection
        try:
            if self._file.commits == 0:
                with self.transaction():
                    self.save("vault/secret", draw(32))
            if self.get("vault/secret") is None:
                raise self._file.damaged("its secret is missing")
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        self._connection.execute("COMMIT")

    def _rollback(self) -> None:
        self._connection.execute("ROLLBACK")

    def _select(self, key: bytes) -> Row | None:
        row: Row | None = self._connection.execute(_SELECT, (key,)).fetchone()
        return row

    def _range(self, start: bytes, end: bytes, limit: int) -> list[Row]:
        return self._connection.execute(_RANGE, (start, end, limit)).fetchall()

    def _upsert(self, rows: Collection[Row]) -> None:
        self._connection.executemany(_UPSERT, [(key, PADDING, value, checksum) for key, value, checksum in rows])

    def _delete(self, keys: Collection[bytes]) -> int:
        return self._connection.executemany(_DELETE, [(key,) for key in keys]).rowcount
