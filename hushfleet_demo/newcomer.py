"""Examples in which one device is new: the others have long recordings, it has its first days, and all train.

They are judged on a later time in which nobody trains: each device scores the model on its own rows of that time, and
the figure is the new one's. Beside it stand a model of its own days alone, and one of everybody's rows pooled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hushfleet_demo.comparison import Split, federated, trained_at_once
from hushfleet_demo.federation import Part
from hushfleet_demo.task import Flat, Rows, Task, together


@dataclass(frozen=True, slots=True)
class Recording:
    """What one device has recorded, in order of time.

    Attributes:
        name: of the device.
        times: int64[n], seconds since 1970.
        rows: one for each time.
    """

    name: str
    times: NDArray[np.int64] = field(repr=False)
    rows: Rows

    def between(self, first: float, last: float) -> Rows:
        """The rows from one moment until just before another, in seconds since 1970."""
        begin, end = np.searchsorted(self.times, (first, last))
        return Rows(self.rows.x[begin:end], self.rows.y[begin:end])


@dataclass(frozen=True, slots=True)
class Newcomers:
    """Recordings, and who is new when.

    Attributes:
        task: what is learned.
        recordings: of all devices.
        own: seconds of recordings that a new device has.
        judged: the time in which nobody trains, from and until, in seconds since 1970.
    """

    task: Task
    recordings: Sequence[Recording]
    own: float
    judged: tuple[float, float]

    def recording(self, name: str) -> Recording:
        """One device's."""
        return next(recording for recording in self.recordings if recording.name == name)

    def training(self, new: str) -> dict[str, Rows]:
        """What each device trains on, by name."""
        return {
            one.name: one.between(one.times[0], one.times[0] + self.own)
            if one.name == new
            else one.between(one.times[0], self.judged[0])
            for one in self.recordings
        }

    def parts(self, new: str, members: int) -> tuple[Part, ...]:
        """The devices of a federation, the first so many of them members of the committee as well.

        Measured is the traffic of those that are none; if there are none of these, of all.
        """
        training = self.training(new)
        return tuple(
            Part(
                one.name,
                "both" if number < members else "participant",
                training[one.name],
                one.between(*self.judged),
                judge=one.name == new,
                measured=number >= members or members == len(self.recordings),
            )
            for number, one in enumerate(self.recordings)
        )

    def alone(self, new: str) -> Flat:
        """The model of the new device's own days."""
        return trained_at_once(self.task, self.training(new)[new], f"alone {new}")

    def without_federation(self, new: str) -> tuple[float, float]:
        """The new device's error: of the model of its own days, and of one of everybody's rows."""
        judged = self.recording(new).between(*self.judged)
        pooled = trained_at_once(self.task, together([*self.training(new).values()]), f"pooled, {new} new")
        return self.task.judge(self.alone(new), judged), self.task.judge(pooled, judged)

    def splits(self, count: int, each: Callable[[Split], None]) -> list[Split]:
        """Each of the first `count` devices as the new one; `each` is called after every one."""
        splits = []
        for new in self.recordings[:count]:
            alone, pooled = self.without_federation(new.name)
            model = federated(self.task, self.training(new.name), f"{new.name} new")
            split = Split((new.name,), self.task.judge(model, new.between(*self.judged)), alone, pooled)
            splits.append(split)
            each(split)
        return splits


class OneIsNew:
    """What examples of newcomers have in common; the rest of an `Example` is theirs.

    Args:
        fleet: the recordings.
        new: the device that is new in the federation.

    Attributes:
        choices: see `Example`.
    """

    def __init__(self, fleet: Newcomers, new: str) -> None:
        self.fleet, self.new = fleet, new
        self.choices = len(fleet.recordings)

    def judged(self) -> Rows:
        """The new device's rows of the time in which nobody trains."""
        return self.fleet.recording(self.new).between(*self.fleet.judged)

    def without_federation(self) -> tuple[float, float]:
        """See `Example`."""
        return self.fleet.without_federation(self.new)

    def splits(self, count: int, each: Callable[[Split], None]) -> list[Split]:
        """See `Example`."""
        return self.fleet.splits(count, each)
