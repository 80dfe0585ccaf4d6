"""Six simulated households: who is in the living room, what the air there does, and when somebody opens the window.

Nothing here was measured. The air is one well-mixed room: people breathe out carbon dioxide, give off warmth and
moisture, and air from outside comes in through leaks and open windows. Each household has its own room, hours and
habits, and its own seed, so that every run sees the same lives.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MINUTES_A_DAY = 1440
OUTSIDE = 425.0
"""ppm of carbon dioxide."""
_BREATH = 0.018
"""m³ of carbon dioxide that a person at rest gives off in an hour."""
_MOISTURE, _WARMTH = 45.0, 0.08
"""g of water and kW that a person gives off in an hour."""
_CHANGE = 1 / 100
"""How likely somebody comes or goes in a minute."""


@dataclass(frozen=True, slots=True)
class Household:
    """One home.

    Attributes:
        name: of the device that learns there.
        people: who live there, in words.
        persons: how many.
        weekday, weekend: for each hour how likely each person is in the room, in tenths.
        volume: of the room, m³.
        leak, wide: how often the air is exchanged in an hour, with the window closed and open.
        stuffy: ppm from which somebody opens the window before long.
        aired: the minutes for which it stays open, on average.
        restless: how likely a person moves so in a minute that the motion sensor sees it.
        warm: °C that the heating keeps.
        called: what the owner calls the sensors, `{}` standing for what each of them is.
        apart: whether the sensor of carbon dioxide shows nothing else, and temperature and humidity have their own.
    """

    name: str
    people: str
    persons: int
    weekday: str
    weekend: str
    volume: float
    leak: float
    wide: float
    stuffy: float
    aired: float
    restless: float
    warm: float
    called: str
    apart: bool


HOUSEHOLDS = (
    Household("birch", "a couple out at work", 2, "000000360000000005788830", "000000015444334456788850",
              96.0, 0.45, 4.0, 1300.0, 12.0, 0.16, 21.5, "living room/{}", False),
    Household("cedar", "a family of four", 4, "000000570000223455666300", "000000246655445556666400",
              150.0, 0.60, 4.0, 1250.0, 9.0, 0.30, 22.0, "downstairs {}", False),
    Household("hazel", "two pensioners", 2, "000000478766776667788500", "000000478766776667788500",
              88.0, 0.50, 3.0, 1050.0, 20.0, 0.10, 23.0, "parlour_{}", True),
    Household("maple", "a nurse on nights", 1, "765420000000000147788632", "876420000000012568887778",
              54.0, 0.40, 3.0, 1200.0, 15.0, 0.16, 20.5, "room {}", False),
    Household("rowan", "two who work at home", 2, "000000158887378887566630", "000000024554334455777740",
              80.0, 0.55, 3.5, 1150.0, 8.0, 0.14, 21.0, "study/{}", True),
    Household("willow", "three who share a flat", 3, "100000032211112234567765", "421000000135555556677776",
              120.0, 0.50, 3.0, 1400.0, 25.0, 0.20, 20.0, "kitchen/{}", True),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Life:
    """What happened in one room, minute by minute; arrays of shape (minutes,).

    Attributes:
        co2, temperature, humidity: as a sensor there shows them: ppm, °C, %.
        moved: whether the motion sensor saw somebody.
        opened: whether the window was open.
        light: lux.
    """

    co2: NDArray[np.float64] = field(repr=False)
    temperature: NDArray[np.float64] = field(repr=False)
    humidity: NDArray[np.float64] = field(repr=False)
    moved: NDArray[np.bool_] = field(repr=False)
    opened: NDArray[np.bool_] = field(repr=False)
    light: NDArray[np.float64] = field(repr=False)


def live(home: Household, minutes: int, last: int) -> Life:
    """Live so many minutes.

    Args:
        home: the household.
        minutes: how many.
        last: the minute of the week, from Monday 00:00 on, after the last of them.
    """
    rng = np.random.default_rng(int.from_bytes(home.name.encode(), "big"))
    clock = (np.arange(last - minutes, last)) % (7 * MINUTES_A_DAY)
    hour = clock % MINUTES_A_DAY // 60
    likely = np.where(clock < 5 * MINUTES_A_DAY, _tenths(home.weekday)[hour], _tenths(home.weekend)[hour])
    persons = _persons(rng, home, likely)
    days, nights = np.arange(minutes) / MINUTES_A_DAY, minutes // MINUTES_A_DAY + 2
    weather = np.interp(days, np.arange(nights), rng.normal(7, 3, nights))
    outside = weather + 4 * np.sin(2 * math.pi * (clock / MINUTES_A_DAY - 0.4))
    co2, temperature, humidity, left = _air(rng, home, persons, outside)
    moved = rng.random(minutes) < 1 - (1 - home.restless) ** persons
    day = np.maximum(0, np.sin(2 * math.pi * (clock / MINUTES_A_DAY - 0.25)))
    light = 250 * day * rng.uniform(0.3, 1.0, nights)[days.astype(int)]
    return Life(co2, temperature, humidity, moved, left > 0, light + 120.0 * ((persons > 0) & (day < 0.3) & (hour > 6)))


def _tenths(hours: str) -> NDArray[np.float64]:
    return np.array([int(hour) for hour in hours]) / 10


def _persons(rng: np.random.Generator, home: Household, likely: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many are in the room; they stay a while."""
    asked = rng.random(len(likely)) < _CHANGE
    asked[0] = True
    wanted = rng.binomial(home.persons, likely)
    return wanted[np.maximum.accumulate(np.where(asked, np.arange(len(likely)), 0))]


def _air(
    rng: np.random.Generator, home: Household, persons: NDArray[np.int64], outside: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """What the sensors show: carbon dioxide, temperature, relative humidity; and minutes that the window is open yet.

    The balance of one well-mixed room, in steps of a minute; the sensor follows it with some minutes' delay.
    """
    minutes = len(persons)
    chance, stay = rng.random(minutes).tolist(), (rng.exponential(home.aired, minutes) + 3).tolist()
    gusts = rng.normal(1, 0.25, minutes).clip(0.3, 2).tolist()
    co2, warmth, water = OUTSIDE + 150, home.warm, 8.0
    shown, left = co2, 0.0
    found = np.empty((4, minutes))
    for minute, (people, cold) in enumerate(zip(persons.tolist(), outside.tolist(), strict=True)):
        if left > 0:
            left -= 1
        elif people and chance[minute] < (0.02 if co2 > home.stuffy else 0.0005):
            left = stay[minute]
        change = (home.leak + (home.wide * gusts[minute] if left > 0 else 0)) / 60
        co2 += people * _BREATH / home.volume * 1e6 / 60 - change * (co2 - OUTSIDE)
        heating = 0.03 * max(0.0, home.warm - warmth)
        # Walls and furniture hold most of the warmth: the room's own air is a tenth of it.
        warmth += people * _WARMTH / 60 / (home.volume * 0.0034) + heating - (0.1 * change + 0.0008) * (warmth - cold)
        water += people * _MOISTURE / home.volume / 60 - change * (water - 0.8 * saturated(cold))
        shown += (co2 - shown) / 3
        found[:, minute] = shown, warmth, 100 * water / saturated(warmth), left
    found[0] += rng.normal(0, 6, minutes)
    found[1] += rng.normal(0, 0.03, minutes)
    found[2] = np.clip(found[2] + rng.normal(0, 0.3, minutes), 5, 99)
    return tuple(found)


def saturated(warmth: float) -> float:
    """g of water that a m³ of air holds at most at so many °C (Magnus)."""
    return 1323.0 * math.exp(17.6 * warmth / (243 + warmth)) / (273 + warmth)
