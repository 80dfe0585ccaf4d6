"""The turbine recordings: read out of the wheel's zip file, hours that no working sensor can have said left out."""

import csv
import io
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hushfleet.errors import ConfigurationError
from hushfleet_demo import turbines, turbines_data
from hushfleet_demo.newcomer import Newcomers, Recording
from hushfleet_demo.turbines_data import RECORDINGS, load_turbines


@pytest.fixture(scope="module")
def recordings() -> bytes:
    try:
        return RECORDINGS.read()
    except ConfigurationError as error:
        pytest.skip(f"not run without the recordings: {error}")


@pytest.fixture(scope="module")
def fleet(recordings: bytes) -> list[Recording]:
    return load_turbines()


@pytest.fixture(scope="module")
def hours(recordings: bytes) -> list[dict[str, str]]:
    """The full hours of R80721 as they stand in the table."""
    with zipfile.ZipFile(io.BytesIO(recordings)) as archive, archive.open(turbines_data.TABLE) as table:
        header = next(table).decode()
        lines = [line.decode() for line in table if line.startswith(b"R80721") and line[21:23] == b"00"]
    return list(csv.DictReader([header, *lines]))


def test_four_turbines_with_nearly_every_hour_of_two_years(fleet: list[Recording]) -> None:
    assert [turbine.name for turbine in fleet] == ["R80711", "R80721", "R80736", "R80790"]
    for turbine in fleet:
        assert len(turbine.times) == len(turbine.rows.x) == len(turbine.rows.y)
        assert 0.98 * 2 * 365 * 24 < len(turbine.times) <= 2 * 365 * 24
        assert (np.diff(turbine.times) > 0).all()
        assert not (turbine.times % 3600).any()
        assert turbine.rows.x.dtype == turbine.rows.y.dtype == np.float32
        assert np.abs(turbine.rows.x).max() <= 1
        assert turbine.rows.y.max() == pytest.approx(1, abs=0.01)


def test_one_hour_by_hand(hours: list[dict[str, str]], fleet: list[Recording]) -> None:
    (row,) = (row for row in hours if row["Date_time"] == "2014-03-05T17:00:00+01:00")
    moment = datetime(2014, 3, 5, 16, tzinfo=UTC).timestamp()
    found = fleet[1].between(moment, moment + 1)
    pitch, vane = (float(row[name]) for name in ("Ba_avg", "Va_avg"))
    expected = [
        float(row["Ws_avg"]) / 10 - 1,
        (min(max(pitch, -5), 25) - 10) / 15,
        min(max(vane, -30), 30) / 30,
        (float(row["Ot_avg"]) - 10) / 30,
    ]
    assert_allclose(found.x, [expected], rtol=1e-5)
    assert_allclose(found.y, [[float(row["P_avg"]) / 2050]], rtol=1e-6)


def test_an_hour_at_absolute_zero_is_a_broken_sensor(hours: list[dict[str, str]], fleet: list[Recording]) -> None:
    cold = [row["Date_time"] for row in hours if row["Ot_avg"] and float(row["Ot_avg"]) < -50]
    assert cold
    assert not set(fleet[1].times) & {int(datetime.fromisoformat(time).timestamp()) for time in cold}


def test_the_new_turbine_trains_on_17_days_and_nobody_on_what_is_judged(fleet: list[Recording]) -> None:
    training = Newcomers(turbines.TASK, fleet, turbines.OWN, turbines.JUDGED).training(turbines.NEW)
    assert {name: len(rows) > 12_000 for name, rows in training.items()} == {
        turbine.name: turbine.name != turbines.NEW for turbine in fleet
    }
    assert len(training[turbines.NEW]) == 17 * 24
    for turbine in fleet:
        assert len(training[turbine.name]) + len(turbine.between(*turbines.JUDGED)) <= len(turbine.times)
        assert turbine.times[len(training[turbine.name]) - 1] < turbines.JUDGED[0]


def test_no_repr_shows_a_recording(fleet: list[Recording]) -> None:
    assert repr(fleet[0]) == "Recording(name='R80711', rows=Rows())"
