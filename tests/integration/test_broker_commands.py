"""`hushfleet broker run` and `check`, on a fleet from the owners' desk and against a real Mosquitto."""

import queue
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from broker_tools import DEADLINE, Peer
from click.testing import CliRunner, Result
from cryptography import x509
from nacl.utils import random

from broker.check import capabilities, list_retained
from broker.cli import broker
from broker.directory import FleetDirectory
from broker.local import HOST, free_port
from broker.render import OPERATOR
from fleet.desk import Desk
from fleet.renewal import renew_broker
from hushfleet.errors import ConfigurationError, LinkError
from hushfleet.mqtt.events import LinkEvent, LinkSettings, Message
from hushfleet.mqtt.link import Link
from hushfleet.mqtt.topics import Topics
from hushfleet.wire.documents import MEMBER, PARTICIPANT

pytestmark = pytest.mark.integration

MEMBER_INDEX, DEVICE_INDEX = 1, 5


class Site:
    """A signed fleet and its broker, started as an operator would."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        desk = Desk.create(home, hosts=(HOST,), port=self.port, settings=None, draw=random, now=int(time.time()))
        for names, role in ((("a", "b", "c", "d"), PARTICIPANT | MEMBER), (("e", "f"), PARTICIPANT)):
            desk.add(names, role, "gateway-wifi", draw=random, now=int(time.time()))
        self.sign()
        self.topics = Topics(desk.fleet())
        self.log = home / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def sign(self) -> None:
        with Desk.open(self.home) as desk:
            desk.sign(draw=random, now=int(time.time()))

    def start(self) -> None:
        command = [sys.executable, "-m", "hushfleet", "broker", "run", "--fleet", str(self.home)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*command, "--address", HOST], stdin=subprocess.DEVNULL, stderr=log)
        deadline = time.monotonic() + DEADLINE
        while True:
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            try:
                socket.create_connection((HOST, self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(DEADLINE)

    def peer(self, name: str) -> Peer:
        """A client with the certificate in this device's bundle."""
        bundle = self.home / "devices" / name
        peer = Peer(self.port, bundle / "ca.pem", bundle)
        assert peer.outcome.get(timeout=DEADLINE) == "connected Success"
        return peer

    def operator(self) -> LinkSettings:
        transport = self.home / "transport"
        return LinkSettings(
            HOST,
            self.port,
            transport / "ca.pem",
            transport / f"{OPERATOR}.pem",
            transport / f"{OPERATOR}.key",
            OPERATOR,
        )

    @property
    def own_topic(self) -> str:
        return f"hf/{self.topics.fleet}/state/{OPERATOR}"

    def check(self, *options: str) -> Result:
        command = ["check", "--fleet", str(self.home), *options]
        return CliRunner().invoke(broker, command)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("fleet") / "home")
    site.start()
    yield site
    site.signal(signal.SIGTERM)
    site.wait()


def test_what_nothing_explains_is_listed_with_whose_it_is_and_cleared(site: Site) -> None:
    topics, coordinator, member, device = site.topics, site.peer("coordinator"), site.peer("a"), site.peer("e")
    coordinator.publish(topics.manifest(), b"the manifest", retain=True)
    coordinator.publish(topics.document("roster", 9, 0), b"of a manifest to come", retain=True)
    member.publish(topics.card(7, MEMBER_INDEX), b"a card for an epoch that never was", retain=True)
    device.publish(topics.up(0, DEVICE_INDEX, "upload", 1), b"an upload", retain=True)
    device.publish(topics.state(DEVICE_INDEX), b"online", retain=True)

    listed = site.check()
    assert listed.exit_code == 1
    assert "retained: 5 messages, 3 of them unexplained" in listed.output
    assert f"{topics.card(7, MEMBER_INDEX)}: device 1 (a) has left it from epoch 7" in listed.output
    assert f"{topics.up(0, DEVICE_INDEX, 'upload', 1)}: device 5 has retained" in listed.output
    assert f"{topics.document('roster', 9, 0)}: the manifest does not list version 9 of roster" in listed.output

    cleared = site.check("--clear")
    assert cleared.exit_code == 0, cleared.output
    assert "cleared 3" in cleared.output
    again = site.check()
    assert again.exit_code == 0
    assert "retained: 2 messages, 0 of them unexplained" in again.output
    found = list_retained(site.operator(), f"hf/{topics.fleet}/#", site.own_topic)
    assert found == {topics.manifest(): b"the manifest", topics.state(DEVICE_INDEX): b"online"}


def test_passing_messages_are_not_listed(site: Site) -> None:
    everything, upload = f"hf/{site.topics.fleet}/#", site.topics.up(0, DEVICE_INDEX, "upload", 1)
    heard: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    listener = Link(site.operator(), heard.put)
    listener.start()
    listener.subscribe(everything)
    listener.publish(site.own_topic, b"listening")
    while not isinstance(heard.get(timeout=DEADLINE), Message):
        continue
    listener.stop()
    # Kept by the broker for the operator's session, which therefore hears it during the listing.
    assert site.peer("e").publish(upload) == 0
    assert upload not in list_retained(site.operator(), everything, site.own_topic)


def test_the_check_finds_a_broker_that_keeps_no_session(site: Site) -> None:
    assert capabilities(site.operator(), site.own_topic) == []
    (missing,) = capabilities(replace(site.operator(), session_expiry=0), site.own_topic)
    assert "does not keep a client's session" in missing


def test_the_check_needs_the_operators_certificate(site: Site) -> None:
    device = site.home / "devices" / "e"
    settings = replace(site.operator(), certificate=device / "tls.pem", key=device / "tls.key")
    (missing,) = capabilities(settings, site.own_topic)
    assert "forbids writing" in missing
    with pytest.raises(LinkError, match=r"refuses .* 0x87"):
        list_retained(settings, f"hf/{site.topics.fleet}/#", site.own_topic)
    result = site.check("--identity", str(device))
    assert isinstance(result.exception, ConfigurationError)
    assert "operator.pem does not exist" in str(result.exception)


def test_a_revocation_reaches_the_running_broker_by_render_and_reload(site: Site) -> None:
    topics, device = site.topics, site.peer("f")
    upload = topics.up(0, 6, "upload", 1)
    assert device.publish(upload) != 0x87
    with Desk.open(site.home) as desk:
        desk.revoke("f", now=int(time.time()))
    site.sign()
    out = site.home / "broker"
    command = ["render", "--fleet", site.home, "--out", out, "--address", HOST]
    rendered = CliRunner().invoke(broker, [str(word) for word in command])
    assert rendered.exit_code == 0, rendered.output
    assert FleetDirectory.load(site.home).access().revoked == (6,)
    before = site.log.read_text().count("Reloading config.")
    site.signal(signal.SIGHUP)
    deadline = time.monotonic() + DEADLINE
    while site.log.read_text().count("Reloading config.") == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert device.publish(upload) == 0x87
    assert "crl.pem" in (out / "mosquitto.conf").read_text()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_and_keeps_its_state(site: Site, how: signal.Signals) -> None:
    coordinator = site.peer("coordinator")
    coordinator.publish(site.topics.plan(), b"a plan", retain=True)
    site.signal(how)
    assert site.wait() == 0
    site.start()
    assert list_retained(site.operator(), f"hf/{site.topics.fleet}/#", site.own_topic)[site.topics.plan()] == b"a plan"


def test_a_port_in_use_is_named(site: Site) -> None:
    command = [sys.executable, "-m", "hushfleet", "broker", "run", "--fleet", str(site.home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 2
    assert f"port {site.port}: Address already in use; choose another --port" in done.stderr


def test_without_the_fleets_address_the_port_must_be_named(site: Site) -> None:
    place = site.home / "transport" / "broker.toml"
    text = place.read_text()
    command = ["render", "--fleet", str(site.home), "--out", str(site.home / "elsewhere")]
    for content, said in (
        (None, r"there is no .*broker\.toml; copy transport"),
        ("hosts = []\nport = 1", "hosts is empty"),
    ):
        place.unlink()
        if content is not None:
            place.write_text(content)
        with pytest.raises(ConfigurationError, match=said):
            CliRunner().invoke(broker, command, catch_exceptions=False)
        assert CliRunner().invoke(broker, [*command, "--port", "1"], catch_exceptions=False).exit_code == 0
        place.write_text(text)


def test_a_renewed_certificate_is_served_after_a_restart(site: Site) -> None:
    with Desk.open(site.home) as desk:
        renew_broker(desk, ())
    site.signal(signal.SIGTERM)
    assert site.wait() == 0
    site.start()
    serial = x509.load_pem_x509_certificate((site.home / "transport/broker.pem").read_bytes()).serial_number
    context = ssl.create_default_context(cafile=site.home / "devices/e/ca.pem")
    context.load_cert_chain(site.home / "devices/e/tls.pem", site.home / "devices/e/tls.key")
    with socket.create_connection((HOST, site.port)) as raw, context.wrap_socket(raw, server_hostname=HOST) as secured:
        served = secured.getpeercert(binary_form=True)
    assert served is not None
    assert x509.load_der_x509_certificate(served).serial_number == serial
    # The bundle that was handed out before the renewal still opens the door.
    site.peer("e")
