"""The runner around a role that fails, and around a clock that is set back."""

from collections.abc import Iterator
from io import StringIO
from itertools import pairwise
from typing import Any

from hushfleet.actions import Publish, Save
from hushfleet.journal import Journal
from hushfleet.mqtt.events import AckToken
from hushfleet.runner import SET_BACK, TICK, Runner
from hushfleet.scratch import ScratchStore

NOW = 1_700_000_000.0


class Link:
    """Keeps what leaves."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self.sent.append(topic)

    def subscribe(self, topic: str, again: bool = True) -> None:
        """Nothing here listens."""

    def unsubscribe(self, topic: str) -> None:
        """Nothing here listens."""

    def ack(self, token: AckToken) -> None:
        """Nothing here waits for it."""


class Role:
    """Says how often it was built, and saves that first."""

    def __init__(self, number: int) -> None:
        self.number = number

    def begin(self) -> list[Any]:
        return [Save("born", bytes([self.number])), Publish(f"born/{self.number}", b"")]

    def on_connected(self, session_present: bool, now: float) -> list[Any]:
        return [Save("connected", bytes([self.number]))]

    def on_wake(self, now: float) -> list[Any]:
        return []

    def say(self, now: float) -> list[Any]:
        return [Publish(f"said/{self.number}", b"")]

    def fail(self) -> list[Any]:
        raise KeyError("nobody foresaw this")


def run(clock: Iterator[float], *events: Any) -> tuple[Link, ScratchStore, str]:
    """What leaves, what is kept and what is written when these events happen one by one."""
    link, store, said, built = Link(), ScratchStore(), StringIO(), iter(range(1, 100))
    time = [NOW]
    runner = Runner(
        lambda: Role(next(built)), store, link, Journal("json", said), lambda action: None, clock=lambda: time[0]
    )
    for event in events:

        def happen(role: Role, now: float, event: Any = event) -> Any:
            return event(role, now)

        runner.post(happen)

    def stop(role: Role, now: float) -> list[Any]:
        runner.stop()
        return []

    runner.post(stop)

    def tick() -> float:
        time[0] = next(clock, time[0])
        return time[0]

    runner._clock = tick
    runner.run(lambda role, now: role.begin())
    return link, store, said.getvalue()


def test_a_role_that_starts_anew_saves_what_it_says() -> None:
    link, store, said = run(iter([NOW] * 20), lambda role, now: role.fail(), lambda role, now: role.say(now))
    assert link.sent == ["born/1", "born/2", "said/2"]
    assert (store.get("born"), store.get("connected")) == (b"\x02", b"\x02")
    assert '"internal-error"' in said


def test_a_clock_that_is_set_back_far_makes_the_role_start_anew() -> None:
    times = iter([NOW, NOW, NOW, NOW - SET_BACK - 1])
    link, store, said = run(times, lambda role, now: role.say(now))
    assert link.sent == ["born/1", "born/2", "said/2"]
    assert store.get("connected") == b"\x02"
    assert '"clock-set-back"' in said


def test_a_clock_that_is_set_back_a_little_does_not() -> None:
    link, _, said = run(iter([NOW, NOW, NOW, NOW - SET_BACK + 1]), lambda role, now: role.say(now))
    assert link.sent == ["born/1", "said/1"]
    assert said == ""


def test_whatever_else_happens_a_role_looks_at_the_clock() -> None:
    """Something of no role's happens every two seconds, and nothing was asked to be woken for."""
    time, looks = [NOW], list[float]()

    class Watching(Role):
        def on_wake(self, now: float) -> list[Any]:
            looks.append(now)
            return []

    runner = Runner(
        lambda: Watching(1), ScratchStore(), Link(), Journal("json", StringIO()), lambda action: None, lambda: time[0]
    )

    def happen(role: Role, now: float) -> list[Any]:
        time[0] += 2.0
        if time[0] < NOW + 100:
            runner.post(happen)
        else:
            runner.stop()
        return []

    runner.post(happen)
    runner.run(lambda role, now: [])
    assert len(looks) >= 100 / TICK - 1
    assert all(later - earlier <= TICK + 2 for earlier, later in pairwise(looks))
