"""Another model spec in the middle of a fleet's life: training starts anew from its version 0, whoever was away."""

import pytest
from signed_fleet import LAYERS, START, FleetKeys, make_fleet, seeded
from world import World

from coordinator.planning import RoundSettings
from hushfleet.mqtt.topics import Topics
from hushfleet.trust import READY

NEW, BACK = 8, 7
"""A device that nobody has seen before the change, and one that restarts just then."""


def with_another_model(keys: FleetKeys) -> FleetKeys:
    """A model of the same shape under another name: nothing but its spec tells the two apart."""
    model = keys.owner.model_spec("another", LAYERS, seeded("another")(32), version=2, issued=START)
    return keys.next_version(2, model=model)


def check_that_everyone_started_anew(world: World) -> None:
    """After versions 1 and 2 of the one model come 1, 2, 3 … of the other, with everyone's upload in each."""
    outcomes = [(outcome["version"], outcome["uploads"]) for outcome in world.outcomes()]
    anew = next(number for number, outcome in enumerate(outcomes) if number >= 2 and outcome[0] == 1)
    assert outcomes[anew:] == [(version, 4) for version in range(1, len(outcomes) - anew + 1)]
    assert len(outcomes) - anew >= 2
    assert {world.device(index).live.version for index in range(1, 9)} == {outcomes[-1][0]}


@pytest.mark.parametrize("restart", [False, True], ids=["reloaded", "restarted"])
def test_everyone_starts_anew(restart: bool) -> None:
    world = World(make_fleet(4, 4), rounds=RoundSettings(collect=30, answer=8, recover=20, total=6))
    world.crash(NEW)
    world.run(world.rounds_ended(2))
    world.keys = with_another_model(world.keys)
    if restart:
        world.crash(0)
        world.start(0)
    else:
        world.conductor.offer(world.keys.signed())
    world.run(lambda world: world.device(BACK).context.trust.pair == (1, 2))
    world.crash(BACK)
    for index in (NEW, BACK):
        world.start(index)
    world.run(world.rounds_ended(6))
    world.run_for(5)
    check_that_everyone_started_anew(world)


def test_a_result_of_the_model_before_that_comes_again_moves_nobody() -> None:
    world = World(make_fleet(4, 4), rounds=RoundSettings(collect=30, answer=8, recover=20, pause=5, total=6))
    world.run(world.rounds_ended(2))
    world.run_for(1)
    world.keys = with_another_model(world.keys)
    world.conductor.offer(world.keys.signed())
    back = world.device(BACK)
    world.run(lambda world: back.context.trust.pair == (1, 2) and back.context.trust.state(world.now) == READY)
    topic = Topics(world.keys.fleet).result(back.seen.round)
    again = next(sent.payload for sent in reversed(world.broker.log) if sent.topic == topic and sent.payload)
    world.deliver(BACK, topic, again, False)
    world.run(world.rounds_ended(6))
    world.run_for(5)
    check_that_everyone_started_anew(world)
