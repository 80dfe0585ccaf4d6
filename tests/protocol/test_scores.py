"""When a device is asked to score the live model: once a version, with the numbers of training as soon as known."""

from typing import Any

import pytest
from witness import Witness
from world import RoundSettings, World, make_fleet

from edge_agent.work import Score


class Watched(World):
    """A world that remembers what its devices were asked to score."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.scores: list[tuple[int, int, bool]] = []
        super().__init__(*arguments, **named)

    def _execute(self, index: int, action: Any) -> None:
        if isinstance(action, Score):
            self.scores.append((index, action.version, action.plan is not None))
        super()._execute(index, action)

    def of_one(self) -> list[tuple[int, bool]]:
        return [(version, planned) for device, version, planned in self.scores if device == 1]


@pytest.mark.parametrize("allowed", [False, True])
def test_an_anomalys_model_is_not_trained_on_where_the_fleet_has_thresholds_for_it(allowed: bool) -> None:
    keys = make_fleet(3, 4, both=1, noiseless_statistics=int(allowed)).with_schema(task="anomaly", classes=())
    world = Watched(keys, rounds=RoundSettings(collect=30, answer=8, recover=30, total=2))
    world.run(world.rounds_ended(2))
    world.run(lambda _: any(version == 2 for version, _ in world.of_one()))
    assert {planned for _, planned in world.of_one()} == {not allowed}


def test_each_version_is_scored_once_and_after_a_restart_with_its_training_as_soon_as_that_is_known() -> None:
    world = Watched(make_fleet(3, 4), rounds=RoundSettings(collect=30, answer=8, recover=30, total=3))
    world.run(world.rounds_ended(2))
    world.run(lambda _: (2, True) in world.of_one())
    assert world.of_one() == [(1, True), (2, True)]
    world.scores.clear()
    world.crash(1, keep_session=False)
    world.start(1)
    world.run(world.rounds_ended(3))
    world.run(lambda _: (3, True) in world.of_one())
    # The retained plan comes after the model that the vault has.
    assert world.of_one() in ([(2, False), (2, True), (3, True)], [(2, True), (3, True)])
    Witness(world).check()
