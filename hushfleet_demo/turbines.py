"""`hushfleet demo turbines`: four wind turbines learn how much power to expect; one of them has been there for 17 days.

Three have a year and a half of recordings, the new one its first seventeen days. All four train, all four are the
committee. They are judged on the half-year that follows, in which no turbine trains: each scores the model on its own,
and the demo's figure is the new one's. A sum of so few devices needs the owner's `tiny_fleet`, which is signed here,
and so is `noiseless_statistics`: a last round tells how far off the finished model is, and so what is an alarm.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from hushfleet.wire.layers import Dense
from hushfleet_demo.federation import Course, Federation, Plan
from hushfleet_demo.newcomer import Newcomers, OneIsNew
from hushfleet_demo.outcome import Finding, Words
from hushfleet_demo.task import Flat, Task
from hushfleet_demo.turbines_alarms import alarms
from hushfleet_demo.turbines_data import CHANNELS, load_turbines

NEW = "R80711"
"""The new turbine: of all four choices the one closest to the mean of all."""
OWN = 17 * 86_400
"""Seconds of recordings that it has."""
JUDGED = datetime(2015, 7, 1, tzinfo=UTC).timestamp(), datetime(2016, 1, 1, tzinfo=UTC).timestamp()
"""The half-year in which nobody trains."""

TASK = Task(
    features=tuple(CHANNELS),
    layers=(Dense(len(CHANNELS), 32, "relu"), Dense(32, 1)),
    head="mean_squared",
    init_seed=b"power curve of La Haute Borne, 0".ljust(32, b"."),
    rounds=20,
    steps=50,
    batch=64,
    rate=0.1,
    momentum=0.9,
    # Above the longest delta seen with any choice (1.4, in the first round), so that nothing is cut.
    clip=2.0,
    largest_survivor_set=8,
)
_CHANNELS = ",\n    ".join(
    f'{{ name = "{name}", unit = "{one.unit}", low = {one.low}, high = {one.high} }}' for name, one in CHANNELS.items()
)
SCHEMA = f"""
[schema]
rate = {1 / 3600}
samples = 1
step = 1
missing = 0.0
task = "value"
channels = [
    {_CHANNELS},
]
"""
"""Rows come from files, but what the masked sums tell of a model follows a schema."""


class Turbines(OneIsNew):
    """The example: an `Example`."""

    words = Words(
        name="turbines",
        agents="four agents",
        choices="each turbine as the new one",
        score="error at the new turbine",
        title="Error at the new turbine, in parts of the rated power",
        measure="mean absolute error",
        new="error at the new turbine",
        alone="its own 17 days alone",
        mean="choices of it",
        epilogue="Mean absolute errors of the expected power, in parts of the rated power, 2050 kW. The new turbine is "
        f"{NEW}: one choice of four, taken because it lies closest to the mean of all.",
        more_is_better=False,
    )
    task = TASK
    fewest_rounds = 1

    def __init__(self) -> None:
        super().__init__(Newcomers(TASK, load_turbines(), OWN, JUDGED), NEW)

    def federation(self, directory: Path, rounds: int, changed: Callable[[Course], None]) -> Federation:
        """Four turbines, each a participant and a member of the committee."""
        parts = self.fleet.parts(NEW, members=4)
        policy = {"smallest_survivor_set": 3, "tiny_fleet": True, "noiseless_statistics": True}
        plan = Plan("la-haute-borne", "power-curve", TASK, parts, policy, SCHEMA, described=True)
        return Federation(directory, plan, rounds, changed)

    def finding(self, model: Flat, course: Course) -> Finding:
        """Alarms at the new turbine."""
        fleet = self.fleet
        return alarms(TASK, model, fleet.alone(NEW), fleet.recording(NEW), JUDGED, course.described)
