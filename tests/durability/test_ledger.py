"""What is the ledger's own: the load it must carry, and the driver's errors in words."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.ledger import Ledger
from hushfleet.errors import StorageError
from hushfleet.storage import PADDING, PAGE_SIZE


def test_a_round_of_chunks_is_kept_byte_for_byte_and_its_room_used_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    chunks = {f"chunk/{device:03}/{index:04}": os.urandom(8_000) for device in range(8) for index in range(80)}
    sizes = []
    with closing(Ledger(path)) as ledger:
        for _ in range(3):
            pending = list(chunks.items())
            for first in range(0, len(pending), 64):
                with ledger.transaction():
                    for key, value in pending[first : first + 64]:
                        ledger.save(key, value)
            assert dict(ledger.scan("chunk/")) == chunks
            assert dict(ledger.scan("chunk/007/")) == {key: chunks[key] for key in chunks if key[6:9] == "007"}
            sizes.append(path.stat().st_size + path.with_name("ledger.db-wal").stat().st_size)
            with ledger.transaction():
                for key in chunks:
                    ledger.erase(key)
    # Three pages hold 8,000 bytes; one more is for the record's head and the log, which SQLite bounds at 1,000 pages.
    assert max(sizes) < len(chunks) * 4 * PAGE_SIZE + 2_000 * PAGE_SIZE
    assert sizes[2] <= sizes[0] + 1_000 * PAGE_SIZE


def test_a_record_of_any_size_is_kept(tmp_path: Path) -> None:
    sizes = [0, 1, PADDING, PAGE_SIZE, 3_000_000]
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        with ledger.transaction():
            for size in sizes:
                ledger.save(f"size/{size}", b"x" * size)
        assert [len(value) for _, value in ledger.scan("size/")] == sorted(sizes, key=str)


def test_the_drivers_errors_come_as_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    ledger._file.connection.execute("DROP TABLE records")
    with pytest.raises(StorageError) as refused:
        ledger.get("round")
    assert str(refused.value) == f"{path}: the database failed (no such table: records)"
    ledger.close()
