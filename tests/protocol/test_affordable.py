"""A device whose daily cap does not pay for an upload says so at once, and nobody waits for it."""

from dataclasses import replace
from typing import Any

import pytest
from witness import Witness
from world import RoundSettings, World, make_fleet

from edge_agent.context import Context
from hushfleet.wire.round import BUSY

SETTINGS = RoundSettings(collect=600, answer=10, recover=30, total=2)


def test_what_cannot_be_paid_for_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def unfit(size: int) -> tuple[int, str]:
        asked.append(size)
        return BUSY, "nothing is left"

    def context(*arguments: Any) -> Any:
        made = Context(*arguments)
        return replace(made, unfit=unfit) if made.index == poor else made

    keys = make_fleet(5, 4)
    poor = keys.participants()[0]
    monkeypatch.setattr("world.DeviceContext", context)
    world = World(keys, rounds=SETTINGS)
    begin = world.now
    world.run(world.rounds_ended(2), deadline=500.0)
    assert [outcome["uploads"] for outcome in world.outcomes()] == [4, 4]
    assert world.now < begin + 500
    assert {size > 1000 for size in asked} == {True}
    Witness(world).check()
