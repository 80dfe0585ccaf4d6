"""An upload that was interrupted goes on at once, and nothing travels twice that the coordinator has."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from world import RoundSettings, World, make_fleet

from coordinator.uploads import RECEIPT_EVERY
from hushfleet.actions import Publish
from hushfleet.mqtt.topics import Topics
from hushfleet.wire.layers import Dense

DEVICE, ARRIVED, CHUNK = 7, 2, 256
"""Who is interrupted, how many of its chunks the broker has by then, and their size in bytes."""
ROUNDS, LAYERS = RoundSettings(collect=60), (Dense(8, 64, "none"),)


@dataclass
class Interruption:
    """A device that is killed in mid-upload and starts again after some seconds.

    Attributes:
        back: when it started again.
        travelled: how often each chunk reached the broker.
    """

    downtime: float
    keep_session: bool
    world: World = field(default_factory=lambda: World(make_fleet(3, 4, layers=LAYERS), rounds=ROUNDS, chunk=CHUNK))
    back: float = 0.0
    travelled: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._topics = Topics(self.world.keys.fleet)
        self.world.tamper = self._tamper

    def _tamper(self, sender: int, publish: Publish) -> Iterable[Publish]:
        at = self._topics.parse(publish.topic)
        if (sender, at.name) != (DEVICE, "upload") or at.chunk == 0:
            return [publish]
        if not self.back and at.chunk > ARRIVED:
            if at.chunk == ARRIVED + 1:
                # Its header has been answered by then, and the answer waits in the session.
                self.world.at(self.world.now, self._die)
            return []
        self.travelled[at.chunk] += 1
        return [publish]

    def _die(self) -> None:
        self.world.crash(DEVICE, keep_session=self.keep_session)
        self.back = self.world.now + self.downtime
        self.world.at(self.back, lambda: self.world.start(DEVICE))


@pytest.mark.parametrize("keep_session", [True, False])
@pytest.mark.parametrize("downtime", [0.1, 0.5, 5.0])
def test_a_restarted_device_goes_on_at_once_and_sends_only_what_is_missing(downtime: float, keep_session: bool) -> None:
    interruption = Interruption(downtime, keep_session)
    world = interruption.world
    world.run(world.noted(DEVICE, "accepted"))
    assert interruption.back
    assert world.now - interruption.back < RECEIPT_EVERY + 0.5
    assert len(interruption.travelled) > ARRIVED + 1
    assert set(interruption.travelled.values()) == {1}


def test_a_question_that_nobody_heard_is_asked_again() -> None:
    """The broker had lost the coordinator's session: the question is gone, though the broker took it."""
    interruption = Interruption(0.1, True)
    world = interruption.world
    world.run(lambda world: bool(interruption.back))
    filters, world.broker.sessions[0].filters = world.broker.sessions[0].filters, set()
    world.run_for(2.0)
    assert not world.counts[DEVICE, "accepted"]
    world.broker.sessions[0].filters = filters
    world.run(world.noted(DEVICE, "accepted"), deadline=11.0)
    assert set(interruption.travelled.values()) == {1}
