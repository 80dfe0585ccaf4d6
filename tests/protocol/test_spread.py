"""Participants of a profile with a spread begin at different moments, and in time."""

from dataclasses import replace
from typing import Any

import pytest
from witness import Witness
from world import RoundSettings, World, make_fleet

from edge_agent.context import Context

SETTINGS = RoundSettings(collect=600, answer=10, recover=30, total=3)


@pytest.mark.parametrize(("spread", "latest"), [(0, 5), (120, 125), (86_400, 305)])
def test_beginnings_are_spread_over_what_the_profile_says_but_half_the_time_at_most(
    monkeypatch: pytest.MonkeyPatch, spread: int, latest: int
) -> None:
    def context(*arguments: Any, **named: Any) -> Any:
        return replace(Context(*arguments, **named), spread=spread)

    monkeypatch.setattr("world.DeviceContext", context)
    world = World(make_fleet(12, 4), rounds=SETTINGS, seed="spread")
    world.run(world.rounds_ended(3), deadline=2000.0)
    assert [outcome["uploads"] for outcome in world.outcomes()] == [12, 12, 12]
    plans = [at for at, who, note in world.notes if (who, note.event) == (0, "plan")]
    begun = [at for at, _, note in world.notes if note.event == "uploading"]
    waits = [min(at - plan for plan in plans if plan <= at) for at in begun]
    assert max(waits) <= latest
    assert spread == 0 or max(waits) - min(waits) > latest / 3
    Witness(world).check()
