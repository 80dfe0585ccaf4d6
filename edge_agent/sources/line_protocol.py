"""InfluxDB's line protocol, one line at a time. No I/O, no clock.

Written after InfluxData's documentation, "Line protocol":

    measurement[,tag=value...] field=value[,field=value...] [timestamp]

A backslash takes the meaning from a comma, a space or an equals sign outside of quotes, and from a quote or a backslash
inside of them; before anything else it stands for itself.
"""

import re
from dataclasses import dataclass, field

from edge_agent.sources.payloads import as_number
from hushfleet.errors import MalformedError

MOST_FIELDS = 256
"""Fields, and tags, of one line."""

_NAME = re.compile(r"(?:\\.|[^\\, =])+", re.DOTALL)
_MEASUREMENT = re.compile(r"(?:\\.|[^\\, ])+", re.DOTALL)
_TEXT = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_PLAIN = re.compile(r'[^, "=]+')
_WHOLE = re.compile(r"-?\d{1,19}", re.ASCII)
_TRUE, _FALSE = ("t", "T", "true", "True", "TRUE"), ("f", "F", "false", "False", "FALSE")


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        measurement: its name.
        tags: in the line's order.
        fields: numbers as floats, truth values as `true` and `false`, texts.
        timestamp: a whole number in the unit that the writer uses; None for the time of arrival.
    """

    measurement: str
    tags: dict[str, str]
    fields: dict[str, float | str] = field(repr=False)
    timestamp: int | None


def parse_line(line: str) -> Line | None:
    """What a line says; None for an empty one and a comment.

    Raises:
        MalformedError: it is no line protocol.
    """
    text = line.strip("\r\n ")
    if not text or text.startswith("#"):
        return None
    reader = _Reader(text)
    measurement = reader.name(_MEASUREMENT)
    tags = {}
    while reader.skip(","):
        key = reader.name(_NAME)
        reader.expect("=")
        tags[key] = reader.name(_NAME)
        _check_count(len(tags))
    reader.expect(" ")
    reader.spaces()
    fields = {}
    while True:
        key = reader.name(_NAME)
        reader.expect("=")
        fields[key] = reader.value()
        _check_count(len(fields))
        if not reader.skip(","):
            break
    return Line(measurement, tags, fields, reader.timestamp())


class _Reader:
    """A place in a line."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def skip(self, mark: str) -> bool:
        found = self._text.startswith(mark, self._at)
        self._at += found
        return found

    def expect(self, mark: str) -> None:
        if not self.skip(mark):
            raise MalformedError("a line that is not line protocol")

    def spaces(self) -> None:
        while self.skip(" "):
            pass

    def take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise MalformedError("a line that is not line protocol")
        self._at = found.end()
        return found

    def name(self, pattern: re.Pattern[str]) -> str:
        escaped = r"\\([, ])" if pattern is _MEASUREMENT else r"\\([, =])"
        return re.sub(escaped, r"\1", self.take(pattern)[0])

    def value(self) -> float | str:
        if self._text.startswith('"', self._at):
            return re.sub(r'\\(["\\])', r"\1", self.take(_TEXT)[1])
        word = self.take(_PLAIN)[0]
        if word in _TRUE:
            return "true"
        if word in _FALSE:
            return "false"
        number = float(word[:-1]) if word[-1] in "iu" and _WHOLE.fullmatch(word[:-1]) else as_number(word)
        if number is None:
            raise MalformedError("a line that is not line protocol")
        return number

    def timestamp(self) -> int | None:
        """What stands at the end."""
        if self._at == len(self._text):
            return None
        self.expect(" ")
        self.spaces()
        stamp = int(self.take(_WHOLE)[0])
        if self._at != len(self._text):
            raise MalformedError("a line that is not line protocol")
        return stamp


def _check_count(count: int) -> None:
    if count > MOST_FIELDS:
        raise MalformedError(f"a line of more than {MOST_FIELDS} tags or fields")
