"""A Mosquitto of one's own: what its directory, port and process do over starts, stops and mistakes."""

import re
import socket
from pathlib import Path

import pytest
from broker_tools import Peer, TlsBroker

from broker.local import HOST, LocalBroker, check_address, free_port, version
from broker.render import OPERATOR
from hushfleet.errors import ConfigurationError

pytestmark = pytest.mark.integration


def kept(broker: TlsBroker, topic: str, payload: bytes = b"") -> dict[str, bytes]:
    """Retain `payload` on `topic`, if there is one; what the broker then has retained there."""
    peer = Peer(broker.port, broker.settings.authority, broker.identity(OPERATOR))
    if payload:
        peer.publish(topic, payload, retain=True)
    peer.subscribe(topic)
    peer.publish(topic, b"end")
    found = peer.until(b"end")
    peer.close()
    return found


def test_an_orderly_stop_keeps_what_is_retained_and_an_empty_start_forgets_it(tls_broker: TlsBroker) -> None:
    topic = tls_broker.topics.plan()
    assert kept(tls_broker, topic, b"a plan") == {topic: b"a plan"}
    tls_broker.process.restart()
    assert kept(tls_broker, topic) == {topic: b"a plan"}
    tls_broker.process.restart(empty=True)
    assert kept(tls_broker, topic) == {}


def test_it_starts_again_on_its_port_after_a_kill(tls_broker: TlsBroker) -> None:
    tls_broker.process.kill()
    assert not tls_broker.process.running()
    check_address(HOST, tls_broker.port)
    tls_broker.process.start()
    assert kept(tls_broker, tls_broker.topics.plan(), b"x")


def test_the_version_is_the_one_in_its_log(tls_broker: TlsBroker) -> None:
    assert re.fullmatch(r"mosquitto version \d+\.\d+\.\d+", version())
    assert f"{version()} starting" in tls_broker.process.log.read_text()


def test_extra_lines_are_part_of_the_configuration(tmp_path: Path) -> None:
    port = free_port()
    process = LocalBroker(tmp_path, port, f"listener {port} {HOST}\nallow_anonymous true")
    with pytest.raises(ConfigurationError, match=r'Unknown configuration variable "nonsense".*mosquitto\.conf:3'):
        process.start(["nonsense true"])
    assert not process.running()
    with process:
        assert process.running()
        with pytest.raises(ConfigurationError, match="running already"):
            process.start()
    assert not process.running()


def test_a_stranger_on_the_port_is_named_and_left_alone(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as stranger:
        port = stranger.getsockname()[1]
        process = LocalBroker(tmp_path, port, f"listener {port} {HOST}")
        with pytest.raises(ConfigurationError, match=f"port {port}: Address already in use"):
            process.start()
        socket.create_connection((HOST, port), timeout=5).close()


def test_a_broker_that_is_not_running_cannot_be_reloaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not running"):
        LocalBroker(tmp_path, free_port(), "").reload()
