"""The watch recordings: found by their hash wherever they are, turned into the windows every device reads."""

import statistics
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from edge_agent.sources.csv import CsvSource
from hushfleet.errors import ConfigurationError
from hushfleet_demo import watch_data
from hushfleet_demo.watch_data import RECORDINGS, Person, load_people
from hushfleet_demo.watch_task import CLASSES, FEATURES, TASK

FORGED = b"cos\nsystem\n(S'false'\ntR."


@pytest.fixture(scope="module")
def recordings() -> bytes:
    try:
        return RECORDINGS.read()
    except ConfigurationError as error:
        pytest.skip(f"not run without the recordings: {error}")


@pytest.fixture(scope="module")
def people(recordings: bytes) -> list[Person]:
    return load_people()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no seglearn installed, and an index without packages."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setitem(sys.modules, "seglearn", None)
    (tmp_path / "index").mkdir()
    return tmp_path / "cache" / "hushfleet" / "watch_dataset.npy"


def write_wheel(folder: Path, content: bytes | None) -> None:
    with zipfile.ZipFile(folder / "seglearn-1.2.5-py3-none-any.whl", "w") as wheel:
        wheel.writestr("seglearn-1.2.5.dist-info/METADATA", "Metadata-Version: 2.1\nName: seglearn\nVersion: 1.2.5\n")
        wheel.writestr(
            "seglearn-1.2.5.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("seglearn-1.2.5.dist-info/RECORD", "")
        if content is not None:
            wheel.writestr(RECORDINGS.path, content)


def test_ten_people_with_all_seven_exercises(people: list[Person]) -> None:
    assert [person.number for person in people] == list(range(1, 11))
    assert sum(len(person.labels) for person in people) == 4677
    for person in people:
        assert person.windows.shape == (len(person.labels), FEATURES)
        assert person.windows.dtype == np.float32
        assert sorted(set(person.labels)) == list(range(CLASSES))


def test_each_person_is_standardised_alone(people: list[Person]) -> None:
    for person in people:
        assert_allclose(person.windows.mean(axis=0, dtype=np.float64), 0, atol=1e-5)
        assert_allclose(person.windows.std(axis=0, dtype=np.float64), 1, atol=1e-5)


def test_the_statistics_of_one_window_by_hand() -> None:
    series = np.random.default_rng(0).normal(size=(260, 6))
    rows = watch_data._statistics(series)
    assert rows.shape == (4, 36)  # windows begin at samples 0, 50, 100 and 150; at 200 too few are left
    axis = series[100:200, 4].tolist()
    steps = [abs(after - before) for before, after in pairwise(axis)]
    expected = [
        statistics.fmean(axis),
        statistics.pstdev(axis),
        min(axis),
        max(axis),
        statistics.fmean(steps),
        statistics.median(axis),
    ]
    assert_allclose(rows[2, 4::6], expected, rtol=1e-12)


def test_a_device_reads_back_exactly_what_was_written(people: list[Person], tmp_path: Path) -> None:
    path = tmp_path / "person.csv"
    TASK.write_csv(people[2].rows, path)
    read = CsvSource(path, "label").read(FEATURES, CLASSES).training
    assert_array_equal(read.x, people[2].windows)
    assert_array_equal(read.y, people[2].labels)
    assert path.read_text().splitlines()[0].startswith("f00,f01,")


def test_the_task_fits_the_data() -> None:
    assert TASK.start().size == 2823
    assert TASK.layers[0].inputs == FEATURES
    assert TASK.layers[-1].outputs == CLASSES


def test_no_repr_shows_a_recording(people: list[Person]) -> None:
    assert repr(people[0]) == "Person(number=1)"


def test_fetched_once_then_read_from_the_cache(recordings: bytes, cache: Path, tmp_path: Path) -> None:
    write_wheel(tmp_path / "index", recordings)
    assert RECORDINGS.read() == recordings
    assert cache.read_bytes() == recordings
    assert list(cache.parent.iterdir()) == [cache]
    (tmp_path / "index" / "seglearn-1.2.5-py3-none-any.whl").unlink()
    assert RECORDINGS.read() == recordings


def test_a_damaged_cache_is_fetched_again(recordings: bytes, cache: Path, tmp_path: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(FORGED)
    write_wheel(tmp_path / "index", recordings)
    assert RECORDINGS.read() == recordings
    assert cache.read_bytes() == recordings


def test_an_installed_seglearn_is_used_and_not_imported(
    recordings: bytes, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages" / "seglearn"
    (installed / "data").mkdir(parents=True)
    (installed / "__init__.py").write_text("raise ImportError('seglearn needs scikit-learn')")
    (installed / "data" / "watch_dataset.npy").write_bytes(recordings)
    monkeypatch.delitem(sys.modules, "seglearn")
    monkeypatch.syspath_prepend(installed.parent)
    assert RECORDINGS.read() == recordings
    assert not cache.exists()


def test_offline_says_what_to_do(cache: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_people()
    message = str(caught.value)
    assert "could not be fetched (ERROR: No matching distribution found for seglearn==1.2.5)" in message
    assert "-m pip download --no-deps seglearn==1.2.5" in message
    assert str(cache) in message


def test_a_forged_wheel_is_neither_loaded_nor_kept(cache: Path, tmp_path: Path) -> None:
    write_wheel(tmp_path / "index", FORGED)
    with pytest.raises(ConfigurationError, match=r"is not the file we know .*it was not loaded"):
        load_people()
    assert not cache.exists()


def test_a_wheel_without_the_recordings(cache: Path, tmp_path: Path) -> None:
    write_wheel(tmp_path / "index", None)
    with pytest.raises(ConfigurationError, match=r"holds no seglearn/data/watch_dataset\.npy"):
        load_people()


def test_a_cache_that_cannot_be_written(recordings: bytes, cache: Path, tmp_path: Path) -> None:
    write_wheel(tmp_path / "index", recordings)
    cache.parent.parent.write_text("a file where the cache folder should be")
    with pytest.raises(ConfigurationError, match=r"cannot be kept at .*set XDG_CACHE_HOME"):
        load_people()
