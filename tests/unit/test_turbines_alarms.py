"""Alarms: hours that lack much of the power that a model expects."""

from datetime import UTC, datetime

import numpy as np

from hushfleet_demo.newcomer import Recording
from hushfleet_demo.task import Rows
from hushfleet_demo.turbines import TASK
from hushfleet_demo.turbines_alarms import alarms

TOLD = {"mae": 0.02, "quantiles": {"0.01": -0.1, "0.99": 0.08}}
START = datetime(2015, 10, 31, 20, tzinfo=UTC).timestamp()


def turbine(power: list[float]) -> Recording:
    times = int(START) + 3600 * np.arange(len(power))
    return Recording("A1", times, Rows(np.zeros((len(power), 4), np.float32), np.array(power, np.float32)[:, None]))


def expects(power: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A model that expects this at all times: nothing but the last layer's bias."""
    flat = np.zeros(TASK.start().size, np.float32)
    flat[-1] = power
    return flat


def said(power: list[float], hours: int = 24) -> dict[str, str]:
    judged = (START, START + 3600 * hours)
    return dict(alarms(TASK, expects(0.5), expects(0.9), turbine(power), judged, TOLD).rows)


def test_an_hour_that_lacks_more_than_nearly_all_hours_of_the_fleet_is_an_alarm() -> None:
    # The last three hours are in November; more power than expected is none, and 0.41 is not little enough.
    found = said([0.5, 0.41, 0.9, 0.39, 0.5, 0.1, 0.39])
    assert found["over all four turbines"].startswith("0.020")
    assert found["alarms at A1"] == (
        "3 of 7 hours lack more than 0.100, as 1% of the fleet's hours do by the same sum, 2 of them in 2015-11; "
        "with its own 17 days alone 6"
    )


def test_hours_after_the_time_that_is_judged_do_not_count() -> None:
    assert said([0.5, 0.1, 0.1, 0.1], hours=2)["alarms at A1"].startswith("1 of 2 hours")


def test_without_alarms() -> None:
    assert ", none; with" in said([0.5, 0.6])["alarms at A1"]
