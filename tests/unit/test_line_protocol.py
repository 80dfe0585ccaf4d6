"""InfluxDB's line protocol: the documentation's examples, and every valid line as a second parser reads it."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_protocol_parser import parse_line as second_parser

from edge_agent.sources.line_protocol import Line, parse_line
from hushfleet.errors import MalformedError


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (
            'myMeasurement,tag1=value1,tag2=value2 fieldKey="fieldValue" 1556813561098000000',
            Line(
                "myMeasurement",
                {"tag1": "value1", "tag2": "value2"},
                {"fieldKey": "fieldValue"},
                1556813561098000000,
            ),
        ),
        (
            "m f=1.0,g=1i,h=-12485903i,k=1.2e+78",
            Line("m", {}, {"f": 1.0, "g": 1.0, "h": -12485903.0, "k": 1.2e78}, None),
        ),
        ("m u=12u,b=T,c=FALSE", Line("m", {}, {"u": 12.0, "b": "true", "c": "false"}, None)),
        (r"my\ Measurement fieldKey=1", Line("my Measurement", {}, {"fieldKey": 1.0}, None)),
        (r'm fieldKey="\"string\" within a string"', Line("m", {}, {"fieldKey": '"string" within a string'}, None)),
        (r"m,tag\ Key1=tag\ Value1 fieldKey=1", Line("m", {"tag Key1": "tag Value1"}, {"fieldKey": 1.0}, None)),
        (r'm f="C:\\path"', Line("m", {}, {"f": r"C:\path"}, None)),
        (r"m\=x,t=a\=b f=1", Line(r"m\=x", {"t": "a=b"}, {"f": 1.0}, None)),
        (r'm f="a\b"', Line("m", {}, {"f": r"a\b"}, None)),
        ('m f="a,b c=d" 5', Line("m", {}, {"f": "a,b c=d"}, 5)),
        ("m,tag=🍭 f=1", Line("m", {"tag": "🍭"}, {"f": 1.0}, None)),
        ("# a comment", None),
        ("  \r\n", None),
    ],
)
def test_the_forms_that_the_documentation_shows(line: str, parsed: Line | None) -> None:
    assert parse_line(line) == parsed


NO_LINES = """
m|m |m f|m f=|m f=1 x|m f=1 1 1|m,a f=1|m, f=1|,a=b f=1|m f=abc|m f="a|m f=1,|m f=nan|m f=inf|m f=1e999|m f=0x1|m f=1_0
m f=99999999999999999999i|m f=1i2|m,a=b|=|m f==1|m f=1 99999999999999999999|m f=i|\\
"""


@pytest.mark.parametrize(
    "line", [*NO_LINES.strip().replace("\n", "|").split("|"), "m " + ",".join(f"f{number}=1" for number in range(300))]
)
def test_what_is_no_line_protocol_is_refused(line: str) -> None:
    with pytest.raises(MalformedError):
        parse_line(line)


@given(st.text(alphabet='mf=, "\\1.ieTtrue#\n-', max_size=30) | st.text(max_size=20))
def test_any_text_is_a_line_or_refused(text: str) -> None:
    with suppress(MalformedError):
        parse_line(text)


PLAIN = st.text(
    st.characters(codec="ascii", categories=["L", "N"]) | st.sampled_from("_-.:/🍭é"), min_size=1, max_size=6
)
SPECIAL = st.text(st.sampled_from('ab, ="é'), min_size=1, max_size=6)
NAMES = PLAIN | SPECIAL.map(lambda text: f"x{text}x")
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES = st.one_of(
    NUMBERS.map(lambda number: (repr(number), number)),
    st.integers(-(2**62), 2**62).map(lambda number: (f"{number}i", float(number))),
    st.booleans().map(lambda truth: (str(truth).lower(), str(truth).lower())),
    st.text(st.sampled_from('ab, ="\\é'), max_size=6).map(
        lambda text: ('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"', text)
    ),
)


def written(name: str, special: str = ", =") -> str:
    return "".join(f"\\{sign}" if sign in special else sign for sign in name)


@given(
    NAMES,
    st.dictionaries(NAMES, NAMES, max_size=3),
    st.dictionaries(NAMES, VALUES, min_size=1, max_size=3),
    st.none() | st.integers(0, 2**62),
)
def test_what_is_written_is_read_and_a_second_parser_agrees(
    measurement: str, tags: dict[str, str], fields: dict[str, tuple[str, float | str]], timestamp: int | None
) -> None:
    if measurement.startswith("#"):
        return
    head = ",".join([written(measurement, ", "), *(f"{written(key)}={written(value)}" for key, value in tags.items())])
    line = f"{head} {','.join(f'{written(key)}={text}' for key, (text, _) in fields.items())}"
    if timestamp is not None:
        line += f" {timestamp}"
    expected = {key: value for key, (_, value) in fields.items()}
    assert parse_line(line) == Line(measurement, tags, expected, timestamp)
    second = second_parser(line)
    assert (second["measurement"], second["tags"], second["time"] or None) == (measurement, tags, timestamp or None)
    for key, value in second["fields"].items():
        ours = expected[key]
        if isinstance(value, bool):
            assert ours == str(value).lower()
        elif isinstance(value, str):
            assert ours == value
        else:
            assert isinstance(ours, float)
            assert math.isclose(ours, value, rel_tol=1e-15)
