"""`hushfleet demo wind`: tomorrow's mean wind at twelve Irish stations, one of which is new and has had thirty days.

All twelve train, the first five are the committee; the others bring sixteen years. They are judged on the two years
that follow. Whoever says that tomorrow will be as today is the one to beat.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hushfleet.learning.layers import forward
from hushfleet.wire.layers import Dense
from hushfleet_demo.federation import Course, Federation, Plan
from hushfleet_demo.newcomer import Newcomers, OneIsNew
from hushfleet_demo.outcome import Finding, Words, masked_row
from hushfleet_demo.task import Flat, Task
from hushfleet_demo.wind_data import FEATURES, RANGE, load_stations

NEW = "ROS"
"""The new station, Rosslare: of all twelve choices the one closest to the mean of all."""
OWN = 30 * 86_400
"""Seconds of recordings that it has."""
JUDGED = datetime(1977, 1, 1, tzinfo=UTC).timestamp(), datetime(1979, 1, 1, tzinfo=UTC).timestamp()
"""The two years in which nobody trains."""
MEMBERS = 5
SHOWN = 90
"""Days in the picture."""

TASK = Task(
    features=FEATURES,
    layers=(Dense(len(FEATURES), 16, "tanh"), Dense(16, 1)),
    head="mean_squared",
    init_seed=b"wind at twelve Irish stations, 0",
    rounds=20,
    steps=20,
    batch=32,
    rate=0.1,
    momentum=0.5,
    # Above the longest delta seen (0.5, in the first round), so that nothing is cut.
    clip=1.0,
    largest_survivor_set=16,
)


class Wind(OneIsNew):
    """The example: an `Example`."""

    words = Words(
        name="wind",
        agents="twelve agents",
        choices="each station as the new one",
        score="error at the new station",
        title=f"Error at the new station, in parts of {RANGE:.0f} knots",
        measure="mean absolute error",
        new="error at the new station",
        alone="its own 30 days alone",
        mean="choices of it",
        epilogue=f"Mean absolute errors of the next day's mean wind, in parts of {RANGE:.0f} knots. The new station is "
        f"{NEW}: one choice of twelve, taken because it lies closest to the mean of all.",
        more_is_better=False,
    )
    task = TASK
    fewest_rounds = 1

    def __init__(self) -> None:
        super().__init__(Newcomers(TASK, load_stations(), OWN, JUDGED), NEW)

    def federation(self, directory: Path, rounds: int, changed: Callable[[Course], None]) -> Federation:
        """Twelve stations, some of them members of the committee."""
        parts = self.fleet.parts(NEW, MEMBERS)
        plan = Plan("irish-wind", "tomorrows-wind", TASK, parts)
        return Federation(directory, plan, rounds, changed)

    def finding(self, model: Flat, course: Course) -> Finding:
        """The forecasts beside what came, and how far off the rule is that tomorrow is as today."""
        rows = self.judged()
        today, came = (rows.x[:, 0] + 1) / 2, rows.y[:, 0]
        forecasts = forward(model, TASK.layers, rows.x)[:SHOWN, 0]

        def draw(axes: Any) -> None:
            axes.plot(came[:SHOWN] * RANGE, color="#999999", linewidth=0.9, label="what came")
            axes.plot(forecasts * RANGE, color="#0b6e4f", label="forecast the day before")
            axes.set(title=f"{NEW}: the first {SHOWN} days of 1977", xlabel="day", ylabel="knots")
            axes.legend(loc="upper right")

        return Finding(
            [
                masked_row("over all twelve stations", course.rounds[-1]["evaluation_loss"]),
                ("tomorrow is as today", f"{np.abs(today - came).mean():.3f} at the new station"),
            ],
            draw,
        )
