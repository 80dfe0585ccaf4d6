"""Rows that the owner gives to measure a finished model with: a CSV file with a header line, numbers alone."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hushfleet.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hushfleet.learning.layers import Head

LARGEST_ROW_COUNT = 100_000


@dataclass(frozen=True, slots=True)
class Rows:
    """What goes into the model, and what should come out.

    Attributes:
        x: float32[n, inputs], finite.
        y: int64[n] classes, or float32[n, outputs] targets.
    """

    x: "NDArray[np.float32]"
    y: "NDArray[Any]"


def read_rows(path: Path, label: str | None, head: "Head", inputs: int, outputs: int) -> Rows:
    """Read the file.

    Args:
        path: of the file.
        label: the column that should come out; None if a row should come out as it is (an autoencoder).
        head: what stands on the model's last layer; under `softmax` labels are classes from 0.
        inputs, outputs: values of a row that go into the model, and come out.

    Raises:
        ConfigurationError: the file cannot be read or does not fit the model, with the place.
    """
    import numpy as np

    wanted = 1 if head == "softmax" else outputs
    if (inputs if label is None else 1) != wanted or (label is None and head == "softmax"):
        raise ConfigurationError(f"the model's {outputs} outputs under {head} do not fit: name --label and --head anew")
    features: list[list[float]] = []
    labels: list[float] = []
    for place, row in _numbers(path):
        if label is not None:
            if label not in row:
                raise ConfigurationError(f"{path} has no column {label!r}; name the label's with --label")
            labels.append(row.pop(label))
        if len(row) != inputs:
            raise ConfigurationError(f"{place}: {len(row)} features, the model takes {inputs}")
        features.append(list(row.values()))
        if head == "softmax" and not (labels[-1].is_integer() and 0 <= labels[-1] < outputs):
            raise ConfigurationError(f"{place}, column {label!r}: the model's classes are 0 to {outputs - 1}")
        if len(features) == LARGEST_ROW_COUNT:
            break
    if not features:
        raise ConfigurationError(f"{path} has no rows")
    x = np.array(features, np.float32)
    if label is None:
        return Rows(x, x)
    return Rows(x, np.array(labels, np.int64) if head == "softmax" else np.array(labels, np.float32)[:, None])


def _numbers(path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Each line's place, and its numbers by column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if len(set(header)) != len(header):
                raise ConfigurationError(f"{path}, line 1: two columns have the same name")
            for row in filter(None, reader):
                place = f"{path}, line {reader.line_num}"
                if len(row) != len(header):
                    raise ConfigurationError(f"{place}: {len(row)} cells where the header has {len(header)}")
                yield place, {name: _number(cell, place, name) for name, cell in zip(header, row, strict=True)}
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path} is no CSV file in UTF-8: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None


def _number(cell: str, place: str, name: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise ConfigurationError(f"{place}, column {name!r} is no finite number")
    return number
