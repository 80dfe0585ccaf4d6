"""What `hushfleet plan` says of bytes beside what the sockets of a real fleet count.

Four members and two participants run twelve rounds over a real Mosquitto, in three epochs, with either codec. The
agents count MQTT bytes at their sockets; the connection of one runs through a relay that counts the TCP stream, TLS
included.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fleet_fixture import CHUNK, CLASSES, COORDINATOR, HIDDEN, INPUTS, Event, Fleet, command
from link_tools import Cable

from hushfleet.wire.layers import Dense
from planner.messages import Committee, Encoding, Messages
from planner.packets import Count, total
from planner.traffic import Traffic

pytestmark = pytest.mark.integration

EPOCH_ROUNDS, EPOCHS = 4, 3
ROUNDS = EPOCH_ROUNDS * EPOCHS
CLOSE = 0.05
ENCODINGS = {"plain": Encoding("plain", 0, 1.0, 16), "default": Encoding("default B=4", 1, 0.1, 4)}
"""By the coordinator's setting, as six devices have them."""
MEMBER, PARTICIPANT, RELAYED = "both-2", "part-2", "part-1"
FIGURES = """
daily_bytes = 0
rate_up = 1000
rate_down = 1000
round_trip = 10
[compute]
step = 1
update = 1
training = 1
sequence = 1
recurrence = 1
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

    encoding: Encoding
    rounds: dict[str, list[Event]]
    ends: dict[str, Event]
    relayed: tuple[int, int]
    planned: dict[str, Any]


@pytest.fixture(scope="module", params=ENCODINGS)
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    directory = tmp_path_factory.mktemp("plan")
    policy = {"epoch_rounds": EPOCH_ROUNDS, "audit_rate": 0.0}
    # On a busy machine nobody is asked twice.
    rounds = {"total": ROUNDS, "codec": request.param, "answer": 30}
    with Fleet(directory, policy=policy, rounds=rounds) as fleet, Cable(fleet.port) as cable:
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
            ENCODINGS[request.param],
            {name: fleet.events(name, "round") for name in names},
            {name: fleet.events(name, "stopped")[-1] for name in names},
            (cable.bytes_up, cable.bytes_down),
            json.loads(said.stdout),
        )


def four_of_one_failing(counted: Counted) -> dict[str, Any]:
    """The plan's row for this fleet's encoding, committee and window."""
    (row,) = [
        row
        for row in counted.planned["options"]
        if row["encoding"]["name"] == counted.encoding.name
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
    one = traffic(counted.encoding, ROUNDS, member=role == "member")
    planned, plan = one.a_round, one.before_upload().received / len(later)
    sent, received = (sum(told[which] for told in later) / len(later) for which in ("bytes_sent", "bytes_received"))
    assert planned.sent == pytest.approx(sent, rel=CLOSE)
    # The first one's plan may have come before the round ahead of it was over.
    assert any(planned.received - early == pytest.approx(received, rel=CLOSE) for early in (0.0, plan))
    # The plan is for a fleet with a spare candidate and audits.
    row = four_of_one_failing(counted)[role]
    planned = traffic(counted.encoding, ROUNDS, role == "member", candidates=5, audit_rate=0.25).a_round
    assert (row["mqtt_up"], row["mqtt_down"]) == pytest.approx((planned.sent, planned.received), rel=0.01)


def traffic(encoding: Encoding, number: int, member: bool, *, candidates: int = 4, audit_rate: float = 0.0) -> Traffic:
    """What is planned for a device of this fleet in the round of that number."""
    messages = Messages(
        layers=(Dense(INPUTS, HIDDEN, "relu"), Dense(HIDDEN, CLASSES)),
        devices=6,
        survivors=6,
        encoding=encoding,
        committee=Committee(4, 1, candidates),
        epoch_rounds=EPOCH_ROUNDS,
        round=number,
        device=2 if member else 5,
        chunk=CHUNK,
        profile="small",
    )
    return Traffic(messages, member, audit_rate=audit_rate)


def whole(encoding: Encoding, member: bool) -> Count:
    """A device's whole life in this fleet; the fourth committee is set up before the third one's rounds are over."""
    rounds = [traffic(encoding, number, member) for number in range(1, ROUNDS + 1)]
    epochs = total(rounds[0].epoch() for _ in range(EPOCHS + member))
    return rounds[0].joining + epochs + total(one.round() for one in rounds)


@pytest.mark.parametrize(("name", "member"), [(PARTICIPANT, False), (MEMBER, True)])
def test_so_are_those_of_its_whole_life(counted: Counted, name: str, member: bool) -> None:
    planned, end = whole(counted.encoding, member), counted.ends[name]
    assert planned.sent == pytest.approx(end["bytes_sent"], rel=CLOSE)
    assert planned.received == pytest.approx(end["bytes_received"], rel=CLOSE)


def test_tls_adds_what_is_planned_for_it(counted: Counted) -> None:
    planned, (up, down) = whole(counted.encoding, member=False), counted.relayed
    # What a device sends at once shares records, which is not planned for.
    assert up < (1 + CLOSE) * planned.sent_tls
    assert planned.received_tls == pytest.approx(down, rel=CLOSE)
    # Without TLS's own bytes it would not do.
    assert planned.sent < (1 - CLOSE) * up
