"""Clocks that are wrong by years, and are set right again while a fleet is under way."""

import pytest
from signed_fleet import YEAR
from world import RoundSettings, World, make_fleet

ROUNDS = RoundSettings(collect=20, answer=6, recover=14, pause=5.0)


def world() -> World:
    return World(make_fleet(3, 3), rounds=ROUNDS)


def applied(world: World) -> int:
    return sum(outcome["outcome"] == "applied" for outcome in world.outcomes())


def goes_on(world: World) -> None:
    """Two more rounds are applied within a quarter of an hour."""
    before = applied(world)
    world.run(lambda world: applied(world) > before + 1, deadline=900.0)


@pytest.mark.parametrize("ahead", [3600.0, YEAR / 2, 5.0 * YEAR])
def test_rounds_go_on_when_the_coordinator_s_clock_is_set_back(ahead: float) -> None:
    """In a pause, in a round and in a set-up: whatever waits for a time that will not come for years is given up."""
    for after in (1.0, 12.0, 40.0, 60.0):
        fleet = world()
        fleet.set_clock(0, ahead)
        fleet.run_for(after)
        fleet.set_clock(0, 0.0)
        goes_on(fleet)


def test_a_round_of_a_day_that_has_not_come_is_aborted() -> None:
    fleet = world()
    fleet.run(fleet.rounds_ended(1))
    fleet.set_clock(0, 86_400.0)
    fleet.run(fleet.noted(0, "plan", 2))
    fleet.set_clock(0, 0.0)
    goes_on(fleet)
    assert [outcome["outcome"] for outcome in fleet.outcomes()[:3]] == ["applied", "aborted", "applied"]


def test_a_pause_that_a_clock_ahead_began_does_not_last_for_years() -> None:
    fleet = world()
    fleet.run(fleet.rounds_ended(1))
    fleet.set_clock(0, YEAR / 2)
    fleet.crash(2, keep_session=True)
    # Without member 2 the set-up fails again and again, each pause by the clock that is ahead.
    fleet.run(lambda world: world.counts[0, "setup-failed"] > 1, deadline=3600.0)
    fleet.set_clock(0, 0.0)
    fleet.start(2)
    goes_on(fleet)


@pytest.mark.parametrize("ahead", [-20.0 * YEAR, 20.0 * YEAR])
def test_a_device_whose_clock_was_wrong_takes_part_again(ahead: float) -> None:
    fleet = world()
    fleet.set_clock(4, ahead)
    fleet.run(fleet.rounds_ended(3))
    fleet.set_clock(4, 0.0)
    fleet.run(fleet.noted(4, "accepted"), deadline=900.0)
