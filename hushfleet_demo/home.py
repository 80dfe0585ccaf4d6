"""`hushfleet demo home`: six simulated homes with Zigbee2MQTT learn to tell the air of a room half an hour ahead.

Five have listened to their sensors for two weeks, the new one for two days. All six train, the first five are the
committee. They are judged on the four days that follow, up to now, on which nobody trains. What the model says goes
back to each home's own broker, where Home Assistant finds it.

All homes are simulated. What is real: the brokers, the agents, the coordinator, and every message between them.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hushfleet.learning.layers import forward
from hushfleet.wire.layers import Dense
from hushfleet_demo.federation import Course, Federation, Plan
from hushfleet_demo.home_devices import speech
from hushfleet_demo.home_federation import Home, HomeFederation
from hushfleet_demo.home_life import HOUSEHOLDS, MINUTES_A_DAY, live
from hushfleet_demo.home_rows import CHANNELS, HORIZON, PERIOD, RATED, SAMPLES, SCHEMA, recording
from hushfleet_demo.newcomer import Newcomers, OneIsNew
from hushfleet_demo.outcome import Finding, Words, masked_row
from hushfleet_demo.task import Flat, Rows, Task

NEW = "birch"
"""The new home: of all six choices the one closest to the mean of all."""
DAYS, JUDGED, OWN = 20, 4, 2
"""Days that are simulated; those at their end in which nobody trains; and those before these that a new home has."""
AHEAD = 60
"""Minutes that the homes can go on while the demo runs."""
NOW = 6 * MINUTES_A_DAY + 19 * 60
"""In every home it is Sunday, seven in the evening, whenever the demo is run: its data are always the same."""
MEMBERS = 5
SHOWN = 288
"""Samples in the picture: a day."""
_DAY = 86_400
_MINUTES = HORIZON * PERIOD // 60

TASK = Task(
    features=tuple(f"{channel.name}_{sample}" for channel in CHANNELS for sample in range(SAMPLES)),
    layers=(Dense(len(CHANNELS) * SAMPLES, 16, "tanh"), Dense(16, 1)),
    head="mean_squared",
    init_seed=b"air of six simulated homes, 0".ljust(32, b"."),
    rounds=30,
    steps=50,
    batch=64,
    rate=0.02,
    momentum=0.9,
    # Above the longest delta seen (1.7, in the first round), so that nothing is cut.
    clip=3.0,
    largest_survivor_set=8,
    unit=CHANNELS[0].sd / RATED,
)


class NewHomes(Newcomers):
    """Homes of which the new one has but the last days before those that are judged."""

    def training(self, new: str) -> dict[str, Rows]:
        """See `Newcomers`; windows that share samples with the judged ones are left out, as agents leave them out."""
        first, window = self.judged[0], SAMPLES * PERIOD
        return {
            one.name: one.between(first - self.own + window if one.name == new else one.times[0], first - window + 1)
            for one in self.recordings
        }


class SimulatedHomes(OneIsNew):
    """The example: an `Example`."""

    words = Words(
        name="home",
        agents="six agents",
        choices="each home as the new one",
        score="error at the new home",
        title=f"Error at the new home, in parts of {RATED:.0f} ppm; simulated",
        measure="mean absolute error",
        new="error at the new home",
        alone=f"its own {OWN} days alone",
        mean="choices of it",
        epilogue="All homes, people and sensors are simulated: the figures show that everything works from sensor to "
        "score, not how well a room's air can be forecast. Mean absolute errors of the carbon dioxide in half an "
        f"hour, in parts of {RATED:.0f} ppm. The new home is {NEW}: one choice of six, taken because it lies closest "
        "to the mean of all.",
        more_is_better=False,
    )
    task = TASK
    fewest_rounds = 1

    def __init__(self) -> None:
        end = int(time.time()) // PERIOD * PERIOD
        self._begin = end - DAYS * _DAY
        self._spoken = {
            home.name: speech(home, live(home, DAYS * MINUTES_A_DAY + AHEAD, NOW + AHEAD)) for home in HOUSEHOLDS
        }
        recordings = [
            recording(name, spoken, self._begin, DAYS * _DAY // PERIOD) for name, spoken in self._spoken.items()
        ]
        super().__init__(NewHomes(TASK, recordings, OWN * _DAY, (end - JUDGED * _DAY, end + 1)), NEW)

    def federation(self, directory: Path, rounds: int, changed: Callable[[Course], None]) -> Federation:
        """Six homes, all but one of them members of the committee."""
        parts = self.fleet.parts(NEW, MEMBERS)
        policy: dict[str, int] = {"noiseless_statistics": True}
        plan = Plan("simulated-homes", "air-in-half-an-hour", TASK, parts, policy, SCHEMA, described=True)
        homes = {
            name: Home(spoken, self._begin, self.fleet.judged[0] - OWN * _DAY if name == NEW else self._begin)
            for name, spoken in self._spoken.items()
        }
        return HomeFederation(directory, plan, rounds, changed, homes, NEW)

    def finding(self, model: Flat, course: Course) -> Finding:
        """The forecasts of the last day, and how far off the rule is that the air stays as it is."""
        rows, channel = self.judged(), CHANNELS[0]
        now, came = channel.value(rows.x[:, SAMPLES - 1]), channel.value(rows.y[:, 0])
        forecasts = channel.value(forward(model, TASK.layers, rows.x)[:, 0])
        hours = (np.arange(-SHOWN, 0) + 1) * PERIOD / 3600

        def draw(axes: Any) -> None:
            axes.plot(hours, came[-SHOWN:], color="#999999", linewidth=0.9, label="what came")
            axes.plot(hours, forecasts[-SHOWN:], color="#0b6e4f", label=f"forecast {_MINUTES} minutes before")
            axes.set(title=f"{NEW}, simulated: the last day", xlabel="hour", ylabel="ppm of carbon dioxide")
            axes.legend(loc="best")

        return Finding(
            [
                masked_row("over all six homes", TASK.unit * course.rounds[-1]["evaluation_loss"]),
                (f"in {_MINUTES} minutes as now", f"{np.abs(now - came).mean() / RATED:.3f} at the new home"),
            ],
            draw,
        )
