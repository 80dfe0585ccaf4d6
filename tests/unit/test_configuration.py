"""Settings files: what is read, and that every mistake is named with its place and remedy."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushfleet.configuration import Key, Range, did_you_mean, load
from hushfleet.errors import ConfigurationError


@dataclass(frozen=True)
class Column:
    kind: Annotated[Literal["number", "label"], Key("type")]
    width: int = 1


@dataclass(frozen=True)
class Broker:
    host: str
    port: Annotated[int, Range(1, 65535)] = 8883
    secure: bool = True

    def __post_init__(self) -> None:
        if self.host == "nowhere":
            raise ConfigurationError("host and port lead nowhere; name a host")


@dataclass(frozen=True)
class Example:
    broker: Broker
    data: Path | None = None
    rate: Annotated[float, Range(0)] = 0.5
    columns: tuple[Column, ...] = ()
    labels: dict[str, int] | None = None


@dataclass(frozen=True)
class Weight:
    grams: Annotated[float, Range(0)]
    scale: str = ""

    BARE: ClassVar[str] = "grams"


@dataclass(frozen=True)
class Parcel:
    weight: Weight


def test_a_table_that_says_so_may_be_written_as_one_bare_value(tmp_path: Path) -> None:
    file = tmp_path / "parcel.toml"
    for text, weight in (("weight = 3", Weight(3)), ('weight = { grams = 3, scale = "B" }', Weight(3, "B"))):
        file.write_text(text)
        assert load(file, Parcel).weight == weight
    file.write_text('weight = "heavy"')
    with pytest.raises(ConfigurationError, match=r"weight\.grams: expected a number .* got the text 'heavy'"):
        load(file, Parcel)


def load_text(folder: Path, text: str) -> Example:
    file = folder / "example.toml"
    file.write_text(text, "utf-8")
    return load(file, Example)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load_text(folder, text)
    return str(refused.value)


def test_every_kind_of_value_is_read_and_defaults_fill_in(tmp_path: Path) -> None:
    text = """
        data = "rows/day.csv"
        rate = 2
        labels = { up = 1, down = 0 }
        columns = [{ type = "number", width = 3 }, { type = "label" }]
        [broker]
        host = "localhost"
        secure = false
    """
    assert load_text(tmp_path, text) == Example(
        broker=Broker("localhost", 8883, False),
        data=tmp_path / "rows/day.csv",
        rate=2.0,
        columns=(Column("number", 3), Column("label")),
        labels={"up": 1, "down": 0},
    )


def test_paths_start_at_the_file_and_absolute_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for written, found in (("../x", tmp_path / "../x"), ("/srv/x", Path("/srv/x")), ("~/x", Path("/home/ada/x"))):
        assert load_text(tmp_path, f"data = '{written}'\n[broker]\nhost = 'h'").data == found


def test_all_problems_are_reported_at_once_with_file_key_and_remedy(tmp_path: Path) -> None:
    text = """
        rate = -1
        colums = 3
        columns = [{ type = "numbr" }, { type = "label", width = "2" }]
        [broker]
        prot = 1
        port = "8883"
    """
    assert refusal(tmp_path, text).splitlines() == [
        f"{tmp_path / 'example.toml'} has 7 problems:",
        "  colums: unknown key; did you mean 'columns'?",
        "  broker.prot: unknown key; did you mean 'port'?",
        "  broker.host: missing; it has no default",
        "  broker.port: expected a whole number from 1 to 65535, got the text '8883'",
        "  rate: expected a number of at least 0, got the number -1",
        "  columns[0].type: 'numbr' is unknown; did you mean 'number'?",
        "  columns[1].width: expected a whole number, got the text '2'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "broker: missing; it has no default"),
        ("broker = 3", "broker: expected a table, got the number 3"),
        ("[broker]\nhost = 5", "broker.host: expected a text in quotes, got the number 5"),
        ("[broker]\nhost = 'h'\nport = 0", "broker.port: expected a whole number from 1 to 65535, got the number 0"),
        ("[broker]\nhost = 'h'\nport = true", "broker.port: expected a whole number from 1 to 65535, got true"),
        ("[broker]\nhost = 'h'\nsecure = 1", "broker.secure: expected true or false, got the number 1"),
        ("[broker]\nhost = 'nowhere'", "broker: host and port lead nowhere; name a host"),
        ("rate = nan\n[broker]\nhost = 'h'", "rate: expected a number of at least 0, got the number nan"),
        ("rate = 1e999\n[broker]\nhost = 'h'", "rate: expected a number of at least 0, got the number inf"),
        (f"rate = 1{'0' * 400}\n[broker]\nhost = 'h'", "rate: expected a number of at least 0, got a number of more"),
        (f"rate = 0x{'f' * 9000}\n[broker]\nhost = 'h'", "rate: expected a number of at least 0, got a number of more"),
        ("data = ''\n[broker]\nhost = 'h'", "data: expected a path in quotes, got the text ''"),
        ("data = '~nobody-here/x'\n[broker]\nhost = 'h'", "data: expected a path whose home directory exists"),
        ("columns = 1\n[broker]\nhost = 'h'", "columns: expected a list, got the number 1"),
        ("labels = []\n[broker]\nhost = 'h'", "labels: expected a table, got a list"),
        ("labels = {a = 1979-05-27}\n[broker]\nhost = 'h'", "labels.a: expected a whole number, got a date"),
        ("[broker]\nhost = 'x'\nhost = 'y'\n", "is not valid TOML: Cannot overwrite a value (at line 3"),
        ("a = [" + "[" * 5000, "is not valid TOML"),
        ("a = 1" + "0" * 5000, "is not valid TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert str(tmp_path / "example.toml") in refusal(tmp_path, text)
    assert said in refusal(tmp_path, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no file .*absent\.toml; create it"):
        load(tmp_path / "absent.toml", Example)
    with pytest.raises(ConfigurationError, match=r"cannot read .*: Is a directory"):
        load(tmp_path, Example)
    (tmp_path / "latin.toml").write_bytes(b"host = '\xe9'")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text; save it as UTF-8"):
        load(tmp_path / "latin.toml", Example)


@given(st.binary(max_size=60) | st.text("[]{}=\"'#.,\n 0123456789ahostbrkep-", max_size=60).map(str.encode))
def test_any_bytes_give_settings_or_a_clear_refusal(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(content)
    with suppress(ConfigurationError):
        load(file, Example)


def test_did_you_mean_lists_what_is_known_if_nothing_is_near() -> None:
    assert did_you_mean("prot", ["host", "port"]) == "did you mean 'port'?"
    assert did_you_mean("zzz", ["port", "host"]) == "known: host, port"
    assert did_you_mean("zzz", []) == "nothing is known here"


@dataclass(frozen=True)
class Circle:
    radius: float
    kind: Literal["circle"] = "circle"


@dataclass(frozen=True)
class Square:
    side: float
    kind: Literal["square"] = "square"


@dataclass(frozen=True)
class Drawing:
    shapes: Annotated[tuple[Circle | Square, ...], Key("shape")] = ()


@dataclass(frozen=True)
class Star:
    points: int
    kind: Literal["star"]


@dataclass(frozen=True)
class Sky:
    shapes: tuple[Star | Circle, ...] = ()


def test_the_one_kind_with_a_default_is_meant_where_none_is_written(tmp_path: Path) -> None:
    file = tmp_path / "sky.toml"
    file.write_text('shapes = [{ radius = 1 }, { kind = "star", points = 5 }]')
    assert load(file, Sky).shapes == (Circle(1.0), Star(5, "star"))
    file.write_text("shapes = [{ points = 5 }]")
    with pytest.raises(ConfigurationError, match=r"shapes\[0\].points: unknown key"):
        load(file, Sky)


def test_dataclasses_in_one_place_are_told_apart_by_their_kind(tmp_path: Path) -> None:
    file = tmp_path / "drawing.toml"
    file.write_text('[[shape]]\nkind = "square"\nside = 2\n[[shape]]\nkind = "circle"\nradius = 1')
    assert load(file, Drawing).shapes == (Square(2.0), Circle(1.0))
    file.write_text('shape = [{ kind = "cirle", radius = 1 }, { side = 2 }, 3, { kind = "square", radius = 1 }]')
    with pytest.raises(ConfigurationError) as caught:
        load(file, Drawing)
    for problem in (
        "shape[0].kind: 'cirle' is unknown; did you mean 'circle'?",
        "shape[1].kind: missing; known: circle, square",
        "shape[2]: expected a table, got the number 3",
        "shape[3].radius: unknown key",
    ):
        assert problem in str(caught.value)
