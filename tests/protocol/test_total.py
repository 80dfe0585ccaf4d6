"""`total` counts the rounds of a model, over restarts and however they end; another model is counted anew."""

from dataclasses import replace

import pytest
from signed_fleet import LAYERS, START, seeded
from world import Crash, RoundSettings, World, make_fleet

SETTINGS = RoundSettings(collect=30, answer=8, recover=30, total=3)
RESTED = 300.0


def finishes(world: World) -> list[object]:
    """How often the coordinator said that it is done, by total."""
    return [note.fields["total"] for _, index, note in world.notes if index == 0 and note.event == "all-rounds-run"]


def restart(world: World, total: int = 3) -> None:
    world.crash(0)
    world.rounds = replace(world.rounds, total=total)
    world.start(0)


@pytest.mark.parametrize("after", [1, 2])
def test_a_restart_between_two_rounds_goes_on_counting(after: int) -> None:
    world = World(make_fleet(3, 4), rounds=SETTINGS)
    world.run(world.rounds_ended(after))
    restart(world)
    world.run_for(RESTED)
    assert len(world.outcomes()) == 3
    assert finishes(world) == [3]


def test_a_restart_within_every_event_of_a_round_counts_it_once() -> None:
    world = World(make_fleet(3, 4), rounds=SETTINGS, seed="total")
    events = range(60, 240, 12)
    world.crashes = {(0, event): Crash(event % 3 or None, downtime=1.0) for event in events}
    world.run_for(2 * RESTED)
    assert world.starts[0] > 5
    # A round that a restart ends is told by whichever life ended it.
    assert {outcome["round"] for outcome in world.outcomes()} == {1, 2, 3}


def test_a_start_after_the_last_round_ends_at_once_and_goes_on_if_more_are_asked_for() -> None:
    world = World(make_fleet(3, 4), rounds=SETTINGS)
    world.run(world.rounds_ended(3))
    world.run_for(RESTED)
    restart(world)
    world.run_for(RESTED)
    assert (len(world.outcomes()), finishes(world)) == (3, [3, 3])
    restart(world, total=5)
    world.run_for(RESTED)
    assert (len(world.outcomes()), finishes(world)) == (5, [3, 3, 5])


def test_rounds_that_are_aborted_count() -> None:
    world = World(make_fleet(3, 4, smallest_survivor_set=3), rounds=SETTINGS)
    world.run(world.noted(0, "plan"))
    world.crash(5)
    world.run_for(RESTED)
    assert [outcome["outcome"] for outcome in world.outcomes()] == ["aborted"] * 3
    assert finishes(world) == [3]


def test_another_model_has_rounds_of_its_own() -> None:
    """Also when the coordinator dies after the change: the old model's last result, taken back, holds nothing up."""
    world = World(make_fleet(3, 4), rounds=SETTINGS)
    world.run(world.rounds_ended(3))
    world.run_for(RESTED)
    owner = world.keys.owner
    other = owner.model_spec("other", LAYERS, seeded("other")(32), version=2, issued=START)
    world.crash(0)
    world.keys = world.keys.next_version(2, model=other)
    world.crashes[0, world.events[0] + 1] = Crash(100, downtime=1.0)
    world.start(0)
    world.run_for(RESTED)
    assert len(world.outcomes()) == 6
    assert finishes(world) == [3, 3]
