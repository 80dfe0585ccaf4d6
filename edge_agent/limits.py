"""When this device is off the air by its firmware profile: asleep, over its duty cycle, at its daily cap of bytes."""

import time
from collections.abc import Callable

from edge_agent.byte_ledger import ByteLedger
from firmware_profiles.catalog import Link, Schedule
from hushfleet.mqtt.events import Absence
from hushfleet.mqtt.traffic import Lane
from hushfleet.wire.round import BUSY

LAST_MESSAGE = 18_000
"""Bytes that are kept for a message that is on its way when a cap is near: a chunk of the coordinator's, and the end of
the connection."""
CONNECTION = 8_000
"""Bytes of a new connection: handshake, subscriptions, what waits."""
HOUR = 3_600.0


class Limits:
    """What the link is told by (hushfleet/mqtt/link.py); `ledger` books what it has spent.

    Args:
        link, schedule: of the device's profile.
        clock: seconds since 1970 UTC, this device's own.
    """

    def __init__(
        self, ledger: ByteLedger, link: Link, schedule: Schedule, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger, self._schedule, self._clock = ledger, schedule, clock
        self._air = Airtime(link, schedule.duty_cycle) if schedule.duty_cycle < 1 else None

    def watch(self, sent: Lane, received: Lane, connected: bool) -> Absence | None:
        """Book what was spent; whether the link is to be away, and until when."""
        now = self._clock()
        self._ledger.note(sent, received, now)
        rests = self._air.rests(sent.line, received.line, now) if self._air else 0.0
        _, _, _, hour, minute, *_ = time.localtime(now)
        if sleeps := self._schedule.sleeps_on(60 * hour + minute):
            return Absence("the hours in which its profile has this device asleep", awake_at(now, sleeps))
        if rests:
            share = f"{100 * self._schedule.duty_cycle:g} %"
            return Absence(f"its profile allows this device {share} of an hour on its link", now + rests)
        left = self._ledger.left(now)
        if left is None or left >= LAST_MESSAGE + (0 if connected else CONNECTION):
            return None
        why = f"of the {self._ledger.cap} bytes a day that its profile allows, {left} are left: too few to go on"
        return Absence(why, next_day(now))

    def unfit(self, size: int) -> tuple[int, str] | None:
        """Why no upload of so many bytes can be paid for today, as `Context.unfit`."""
        left = self._ledger.left(self._clock())
        if left is None or left >= size + LAST_MESSAGE:
            return None
        return BUSY, "what the profile's daily_bytes leaves for today does not pay for this upload"


class Airtime:
    """Seconds on the air that the duty cycle leaves: an hour's worth at most; when it is used up, half must come back.

    Args:
        link: with its rates.
        share: of time, above 0 and below 1.
    """

    def __init__(self, link: Link, share: float) -> None:
        assert link.rate_up is not None
        assert link.rate_down is not None
        self._up, self._down = 125 * link.rate_up.value, 125 * link.rate_down.value
        self._share, self._most = share, share * HOUR
        self._left = self._most
        self._spent = 0.0
        self._at: float | None = None
        self._until = 0.0

    def rests(self, sent: int, received: int, now: float) -> float:
        """Seconds for which the link is to be away, after so many bytes since the start; 0 for none."""
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        spent = sent / self._up + received / self._down
        self._left = min(self._most, self._left + self._share * passed) - (spent - self._spent)
        self._at, self._spent = now, spent
        if self._left <= 0:
            self._until = now + (self._most / 2 - self._left) / self._share
        return max(0.0, self._until - now)


def awake_at(now: float, minutes: int) -> float:
    """The beginning of the minute, so many after this one by the device's own clock."""
    year, month, day, hour, minute, *_ = time.localtime(now)
    return time.mktime((year, month, day, hour, minute + minutes, 0, 0, 0, -1))


def next_day(now: float) -> float:
    """When the next day of this device's own clock begins."""
    year, month, day, *_ = time.localtime(now)
    return time.mktime((year, month, day + 1, 0, 0, 0, 0, 0, -1))
