"""Sharing: any t shares give the secret, fewer give nothing, a wrong one is seen."""

from itertools import combinations

import pytest
import second_writing as book
from golden_fleet import fixed
from hypothesis import given, settings
from hypothesis import strategies as st

from hushfleet.errors import RefusedError
from hushfleet.secagg import group, sharing

scalars = st.integers(1, group.ORDER - 1)


@st.composite
def polynomials(draw: st.DrawFn) -> tuple[list[int], int]:
    """Coefficients a_0 … a_{t−1}, and how many members hold shares."""
    coefficients = draw(st.lists(scalars, min_size=1, max_size=5))
    return coefficients, draw(st.integers(len(coefficients), 9))


def of(coefficients: list[int]) -> list[bytes]:
    return [group.scalar(coefficient) for coefficient in coefficients]


def number(scalar: bytes) -> int:
    return int.from_bytes(scalar, "little")


@settings(max_examples=40)
@given(polynomial=polynomials())
def test_shares_are_those_of_the_book(polynomial: tuple[list[int], int]) -> None:
    coefficients, members = polynomial
    for position in range(1, members + 1):
        assert number(sharing.evaluate(of(coefficients), position)) == book.share(coefficients, position)


@settings(max_examples=25)
@given(polynomial=polynomials())
def test_any_t_shares_give_the_secret(polynomial: tuple[list[int], int]) -> None:
    coefficients, members = polynomial
    shares = [(x, sharing.evaluate(of(coefficients), x)) for x in range(1, members + 1)]
    for chosen in combinations(shares, len(coefficients)):
        assert number(sharing.interpolate(chosen)) == coefficients[0]
        assert book.secret([(x, number(share)) for x, share in chosen]) == coefficients[0]
    assert number(sharing.interpolate(shares)) == coefficients[0]


@settings(max_examples=25)
@given(polynomial=polynomials(), other_secret=scalars, data=st.data())
def test_fewer_shares_fit_every_secret(
    polynomial: tuple[list[int], int], other_secret: int, data: st.DataObject
) -> None:
    """For t − 1 shares and any other secret there is a share of the t-th member that leads just there."""
    coefficients, members = polynomial
    positions = data.draw(st.permutations(range(1, members + 1)))
    known = [(x, sharing.evaluate(of(coefficients), x)) for x in positions[: len(coefficients) - 1]]
    last = positions[len(coefficients) - 1]
    # The share at `last` is linear in the secret: two secrets tell the line.
    at_zero = book.secret([(x, number(share)) for x, share in [*known, (last, group.scalar(0))]])
    slope = book.secret([(x, number(share)) for x, share in [*known, (last, group.scalar(1))]]) - at_zero
    invented = (other_secret - at_zero) * pow(slope, -1, group.ORDER)
    assert number(sharing.interpolate([*known, (last, group.scalar(invented))])) == other_secret


@settings(max_examples=40)
@given(secret=scalars, rest=st.lists(scalars, min_size=1, max_size=4), members=st.integers(2, 32))
def test_no_share_is_the_secret(secret: int, rest: list[int], members: int) -> None:
    """Evaluation points start at 1; at 0 stands the secret itself."""
    coefficients = of([secret, *rest])
    assert sharing.evaluate(coefficients, 0) == coefficients[0]
    assert coefficients[0] not in [sharing.evaluate(coefficients, position) for position in range(1, members + 1)]


COEFFICIENTS = of([11, 22, 33])
COMMITMENTS = sharing.commit(COEFFICIENTS)


def test_commitments_are_the_coefficients_times_the_base() -> None:
    assert [book.point_bytes(book.multiply(a, book.BASE)) for a in (11, 22, 33)] == COMMITMENTS


@settings(max_examples=10)
@given(polynomial=polynomials())
def test_a_right_share_passes_its_commitments(polynomial: tuple[list[int], int]) -> None:
    coefficients, members = polynomial
    for position in (1, members):
        sharing.check_share(sharing.evaluate(of(coefficients), position), position, sharing.commit(of(coefficients)))


@pytest.mark.parametrize("bit", [0, 1, 7, 100, 200, 247])
def test_a_changed_share_is_refused(bit: int) -> None:
    share = sharing.evaluate(COEFFICIENTS, 4)
    sharing.check_share(share, 4, COMMITMENTS)
    changed = (number(share) ^ 1 << bit).to_bytes(32, "little")
    with pytest.raises(RefusedError, match="does not match its commitments"):
        sharing.check_share(changed, 4, COMMITMENTS)


def test_a_share_of_another_place_or_polynomial_is_refused() -> None:
    share = sharing.evaluate(COEFFICIENTS, 4)
    for position, commitments in [
        (3, COMMITMENTS),
        (5, COMMITMENTS),
        (4, COMMITMENTS[::-1]),
        (4, COMMITMENTS[:2]),
        (4, sharing.commit(of([11, 22, 34]))),
        (4, [b"\1" + bytes(31), *COMMITMENTS[1:]]),
        (4, [bytes(32), *COMMITMENTS[1:]]),
        (4, [b"", *COMMITMENTS[1:]]),
    ]:
        with pytest.raises(RefusedError):
            sharing.check_share(share, position, commitments)
    with pytest.raises(RefusedError):
        sharing.check_share(bytes(32), 4, COMMITMENTS)


def weights(count: int) -> list[int]:
    draw = fixed("weights")
    return [int.from_bytes(draw(16), "little") for _ in range(count)]


def test_one_wrong_share_among_many_is_refused() -> None:
    polynomials = [of([3 * k + 1, 5 * k + 2]) for k in range(8)]
    shares = [sharing.evaluate(polynomial, 2) for polynomial in polynomials]
    commitments = [sharing.commit(polynomial) for polynomial in polynomials]
    sharing.check_shares(shares, 2, commitments, weights(8))
    for k in range(8):
        wrong = [*shares[:k], group.scalar_add(shares[k], group.scalar(1)), *shares[k + 1 :]]
        with pytest.raises(RefusedError):
            sharing.check_shares(wrong, 2, commitments, weights(8))
    with pytest.raises(RefusedError):
        sharing.check_shares([shares[1], shares[0], *shares[2:]], 2, commitments, weights(8))


def test_wrong_shares_that_cancel_pass_equal_weights_and_no_others() -> None:
    """Why the combination is random: errors of +1 and -1 are nothing to one who adds up."""
    polynomials = [of([1, 2]), of([3, 4])]
    commitments = [sharing.commit(polynomial) for polynomial in polynomials]
    wrong = [
        group.scalar_add(sharing.evaluate(polynomials[0], 1), group.scalar(1)),
        group.scalar_add(sharing.evaluate(polynomials[1], 1), group.scalar(-1)),
    ]
    sharing.check_shares(wrong, 1, commitments, [1, 1])
    with pytest.raises(RefusedError):
        sharing.check_shares(wrong, 1, commitments, weights(2))


def test_as_many_shares_as_polynomials() -> None:
    """A dealer's key with another number of commitments is refused, not an error that nobody expects."""
    share = sharing.evaluate(COEFFICIENTS, 1)
    for shares, commitments, factors in [
        ([share], [COMMITMENTS, COMMITMENTS], [1]),
        ([share, share], [COMMITMENTS], [1, 1]),
        ([share], [COMMITMENTS], []),
        ([share], [], [1]),
    ]:
        with pytest.raises(RefusedError):
            sharing.check_shares(shares, 1, commitments, factors)


@pytest.mark.parametrize("positions", [[], [0, 1], [1, 1], [2, 3, 2], [-1, 2]])
def test_shares_stand_at_distinct_positions_from_1(positions: list[int]) -> None:
    with pytest.raises(RefusedError, match="distinct positions from 1"):
        sharing.interpolate([(position, group.scalar(5)) for position in positions])
