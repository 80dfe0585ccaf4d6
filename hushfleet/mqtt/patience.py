"""How long to wait for the next connection, and when to stop trying. No I/O, no clock."""

from collections.abc import Callable

SETTLED = 10.0
"""Seconds after which a connection counts as good even if nothing was delivered on it."""
TAKEOVER_SECONDS = 30.0
"""A connection that somebody else takes over lives no longer: the other one tries again as fast as we do."""
TAKEOVERS = 5
"""So many connections in a row taken over mean a second user of our identity."""


class Patience:
    """Full jitter, so that a fleet does not come back in step after its broker was restarted.

    Args:
        shortest, longest: seconds; after the n-th failure in a row the wait is uniform in
            [0, min(longest, shortest · 2^n)], after a good connection in [0, shortest].
        uniform: draws uniformly between two numbers.
    """

    def __init__(self, shortest: float, longest: float, uniform: Callable[[float, float], float]) -> None:
        self._shortest = shortest
        self._longest = longest
        self._uniform = uniform
        self._failures = 0
        self._takeovers = 0

    @property
    def exhausted(self) -> bool:
        """Whether our identity is in use elsewhere: no use in going on."""
        return self._takeovers >= TAKEOVERS

    def after(self, lived: float | None, delivered: bool, closed_by_broker: bool) -> float:
        """A connection has ended; the seconds to wait.

        Args:
            lived: seconds since the broker accepted it; None if it never did.
            delivered: whether the broker acknowledged anything.
            closed_by_broker: whether it had accepted us as the owner of an existing session and then closed the
                connection itself, which no failure of the network looks like.
        """
        good = lived is not None and (delivered or lived >= SETTLED)
        self._failures = 0 if good else self._failures + 1
        taken_over = lived is not None and lived < TAKEOVER_SECONDS and closed_by_broker
        self._takeovers = self._takeovers + 1 if taken_over else 0
        return self._uniform(0.0, min(self._longest, self._shortest * 2 ** min(self._failures, 30)))
