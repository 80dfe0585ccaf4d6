"""A coordinator that comes back: what it retains, under what documents it goes on, what its records still hold."""

from collections.abc import Iterable

from witness import Witness
from world import RoundSettings, World, make_fleet

from hushfleet.actions import RETAINED, Publish
from hushfleet.mqtt.topics import Topics
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import RESTART, Plan, Result

SETTINGS = RoundSettings(collect=30, answer=8, recover=30, total=3)


def result(world: World, number: int) -> Result:
    return read(Frame.from_bytes(world.broker.retained[Topics(world.keys.fleet).result(number)]), Result)


def plan(world: World) -> Plan:
    return read(Frame.from_bytes(world.broker.retained[Topics(world.keys.fleet).plan()]), Plan)


def test_a_round_whose_time_ran_out_without_a_connection_has_its_result_afterwards() -> None:
    """The first thing that happens on the new connection is the end of the round; nothing older covers it."""
    for keep_session in (True, False):
        world = World(make_fleet(3, 4), rounds=SETTINGS)
        world.training_time = lambda index, plan: 100.0
        world.run(world.noted(0, "plan"))
        # Nobody tells the coordinator the time before it is connected again.
        world.now = float(plan(world).closes) + 1
        world.broker.disconnect(0, keep_session=keep_session)
        world.connect(0)
        assert world.outcomes()[0]["outcome"] == "aborted"
        assert result(world, 1).round == 1
        world.training_time = lambda index, plan: 1.0
        world.run(world.rounds_ended(3))
        assert plan(world).round == 3
        Witness(world).check()


def test_a_plan_that_is_due_at_the_new_connection_is_not_covered_by_the_one_before() -> None:
    for keep_session in (True, False):
        world = World(make_fleet(3, 4), rounds=RoundSettings(collect=30, answer=8, recover=30, pause=20.0, total=2))
        world.run(world.rounds_ended(1))
        world.run_for(1)
        world.now += 30
        world.broker.disconnect(0, keep_session=keep_session)
        world.connect(0)
        assert plan(world).round == 2
        world.run(world.rounds_ended(2))
        assert world.outcomes()[1]["outcome"] == "applied"


def test_newer_documents_wait_for_the_round_that_was_open_at_the_restart() -> None:
    world = World(make_fleet(3, 4), rounds=SETTINGS)
    topics = Topics(world.keys.fleet)
    world.run(world.noted(0, "accepted"))
    before = plan(world)
    world.crash(0, keep_session=True)
    world.keys = world.keys.next_version(2, interval=7)
    world.start(0)
    world.run(world.rounds_ended(1))
    assert (world.outcomes()[0]["outcome"], result(world, 1).round) == ("applied", before.round)
    world.run(lambda world: plan(world).round == 2)
    assert plan(world).policy == world.keys.documents["policy"].hash(world.keys.fleet) != before.policy
    assert world.broker.retained[topics.manifest()] == world.keys.manifest.to_bytes()
    world.run(lambda world: len(world.outcomes()) == 3)
    assert [outcome["outcome"] for outcome in world.outcomes()] == ["applied"] * 3
    Witness(world).check()


def test_answers_of_a_round_that_a_restart_aborted_are_not_taken_from_the_next_sum() -> None:
    """The committee's record is lost with the round's answers half in; they must not count in another round."""
    world = World(make_fleet(3, 4), rounds=SETTINGS)
    topics = Topics(world.keys.fleet)
    world.tamper = lambda sender, publish: (
        [] if sender == 4 and topics.parse(publish.topic).name == "masksum" else [publish]
    )
    world.run(lambda world: sum(key.startswith("masksum/") for key in world.records[0].data) == 3)
    world.crash(0, keep_session=True)
    world.tamper = lambda sender, publish: [publish]
    for key in [key for key in world.records[0].data if key.startswith("epoch/")]:
        del world.records[0].data[key]
    world.start(0)
    world.run(world.rounds_ended(1))
    assert (world.outcomes()[0]["outcome"], world.outcomes()[0]["reason"]) == ("aborted", RESTART)
    world.run(world.rounds_ended(3))
    assert [outcome["outcome"] for outcome in world.outcomes()[1:]] == ["applied", "applied"]
    Witness(world).check_sums("restart")


def test_what_was_committed_but_never_sent_leaves_after_the_restart_though_the_session_is_still_there() -> None:
    """One machine after the other dies between the commit of a retained message and the message."""
    world = World(make_fleet(3, 4), rounds=SETTINGS)
    topics = Topics(world.keys.fleet)
    places = {2: "card", 1: "key", 3: "share", 4: "ready", 0: "plan"}
    lost = set(places)

    def tamper(sender: int, publish: Publish) -> Iterable[Publish]:
        withheld = sender in lost and topics.parse(publish.topic).kind == places[sender]
        return [] if withheld else [publish]

    def committed(sender: int) -> bool:
        kept = [key.removeprefix(RETAINED) for key in world.records[sender].data if key.startswith(RETAINED)]
        return any(topics.parse(topic).kind == places[sender] for topic in kept)

    world.tamper = tamper
    for sender in places:
        world.run(lambda world, sender=sender: committed(sender), 60.0)  # type: ignore[misc]
        world.crash(sender, keep_session=True)
        lost.remove(sender)
        world.start(sender)
    world.run(world.rounds_ended(1))
    assert world.outcomes()[0]["outcome"] == "applied"
    assert not world.counts[0, "setup-failed"]
    Witness(world).check()
