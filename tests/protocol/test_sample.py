"""A plan that takes a part of the participants waits for that part alone (section 4)."""

from dataclasses import replace
from itertools import count

import pytest
from witness import Witness
from world import RoundSettings, World, make_fleet

from hushfleet.mqtt.topics import Topics
from hushfleet.plans import picked
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import Plan

SETTINGS = RoundSettings(collect=600, answer=10, recover=30, sample=0.5, total=6)


def plans(world: World) -> dict[int, tuple[Plan, list[int]]]:
    """Every plan by round, with the participants that it takes."""
    topic, fleet = Topics(world.keys.fleet).plan(), world.keys.fleet
    frames = [Frame.from_bytes(sent.payload) for sent in world.broker.log if sent.topic == topic]
    found = {read(frame, Plan).round: frame for frame in frames}
    return {
        number: (
            plan := read(frame, Plan),
            [index for index in world.keys.participants() if picked(frame.hash(fleet), index, plan.sample)],
        )
        for number, frame in found.items()
    }


@pytest.mark.parametrize("enough", [1.0, 0.6])
def test_a_round_ends_when_those_have_uploaded_that_it_takes(enough: float) -> None:
    world = World(make_fleet(10, 4), rounds=replace(SETTINGS, enough=enough), seed="sample")
    world.run(world.rounds_ended(6), deadline=600.0)
    for number, (_, taken) in plans(world).items():
        assert world.outcomes()[number - 1]["uploads"] == len(taken)
        assert 2 <= len(taken) < 10
    Witness(world).check()


def eight_taken() -> tuple[World, Plan, list[int]]:
    """A fleet of ten whose first plan takes eight; which it takes follows from every byte of plan and documents."""
    for seed in count():
        world = World(make_fleet(10, 4), rounds=replace(SETTINGS, enough=0.8, patience=20.0, total=1), seed=seed)
        world.run(world.noted(0, "plan"))
        ((plan, taken),) = plans(world).values()
        if len(taken) == 8:
            return world, plan, taken
    raise AssertionError


def test_enough_is_a_part_of_those_that_the_plan_takes() -> None:
    """Seven of the eight that are taken are enough, of all ten they would not be: the others get their patience."""
    world, plan, taken = eight_taken()
    world.crash(taken[0])
    world.run(world.rounds_ended(1))
    assert world.outcomes()[0]["uploads"] == 7
    assert plan.opens + 20 <= world.now <= plan.opens + 25


def test_one_fewer_than_enough_waits_until_the_plan_closes() -> None:
    world, plan, taken = eight_taken()
    for index in taken[:2]:
        world.crash(index)
    world.run(world.rounds_ended(1))
    assert world.outcomes()[0]["uploads"] == 6
    assert plan.closes <= world.now <= plan.closes + 5


def test_a_plan_that_takes_nobody_waits_until_it_closes() -> None:
    """Else a fleet with a small sample would use up its committee in seconds."""
    world = World(make_fleet(3, 4), rounds=replace(SETTINGS, sample=0.0, enough=0.0, total=1))
    world.run(world.rounds_ended(1))
    ((plan, taken),) = plans(world).values()
    assert (taken, world.outcomes()[0]["outcome"]) == ([], "aborted")
    assert world.now >= plan.closes
