"""A service in miniature, to be killed: commits numbered transactions and acknowledges each one after its commit.

    python store_child.py KIND PATH COUNT [--pages N] [--file-size BYTES] [--newer]

`expected(n)` is what the store holds after the first n transactions, `vault/secret` aside.
"""

import os
import resource
import shutil
import sys
from argparse import ArgumentParser
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

from hushfleet import storage
from hushfleet.actions import RESTORED
from hushfleet.errors import StorageError
from hushfleet.records import RecordStore

KINDS = ("vault", "ledger")
KEPT = 6
NAMES = ("store.db", "store.db-wal", "store.db-mark", "store.db-place")

NEWER = (
    *storage.SCHEMA,
    (
        "ALTER TABLE meta ADD COLUMN made TEXT NOT NULL DEFAULT 'newer'",
        "CREATE TABLE moved (key BLOB PRIMARY KEY NOT NULL, padding BLOB NOT NULL, value BLOB NOT NULL,"
        " checksum BLOB NOT NULL) WITHOUT ROWID",
        "INSERT INTO moved SELECT * FROM records",
        "DROP TABLE records",
        "ALTER TABLE moved RENAME TO records",
    ),
)
"""A schema version that is not there yet: every record is written anew."""

Files = dict[str, bytes]


def open_store(kind: str, path: Path) -> RecordStore:
    if kind == "vault":
        from edge_agent.vault import Vault

        return Vault(path, os.urandom)
    from coordinator.ledger import Ledger

    return Ledger(path)


def value(number: int) -> bytes:
    """0 to 9,000 bytes, the same for the same number."""
    size = (0, 32, 300, 1_500, 4_096, 9_000)[number % 6]
    return blake2b(number.to_bytes(8, "big")).digest() * (size // 64) + bytes(size % 64)


def expected(count: int) -> dict[str, bytes]:
    """The last rows, and the number of transactions, as `transact` leaves them."""
    oldest = max(0, (count - 1) // 4 * 4 + 1 - KEPT)
    rows = {f"row/{number}": value(number) for number in range(oldest, count)}
    return {**rows, "count": count.to_bytes(8, "big")} if count else {}


def transact(store: RecordStore, number: int) -> None:
    """Every transaction saves and replaces a record; every fourth erases what has become old."""
    with store.transaction():
        store.save(f"row/{number}", value(number))
        store.save("count", (number + 1).to_bytes(8, "big"))
        if number % 4 == 0:
            for old in range(max(0, number - KEPT - 4), number - KEPT + 1):
                store.erase(f"row/{old}")


def content(store: RecordStore) -> dict[str, bytes]:
    """What it holds, but for its secret and the notice that its files were put back, as `put` does."""
    return {key: record for key, record in store.scan("") if key not in ("vault/secret", RESTORED)}


def files(path: Path) -> Files:
    return {name: (path.parent / name).read_bytes() for name in NAMES if (path.parent / name).exists()}


def put(path: Path, content: Files) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(mode=0o700)
    for name, data in content.items():
        (path.parent / name).write_bytes(data)
        (path.parent / name).chmod(0o600)


def crashed(kind: str, path: Path, count: int, unfinished: int = 0) -> Files:
    """The files of a process killed after `count` transactions, of which the log still holds the last few."""
    with closing(open_store(kind, path)) as store:
        for number in range(count):
            transact(store, number)
        store.begin()
        for number in range(unfinished):
            store.save(f"unfinished/{number}", bytes(4096))
        return files(path)


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("path", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--pages", type=int)
    parser.add_argument("--file-size", type=int)
    parser.add_argument("--newer", action="store_true")
    options = parser.parse_args()
    if options.newer:
        storage.SCHEMA = NEWER
    try:
        store = open_store(options.kind, options.path)
        if options.file_size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (options.file_size, options.file_size))
        if options.pages:
            store._file.connection.execute(f"PRAGMA max_page_count = {options.pages}")
        start = int.from_bytes(store.get("count") or b"", "big")
        for number in range(start, start + options.count):
            transact(store, number)
            os.write(sys.stdout.fileno(), f"ack {number}\n".encode())
    except StorageError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
