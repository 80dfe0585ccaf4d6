"""Sealed boxes: libsodium opens ours, we open libsodium's, and nothing else opens."""

import pytest
from golden_fleet import fixed
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.public import PrivateKey, SealedBox

from hushfleet.errors import MalformedError
from hushfleet.secagg.sealing import OVERHEAD, check_public, new_key, public_of, seal, unseal

SECRET, PUBLIC = new_key(fixed("receiver"))

_P = 2**255 - 19
SMALL_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    _P - 1,
    _P,
    _P + 1,
]
"""Every encoding of a point of small order on Curve25519 (without its unused bit)."""


@settings(max_examples=40)
@given(plain=st.binary(max_size=500), seed=st.integers(0, 1000))
def test_libsodium_opens_what_we_seal(plain: bytes, seed: int) -> None:
    sealed = seal(plain, PUBLIC, fixed(f"seal {seed}"))
    assert len(sealed) == len(plain) + OVERHEAD
    assert SealedBox(PrivateKey(SECRET)).decrypt(sealed) == plain
    assert unseal(sealed, SECRET) == plain


@settings(max_examples=40)
@given(plain=st.binary(max_size=500))
def test_we_open_what_libsodium_seals(plain: bytes) -> None:
    assert unseal(SealedBox(PrivateKey(SECRET).public_key).encrypt(plain), SECRET) == plain


def test_the_ephemeral_key_is_the_caller_s_randomness() -> None:
    sealed = seal(b"plain", PUBLIC, fixed("ephemeral"))
    assert sealed == seal(b"plain", PUBLIC, fixed("ephemeral"))
    assert sealed[:32] == public_of(fixed("ephemeral")(32))
    assert sealed != seal(b"plain", PUBLIC, fixed("another"))


def test_a_key_pair_is_that_of_libsodium() -> None:
    assert bytes(PrivateKey(SECRET).public_key) == PUBLIC == public_of(SECRET)


def test_no_byte_of_a_box_can_change_or_be_missing() -> None:
    sealed = seal(b"some plain text", PUBLIC, fixed("box"))
    for position in range(len(sealed)):
        for bit in (1, 128):
            changed = bytearray(sealed)
            changed[position] ^= bit
            with pytest.raises(MalformedError, match="does not open"):
                unseal(bytes(changed), SECRET)
    for end in range(len(sealed)):
        with pytest.raises(MalformedError, match="does not open"):
            unseal(sealed[:end], SECRET)
    with pytest.raises(MalformedError, match="does not open"):
        unseal(sealed + b"\0", SECRET)


def test_a_box_opens_for_its_receiver_alone() -> None:
    with pytest.raises(MalformedError, match="does not open"):
        unseal(seal(b"plain", PUBLIC, fixed("box")), fixed("another")(32))


@pytest.mark.parametrize("point", SMALL_ORDER)
@pytest.mark.parametrize("top_bit", [0, 1 << 255])
def test_a_sealing_key_of_small_order_is_refused(point: int, top_bit: int) -> None:
    with pytest.raises(MalformedError, match="small order"):
        check_public((point | top_bit).to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_sealing_key_has_32_bytes(size: int) -> None:
    with pytest.raises(MalformedError):
        check_public(bytes([9] * size))


@given(seed=st.integers(0, 1000))
def test_a_right_sealing_key_is_taken(seed: int) -> None:
    _, public = new_key(fixed(f"key {seed}"))
    assert check_public(public) == public
