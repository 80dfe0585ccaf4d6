"""The CSV data source: what is read, and every way in which a real file disappoints."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from described_statistics import schema_of
from golden_fleet import documents
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import edge_agent.sources.csv as csv_source
from edge_agent.sources.csv import CsvRows, CsvSource
from edge_agent.work_bench import WorkBench
from hushfleet.errors import ConfigurationError
from hushfleet.statistics import Numbers
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.framing import read
from hushfleet.wire.layers import Dense

Write = Callable[[str | bytes], Path]

GOOD = "a,b,label\n1.5,-2,0\n0,3e-2,2\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(content: str | bytes) -> Path:
        path = tmp_path / "data.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def refusal(source: CsvSource, inputs: int = 2, classes: int | None = 3) -> str:
    with pytest.raises(ConfigurationError) as caught:
        source.read(inputs, classes)
    return str(caught.value)


def test_reads_features_and_classes(write: Write) -> None:
    data = CsvSource(write(GOOD), "label").read(2, 3)
    assert_array_equal(data.training.x, np.array([[1.5, -2], [0, 0.03]], np.float32))
    assert_array_equal(data.training.y, [0, 2])
    assert data.training.x.dtype == np.float32
    assert data.training.y.dtype == np.int64
    assert len(data.evaluation) == 0


def test_features_come_in_the_order_they_are_listed(write: Write) -> None:
    data = CsvSource(write(GOOD), "label", ("b", "a")).read(2, 3)
    assert_array_equal(data.training.x[0], [-2, 1.5])


def test_the_header_alone_tells_which_column_is_missing(write: Write) -> None:
    assert CsvSource(write("a,b,label\nno number,,\n"), "label").check_header() == 2
    with pytest.raises(ConfigurationError, match="no column 'lable'; did you mean 'label'"):
        CsvSource(write(GOOD), "lable").check_header()
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        CsvSource(write(b"\xff\xfe"), "label").check_header()


def test_a_number_to_predict_becomes_one_column(write: Write) -> None:
    data = CsvSource(write("a,y\n1,0.25\n2,-7\n"), "y").read(1, None)
    assert_array_equal(data.training.y, np.array([[0.25], [-7]], np.float32))
    assert data.training.y.dtype == np.float32


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.rstrip("\n"),
        GOOD + "\n\n",
        "a , b,label \n 1.5, -2 ,0\n0,3e-2,2.0\n",
        '"a","b","label"\n"1.5","-2","0"\n"0","0.03","2"\n',
    ],
    ids=["byte order mark", "windows", "no last newline", "blank lines", "spaces, 2.0", "quotes"],
)
def test_the_dialects_of_real_files(write: Write, content: str) -> None:
    data = CsvSource(write(content), "label", ("a", "b")).read(2, 3)
    assert_array_equal(data.training.x, np.array([[1.5, -2], [0, 0.03]], np.float32))
    assert_array_equal(data.training.y, [0, 2])


@pytest.mark.parametrize(("holdout", "trained"), [(0.0, 10), (0.25, 8), (0.5, 5), (0.99, 1), (1.0, 0)])
def test_the_last_rows_are_kept_aside(write: Write, holdout: float, trained: int) -> None:
    path = write("a,label\n" + "".join(f"{row},0\n" for row in range(10)))
    data = CsvSource(path, "label", holdout=holdout).read(1, 1)
    assert_array_equal(data.training.x[:, 0], range(trained))
    assert_array_equal(data.evaluation.x[:, 0], range(trained, 10))
    assert len(data.evaluation.y) == 10 - trained


@pytest.mark.parametrize(
    ("content", "place", "remedy"),
    [
        ("", "does not begin with a header", "name the columns"),
        ("\n" + GOOD, "does not begin with a header", "name the columns"),
        ("a,b,label\n", "no rows", "fill it"),
        ("a,b,lable\n1,2,0\n", "no column 'label'", "did you mean 'lable'?"),
        ("1,2,0\n3,4,1\n", "line 1 holds numbers", "write the names of the columns"),
        ("a;b;label\n1;2;0\n", "separates columns with ';'", "save it with commas"),
        ("a\tb\tlabel\n1\t2\t0\n", "separates columns with '\\t'", "save it with commas"),
        ("a,a,label\n1,2,0\n", "names 2 columns 'a'", "its own name"),
        (",b,label\n1,2,0\n", "column 1 has no name", "index=False"),
        ("a,label\n1,0\n", "gives 1 features, the model takes 2", "add the missing columns"),
        ("a,b,c,label\n1,2,3,0\n", "gives 3 features, the model takes 2", "list the right ones under features"),
        (GOOD + "1,2\n", "line 4 has 2 cells where the header has 3", "comma"),
        (GOOD + "1,2,0,9\n", "line 4 has 4 cells where the header has 3", "comma"),
        (GOOD + "1,,0\n", "line 4, column 'b' is empty", "fill it in"),
        (GOOD + "1,off,0\n", "line 4, column 'b' is not a number", "leave the column out"),
        (GOOD + '"1,5",2,0\n', "line 4, column 'a' is not a number", "write a decimal point"),
        (GOOD + "1_0,2,0\n", "line 4, column 'a' is not a number", "underscores"),
        (GOOD + "nan,2,0\n", "line 4, column 'a' is nan or infinite", "leave the row out"),
        (GOOD + "1,-inf,0\n", "line 4, column 'b' is nan or infinite", "leave the row out"),
        (GOOD + "1,1e39,0\n", "line 4, column 'b' is too large", "scale the column down"),
        (GOOD + "1,2,1.5\n", "line 4, column 'label' is not a whole number", "0 to 2"),
        (GOOD + "1,2,3\n", "line 4, column 'label' is outside 0 to 2", "number them from 0"),
        (GOOD + "1,2,-1\n", "line 4, column 'label' is outside 0 to 2", "number them from 0"),
        (GOOD + '1,"2,0\n', "is not valid CSV", "quote"),
        (GOOD.encode("utf-16"), "is not UTF-8", "save it as CSV in UTF-8"),
        (GOOD.encode() + b"1,\xff,0\n", "is not UTF-8", "save it as CSV in UTF-8"),
        (GOOD + "1,\0,0\n", "line 4", ""),
    ],
)
def test_a_mistake_is_named_by_place_and_remedy(write: Write, content: str | bytes, place: str, remedy: str) -> None:
    path = write(content)
    message = refusal(CsvSource(path, "label"))
    assert message.startswith(str(path))
    assert place in message
    assert remedy in message


def test_line_numbers_are_those_of_an_editor(write: Write) -> None:
    assert "line 6, column 'b'" in refusal(CsvSource(write(GOOD + "\n\n1,x,0\n"), "label"))


def test_no_message_repeats_a_measurement(write: Write) -> None:
    for cell in ("98.6F", "8675309", "98.6e77"):
        assert cell not in refusal(CsvSource(write(GOOD + f"1,2,{cell}\n"), "label"))


def test_a_mistyped_feature_gets_the_closest_column(write: Write) -> None:
    path = write("temperature,humidity,label\n1,2,0\n")
    source = CsvSource(path, "label", ("temprature", "humidity"))
    assert "no column 'temprature'; did you mean 'temperature'?" in refusal(source)


def test_the_label_is_no_feature(write: Write) -> None:
    assert "'label' is also among the features" in refusal(CsvSource(write(GOOD), "label", ("a", "label")))


def test_a_missing_file(tmp_path: Path) -> None:
    assert "there is no file" in refusal(CsvSource(tmp_path / "nowhere.csv", "label"))


@pytest.mark.parametrize("place", ["/dev/zero", "."])
def test_what_is_no_file_is_not_read(tmp_path: Path, place: str) -> None:
    assert "is not a file" in refusal(CsvSource(tmp_path / place, "label"))


def test_a_pipe_without_a_writer_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file" in refusal(CsvSource(tmp_path / "pipe", "label"))


def test_a_file_that_may_not_be_read(write: Write) -> None:
    path = write(GOOD)
    path.chmod(0)
    program = (
        "import sys; from pathlib import Path; from edge_agent.sources.csv import CsvSource\n"
        "try: CsvSource(Path(sys.argv[1]), 'label').read(2, 3)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    if os.geteuid() == 0:  # root may read everything: another user has to try
        program = f"import os; import edge_agent.sources.csv, difflib; os.setgid(65534); os.setuid(65534)\n{program}"
    said = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("ConfigurationError")
    assert "may not be read by this user; give" in said.stdout


def test_a_file_without_line_ends_is_not_read_whole(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_source, "LONGEST_LINE", 64)
    assert "64 characters or more" in refusal(CsvSource(write(GOOD + "1" * 1000), "label"))


def test_memory_is_bounded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_source, "rows_in", lambda memory, inputs: 4)
    for count, kept in ((4, [0, 1, 2, 3]), (5, [0, 2, 4]), (8, [0, 2, 4, 6]), (11, [0, 4, 8])):
        path = write("a,b,label\n" + "".join(f"{row},{-row},{row % 3}\n" for row in range(count)))
        data = CsvSource(path, "label", holdout=0.4).read(2, 3)
        x, y = np.concatenate([data.training.x, data.evaluation.x]), [*data.training.y, *data.evaluation.y]
        assert_array_equal(x, [[row, -row] for row in kept])
        assert y == [row % 3 for row in kept]
        assert len(data.evaluation) == 1
    # What is not used is still held against the header.
    assert "line 11 has 2 cells" in refusal(CsvSource(write("a,b,label\n" + "0,0,0\n" * 9 + "0,0\n"), "label"))


@settings(max_examples=50)
@given(junk=st.binary(max_size=200), begin=st.sampled_from(["", GOOD]))
def test_any_bytes_give_rows_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, junk: bytes, begin: str) -> None:
    path = tmp_path_factory.mktemp("junk") / "data.csv"
    path.write_bytes(begin.encode() + junk)
    try:
        training = CsvSource(path, "label").read(2, 3).training
    except ConfigurationError:
        return
    assert np.isfinite(training.x).all()
    assert len(training.x) == len(training.y)


def test_reading_the_source_module_needs_no_numpy() -> None:
    program = "import sys, edge_agent.sources.csv; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_file_of_rows_tells_nothing_of_channels_but_its_classes_and_how_the_model_does(write: Write) -> None:
    schema = schema_of(1, 2)
    source = CsvRows(CsvSource(write("a,b,label\n" + "0,1,0\n2,0,1\n" * 6), "label", holdout=0.5), "softmax")
    spec = replace(read(documents().documents["model"], ModelSpec), layers=(Dense(2, 2, "none"),))
    flat = np.array([0, 1, 0, 0, 0, 0], np.float32)
    bench = WorkBench(source, "numpy")
    numbers = Numbers.split(schema, source.describe(schema, lambda data: bench.judge(flat, spec, schema, data)))
    assert (numbers.rows.tolist(), numbers.shares.tolist()) == ([0, 1, 0, 0, 0], [0.5, 0.5])
    assert numbers.channels.tolist() == [[0, 1, *[0] * 19]]
    assert numbers.judged.f1() == [1.0, 1.0]
    with pytest.raises(ConfigurationError, match='task forecast: set head = "mean_squared"'):
        source.describe(schema_of(1, 0), lambda _: np.zeros(0))
    number = CsvRows(source.source, "mean_squared")
    with pytest.raises(ConfigurationError, match="the targets are"):
        anomaly = schema_of(1, 0, "anomaly")
        number.describe(anomaly, lambda data: bench.judge(flat, spec, anomaly, data))
