"""msgpack in the one form it has here (docs/protocol.md, sections 2 and 11.1).

Written by the library, read by hand: what is not the shortest form, or no type of the protocol's, is refused where it
stands, and nesting and claims of length are bound before anything is allocated. The library's decoder up to 1.0.x
never gives back the arrays and maps that a message leaves open, so that anyone could fill a gateway's memory.
"""

from struct import unpack_from
from typing import Any

import msgpack

from hushfleet.errors import MalformedError

LARGEST_COLLECTION = 1024
"""Entries of an array or map, at most: more than any table needs."""
LARGEST_DEPTH = 8
"""Arrays and maps in one another, at most: a table in an array in a table needs three."""

_LARGE = 1 << 16
"""Bytes whose length takes four."""

_UNSIGNED = {0xCC: (1, 1 << 7), 0xCD: (2, 1 << 8), 0xCE: (4, 1 << 16), 0xCF: (8, 1 << 32)}
_BYTES = {0xC4: (1, 0), 0xC5: (2, 1 << 8), 0xC6: (4, 1 << 16)}
_TEXT = {0xD9: (1, 32)}
_ARRAY, _MAP = {0xDC: (2, 16)}, {0xDE: (2, 16)}
"""By their mark: bytes of the number that follows, and the smallest number that needs this form."""


def encode(value: Any) -> bytes:
    """Shortest integers, float64, str for text, bin for bytes; a map's keys stand in the order they are given in."""
    if isinstance(value, dict) and any(map(_is_large, value.values())):
        return _joined(value)
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _is_large(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) >= _LARGE


def _joined(table: dict[str, Any]) -> bytes:
    """A map with large values, which are copied once; the library copies all twice, and takes a megabyte for it."""
    packer = msgpack.Packer(use_bin_type=True)
    pieces = [packer.pack_map_header(len(table))]
    for name, value in table.items():
        head = packer.pack(name)
        pieces += (
            [head, b"\xc6", len(value).to_bytes(4, "big"), value] if _is_large(value) else [head, packer.pack(value)]
        )
    return b"".join(pieces)


def decode(data: bytes) -> Any:
    """The one value that `encode` would have written as just these bytes, a map's keys ascending.

    Returns:
        int from 0 to 2^64 - 1, float (infinite and NaN too), bytes, ASCII str, list, or dict with str keys.

    Raises:
        MalformedError: anything else.
    """
    value, end = _value(data, 0, LARGEST_DEPTH)
    if end != len(data):
        raise MalformedError("not canonical msgpack: bytes follow the value")
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends."""
    mark = _take(data, at, 1)[0]
    at += 1
    if mark < 0x80:
        return mark, at
    if mark in _UNSIGNED:
        return _number(data, at, *_UNSIGNED[mark])
    if mark == 0xCB:
        _take(data, at, 8)
        return unpack_from(">d", data, at)[0], at + 8
    if mark in _BYTES:
        length, at = _number(data, at, *_BYTES[mark])
        return _take(data, at, length), at + length
    if 0xA0 <= mark < 0xC0 or mark in _TEXT:
        length, at = _number(data, at, *_TEXT[mark]) if mark in _TEXT else (mark - 0xA0, at)
        return _ascii(_take(data, at, length)), at + length
    if 0x90 <= mark < 0xA0 or mark in _ARRAY:
        count, at = _number(data, at, *_ARRAY[mark]) if mark in _ARRAY else (mark - 0x90, at)
        return _array(data, at, count, depth)
    if 0x80 <= mark < 0x90 or mark in _MAP:
        count, at = _number(data, at, *_MAP[mark]) if mark in _MAP else (mark - 0x80, at)
        return _map(data, at, count, depth)
    raise MalformedError(f"not canonical msgpack: nothing here begins with the byte {mark:#x}")


def _array(data: bytes, at: int, count: int, depth: int) -> tuple[list[Any], int]:
    _check(count, depth)
    items = []
    for _ in range(count):
        item, at = _value(data, at, depth - 1)
        items.append(item)
    return items, at


def _map(data: bytes, at: int, count: int, depth: int) -> tuple[dict[str, Any], int]:
    _check(count, depth)
    table: dict[str, Any] = {}
    last = None
    for _ in range(count):
        key, at = _value(data, at, 0)
        if type(key) is not str or (last is not None and key <= last):
            raise MalformedError("not canonical msgpack: a map's keys are text, ascending, each once")
        table[key], at = _value(data, at, depth - 1)
        last = key
    return table, at


def _check(count: int, depth: int) -> None:
    if not depth or count > LARGEST_COLLECTION:
        raise MalformedError(f"more than {LARGEST_COLLECTION} entries, or {LARGEST_DEPTH} in one another")


def _number(data: bytes, at: int, size: int, smallest: int) -> tuple[int, int]:
    number = int.from_bytes(_take(data, at, size), "big")
    if number < smallest:
        raise MalformedError("not canonical msgpack: a longer form than needed")
    return number, at + size


def _ascii(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedError("not canonical msgpack: text is ASCII") from None


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise MalformedError("not canonical msgpack: cut short")
    return data[at : at + size]
