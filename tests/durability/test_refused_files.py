"""Files that are damaged, incomplete, foreign, too new or open to others are refused, and left as they were."""

import os
import random
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from store_child import KINDS, NAMES, Files, content, crashed, expected, files, open_store, put

from hushfleet.errors import StorageError
from hushfleet.storage import PAGE_SIZE, SCHEMA

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


def refusal(kind: str, path: Path, content: Files) -> str:
    """Why these files are refused; their bytes stay as they are."""
    put(path, content)
    with pytest.raises(StorageError) as refused:
        open_store(kind, path)
    assert files(path) | content == files(path), "a refused file was changed"
    assert str(path) in str(refused.value)
    return str(refused.value)


def outcome(kind: str, path: Path, files: Files) -> dict[str, bytes] | None:
    """What the store holds, or None if it is refused."""
    put(path, files)
    try:
        store = open_store(kind, path)
    except StorageError:
        return None
    with closing(store):
        return content(store)


@pytest.mark.parametrize(
    ("name", "crash"),
    [
        ("store.db", True),
        ("store.db-wal", True),
        ("store.db-mark", True),
        ("store.db", False),
        ("store.db-mark", False),
    ],
)
def test_a_changed_byte_or_a_cut_is_harmless_or_refused(kind: str, path: Path, name: str, crash: bool) -> None:
    """In the files of a crash, of which the log holds the last commits, and in those of a clean end.

    Every byte of the head, every 512th of the whole file and a hundred more; cuts between the log's frames and within.
    """
    count = 24
    image = crashed(kind, path, count)
    if not crash:
        image = files(path)
    size = len(image[name])
    choice = random.Random(size)
    outcomes = []
    for position in {*range(min(100, size)), *range(0, size, 512), *choice.sample(range(size), min(100, size))}:
        damaged = bytearray(image[name])
        damaged[position] ^= 1 << choice.randrange(8)
        outcomes.append(outcome(kind, path, {**image, name: bytes(damaged)}))
    # The log's frames are a page and 24 bytes long, after 32 bytes: cut between two of them it is a log like any other.
    for length in {*range(32, size, PAGE_SIZE + 24), *choice.sample(range(size), min(60, size))}:
        outcomes.append(outcome(kind, path, {**image, name: image[name][:length]}))
    assert all(found in (None, expected(count)) for found in outcomes)
    if name == "store.db-mark":
        assert None not in outcomes
    else:
        assert None in outcomes


def test_a_lost_log_is_refused(kind: str, path: Path) -> None:
    image = crashed(kind, path, 3)
    image.pop("store.db-wal")
    assert "0 commits, but" in refusal(kind, path, image)


def test_an_older_copy_of_the_database_is_refused(kind: str, path: Path) -> None:
    old = crashed(kind, path, 5)
    new = crashed(kind, path, 3)
    text = refusal(kind, path, {**old, "store.db-mark": new["store.db-mark"]})
    assert "commits, but" in text
    assert "were acknowledged" in text


def test_the_log_of_another_store_is_refused(kind: str, path: Path) -> None:
    image = crashed(kind, path, 5)
    other = crashed(kind, path.parent.with_name("other") / "store.db", 7)
    assert "belongs to another" in refusal(kind, path, {**image, "store.db-wal": other["store.db-wal"]})


def test_a_copy_without_its_mark_is_taken(kind: str, path: Path) -> None:
    image = crashed(kind, path, 5)
    image.pop("store.db-mark")
    assert outcome(kind, path, image) == expected(5)
    assert "store.db-mark" in files(path)


def test_a_missing_database_is_not_made_anew(kind: str, path: Path) -> None:
    image = crashed(kind, path, 5)
    assert "the file is missing" in refusal(kind, path, {"store.db-mark": image["store.db-mark"]})
    assert "the file is missing" in refusal(kind, path, {"store.db-wal": image["store.db-wal"]})
    assert not path.exists()


def test_an_emptied_database_is_not_made_anew(kind: str, path: Path) -> None:
    image = crashed(kind, path, 5)
    assert "it is empty" in refusal(kind, path, {**image, "store.db": b""})
    assert "it is empty" in refusal(kind, path, {"store.db": b""})


def test_what_is_no_database_is_refused(kind: str, path: Path) -> None:
    assert "not a database" in refusal(kind, path, {"store.db": b"[agent]\nname = 17\n" * 300})


def test_a_foreign_database_is_refused(kind: str, path: Path) -> None:
    other = crashed("ledger" if kind == "vault" else "vault", path, 5)
    assert f"not hushfleet's {kind}" in refusal(kind, path, other)
    put(path, {})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE records (key BLOB)")
    path.chmod(0o600)
    assert f"not hushfleet's {kind}" in refusal(kind, path, files(path))


@pytest.mark.parametrize(("version", "reason"), [(len(SCHEMA) + 1, "newer version"), (0, "schema version 0")])
def test_another_schema_version_is_refused(kind: str, path: Path, version: int, reason: str) -> None:
    open_store(kind, path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    assert reason in refusal(kind, path, files(path))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_others_may_read_is_refused(kind: str, path: Path, name: str) -> None:
    put(path, crashed(kind, path, 3))
    (path.parent / name).chmod(0o640)
    with pytest.raises(StorageError, match=f"run: chmod 600 {path.parent / name}"):
        open_store(kind, path)


def test_a_directory_that_others_may_enter_is_refused(kind: str, path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    with pytest.raises(StorageError, match=f"run: chmod 700 {path.parent}"):
        open_store(kind, path)


def test_files_are_made_for_this_user_alone(kind: str, path: Path) -> None:
    old = os.umask(0)
    try:
        with closing(open_store(kind, path)):
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert modes == dict.fromkeys(NAMES, 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", NAMES)
def test_a_link_or_a_directory_in_its_place_is_refused(kind: str, path: Path, name: str) -> None:
    image = crashed(kind, path, 3)
    place = path.parent / name
    put(path, {other: data for other, data in image.items() if other != name})
    target = path.parent / "elsewhere"
    target.write_bytes(image[name])
    target.chmod(0o600)
    place.symlink_to(target)
    with pytest.raises(StorageError, match=f"{place}: not a regular file"):
        open_store(kind, path)
    place.unlink()
    place.mkdir()
    with pytest.raises(StorageError, match=f"{place}: not a regular file"):
        open_store(kind, path)


def test_a_directory_that_cannot_be_made_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=str(tmp_path / "missing" / "data")):
        open_store(kind, tmp_path / "missing" / "data" / "store.db")
