"""The wind data: daily mean wind speeds at twelve Irish stations, 1961 to 1978 (Haslett and Raftery 1989).

They come inside the Debian package r-cran-gstat, as a table of an R workspace. There are 6,574 days, none missing.
"""

from datetime import UTC, datetime

import numpy as np

from hushfleet_demo.newcomer import Recording
from hushfleet_demo.packaged import DebianPackage, Packaged
from hushfleet_demo.r_workspace import read_table
from hushfleet_demo.task import Rows

RECORDINGS = Packaged(
    what="the wind recordings",
    source=DebianPackage("r-cran-gstat"),
    path="/usr/lib/R/site-library/gstat/data/wind.rda",
    sha256="e1db91ca098d4ed790e0d80faf7f7778bcca450a1f4deb86fe8e4fb76181f24c",
)

RANGE = 50.0
"""Knots: what counts as 1."""
DAYS = (1, 2, 3)
"""The days before the one to forecast whose means the model takes, ..."""
MEANS = (7, 30)
"""... and over how many days before it the means of these."""
FEATURES = (*(f"before_{days}" for days in DAYS), *(f"mean_{days}" for days in MEANS))
"""Not the time of the year, of which a station that is new has seen too little."""

_DATE = ("year", "month", "day")


def load_stations() -> list[Recording]:
    """The twelve stations by their codes, each with a row for every day but the first thirty.

    What a row takes is scaled to -1 to 1 by `RANGE`, the day's own wind is in parts of it. Raises `ConfigurationError`
    if the recordings cannot be found or fetched.
    """
    table = read_table(RECORDINGS.read(), "wind")
    dates = zip(*(table[column].tolist() for column in _DATE), strict=True)
    times = np.array([int(datetime(1900 + year, month, day, tzinfo=UTC).timestamp()) for year, month, day in dates])
    first = max(MEANS)
    return [
        Recording(name, times[first:], _rows(speeds / RANGE, first))
        for name, speeds in sorted(table.items())
        if name not in _DATE
    ]


def _rows(wind: np.ndarray[tuple[int, ...], np.dtype[np.float64]], first: int) -> Rows:
    """A row for each day from number `first` on."""
    days = np.arange(first, len(wind))
    sums = np.concatenate([[0.0], np.cumsum(wind)])
    columns = [wind[days - before] for before in DAYS]
    columns += [(sums[days] - sums[days - count]) / count for count in MEANS]
    x = np.stack(columns, axis=1) * 2 - 1
    return Rows(x.astype(np.float32), wind[first:, None].astype(np.float32))
