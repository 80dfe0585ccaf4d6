"""The wind recordings: a table of an R workspace inside a Debian package."""

import bz2
import struct
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hushfleet.errors import ConfigurationError
from hushfleet_demo import wind
from hushfleet_demo.federation import Course
from hushfleet_demo.newcomer import Recording
from hushfleet_demo.packaged import DebianPackage, Packaged
from hushfleet_demo.r_workspace import read_table
from hushfleet_demo.wind_data import RECORDINGS, load_stations


@pytest.fixture(scope="module")
def recordings() -> bytes:
    try:
        return RECORDINGS.read()
    except ConfigurationError as error:
        pytest.skip(f"not run without the recordings: {error}")


@pytest.fixture(scope="module")
def stations(recordings: bytes) -> list[Recording]:
    return load_stations()


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}i", *values)


def text(value: str) -> bytes:
    return words(0x00040009, len(value)) + value.encode()


NULL = words(254)
PAIR = words(0x402)
TABLE = (
    words(0x313, 2)
    + words(0x20D, 3, 7, -2, 9) + PAIR + words(1) + text("dim") + words(13, 1, 3) + NULL
    + words(14, 3) + struct.pack(">3d", 0.5, -1.0, 2.25)
    + PAIR + words(1) + text("names") + words(16, 2) + text("day") + text("speed")
    # A name that was there before is a reference, whose number stands where others have their marks.
    + PAIR + words((2 << 8) | 255) + words(13, 1, 3)
    + NULL
)  # fmt: skip
WORKSPACE = b"RDX2\nX\n" + words(2, 0x40201, 0x20300) + PAIR + words(1) + text("wind") + TABLE + NULL


@pytest.mark.parametrize("content", [WORKSPACE, bz2.compress(WORKSPACE)])
def test_a_table_by_hand(content: bytes) -> None:
    table = read_table(content, "wind")
    assert list(table) == ["day", "speed"]
    assert_array_equal(table["day"], [7, -2, 9])
    assert_array_equal(table["speed"], [0.5, -1.0, 2.25])


@pytest.mark.parametrize("content", [b"", b"PK\3\4", WORKSPACE[:-9], WORKSPACE.replace(b"wind", b"rain")])
def test_what_is_no_such_table_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(ConfigurationError, match="has no table wind of numbers"):
        read_table(content, "wind")


def test_twelve_stations_with_every_day_after_the_first_thirty(stations: list[Recording]) -> None:
    codes = ["BEL", "BIR", "CLA", "CLO", "DUB", "KIL", "MAL", "MUL", "ROS", "RPT", "SHA", "VAL"]
    assert [station.name for station in stations] == codes
    for station in stations:
        assert set(np.diff(station.times)) == {86_400}
        assert len(station.times) == len(station.rows.x) == len(station.rows.y) == 6574 - 30
        assert station.times[0] == datetime(1961, 1, 31, tzinfo=UTC).timestamp()


def test_one_day_by_hand(recordings: bytes, stations: list[Recording]) -> None:
    table, day = read_table(recordings, "wind"), 400
    assert [int(table[column][day]) for column in ("year", "month", "day")] == [62, 2, 5]
    moment = datetime(1962, 2, 5, tzinfo=UTC).timestamp()
    found = next(station for station in stations if station.name == "SHA").between(moment, moment + 1)
    knots = table["SHA"]
    before = [knots[399], knots[398], knots[397], knots[393:400].mean(), knots[370:400].mean()]
    assert_allclose(found.x, [[value / 25 - 1 for value in before]], rtol=1e-5)
    assert_allclose(found.y, [[knots[400] / 50]], rtol=1e-6)


def test_twelve_devices_one_of_them_new_and_judging(stations: list[Recording], tmp_path: Path) -> None:
    parts = wind.Wind().federation(tmp_path, 1, lambda _: None).plan.parts
    assert [part.role for part in parts] == ["both"] * 5 + ["participant"] * 7
    assert [part.name for part in parts if part.judge] == ["ROS"]
    rows = {part.name: (len(part.training or ()), len(part.aside or ())) for part in parts}
    assert rows.pop("ROS") == (30, 730)
    assert set(rows.values()) == {(5814, 730)}


def test_the_rule_to_beat_stands_beside_the_forecast(stations: list[Recording]) -> None:
    found = wind.Wind().finding(wind.TASK.start(), Course(rounds=[{"evaluation_loss": 0.07}]))
    assert found.rows[0][1].startswith("0.070, ")
    judged = next(station for station in stations if station.name == "ROS").between(*wind.JUDGED)
    knots = 50 * judged.y[:, 0]
    assert float(found.rows[1][1].split()[0]) == pytest.approx(np.abs(np.diff(knots)).mean() / 50, abs=0.002)


def test_a_package_that_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    missing = Packaged("the recordings", DebianPackage("no-such-package-anywhere"), "/no/such/file", "0" * 64)
    with pytest.raises(ConfigurationError, match=r"the recordings could not be fetched .* no-such-package-anywhere"):
        missing.read()
