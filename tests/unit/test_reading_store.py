"""The ring of readings: what is kept, what goes first, what a crash, a damaged file and a full disk cost."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_agent.sources.store import COMMIT_EVERY, Keep, ReadingStore
from hushfleet.errors import ConfigurationError

NOW = 1_800_000_000.0
KEEP = Keep()


def filled(store: ReadingStore, minutes: int, first: float = NOW, channel: str = "t") -> None:
    """One reading a second."""
    for minute in range(minutes):
        for second in range(60):
            moment = first + 60 * minute + second
            store.add(channel, moment, moment % 1000)
        store.tick(first + 60 * (minute + 1))


def test_readings_come_back_in_the_order_of_arrival(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", KEEP)
    for time, value in ((2.0, 1.5), (1.0, -0.1), (3.0, float("nan"))):
        store.add("a", NOW + time, value)
    store.flush()
    store.add("a", NOW + 4, 7.0)
    store.add("b", NOW + 1, 9.0)
    times, values = store.readings("a")
    assert (times - NOW).tolist() == [2, 1, 3, 4]
    assert values[[0, 1, 3]].tolist() == [1.5, np.float64(np.float32(-0.1)), 7.0]
    assert np.isnan(values[2])
    assert store.channels() == ["a", "b"]
    assert store.readings("nothing")[0].tolist() == []


def test_they_are_there_after_the_end_and_a_new_start(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", KEEP)
    filled(store, 2)
    store.add("t", NOW + 120, 1.0)
    store.close()
    again = ReadingStore(tmp_path / "readings.db", KEEP)
    assert len(again.readings("t")[0]) == 121
    assert again.size() > 0
    assert (tmp_path / "readings.db").stat().st_mode & 0o777 == 0o600


def test_one_transaction_a_minute(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", KEEP)
    store.tick(NOW)
    for second in range(1, 60):
        store.add("t", NOW + second, 1.0)
        store.tick(NOW + second)
    assert store.size() == 0
    store.tick(NOW + COMMIT_EVERY)
    assert store.size() > 0
    # A clock that is set back keeps nothing waiting.
    before = store.size()
    store.add("t", NOW, 1.0)
    store.tick(NOW - 3600)
    assert store.size() > before


def test_what_the_disk_is_given_to_write_is_counted(tmp_path: Path) -> None:
    """Whole pages, as the kernel counts them; in a file system of memory there are none."""

    def charged() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])

    store = ReadingStore(tmp_path / "readings.db", KEEP)
    begin = charged()
    (tmp_path / "page").write_bytes(bytes(4096))
    page = charged() - begin
    before, told = charged(), store.written()
    filled(store, 3)
    assert store.written() - told == charged() - before
    assert (store.written() > told) == (page > 0)
    store.close()


def test_the_oldest_go_first_by_days(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", Keep(days=1 / 24))
    filled(store, 90)
    times, _ = store.readings("t")
    assert times[0] - NOW == 60 * 29
    assert times[-1] - NOW == 60 * 90 - 1


def test_a_reading_far_ahead_of_the_clock_makes_no_other_old(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", KEEP)
    filled(store, 5)
    store.add("t", NOW + 10**8, 1.0)
    filled(store, 5, NOW + 300)
    assert len(store.readings("t")[0]) == 601


def test_the_oldest_go_first_by_bytes(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    store = ReadingStore(tmp_path / "readings.db", Keep(megabytes=0.1))
    for minute in range(40):
        for value in chance.normal(size=1000):
            store.add("noise", NOW + 60 * minute + chance.random(), value)
        store.tick(NOW + 60 * (minute + 1))
        assert store.size() <= 1e5
    times, _ = store.readings("noise")
    assert 5_000 < len(times) < 20_000
    assert times.max() >= NOW + 60 * 39
    store.close()
    # Freed pages are used again.
    assert (tmp_path / "readings.db").stat().st_size < 3e5


def test_since_leaves_out_what_is_older(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", KEEP)
    filled(store, 10)
    times, _ = store.readings("t", NOW + 300)
    assert times[0] - NOW == 300


def test_a_kill_costs_the_last_minute_and_nothing_else(tmp_path: Path) -> None:
    """A process of its own dies between two transactions."""
    script = f"""
import os, signal
from pathlib import Path
from edge_agent.sources.store import Keep, ReadingStore
store = ReadingStore(Path({str(tmp_path / "readings.db")!r}), Keep())
for second in range(150):
    store.add("t", {NOW} + second, 1.0)
    store.tick({NOW} + second)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    times, _ = ReadingStore(tmp_path / "readings.db", KEEP).readings("t")
    assert (times - NOW).tolist() == list(range(121))


@pytest.mark.parametrize("damage", ["header", "middle"])
def test_a_damaged_file_is_put_aside_and_the_device_goes_on(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "readings.db"
    store = ReadingStore(path, KEEP)
    filled(store, 60)
    store.close()
    content = bytearray(path.read_bytes())
    at = 0 if damage == "header" else len(content) // 2 // 4096 * 4096
    content[at : at + 64] = bytes(64)
    path.write_bytes(content)
    again = ReadingStore(path, KEEP)
    assert again.put_aside == tmp_path / "readings.db.damaged"
    assert again.put_aside.read_bytes() == content
    assert len(again.readings("t")[0]) == 0
    filled(again, 1)
    again.close()
    assert ReadingStore(path, KEEP).put_aside is None


def test_a_block_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "readings.db"
    store = ReadingStore(path, KEEP)
    filled(store, 3)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE block SET data = x'00010203' WHERE number = 2")
    times, _ = ReadingStore(path, KEEP).readings("t")
    assert (times - NOW).tolist() == [*range(60), *range(120, 180)]


def test_a_full_disk_is_named_and_what_waits_is_written_later(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", KEEP)
    filled(store, 1)
    chance = np.random.default_rng(1)
    for value in chance.normal(size=20_000):
        store.add("noise", NOW + chance.random(), value)
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    try:
        with pytest.raises(
            ConfigurationError, match=r"readings cannot be kept in .*readings\.db: .*; look at the disk"
        ):
            store.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(store.readings("noise")[0]) == 20_000
    store.flush()
    store.close()
    assert len(ReadingStore(tmp_path / "readings.db", KEEP).readings("noise")[0]) == 20_000


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="readings cannot be kept in"):
        ReadingStore(tmp_path / "file" / "readings.db", KEEP)
