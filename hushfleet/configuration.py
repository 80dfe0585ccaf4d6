"""One TOML file to one dataclass of settings; every mistake in it is found at once and named (docs/operations.md).

The dataclass is the whole description: a nested dataclass is a table, a tuple of dataclasses an array of tables, a
field with a default may be left out, and `__post_init__` may raise ConfigurationError for what concerns several fields.
A dataclass whose class attribute `BARE` names one of its fields may be written as that field alone, without a table.
Several dataclasses in one place are told apart by their fields `kind`, each the Literal of another name; if just
one of them has a default there, it is meant where the file has no kind.

    @dataclass(frozen=True)
    class Broker:
        host: str
        port: Annotated[int, Range(1, 65535)] = 8883

    @dataclass(frozen=True)
    class Settings:
        broker: Broker

    settings = load(Path("agent.toml"), Settings)
"""

import math
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hushfleet.errors import ConfigurationError

Settings = TypeVar("Settings")


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest number allowed, both included; None is no bound."""

    smallest: float | None = None
    largest: float | None = None

    def __contains__(self, value: float) -> bool:
        above = self.smallest is None or value >= self.smallest
        return above and (self.largest is None or value <= self.largest)

    def __str__(self) -> str:
        if self.smallest is None and self.largest is None:
            return ""
        if self.largest is None:
            return f" of at least {self.smallest}"
        if self.smallest is None:
            return f" of at most {self.largest}"
        return f" from {self.smallest} to {self.largest}"


@dataclass(frozen=True, slots=True)
class Key:
    """The field's name in the file where Python reserves it."""

    name: str


def load(path: Path, settings: type[Settings]) -> Settings:
    """Read the file at `path` into the dataclass `settings`.

    Fields are str, int, float (finite; whole numbers are taken too), bool, Path (relative ones start at the file's
    directory, `~` is the home), Literal, tuple[X, ...], dict[str, X], dataclasses, a union of dataclasses, and X | None
    for a default of None.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or does not fit; the text lists every problem with the
            file and the key.
    """
    table = _parse(path)
    reader = _Reader(path.parent)
    found = reader.table("", table, settings)
    if reader.problems:
        raise ConfigurationError(_report(path, reader.problems))
    loaded: Settings = found
    return loaded


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remedy for a mistyped word: the closest known one, or else all of them."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else "nothing is known here"


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"there is no file {path}; create it, or name the right one") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None


def _report(path: Path, problems: list[str]) -> str:
    if len(problems) == 1:
        return f"{path}: {problems[0]}"
    return "\n".join([f"{path} has {len(problems)} problems:", *(f"  {problem}" for problem in problems)])


_UNUSABLE = object()
_LARGEST_WHOLE = 2**64


class _Reader:
    """Walks the file along the dataclass and notes every problem; a value with one becomes `_UNUSABLE`."""

    def __init__(self, base: Path) -> None:
        self.problems: list[str] = []
        self._base = base
        self._read: dict[type, Callable[[str, Any, tuple[Any, ...]], Any]] = {
            str: self._text,
            bool: self._switch,
            int: self._whole,
            float: self._real,
            Path: self._path,
        }

    def table(self, where: str, value: Any, settings: type[Any]) -> Any:
        if type(value) is not dict:
            return self._wrong(where, "a table", value)
        hints = get_type_hints(settings, include_extras=True)
        columns = {_key(hints[column.name], column.name): column for column in fields(settings)}
        before = len(self.problems)
        for key in value:
            if key not in columns:
                self.problems.append(f"{_join(where, key)}: unknown key; {did_you_mean(key, columns)}")
        found = {}
        for key, column in columns.items():
            if key in value:
                found[column.name] = self.value(_join(where, key), value[key], hints[column.name])
            elif _required(column):
                self.problems.append(f"{_join(where, key)}: missing; it has no default")
        if len(self.problems) > before:
            return _UNUSABLE
        try:
            return settings(**found)
        except ConfigurationError as error:
            self.problems.append(f"{where}: {error}" if where else str(error))
            return _UNUSABLE

    def value(self, where: str, value: Any, hint: Any, marks: tuple[Any, ...] = ()) -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self.value(where, value, arguments[0], arguments[1:])
        if origin in (Union, UnionType):
            choices = [choice for choice in arguments if choice is not NoneType]
            if len(choices) > 1:
                return self._variant(where, value, choices)
            return self.value(where, value, choices[0], marks)
        if origin is Literal:
            return self._choice(where, value, arguments)
        if origin is tuple:
            return self._array(where, value, arguments[0])
        if origin is dict:
            return self._named(where, value, arguments[1])
        if is_dataclass(hint):
            bare = getattr(hint, "BARE", None)
            table = {bare: value} if bare is not None and type(value) is not dict else value
            return self.table(where, table, hint)  # type: ignore[arg-type]  # a hint is never an instance
        return self._read[hint](where, value, marks)

    def _variant(self, where: str, value: Any, choices: list[type[Any]]) -> Any:
        if type(value) is not dict:
            return self._wrong(where, "a table", value)
        kinds = {get_args(get_type_hints(choice)["kind"])[0]: choice for choice in choices}
        if "kind" not in value:
            meant = [one for one in choices if not any(c.name == "kind" and _required(c) for c in fields(one))]
            if len(meant) == 1:
                return self.table(where, value, meant[0])
            self.problems.append(f"{_join(where, 'kind')}: missing; known: {', '.join(sorted(kinds))}")
            return _UNUSABLE
        kind = self._choice(_join(where, "kind"), value["kind"], tuple(kinds))
        return _UNUSABLE if kind is _UNUSABLE else self.table(where, value, kinds[kind])

    def _array(self, where: str, value: Any, hint: Any) -> Any:
        if type(value) is not list:
            return self._wrong(where, "a list", value)
        return tuple(self.value(f"{where}[{number}]", entry, hint) for number, entry in enumerate(value))

    def _named(self, where: str, value: Any, hint: Any) -> Any:
        if type(value) is not dict:
            return self._wrong(where, "a table", value)
        return {name: self.value(_join(where, name), entry, hint) for name, entry in value.items()}

    def _choice(self, where: str, value: Any, choices: tuple[Any, ...]) -> Any:
        if type(value) is str and value not in choices:
            self.problems.append(f"{where}: {value!r} is unknown; {did_you_mean(value, choices)}")
            return _UNUSABLE
        if value not in choices:
            return self._wrong(where, f"one of {', '.join(map(repr, choices))}", value)
        return value

    def _text(self, where: str, value: Any, marks: tuple[Any, ...]) -> Any:
        return value if type(value) is str else self._wrong(where, "a text in quotes", value)

    def _switch(self, where: str, value: Any, marks: tuple[Any, ...]) -> Any:
        return value if type(value) is bool else self._wrong(where, "true or false", value)

    def _whole(self, where: str, value: Any, marks: tuple[Any, ...]) -> Any:
        allowed = _range(marks)
        if type(value) is not int or abs(value) >= _LARGEST_WHOLE or value not in allowed:
            return self._wrong(where, f"a whole number{allowed}", value)
        return value

    def _real(self, where: str, value: Any, marks: tuple[Any, ...]) -> Any:
        allowed = _range(marks)
        number = float(value) if type(value) is int and abs(value) < _LARGEST_WHOLE else value
        if type(number) is not float or not math.isfinite(number) or number not in allowed:
            return self._wrong(where, f"a number{allowed}", value)
        return number

    def _path(self, where: str, value: Any, marks: tuple[Any, ...]) -> Any:
        if type(value) is not str or not value or "\0" in value:
            return self._wrong(where, "a path in quotes", value)
        try:
            return self._base / Path(value).expanduser()
        except RuntimeError:
            return self._wrong(where, "a path whose home directory exists", value)

    def _wrong(self, where: str, expected: str, value: Any) -> object:
        self.problems.append(f"{where}: expected {expected}, got {_describe(value)}")
        return _UNUSABLE


def _key(hint: Any, attribute: str) -> str:
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((mark.name for mark in marks if isinstance(mark, Key)), attribute)


def _range(marks: tuple[Any, ...]) -> Range:
    return next((mark for mark in marks if isinstance(mark, Range)), Range())


def _required(column: "Field[Any]") -> bool:
    return column.default is MISSING and column.default_factory is MISSING


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _describe(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f"the text {value[:60]!r}"
        case int() if abs(value) >= _LARGEST_WHOLE:
            return "a number of more than 64 bits"
        case int() | float():
            return f"the number {value}"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return f"a {type(value).__name__}"
