"""When a profile has its device off the air, by a clock that is handed in."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.byte_ledger import ByteLedger
from edge_agent.limits import CONNECTION, HOUR, LAST_MESSAGE, Airtime, Limits
from firmware_profiles.catalog import Figure, Link, Schedule
from hushfleet.mqtt.traffic import Lane

NOON = 1_800_014_400.0
"""2027-01-15."""
DAY = 86_400.0
CAP = 1_000_000
LINK = Link("nb-iot", 2048, 4, 1200, CAP, Figure(20), Figure(40), Figure(1600))


@pytest.fixture(autouse=True)
def universal_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_at_the_cap_the_link_is_to_be_away_until_the_next_day(tmp_path: Path) -> None:
    now = [NOON]
    limits = Limits(ByteLedger(tmp_path / "bytes.json", CAP, pytest.fail), LINK, Schedule(), lambda: now[0])
    sent, received = Lane(), Lane()
    assert limits.watch(sent, received, False) is None
    sent.line = CAP - LAST_MESSAGE - CONNECTION + 1
    assert limits.watch(sent, received, True) is None
    assert [limits.unfit(size) is None for size in (CONNECTION - 1, CONNECTION)] == [True, False]
    absence = limits.watch(sent, received, False)
    assert absence is not None
    assert absence.until == NOON + DAY / 2
    assert f"of the {CAP} bytes a day" in absence.why
    sent.line = CAP - LAST_MESSAGE + 1
    assert limits.watch(sent, received, True) is not None
    now[0] = absence.until
    assert limits.watch(sent, received, False) is None
    assert limits.unfit(CAP - LAST_MESSAGE) is None


def test_days_end_at_the_midnights_of_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    spring, autumn = 1_806_145_200.0, 1_824_890_400.0
    midnights = []
    now = [spring]
    limits, lane = (
        Limits(ByteLedger(tmp_path / "bytes.json", 30_000, pytest.fail), LINK, Schedule(), lambda: now[0]),
        Lane(),
    )
    for begin in (spring, autumn):
        now[0] = begin
        for _ in range(3):
            lane.line += 30_000
            absence = limits.watch(lane, Lane(), True)
            assert absence is not None
            now[0] = absence.until
            midnights.append(absence.until)
            assert time.localtime(absence.until)[3:6] == (0, 0, 0)
    assert {round(after - before) for before, after in pairwise(midnights)} >= {23 * 3600, 25 * 3600}


def test_it_is_asleep_in_its_windows_and_at_no_other_time(tmp_path: Path) -> None:
    now = [NOON]
    schedule = Schedule(asleep=("22:00-04:00", "03:00-05:30", "12:00-12:01"))
    limits = Limits(ByteLedger(tmp_path / "bytes.json", 0, pytest.fail), LINK, schedule, lambda: now[0])
    midnight, away = NOON - DAY / 2, {}
    for minute in range(1440):
        now[0] = midnight + 60 * minute + 17.5
        absence = limits.watch(Lane(), Lane(), connected=minute % 2 == 0)
        if absence is not None:
            away[minute] = absence.until
    assert set(away) == {*range(330), 720, *range(1320, 1440)}
    assert {until for minute, until in away.items() if minute < 330} == {midnight + 330 * 60}
    assert away[720] == NOON + 60
    assert {until for minute, until in away.items() if minute >= 1320} == {midnight + DAY + 330 * 60}


@given(
    share=st.floats(0.001, 0.9),
    steps=st.lists(st.tuples(st.floats(1, 2000), st.integers(0, 200_000)), min_size=1, max_size=200),
)
def test_no_hour_has_more_airtime_than_two_of_the_duty_cycles(share: float, steps: list[tuple[float, int]]) -> None:
    """It may save an hour's worth and spend it with the next one's: that, and one exchange, is the most."""
    air, now, sent = Airtime(LINK, share), NOON, 0
    spent: list[tuple[float, float]] = []
    for passed, size in steps:
        now += passed
        if not air.rests(sent, 0, now):
            sent += size
            spent.append((now, size / 2500))
    largest = max((cost for _, cost in spent), default=0.0)
    for begin, _ in spent:
        assert sum(cost for at, cost in spent if begin <= at < begin + HOUR) <= 2 * share * HOUR + largest + 1e-6


def test_over_its_duty_cycle_it_rests_until_half_an_hours_worth_is_back(tmp_path: Path) -> None:
    now, sent, received = [NOON], Lane(), Lane()
    ledger = ByteLedger(tmp_path / "bytes.json", 0, pytest.fail)
    limits = Limits(ledger, LINK, Schedule(duty_cycle=0.1), lambda: now[0])
    assert limits.watch(sent, received, connected=False) is None
    sent.line, received.line = 200 * 2500, 150 * 5000
    assert limits.watch(sent, received, connected=True) is None
    sent.line += 10 * 2500
    absence = limits.watch(sent, received, connected=True)
    assert absence is not None
    assert absence.until == pytest.approx(NOON + HOUR / 2)
    assert "10 % of an hour" in absence.why
    now[0] = absence.until - 1
    assert limits.watch(sent, received, connected=False) is not None
    now[0] = absence.until + 1
    assert limits.watch(sent, received, connected=False) is None


def test_a_schedule_without_limits_lets_everything_pass(tmp_path: Path) -> None:
    link = replace(LINK, rate_up=None, rate_down=None)
    limits = Limits(ByteLedger(tmp_path / "bytes.json", 0, pytest.fail), link, Schedule())
    lane = Lane()
    lane.line = 10**9
    assert limits.watch(lane, lane, connected=False) is None
    assert limits.unfit(10**9) is None
