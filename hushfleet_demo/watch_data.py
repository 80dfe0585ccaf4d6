"""The watch data: ten people's shoulder exercises, recorded by a smartwatch (Burns et al. 2018, arXiv:1802.01489).

The recordings come inside the PyPI wheel seglearn 1.2.5 (BSD), 140 series of six axes at 50 Hz. The file is a pickle,
which can run code when loaded: its bytes are loaded only when their hash is the one known here.
"""

from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from hushfleet_demo.packaged import Packaged, Wheel
from hushfleet_demo.task import Rows

RECORDINGS = Packaged(
    what="the watch recordings",
    source=Wheel("seglearn==1.2.5"),
    path="seglearn/data/watch_dataset.npy",
    sha256="eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537",
)

WINDOW = 100
"""Samples in a window: two seconds at 50 Hz."""
STRIDE = 50


@dataclass(frozen=True, slots=True)
class Person:
    """One person's windows, in the order they were recorded in the file.

    Attributes:
        number: 1 to 10, as in the recordings.
        windows: float32[n, 36], for each of mean, standard deviation, minimum, maximum, mean absolute difference and
            median the six axes; every column is standardised over this person's own windows (mean 0, deviation 1), so
            nobody needs to know anybody else's scale.
        labels: int64[n], the exercise, 0 to 6.
    """

    number: int
    windows: npt.NDArray[np.float32] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)

    @property
    def rows(self) -> Rows:
        """The windows with their labels."""
        return Rows(self.windows, self.labels)


def load_people() -> list[Person]:
    """The ten people, ascending by number. Raises `ConfigurationError` if the recordings cannot be found or fetched."""
    recordings = np.load(BytesIO(RECORDINGS.read()), allow_pickle=True).item()
    return [_person(number, recordings) for number in sorted(set(recordings["subject"].tolist()))]


def _person(number: int, recordings: dict[str, Any]) -> Person:
    mine = np.flatnonzero(recordings["subject"] == number)
    features = [_statistics(recordings["X"][series]) for series in mine]
    labels = np.repeat(recordings["y"][mine].astype(np.int64), [len(rows) for rows in features])
    windows = np.concatenate(features)
    standardised = (windows - windows.mean(axis=0)) / windows.std(axis=0)
    return Person(number, standardised.astype(np.float32), labels)


def _statistics(series: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64[windows, 36] of one series float64[samples, 6]."""
    windows = np.lib.stride_tricks.sliding_window_view(series, WINDOW, axis=0)[::STRIDE]
    columns = [
        windows.mean(axis=-1),
        windows.std(axis=-1),
        windows.min(axis=-1),
        windows.max(axis=-1),
        np.abs(np.diff(windows, axis=-1)).mean(axis=-1),
        np.median(windows, axis=-1),
    ]
    return np.concatenate(columns, axis=1)
