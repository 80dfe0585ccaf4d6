"""The kernel's sensors: a tree of files as the Industrial I/O subsystem shows it."""

from pathlib import Path

import pytest

from edge_agent.sources import iio_feed
from edge_agent.sources.iio_feed import IioFeed, IioFeedSettings
from edge_agent.sources.readings import Reading

BME280 = {
    "name": "bme280",
    "in_temp_input": "21430",
    "in_humidityrelative_input": "50312",
    "in_pressure_input": "101.325000000",
    "in_temp_oversampling_ratio": "2",
    "sampling_frequency_available": "1 2 4",
}
MPU6050 = {
    "name": "mpu6050",
    "in_accel_x_raw": "-16384",
    "in_accel_y_raw": "8192",
    "in_accel_scale": "0.000598",
    "in_accel_x_raw_available": "[-32768 1 32767]",
    "in_temp_raw": "-2000",
    "in_temp_offset": "12420.000000",
    "in_temp_scale": "2.941176",
    "in_accel_mount_matrix": "1, 0, 0; 0, 1, 0; 0, 0, 1",
}


def device(root: Path, number: int, files: dict[str, str]) -> Path:
    place = root / f"iio:device{number}"
    place.mkdir(parents=True)
    for name, text in files.items():
        (place / name).write_text(f"{text}\n")
    return place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    device(tmp_path / "iio", 0, BME280)
    device(tmp_path / "iio", 1, MPU6050)
    return tmp_path / "iio"


def found(feed: IioFeed, now: float) -> dict[str, float | str]:
    return {one.address: one.value for one in feed.poll(now)}


def test_values_have_offset_scale_and_a_usual_unit(root: Path) -> None:
    feed = IioFeedSettings(root=root).open(None)
    assert feed.poll(5.0)[1] == Reading("iio/bme280#pressure", 5.0, 101.325)
    assert found(feed, 6.0) == pytest.approx(
        {
            "iio/bme280#humidityrelative": 50.312,
            "iio/bme280#pressure": 101.325,
            "iio/bme280#temp": 21.43,
            "iio/mpu6050#accel_x": -9.797632,
            "iio/mpu6050#accel_y": 4.898816,
            "iio/mpu6050#temp": (12420 - 2000) * 2.941176 / 1000,
        }
    )
    units = {one.address: (one.unit, one.rate) for one in feed.quantities()}
    assert units["iio/mpu6050#accel_x"] == ("m/s2", 1.0)
    assert units["iio/bme280#temp"][0] == "°C"
    (limits,) = ((one.low, one.high) for one in feed.quantities() if one.address.endswith("accel_x"))
    assert limits == pytest.approx((-19.595264, 19.594666))


def test_it_reads_as_often_as_the_owner_says_and_survives_a_clock_set_back(root: Path) -> None:
    feed = IioFeedSettings(root=root, every=10.0).open(None)
    assert [len(feed.poll(now)) for now in (100.0, 105.0, 110.0, 50.0, 55.0, 60.0)] == [6, 0, 6, 6, 0, 6]


def test_the_scale_is_read_every_time(root: Path) -> None:
    feed = IioFeedSettings(root=root).open({"iio/mpu6050#accel_y": 0.0})
    assert found(feed, 1.0) == {"iio/mpu6050#accel_y": pytest.approx(8192 * 0.000598)}
    (root / "iio:device1" / "in_accel_scale").write_text("0.001\n")
    (root / "iio:device0" / "in_temp_input").write_text("")
    assert found(feed, 2.0) == {"iio/mpu6050#accel_y": pytest.approx(8.192)}
    assert feed.refused == {}, "what nobody wants is not even looked at"


def test_devices_come_go_and_share_names(root: Path) -> None:
    feed = IioFeedSettings(root=root).open(None)
    feed.poll(1.0)
    device(root, 2, BME280)
    device(root, 3, {"name": "x", "label": "boiler", "in_voltage0_raw": "3", "in_voltage0-voltage1_raw": "4"})
    assert len(feed.poll(2.0)) == 6
    later = found(feed, 1.0 + iio_feed.LOOK_EVERY)
    assert later["iio/bme280@iio:device2#temp"] == pytest.approx(21.43)
    assert (later["iio/boiler#voltage0"], later["iio/boiler#voltage0-voltage1"]) == (3.0, 4.0)
    for file in (root / "iio:device3").iterdir():
        file.unlink()
    assert len(feed.poll(2.0 + iio_feed.LOOK_EVERY)) == 9
    assert feed.refused == {"a channel that gave no number": 2}


def test_what_is_odd_is_no_reading(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "in_temp_input": "nan",
        "in_pressure_input": "1e999",
        "in_humidityrelative_input": "x" * 999,
    }.items():
        (root / "iio:device0" / name).write_text(text)
    (root / "iio:device1" / "in_temp_scale").write_text("")
    (root / "iio:device1" / "name").write_bytes(b"\x1b[2J")
    feed = IioFeedSettings(root=root).open(None)
    assert set(found(feed, 1.0)) == {"iio/iio:device1#accel_x", "iio/iio:device1#accel_y"}
    assert feed.refused == {"a channel that gave no number": 4}
    monkeypatch.setattr(iio_feed, "MOST_CHANNELS", 2)
    feed = IioFeedSettings(root=root).open(None)
    feed.poll(1.0)
    assert (len(feed.quantities()), feed.refused["more than 2 channels"]) == (2, 1)


def test_no_sensors_are_told(tmp_path: Path) -> None:
    feed = IioFeedSettings(root=tmp_path / "none").open(None)
    assert feed.poll(1.0) == []
    assert "there is no directory" in str(feed.trouble)
    feed = IioFeedSettings(root=tmp_path).open(None)
    assert feed.poll(1.0) == []
    assert "load their drivers" in str(feed.trouble)
