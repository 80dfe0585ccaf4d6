"""A broker that forgets, remembers wrongly, or drops what it cannot hold: rounds go on, nothing accepted is lost."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_fixture import COORDINATOR, Event, Fleet, Witness

pytestmark = pytest.mark.integration

LATE = "part-2"
"""The device that is not there at first."""
PATIENT = 100.0
"""Seconds for what has to be asked for again: the timers for that are of ten and thirty seconds."""


watched = pytest.mark.usefixtures("witness")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    # Five of six are enough, so that rounds go on without the late one.
    rounds = {"enough": 0.8, "patience": 1.0, "collect": 60}
    with Fleet(tmp_path_factory.mktemp("faults"), policy={"epoch_rounds": 16}, rounds=rounds) as fleet:
        fleet.broker.start()
        fleet.start(COORDINATOR, *(name for name in fleet.devices if name != LATE))
        await_round(fleet)
        yield fleet


@pytest.fixture
def fleet(federation: Fleet) -> Iterator[Fleet]:
    federation.bring_back(*federation.processes)
    yield federation
    assert [line for line in federation.lines() if '"internal-error"' in line] == []


@pytest.fixture
def witness(fleet: Fleet) -> Iterator[Witness]:
    """Sees to it that no upload, mask sum or survivor set has a second version."""
    with Witness(fleet) as witness:
        yield witness
        witness.check()


def await_round(fleet: Fleet, least: int = 5, deadline: float = PATIENT) -> Event:
    """The next round that is applied with so many uploads."""
    return fleet.wait_for(
        COORDINATOR,
        "round",
        fleet.mark(),
        outcome="applied",
        that=lambda told: told["uploads"] >= least,
        deadline=deadline,
    )


@watched
def test_a_broker_that_comes_back_empty_gets_everything_again_even_for_a_newcomer(fleet: Fleet) -> None:
    fleet.wait_for(COORDINATOR, "accepted", fleet.mark())
    fleet.broker.kill()
    mark = fleet.mark()
    fleet.broker.start(empty=True)
    assert fleet.wait_for(COORDINATOR, "connected", mark)["session"] is False
    await_round(fleet)
    # A device that has never been here finds documents, transcript, plan and model on the broker.
    mark = fleet.mark()
    fleet.start(LATE)
    fleet.wait_for(LATE, "accepted", mark)
    await_round(fleet, least=6)


@watched
def test_a_broker_that_comes_back_with_an_old_state_is_brought_up_to_date(fleet: Fleet) -> None:
    database = fleet.broker.directory / "mosquitto.db"
    old = database.with_name("mosquitto.db.old")
    fleet.broker.stop()
    shutil.copy(database, old)
    fleet.broker.start()
    for _ in range(3):
        await_round(fleet)
    devices = [name for name in fleet.processes if name in fleet.devices]
    fleet.stop(*devices)
    number = fleet.events(COORDINATOR, "plan")[-1]["round"]
    fleet.broker.kill()
    shutil.copy(old, database)
    mark = fleet.mark()
    fleet.broker.start()
    assert fleet.wait_for(COORDINATOR, "connected", mark)["session"] is True
    fleet.start(*devices)
    assert fleet.wait_for(COORDINATOR, "round", round=number)["outcome"] == "applied"


@watched
def test_a_broker_that_holds_ten_messages_loses_no_upload(fleet: Fleet) -> None:
    fleet.broker.restart(["max_queued_messages 10"])
    await_round(fleet)
    # While nobody takes them, the broker confirms all of the uploads' chunks and keeps ten of them.
    names = [name for name in fleet.processes if name != COORDINATOR]
    number = fleet.wait_for(names[0], "uploading", fleet.mark())["round"]
    fleet.kill(COORDINATOR)
    for name in names:
        fleet.wait_for(name, "uploading", round=number)
    mark = fleet.mark()
    fleet.start(COORDINATOR)
    ended = fleet.wait_for(COORDINATOR, "round", mark, round=number, deadline=PATIENT)
    assert (ended["outcome"], ended["uploads"] >= 5) == ("applied", True)
    await_round(fleet)
    fleet.broker.restart()
    await_round(fleet)


@watched
def test_a_broker_that_is_away_is_named_once_with_its_remedy(fleet: Fleet) -> None:
    mark = fleet.mark()
    fleet.broker.stop()
    for name in (COORDINATOR, "both-1"):
        told = fleet.wait_for(name, "disconnected", mark, that=lambda told: "nothing listens" in told["reason"])
        assert "start the broker" in told["remedy"]
    fleet.broker.start()
    fleet.wait_for("both-1", "connected", mark)
    reasons = [told["reason"] for told in fleet.events("both-1", "disconnected", mark)]
    assert len(reasons) == len(set(reasons))
    await_round(fleet)


def test_a_second_agent_with_the_same_identity_is_found_out(fleet: Fleet) -> None:
    victim = "both-1"
    twin = fleet.configuration("twin")
    twin.write_text(fleet.configuration(victim).read_text().replace(f"state-{victim}", "state-twin"))
    mark = fleet.mark()
    fleet.start("twin")
    loser = fleet.wait_for_end(victim, "twin", deadline=PATIENT)
    winner = victim if loser == "twin" else "twin"
    assert fleet.processes[loser].wait() == 1
    said = fleet.lines(loser, mark)[-1]
    assert said.startswith("hushfleet: this identity (1) is in use elsewhere")
    assert "find the other machine" in said
    assert not any("Traceback" in line for line in fleet.lines(loser, mark))
    fleet.kill(winner)
    fleet.start(victim)
    await_round(fleet, least=5)


def test_a_set_up_survives_a_broker_that_comes_back_without_its_cards(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        database = fleet.broker.directory / "mosquitto.db"
        old = database.with_name("mosquitto.db.old")
        early, late = fleet.members[:-1], fleet.members[-1]
        fleet.broker.start()
        fleet.start(*early)
        for name in early:
            fleet.wait_for(name, "connected")
        # This state has their sessions, and nothing of the set-up that is called then.
        fleet.broker.stop()
        shutil.copy(database, old)
        fleet.broker.start()
        with Witness(fleet) as witness:
            fleet.start(COORDINATOR)
            epoch = fleet.wait_for(COORDINATOR, "call")["epoch"]
            for index in range(1, len(early) + 1):
                witness.wait_for(fleet.topics.card(epoch, index))
        fleet.broker.kill()
        shutil.copy(old, database)
        mark = fleet.mark()
        fleet.broker.start()
        for name in early:
            assert fleet.wait_for(name, "connected", mark)["session"] is True
        fleet.start(late)
        assert fleet.wait_for(COORDINATOR, "epoch-ready", mark)["epoch"] == epoch
