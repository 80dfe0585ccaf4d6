"""Epochs follow each other without a pause: the next committee is set up while the current one serves (section 3)."""

import pytest
from world import RoundSettings, World, make_fleet

from edge_agent.sheets import Sheets
from hushfleet.actions import Save
from hushfleet.mqtt.topics import Topics
from hushfleet.scratch import ScratchStore
from hushfleet.wire.committee import Call
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import Plan


def times(world: World, event: str) -> list[float]:
    """When the coordinator said something, in order."""
    return [time for time, index, note in world.notes if index == 0 and note.event == event]


def plans(world: World) -> list[Plan]:
    """Every plan, in order."""
    topics = Topics(world.keys.fleet)
    sent = [read(Frame.from_bytes(sent.payload), Plan) for sent in world.broker.log if sent.topic == topics.plan()]
    return [plan for _, plan in sorted({plan.round: plan for plan in sent}.items())]


@pytest.mark.parametrize("rounds", [4, 8, 16])
def test_the_next_committee_is_called_when_a_quarter_of_the_rounds_is_left(rounds: int) -> None:
    world = World(make_fleet(3, 4, epoch_rounds=rounds), rounds=RoundSettings(collect=60, pause=30, total=2 * rounds))
    world.run(world.rounds_ended(2 * rounds))
    ended, called, ready = times(world, "round"), times(world, "call"), times(world, "epoch-ready")
    opened = {plan.round: plan.opens for plan in plans(world)}
    # While the round is under way after which a quarter is left.
    last_before = rounds - rounds // 4
    assert opened[last_before] <= called[1] < ended[last_before - 1]
    assert ready[1] < ended[rounds - 1]
    assert [plan.epoch for plan in plans(world)] == [1] * rounds + [2] * rounds
    pauses = [plan.opens - end for plan, end in zip(plans(world)[1:], ended, strict=False)]
    assert max(pauses) <= 31


def test_the_next_committee_is_called_when_a_quarter_of_the_time_is_left() -> None:
    """Few rounds in an epoch of many: its time runs out first."""
    age, pause = 8_000, 500
    fleet = make_fleet(3, 4, epoch_rounds=30, epoch_age=age)
    world = World(fleet, rounds=RoundSettings(collect=60, pause=pause, total=18))
    world.run(world.rounds_ended(18), deadline=20_000)
    first, second, *_ = times(world, "call")
    left = first + age - 300 - second
    assert age / 4 - 10 <= left <= age / 4
    ended = times(world, "round")
    assert {plan.epoch for plan in plans(world)} == {1, 2}
    pauses = [plan.opens - end for plan, end in zip(plans(world)[1:], ended, strict=False)]
    assert max(pauses) <= pause + 1


def test_a_member_that_gets_ready_late_keeps_nothing_of_a_round_that_is_over() -> None:
    sheets = Sheets(ScratchStore())
    sheets.ended = 33
    call = Call(0, 9, bytes(32), 1, 33, 3, 400, 100, 200, 300)
    kept = sheets.save_rounds(call, [bytes([k]) * 32 for k in range(3)], {})
    assert [action.key for action in kept if isinstance(action, Save)] == [f"sheet/{9:010}/{n:020}" for n in (34, 35)]
