"""Whether anything leaves a service before the records that it promises are on the disk, read from its system calls.

A service that marks (marked_service.py in tests/integration) writes three kinds of lines to a file of its own:

    take KEY            a message has arrived that is acknowledged as KEY
    owe KEY             an event of a transaction that changes records was decided; KEY is a message that follows
    leave KIND KEY      KEY is handed to the socket

What is owed is written with the next write to the log, and durable with the next sync of the log after that. A message
that was durable once may go again at any time: in the same bytes it promises the same.
"""

import os
import re
import shutil
import subprocess
from collections import Counter

import pytest

TRACE = ("-f", "-y", "-s", "64", "-e", "trace=pwrite64,fdatasync,fsync")
"""What strace must be told."""

_CALL = re.compile(r"^(?:(\d+) +)?(?:(pwrite64|fdatasync|fsync)\(\d+<([^>]*)>(.*)|<\.\.\. (\w+) resumed>(.*))$")
_MARK = re.compile(r'^, "(take|owe|leave (\w+)) (\S+)\\n"')


def require_strace() -> None:
    """Without strace there is nothing to see: a failure where every test must run, elsewhere a skip."""
    if shutil.which("strace") and not subprocess.run(["strace", "-o", os.devnull, "true"]).returncode:
        return
    reason = "strace is missing or may not trace: apt-get install strace, and allow ptrace"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Order:
    """Takes one service's trace line by line.

    Args:
        log: path of the write-ahead log.
        marks: path of the file of marks.

    Attributes:
        left: what has left that depended on records, by kind.
        early: what of it left too early: kind and key.
        syncs: how often the log was synced.
    """

    def __init__(self, log: str, marks: str) -> None:
        self.left: Counter[str] = Counter()
        self.early: list[tuple[str, str]] = []
        self.syncs = 0
        self._log, self._marks = log, marks
        self._decided: set[str] = set()
        self._written: set[str] = set()
        self._dependent: set[str] = set()
        self._durable: set[str] = set()
        self._acknowledged: set[str] = set()
        self._syncing: dict[str, set[str]] = {}

    def feed(self, line: str) -> None:
        """The next line of the trace; others than those of `TRACE` are passed over."""
        found = _CALL.match(line)
        if found is None:
            return
        thread, name, file, rest, resumed, end = found.groups()
        if resumed in ("fdatasync", "fsync"):
            self._synced(thread, end)
        elif name == "pwrite64" and file == self._marks:
            self._mark(rest)
        elif name == "pwrite64" and file == self._log:
            self._written |= self._decided
            self._decided = set()
        elif name in ("fdatasync", "fsync") and file == self._log:
            self._syncing[thread] = set(self._written)
            if "unfinished" not in rest:
                self._synced(thread, rest)

    def _synced(self, thread: str, end: str) -> None:
        """A sync covers what was written when it began, if it succeeds."""
        covered = self._syncing.pop(thread, None)
        if covered is not None and end.endswith("= 0"):
            self.syncs += 1
            self._written -= covered
            self._durable |= covered

    def _mark(self, rest: str) -> None:
        found = _MARK.match(rest)
        assert found is not None, f"no mark: {rest}"
        what, kind, key = found.groups()
        if what == "take":
            # The broker uses numbers again.
            self._acknowledged.discard(key)
            self._durable.discard(key)
        elif what == "owe":
            self._owe(key)
        else:
            self._leave(kind, key)

    def _owe(self, key: str) -> None:
        if key in self._acknowledged:
            self.left["puback"] += 1
            self.early.append(("puback", key))
        elif key not in self._durable:
            self._decided.add(key)
            self._dependent.add(key)

    def _leave(self, kind: str, key: str) -> None:
        if key in self._dependent:
            self._dependent.remove(key)
            self.left[kind] += 1
            if key in self._decided or key in self._written:
                self.early.append((kind, key))
        elif kind == "puback" and key not in self._durable:
            self._acknowledged.add(key)
