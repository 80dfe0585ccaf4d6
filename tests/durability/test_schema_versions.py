"""From one schema version to the next: at whichever sync the process ends, the file is of the old one or of the new.

No file of an older version exists yet; the newer one is the tests' own.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import store_child
from order import require_strace
from store_child import KINDS, NEWER, content, crashed, expected, open_store, put, transact

from hushfleet import storage
from hushfleet.errors import StorageError

pytestmark = pytest.mark.parametrize("kind", KINDS)

COUNT = 24


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


@contextmanager
def newer(schema: tuple[tuple[str, ...], ...] = NEWER) -> Iterator[None]:
    """This process is of the newer version."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "SCHEMA", schema)
        yield


def test_an_older_file_is_brought_to_the_newer_version_with_everything_in_it(kind: str, path: Path) -> None:
    put(path, crashed(kind, path, COUNT))
    with newer(), closing(open_store(kind, path)) as store:
        assert content(store) == expected(COUNT)
        assert store._file.connection.execute("SELECT made FROM meta").fetchall() == [("newer",)]
        transact(store, COUNT)
    with newer(), closing(open_store(kind, path)) as store:
        assert content(store) == expected(COUNT + 1)
    with pytest.raises(StorageError, match="newer version of hushfleet"):
        open_store(kind, path)


def test_a_new_file_goes_through_every_version(kind: str, path: Path) -> None:
    with newer(), closing(open_store(kind, path)) as store:
        transact(store, 0)
        assert store._file.connection.execute("SELECT made FROM meta").fetchall() == [("newer",)]
    with newer(), closing(open_store(kind, path)) as store:
        assert content(store) == expected(1)


def test_a_step_that_fails_leaves_the_older_version(kind: str, path: Path) -> None:
    put(path, crashed(kind, path, COUNT))
    impossible = (*NEWER[:-1], (*NEWER[-1], "INSERT INTO nowhere VALUES (1)"))
    with newer(impossible), pytest.raises(StorageError, match=f"{path}: the database failed"):
        open_store(kind, path)
    with closing(open_store(kind, path)) as store:
        assert content(store) == expected(COUNT)


@pytest.mark.parametrize("fault", ["signal=SIGKILL", "error=EIO"])
@pytest.mark.parametrize(("calls", "stride"), [("fdatasync,fsync", 1), ("pwrite64", 11)])
def test_ended_within_a_migration_it_is_of_one_version(
    kind: str, path: Path, calls: str, stride: int, fault: str
) -> None:
    """At every sync, and at every eleventh write; a sync alone finds everything written already."""
    require_strace()
    image = crashed(kind, path, COUNT)
    point, versions = 1, set()
    while True:
        put(path, image)
        done = migrate(kind, path, f"inject={calls}:{fault}:when={point}+")
        if not done.returncode:
            break
        if fault == "error=EIO":
            assert done.returncode == 1
            assert str(path.parent) in done.stderr
            assert "start again" in done.stderr
            assert "Traceback" not in done.stderr
        acknowledged, version = len(done.stdout.splitlines()), version_of(kind, path)
        assert version == 2 or (version == 1 and not acknowledged)
        with newer(), closing(open_store(kind, path)) as store:
            done_in_all = int.from_bytes(store.get("count") or b"", "big")
            assert done_in_all - COUNT in (acknowledged, acknowledged + 1)
            assert content(store) == expected(done_in_all)
        versions.add(version)
        point += stride
    assert versions == ({1, 2} if calls == "pwrite64" else {2})


def version_of(kind: str, path: Path) -> int:
    """1 if the older version opens the file and finds everything, 2 if it says that the file is a newer one's."""
    try:
        with closing(open_store(kind, path)) as store:
            assert content(store) == expected(COUNT)
    except StorageError as error:
        return 2 if "newer version of hushfleet" in str(error) else 0
    return 1


def migrate(kind: str, path: Path, inject: str) -> "subprocess.CompletedProcess[str]":
    """A process of the newer version, that opens an older file and does two transactions."""
    strace = ["strace", "-f", "-o", os.devnull, "-e", "trace=pwrite64,fdatasync,fsync", "-e", inject]
    command = [*strace, sys.executable, store_child.__file__, kind, str(path), "2", "--newer"]
    return subprocess.run(command, capture_output=True, text=True)
