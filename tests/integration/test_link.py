"""The link against a real Mosquitto over TLS: every pitfall of MQTT that can be met on the client's side."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from link_tools import COORDINATOR, DEVICE, OTHER, TOPICS, Cable, Peer, Recorder, Site, eventually, linked

from broker.local import LocalBroker
from hushfleet.errors import RefusedError
from hushfleet.mqtt.events import (
    LEFT_BEHIND,
    NO_SUBSCRIBER,
    NOT_AUTHORIZED,
    Absence,
    Asleep,
    Connected,
    Delivered,
    Disconnected,
    Dropped,
    IdentityInUse,
    LinkEvent,
    Message,
    Undelivered,
)
from hushfleet.mqtt.link import Link
from hushfleet.mqtt.probe import probe

pytestmark = pytest.mark.integration

DOWN = TOPICS.downs(DEVICE)
STATE = TOPICS.state(DEVICE)


def down(number: int) -> str:
    return TOPICS.down(DEVICE, "receipt", number)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def broker(site: Site, tmp_path: Path) -> Iterator[LocalBroker]:
    with site.broker(tmp_path) as broker:
        yield broker


# Sessions.


def test_the_session_and_its_queue_survive_a_restart_of_the_broker(site: Site, broker: LocalBroker) -> None:
    with linked(site.settings(DEVICE, broker.port)) as (device, seen):
        assert seen.wait(Connected).session_present is False
        device.subscribe(DOWN)
        device.publish(STATE, b"subscribed", retain=True)
        seen.wait(Delivered)
    with linked(site.settings(COORDINATOR, broker.port)) as (coordinator, coordinator_seen):
        coordinator.publish(down(1), b"while you were away")
        coordinator_seen.wait(Delivered)
    broker.restart()
    with linked(site.settings(DEVICE, broker.port)) as (_, seen):
        assert seen.wait(Connected).session_present is True
        assert seen.wait(Message).payload == b"while you were away"


def test_a_lost_session_is_reported_and_subscribed_again(site: Site, broker: LocalBroker) -> None:
    with (
        linked(site.settings(DEVICE, broker.port)) as (device, seen),
        linked(site.settings(COORDINATOR, broker.port)) as (coordinator, coordinator_seen),
    ):
        device.subscribe(DOWN)
        first = seen.wait(Connected)
        coordinator_seen.wait(Connected)
        broker.kill()
        seen.wait(Disconnected)
        broker.start(empty=True)
        again = seen.wait(Connected)
        assert again.session_present is False
        assert again.generation > first.generation
        coordinator_seen.wait(Connected)

        def arrives() -> bool:
            coordinator.publish(down(1), b"hello again")
            return bool(seen.of(Message))

        eventually(arrives)


def test_a_released_filter_stays_released_after_a_lost_session(site: Site, broker: LocalBroker) -> None:
    with linked(site.settings(COORDINATOR, broker.port)) as (link, seen):
        link.subscribe(TOPICS.plan())
        link.subscribe(TOPICS.manifest())
        link.unsubscribe(TOPICS.plan())
        seen.wait(Connected)
        broker.kill()
        broker.start(empty=True)
        seen.wait(Connected)
        link.publish(TOPICS.plan(), b"plan")
        link.publish(TOPICS.manifest(), b"manifest")
        assert seen.wait(Message).payload == b"manifest"


def test_a_cut_costs_no_retained_message_twice_and_a_lost_subscription_brings_it(site: Site, tmp_path: Path) -> None:
    with site.broker(tmp_path) as broker, Cable(broker.port) as cable:
        with linked(site.settings(COORDINATOR, broker.port)) as (coordinator, coordinator_seen):
            coordinator.publish(TOPICS.plan(), b"a plan", retain=True)
            coordinator_seen.wait(Delivered)
        with linked(site.settings(DEVICE, cable.port)) as (device, seen):
            device.subscribe(TOPICS.plan(), again=False)
            assert seen.wait(Message).payload == b"a plan", "it is new"
            cable.cut()
            assert seen.wait(Connected, lambda told: told.generation > 1).session_present is True
            device.subscribe(TOPICS.plan(), again=False)
            device.subscribe(TOPICS.manifest())
            device.publish(STATE, b"asked", retain=True)
            seen.wait(Delivered)
            device.subscribe(STATE)
            # Told in order: a plan would have come before this.
            assert seen.wait(Message).topic == STATE
            device.subscribe(TOPICS.plan())
            assert seen.wait(Message).payload == b"a plan", "asked for again"
            broker.restart(empty=True)
            with linked(site.settings(COORDINATOR, broker.port)) as (coordinator, coordinator_seen):
                coordinator.publish(TOPICS.plan(), b"the next plan", retain=True)
                coordinator_seen.wait(Delivered)
            assert seen.wait(Message, lambda told: told.topic == TOPICS.plan()).payload == b"the next plan"


# Acknowledgement.

CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tools!r})
from link_tools import DEVICE, Site, linked
from hushfleet.mqtt.events import Delivered, Message
site = Site.__new__(Site)
site.directory = Path({directory!r})
site.ca = site.directory / "ca.pem"
with linked(site.settings(DEVICE, {port})) as (link, seen):
    link.ack(seen.wait(Message, lambda message: message.payload == b"0").token)
    seen.wait(Message, lambda message: message.payload == b"2")
    link.publish({state!r}, b"all here", retain=True)
    seen.wait(Delivered)
    print("ready", flush=True)
    time.sleep(60)
"""


def queue_for_device(site: Site, port: int, *payloads: bytes) -> None:
    """Make the device's session and let these wait in it."""
    with linked(site.settings(DEVICE, port)) as (device, seen):
        device.subscribe(DOWN)
        device.publish(STATE, b"subscribed", retain=True)
        seen.wait(Delivered)
    with linked(site.settings(COORDINATOR, port)) as (coordinator, seen):
        for number, payload in enumerate(payloads):
            coordinator.publish(down(number), payload)
            seen.wait(Delivered)


def test_what_a_killed_process_had_not_acknowledged_comes_again(site: Site, broker: LocalBroker) -> None:
    queue_for_device(site, broker.port, b"0", b"1", b"2")
    code = CHILD.format(tools=str(Path(__file__).parent), directory=str(site.directory), port=broker.port, state=STATE)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.kill()
    with linked(site.settings(DEVICE, broker.port)) as (_, seen):
        assert seen.wait(Connected).session_present is True
        seen.wait(Message, lambda message: message.payload == b"2")
        assert [message.payload for message in seen.of(Message)] == [b"1", b"2"]


def test_it_reads_no_more_than_it_may_hold_unacknowledged(site: Site, broker: LocalBroker) -> None:
    limit, held, most, got = 20, [], 0, 0

    def receive(event: LinkEvent) -> None:
        nonlocal most
        if isinstance(event, Message):
            held.append(event)
            most = max(most, len(held))
        seen(event)

    seen = Recorder()
    device = Link(site.settings(DEVICE, broker.port, unacknowledged=limit), receive)
    device.start()
    try:
        device.subscribe(DOWN)
        device.publish(STATE, b"subscribed", retain=True)
        seen.wait(Delivered)
        with linked(site.settings(COORDINATOR, broker.port, window=64)) as (coordinator, _):
            for number in range(300):
                coordinator.publish(down(number), b"%d" % number)
            while got < 280:
                # All that it may hold is here before the first of it is acknowledged.
                eventually(lambda: len(held) == limit)
                for message in held[:]:
                    assert message.payload == b"%d" % got
                    assert message.token is not None
                    held.remove(message)
                    device.ack(message.token)
                    got += 1
            eventually(lambda: len(held) == limit)
        device.publish(STATE, b"and it can still say goodbye", retain=True)
    finally:
        assert device.stop()
    assert most == limit


def test_an_acknowledgement_of_an_earlier_connection_confirms_nothing(site: Site, broker: LocalBroker) -> None:
    queue_for_device(site, broker.port, b"0", b"1")
    with Cable(broker.port) as cable, linked(site.settings(DEVICE, cable.port)) as (link, seen):
        first, second = seen.wait(Message), seen.wait(Message)
        assert first.token is not None
        assert second.token is not None
        cable.cut()
        seen.wait(Connected)
        again = seen.wait(Message), seen.wait(Message)
        assert [message.payload for message in again] == [b"0", b"1"]
        link.ack(first.token)
        link.ack(second.token)
        eventually(lambda: link.counters.stale_acks == 2)
        cable.cut()
        seen.wait(Connected)
        last = seen.wait(Message), seen.wait(Message)
        assert [message.payload for message in last] == [b"0", b"1"]
        assert last[0].token is not None
        link.ack(last[0].token)
        link.publish(STATE, b"acknowledged", retain=True)
        seen.wait(Delivered)
        cable.cut()
        seen.wait(Connected)
        assert seen.wait(Message).payload == b"1"
        assert link.counters.stale_acks == 2


def test_the_retain_flag_is_seen_as_published(site: Site, broker: LocalBroker) -> None:
    with (
        linked(site.settings(COORDINATOR, broker.port)) as (coordinator, seen),
        linked(site.settings(DEVICE, broker.port)) as (device, device_seen),
    ):
        coordinator.subscribe(TOPICS.ups(0))
        coordinator.publish(TOPICS.plan(), b"subscribed", retain=True)
        seen.wait(Delivered)
        for number, retain in enumerate((True, False)):
            device.publish(TOPICS.up(0, DEVICE, "upload", number), b"x", retain=retain)
            device_seen.wait(Delivered)
            assert seen.wait(Message).retain is retain


def test_a_larger_message_than_we_take_is_held_back_by_the_broker_and_blocks_nothing(
    site: Site, broker: LocalBroker
) -> None:
    queue_for_device(site, broker.port, b"0", bytes(5000), b"2")
    with linked(site.settings(DEVICE, broker.port, max_payload=1000)) as (link, seen):
        seen.wait(Message, lambda message: message.payload == b"2")
        assert [message.payload for message in seen.of(Message)] == [b"0", b"2"]
        assert link.counters.connections == 1
        assert link.bytes_received < 1000


# Publishing.


def test_a_denied_publish_is_undelivered_and_the_connection_stays(site: Site, broker: LocalBroker) -> None:
    with linked(site.settings(DEVICE, broker.port)) as (link, seen):
        link.publish(TOPICS.up(0, OTHER, "upload", 1), b"x")
        assert seen.wait(Undelivered).reason_code == NOT_AUTHORIZED
        link.publish(TOPICS.plan(), b"x", retain=True)
        assert seen.wait(Undelivered).reason_code == NOT_AUTHORIZED
        link.publish(STATE, b"x", retain=True)
        assert seen.wait(Delivered).topic == STATE
        assert seen.of(Disconnected) == []
        assert link.counters.undelivered == 2


def test_without_a_subscriber_an_upload_is_undelivered_but_a_retained_message_is_not(
    site: Site, broker: LocalBroker
) -> None:
    with linked(site.settings(DEVICE, broker.port)) as (link, seen):
        link.publish(TOPICS.up(0, DEVICE, "upload", 1), b"x")
        assert seen.wait(Undelivered).reason_code == NO_SUBSCRIBER
        link.publish(STATE, b"x", retain=True)
        seen.wait(Delivered)


def test_too_large_a_message_is_refused_before_publishing(site: Site, broker: LocalBroker) -> None:
    with linked(site.settings(DEVICE, broker.port, max_payload=1000)) as (link, seen):
        with pytest.raises(RefusedError, match="1001 bytes"):
            link.publish(STATE, bytes(1001), retain=True)
        link.publish(STATE, bytes(1000), retain=True)
        seen.wait(Delivered)
        assert link.queued == 0
        assert link.bytes_sent < 1500


@pytest.mark.parametrize("limit", ["message_size_limit 2000", "max_packet_size 2000"])
def test_a_message_too_large_for_the_broker_is_given_up_and_the_rest_passes(
    site: Site, broker: LocalBroker, limit: str
) -> None:
    broker.restart([limit])
    names = {TOPICS.up(0, DEVICE, "upload", number): bytes([number]) * 500 for number in range(8)}
    poison = TOPICS.up(0, DEVICE, "upload", 2)
    with (
        linked(site.settings(COORDINATOR, broker.port)) as (coordinator, coordinator_seen),
        linked(site.settings(DEVICE, broker.port, attempts=3)) as (device, seen),
    ):
        coordinator.subscribe(TOPICS.ups(0))
        coordinator.publish(TOPICS.plan(), b"subscribed", retain=True)
        coordinator_seen.wait(Delivered)
        for topic, payload in names.items():
            device.publish(topic, bytes(5000) if topic == poison else payload)
        assert seen.wait(Dropped).topic == poison
        eventually(lambda: device.queued == 0)
        assert device.counters.dropped == 1
        assert device.counters.connections == 4
        assert {event.topic for event in seen.of(Delivered)} == names.keys() - {poison}
        assert seen.of(IdentityInUse) == []


def test_never_more_than_the_window_is_on_its_way(site: Site, broker: LocalBroker) -> None:
    size, window = 4096, 3
    with Cable(broker.port) as cable, linked(site.settings(DEVICE, cable.port, window=window)) as (link, seen):
        seen.wait(Connected)
        before = link.bytes_sent
        cable.go_silent()
        for number in range(50):
            link.publish(TOPICS.up(0, DEVICE, "upload", number), bytes(size))
        eventually(lambda: link.queued == 50 and link.bytes_sent - before > window * size)
        assert link.in_flight == window
        assert link.bytes_sent - before < (window + 1) * size
        cable.recover()
        eventually(lambda: link.queued == 0)
        assert {event.topic for event in seen.of(Undelivered)} == {
            TOPICS.up(0, DEVICE, "upload", number) for number in range(50)
        }


def test_what_is_published_without_a_broker_waits_and_the_superseded_is_not_sent(
    site: Site, broker: LocalBroker
) -> None:
    broker.stop()
    with linked(site.settings(COORDINATOR, broker.port)) as (link, seen):
        seen.wait(Disconnected)
        for payload in (b"1", b"2", b"3"):
            link.publish(TOPICS.plan(), payload, retain=True)
        link.subscribe(TOPICS.plan())
        broker.start()
        assert seen.wait(Message).payload == b"3"
        eventually(lambda: link.queued == 0)
        assert len(seen.of(Delivered)) == 1


# Endings.


def test_a_stop_sends_what_is_queued_and_leaves_the_will(site: Site, broker: LocalBroker) -> None:
    settings = site.settings(DEVICE, broker.port, will_topic=STATE, will_payload=b"offline", window=2)
    with linked(site.settings(COORDINATOR, broker.port)) as (coordinator, seen):
        coordinator.subscribe(TOPICS.states())
        coordinator.subscribe(TOPICS.ups(0))
        coordinator.publish(TOPICS.plan(), b"subscribed", retain=True)
        seen.wait(Delivered)
        device_seen = Recorder()
        device = Link(settings, device_seen)
        device.start()
        device.publish(STATE, b"online", retain=True)
        device_seen.wait(Delivered)
        for number in range(20):
            device.publish(TOPICS.up(0, DEVICE, "upload", number), b"x")
        assert device.stop() is True
        seen.wait(Message, lambda message: message.payload == b"offline")
        payloads = [message.payload for message in seen.of(Message)]
        assert payloads == [b"online", *[b"x"] * 20, b"offline"]
        assert device_seen.of(Disconnected) == []


def test_a_stop_without_a_broker_is_quick_and_says_what_is_left(site: Site, broker: LocalBroker) -> None:
    broker.stop()
    seen = Recorder()
    link = Link(site.settings(DEVICE, broker.port, reconnect_min=300.0, reconnect_max=300.0), seen)
    link.start()
    seen.wait(Disconnected)
    link.publish(STATE, b"x", retain=True)
    eventually(lambda: link.queued == 1)
    assert link.stop(timeout=300.0) is False


def test_a_link_that_is_to_be_away_leaves_its_will_and_comes_back_to_its_session(
    site: Site, broker: LocalBroker
) -> None:
    away: list[Absence] = []
    settings = site.settings(DEVICE, broker.port, will_topic=STATE, will_payload=b"offline")
    seen = Recorder()
    link = Link(settings, seen, lambda *_: away[0] if away else None)
    with linked(site.settings(COORDINATOR, broker.port)) as (coordinator, coordinator_seen):
        coordinator.subscribe(STATE)
        coordinator.publish(TOPICS.plan(), b"subscribed", retain=True)
        coordinator_seen.wait(Delivered)
        link.start()
        link.subscribe(DOWN)
        link.publish(STATE, b"online", retain=True)
        seen.wait(Delivered)
        absence = Absence("the night", time.time() + 1)
        away.append(absence)
        assert seen.wait(Asleep).absence == absence
        coordinator_seen.wait(Message, lambda message: message.payload == b"offline")
        coordinator.publish(down(1), b"while you were away")
        coordinator_seen.wait(Delivered)
        assert link.in_flight == 0
        link.publish(TOPICS.up(0, DEVICE, "upload", 1), b"of a round that is over by then")
        link.publish(STATE, b"back", retain=True)
        eventually(lambda: link.queued == 2)
        away.clear()
        assert seen.wait(Undelivered).reason_code == LEFT_BEHIND
        assert seen.wait(Connected).session_present is True
        assert seen.wait(Message).payload == b"while you were away"
        coordinator_seen.wait(Message, lambda message: message.payload == b"back")
        assert seen.of(Disconnected) == []
        link.stop()


def test_a_link_that_is_to_be_away_from_its_start_connects_to_nothing_and_stops_at_once(
    site: Site, broker: LocalBroker
) -> None:
    with Cable(broker.port) as cable:
        seen = Recorder()
        link = Link(site.settings(DEVICE, cable.port), seen, lambda *_: Absence("the night", time.time() + 1e6))
        link.start()
        seen.wait(Asleep)
        link.publish(STATE, b"online", retain=True)
        assert link.stop(timeout=300.0) is False
        assert cable.connections == 0


def test_the_will_of_a_torn_connection_is_published(site: Site, broker: LocalBroker) -> None:
    with (
        linked(site.settings(COORDINATOR, broker.port)) as (coordinator, seen),
        Cable(broker.port) as cable,
        linked(site.settings(DEVICE, cable.port, will_topic=STATE, will_payload=b"offline")) as (_, device_seen),
    ):
        coordinator.subscribe(TOPICS.states())
        coordinator.publish(TOPICS.plan(), b"subscribed", retain=True)
        seen.wait(Delivered)
        device_seen.wait(Connected)
        cable.cut()
        message = seen.wait(Message)
        assert (message.topic, message.payload, message.retain) == (STATE, b"offline", True)


def test_an_error_of_the_receiver_is_counted_and_the_message_comes_again(site: Site, broker: LocalBroker) -> None:
    queue_for_device(site, broker.port, b"0", b"1")
    seen = Recorder()

    failed: set[type[LinkEvent]] = set()

    def receive(event: LinkEvent) -> None:
        seen(event)
        if type(event) not in failed:
            failed.add(type(event))
            raise ValueError("the service failed")

    with Cable(broker.port) as cable:
        link = Link(site.settings(DEVICE, cable.port), receive)
        link.start()
        try:
            seen.wait(Message, lambda message: message.payload == b"1")
            assert failed == {Connected, Message}
            assert link.counters.errors == 2
            cable.cut()
            assert seen.wait(Message).payload == b"0"
            assert failed == {Connected, Message, Disconnected}
            assert link.counters.errors == 3
            link.publish(STATE, b"still here", retain=True)
            seen.wait(Delivered)
        finally:
            link.stop()


def test_a_message_that_the_library_cannot_read_is_counted_and_the_next_one_arrives(site: Site) -> None:
    connack = bytes([0x20, 3, 0, 0, 0])
    bad_topic = bytes([0x32, 7, 0, 1, 0xFF, 0, 1, 0]) + b"x"
    good = bytes([0x32, 7, 0, 1]) + b"t" + bytes([0, 2, 0]) + b"x"
    with (
        Peer(site, connack, bad_topic, good) as peer,
        linked(site.settings(DEVICE, peer.port)) as (link, seen),
    ):
        assert seen.wait(Message).topic == "t"
        assert link.counters.errors == 1
        assert seen.of(Disconnected) == []


def test_a_second_user_of_the_identity_is_named_and_one_of_them_stops(site: Site, broker: LocalBroker) -> None:
    with (
        linked(site.settings(DEVICE, broker.port)) as (first, first_seen),
        linked(site.settings(DEVICE, broker.port)) as (second, second_seen),
    ):
        eventually(lambda: bool(first_seen.of(IdentityInUse) + second_seen.of(IdentityInUse)))
        (event,) = first_seen.of(IdentityInUse) or second_seen.of(IdentityInUse)
        assert "this identity (7) is in use elsewhere" in event.reason
        loser, winner = (first, second) if first_seen.of(IdentityInUse) else (second, first)
        winner_seen = second_seen if loser is first else first_seen
        winner.publish(STATE, b"alone", retain=True)
        winner_seen.wait(Delivered)
        connections = loser.counters.connections
        winner.publish(STATE, b"still alone", retain=True)
        winner_seen.wait(Delivered)
        assert loser.counters.connections == connections


def test_cuts_and_restarts_are_not_taken_for_a_second_user(site: Site, broker: LocalBroker) -> None:
    with Cable(broker.port) as cable, linked(site.settings(DEVICE, cable.port)) as (_, seen):
        seen.wait(Connected)
        for number in range(12):
            if number % 2:
                broker.restart()
            else:
                cable.cut()
            seen.wait(Connected)
        assert seen.of(IdentityInUse) == []


def test_a_silent_line_is_noticed_by_the_keepalive(site: Site, broker: LocalBroker) -> None:
    with Cable(broker.port) as cable, linked(site.settings(DEVICE, cable.port, keepalive=1)) as (link, seen):
        seen.wait(Connected)
        cable.go_silent()
        assert "has not answered for longer than 1 s" in seen.wait(Disconnected).reason
        cable.recover()
        seen.wait(Connected)
        link.publish(STATE, b"back", retain=True)
        seen.wait(Delivered)


def test_a_silent_line_is_noticed_by_missing_progress_long_before_the_keepalive(
    site: Site, broker: LocalBroker
) -> None:
    settings = {"keepalive": 1200, "stall_timeout": 0.5}
    with Cable(broker.port) as cable, linked(site.settings(DEVICE, cable.port, **settings)) as (link, seen):
        seen.wait(Connected)
        cable.go_silent()
        link.publish(STATE, b"into the void", retain=True)
        assert "has stood still for 0.5 s" in seen.wait(Disconnected).reason
        cable.recover()
        seen.wait(Delivered)


def test_an_idle_line_is_left_alone_by_the_watchdog(site: Site, broker: LocalBroker) -> None:
    settings = {"keepalive": 1, "stall_timeout": 0.3}
    with Cable(broker.port) as cable, linked(site.settings(DEVICE, cable.port, **settings)) as (link, seen):
        seen.wait(Connected)
        before = link.bytes_received
        eventually(lambda: link.bytes_received - before >= 4)  # two answers to two pings
        assert seen.of(Disconnected) == []
        assert cable.connections == 1


# Bytes.


def test_the_tls_session_is_resumed_on_reconnect_and_saves_bytes(site: Site, broker: LocalBroker) -> None:
    with Cable(broker.port) as cable, linked(site.settings(DEVICE, cable.port)) as (link, seen):
        seen.wait(Connected)
        full = cable.bytes_up + cable.bytes_down
        assert full < 5000  # no key exchange that takes a kilobyte each way
        assert link.counters.resumed == 0
        cable.cut()
        seen.wait(Connected)
        assert link.counters.resumed == 1
        assert cable.bytes_up + cable.bytes_down < 2 * full - 500  # the certificates do not travel again
        cable.cut()
        seen.wait(Connected)
        assert link.counters.resumed == 2


def test_bytes_are_counted_inside_tls(site: Site, broker: LocalBroker) -> None:
    size, count = 4096, 10
    with Cable(broker.port) as cable, linked(site.settings(DEVICE, cable.port)) as (link, seen):
        seen.wait(Connected)
        up, down_bytes = link.bytes_sent, link.bytes_received
        assert 20 < up < 100
        assert 5 < down_bytes < 50
        wire = cable.bytes_up
        for number in range(count):
            link.publish(TOPICS.up(0, DEVICE, "upload", number), bytes(size))
        eventually(lambda: link.queued == 0)
        topic = len(TOPICS.up(0, DEVICE, "upload", 0))
        # Fixed header 1 + 2, topic length 2, packet identifier 2, properties 1; a PUBACK with a reason has 5 or 6.
        assert link.bytes_sent - up == count * (size + topic + 8)
        assert 4 * count <= link.bytes_received - down_bytes <= 6 * count
        # TLS adds 22 bytes to each record, and a large message has one of its own: it is acknowledged by itself.
        assert cable.bytes_up - wire == link.bytes_sent - up + 22 * count


def test_what_waits_together_leaves_in_few_records_and_one_request(site: Site, broker: LocalBroker) -> None:
    count = 60
    with Cable(broker.port) as cable:
        seen = Recorder()
        link = Link(site.settings(DEVICE, cable.port, window=64), seen)
        for number in range(count):
            link.publish(TOPICS.up(0, DEVICE, "upload", number), b"x")
            link.subscribe(down(number))
        link.start()
        eventually(lambda: len(seen.of(Delivered)) + len(seen.of(Undelivered)) == count)
        topics = sum(len(down(number)) + 3 for number in range(count))
        messages = sum(len(TOPICS.up(0, DEVICE, "upload", number)) + 9 for number in range(count))
        assert link.bytes_sent - topics - messages < 100
        handshake = 1_500
        assert cable.bytes_up - link.bytes_sent < handshake + 22 * count // 4
        link.stop()


def test_the_link_starts_without_numpy() -> None:
    code = "import sys, hushfleet.mqtt.link, hushfleet.mqtt.probe; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# The probe.


def test_the_probe_finds_nothing_wrong_with_a_fit_broker(site: Site, broker: LocalBroker) -> None:
    settings = site.settings(DEVICE, broker.port, will_topic=STATE, will_payload=b"offline")
    assert probe(settings, STATE) == []
    with linked(site.settings(COORDINATOR, broker.port)) as (coordinator, seen):
        coordinator.subscribe(STATE)
        assert seen.wait(Message).payload == b"offline"


@pytest.mark.parametrize(
    ("access", "finding"),
    [("write", "the subscription looked granted"), ("read", "forbids writing on")],
)
def test_the_probe_sees_through_an_access_list(site: Site, tmp_path: Path, access: str, finding: str) -> None:
    (tmp_path / "acl").write_text(f"pattern {access} {TOPICS.states().replace('+', '%u')}\n")
    with site.broker(tmp_path, access_list=tmp_path / "acl") as broker:
        (text,) = probe(site.settings(DEVICE, broker.port), STATE, timeout=1.0)
    assert finding in text


def test_the_probe_names_a_broker_that_is_not_there(site: Site, broker: LocalBroker) -> None:
    broker.stop()
    (text,) = probe(site.settings(DEVICE, broker.port), STATE)
    assert f"nothing listens on localhost:{broker.port}; start the broker" in text


def test_the_probe_names_what_the_broker_says_it_lacks(site: Site) -> None:
    # CONNACK, no session, success; Maximum QoS 0, Retain Available 0.
    with Peer(site, bytes([0x20, 7, 0, 0, 4, 0x24, 0, 0x25, 0])) as peer:
        findings = probe(site.settings(DEVICE, peer.port), STATE, timeout=0.5)
    assert findings[:2] == [
        "the broker does not offer QoS 1; use another one",
        "the broker does not offer retained messages; use another one",
    ]
    assert "has not acknowledged a message within 0.5 s" in findings[2]
