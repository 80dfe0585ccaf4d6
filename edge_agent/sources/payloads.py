"""Payloads from outside, within bounds: JSON documents, JSON pointers (RFC 6901), times, topics. No I/O, no clock."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any, NoReturn

from hushfleet.errors import ConfigurationError, MalformedError

LARGEST_PAYLOAD = 2**18
"""Bytes of a document, where nothing else is said."""
LONGEST_TEXT = 64
"""Characters of a text that is taken for a value."""
DEEPEST_VALUE = 8
MOST_VALUES = 256
"""Values that are taken out of one document, and how deep they may lie."""

NO_TIME = "a row whose time is neither a number nor a date and time in ISO 8601"

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ESCAPED = re.compile(r"~[01]")
_INDEX = re.compile(r"0|[1-9]\d{0,8}", re.ASCII)


def parse_json(payload: bytes, largest: int = LARGEST_PAYLOAD) -> Any:
    """A JSON document (RFC 8259) of at most so many bytes.

    Raises:
        MalformedError: it is none, it is not UTF-8, too large or nested too deeply, or it holds NaN or Infinity.
    """
    if len(payload) > largest:
        raise MalformedError(f"a payload of more than {largest} bytes")
    try:
        return json.loads(payload.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise MalformedError("a payload that is not UTF-8") from None
    except RecursionError:
        raise MalformedError("a JSON document nested too deeply") from None
    except ValueError:
        raise MalformedError("a payload that is not JSON") from None


def parse(payload: bytes) -> Any:
    """A JSON document, or else the one number or text that the payload is, such as `21.5` or `ON`.

    Raises:
        MalformedError: it is empty, not UTF-8, too large, or what looks like JSON is none.
    """
    start = payload.lstrip()[:1]
    return parse_json(payload) if start in (b"{", b"[", b'"') or payload == b"null" else plain_value(payload)


def values(parts: Iterable[tuple[str, object]]) -> tuple[list[tuple[str, float | str]], list[str]]:
    """The values among parts of a document with their pointers; and why others were dropped."""
    found: list[tuple[str, float | str]] = []
    refused = []
    for pointer, part in parts:
        try:
            value = as_value(part)
        except MalformedError as error:
            refused.append(str(error))
        else:
            if value is not None:
                found.append((pointer, value))
    return found, refused


def as_value(found: object) -> float | str | None:
    """A JSON value as the value of a reading; None for what is none: null, lists, objects.

    A text that writes a number is that number: many devices and tables quote what they measure.

    Raises:
        MalformedError: a number that is not finite as a float, a text that is too long or cannot be printed.
    """
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, int | float):
        try:
            number = float(found)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise MalformedError("a number that is not finite")
        return number
    if isinstance(found, str):
        if len(found) > LONGEST_TEXT or not found.isprintable():
            raise MalformedError("a text that is too long or cannot be printed")
        written = as_number(found)
        return found if written is None else written
    return None


def as_number(text: str) -> float | None:
    """The finite number that a text writes in decimals, with or without an exponent; None if it is none."""
    if len(text) > LONGEST_TEXT or not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def text_of(found: object) -> str | None:
    """A JSON value if it is a text."""
    return found if isinstance(found, str) else None


def number_of(found: object) -> float | None:
    """A JSON value if it is a finite number."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if abs(found) < 1e300 else None


def table_of(found: object) -> dict[str, Any]:
    """A JSON value if it is an object, else an empty one."""
    return found if isinstance(found, dict) else {}


def list_of(found: object) -> list[Any]:
    """A JSON value if it is an array, else an empty one."""
    return found if isinstance(found, list) else []


def texts_of(found: object) -> tuple[str, ...]:
    """Those values of an array that are fit for readings, as readings give them; empty if it is none."""
    return tuple(value for _, value in values(("", part) for part in list_of(found))[0] if isinstance(value, str))


def plain_value(payload: bytes) -> float | str:
    """A payload that is one value, such as `21.5` or `ON`.

    Raises:
        MalformedError: it is empty, not UTF-8, too long, or a number that is not finite.
    """
    if len(payload) > 4 * LONGEST_TEXT:
        raise MalformedError("a text that is too long or cannot be printed")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("a payload that is not UTF-8") from None
    return written_value(text)


def written_value(text: str) -> float | str:
    """The number or the text that somebody has written.

    Raises:
        MalformedError: it is empty, too long, cannot be printed, or a number that is not finite.
    """
    text = text.strip()
    if not text:
        raise MalformedError("an empty payload")
    number = as_number(text)
    if number is not None:
        return number
    if text.lstrip("+-").lower() in ("nan", "inf", "infinity") or _NUMBER.fullmatch(text):
        raise MalformedError("a number that is not finite")
    if len(text) > LONGEST_TEXT or not text.isprintable():
        raise MalformedError("a text that is too long or cannot be printed")
    return text


def leaves(document: object) -> Iterator[tuple[str, object]]:
    """Every number, text and truth value of a JSON document with its pointer, in the document's order.

    Raises:
        MalformedError: values lie too deep, or there are too many of them.
    """
    count = 0
    waiting: list[tuple[str, object, int]] = [("", document, 0)]
    while waiting:
        pointer, found, depth = waiting.pop()
        parts: list[tuple[str, object]]
        if isinstance(found, dict):
            parts = [(escape(key), part) for key, part in found.items()]
        elif isinstance(found, list):
            parts = [(str(number), part) for number, part in enumerate(found)]
        else:
            count += 1
            if count > MOST_VALUES:
                raise MalformedError(f"more than {MOST_VALUES} values in a payload")
            if found is not None:
                yield pointer, found
            continue
        if depth == DEEPEST_VALUE:
            raise MalformedError("a JSON document nested too deeply")
        waiting += [(f"{pointer}/{token}", part, depth + 1) for token, part in reversed(parts)]


def escape(key: str) -> str:
    """A key as one token of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def check_pointer(pointer: str) -> str | None:
    """What is wrong with a JSON pointer; None if nothing is."""
    if pointer and not pointer.startswith("/"):
        return "begin it with /, or leave it empty for the whole payload"
    if "~" in _ESCAPED.sub("", pointer):
        return "write ~ as ~0 and / inside a key as ~1"
    return None


def at(document: object, pointer: str) -> object:
    """What stands at a JSON pointer; None if nothing does."""
    found = document
    for token in pointer.split("/")[1:]:
        if isinstance(found, dict):
            found = found.get(token.replace("~1", "/").replace("~0", "~"))
        elif isinstance(found, list) and _INDEX.fullmatch(token) and int(token) < len(found):
            found = found[int(token)]
        else:
            return None
    return found


def time_zone(name: str) -> tzinfo:
    """The time zone of a name in the IANA's list, such as `Europe/Berlin`.

    Raises:
        ConfigurationError: this device knows none of that name.
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"the time zone {name!r} is not known here; write UTC, or a name such as Europe/Berlin (and install tzdata)"
        ) from None


def moment(found: object, zone: tzinfo | None = None) -> float | None:
    """Seconds since 1970 that a timestamp means; None if it is none.

    Args:
        found: a number of seconds, milli-, micro- or nanoseconds since 1970, told apart by its size; or a date and time
            in ISO 8601.
        zone: of a date and time that names none; None for this device's own.
    """
    if isinstance(found, str):
        number = as_number(found)
        if number is None:
            try:
                read = datetime.fromisoformat(found.strip() if len(found) <= LONGEST_TEXT else "")
                return (read if read.tzinfo or zone is None else read.replace(tzinfo=zone)).timestamp()
            except (ValueError, OverflowError, OSError):
                return None
        found = number
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 1e20:
        return None
    for unit, largest in ((1.0, 1e11), (1e3, 1e14), (1e6, 1e17)):
        if found < largest:
            return found / unit
    return found / 1e9


def matches(topic_filter: str, topic: str) -> bool:
    """Whether an MQTT topic filter covers a topic (MQTT 5.0, section 4.7)."""
    levels, wanted = topic.split("/"), topic_filter.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":
        wanted.pop()
        if len(levels) < len(wanted):
            return False
        levels = levels[: len(wanted)]
    return len(levels) == len(wanted) and all(want in ("+", level) for want, level in zip(wanted, levels, strict=True))


def check_filter(topic_filter: str) -> str | None:
    """What is wrong with an MQTT topic filter; None if nothing is."""
    levels = topic_filter.split("/")
    if not topic_filter or "\0" in topic_filter or len(topic_filter.encode("utf-8", "replace")) > 65_535:
        return "write an MQTT topic"
    if "#" in "".join(levels[:-1]) or any(mark in level and level != mark for level in levels for mark in "+#"):
        return "a wildcard stands for a whole level, and # only for the last ones"
    return None


def _refuse_constant(_: str) -> NoReturn:
    raise MalformedError("a number that is not finite")
