"""The windows that a home's agent makes of what its sensors say, made a second time for the models without a fleet."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hushfleet.wire.schema import Channel, Standardised
from hushfleet_demo.home_devices import Spoken
from hushfleet_demo.newcomer import Recording
from hushfleet_demo.task import Rows

PERIOD = 300
"""Seconds between two samples."""
SAMPLES, HORIZON = 6, 6
"""Half an hour is looked at, to tell what is in half an hour."""
RATED = 1000.0
"""ppm of carbon dioxide, customarily the most that a room should have (Pettenkofer 1858): what counts as 1."""
CHANNELS = (
    Standardised("co2", "ppm", 0.0, 2000.0, 700.0, 250.0),
    Channel("temperature", "degC", 0.0, 40.0),
    Channel("humidity", "%", 0.0, 100.0),
    Channel("occupancy", "1", 0.0, 1.0),
    Channel("contact", "1", 0.0, 1.0),
)
"""The schema's; of the contact, 1 is an open window."""


def _channel(one: Channel) -> str:
    scale = f", mean = {one.mean}, sd = {one.sd}" if isinstance(one, Standardised) else ""
    return f'    {{ name = "{one.name}", unit = "{one.unit}", low = {one.low}, high = {one.high}{scale} }},'


SCHEMA = f"""
[schema]
rate = {1 / PERIOD}
samples = {SAMPLES}
step = 1
missing = 0.75
task = "forecast"
target = "{CHANNELS[0].name}"
horizon = {HORIZON}
channels = [
{chr(10).join(map(_channel, CHANNELS))}
]
"""
"""As the owners sign it."""


def recording(name: str, spoken: Mapping[str, Spoken], begin: int, count: int) -> Recording:
    """The windows of one home with what came half an hour after each, timed by their last samples.

    Args:
        name: of the device.
        spoken: what its sensors say.
        begin: when the life began, in seconds since 1970, a multiple of `PERIOD`.
        count: samples in it.
    """
    series = {name: (one.times, values) for one in spoken.values() for name, values in one.values.items()}
    series["contact"] = (series["contact"][0], ~series["contact"][1])
    grid = np.stack([channel.scaled(_sampled(*series[channel.name], count)) for channel in CHANNELS])
    windows = np.lib.stride_tricks.sliding_window_view(grid, SAMPLES, axis=1)[:, : count - SAMPLES - HORIZON + 1]
    x = np.moveaxis(windows, 0, 1).reshape(-1, len(CHANNELS) * SAMPLES)
    ends = np.arange(SAMPLES - 1, count - HORIZON)
    return Recording(
        name, begin + PERIOD * ends, Rows(x.astype(np.float32), grid[0, ends + HORIZON, None].astype("f4"))
    )


def _sampled(times: NDArray[np.float64], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The mean of what is said around each sample's moment; where nothing is, what was said last."""
    cells = np.floor(times / PERIOD + 0.5).astype(np.int64)
    inside = cells < count
    number = np.bincount(cells[inside], minlength=count)
    mean = np.bincount(cells[inside], values[inside], minlength=count) / np.maximum(number, 1)
    last = np.searchsorted(times, PERIOD * np.arange(count), side="right") - 1
    return np.where(number > 0, mean, values[np.maximum(last, 0)])
