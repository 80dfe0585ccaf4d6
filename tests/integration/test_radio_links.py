"""Federations over radio links that are slow, stall and break; what an interruption costs, counted in bytes.

The links run faster than their models, so that a round takes seconds; what is sent and what is lost stays the same.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fleet_fixture import COORDINATOR, Fleet
from link_tools import eventually
from links import CLASSES, RadioLink, every, seeded

pytestmark = pytest.mark.integration

SPEED = 10.0
CHUNK, WINDOW = 2048, 4
"""As the profile of a 2G gateway has it."""
PROFILE = f"""\
name = "small"
description = "A gateway on a radio link"
memory = 256

[link]
class = "2g"
chunk = {CHUNK}
window = {WINDOW}
keepalive = 300
"""
ON_AIR = "part-2"
UPLOAD = 60_000
"""Bytes of one upload of the larger model, at least."""
RECONNECT = 6_000
"""Bytes up of a new connection, at most: TLS handshake, CONNECT, subscriptions, the question what is missing."""
LOST = WINDOW * (CHUNK + 100) + RECONNECT
"""Bytes up that one interruption may cost: a window sent in vain, and a new connection."""


class RadioFleet(Fleet):
    """One whose devices have the profile of a 2G gateway."""

    profile = PROFILE


class LargerFleet(RadioFleet):
    """One with a model of 30,000 parameters, too."""

    layers = ('{ in = 16, out = 1428, act = "relu" }', '{ in = 1428, out = 4, act = "none" }')


def test_a_federation_behind_links_of_every_class_completes(tmp_path_factory: pytest.TempPathFactory) -> None:
    rounds = {"collect": 90, "answer": 10, "total": 2}
    with RadioFleet(tmp_path_factory.mktemp("radio"), rounds=rounds) as fleet, ExitStack() as stack:
        fleet.broker.start()
        links = {}
        for name, link_class in zip(fleet.devices, [*CLASSES, "2g"], strict=True):
            broken = name == ON_AIR
            link = RadioLink(
                CLASSES[link_class].scaled(SPEED),
                fleet.port,
                seed=name,
                cuts=seeded(name, 1.5 / SPEED) if broken else None,
                stalls=seeded(name, 2.0 / SPEED) if broken else None,
                stall=3.0 / SPEED,
            )
            links[name] = stack.enter_context(link)
            fleet.configure_agent(name, port=link.port)
        fleet.start(*fleet.everyone)
        for number in (1, 2):
            ended = fleet.wait_for(COORDINATOR, "round", round=number, deadline=110)
            assert (ended["outcome"], ended["uploads"]) == ("applied", 6)
        for name in fleet.devices:
            fleet.wait_for(name, "score", version=2, deadline=100)
        assert links[ON_AIR].cuts >= 2
        fleet.stop(*fleet.devices)
        assert len({fleet.model(name) for name in fleet.devices}) == 1


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet at work, all but one device."""
    with LargerFleet(tmp_path_factory.mktemp("larger"), rounds={"collect": 90}) as fleet:
        fleet.broker.start()
        fleet.start(COORDINATOR, *(name for name in fleet.devices if name != ON_AIR))
        yield fleet


@pytest.fixture
def on_air(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet with one device that is not started yet; it is stopped in the end."""
    yield fleet
    if not fleet.broker.running():
        fleet.broker.start()
    if fleet.processes[ON_AIR].running:
        fleet.stop(ON_AIR)


def start(fleet: Fleet, link: RadioLink) -> int:
    """Start the device behind the link; the round that it has just finished."""
    fleet.configure_agent(ON_AIR, port=link.port)
    mark = fleet.mark()
    fleet.start(ON_AIR)
    return int(fleet.wait_for(ON_AIR, "round", mark, included=True, deadline=100)["round"])


def upload(fleet: Fleet, link: RadioLink, number: int, *, rounds: int = 1) -> int:
    """Bytes that the device sends from the end of round `number` to the end of so many more."""
    before = link.up.bytes
    for after in range(number + 1, number + rounds + 1):
        ended = fleet.wait_for(ON_AIR, "round", round=after, deadline=100)
        assert (ended["outcome"], ended["included"]) == ("applied", True)
    return link.up.bytes - before


def test_with_a_cut_every_eight_seconds_at_most_a_window_is_sent_again_each_time(on_air: Fleet) -> None:
    with RadioLink(CLASSES["2g"].scaled(SPEED), on_air.port) as whole:
        quiet = upload(on_air, whole, start(on_air, whole))
        on_air.stop(ON_AIR)
    assert quiet > UPLOAD
    with RadioLink(CLASSES["2g"].scaled(SPEED), on_air.port, cuts=every(8.0 / SPEED)) as broken:
        number = start(on_air, broken)
        before = broken.cuts
        sent = upload(on_air, broken, number, rounds=3)
        cuts = broken.cuts - before
    assert cuts >= 2
    assert sent <= 3 * quiet + cuts * LOST


def test_after_an_interruption_only_missing_chunks_travel_again(on_air: Fleet) -> None:
    with RadioLink(CLASSES["2g"].scaled(SPEED), on_air.port) as link:
        first = start(on_air, link)
        quiet = upload(on_air, link, first)
        for number, what in enumerate(("cut", "power loss", "broker restart"), start=first + 2):
            before = link.up.bytes
            on_air.wait_for(ON_AIR, "uploading", round=number, deadline=100)
            eventually(lambda before=before: link.up.bytes - before > UPLOAD * 2 // 3)  # type: ignore[misc]
            assert on_air.events(ON_AIR, "accepted", round=number) == []
            match what:
                case "cut":
                    link.cut()
                case "power loss":
                    on_air.kill(ON_AIR)
                    on_air.start(ON_AIR)
                case "broker restart":
                    on_air.broker.restart()
            on_air.wait_for(ON_AIR, "round", round=number, included=True, deadline=100)
            assert link.up.bytes - before <= quiet + LOST, what
