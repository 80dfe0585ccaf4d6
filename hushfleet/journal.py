"""What a service says while it runs: one line an event, for people or for machines. Never a secret, never data."""

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Literal, TextIO

Style = Literal["text", "json"]


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

    def write(self, event: str, **fields: object) -> None:
        """Write one event; fields that are None are left out."""
        now = self._clock()
        shown = {name: value for name, value in fields.items() if value is not None}
        if self._style == "json":
            line = json.dumps({"time": round(now, 3), "event": event, **shown}, default=str)
        else:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
            line = " ".join([stamp, event, *(f"{name}={_shown(value)}" for name, value in shown.items())])
        with self._lock:
            print(line, file=self._stream, flush=True)


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
