"""Pure functions that remember their results in a simulated fleet: what eight machines compute alike is done once.

Every role still calls them and judges what they return. Results are kept by the exact bytes of all arguments, and hold
no state that anyone could change. Points are known by their exponents as well: whoever saw x·B made knows y·(x·B) as
(y·x)·B, five times faster, and the same bytes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nacl import bindings

from hushfleet.mqtt.topics import Topics
from hushfleet.secagg.group import ORDER
from hushfleet.wire.framing import LARGEST_FRAME, Frame, Table

Function = Callable[..., Any]


def remembered(function: Function) -> Function:
    """`function`, with its results and errors kept by its arguments."""
    results: dict[Any, Any] = {}
    errors: dict[Any, Exception] = {}

    def call(*arguments: Any) -> Any:
        if arguments in results:
            return results[arguments]
        if arguments in errors:
            raise errors[arguments]
        try:
            result = results[arguments] = function(*arguments)
        except Exception as error:
            errors[arguments] = error
            raise
        return result

    return call


class Points:
    """The group's functions, with the exponent of every multiple of B that was made."""

    def __init__(self) -> None:
        self._made: dict[int, bytes] = {}
        self._exponents: dict[bytes, int] = {}
        self._base = bindings.crypto_scalarmult_ed25519_base_noclamp
        self._multiply = remembered(bindings.crypto_scalarmult_ed25519_noclamp)
        self._valid = remembered(bindings.crypto_core_ed25519_is_valid_point)

    def base(self, factor: bytes) -> bytes:
        """factor·B."""
        exponent = int.from_bytes(factor, "little")
        product = self._made.get(exponent)
        if product is None:
            product = self._base(factor)
            if exponent < ORDER:
                self._made[exponent], self._exponents[product] = product, exponent
        return product

    def multiply(self, factor: bytes, point: bytes) -> bytes:
        """factor·point."""
        exponent, known = int.from_bytes(factor, "little"), self._exponents.get(point)
        if known is None or not 0 < exponent < ORDER:
            product: bytes = self._multiply(factor, point)
            return product
        return self.base((exponent * known % ORDER).to_bytes(32, "little"))

    def valid(self, point: bytes) -> bool:
        """Whether a point is of the group; a multiple of B is, unless it is the identity, which is never made."""
        return point in self._exponents or self._valid(point)


class Signatures:
    """Ed25519 as it is, but that what was signed here need not be verified to be known as valid."""

    def __init__(self) -> None:
        self._signed: set[tuple[bytes, bytes]] = set()
        self._sign, self._open = bindings.crypto_sign, remembered(bindings.crypto_sign_open)

    def sign(self, message: bytes, secret_key: bytes) -> bytes:
        """signature ‖ message."""
        signed: bytes = self._sign(message, secret_key)
        self._signed.add((signed, secret_key[32:]))
        return signed

    def open(self, signed: bytes, public_key: bytes) -> bytes:
        """The message; BadSignatureError if the signature is not one of that key."""
        if (signed, public_key) in self._signed:
            return signed[64:]
        message: bytes = self._open(signed, public_key)
        return message


def _reading_frames() -> Function:
    read = remembered(Frame.from_bytes)

    def from_bytes(cls: type[Frame], data: bytes, limit: int = LARGEST_FRAME) -> Any:
        return read(data, limit)

    return from_bytes


def _reading_tables() -> Function:
    original = Table.from_body.__func__  # type: ignore[attr-defined]
    read = remembered(original)

    def from_body(cls: type[Table], body: bytes) -> Any:
        return read(cls, body)

    return from_body


def _reading_topics() -> Function:
    read = remembered(Topics.parse)

    def parse(self: Topics, topic: str) -> Any:
        return read(self, topic)

    return parse


@contextmanager
def shared_work() -> Iterator[None]:
    """While this lasts, results are kept; before and after, nothing is."""
    points, signatures = Points(), Signatures()
    shared: list[tuple[Any, str, Any]] = [
        (bindings, name, remembered(getattr(bindings, name)))
        for name in (
            "crypto_sign_seed_keypair",
            "crypto_scalarmult",
            "crypto_scalarmult_base",
            "crypto_box_seal_open",
            "randombytes_buf_deterministic",
        )
    ]
    shared += [
        (bindings, "crypto_sign", signatures.sign),
        (bindings, "crypto_sign_open", signatures.open),
        (bindings, "crypto_scalarmult_ed25519_base_noclamp", points.base),
        (bindings, "crypto_scalarmult_ed25519_noclamp", points.multiply),
        (bindings, "crypto_core_ed25519_is_valid_point", points.valid),
        (Frame, "from_bytes", classmethod(_reading_frames())),
        (Table, "from_body", classmethod(_reading_tables())),
        (Topics, "parse", _reading_topics()),
    ]
    before = [(owner, name, owner.__dict__[name]) for owner, name, _ in shared]
    for owner, name, function in shared:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)
