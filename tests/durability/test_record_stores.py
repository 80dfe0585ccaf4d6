"""What vault and ledger promise alike, against real files and real processes."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import mkdtemp

import pytest
import store_child
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from store_child import KINDS, content, crashed, expected, files, open_store, put, transact

from hushfleet.errors import StorageError
from hushfleet.records import BATCH, RecordStore

Call = Callable[[], object]

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


def child(kind: str, path: Path, count: int, *options: str) -> list[str]:
    return [sys.executable, store_child.__file__, kind, str(path), str(count), *options]


# --- reading and writing ---------------------------------------------------------------------------------------------


class StoreIsADict(RuleBasedStateMachine):
    """Whatever is saved, erased, committed, rolled back and reopened: the store holds what a dict would hold."""

    kind: str
    directory: Path
    keys = st.text(st.sampled_from("ab/é\U0010ffff\0"), max_size=3)
    values = st.binary(max_size=40) | st.integers(900, 9_000).map(bytes)

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(mkdtemp(dir=self.directory)) / "store.db"
        self.store = open_store(self.kind, self.path)
        self.committed: dict[str, bytes] = dict(self.store.scan(""))
        self.seen: dict[str, bytes] | None = None

    @precondition(lambda self: self.seen is None)
    @rule()
    def begin(self) -> None:
        self.store.begin()
        self.seen = dict(self.committed)

    @precondition(lambda self: self.seen is not None)
    @rule(key=keys, value=values)
    def save(self, key: str, value: bytes) -> None:
        assert self.seen is not None
        self.store.save(key, value)
        self.seen[key] = value

    @precondition(lambda self: self.seen is not None)
    @rule(key=keys)
    def erase(self, key: str) -> None:
        assert self.seen is not None
        self.store.erase(key)
        self.seen.pop(key, None)

    @precondition(lambda self: self.seen is not None)
    @rule()
    def commit(self) -> None:
        assert self.seen is not None
        self.store.commit()
        self.committed, self.seen = self.seen, None
        assert list(self.store.scan("")) == sorted(self.committed.items())

    @precondition(lambda self: self.seen is not None)
    @rule()
    def roll_back(self) -> None:
        self.store.rollback()
        self.seen = None

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = open_store(self.kind, self.path)
        self.seen = None

    @rule(prefix=keys)
    def scan(self, prefix: str) -> None:
        current = self.committed if self.seen is None else self.seen
        matching = sorted((key, value) for key, value in current.items() if key.startswith(prefix))
        assert list(self.store.scan(prefix)) == matching

    @invariant()
    def holds_the_same(self) -> None:
        # No scan here: it would write what waits, and nothing would ever wait together.
        current = self.committed if self.seen is None else self.seen
        for key in ("", "a", "é", "b/a"):
            assert self.store.get(key) == current.get(key)

    def teardown(self) -> None:
        self.store.close()


def test_a_store_is_a_dict(kind: str, tmp_path: Path) -> None:
    machine = type("StoreIsADict", (StoreIsADict,), {"kind": kind, "directory": tmp_path})
    few = settings(max_examples=25, stateful_step_count=25)
    run_state_machine_as_test(machine, settings=few)


def test_a_scan_reads_in_batches_and_survives_erasures_on_the_way(kind: str, path: Path) -> None:
    keys = [f"chunk/{number:04}" for number in range(3 * BATCH)]
    with closing(open_store(kind, path)) as store:
        with store.transaction():
            for key in keys:
                store.save(key, key.encode())
        with store.transaction():
            for key, _ in store.scan("chunk/"):
                store.erase(key)
        assert list(store.scan("chunk/")) == []


def test_a_block_that_raises_leaves_nothing(kind: str, path: Path) -> None:
    with closing(open_store(kind, path)) as store:
        transact(store, 0)
        with pytest.raises(KeyError), store.transaction():
            store.save("row/0", b"other")
            store.erase("count")
            raise KeyError
        assert content(store) == expected(1)


def test_writing_without_a_transaction_is_a_mistake_of_the_caller(kind: str, path: Path) -> None:
    with closing(open_store(kind, path)) as store:
        writes: list[Call] = [lambda: store.save("a", b""), lambda: store.erase("a"), store.commit, store.rollback]
        for write in writes:
            with pytest.raises(RuntimeError, match="no transaction"):
                write()
        store.begin()
        with pytest.raises(RuntimeError, match="a transaction is open"):
            store.begin()


def test_an_empty_transaction_writes_nothing(kind: str, path: Path) -> None:
    with closing(open_store(kind, path)) as store:
        transact(store, 0)
        before = files(path)
        with store.transaction():
            store.erase("missing")
        assert files(path) == before


def test_after_close_every_call_refuses(kind: str, path: Path) -> None:
    store = open_store(kind, path)
    store.close()
    assert_refuses_everything(store)


def assert_refuses_everything(store: RecordStore) -> None:
    calls: list[Call] = [
        lambda: store.get("count"),
        lambda: list(store.scan("")),
        store.begin,
        lambda: store.save("a", b""),
        lambda: store.erase("a"),
        store.commit,
        store.rollback,
    ]
    for call in calls:
        with pytest.raises(StorageError, match=str(store._file.path)):
            call()


# --- erasing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [3, 11, 14])
def test_erased_and_replaced_values_are_in_no_file(kind: str, path: Path, seed: int) -> None:
    """Sizes around every limit of SQLite's pages; without the padding these seeds leave remains of values."""
    choice = random.Random(seed)
    live: dict[str, bytes] = {}
    gone: list[bytes] = []
    serial = 0
    with closing(open_store(kind, path)) as store:
        for _ in range(60):
            with store.transaction():
                for _ in range(choice.randrange(1, 20)):
                    what = choice.random()
                    key = f"{choice.randrange(9)}/{'long' * choice.choice((0, 0, 25, 150))}{serial}"
                    if live and what < 0.55:
                        key = choice.choice(list(live))
                        gone.append(live.pop(key))
                    if what < 0.4:
                        store.erase(key)
                    else:
                        live[key] = b"<%010d>" % serial
                        store.save(key, live[key] * choice.choice((1, 2, 8, 40, 75, 83, 90, 250, 333, 416, 750)))
                        serial += 1
        with store.transaction():
            store.save("last", b"")
        with store.transaction():
            store.erase("last")
        everything = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert len(gone) > 200
    assert [marker for marker in gone if marker in everything] == []
    assert all(marker in everything for marker in live.values())


def test_a_value_erased_and_saved_anew_in_one_transaction_is_in_no_file(kind: str, path: Path) -> None:
    with closing(open_store(kind, path)) as store:
        with store.transaction():
            store.save("key", b"<old>" * 300)
        with store.transaction():
            store.erase("key")
            store.save("key", b"<new>")
        everything = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"<old>" not in everything
    assert b"<new>" in everything


# --- crashes ---------------------------------------------------------------------------------------------------------


def test_sigkill_at_any_moment_loses_nothing_acknowledged(kind: str, path: Path) -> None:
    choice = random.Random(kind)
    for _ in range(8):
        process = subprocess.Popen(child(kind, path, 100_000), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(choice.randrange(1, 60))]
        process.kill()
        lines += process.stdout.read().splitlines()
        assert process.wait() == -signal.SIGKILL
        with closing(open_store(kind, path)) as store:
            found = content(store)
        done = int.from_bytes(found["count"], "big")
        assert found == expected(done)
        assert done in (acknowledged(lines), acknowledged(lines) + 1)


def acknowledged(lines: list[str]) -> int:
    return int(lines[-1].split()[1]) + 1 if lines else 0


def test_what_was_not_committed_is_gone_after_a_crash(kind: str, path: Path) -> None:
    image = crashed(kind, path, 10, unfinished=2_000)
    assert len(image["store.db-wal"]) > 4_000_000
    put(path, image)
    with closing(open_store(kind, path)) as store:
        assert content(store) == expected(10)


# --- failing disks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "remedy"),
    [(("--pages", "16"), "the disk is full; free some space"), (("--file-size", "100000"), "look for a full disk")],
)
def test_a_full_disk_ends_the_service_and_keeps_what_was_acknowledged(
    kind: str, path: Path, limit: tuple[str, str], remedy: str
) -> None:
    result = subprocess.run(child(kind, path, 1_000, *limit), capture_output=True, text=True)
    assert result.returncode == 1
    assert str(path) in result.stderr
    assert remedy in result.stderr
    assert "Traceback" not in result.stderr
    done = acknowledged(result.stdout.splitlines())
    assert 0 < done < 1_000
    with closing(open_store(kind, path)) as store:
        assert content(store) == expected(done)
        transact(store, done)
        assert content(store) == expected(done + 1)


def test_after_a_failure_every_call_refuses_until_reopened(kind: str, path: Path) -> None:
    store = open_store(kind, path)
    transact(store, 0)
    store._file.connection.execute("PRAGMA max_page_count = 1").fetchall()
    with pytest.raises(StorageError, match="disk is full"), store.transaction():
        for number in range(100):
            store.save(f"row/{number}", bytes(9_000))
    assert_refuses_everything(store)
    store.close()
    with closing(open_store(kind, path)) as store:
        assert content(store) == expected(1)


# --- one process at a time -------------------------------------------------------------------------------------------


def test_a_second_process_is_told_at_once_and_by_whom(kind: str, path: Path) -> None:
    with closing(open_store(kind, path)) as store:
        transact(store, 0)
        for _ in range(2):
            result = subprocess.run(child(kind, path, 1), capture_output=True, text=True)
            assert result.returncode == 1
            assert f"{path}: in use by process {os.getpid()}" in result.stderr
            assert result.stdout == ""
        with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
            open_store(kind, path)
        transact(store, 1)
        assert content(store) == expected(2)


def test_the_file_is_free_as_soon_as_its_process_is_dead(kind: str, path: Path) -> None:
    process = subprocess.Popen(child(kind, path, 100_000), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ack 0\n"
    process.kill()
    process.communicate()
    open_store(kind, path).close()
