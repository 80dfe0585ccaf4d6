"""Files that grow: lines, CSV, SQLite, line protocol; rotated, cut short, replaced, locked, and not there yet."""

import os
import socket
import sqlite3
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.local import free_port
from edge_agent.sources import sqlite_feed, tail
from edge_agent.sources.csv_feed import CsvFeedSettings
from edge_agent.sources.influx_feed import InfluxFeedSettings
from edge_agent.sources.payloads import NO_TIME
from edge_agent.sources.readings import Feed, Reading
from edge_agent.sources.sqlite_feed import SqliteFeedSettings
from edge_agent.sources.tail import LONGEST_LINE, Tail
from hushfleet.errors import ConfigurationError


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def found(feed: Feed, now: float = 1000.0) -> list[tuple[str, float, float | str]]:
    """Address behind the file's name, time and value of what was added."""
    return [(one.address.partition("#")[2], one.time, one.value) for one in feed.poll(now)]


# Lines.


def test_lines_come_once_and_only_when_they_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "log"
    followed = Tail(path, from_start=True)
    assert followed.lines() == []
    assert followed.trouble == f"there is no file {path}; it is read as soon as there is"
    append(path, "one\r\ntw")
    assert followed.lines() == [b"one"]
    assert followed.trouble is None
    append(path, "o\nthree")
    assert followed.lines() == [b"two"]
    assert followed.lines() == []
    append(path, "\n")
    assert followed.lines() == [b"three"]
    followed.close()


def test_what_was_there_before_may_be_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, "old\n")
    followed = Tail(path, from_start=False)
    assert followed.lines() == []
    append(path, "new\n")
    assert followed.lines() == [b"new"]
    followed.close()


def test_a_rotated_file_is_read_to_its_end_and_the_new_one_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, "one\n")
    followed = Tail(path, from_start=False)
    assert followed.lines() == []
    path.rename(tmp_path / "log.1")
    append(tmp_path / "log.1", "two\n")
    append(path, "three\n")
    assert [followed.lines(), followed.lines()] == [[b"two"], [b"three"]]
    path.unlink()
    assert followed.lines() == []
    assert "there is no file" in str(followed.trouble)
    append(path, "four\nfi")
    assert followed.lines() == [b"four"]
    path.unlink()
    append(path, "six\n")
    assert followed.lines() == [b"six"]
    assert followed.refused == {}
    followed.close()


def test_a_file_that_is_made_later_is_new(tmp_path: Path) -> None:
    path = tmp_path / "log"
    followed = Tail(path, from_start=False, has_header=True)
    assert followed.lines() == []
    append(path, "header\none\n")
    assert followed.lines() == [b"one"]
    followed.close()
    followed = Tail(path, from_start=False, has_header=True)
    assert followed.lines() == []
    path.unlink()
    append(path, "head")
    assert followed.lines() == []
    append(path, "er\ntwo\n")
    assert followed.lines() == [b"two"]
    followed.close()


def test_a_file_that_is_cut_short_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, "one\ntwo\n")
    followed = Tail(path, from_start=True)
    assert len(followed.lines()) == 2
    os.truncate(path, 0)
    append(path, "3\n")
    assert followed.lines() == [b"3"]
    assert followed.refused == {"a file that was cut short, and is read anew": 1}
    followed.close()


def test_long_lines_and_large_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    append(path, b"x" * (3 * LONGEST_LINE) + b"\nshort\n" + b"y" * (LONGEST_LINE + 1) + b"\nlast\n")
    monkeypatch.setattr(tail, "LARGEST_BITE", 50_000)
    followed = Tail(path, from_start=True)
    bites = [followed.lines() for _ in range(10)]
    assert [line for bite in bites for line in bite] == [b"short", b"last"]
    assert followed.refused == {f"a line of more than {LONGEST_LINE} bytes": 2}
    followed.close()


def test_what_is_no_file_is_told_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        followed = Tail(path, from_start=True)
        assert followed.lines() == []
        assert "it is not a file; name a file that the agent's user may read" in str(followed.trouble)


def test_a_file_without_line_ends_is_not_kept_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, b"x" * (40 * tail.LARGEST_BITE))
    followed = Tail(path, from_start=True)
    tracemalloc.start()
    for _ in range(40):
        assert followed.lines() == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * tail.LARGEST_BITE
    followed.close()


# CSV.


def test_a_csv_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "boiler.csv"
    append(path, "\ufefftime;flow;pump;\n2023-11-14T22:13:20Z;1.5;ON;\n")
    feed = CsvFeedSettings(path, time="time", separator=";", units={"flow": "L/min"}).open(None)
    assert found(feed) == [("flow", 1.7e9, 1.5), ("pump", 1.7e9, "ON")]
    assert [(one.address, one.unit) for one in feed.quantities()] == [(f"{path}#flow", "L/min"), (f"{path}#pump", None)]
    append(path, "1700000010;2;;x\n1700000020;3;OFF;\n")
    assert found(feed) == [("flow", 1.70000001e9, 2.0), ("flow", 1.70000002e9, 3.0), ("pump", 1.70000002e9, "OFF")]
    path.rename(tmp_path / "old.csv")
    append(path, "pump;time\nON;1700000030\n")
    assert found(feed) == [("pump", 1.70000003e9, "ON")]
    assert "no column 'flow'" in str(feed.trouble)
    feed.close()


def test_addresses_are_the_same_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    append(path, "x\n")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    for way in (path, Path("../a.csv"), tmp_path / "b" / ".." / "a.csv"):
        feed = CsvFeedSettings(way).open(None)
        assert found(feed) == []
        assert [one.address for one in feed.quantities()] == [f"{path}#x"]
        feed.close()


def test_without_a_time_only_new_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    append(path, "x\n1\n")
    feed = CsvFeedSettings(path).open(None)
    assert found(feed) == []
    append(path, "2\n")
    assert found(feed, 77.0) == [("x", 77.0, 2.0)]
    feed.close()


def test_rows_that_are_wrong_are_counted_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    append(path, "t,x,y\n1700000000,1,2\n")
    append(path, b'soon,4711,1\n1700000001,4711\n1700000002,\xff,1\n1700000003,nan,1\n1700000004,"4711,1\n\n')
    feed = CsvFeedSettings(path, time="t").open(None)
    assert found(feed) == [("x", 1.7e9, 1.0), ("y", 1.7e9, 2.0), ("y", 1.700000003e9, 1.0)]
    assert sum(feed.refused.values()) == 5
    assert "4711" not in str(feed.refused)
    feed.close()


def test_headers_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    append(path, "time,x")
    feed = CsvFeedSettings(path, time="tiem").open(None)
    assert found(feed) == []
    assert "first line is not complete" in str(feed.trouble)
    append(path, "\n1700000000,1\n")
    assert found(feed) == []
    assert f"{path} has no column 'tiem'; did you mean 'time'?" == feed.trouble
    feed.close()
    append(tmp_path / "bare.csv", "1700000000,4711\n")
    feed = CsvFeedSettings(tmp_path / "bare.csv", time="time").open(None)
    assert found(feed) == []
    assert feed.trouble == f"{tmp_path / 'bare.csv'}, line 1 holds numbers; name the columns in it"
    assert feed.quantities() == []
    feed.close()
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"separator": "::"}, "one character"),
        ({"decimal": ","}, "decimal is the separator too"),
        ({"zone": "Mars/Olympus"}, "the time zone 'Mars/Olympus' is not known here"),
    ]
    for wrong, why in mistakes:
        with pytest.raises(ConfigurationError, match=why):
            CsvFeedSettings(path, **wrong)


def test_a_file_written_anew_in_its_place_with_other_columns_gives_none_of_them_to_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("t,x,y\n1700000000,1,2\n")
    feed = CsvFeedSettings(path, time="t").open(None)
    assert found(feed) == [("x", 1.7e9, 1.0), ("y", 1.7e9, 2.0)]
    path.write_text("t,y,x\n1700000001,3,4\n1700000002,5,6\n")
    assert {address: value for address, _, value in found(feed)} == {"y": 5.0, "x": 6.0}
    assert dict(feed.refused) == {"a file that was cut short, and is read anew": 1}
    feed.close()


def test_a_folder_of_files_is_read_one_after_the_other(tmp_path: Path) -> None:
    """As of a logger that begins one each day; the address stays."""
    for day in (1, 2):
        append(tmp_path / f"2026-11-0{day}.csv", f"t,x\n170000000{day},{day}\n")
    append(tmp_path / "notes.txt", "t,x\n1700000000,9\n")
    feed = CsvFeedSettings(tmp_path / "*.csv", time="t").open(None)
    assert [one for _ in range(4) for one in found(feed)] == [("x", 1_700_000_001.0, 1.0), ("x", 1_700_000_002.0, 2.0)]
    append(tmp_path / "2026-11-02.csv", "1700000003,3\n")
    append(tmp_path / "2026-11-03.csv", "t,y,x")
    assert [value for _ in range(3) for _, _, value in found(feed)] == [3.0]
    assert "first line is not complete" in str(feed.trouble)
    append(tmp_path / "2026-11-03.csv", "\n1700000004,5,4\n")
    assert found(feed) == [("y", 1_700_000_004.0, 5.0), ("x", 1_700_000_004.0, 4.0)]
    # Cut short, it is read anew itself; one that is older is not gone back to.
    (tmp_path / "2026-11-03.csv").write_text("t,x\n1700000005,5\n")
    append(tmp_path / "2026-10-31.csv", "t,x\n1700000000,0\n")
    assert [one for _ in range(3) for one in found(feed)] == [("x", 1_700_000_005.0, 5.0)]
    assert [one.address for one in feed.quantities()] == [f"{tmp_path}/*.csv#x", f"{tmp_path}/*.csv#y"]
    (tmp_path / "2026-11-03.csv").unlink()
    assert found(feed) == []
    append(tmp_path / "2026-11-04.csv", "t,x\n1700000006,6\n")
    assert [one for _ in range(2) for one in found(feed)] == [("x", 1_700_000_006.0, 6.0)]
    feed.close()
    newest = CsvFeedSettings(tmp_path / "*.csv").open(None)
    assert found(newest) == []
    append(tmp_path / "2026-11-04.csv", "1700000007,7\n")
    assert [value for _, _, value in found(newest)] == [1_700_000_007.0, 7.0]
    newest.close()


def test_of_a_folder_what_was_read_before_is_not_opened_again(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        append(tmp_path / f"{day}.csv", f"t,x\n170000000{day},{day}\n170000000{day}\n")
        os.utime(tmp_path / f"{day}.csv", (1.7e9 + day, 1.7e9 + day))
    wanted = {f"{tmp_path}/*.csv#x": 1_700_000_002.0, "another feed's": 0.0}
    feed = CsvFeedSettings(tmp_path / "*.csv", time="t").open(wanted)
    assert [value for _ in range(4) for _, _, value in found(feed)] == [3.0]
    # One malformed row in each file that was read.
    assert dict(feed.refused) == {"a row with more or fewer cells than the header": 2}
    feed.close()
    feed = CsvFeedSettings(tmp_path / "*.csv", time="t").open({f"{tmp_path}/*.csv#x": 1_800_000_000.0})
    assert found(feed) == []
    assert dict(feed.refused) == {"a row with more or fewer cells than the header": 1}
    feed.close()


def test_decimal_commas_and_times_of_a_named_zone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    append(
        path,
        "\ufeffZeit;Temperatur;Zustand\r\n2026-11-30 12:00:00;21,5;ein, aus\r\n2026-11-30T12:00:00Z;-,5;1.000,5\r\n",
    )
    feed = CsvFeedSettings(path, time="Zeit", zone="Europe/Berlin", separator=";", decimal=",").open(None)
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
    assert found(feed) == [
        ("Temperatur", noon - 3600, 21.5),
        ("Zustand", noon - 3600, "ein, aus"),
        ("Temperatur", noon, -0.5),
        ("Zustand", noon, "1.000,5"),
    ]
    feed.close()


def test_what_was_read_before_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    append(path, "t,x,y\n1700000000,1,1\n1700000001,2,2\n")
    feed = CsvFeedSettings(path, time="t").open({f"{path}#x": 1_700_000_000.0})
    assert found(feed) == [("x", 1_700_000_001.0, 2.0)]
    feed.close()


# SQLite.


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "measured?.db"
    with sqlite3.connect(path) as store:
        store.execute('CREATE TABLE "my ""log""" (at INTEGER, temperature REAL, state TEXT, raw BLOB)')
        store.execute("CREATE TABLE other (x REAL)")
    store.close()
    return path


def insert(path: Path, *rows: tuple[object, ...]) -> None:
    with sqlite3.connect(path) as store:
        store.executemany('INSERT INTO "my ""log""" VALUES (?, ?, ?, ?)', rows)
    store.close()


TABLE = 'my "log"'


def test_a_table_that_grows(database: Path) -> None:
    insert(database, (1_700_000_000, 1.5, "ON", b"x"))
    feed = SqliteFeedSettings(database, TABLE, time="at", units={"temperature": "°C"}).open(None)
    assert found(feed) == [(f"{TABLE}/temperature", 1.7e9, 1.5), (f"{TABLE}/state", 1.7e9, "ON")]
    assert found(feed) == []
    insert(database, (1_700_000_001, None, None, None), (None, 1.0, None, None), (1_700_000_002, 2, "x" * 99, None))
    assert found(feed) == [(f"{TABLE}/temperature", 1_700_000_002.0, 2.0)]
    assert feed.refused == {NO_TIME: 1, "a text that is too long or cannot be printed": 1}
    units = {one.address.partition("/")[2]: one.unit for one in feed.quantities()}
    assert units[str(database)[1:] + f"#{TABLE}/temperature"] == "°C"


def test_times_that_sqlite_makes_are_of_the_zone_that_is_named(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "log.db") as store:
        store.execute("CREATE TABLE log (at TEXT DEFAULT CURRENT_TIMESTAMP, x REAL)")
        store.execute("INSERT INTO log (x) VALUES (1)")
        (moment,) = store.execute("SELECT unixepoch(at) FROM log").fetchone()
    store.close()
    (reading,) = found(SqliteFeedSettings(tmp_path / "log.db", "log", time="at", zone="UTC").open(None))
    assert reading == ("log/x", float(moment), 1.0)


def test_only_new_rows_count_without_a_time_and_large_tables_come_in_bites(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_feed, "LARGEST_BITE", 2)
    insert(database, (1, 1, None, None))
    feed = SqliteFeedSettings(database, TABLE).open(None)
    assert found(feed) == []
    insert(database, *((None, number, None, None) for number in range(5)))
    sizes = [len(found(feed)) for _ in range(4)]
    assert sizes == [2, 2, 1, 0]


def test_a_table_that_was_emptied_or_a_file_that_was_replaced_is_read_anew(database: Path, tmp_path: Path) -> None:
    insert(database, *((1_700_000_000 + number, number, None, None) for number in range(3)))
    feed = SqliteFeedSettings(database, TABLE, time="at").open(None)
    assert len(found(feed)) == 3
    with sqlite3.connect(database) as store:
        store.execute('DELETE FROM "my ""log"""')
    store.close()
    insert(database, (1_700_000_009, 9, None, None))
    assert [value for _, _, value in found(feed)] == [9.0]
    assert feed.refused == {"a table that was emptied, and is read anew": 1}
    (tmp_path / "new.db").write_bytes(database.read_bytes())
    (tmp_path / "new.db").replace(database)
    assert len(found(feed)) == 1


def test_a_database_with_a_write_ahead_log_is_read_beside_its_writer(database: Path) -> None:
    feed = SqliteFeedSettings(database, "other").open(None)
    assert found(feed) == []
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("INSERT INTO other VALUES (1)")
    assert [value for _, _, value in found(feed)] == [1.0]
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO other VALUES (2)")
    assert found(feed) == []
    assert feed.trouble is None
    writer.execute("COMMIT")
    assert [value for _, _, value in found(feed)] == [2.0]
    writer.close()
    assert found(feed) == []
    assert feed.trouble is None


def test_what_a_writer_left_behind_in_a_crash_is_the_writers_to_repair(database: Path, tmp_path: Path) -> None:
    insert(database, (1, 1, None, None))
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("BEGIN")
    writer.executemany('INSERT INTO "my ""log""" VALUES (2, 2, ?, NULL)', [("x" * 1000,)] * 100)
    (tmp_path / "crashed").mkdir()
    copies = [tmp_path / "crashed" / f"a.db{suffix}" for suffix in ("", "-journal")]
    for copy, suffix in zip(copies, ("", "-journal"), strict=True):
        copy.write_bytes(database.with_name(database.name + suffix).read_bytes())
    writer.execute("ROLLBACK")
    writer.close()
    before = [copy.read_bytes() for copy in copies]
    feed = SqliteFeedSettings(copies[0], TABLE, time="at").open(None)
    assert found(feed) == []
    assert "cannot read" in str(feed.trouble)
    assert [copy.read_bytes() for copy in copies] == before


def test_what_cannot_be_read_is_told(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = SqliteFeedSettings(database, "othre").open(None)
    assert found(feed) == []
    assert "has no table 'othre'; did you mean 'other'?" in str(feed.trouble)
    feed = SqliteFeedSettings(database, "other", time="at").open(None)
    assert found(feed) == []
    assert "has no column 'at'" in str(feed.trouble)
    feed = SqliteFeedSettings(tmp_path / "none.db", "x").open(None)
    assert found(feed) == []
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "no.db").write_bytes(b"4711" * 1000)
    feed = SqliteFeedSettings(tmp_path / "no.db", "x").open(None)
    assert found(feed) == []
    assert "it is no SQLite file" in str(feed.trouble)
    assert "4711" not in str(feed.trouble)
    with sqlite3.connect(database, isolation_level=None) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        feed = SqliteFeedSettings(database, TABLE).open(None)
        assert found(feed) == []
        assert "its writer has locked it; it is tried again" in str(feed.trouble)
        writer.execute("COMMIT")
        found(feed)
        assert feed.trouble is None
    writer.close()
    with sqlite3.connect(database) as store:
        endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS rowid, x FROM n"
        store.execute(f"CREATE VIEW endless AS {endless}")
    store.close()
    monkeypatch.setattr(sqlite_feed, "LONGEST_READ", 0.05)
    feed = SqliteFeedSettings(database, "endless").open(None)
    assert found(feed) == []
    assert "cannot read" in str(feed.trouble)


# Line protocol.


def test_a_file_of_line_protocol_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.out"
    append(path, "cpu,host=b,cpu=cpu0 idle=99.5,busy=1i 1700000000000000000\n# comment\nbad 4711\n\xff\n")
    feed = InfluxFeedSettings(path=path).open(None)
    assert feed.poll(0.0) == [
        Reading("cpu,cpu=cpu0,host=b#idle", 1.7e9, 99.5),
        Reading("cpu,cpu=cpu0,host=b#busy", 1.7e9, 1.0),
    ]
    append(path, b"m f=t\nm f=\xff\n")
    assert feed.poll(5.0) == [Reading("m#f", 5.0, "true")]
    assert feed.refused == {"a line that is not line protocol": 2, "a line that is not UTF-8": 1}
    feed.close()


def test_datagrams_of_line_protocol() -> None:
    port = free_port()
    feed = InfluxFeedSettings(port=port, precision="s").open(None)
    with pytest.raises(ConfigurationError, match=f"cannot take datagrams on 127.0.0.1, port {port}"):
        InfluxFeedSettings(port=port).open(None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"m f=1 1700000000\nm f=2 1700000001\n", ("127.0.0.1", port))
        sender.sendto(b"junk", ("127.0.0.1", port))
    # The loopback device hands a datagram over before sendto returns.
    assert [(one.time, one.value) for one in feed.poll(0.0)] == [(1.7e9, 1.0), (1_700_000_001.0, 2.0)]
    assert feed.refused == {"a line that is not line protocol": 1}
    feed.close()
    for wrong in ({}, {"path": Path("x"), "port": 1}):
        with pytest.raises(ConfigurationError, match="set path or port"):
            InfluxFeedSettings(**wrong)  # type: ignore[arg-type]
