"""The group: libsodium's arithmetic against plain integers, and every point that must not come in."""

import pytest
import second_writing as book
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings

from hushfleet.errors import MalformedError
from hushfleet.secagg import group
from hushfleet.secagg.masks import MaskContext, mask_sum
from hushfleet.secagg.residues import Vector

scalars = st.integers(1, group.ORDER - 1)


@pytest.fixture(params=["this library", "a library that accepts parts of order two"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """libsodium as it is, and as it was before CVE-2025-69277, whose check and product take P + (0, -1) for a point."""
    if request.param == "this library":
        return str(request.param)
    valid, product = bindings.crypto_core_ed25519_is_valid_point, bindings.crypto_scalarmult_ed25519_noclamp

    def old_valid(point: bytes) -> bool:
        return bool(valid(point)) or bool(valid(_without_part_of_order_two(point)))

    def old_product(factor: bytes, point: bytes) -> bytes:
        if valid(point):
            return bytes(product(factor, point))
        if not old_valid(point):
            raise RuntimeError("not a point")
        return book.point_bytes(book.multiply(int.from_bytes(factor, "little"), book.point_of(point)))

    monkeypatch.setattr(bindings, "crypto_core_ed25519_is_valid_point", old_valid)
    monkeypatch.setattr(bindings, "crypto_scalarmult_ed25519_noclamp", old_product)
    monkeypatch.setattr(
        group, "_library_refuses_small_order_parts", group._library_refuses_small_order_parts.__wrapped__
    )
    return str(request.param)


def _without_part_of_order_two(point: bytes) -> bytes:
    try:
        return book.point_bytes(book.add(book.point_of(point), (0, book.PRIME - 1)))
    except AssertionError:
        return book.OFF_THE_CURVE


def test_the_self_test_knows_an_old_library(library: str) -> None:
    assert group._library_refuses_small_order_parts() == bool(
        not bindings.crypto_core_ed25519_is_valid_point(book.point_bytes(book.add(book.BASE, (0, book.PRIME - 1))))
    )
    if library != "this library":
        assert not group._library_refuses_small_order_parts()


@pytest.mark.parametrize("name", book.BAD_POINTS)
def test_a_bad_point_is_refused_by_any_library(library: str, name: str) -> None:
    with pytest.raises(MalformedError, match="not a valid point"):
        group.check_point(book.BAD_POINTS[name])


@settings(max_examples=15)
@given(factor=scalars)
def test_every_point_of_the_subgroup_is_taken(factor: int) -> None:
    point = book.point_bytes(book.multiply(factor, book.BASE))
    assert group.check_point(point) == point


def test_points_of_the_subgroup_are_taken_by_an_old_library_too(library: str) -> None:
    for factor in (1, 2, 12345, group.ORDER - 1):
        point = book.point_bytes(book.multiply(factor, book.BASE))
        assert group.check_point(point) == point


@settings(max_examples=15)
@given(a=scalars, b=scalars)
def test_arithmetic_is_that_of_the_integers(a: int, b: int) -> None:
    one, other = group.scalar(a), group.scalar(b)
    point = book.point_bytes(book.multiply(a, book.BASE))
    assert group.base_multiply(one) == point
    assert group.multiply(other, point) == book.point_bytes(book.multiply(a * b % group.ORDER, book.BASE))
    assert group.add(point, group.base_multiply(other)) == book.point_bytes(
        book.multiply((a + b) % group.ORDER, book.BASE)
    )
    assert group.scalar_add(one, other) == book.little((a + b) % group.ORDER, 32)
    assert group.scalar_multiply(one, other) == book.little(a * b % group.ORDER, 32)
    assert group.multiply(one, group.base_multiply(other)) == group.multiply(other, group.base_multiply(one))


@given(wide=st.binary(min_size=64, max_size=64))
def test_64_bytes_are_reduced_mod_l(wide: bytes) -> None:
    assert int.from_bytes(group.reduce(wide), "little") == int.from_bytes(wide, "little") % book.ORDER


def test_the_order_is_that_of_the_book() -> None:
    assert group.ORDER == book.ORDER
    assert book.multiply(group.ORDER, book.BASE) == book.IDENTITY


@pytest.mark.parametrize("name", book.BAD_POINTS)
def test_a_product_or_sum_with_no_point_is_malformed(name: str) -> None:
    """Never an error of the library's own, which no role would catch."""
    point = book.BAD_POINTS[name]
    with pytest.raises(MalformedError):
        group.multiply(group.scalar(3), point)
    try:
        group.add(point, book.point_bytes(book.GOOD))
    except MalformedError:
        return
    assert len(point) == 32


def test_nothing_is_multiplied_by_0() -> None:
    with pytest.raises(MalformedError):
        group.base_multiply(group.scalar(0))
    with pytest.raises(MalformedError):
        group.multiply(group.scalar(group.ORDER), book.point_bytes(book.GOOD))


@pytest.mark.parametrize("value", [0, group.ORDER, group.ORDER + 1, 2**255, 2**256 - 1])
def test_scalars_from_the_wire_are_below_l_and_not_0(value: int) -> None:
    with pytest.raises(MalformedError, match="not a valid scalar"):
        group.check_scalar(value.to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_scalar_has_32_bytes(size: int) -> None:
    with pytest.raises(MalformedError, match="not a valid scalar"):
        group.check_scalar(b"\1" + bytes(size - 1) if size else b"")


@pytest.mark.parametrize("value", [1, 2, group.ORDER - 1])
def test_scalars_at_the_edge_are_taken(value: int) -> None:
    assert group.check_scalar(group.scalar(value)) == value.to_bytes(32, "little")


@pytest.mark.parametrize("name", [name for name, point in book.BAD_POINTS.items() if len(point) == 32])
def test_no_member_multiplies_its_secret_with_a_bad_point(library: str, name: str) -> None:
    """An old library's product takes Y + (0, -1), and tells its sender whether the secret is odd."""
    context = MaskContext(bytes(16), bytes(32), 1)
    with pytest.raises(MalformedError):
        mask_sum(Vector.zeros(64, 16, 2), group.scalar(12345), 2, context, [(9, book.BAD_POINTS[name])])
