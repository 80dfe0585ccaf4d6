"""What an owner's feeds have to offer, for the owner alone: listened to for a while, shown, and forgotten."""

import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from edge_agent.sources.feeds import FeedSettings
from edge_agent.sources.readings import Feed, Quantity
from hushfleet.units import canonical

HOLD_READINGS = 3
"""A proposed channel holds a reading for as long as so many take."""

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
            if not time.monotonic() < end:
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


def proposal(quantities: list[Quantity], taken: set[str]) -> Iterator[str]:
    """Lines for the agent's settings that name everything that can be read as a channel, to choose from.

    Args:
        quantities: what there is.
        taken: names that something has already; those given here are added.
    """
    for quantity in filter(lambda one: one.readable, quantities):
        yield ""
        yield "[[sensors.channel]]"
        taken.add(name := next(one for one in _names(quantity.address) if one not in taken))
        yield f"name = {_quoted(name)}"
        yield f"address = {_quoted(quantity.address)}"
        if quantity.unit:
            yield f"unit = {_quoted(canonical(quantity.unit))}"
        if quantity.rate:
            yield f"hold = {_short(HOLD_READINGS / quantity.rate)}"
        if quantity.values:
            numbers = ", ".join(f"{_quoted(text)} = {number}" for number, text in enumerate(quantity.values))
            yield f"values = {{ {numbers} }}"


def _names(address: str) -> Iterator[str]:
    """What a quantity may be called: by the end of its address, by more of it, or with a number."""
    # Many a topic ends with the word alone: what is before it tells one from another.
    parts = [*filter(None, re.split("[#/]", address.rstrip("#/").removesuffix("/state")))] or [address]
    yield from (" ".join(parts[-count:]) for count in range(1, len(parts) + 1))
    yield from (f"{parts[-1]} {number}" for number in itertools.count(2))


def rate(readings: float | None) -> str:
    """A rate in readings a second as people say it; empty if there is none."""
    if readings is None:
        return ""
    return f"{_short(readings)} a second" if readings >= 1 else f"every {_short(1 / readings)} s"


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


def _short(number: float) -> str:
    """Three digits of it, and no exponent that a person would have to read."""
    return f"{float(f'{number:.3g}'):g}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
