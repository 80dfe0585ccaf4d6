"""A store put back from a copy is noticed, however it was put back; a store that was only opened again never is."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import store_child
from store_child import KINDS, content, expected, files, open_store, transact

from hushfleet.actions import RESTORED
from hushfleet.place import Place

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True)


def restored(kind: str, path: Path) -> bool:
    """Whether the store says so when it is opened."""
    with closing(open_store(kind, path)) as store:
        return store.get(RESTORED) is not None


def go_on(kind: str, path: Path) -> None:
    """One life of the service, with some commits."""
    with closing(open_store(kind, path)) as store:
        done = int.from_bytes(store.get("count") or b"", "big")
        for number in range(done, done + 3):
            transact(store, number)


# --- put back --------------------------------------------------------------------------------------------------------

PutBack = Callable[[Path, Path], None]
"""Puts the files of one directory into another, which holds newer ones."""


def replaced(copy: Path, place: Path) -> None:
    shutil.rmtree(place)
    shutil.copytree(copy, place)


def copied_over(copy: Path, place: Path) -> None:
    run("cp", "-a", f"{copy}/.", place)


def unpacked_over(copy: Path, place: Path) -> None:
    run("tar", "-C", copy, "-cf", place.parent / "copy.tar", ".")
    run("tar", "-C", place, "-xpf", place.parent / "copy.tar")


def unpacked_anew(copy: Path, place: Path) -> None:
    run("tar", "-C", copy, "-cf", place.parent / "copy.tar", ".")
    shutil.rmtree(place)
    place.mkdir(mode=0o700)
    run("tar", "-C", place, "-xpf", place.parent / "copy.tar")


def moved_over(copy: Path, place: Path) -> None:
    for file in sorted(copy.iterdir()):
        run("mv", "-f", file, place)


def without_the_place(copy: Path, place: Path) -> None:
    """As a backup that knows the database and its log alone."""
    for file in copy.iterdir():
        if file.suffix != ".db-place":
            run("cp", "-a", file, place)


def differing_only(copy: Path, place: Path) -> None:
    """As rsync: what has the same size and time stays, the rest is written beside it and renamed over it."""
    for file in copy.iterdir():
        there = place / file.name
        if not there.exists() or looks(there) != looks(file):
            shutil.copy2(file, place / "new")
            os.replace(place / "new", there)


def looks(file: Path) -> tuple[int, int]:
    return file.stat().st_size, file.stat().st_mtime_ns


def moved_in_by_directory(copy: Path, place: Path) -> None:
    shutil.rmtree(place)
    run("mv", copy, place)


WAYS: list[PutBack] = [
    replaced,
    copied_over,
    unpacked_over,
    unpacked_anew,
    moved_over,
    without_the_place,
    differing_only,
    moved_in_by_directory,
]


@pytest.mark.parametrize("put_back", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
def test_a_copy_put_back_is_noticed(kind: str, path: Path, put_back: PutBack, running: bool) -> None:
    """The copy is of a service that was stopped, or of one that was running and had its last commits in the log."""
    copy = path.parent.with_name("copy")
    go_on(kind, path)
    with closing(open_store(kind, path)) as store:
        transact(store, 3)
        if running:
            shutil.copytree(path.parent, copy)
    if not running:
        shutil.copytree(path.parent, copy)
    go_on(kind, path)
    assert not restored(kind, path)
    put_back(copy, path.parent)
    assert restored(kind, path)


def test_a_copy_of_the_life_under_way_is_noticed_though_its_place_is_not_written_again(kind: str, path: Path) -> None:
    """A service that runs for months is copied live; what differs is put back after it was killed."""
    copy = path.parent.with_name("copy")
    with closing(open_store(kind, path)) as store:
        transact(store, 0)
        shutil.copytree(path.parent, copy)
        transact(store, 1)
    before = looks(Place(path).path)
    differing_only(copy, path.parent)
    assert looks(Place(path).path) == before
    assert restored(kind, path)


def test_a_copy_elsewhere_is_noticed_and_the_original_is_not(kind: str, path: Path) -> None:
    go_on(kind, path)
    copy = path.parent.with_name("copy")
    shutil.copytree(path.parent, copy)
    assert restored(kind, copy / path.name)
    assert not restored(kind, path)


@pytest.mark.parametrize("change", ["deleted", "emptied", "written", "mode"])
def test_a_place_that_is_gone_or_was_touched_counts_as_put_back(kind: str, path: Path, change: str) -> None:
    go_on(kind, path)
    place = Place(path).path
    match change:
        case "deleted":
            place.unlink()
        case "emptied":
            os.truncate(place, 0)
        case "written":
            place.write_bytes(place.read_bytes())
        case "mode":
            place.chmod(0o600)
    assert restored(kind, path)


def test_the_notice_stays_until_it_is_erased(kind: str, path: Path) -> None:
    go_on(kind, path)
    Place(path).path.unlink()
    assert restored(kind, path)
    with closing(open_store(kind, path)) as store:
        transact(store, 3)
    with closing(open_store(kind, path)) as store:
        assert store.get(RESTORED) == b""
        with store.transaction():
            store.erase(RESTORED)
    assert not restored(kind, path)
    with closing(open_store(kind, path)) as store:
        assert content(store) == expected(4)


# --- not put back ----------------------------------------------------------------------------------------------------


def test_opening_again_is_no_restoration(kind: str, path: Path) -> None:
    for _ in range(4):
        go_on(kind, path)
        assert not restored(kind, path)


def test_a_directory_that_is_renamed_is_no_copy(kind: str, path: Path) -> None:
    go_on(kind, path)
    there = path.parent.rename(path.parent.with_name("elsewhere"))
    assert not restored(kind, there / path.name)


def test_a_kill_is_no_restoration(kind: str, path: Path) -> None:
    for lines in (1, 2, 7):
        command = [sys.executable, store_child.__file__, kind, str(path), "100000"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert not restored(kind, path)


def test_reading_is_not_touching(kind: str, path: Path) -> None:
    go_on(kind, path)
    before = Place(path).look()
    assert all(files(path).values())
    assert Place(path).look() == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("life", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
def test_death_around_the_renewal_is_neither_a_false_alarm_nor_a_miss(
    kind: str, path: Path, life: int, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the store's first life and in a later one: between the record of what is coming, the file, and its record."""
    renew = Place.renew

    def die(place: Place, nonce: bytes) -> bytes:
        if when == "after":
            renew(place, nonce)
        raise Killed

    if life == 2:
        go_on(kind, path)
    with monkeypatch.context() as patch:
        patch.setattr(Place, "renew", die)
        for _ in range(2):
            with pytest.raises(Killed):
                open_store(kind, path)
    assert not restored(kind, path)
    go_on(kind, path)
    copy = path.parent.with_name("copy")
    shutil.copytree(path.parent, copy)
    assert not restored(kind, path)
    assert restored(kind, copy / path.name)


def test_a_new_store_beside_the_place_of_one_that_was_moved_away_is_new(kind: str, path: Path) -> None:
    go_on(kind, path)
    for name in ("store.db", "store.db-mark"):
        (path.parent / name).unlink()
    assert not restored(kind, path)
    go_on(kind, path)
    assert not restored(kind, path)
