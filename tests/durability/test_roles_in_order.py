"""Every role on its real store: nothing leaves before it is durable, at whichever sync the process dies.

The roles' own events are recorded in a fleet in memory and played again to a process that can be traced and killed.
"""

import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import pytest
import roles_child
from order import require_strace
from roles_child import record
from signed_fleet import make_fleet

COORDINATOR, MEMBER, PARTICIPANT = 0, 1, 5
ROLES = {"coordinator": COORDINATOR, "member": MEMBER, "participant": PARTICIPANT}
BATCHES = {"coordinator": 64, "member": 8, "participant": 8}
"""Events a commit where the process is killed at every one: few enough commits, and much in each that may go wrong."""
ONCE = re.compile(
    r"/(up/[^/]+/[^/]+/(upload|masksum|share)|card|key|ready|share|list|call|result|down/[^/]+/survivors)/"
)
"""Topics on which a role may say one thing only, whatever happens to it. A seal differs each time, so sealed ones are
compared by what stands in the records; the mask sum is sealed once and kept."""

OPENING = 14
"""Syncs that make the store, before any event; test_durable_before_acknowledged.py kills at those."""
CLEARED = sha256(b"").hexdigest()


@pytest.fixture(scope="module", autouse=True)
def strace() -> None:
    require_strace()


@pytest.fixture(scope="module", params=ROLES)
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A role's events over two set-ups and three rounds."""
    path = tmp_path_factory.mktemp(request.param) / "recording"
    path.write_bytes(record(make_fleet(4, 4, epoch_rounds=2), ROLES[request.param], 3))
    return path


def play(recording: Path, directory: Path, life: int, batch: int, *options: str) -> "subprocess.CompletedProcess[str]":
    """One life of the process; its lines are what left."""
    command = [sys.executable, roles_child.__file__, str(recording), str(directory / "store.db"), str(life), str(batch)]
    traced = ["strace", "-f", "-y", *options, *command] if options else command
    return subprocess.run(traced, capture_output=True, text=True, timeout=100)


def sent(lines: Iterable[str]) -> dict[str, set[str]]:
    """What was said on topics that bear one word only."""
    said: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        kind, *rest = line.split(" ")
        if kind == "send" and ONCE.search(rest[1] + "/") and "/share/" not in rest[1] and rest[0] != CLEARED:
            said[rest[1]].add(rest[0])
    return said


def test_nothing_leaves_while_the_log_has_unsynced_writes(recording: Path, tmp_path: Path) -> None:
    trace, directory = tmp_path / "trace", tmp_path / "state"
    directory.mkdir(mode=0o700)
    done = play(recording, directory, 1, 1, "-o", str(trace), "-e", "trace=pwrite64,fdatasync,fsync,write")
    assert done.returncode == 0, done.stderr
    log = f"{directory / 'store.db'}-wal"
    call = re.compile(r"(pwrite64|write|fdatasync|fsync)\((\d+)<([^>]*)>")
    # SQLite writes the log at the commit: until then an event's records are owed, though nothing is unsynced yet.
    owed = unsynced = False
    left = early = commits = 0
    for line in trace.read_text().splitlines():
        found = call.search(line)
        if found is None:
            continue
        name, number, file = found.groups()
        if name == "pwrite64" and file == log:
            unsynced = True
        elif name in ("fdatasync", "fsync") and file == log:
            commits += unsynced
            owed = unsynced = False
        elif name == "write" and number == "1" and '"decided' in line:
            owed = True
        elif name == "write" and number == "1":
            left, early = left + 1, early + (owed or unsynced)
    assert (commits > 5, left > 20, early) == (True, True, 0)


@pytest.mark.parametrize("fault", ["signal=SIGKILL", "error=EIO"])
def test_ended_at_any_sync_it_says_the_same_again_or_nothing(recording: Path, tmp_path: Path, fault: str) -> None:
    """Killed at the k-th sync, or on a disk that fails from there on, for every k; and then started again."""
    points, batch = OPENING, BATCHES[recording.parent.name.rstrip("0123456789")]
    while True:
        points += 1
        directory = tmp_path / f"at-{points}"
        directory.mkdir(mode=0o700)
        inject = f"inject=fdatasync,fsync:{fault}:when={points}+"
        first = play(recording, directory, 1, batch, "-o", os.devnull, "-e", "trace=fdatasync,fsync", "-e", inject)
        if first.returncode and fault == "error=EIO":
            assert first.returncode == 1
            assert str(directory) in first.stderr
            assert "start again" in first.stderr
            assert "Traceback" not in first.stderr
        second = play(recording, directory, 2, batch)
        assert second.returncode == 0, (points, second.stderr)
        said = sent([*first.stdout.splitlines(), *second.stdout.splitlines()])
        doubled = {topic: forms for topic, forms in said.items() if len(forms) > 1}
        assert not doubled, (points, doubled)
        if first.returncode == 0:
            break
    assert points > OPENING + 5
