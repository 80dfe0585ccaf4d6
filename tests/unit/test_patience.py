"""Waiting longer and longer, at random, and giving up only to a second user of the identity."""

from hushfleet.mqtt.patience import TAKEOVER_SECONDS, TAKEOVERS, Patience


def longest(patience: Patience, lived: float | None = None, delivered: bool = False, closed: bool = False) -> float:
    return patience.after(lived, delivered, closed)


def make() -> Patience:
    """One whose random draws are the upper bound."""
    return Patience(1.0, 300.0, lambda low, high: high if low == 0.0 else -1.0)


def test_failures_double_the_longest_wait_up_to_the_limit() -> None:
    patience = make()
    assert [longest(patience) for _ in range(10)] == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    for _ in range(2000):
        assert longest(patience) == 300


def test_a_good_connection_starts_over_and_a_useless_one_does_not() -> None:
    patience = make()
    longest(patience)
    longest(patience)
    assert longest(patience, lived=0.1) == 8
    assert longest(patience, lived=0.1, delivered=True) == 1
    longest(patience)
    assert longest(patience, lived=11.0) == 1


def test_takeovers_in_a_row_exhaust_it() -> None:
    patience = make()
    for _ in range(TAKEOVERS):
        assert not patience.exhausted
        longest(patience, lived=1.0, delivered=True, closed=True)
    assert patience.exhausted


def test_anything_between_takeovers_starts_the_count_again() -> None:
    patience = make()
    interruptions: list[dict[str, float | bool | None]] = [
        {"lived": None},
        {"lived": 1.0, "closed": False},
        {"lived": TAKEOVER_SECONDS + 1, "closed": True},
    ]
    for interruption in interruptions:
        for _ in range(TAKEOVERS - 1):
            longest(patience, lived=1.0, closed=True)
        longest(patience, **interruption)  # type: ignore[arg-type]
        assert not patience.exhausted
