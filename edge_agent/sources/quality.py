"""How good a channel's readings are, and which of them are left out (docs/sensors.md). Pure functions on numpy arrays.

What is left out is counted by its reason; nothing is corrected in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated

from hushfleet.configuration import Range

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

AHEAD = 60.0
"""Seconds that a reading's time may be ahead of this device's clock."""
SPIKE_NEIGHBOURS = 3
"""Readings on each side whose median a reading is compared with."""
NORMAL_SPREAD = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation (Hampel 1974)."""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What a channel's readings are held against besides their range; by default nothing.

    Attributes:
        stuck: seconds after which an unchanged value counts as a stuck sensor, and is no longer used; 0 for never.
        spikes: standard deviations from the median of its six neighbours at which a reading counts as a spike; 0 for
            never.
    """

    stuck: Annotated[float, Range(0)] = 0.0
    spikes: Annotated[float, Range(0)] = 0.0


@dataclass(slots=True)
class Counts:
    """How many readings there were, and how many were left out, by reason.

    Attributes:
        readings: all that were stored.
        late: arrived after a newer one; they are used, in their place.
        future: with a time more than a minute ahead of this device's clock.
        clock_set_back: of a time that there was twice, since the clock was set back.
        duplicate: of a time that another reading has.
        out_of_range: not finite, or outside of the channel's range.
        spikes, stuck: as `Cleaning` says.
    """

    readings: int = 0
    late: int = 0
    future: int = 0
    clock_set_back: int = 0
    duplicate: int = 0
    out_of_range: int = 0
    spikes: int = 0
    stuck: int = 0

    def reasons(self) -> dict[str, int]:
        """Readings that are not used, by reason."""
        reasons = ("future", "clock_set_back", "duplicate", "out_of_range", "spikes", "stuck")
        return {reason: getattr(self, reason) for reason in reasons}

    def left_out(self) -> int:
        """Readings that are not used."""
        return sum(self.reasons().values())

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, column.name) + getattr(other, column.name) for column in fields(Counts)))


@dataclass(frozen=True, slots=True)
class Series:
    """One channel's readings that are used.

    Attributes:
        times: float64[n], seconds since 1970, ascending, each once.
        values: float64[n], in the schema's unit.
    """

    times: "Floats" = field(repr=False)
    values: "Floats" = field(repr=False)

    def __len__(self) -> int:
        return len(self.times)


def clean(
    times: "Floats",
    values: "Floats",
    low: float,
    high: float,
    cleaning: Cleaning,
    now: float,
    twice: Sequence[tuple[float, float]] = (),
) -> tuple[Series, Counts]:
    """Sort a channel's readings by time and leave out what is unfit.

    Args:
        times: float64[n], seconds since 1970, in the order of arrival.
        values: float64[n], of those times; nan and infinities among them or not.
        low, high: what a working sensor can give, both included.
        now: this device's clock.
        twice: from when to when it has shown the same time twice: what was read then belongs to two hours.
    """
    import numpy as np

    counts = Counts(readings=len(times))
    future = ~(times <= now + AHEAD)
    counts.future = int(future.sum())
    times, values = _where(~future, times, values)
    unclear = np.zeros(len(times), bool)
    for begin, end in twice:
        unclear |= (times >= begin) & (times <= end)
    counts.clock_set_back = int(unclear.sum())
    times, values = _where(~unclear, times, values)
    counts.late = int((times < np.maximum.accumulate(times)).sum()) if len(times) else 0
    if counts.late:
        # Stable: of two readings of one time the first that came is used.
        order = np.argsort(times, kind="stable")
        times, values = times[order], values[order]
    # `times` is never nan here, so that equal neighbours are all the duplicates there are.
    again = np.concatenate(([False], times[1:] == times[:-1])) if len(times) else np.zeros(0, bool)
    counts.duplicate = int(again.sum())
    times, values = _where(~again, times, values)
    wrong = ~((values >= low) & (values <= high))
    counts.out_of_range = int(wrong.sum())
    times, values = _where(~wrong, times, values)
    if cleaning.spikes:
        odd = _spikes(values, cleaning.spikes)
        counts.spikes = int(odd.sum())
        times, values = _where(~odd, times, values)
    if cleaning.stuck:
        stuck = _stuck(times, values, cleaning.stuck)
        counts.stuck = int(stuck.sum())
        times, values = _where(~stuck, times, values)
    return Series(times, values), counts


def _where(fit: "Mask", times: "Floats", values: "Floats") -> tuple["Floats", "Floats"]:
    """Both where they are fit; a long series of which nothing is left out is not copied."""
    return (times, values) if fit.all() else (times[fit], values[fit])


def _spikes(values: "Floats", deviations: float) -> "Mask":
    """Hampel's identifier: how far a reading is from its neighbours' median, beside how far these are."""
    import numpy as np

    around = 2 * SPIKE_NEIGHBOURS
    if len(values) <= around:
        return np.zeros(len(values), bool)
    padded = np.pad(values, SPIKE_NEIGHBOURS, mode="reflect")
    views = np.lib.stride_tricks.sliding_window_view(padded, around + 1)
    neighbours = np.delete(views, SPIKE_NEIGHBOURS, axis=1)
    median = np.median(neighbours, axis=1)
    spread = NORMAL_SPREAD * np.median(np.abs(neighbours - median[:, None]), axis=1)
    # Where all neighbours are alike, any step would be a spike: the whole series' spread is the least that counts.
    floor = NORMAL_SPREAD * np.median(np.abs(values - np.median(values)))
    result: Mask = np.abs(values - median) > deviations * np.maximum(spread, floor)
    return result


def _stuck(times: "Floats", values: "Floats", seconds: float) -> "Mask":
    """Readings that repeat the one before, later than `seconds` after the first of that value."""
    import numpy as np

    if not len(values):
        return np.zeros(0, bool)
    changed = np.concatenate(([True], values[1:] != values[:-1]))
    began = times[np.maximum.accumulate(np.where(changed, np.arange(len(values)), 0))]
    result: Mask = times - began > seconds
    return result


def drift(series: Series, days: float = 1.0) -> float | None:
    """How far the median of the newest days is from that of the time before, in deviations of that; None if unknown.

    A sensor that ages, or a season: it is shown, and leaves nothing out.
    """
    import numpy as np

    if not len(series):
        return None
    recent = series.times > series.times[-1] - days * 86_400
    before, after = series.values[~recent], series.values[recent]
    if len(before) < 10 or len(after) < 10:
        return None
    spread = NORMAL_SPREAD * np.median(np.abs(before - np.median(before)))
    if not spread:
        return None
    return float((np.median(after) - np.median(before)) / spread)
