"""A device whose line was cut asks for nothing that it has; one that forgot, or was forgotten, asks for everything."""

from world import RoundSettings, World, make_fleet

from edge_agent.device import Device
from hushfleet.mqtt.topics import Topics

DEVICE = 7


def brought_by_a_new_connection(*, keep_session: bool, restarted: bool) -> list[str]:
    """The kinds of what arrives at a device, in order, while it is connected again between two rounds."""
    world = World(make_fleet(3, 4), rounds=RoundSettings(pause=1000))
    world.run(world.rounds_ended(2))
    world.run_for(30)
    arrived: list[str] = []
    topics, deliver = Topics(world.keys.fleet), world.broker._deliver

    def listening(receiver: int, topic: str, payload: bytes, retained: bool) -> None:
        if receiver == DEVICE:
            arrived.append(topics.parse(topic).kind)
        deliver(receiver, topic, payload, retained)

    world.broker._deliver = listening
    if restarted:
        world.crash(DEVICE, keep_session=keep_session)
        world.start(DEVICE)
    else:
        world.broker.disconnect(DEVICE, keep_session=keep_session)
        world.connect(DEVICE)
    world.run_for(5)
    assert isinstance(world.nodes[DEVICE], Device)
    return arrived


def test_a_cut_brings_nothing_again() -> None:
    assert brought_by_a_new_connection(keep_session=True, restarted=False) == []


def test_a_lost_session_or_a_restart_brings_everything() -> None:
    for keep_session, restarted in ((False, False), (True, True), (False, True)):
        arrived = brought_by_a_new_connection(keep_session=keep_session, restarted=restarted)
        assert {"manifest", "plan", "result"} <= set(arrived)
