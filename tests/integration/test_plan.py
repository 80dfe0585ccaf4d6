"""What `hushfleet plan` says of bytes beside what the sockets of a real fleet count.

Four members and two participants run twelve rounds over a real Mosquitto, in three epochs. The agents count MQTT bytes
at their sockets; the connection of one runs through a relay that counts the TCP stream, TLS included.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fleet_fixture import CHUNK, CLASSES, COORDINATOR, HIDDEN, INPUTS, Event, Fleet, command
from link_tools import Cable

from planner.messages import Committee, Encoding, Messages
from planner.packets import Count, total
from planner.traffic import Traffic

pytestmark = pytest.mark.integration

EPOCH_ROUNDS, EPOCHS = 4, 3
ROUNDS = EPOCH_ROUNDS * EPOCHS
CLOSE = 0.05
MEMBER, PARTICIPANT, RELAYED = "both-2", "part-2", "part-1"
FIGURES = """
daily_bytes = 0
rate_up = 1000
rate_down = 1000
round_trip = 10
[compute]
step = 1
training = 1
multiplication = 1
keystream = 1
encoding = 1
rotation = 1
sync = 1
[energy]
idle = 1
compute = 1
sending = 1
receiving = 1
[flash]
endurance = 1
amplification = 1
"""


@dataclass
class Counted:
    """What was counted, and what was planned for this fleet."""

    rounds: dict[str, list[Event]]
    ends: dict[str, Event]
    relayed: tuple[int, int]
    planned: dict[str, Any]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    directory = tmp_path_factory.mktemp("plan")
    policy = {"epoch_rounds": EPOCH_ROUNDS, "audit_rate": 0.0}
    with Fleet(directory, policy=policy, rounds={"total": ROUNDS}) as fleet, Cable(fleet.port) as cable:
        # The coordinator cuts as its settings have it by default, which is what a plan reckons with.
        settings = fleet.configuration(COORDINATOR)
        settings.write_text(settings.read_text().replace("chunk = 1024", "chunk = 16384"))
        fleet.configure_agent(RELAYED, port=cable.port)
        profile = fleet.configuration("profile")
        profile.write_text(profile.read_text() + FIGURES)
        fleet.broker.start()
        fleet.start(COORDINATOR, *fleet.devices)
        fleet.wait_for(COORDINATOR, "stopped", deadline=100)
        for name in fleet.devices:
            fleet.wait_for(name, "score", version=ROUNDS)
        fleet.stop(*fleet.devices)
        said = command(
            *("plan", "--model", f"{INPUTS}-{HIDDEN}-{CLASSES}", "--profile", profile, "--devices", "6"),
            *("--rounds", str(ROUNDS), "--epoch-rounds", str(EPOCH_ROUNDS), "--json", "--risk", "0.99"),
        )
        assert said.returncode == 0, said.stderr
        names = (MEMBER, PARTICIPANT, RELAYED)
        yield Counted(
            {name: fleet.events(name, "round") for name in names},
            {name: fleet.events(name, "stopped")[-1] for name in names},
            (cable.bytes_up, cable.bytes_down),
            json.loads(said.stdout),
        )


def four_of_one_failing(planned: dict[str, Any]) -> dict[str, Any]:
    """The plan's row for this fleet's encoding, committee and window."""
    (row,) = [
        row
        for row in planned["options"]
        if row["encoding"]["name"] == "plain"
        and (row["committee"]["members"], row["committee"]["recoveries"]) == (4, 1)
        and row["window"] == 1
    ]
    found: dict[str, Any] = row
    return found


@pytest.mark.parametrize(("name", "role"), [(PARTICIPANT, "participant"), (MEMBER, "member")])
def test_the_bytes_of_a_round_are_those_that_its_socket_counts(counted: Counted, name: str, role: str) -> None:
    """From the second epoch on: what joining costs has gone into the first."""
    later = [told for told in counted.rounds[name] if told["round"] > EPOCH_ROUNDS]
    assert len(later) == ROUNDS - EPOCH_ROUNDS
    row = four_of_one_failing(counted.planned)[role]
    sent, received = (sum(told[which] for told in later) / len(later) for which in ("bytes_sent", "bytes_received"))
    assert row["mqtt_up"] == pytest.approx(sent, rel=CLOSE)
    assert row["mqtt_down"] == pytest.approx(received, rel=CLOSE)


def whole(member: bool) -> Count:
    """A device's whole life in this fleet; the fourth committee is set up before the third one's rounds are over."""
    traffic = [
        Traffic(
            Messages(
                layers=((INPUTS, HIDDEN), (HIDDEN, CLASSES)),
                devices=6,
                survivors=6,
                encoding=Encoding("plain", 0, 1.0, 16),
                committee=Committee(4, 1, 4),
                epoch_rounds=EPOCH_ROUNDS,
                round=number,
                device=2 if member else 5,
                chunk=CHUNK,
                profile="small",
            ),
            member,
            audit_rate=0.0,
        )
        for number in range(1, ROUNDS + 1)
    ]
    epochs = total(traffic[0].epoch() for _ in range(EPOCHS + member))
    return traffic[0].joining + epochs + total(one.round() for one in traffic)


@pytest.mark.parametrize(("name", "member"), [(PARTICIPANT, False), (MEMBER, True)])
def test_so_are_those_of_its_whole_life(counted: Counted, name: str, member: bool) -> None:
    planned, end = whole(member), counted.ends[name]
    assert planned.sent == pytest.approx(end["bytes_sent"], rel=CLOSE)
    assert planned.received == pytest.approx(end["bytes_received"], rel=CLOSE)


def test_tls_adds_what_is_planned_for_it(counted: Counted) -> None:
    planned, (up, down) = whole(member=False), counted.relayed
    assert planned.sent_tls == pytest.approx(up, rel=CLOSE)
    assert planned.received_tls == pytest.approx(down, rel=CLOSE)
    # Without TLS's own bytes it would not do.
    assert planned.sent < (1 - CLOSE) * up
