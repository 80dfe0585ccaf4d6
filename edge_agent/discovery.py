"""What an owner's feeds have to offer, for the owner alone: listened to for a while, shown, and forgotten."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from edge_agent.sources.feeds import FeedSettings
from edge_agent.sources.readings import Feed, Quantity

_PAUSE = 0.05
_HEADINGS = ("address", "unit", "range or values", "rate", "about")


@dataclass(frozen=True, slots=True)
class Discovered:
    """What one feed has shown.

    Attributes:
        quantities: by address.
        refused: how often something was dropped, by reason.
        trouble: why the feed does not measure just now; None if it does.
    """

    quantities: list[Quantity]
    refused: Counter[str]
    trouble: str | None


def discover(feeds: tuple[FeedSettings, ...], seconds: float) -> list[Discovered]:
    """Listen to all feeds at once and keep no reading.

    Args:
        feeds: as configured.
        seconds: how long.

    Raises:
        ConfigurationError: a feed cannot be opened.
    """
    opened: list[Feed] = []
    try:
        opened += (settings.open(None) for settings in feeds)
        end = time.monotonic() + seconds
        while True:
            for feed in opened:
                feed.poll(time.time())
            if time.monotonic() >= end:
                break
            time.sleep(_PAUSE)
        return [Discovered(feed.quantities(), feed.refused, feed.trouble) for feed in opened]
    finally:
        for feed in opened:
            feed.close()


def table(quantities: list[Quantity]) -> Iterator[str]:
    """The lines of a table of quantities."""
    rows = [_HEADINGS, *(_row(quantity) for quantity in quantities)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def proposal(quantities: list[Quantity]) -> Iterator[str]:
    """Lines for a feed's table that name what is to be read: everything that can be, to choose from."""
    yield "read = ["
    for quantity in filter(lambda one: one.readable, quantities):
        note = ", ".join(filter(None, (quantity.unit, rate(quantity.rate))))
        yield f"    {json.dumps(quantity.address, ensure_ascii=False)},{f'  # {note}' if note else ''}"
    yield "]"


def rate(readings: float | None) -> str:
    """A rate in readings a second as people say it; empty if there is none."""
    if readings is None:
        return ""
    return f"{readings:.3g} a second" if readings >= 1 else f"every {1 / readings:.3g} s"


def _row(quantity: Quantity) -> tuple[str, ...]:
    return (quantity.address, quantity.unit or "", _extent(quantity), rate(quantity.rate), quantity.about)


def _extent(quantity: Quantity) -> str:
    if quantity.values:
        return " | ".join(quantity.values[:6]) + (" | ..." if len(quantity.values) > 6 else "")
    if quantity.low is None and quantity.high is None:
        return ""
    return f"{_bound(quantity.low)} to {_bound(quantity.high)}"


def _bound(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"
