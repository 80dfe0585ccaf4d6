"""A data source of one CSV file: a header line, then one row a line (RFC 4180, UTF-8, commas, decimal points).

The file is read as a stream into flat float32 memory, of which there is only so much: of a longer file every second,
every fourth, … row is used. A mistake in it is named by file, line and column, never by the
value that stands there: what a device measured appears in no message.
"""

import csv
import math
import stat
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

from edge_agent.sources.rows import MEMORY, Head, Judge, LocalData, Rows, rows_in
from hushfleet.configuration import Range, did_you_mean
from hushfleet.errors import ConfigurationError
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.schema import CLASSES, Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST_LINE = 2**20
"""Characters in a line at most, so that a file without line ends is not read into memory whole."""

_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127


class _CellError(Exception):
    """What is wrong with one cell and what to do; whoever catches it knows the place."""


@dataclass(frozen=True, slots=True)
class CsvSource:
    """One file and how to read it; the fields are the settings of a device's data source.

    Attributes:
        path: the file.
        label: the column to be learned: classes numbered from 0, or the number to predict.
        features: the columns that go into the model, in this order; None for all others, in the file's order.
        holdout: 0 to 1, the fraction of rows, the last ones, that only score the model and never train it.
        memory: MiB that the features take at most; of a longer file rows are used that are evenly spread over it.
    """

    path: Path
    label: str
    features: tuple[str, ...] | None = None
    holdout: Annotated[float, Range(0, 1)] = 0.0
    memory: Annotated[int, Range(1, 65_536)] = MEMORY

    def read(self, inputs: int, classes: int | None) -> LocalData:
        """The file's rows as they are now.

        Args:
            inputs: features a row.
            classes: how many the model tells apart; None where there is one number to predict.

        Raises:
            ConfigurationError: as `Source.read`.
        """
        with _opened(self.path) as file:
            features, labels = self._parse(file, inputs, classes)
        return _split(features, labels, inputs, classes, self.holdout)

    def check_header(self) -> int:
        """The number of features that the header gives; no row is read.

        Raises:
            ConfigurationError: the file cannot be read, or its header does not name the columns of these settings.
        """
        with _opened(self.path) as file:
            try:
                header = next(csv.reader(_lines(file, self.path), strict=True), [])
            except csv.Error as problem:
                raise ConfigurationError(f"{self.path}, line 1 is not valid CSV: {problem}") from None
        return len(self._wanted([name.strip() for name in header]))

    def _parse(self, file: TextIO, inputs: int, classes: int | None) -> tuple["array[float]", "array[float]"]:
        reader = csv.reader(_lines(file, self.path), strict=True)
        features, labels = array("f"), array("d")
        position, every, most = 0, 1, rows_in(self.memory, inputs)
        try:
            header = [name.strip() for name in next(reader, [])]
            positions, label_position = self._columns(header, inputs)
            for number, row in enumerate(filter(None, reader)):
                self._check_row(row, header, reader.line_num)
                if number % every:
                    continue
                position = label_position
                labels.append(_label(row[position], classes))
                for position in positions:
                    features.append(_number(row[position]))
                if len(labels) > most:
                    features, labels, every = _every_second(features, inputs), _every_second(labels, 1), 2 * every
        except csv.Error as problem:
            raise ConfigurationError(
                f"{self.path}, line {reader.line_num} is not valid CSV: {problem}; look for a quote without its partner"
            ) from None
        except _CellError as problem:
            place = f"line {reader.line_num}, column {header[position]!r}"
            raise ConfigurationError(f"{self.path}, {place} {problem}") from None
        if not labels:
            raise ConfigurationError(f"{self.path} has a header but no rows; fill it before the device takes part")
        return features, labels

    def _check_row(self, row: list[str], header: list[str], line: int) -> None:
        if len(row) != len(header):
            raise ConfigurationError(
                f"{self.path}, line {line} has {len(row)} cells where the header has {len(header)}; "
                "look for a missing or extra comma, or a line that was cut off"
            )

    def _columns(self, header: list[str], inputs: int) -> tuple[list[int], int]:
        """The positions of the features and of the label."""
        wanted = self._wanted(header)
        if len(wanted) != inputs:
            raise ConfigurationError(
                f"{self.path} gives {len(wanted)} features, the model takes {inputs}; "
                + ("list the right ones under features" if len(wanted) > inputs else "add the missing columns")
            )
        return [header.index(name) for name in wanted], header.index(self.label)

    def _wanted(self, header: list[str]) -> tuple[str, ...]:
        """The names of the features, each a column of the header, as the label is."""
        _check_header(header, self.path)
        wanted = self.features
        if wanted is None:
            wanted = tuple(name for name in header if name != self.label)
        for name in (self.label, *wanted):
            if name not in header:
                raise ConfigurationError(f"{self.path} has no column {name!r}; {did_you_mean(name, header)}")
        if self.label in wanted:
            raise ConfigurationError(f"the label column {self.label!r} is also among the features; take it out there")
        if "" in wanted:
            raise ConfigurationError(
                f"{self.path}, line 1: column {header.index('') + 1} has no name; name it, or list the columns to use "
                "under features (pandas writes such a column unless told index=False)"
            )
        return wanted


@dataclass(frozen=True, slots=True)
class CsvRows:
    """The rows of a file, for a model with this head on its last layer: a `Source`."""

    source: CsvSource
    head: Head

    def read(self, model: ModelSpec, schema: Schema | None) -> LocalData:
        """See `Source`; a file's columns are the model's inputs, whatever the schema says."""
        return self.source.read(model.layers[0].inputs, model.layers[-1].outputs if self.head == "softmax" else None)

    def describe(self, schema: Schema, judge: Judge) -> "NDArray[np.float64]":
        """See `Source`; finished rows tell nothing of channels, but how the model does on those kept aside."""
        import numpy as np

        from hushfleet.statistics import describe

        if (self.head == "softmax") != (schema.task == CLASSES):
            right = "softmax" if schema.task == CLASSES else "mean_squared"
            raise ConfigurationError(f'the fleet\'s schema is of the task {schema.task}: set head = "{right}"')
        data = self.source.read(schema.inputs(), schema.outputs() if self.head == "softmax" else None)
        targets = np.concatenate((data.training.y, data.evaluation.y))
        labels = targets if schema.task == CLASSES else np.zeros(0, np.int64)
        silent = len(schema.channels)
        return describe(schema, len(targets), labels, [np.zeros(0)] * silent, [1.0] * silent, judge(data))


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    _check_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"{path} is not a file; name the CSV file itself")


def _unreadable(path: Path, error: OSError) -> ConfigurationError:
    if isinstance(error, FileNotFoundError):
        return ConfigurationError(f"there is no file {path}; create it, or name the right one")
    if isinstance(error, PermissionError):
        return ConfigurationError(f"{path} may not be read by this user; give the agent's user read permission")
    return ConfigurationError(f"cannot read {path}: {error.strerror}; check the path and the disk")


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and line[-1] not in "\r\n":
            raise ConfigurationError(f"{path} has a line of {LONGEST_LINE} characters or more; is it a CSV file?")
        yield line


def _check_header(header: list[str], path: Path) -> None:
    if not any(header):
        raise ConfigurationError(f"{path} does not begin with a header; name the columns in its first line")
    if len(header) == 1 and (separator := next((mark for mark in ";\t|" if mark in header[0]), None)):
        raise ConfigurationError(f"{path} separates columns with {separator!r}; save it with commas")
    if all(_is_number(name) for name in header):
        raise ConfigurationError(f"{path}, line 1 holds numbers; write the names of the columns in a line above it")
    name, count = Counter(filter(None, header)).most_common(1)[0]
    if count > 1:
        raise ConfigurationError(f"{path}, line 1 names {count} columns {name!r}; give each its own name")


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except _CellError:
        return False
    return True


def _number(cell: str) -> float:
    """A finite float32. Raises _CellError with what is wrong and the remedy, without the cell's text."""
    if not cell.strip():
        raise _CellError("is empty; fill it in, or leave the row out")
    try:
        value = float(cell)
    except ValueError:
        hint = "write a decimal point" if "," in cell else "correct it, or leave the column out of features"
        raise _CellError(f"is not a number; {hint}") from None
    if "_" in cell:
        raise _CellError("is not a number; write it without underscores")
    if not math.isfinite(value):
        raise _CellError("is nan or infinite; leave the row out")
    if abs(value) > _LARGEST_FLOAT32:
        raise _CellError("is too large for float32; scale the column down")
    return value


def _label(cell: str, classes: int | None) -> float:
    value = _number(cell)
    if classes is not None:
        if not value.is_integer():
            raise _CellError(f"is not a whole number; number the classes 0 to {classes - 1}")
        if not 0 <= value < classes:
            raise _CellError(f"is outside 0 to {classes - 1}, the model's classes; number them from 0")
    return value


def _every_second(numbers: "array[float]", width: int) -> "array[float]":
    """The first row, the third and so on, of rows of this width."""
    import numpy as np

    kept = np.frombuffer(numbers, numbers.typecode).reshape(-1, width)[::2]
    return array(numbers.typecode, kept.tobytes())


def _split(
    features: "array[float]", labels: "array[float]", inputs: int, classes: int | None, holdout: float
) -> LocalData:
    import numpy as np

    x = np.frombuffer(features, np.float32).reshape(len(labels), inputs)
    numbers = np.frombuffer(labels, np.float64)
    y = numbers.astype(np.float32)[:, None] if classes is None else numbers.astype(np.int64)
    kept = len(x) - math.floor(len(x) * holdout)
    head: Head = "mean_squared" if classes is None else "softmax"
    return LocalData(Rows(x[:kept], y[:kept]), Rows(x[kept:], y[kept:]), head)
