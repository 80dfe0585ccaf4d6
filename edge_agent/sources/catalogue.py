"""What a feed has found so far: each quantity with its description and rate, within bounds. No I/O, no clock."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from edge_agent.sources.payloads import LONGEST_TEXT
from edge_agent.sources.readings import Quantity, Reading

LARGEST_CATALOGUE = 4096
"""Quantities that a feed knows at most; whoever names ever new ones is not listened to any longer."""
LONGEST_ADDRESS = 512
LONGEST_ABOUT = 120
"""Characters."""
MOST_VALUES = 64
"""Texts that a quantity can take, as far as they are kept."""


@dataclass(slots=True)
class _Seen:
    count: int
    first: float
    last: float
    is_text: bool

    @property
    def rate(self) -> float | None:
        return (self.count - 1) / (self.last - self.first) if self.last > self.first else None


class Catalogue:
    """The quantities of one feed.

    Args:
        wanted: the addresses whose readings are passed on, each with the time until which they are passed over, in
            seconds since 1970; None for all.

    Attributes:
        refused: how often something was dropped, by reason.
    """

    def __init__(self, wanted: Mapping[str, float] | None) -> None:
        self.refused: Counter[str] = Counter()
        self._wanted = wanted
        self._described: dict[str, Quantity] = {}
        self._seen: dict[str, _Seen] = {}

    def describe(self, quantities: Iterable[Quantity]) -> None:
        """Keep what an origin says of its quantities, in place of what it said before."""
        for quantity in quantities:
            if self._admits(quantity.address):
                self._described[quantity.address] = _for_people(quantity)

    def take(self, readings: Iterable[Reading]) -> list[Reading]:
        """Count readings for their rates; those that are wanted."""
        passed = []
        for reading in readings:
            if not self._admits(reading.address):
                continue
            if self._wanted is not None and reading.time <= self._wanted[reading.address]:
                continue
            self._described.setdefault(reading.address, Quantity(reading.address))
            seen = self._seen.get(reading.address)
            if seen is None:
                self._seen[reading.address] = _Seen(1, reading.time, reading.time, isinstance(reading.value, str))
            else:
                seen.count += 1
                seen.first = min(seen.first, reading.time)
                seen.last = max(seen.last, reading.time)
            passed.append(reading)
        return passed

    def quantities(self) -> list[Quantity]:
        """Everything described or read so far, by address."""
        return [self._with_what_was_seen(quantity) for _, quantity in sorted(self._described.items())]

    def _with_what_was_seen(self, quantity: Quantity) -> Quantity:
        seen = self._seen.get(quantity.address)
        if seen is None:
            return quantity
        return replace(quantity, rate=seen.rate, about=quantity.about or ("texts" if seen.is_text else ""))

    def _admits(self, address: str) -> bool:
        if self._wanted is not None:
            return address in self._wanted
        if address in self._described:
            return True
        if len(address) > LONGEST_ADDRESS or not address.isprintable():
            self.refused[f"an address that is not printable or longer than {LONGEST_ADDRESS} characters"] += 1
            return False
        if len(self._described) >= LARGEST_CATALOGUE:
            self.refused[f"more than {LARGEST_CATALOGUE} quantities"] += 1
            return False
        return True


def _for_people(quantity: Quantity) -> Quantity:
    """Without what would spoil a terminal or the memory: origins write what they like."""
    return replace(
        quantity,
        unit=quantity.unit if quantity.unit is not None and _is_short(quantity.unit) else None,
        values=tuple(filter(_is_short, quantity.values[:MOST_VALUES])),
        about="".join(filter(str.isprintable, quantity.about[:LONGEST_ABOUT])),
    )


def _is_short(text: str) -> bool:
    return len(text) <= LONGEST_TEXT and text.isprintable()
