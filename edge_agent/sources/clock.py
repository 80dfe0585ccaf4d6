"""Whether this device's clock was set while readings came in, and which times there were twice because of it.

Readings are dated by it, or held against it. A clock without a battery is wrong until the network has said what time it
is; one that is set back makes an hour of two. How far it was set shows beside the time since the device was started,
which nobody sets.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

CLOCK = "clock"
SET = f"{CLOCK}/set"
"""Among what is kept: for how many seconds the clock shows once more what it has shown, from the time that it was set;
0 where it was set ahead."""
SMALLEST = 2.0
"""Seconds: what is less is no more than a busy machine makes of two looks at two clocks."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A clock that was set.

    Attributes:
        by: seconds, below 0 for back.
        begin, end: from when to when it shows again what it has shown to this process; the same if it was set ahead.
    """

    by: float
    begin: float
    end: float


def running() -> float:
    """Seconds since the device was started, those in which it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockWatch:
    """Compares two clocks, each time it is asked."""

    def __init__(self) -> None:
        self._ahead: float | None = None
        self._since = 0.0

    def look(self, now: float, since_start: float) -> Moved | None:
        """Whether the clock was set since the last look.

        Args:
            now: seconds since 1970, by the clock that may be set.
            since_start: seconds by one that runs on, since any moment.
        """
        before, self._ahead = self._ahead, now - since_start
        if before is None:
            self._since = now
            return None
        by = self._ahead - before
        if abs(by) < SMALLEST:
            return None
        # Years ahead, a clock has shown no more than what passed since it was looked at first.
        begin, self._since = max(now, self._since), now
        return Moved(by, begin, max(begin, since_start + before))


def twice(times: Iterable[float], seconds: Iterable[float]) -> list[tuple[float, float]]:
    """From when to when the clock showed what it had shown before; the arguments as they are kept under `SET`."""
    return [(begin, begin + length) for begin, length in zip(times, seconds, strict=True) if length]
