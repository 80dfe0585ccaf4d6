"""When this device is off the air by its firmware profile: at its daily cap of bytes."""

import time
from collections.abc import Callable

from edge_agent.byte_ledger import ByteLedger
from hushfleet.mqtt.events import Absence
from hushfleet.mqtt.traffic import Lane

LAST_MESSAGE = 18_000
"""Bytes that are kept for a message that is on its way when a cap is near: a chunk of the coordinator's, and the end of
the connection."""
CONNECTION = 8_000
"""Bytes of a new connection: handshake, subscriptions, what waits."""


class Limits:
    """What the link is told by (hushfleet/mqtt/link.py); `ledger` books what it has spent.

    Args:
        clock: seconds since 1970 UTC, this device's own.
    """

    def __init__(self, ledger: ByteLedger, clock: Callable[[], float] = time.time) -> None:
        self._ledger, self._clock = ledger, clock

    def watch(self, sent: Lane, received: Lane, connected: bool) -> Absence | None:
        """Book what was spent; whether the link is to be away, and until when."""
        now = self._clock()
        self._ledger.note(sent, received, now)
        left = self._ledger.left(now)
        if left is None or left >= LAST_MESSAGE + (0 if connected else CONNECTION):
            return None
        why = f"of the {self._ledger.cap} bytes a day that its profile allows, {left} are left: too few to go on"
        return Absence(why, next_day(now))

    def affords(self, size: int) -> bool:
        """Whether a message of so many bytes can still be paid for today."""
        left = self._ledger.left(self._clock())
        return left is None or left >= size + LAST_MESSAGE


def next_day(now: float) -> float:
    """When the next day of this device's own clock begins."""
    year, month, day, *_ = time.localtime(now)
    return time.mktime((year, month, day + 1, 0, 0, 0, 0, 0, -1))
