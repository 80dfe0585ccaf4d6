"""A device that comes when the others have trained already."""

from signed_fleet import make_fleet
from witness import Witness
from world import World

from coordinator.planning import RoundSettings


def test_a_device_that_joins_an_idle_fleet_gets_its_model_and_refuses_nothing() -> None:
    """Results reach it before the documents with which to judge them, and no plan comes any more."""
    world = World(make_fleet(4, 4), rounds=RoundSettings(collect=30, answer=8, recover=20, total=3))
    world.crash(8)
    world.run(world.rounds_ended(3))
    world.run_for(60)
    world.start(8)
    world.run_for(60)
    assert world.device(8).live.version == 3
    assert not [why for why in world.why(8) if "result" in why or "signed" in why]
    Witness(world).check()
