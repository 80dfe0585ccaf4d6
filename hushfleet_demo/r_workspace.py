"""Tables out of an R workspace file (`.rda`): R's serialisation format, versions 2 and 3, as far as tables need it.

The format: R Internals, section 1.8 (Serialization Formats). Numbers are big-endian; every item begins with a word of
flags, whose low byte says what it is. Nothing in it is run.
"""

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hushfleet.errors import ConfigurationError

Table = dict[str, NDArray[Any]]

_COMPRESSIONS: dict[bytes, Callable[[bytes], bytes]] = {
    b"BZh": bz2.decompress,
    b"\x1f\x8b": gzip.decompress,
    b"\xfd7z": lzma.decompress,
}
_HAS_ATTRIBUTES, _HAS_TAG = 1 << 9, 1 << 10


class _Kind(IntEnum):
    """The kinds of items, by R's own numbers."""

    SYMBOL = 1
    PAIRS = 2
    TEXT = 9
    INTEGERS = 13
    REALS = 14
    TEXTS = 16
    LIST = 19
    NULL = 254
    REFERENCE = 255


def read_table(content: bytes, name: str) -> Table:
    """The columns of a table (`data.frame`) of numbers by name: int32[n] or float64[n].

    Args:
        content: of the file.
        name: of the table in the workspace.

    Raises:
        ConfigurationError: the file is no workspace, has no such table, or holds what no table of numbers needs.
    """
    for start, decompress in _COMPRESSIONS.items():
        if content.startswith(start):
            content = decompress(content)
    try:
        reader = _Reader(content)
        columns, attributes = reader.pairs()[name]
        names = attributes["names"][0]
        return {column: values for column, (values, _) in zip(names, columns, strict=True)}
    except (KeyError, TypeError, ValueError, struct.error) as problem:
        raise ConfigurationError(f"this R workspace has no table {name} of numbers") from problem


class _Reader:
    """Reads one item after the other; an item is its value and its attributes by name."""

    def __init__(self, content: bytes) -> None:
        if content[:7] not in (b"RDX2\nX\n", b"RDX3\nX\n"):
            raise ValueError("no workspace")
        self._content, self._at = content, 7
        self._symbols: list[str] = []
        version, _, _ = (self._word() for _ in range(3))
        if version == 3:
            self._bytes(self._word())

    def pairs(self) -> dict[str, Any]:
        """The items of a list of tagged pairs, up to its end."""
        found = {}
        while (flags := self._word()) & 0xFF == _Kind.PAIRS:
            if not flags & _HAS_TAG or flags & _HAS_ATTRIBUTES:
                raise ValueError("a pair without a name, or with attributes")
            name, _ = self._item()
            found[name] = self._item()
        if flags & 0xFF != _Kind.NULL:
            raise ValueError("no list of pairs")
        return found

    def _item(self) -> tuple[Any, dict[str, Any]]:
        flags = self._word()
        kind = _Kind(flags & 0xFF)
        value = self._value(kind, flags)
        # A text's flags tell its encoding, a reference's to what it refers.
        may = kind not in (_Kind.TEXT, _Kind.REFERENCE)
        return value, self.pairs() if may and flags & _HAS_ATTRIBUTES else {}

    def _value(self, kind: _Kind, flags: int) -> Any:
        match kind:
            case _Kind.SYMBOL:
                self._symbols.append(self._item()[0])
                return self._symbols[-1]
            case _Kind.REFERENCE:
                return self._symbols[(flags >> 8) - 1]
            case _Kind.TEXT:
                length = self._word()
                return None if length == -1 else self._bytes(length).decode("utf-8", "replace")
            case _Kind.INTEGERS:
                return np.frombuffer(self._bytes(4 * self._word()), ">i4").astype(np.int32)
            case _Kind.REALS:
                return np.frombuffer(self._bytes(8 * self._word()), ">f8").astype(np.float64)
            case _Kind.TEXTS:
                return [self._item()[0] for _ in range(self._word())]
            case _Kind.LIST:
                return [self._item() for _ in range(self._word())]
            case _Kind.NULL:
                return None
            case _Kind.PAIRS:
                raise ValueError("pairs where a table has none")

    def _word(self) -> int:
        (word,) = struct.unpack(">i", self._bytes(4))
        return int(word)

    def _bytes(self, length: int) -> bytes:
        found = self._content[self._at : self._at + length]
        if length < 0 or len(found) < length:
            raise ValueError("cut off")
        self._at += length
        return found
