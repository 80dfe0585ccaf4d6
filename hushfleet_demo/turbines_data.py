"""The turbine data: two years of ten-minute means from the four turbines of La Haute Borne, France (ENGIE open data).

They come inside the PyPI wheel openoa 3.2 (BSD), as a zip file of its examples: 41 MB of CSV, 2014 and 2015. Of every
turbine the row of each full hour is used, which is plenty for a power curve.
"""

import csv
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from hushfleet_demo.newcomer import Recording
from hushfleet_demo.packaged import Packaged, Wheel
from hushfleet_demo.task import Rows

RECORDINGS = Packaged(
    what="the turbine recordings",
    source=Wheel("openoa==3.2"),
    path="examples/data/la_haute_borne.zip",
    sha256="be5ea66a3355286e491f5618250dc83e85252a8cb337748d7ba19edc50df6138",
)
TABLE = "la-haute-borne-data-2014-2015.csv"

RATED_POWER = 2050.0
"""kW, of each turbine (Senvion MM82)."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A quantity that the model takes, and the range that is scaled to -1 to 1; readings beyond `limits` are faults.

    Attributes:
        column: its name in the table.
        unit: of its cells.
        low, high: what a turbine at work measures; what lies outside is taken for the nearer of the two.
        limits: what a working sensor can say.
    """

    column: str
    unit: str
    low: float
    high: float
    limits: tuple[float, float]


CHANNELS = {
    "wind_speed": Channel("Ws_avg", "m/s", 0.0, 20.0, (0.0, 60.0)),
    "pitch": Channel("Ba_avg", "deg", -5.0, 25.0, (-180.0, 360.0)),
    "vane": Channel("Va_avg", "deg", -30.0, 30.0, (-180.0, 180.0)),
    "temperature": Channel("Ot_avg", "degC", -20.0, 40.0, (-50.0, 60.0)),
}
"""Wind speed in m/s, angle of the blades, of the wind to the nacelle, in degrees, outdoor temperature in degrees C.

Not the direction of the wind: from it a model would learn in whose wake this one turbine stands."""


def load_turbines() -> list[Recording]:
    """The four turbines by name, each with its hours.

    The four channels are scaled to -1 to 1 by ranges that are the same for all, the power is in parts of `RATED_POWER`.
    Raises `ConfigurationError` if the recordings cannot be found or fetched.
    """
    readings: dict[str, dict[int, list[float]]] = {}
    for name, time, *cells in _hours(RECORDINGS.read()):
        if (values := _values(cells)) is not None:
            readings.setdefault(name, {})[int(datetime.fromisoformat(time).timestamp())] = values
    return [_turbine(name, dict(sorted(of_turbine.items()))) for name, of_turbine in sorted(readings.items())]


def _hours(packed: bytes) -> Iterator[list[str]]:
    """Name, time, the channels' cells and the power's, of each full hour."""
    columns = ("Wind_turbine_name", "Date_time", *(channel.column for channel in CHANNELS.values()), "P_avg")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive, archive.open(TABLE) as table:
        rows = csv.reader(io.TextIOWrapper(table, "utf-8"))
        header = next(rows)
        time, *places = (header.index(column) for column in ("Date_time", *columns))
        yield from ([row[place] for place in places] for row in rows if row[time].endswith(":00:00", 13, 19))


def _values(cells: list[str]) -> list[float] | None:
    """The channels and the power; None where something is missing or no working sensor can have said it."""
    if not all(cells):
        return None
    values = [float(cell) for cell in cells]
    limits = [channel.limits for channel in CHANNELS.values()]
    fit = all(low <= value <= high for value, (low, high) in zip(values, limits, strict=False))
    return values if fit else None


def _turbine(name: str, readings: dict[int, list[float]]) -> Recording:
    table = np.array(list(readings.values()))
    low = np.array([channel.low for channel in CHANNELS.values()])
    high = np.array([channel.high for channel in CHANNELS.values()])
    x = (np.clip(table[:, :-1], low, high) - low) / (high - low) * 2 - 1
    y = table[:, -1:] / RATED_POWER
    return Recording(name, np.array(list(readings)), Rows(x.astype(np.float32), y.astype(np.float32)))
