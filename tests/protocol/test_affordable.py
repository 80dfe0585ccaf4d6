"""A device whose day does not pay for an upload says so at once, and nobody waits for it; or it trains less."""

from dataclasses import replace
from typing import Any

import pytest
from witness import Witness
from world import RoundSettings, World, make_fleet

from edge_agent.context import Context
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.round import BATTERY, BUSY, Plan

SETTINGS = RoundSettings(collect=600, answer=10, recover=30, total=2)


def test_what_cannot_be_paid_for_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def unfit(size: int) -> tuple[int, str]:
        asked.append(size)
        return BUSY, "nothing is left"

    def context(*arguments: Any, **named: Any) -> Any:
        made = Context(*arguments, **named)
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


def test_what_can_be_paid_for_in_part_is_trained_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = make_fleet(5, 4)
    poor, poorer = keys.participants()[:2]
    trained: dict[tuple[int, int], int] = {}

    def steps(plan: Plan, model: ModelSpec, members: int, size: int) -> int:
        assert (members, model.parameters(), size > 1000) == (4, plan.coords, True)
        return plan.steps // 4

    def context(*arguments: Any, **named: Any) -> Any:
        made = Context(*arguments, **named)
        refused = BATTERY, "nothing is left"
        hooks: dict[int, Any] = {poor: steps, poorer: lambda *_: refused}
        return replace(made, steps=hooks[made.index]) if made.index in hooks else made

    monkeypatch.setattr("world.DeviceContext", context)
    world = World(keys, rounds=SETTINGS)
    world.training_time = lambda index, plan: trained.setdefault((index, plan.round), plan.steps) * 0.1
    world.run(world.rounds_ended(2), deadline=500.0)
    assert [(outcome["uploads"], outcome["declined"]) for outcome in world.outcomes()] == [(4, 1), (4, 1)]
    assert {index: steps for (index, _), steps in trained.items()} == {
        index: SETTINGS.steps // (4 if index == poor else 1) for index in keys.participants() if index != poorer
    }
    assert world.counts[poor, "shorter"] == 2
    assert world.counts[poorer, "shorter"] == 0
    Witness(world).check()
