"""Tables of typed fields, and the signed frame around them (docs/protocol.md, sections 2 and 11.1).

A table is a frozen dataclass whose fields carry their wire type as an annotation. Decoding refuses everything but the
one canonical encoding. The exact bytes received are what is hashed, signed and stored; nothing is ever re-encoded to be
forwarded.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar, get_args, get_origin, get_type_hints

from nacl import bindings
from nacl.exceptions import BadSignatureError

from hushfleet.errors import MalformedError
from hushfleet.hashing import digest
from hushfleet.wire import canonical

LARGEST_FRAME = 61_440
"""Bytes of a frame on a topic without chunks; longer kinds pass a bound of their own."""

LARGEST_TEXT = 64
LARGEST_SIGNER_COUNT = 32


class FieldType(Protocol):
    """How one field looks on the wire."""

    def read(self, value: Any) -> Any:
        """The field's value from decoded msgpack; MalformedError if it has another form."""

    def write(self, value: Any) -> Any:
        """What msgpack is to encode; MalformedError if the value is out of range."""


@dataclass(frozen=True, slots=True)
class Unsigned:
    """An unsigned integer of so many bits, optionally with a largest value of its own."""

    bits: int
    largest: int | None = None

    def read(self, value: Any) -> int:
        top = (1 << self.bits) - 1 if self.largest is None else self.largest
        if type(value) is not int or not 0 <= value <= top:
            raise MalformedError(f"expected an integer from 0 to {top}")
        return value

    write = read


@dataclass(frozen=True, slots=True)
class Binary:
    """Raw bytes: exactly `size` of them, or any multiple of `multiple`."""

    size: int | None = None
    multiple: int = 1

    def read(self, value: Any) -> bytes:
        if type(value) is not bytes:
            raise MalformedError("expected raw bytes")
        if self.size is not None and len(value) != self.size:
            raise MalformedError(f"expected {self.size} bytes, got {len(value)}")
        if len(value) % self.multiple:
            raise MalformedError(f"expected a multiple of {self.multiple} bytes, got {len(value)}")
        return value

    write = read


@dataclass(frozen=True, slots=True)
class Text:
    """ASCII text of at most 64 characters."""

    def read(self, value: Any) -> str:
        if type(value) is not str or len(value) > LARGEST_TEXT or not value.isascii():
            raise MalformedError(f"expected ASCII text of at most {LARGEST_TEXT} characters")
        return value

    write = read


@dataclass(frozen=True, slots=True)
class Real:
    """A finite float64; an integer in its place is refused."""

    def read(self, value: Any) -> float:
        if type(value) is not float or not math.isfinite(value):
            raise MalformedError("expected a finite float64")
        return value

    write = read


@dataclass(frozen=True, slots=True)
class Array:
    """An array of one type."""

    item: FieldType

    def read(self, value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise MalformedError("expected an array")
        return tuple(self.item.read(entry) for entry in value)

    def write(self, value: Any) -> list[Any]:
        if len(value) > canonical.LARGEST_COLLECTION:
            raise MalformedError(f"expected an array of at most {canonical.LARGEST_COLLECTION}")
        return [self.item.write(entry) for entry in value]


@dataclass(frozen=True, slots=True)
class Nested:
    """A map of another table."""

    table: type["Table"]

    def read(self, value: Any) -> "Table":
        return self.table.from_map(value)

    def write(self, value: Any) -> dict[str, Any]:
        return self.table.to_map(value)


@dataclass(frozen=True, slots=True)
class OneOf:
    """A map of one of several tables, told apart by their field `kind`, which holds the table's own name.

    A table may do without that field: the one that is called as the field's type is.
    """

    name: str
    tables: tuple[type["Table"], ...]

    def read(self, value: Any) -> "Table":
        kind = value.get("kind", self.name) if type(value) is dict else None
        table = next((table for table in self.tables if kind == table.KIND), None)
        if table is None:
            kinds = ", ".join(table.KIND for table in self.tables)
            raise MalformedError(f"expected a map whose kind is one of {kinds}")
        return table.from_map(value)

    def write(self, value: Any) -> dict[str, Any]:
        if type(value) not in self.tables:
            raise MalformedError(f"a {type(value).__name__} is no {self.name}")
        return Nested(type(value)).write(value)


@dataclass(frozen=True, slots=True)
class Named:
    """The field's name on the wire where Python reserves it."""

    name: str


U8 = Annotated[int, Unsigned(8)]
U16 = Annotated[int, Unsigned(16)]
U32 = Annotated[int, Unsigned(32)]
U64 = Annotated[int, Unsigned(64)]
Flag = Annotated[int, Unsigned(8, 1)]
F64 = Annotated[float, Real()]
Str = Annotated[str, Text()]
Bytes = Annotated[bytes, Binary()]
B32 = Annotated[bytes, Binary(32)]
B64 = Annotated[bytes, Binary(64)]
B16 = Annotated[bytes, Binary(16)]
ManyB4 = Annotated[bytes, Binary(multiple=4)]
ManyB16 = Annotated[bytes, Binary(multiple=16)]
ManyB32 = Annotated[bytes, Binary(multiple=32)]
Keys = Annotated[tuple[bytes, ...], Array(Binary(32))]
Frames = Annotated[tuple[bytes, ...], Array(Binary())]
Sender = Annotated[int, Unsigned(32), Named("from")]

TableType = TypeVar("TableType", bound="Table")


@dataclass(frozen=True, slots=True)
class Table:
    """A map with exactly these fields. Subclasses are frozen dataclasses; `check` holds their ranges and orders."""

    KIND: ClassVar[str] = ""

    def check(self) -> None:
        """Raise MalformedError if the fields, each well-formed, break the table's own rules."""

    @classmethod
    def from_map(cls, value: Any) -> Self:
        columns = _columns(cls)
        if type(value) is not dict or list(value) != [wire for _, wire, _ in columns]:
            raise MalformedError(f"{cls.KIND or cls.__name__}: expected exactly its own fields, ascending")
        found = {}
        for attribute, wire, kind in columns:
            try:
                found[attribute] = kind.read(value[wire])
            except MalformedError as error:
                raise MalformedError(f"{cls.KIND or cls.__name__}.{wire}: {error}") from None
        table = cls(**found)
        table.check()
        return table

    def to_map(self) -> dict[str, Any]:
        self.check()
        return {wire: kind.write(getattr(self, attribute)) for attribute, wire, kind in _columns(type(self))}

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The table in a frame's body.

        Raises:
            MalformedError: wrong types, fields, ranges, or any encoding but the canonical one.
        """
        return cls.from_map(canonical.decode(body))

    def to_body(self) -> bytes:
        """The canonical bytes of this table."""
        return canonical.encode(self.to_map())


_COLUMNS: dict[type["Table"], list[tuple[str, str, FieldType]]] = {}


def _columns(table: type[Table]) -> list[tuple[str, str, FieldType]]:
    """(attribute, wire name, type) of each field, in the order of the wire: ascending by name."""
    if table in _COLUMNS:
        return _COLUMNS[table]
    hints = get_type_hints(table, include_extras=True)
    columns = []
    for column in fields(table):
        hint = hints[column.name]
        marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        wire = next((mark.name for mark in marks if isinstance(mark, Named)), column.name)
        columns.append((column.name, wire, next(mark for mark in marks if not isinstance(mark, Named))))
    _COLUMNS[table] = sorted(columns, key=lambda column: column[1])
    return _COLUMNS[table]


Signer = int | bytes
"""A roster index, or the 8-byte id of a root, signer or freshness key."""


@dataclass(frozen=True, slots=True)
class Frame:
    """`[type, body, [[signer, signature], …]]`: one document or message as it travels.

    Attributes:
        kind: the type, ASCII.
        body: the table's canonical bytes; they are signed and hashed as they are.
        signatures: at most 32, ascending by signer, all indices or all key ids, each once.
    """

    kind: str
    body: bytes
    signatures: tuple[tuple[Signer, bytes], ...] = ()

    @classmethod
    def from_bytes(cls, data: bytes, limit: int = LARGEST_FRAME) -> Self:
        """Decode a frame; MalformedError if it is longer than `limit`, not canonical or not of this form."""
        if len(data) > limit:
            raise MalformedError(f"longer than {limit} bytes")
        value = canonical.decode(data)
        if type(value) is not list or len(value) != 3:
            raise MalformedError("a frame is an array of three")
        kind, body, signatures = value
        Text().read(kind)
        Binary().read(body)
        if type(signatures) is not list or len(signatures) > LARGEST_SIGNER_COUNT:
            raise MalformedError(f"a frame has at most {LARGEST_SIGNER_COUNT} signatures")
        frame = cls(kind, body, tuple(_read_signature(entry) for entry in signatures))
        frame._check_order()
        return frame

    def to_bytes(self) -> bytes:
        """The frame's canonical bytes."""
        self._check_order()
        return canonical.encode([self.kind, self.body, [list(entry) for entry in self.signatures]])

    def _check_order(self) -> None:
        signers: list[Any] = [signer for signer, _ in self.signatures]
        if len({type(signer) for signer in signers}) > 1 or signers != sorted(set(signers)):
            raise MalformedError("signers are ascending, each once, and all of one sort")

    def hash(self, fleet: bytes) -> bytes:
        """The 32-byte hash by which every other message names this one; never over signatures."""
        return digest("body", signed_bytes(self.kind, fleet, self.body))

    def signed_by(self, signer: Signer, public_key: bytes, fleet: bytes) -> bool:
        """Whether `signer` is on the frame with a valid signature of `public_key`."""
        return any(
            name == signer and verify(public_key, signed_bytes(self.kind, fleet, self.body), signature)
            for name, signature in self.signatures
        )

    def only_signer(self) -> Signer:
        """The signer of a message, which has exactly one."""
        if len(self.signatures) != 1:
            raise MalformedError(f"{self.kind}: expected exactly one signature")
        return self.signatures[0][0]


def _read_signature(entry: Any) -> tuple[Signer, bytes]:
    if type(entry) is not list or len(entry) != 2:
        raise MalformedError("a signature is [signer, bytes]")
    signer, signature = entry
    if type(signer) is bytes:
        Binary(8).read(signer)
    else:
        Unsigned(32).read(signer)
    return signer, Binary(64).read(signature)


def signed_bytes(kind: str, fleet: bytes, body: bytes) -> bytes:
    """What a signature covers: `"hushfleet." ‖ type ‖ 0x00 ‖ fleet id ‖ body`."""
    return b"hushfleet." + kind.encode("ascii") + b"\0" + fleet + body


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the Ed25519 `signature` (64 bytes) over `message` is of `public_key` (32 bytes)."""
    if len(public_key) != 32 or len(signature) != 64:
        # The binding reads 32 bytes of a key whatever it is given.
        return False
    try:
        bindings.crypto_sign_open(signature + message, public_key)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True


class Identity:
    """An Ed25519 signing key, with the name under which it signs. Its secret shows in no repr."""

    def __init__(self, signer: Signer, seed: bytes) -> None:
        """Make the key pair of a 32-byte seed."""
        self.signer = signer
        self.public_key, self._secret_key = bindings.crypto_sign_seed_keypair(seed)

    def sign(self, kind: str, fleet: bytes, body: bytes) -> bytes:
        """The 64-byte signature over a frame's type, fleet and body."""
        signature: bytes = bindings.crypto_sign(signed_bytes(kind, fleet, body), self._secret_key)[:64]
        return signature

    def frame(self, table: Table, fleet: bytes) -> Frame:
        """`table` as a frame with this one signature."""
        body = table.to_body()
        return Frame(table.KIND, body, ((self.signer, self.sign(table.KIND, fleet, body)),))


def read(frame: Frame, table: type[TableType]) -> TableType:
    """The table in `frame`, which must be of that table's type."""
    if frame.kind != table.KIND:
        raise MalformedError(f"expected a {table.KIND}, got another type")
    return table.from_body(frame.body)


def read_unsigned(frame: Frame, table: type[TableType]) -> TableType:
    """The table in `frame`, which must be of that table's type and carry no signature."""
    if frame.signatures:
        raise MalformedError(f"{frame.kind}: carries no signature of its own")
    return read(frame, table)


KeyOf = Callable[[int], bytes | None]
"""The certified Ed25519 key of a roster index, or None."""


def read_message(frame: Frame, table: type[TableType], fleet: bytes, key_of: KeyOf) -> TableType:
    """A message whose `from` is its only signer, with a valid signature of a certified key.

    Raises:
        MalformedError: wrong form, wrong or missing signer, unknown key, bad signature.
    """
    message = read(frame, table)
    sender = getattr(message, "sender")  # noqa: B009  (tables of messages have it, the base table does not)
    if frame.only_signer() != sender:
        raise MalformedError(f"{frame.kind}: signed by another than its sender")
    public_key = key_of(sender)
    if public_key is None or not frame.signed_by(sender, public_key, fleet):
        raise MalformedError(f"{frame.kind}: not signed by device {sender}")
    return message


def indices(packed: bytes) -> tuple[int, ...]:
    """The u32 little-endian entries of a `b4*` field."""
    return tuple(int.from_bytes(packed[at : at + 4], "little") for at in range(0, len(packed), 4))


def pack_indices(values: tuple[int, ...] | list[int]) -> bytes:
    """The `b4*` field of u32 little-endian entries."""
    return b"".join(value.to_bytes(4, "little") for value in values)


def entries(packed: bytes, size: int) -> tuple[bytes, ...]:
    """The fixed-size entries of a field, in order."""
    return tuple(packed[at : at + size] for at in range(0, len(packed), size))


def check_ascending(values: tuple[Any, ...] | list[Any], what: str) -> None:
    """Raise MalformedError unless `values` are strictly ascending."""
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise MalformedError(f"{what}: not ascending, or one twice")
