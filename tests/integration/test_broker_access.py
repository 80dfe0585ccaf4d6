"""Who may do what at the broker: asked of a real Mosquitto, for every topic of the table.

A denied publish is answered with 0x87. A denied read shows only at delivery: the test listens to everything, and a
message on an allowed topic that was sent later says that nothing more will come.
"""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from broker_tools import DEADLINE, Peer, TlsBroker
from paho.mqtt.enums import CallbackAPIVersion

from broker.local import HOST
from broker.render import OPERATOR, configuration
from fleet.transport import create_authority, issue_client, revocation_list, write_file, write_key_pair
from hushfleet.mqtt.topics import Topics

pytestmark = pytest.mark.integration

GRANTED, NO_SUBSCRIBER, NOT_AUTHORIZED = 0, 16, 0x87
COORDINATOR, CANDIDATE, OTHER_CANDIDATE, DEVICE, OTHER_DEVICE = 0, 1, 2, 3, 4


Connect = Callable[..., Peer]


@pytest.fixture
def connect(tls_broker: TlsBroker) -> Iterator[Connect]:
    """Connects clients by the common name of their certificate; all are closed at the end."""
    peers = []

    def open_peer(name: int | str, client_id: str = "", will: str | None = None) -> Peer:
        peer = Peer(tls_broker.port, tls_broker.settings.authority, tls_broker.identity(name), client_id, will)
        peers.append(peer)
        assert peer.outcome.get(timeout=DEADLINE) == "connected Success"
        return peer

    yield open_peer
    for peer in peers:
        peer.close()


def every_topic(topics: Topics, device: int, other: int) -> list[str]:
    """One topic of each line of the table, for this device and, where a device is named, for another."""
    general = [
        topics.root(1),
        topics.manifest(),
        topics.date(),
        topics.document("roster", 1, 0),
        topics.call(1),
        topics.list(1),
        topics.transcript(1, 0),
        topics.plan(),
        topics.result(1),
        topics.model(1, "delta", 0),
    ]
    named = [
        [
            topics.certificate(who),
            topics.card(1, who),
            topics.key(1, who, 0),
            topics.ready(1, who),
            topics.share(1, who, whom),
            topics.complaint(1, who),
            topics.up(0, who, "upload", 1),
            topics.up(7, who, "masksum", 1, 2, part=3),
            topics.down(who, "receipt", 1),
            topics.state(who),
        ]
        for who, whom in ((device, other), (other, device))
    ]
    return general + named[0] + named[1] + [f"hf/{topics.fleet}/elsewhere", "hf/aaaaaaaa/plan", "elsewhere"]


def own_writes(topics: Topics, device: int) -> set[str]:
    return {topics.up(0, device, "upload", 1), topics.up(7, device, "masksum", 1, 2, part=3), topics.state(device)}


def set_up_writes(topics: Topics, device: int, other: int) -> set[str]:
    return {
        topics.card(1, device),
        topics.key(1, device, 0),
        topics.ready(1, device),
        topics.share(1, device, other),
        topics.complaint(1, device),
    }


def device_reads(topics: Topics, device: int) -> set[str]:
    general = set(every_topic(topics, device, device)[:10])
    return general | {topics.certificate(device), topics.down(device, "receipt", 1), topics.state(device)}


def candidate_reads(topics: Topics, device: int, other: int) -> set[str]:
    of_any = {
        topic
        for who in (device, other)
        for topic in (topics.card(1, who), topics.key(1, who, 0), topics.ready(1, who), topics.complaint(1, who))
    }
    return device_reads(topics, device) | of_any | {topics.share(1, other, device)}


def of_this_fleet(topics: Topics, device: int, other: int) -> set[str]:
    return {topic for topic in every_topic(topics, device, other) if topic.startswith(f"hf/{topics.fleet}/")}


def permitted_writes(peer: Peer, topics: list[str]) -> set[str]:
    answers = {topic: peer.publish(topic) for topic in topics}
    assert set(answers.values()) <= {GRANTED, NO_SUBSCRIBER, NOT_AUTHORIZED}
    return {topic for topic, answer in answers.items() if answer != NOT_AUTHORIZED}


@pytest.mark.parametrize(
    ("who", "other"), [(DEVICE, OTHER_DEVICE), (DEVICE, CANDIDATE), (CANDIDATE, DEVICE), (CANDIDATE, OTHER_CANDIDATE)]
)
def test_devices_write_what_is_theirs_and_candidates_also_their_part_of_a_set_up(
    tls_broker: TlsBroker, connect: Connect, who: int, other: int
) -> None:
    topics = tls_broker.topics
    expected = own_writes(topics, who) | (set_up_writes(topics, who, other) if who == CANDIDATE else set())
    assert permitted_writes(connect(who), every_topic(topics, who, other)) == expected


@pytest.mark.parametrize("name", [COORDINATOR, OPERATOR])
def test_coordinator_and_operator_write_all_of_their_fleet_and_nothing_else(
    tls_broker: TlsBroker, connect: Connect, name: int | str
) -> None:
    topics = tls_broker.topics
    written = permitted_writes(connect(name), every_topic(topics, CANDIDATE, DEVICE))
    assert written == of_this_fleet(topics, CANDIDATE, DEVICE)


def test_a_certificate_of_this_authority_that_is_no_index_writes_nothing_of_a_device(
    tls_broker: TlsBroker, connect: Connect
) -> None:
    assert permitted_writes(connect("visitor"), every_topic(tls_broker.topics, DEVICE, CANDIDATE)) == set()


@contextmanager
def published(writer: Peer, topics: list[str], retain: bool) -> Iterator[None]:
    """`writer` writes one message on each topic, and clears what it left retained."""
    for topic in topics:
        assert writer.publish(topic, b"x", retain) in (GRANTED, NO_SUBSCRIBER)
    yield
    for topic in topics if retain else []:
        assert writer.publish(topic, b"", retain=True) in (GRANTED, NO_SUBSCRIBER)


@pytest.mark.parametrize("retained", [False, True])
@pytest.mark.parametrize("who", [DEVICE, CANDIDATE, COORDINATOR])
def test_only_what_one_may_read_arrives(tls_broker: TlsBroker, connect: Connect, who: int, retained: bool) -> None:
    topics, other = tls_broker.topics, OTHER_CANDIDATE
    expected = {
        DEVICE: device_reads(topics, DEVICE),
        CANDIDATE: candidate_reads(topics, CANDIDATE, other),
        COORDINATOR: of_this_fleet(topics, COORDINATOR, other),
    }[who]
    writer, reader = connect(OPERATOR), connect(who)
    everything = sorted(of_this_fleet(topics, who, other))
    if not retained:
        assert reader.subscribe("#") == 1, "a subscription looks granted whatever the access list says"
    with published(writer, everything, retained):
        if retained:
            reader.subscribe("#")
        writer.publish(topics.manifest(), b"end")
        assert set(reader.until(b"end")) == expected


def test_no_narrow_or_shared_subscription_gets_past_the_list(tls_broker: TlsBroker, connect: Connect) -> None:
    topics = tls_broker.topics
    writer, reader = connect(COORDINATOR), connect(DEVICE)
    for subscription in (
        topics.downs(CANDIDATE),
        topics.share(1, OTHER_CANDIDATE, CANDIDATE),
        topics.ups(0),
        f"$share/group/{topics.downs(CANDIDATE)}",
        "$SYS/#",
        topics.manifest(),
    ):
        reader.subscribe(subscription)
    for topic in (topics.down(CANDIDATE, "receipt", 1), topics.share(1, 2, 1), topics.up(0, 4, "upload", 1)):
        writer.publish(topic)
    writer.publish(topics.manifest(), b"end")
    assert reader.until(b"end") == {}


def test_the_coordinator_watches_the_brokers_own_figures(connect: Connect) -> None:
    coordinator = connect(COORDINATOR)
    coordinator.subscribe("$SYS/broker/version")
    assert b"mosquitto" in coordinator.received.get(timeout=DEADLINE).payload


def test_a_will_is_held_to_the_list(tls_broker: TlsBroker, connect: Connect) -> None:
    topics = tls_broker.topics
    coordinator = connect(COORDINATOR)
    coordinator.subscribe(f"hf/{topics.fleet}/#")
    for will, arrives in ((topics.state(DEVICE), True), (topics.up(0, OTHER_DEVICE, "upload", 1), False)):
        connect(DEVICE, will=will).cut()
        # The broker deals with what is left of a connection before it welcomes the next one of the same client.
        again = connect(DEVICE)
        again.publish(topics.state(DEVICE), b"end")
        assert (will in coordinator.until(b"end")) is arrives
        again.close()


def test_nobody_takes_over_a_session_by_its_client_id(tls_broker: TlsBroker, connect: Connect) -> None:
    topics = tls_broker.topics
    coordinator, victim = connect(COORDINATOR, str(COORDINATOR)), connect(CANDIDATE, str(CANDIDATE))
    victim.subscribe(topics.downs(CANDIDATE))
    for client_id in (str(CANDIDATE), str(COORDINATOR)):
        intruder = connect(DEVICE, client_id)
        intruder.subscribe("#")
        coordinator.publish(topics.down(CANDIDATE, "receipt", 1), b"for the victim")
        assert victim.received.get(timeout=DEADLINE).payload == b"for the victim"
        coordinator.publish(topics.down(DEVICE, "receipt", 1), b"end")
        assert intruder.until(b"end") == {}
        assert permitted_writes(intruder, every_topic(topics, CANDIDATE, DEVICE)) == own_writes(topics, DEVICE)
    assert victim.outcome.empty()
    assert coordinator.outcome.empty()


def refused(broker: TlsBroker, identity: Path | None) -> bool:
    """Whether the broker ends the connection before it answers. TLS 1.3 tells a client only after the handshake."""
    peer = Peer(broker.port, broker.settings.authority, identity)
    outcome = peer.outcome.get(timeout=DEADLINE)
    peer.close()
    return not outcome.startswith("connected")


def test_a_client_without_a_certificate_of_the_fleet_is_refused(tls_broker: TlsBroker, tmp_path: Path) -> None:
    assert refused(tls_broker, None)
    write_key_pair(tmp_path, "tls", issue_client(create_authority("test fleet"), str(DEVICE)))
    assert refused(tls_broker, tmp_path)
    write_key_pair(tmp_path, "tls", issue_client(tls_broker.authority, str(DEVICE)))
    assert not refused(tls_broker, tmp_path)


def test_older_tls_is_refused(tls_broker: TlsBroker, connect: Connect) -> None:
    context = ssl.create_default_context(cafile=tls_broker.settings.authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.tls_set_context(context)
    with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|protocol version"):
        client.connect(HOST, tls_broker.port)


@pytest.mark.parametrize("who", [DEVICE, CANDIDATE])
def test_a_revoked_device_can_do_nothing_more_though_it_stays_connected(
    tls_broker: TlsBroker, connect: Connect, who: int
) -> None:
    topics, everything = tls_broker.topics, every_topic(tls_broker.topics, who, OTHER_CANDIDATE)
    coordinator, device, other = connect(COORDINATOR), connect(who), connect(OTHER_DEVICE)
    other.subscribe("#")
    device.subscribe("#")
    try:
        tls_broker.revoke(who)
        assert permitted_writes(device, everything) == set()
        with published(coordinator, sorted(of_this_fleet(topics, who, OTHER_CANDIDATE)), retain=True):
            device.subscribe("#")
            coordinator.publish(topics.down(who, "receipt", 1), b"x")
            coordinator.publish(topics.manifest(), b"end")
            assert topics.plan() in other.until(b"end")
        tls_broker.revoke()
        coordinator.publish(topics.down(who, "receipt", 1), b"end")
        assert device.until(b"end") == {}
        assert device.outcome.empty()
    finally:
        tls_broker.revoke()


def test_a_candidate_is_granted_and_dismissed_by_a_reload(tls_broker: TlsBroker, connect: Connect) -> None:
    topics, device, before = tls_broker.topics, connect(DEVICE), tls_broker.access
    card = topics.card(1, DEVICE)
    assert device.publish(card) == NOT_AUTHORIZED
    tls_broker.grant(replace(before, candidates=(*before.candidates, DEVICE)))
    assert device.publish(card) in (GRANTED, NO_SUBSCRIBER)
    tls_broker.grant(before)
    assert device.publish(card) == NOT_AUTHORIZED


def test_a_revocation_list_keeps_the_revoked_out_and_grows_by_a_reload(tls_broker: TlsBroker, tmp_path: Path) -> None:
    pairs = {name: issue_client(tls_broker.authority, name) for name in ("10", "11", "12")}
    for name, pair in pairs.items():
        (tmp_path / name).mkdir()
        write_key_pair(tmp_path / name, "tls", pair)
    crl = tmp_path / "crl.pem"
    settings = replace(tls_broker.settings, revocation_list=crl)
    write_file(crl, revocation_list(tls_broker.authority, [pairs["10"].serial]), mode=0o644)
    line = next(line for line in configuration(settings).splitlines() if line.startswith("crlfile"))
    tls_broker.process.restart([line])
    assert [refused(tls_broker, tmp_path / name) for name in pairs] == [True, False, False]
    write_file(crl, revocation_list(tls_broker.authority, [pairs[name].serial for name in ("10", "11")]), mode=0o644)
    tls_broker.process.reload()
    assert [refused(tls_broker, tmp_path / name) for name in pairs] == [True, True, False]
    tls_broker.process.restart()
    assert not refused(tls_broker, tmp_path / "10")
