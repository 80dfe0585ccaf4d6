"""From the readings of a schema's channels to windows: resampled, scaled, with what was imputed (docs/protocol.md, 2).

A grid of samples at the schema's rate, the same on every device: sample k stands at k / rate seconds since 1970. A
sample is the mean of the readings of its own cell; without any, the last reading before it, as long as that holds;
else it is imputed by the last value there was, or by the channel's middle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hushfleet.wire.schema import Channel, Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_agent.sources.quality import Series

_AT_ONCE = 2**18
"""Samples that are made at once, in double precision: of a long grid there would be many times its own memory."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Every channel's samples over a stretch of time.

    Attributes:
        first: number of the first sample since 1970, at the schema's rate.
        values: float32[channels, n], as each channel scales them.
        measured: bool[channels, n].
    """

    first: int
    values: "NDArray[np.float32]" = field(repr=False)
    measured: "NDArray[np.bool_]" = field(repr=False)


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows that are good enough.

    Attributes:
        ends: int64[n], the number of each window's last sample since 1970.
        refused: windows that had too much imputed.
    """

    ends: "NDArray[np.int64]" = field(repr=False)
    refused: int


def resample(schema: Schema, series: Sequence["Series"], holds: Sequence[float], first: int, last: int) -> Grid:
    """Every channel on the schema's grid.

    Args:
        series: of each channel, in the schema's order.
        holds: of each channel: seconds for which a reading stands for what comes after it.
        first, last: numbers of the first sample, and of the one after the last.
    """
    import numpy as np

    count = max(0, last - first)
    values = np.empty((len(series), count), np.float32)
    measured = np.empty((len(series), count), bool)
    for row, (channel, one, hold) in enumerate(zip(schema.channels, series, holds, strict=True)):
        for at in range(0, count, _AT_ONCE):
            part = slice(at, min(count, at + _AT_ONCE))
            numbers = np.arange(first + part.start, first + part.stop)
            values[row, part], measured[row, part] = _sampled(channel, one, hold, schema.rate, numbers)
    return Grid(first, values, measured)


def _sampled(
    channel: Channel, series: "Series", hold: float, rate: float, numbers: "NDArray[np.int64]"
) -> tuple["NDArray[np.float32]", "NDArray[np.bool_]"]:
    """The samples of these numbers, which follow each other."""
    import numpy as np

    count, moments = len(numbers), numbers / rate
    near = slice(*np.searchsorted(series.times, (moments[0] - 1 / rate, moments[-1] + 1 / rate)))
    # A cell reaches from half a sample before its sample to half a sample after.
    cells = np.floor(series.times[near] * rate + 0.5).astype(np.int64) - numbers[0]
    inside = slice(*np.searchsorted(cells, (0, count)))
    number = np.bincount(cells[inside], minlength=count)
    mean = np.bincount(cells[inside], series.values[near][inside], minlength=count) / np.maximum(number, 1)
    filled = number > 0
    before = np.searchsorted(series.times, moments, side="right") - 1
    known = before >= 0
    newest = np.full(count, channel.middle)
    newest[known] = series.values[before[known]]
    age = np.full(count, np.inf)
    age[known] = moments[known] - series.times[before[known]]
    values = channel.scaled(np.where(filled, mean, newest))
    return values.astype(np.float32), filled | (age <= hold)


def windows(schema: Schema, grid: Grid) -> Windows:
    """The schema's windows on a grid; they begin at the samples whose numbers are multiples of `step`."""
    import numpy as np

    length, step = schema.samples, schema.step
    count = grid.values.shape[1]
    starts = np.arange(-grid.first % step, count - length + 1, step) if count >= length else np.zeros(0, np.int64)
    missing = np.zeros(count + 1, np.int32)
    np.cumsum((~grid.measured).sum(axis=0, dtype=np.int32), out=missing[1:])
    imputed = missing[starts + length] - missing[starts]
    fit = starts[imputed <= schema.missing * length * len(schema.channels)]
    return Windows(grid.first + fit + length - 1, len(starts) - len(fit))


def contents(schema: Schema, grid: Grid, ends: "NDArray[np.int64]") -> "NDArray[np.float32]":
    """The windows that end with these samples, float32[n, inputs]: channel by channel, then the mask if it has one."""
    import numpy as np

    length, starts = schema.samples, ends - grid.first - schema.samples + 1
    rows = [*grid.values, *(grid.measured if schema.mask else ())]
    x = np.empty((len(ends), len(rows), length), np.float32)
    for number, row in enumerate(rows if len(ends) else ()):
        x[:, number] = np.lib.stride_tricks.sliding_window_view(row, length)[starts]
    return x.reshape(len(ends), schema.inputs())


def forecasts(
    schema: Schema, grid: Grid, ends: "NDArray[np.int64]"
) -> tuple["NDArray[np.float32]", "NDArray[np.bool_]"]:
    """The target channel's samples `horizon` after each window, float32[n], and which of them were measured."""
    import numpy as np

    at = ends + schema.horizon - grid.first
    there = at < grid.values.shape[1]
    values, measured = np.zeros(len(ends), np.float32), np.zeros(len(ends), bool)
    values[there] = grid.values[schema.target, at[there]]
    measured[there] = grid.measured[schema.target, at[there]]
    return values, measured
