"""Nothing is acknowledged before it is on the disk, seen from the system calls.

A killed process loses nothing that the kernel still holds, so that no kill can find a missing fsync; the order of
system calls does.
"""

import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import store_child
from order import require_strace
from store_child import KINDS, content, expected, open_store, transact

from hushfleet.actions import RESTORED

COUNT = 300


@pytest.fixture(scope="module", autouse=True)
def strace() -> None:
    require_strace()


def traced(kind: str, path: Path, count: int, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, store_child.__file__, kind, str(path), str(count)]
    return subprocess.run(["strace", "-f", "-y", *options, *command], capture_output=True, text=True)


def acknowledgements_too_early(trace: str, path: Path) -> tuple[int, int, int]:
    """How many acknowledgements there were, how many left before the log was synced, how many logs were cut too early.

    A log is cut too early if the database, into which it has been copied, is not synced by then.
    """
    call = re.compile(r"(pwrite64|write|fdatasync|fsync|ftruncate)\((\d+)<([^>]*)>")
    log = f"{path}-wal"
    unsynced: set[str] = set()
    logged = False
    acknowledged = early = cut = 0
    for line in trace.splitlines():
        found = call.search(line)
        if not found:
            continue
        name, number, file = found.groups()
        if name == "pwrite64":
            unsynced.add(file)
            logged = logged or file == log
        elif name in ("fdatasync", "fsync"):
            unsynced.discard(file)
        elif name == "ftruncate":
            cut += file == log and str(path) in unsynced
        elif number == "1" and '"ack ' in line:
            assert logged, "an acknowledgement without any write to the log: this test sees nothing"
            logged = False
            acknowledged += 1
            early += log in unsynced
    return acknowledged, early, cut


@pytest.mark.parametrize("kind", KINDS)
def test_no_acknowledgement_leaves_before_its_log_is_synced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "data" / "store.db"
    trace = tmp_path / "trace"
    calls = "trace=pwrite64,fdatasync,fsync,write,ftruncate"
    assert traced(kind, path, COUNT, "-o", str(trace), "-e", calls).returncode == 0
    assert acknowledgements_too_early(trace.read_text(), path) == (COUNT, 0, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", range(1, 24))
def test_killed_at_a_sync_it_goes_on_from_what_was_acknowledged(kind: str, point: int, tmp_path: Path) -> None:
    """The first points lie within the creation of the file, the later ones in commits and erasures."""
    path = tmp_path / "data" / "store.db"
    inject = f"inject=fdatasync,fsync:signal=SIGKILL:when={point}"
    result = traced(kind, path, 10, "-o", os.devnull, "-e", "trace=fdatasync,fsync", "-e", inject)
    assert result.returncode != 0
    assert_goes_on(kind, path, result.stdout)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", range(1, 24, 2))
def test_a_failing_sync_ends_the_service_before_anything_is_acknowledged(kind: str, point: int, tmp_path: Path) -> None:
    path = tmp_path / "data" / "store.db"
    inject = f"inject=fdatasync,fsync:error=EIO:when={point}+"
    result = traced(kind, path, 10, "-o", os.devnull, "-e", "trace=fdatasync,fsync", "-e", inject)
    assert result.returncode == 1
    assert str(path.parent) in result.stderr
    assert "start again" in result.stderr
    assert "Traceback" not in result.stderr
    assert_goes_on(kind, path, result.stdout)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", [1, 2, 5, 9, 14, 20])
def test_a_disk_that_does_not_read_is_not_taken_for_a_damaged_file(kind: str, point: int, tmp_path: Path) -> None:
    """The remedies differ: whose vault is damaged must enrol anew, whose disk fails may still have it."""
    path = tmp_path / "data" / "store.db"
    with closing(open_store(kind, path)) as store:
        for number in range(10):
            transact(store, number)
    calls = ("-e", "trace=pread64,read", "-e", f"inject=pread64:error=EIO:when={point}+", "-e", "inject=read:error=EIO")
    result = traced(kind, path, 10, "-o", os.devnull, "-P", str(path), *calls)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"{path}: the disk refuses to read or write")
    assert "Traceback" not in result.stderr
    assert_goes_on(kind, path, "ack\n" * 10 + result.stdout)


def assert_goes_on(kind: str, path: Path, acknowledgements: str) -> None:
    acknowledged = len(acknowledgements.splitlines())
    with closing(open_store(kind, path)) as store:
        done = int.from_bytes(store.get("count") or b"", "big")
        assert done in (acknowledged, acknowledged + 1)
        assert content(store) == expected(done)
        assert store.get(RESTORED) is None
