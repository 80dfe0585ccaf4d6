"""What this device has spent on its link, by purpose, day and round: a small file beside the vault.

Not in the vault: what arrives would then be written once more for every commit. Where there is a daily cap, the file
says beforehand up to how much may be spent until it is written again; after a crash all of that counts as spent, so
that no number of crashes spends more than the cap. The file is replaced whole and synchronised: some forty times a day,
and once a round.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hushfleet.mqtt.traffic import ITEMS, PURPOSES, Lane

KEPT = 7
"""Days and rounds that are kept."""
LOST = "lost"
"""What may have been spent before a crash: at most so much, and nobody knows on what."""
SMALLEST_ADVANCE, ADVANCES = 4_096, 32
"""Bytes promised at a time: the cap's part, but not less than the first."""
UNCAPPED_ADVANCE = 2**20
"""Without a cap a crash counts for nothing, and the file is written after so many bytes."""

Table = dict[str, list[int]]
"""Bytes sent and received by item."""


class ByteLedger:
    """One device's spending. Safe to use from several threads.

    Args:
        path: of the file.
        cap: bytes a day, both ways; 0 for none.
        failed: is told once why the file cannot be written, or what was found instead of it.
    """

    def __init__(self, path: Path, cap: int, failed: Callable[[str], None]) -> None:
        self.cap = cap
        self._path, self._failed = path, failed
        self._lock = threading.Lock()
        self._told = False
        self._line = (0, 0)
        self._seen = (dict.fromkeys(ITEMS, 0), dict.fromkeys(ITEMS, 0))
        self._days: dict[str, Table] = {}
        self._rounds: dict[str, Table] = {}
        self._open: Table = {}
        self._promised = 0
        self._advance = max(SMALLEST_ADVANCE, cap // ADVANCES) if cap else UNCAPPED_ADVANCE
        self._read()

    # What is spent.

    def note(self, sent: Lane, received: Lane, now: float) -> None:
        """Book what the sockets have carried since the last time."""
        with self._lock:
            today = self._today(now)
            if (line := (sent.line, received.line)) != self._line:
                self._line = line
                self._book(today, (sent.counts(), received.counts()))
            if _total(today) >= self._promised:
                self._promised = _total(today) + self._advance
                self._write()

    def _book(self, today: Table, counts: tuple[dict[str, int], dict[str, int]]) -> None:
        for way, (newest, seen) in enumerate(zip(counts, self._seen, strict=True)):
            for item, count in newest.items():
                if count != seen[item]:
                    for table in (today, self._open):
                        table.setdefault(item, [0, 0])[way] += count - seen[item]
        self._seen = counts

    def left(self, now: float) -> int | None:
        """Bytes that may still be spent today; None without a cap."""
        with self._lock:
            return max(0, self.cap - _total(self._today(now))) if self.cap else None

    def end_round(self, number: int) -> None:
        """What was spent since the round before belongs to this one."""
        with self._lock:
            self._rounds[str(number)], self._open = self._open, {}
            _forget(self._rounds)
            self._write()

    def view(self, now: float) -> dict[str, Any]:
        """Today and the last round by purpose and item, for a person and for machines."""
        with self._lock:
            number = next(reversed(self._rounds), None)
            return {
                "day": _day(now),
                "cap": self.cap or None,
                "today": _by_purpose(self._today(now)),
                "round": None if number is None else int(number),
                "last_round": None if number is None else _by_purpose(self._rounds[number]),
            }

    def close(self) -> None:
        """Write what is known: nothing more is spent, and nothing will have been lost."""
        with self._lock:
            self._promised = 0
            self._write()

    def _today(self, now: float) -> Table:
        """The table of the day by this device's own clock. What a day's file promises holds for that day alone."""
        day = _day(now)
        if next(reversed(self._days), None) != day:
            # A clock that goes back finds the day that it has spent from already.
            self._days[day] = self._days.pop(day, {})
            _forget(self._days)
            self._promised = 0
        return self._days[day]

    # The file.

    def _read(self) -> None:
        try:
            kept = json.loads(self._path.read_bytes())
            days, rounds, unfinished = kept["days"], kept["rounds"], kept["open"]
            totals = [_total(table) for table in (unfinished, *rounds.values(), *days.values())]
            lost = kept["promised"] - totals[-1] if days else 0
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._tell(f"cannot read {self._path}: {error}; what was spent today begins anew")
            return
        self._days, self._rounds, self._open = days, rounds, unfinished
        if self.cap and lost > 0:
            next(reversed(self._days.values())).setdefault(LOST, [0, 0])[1] += lost

    def _write(self) -> None:
        promised = self._promised if self.cap else 0
        kept = {"promised": promised, "days": self._days, "rounds": self._rounds, "open": self._open}
        part = self._path.with_name(self._path.name + ".part")
        try:
            with part.open("w") as file:
                json.dump(kept, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(directory)
            os.close(directory)
        except OSError as error:
            self._tell(f"cannot write {self._path}: {error.strerror}; a restart would forget what was spent")

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            self._failed(why)


def _by_purpose(table: Table) -> dict[str, dict[str, list[int]]]:
    """A copy: what is shown does not change afterwards."""
    found = {purpose: {item: [*table.get(item, (0, 0))] for item in items} for purpose, items in PURPOSES.items()}
    return {**found, **({LOST: {LOST: [*table[LOST]]}} if LOST in table else {})}


def _total(table: Table) -> int:
    return sum(map(sum, table.values()))


def _day(now: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(now))


def _forget(tables: dict[str, Table]) -> None:
    for name in [*tables][:-KEPT]:
        del tables[name]
