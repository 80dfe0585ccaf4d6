"""What a service says while it runs: one line an event, for people or for machines. Never a secret, never data.

What strangers cause is folded: however much somebody sends, in a period a sender gets a few lines and then one with
numbers, so that no message can fill a disk or bury what matters.
"""

import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TextIO

Style = Literal["text", "json"]

PERIOD = 600.0
"""Seconds for which a sender's lines are counted."""
FEW = 20
"""Different lines of one sender in a period."""
SENDERS = 1000
"""Senders told apart in a period; all others are one."""
LONGEST = 500
"""Characters of one text in a line."""


@dataclass(slots=True)
class _Heard:
    until: float
    shown: set[str] = field(default_factory=set)
    folded: Counter[str] = field(default_factory=Counter)


class Journal:
    """Writes events, from any thread.

    Args:
        style: `text` for a terminal, `json` for a log collector: one object a line with `time` and `event`.
        stream: where to; standard error by default.
        clock: seconds since 1970 UTC.
    """

    def __init__(
        self, style: Style = "text", stream: TextIO | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._style, self._stream, self._clock = style, stream or sys.stderr, clock
        self._lock = threading.Lock()
        self._heard: dict[str, _Heard] = {}

    def write(self, event: str, **fields: object) -> None:
        """Write one event; fields that are None are left out."""
        now = self._clock()
        with self._lock:
            self._close_periods(now)
            self._print(now, event, fields)

    def hear(self, event: str, sender: str, **fields: object) -> None:
        """Write one event that a stranger caused, or count it.

        Written is the first of a period with its `why`, numbers in it aside, and its `topic` without the chunk, or else
        its `round`; and no more than `FEW` of one sender. The rest is a line `folded` when the period is over.

        Args:
            sender: whom the event is laid at the door of; the topic that it came on says it, so it is no proof.
        """
        now = self._clock()
        about = str(fields.get("topic", "")).rpartition("/")[0] or fields.get("round")
        shape = f"{event} {about} {_DIGITS.sub('#', str(fields.get('why')))}"
        with self._lock:
            self._close_periods(now)
            if sender not in self._heard and len(self._heard) >= SENDERS:
                sender = "others"
            heard = self._heard.setdefault(sender, _Heard(now + PERIOD))
            if shape in heard.shown or len(heard.shown) >= FEW:
                heard.folded[event] += 1
                return
            heard.shown.add(shape)
            self._print(now, event, fields)

    def close(self) -> None:
        """Write what has been folded so far."""
        with self._lock:
            self._close_periods(float("inf"))

    def _close_periods(self, now: float) -> None:
        # Periods are equally long: in the order of their beginnings they end.
        while self._heard and (first := next(iter(self._heard.items())))[1].until <= now:
            sender, heard = first
            del self._heard[sender]
            if heard.folded:
                self._print(self._clock(), "folded", {"sender": sender, "count": dict(heard.folded)})

    def _print(self, now: float, event: str, fields: dict[str, object]) -> None:
        shown = {name: _cut(value) for name, value in fields.items() if value is not None}
        if self._style == "json":
            line = json.dumps({"time": round(now, 3), "event": event, **shown}, default=str)
        else:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
            line = " ".join([stamp, event, *(f"{name}={_shown(value)}" for name, value in shown.items())])
        print(line, file=self._stream, flush=True)


_DIGITS = re.compile(r"[0-9]+")


def _cut(value: object) -> object:
    return value if not isinstance(value, str) or len(value) <= LONGEST else value[:LONGEST] + "…"


def _shown(value: object) -> str:
    match value:
        case float():
            return f"{value:.4g}"
        case dict():
            text = ", ".join(f"{name} {_shown(part)}" for name, part in value.items() if part is not None)
        case list() | tuple():
            text = ",".join(map(_shown, value)) or "-"
        case _:
            text = str(value)
    plain = text.isprintable() and " " not in text and '"' not in text
    return text if plain else json.dumps(text)
