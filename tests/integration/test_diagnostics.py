"""What can go wrong on the way to a broker, really made to go wrong: named with its remedy at the first failure."""

import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from link_tools import DEVICE, OTHER, Cable, Peer, Site, linked

from broker.local import HOST, LocalBroker, free_port
from fleet.transport import create_authority, issue_client, revocation_list, write_file, write_key_pair
from hushfleet.errors import ConfigurationError
from hushfleet.mqtt.events import Connected, Disconnected, LinkSettings
from hushfleet.mqtt.link import Link

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def broker(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    with site.broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


def first_failure(settings: LinkSettings) -> str:
    with linked(settings) as (_, seen):
        event = seen.wait(Disconnected)
        assert seen.of(Connected) == []
    return f"{event.reason}; {event.remedy}"


# The network.


def test_a_name_that_does_not_resolve(site: Site) -> None:
    text = first_failure(site.settings(DEVICE, 8883, host="broker.invalid"))
    assert "the broker's name broker.invalid cannot be resolved" in text
    assert "configuration" in text


def test_a_name_that_cannot_be_one(site: Site) -> None:
    text = first_failure(site.settings(DEVICE, 8883, host="x" * 64 + ".example"))
    assert "cannot be resolved" in text


def test_a_port_on_which_nothing_listens(site: Site) -> None:
    port = free_port()
    text = first_failure(site.settings(DEVICE, port))
    assert f"nothing listens on localhost:{port}; start the broker, or correct the port" in text


def test_an_address_that_never_answers(site: Site, broker: LocalBroker) -> None:
    with Cable(broker.port) as cable:
        cable.go_silent()
        text = first_failure(site.settings(DEVICE, cable.port, connect_timeout=0.3))
    assert f"localhost:{cable.port} does not answer within 0.3 s" in text
    assert "firewalls" in text


# Something else than our broker.


def test_a_port_without_tls(site: Site, tmp_path: Path) -> None:
    port = free_port()
    with LocalBroker(tmp_path, port, f"listener {port} {HOST}\nallow_anonymous true\n"):
        text = first_failure(site.settings(DEVICE, port))
    assert "does not speak TLS" in text
    assert "8883" in text


def test_a_web_server_without_tls(site: Site) -> None:
    with http.server.HTTPServer((HOST, 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = first_failure(site.settings(DEVICE, server.server_port))
        server.shutdown()
    assert "does not speak TLS" in text


def test_a_web_server_with_tls(site: Site) -> None:
    with Peer(site, b"HTTP/1.1 400 Bad Request\r\n\r\n") as peer:
        text = first_failure(site.settings(DEVICE, peer.port))
    assert f"localhost:{peer.port} speaks TLS but is not an MQTT broker" in text


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0x84, "does not speak MQTT 5"),
        (0x87, "hushfleet broker render"),
        (0x88, "not available"),
        (0x8C, "reason code 0x8c"),
    ],
)
def test_a_broker_that_says_no(site: Site, code: int, expected: str) -> None:
    with Peer(site, bytes([0x20, 3, 0, code, 0])) as peer:
        text = first_failure(site.settings(DEVICE, peer.port))
    assert f"(client 7, code 0x{code:02x})" in text
    assert expected in text


def test_a_broker_that_speaks_nonsense_later(site: Site) -> None:
    # CONNACK, then a PUBACK without a packet number.
    with (
        Peer(site, bytes([0x20, 3, 0, 0, 0]), bytes([0x40, 0])) as peer,
        linked(site.settings(DEVICE, peer.port)) as (link, seen),
    ):
        seen.wait(Connected)
        assert "sent something that is not MQTT 5" in seen.wait(Disconnected).reason
        seen.wait(Connected)
        assert link.counters.connections >= 2


def test_a_broker_that_says_why_it_goes(site: Site) -> None:
    with (
        Peer(site, bytes([0x20, 3, 0, 0, 0]), bytes([0xE0, 2, 0x8B, 0])) as peer,
        linked(site.settings(DEVICE, peer.port)) as (_, seen),
    ):
        seen.wait(Connected)
        assert "says that it is shutting down" in seen.wait(Disconnected).reason


# The broker's certificate.


def test_a_broker_of_another_authority(site: Site, broker: LocalBroker, tmp_path: Path) -> None:
    # The same name, as two fleets set up alike have.
    write_file(tmp_path / "ca.pem", create_authority("test").certificate_pem, mode=0o644)
    text = first_failure(site.settings(DEVICE, broker.port, ca=tmp_path / "ca.pem"))
    assert f"is not signed by the authority in {tmp_path / 'ca.pem'}" in text
    assert "another fleet" in text


def test_a_broker_certified_for_another_name(site: Site, broker: LocalBroker) -> None:
    text = first_failure(site.settings(DEVICE, broker.port, host=HOST))
    assert f"is not made out to {HOST}" in text
    assert f"--host {HOST}" in text


@pytest.mark.parametrize(("start", "end", "expected"), [(-2, -1, "has expired"), (1, 2, "is not valid yet")])
def test_a_broker_certificate_outside_its_time(site: Site, tmp_path: Path, start: int, end: int, expected: str) -> None:
    certificate, key = issue_for_days(site, tmp_path, "localhost", start, end)
    with Peer(site, certificate=certificate, key=key) as peer:
        text = first_failure(site.settings(DEVICE, peer.port))
    assert f"{expected} by this machine's clock; set this machine's clock if it is wrong" in text


def test_a_broker_with_a_device_certificate(site: Site) -> None:
    directory = site.directory
    with Peer(site, certificate=directory / f"{OTHER}.pem", key=directory / f"{OTHER}.key") as peer:
        text = first_failure(site.settings(DEVICE, peer.port))
    assert "is not one for a broker" in text


def test_a_broker_without_tls_1_3(site: Site) -> None:
    with old_server(site) as port:
        text = first_failure(site.settings(DEVICE, port))
    assert "does not speak TLS 1.3" in text


# Our certificate.


def test_our_certificate_of_another_authority(site: Site, broker: LocalBroker, tmp_path: Path) -> None:
    write_key_pair(tmp_path, "7", issue_client(create_authority("foreign"), "7"))
    settings = site.settings(DEVICE, broker.port, certificate=tmp_path / "7.pem", key=tmp_path / "7.key")
    assert_names_our_certificate(first_failure(settings), tmp_path / "7.pem")


def test_our_certificate_has_expired(site: Site, broker: LocalBroker, tmp_path: Path) -> None:
    certificate, key = issue_for_days(site, tmp_path, "7", -2, -1)
    settings = site.settings(DEVICE, broker.port, certificate=certificate, key=key)
    assert_names_our_certificate(first_failure(settings), certificate)


def test_our_certificate_was_revoked(site: Site, tmp_path: Path) -> None:
    pair = issue_client(site.authority, "9")
    write_key_pair(tmp_path, "9", pair)
    write_file(tmp_path / "crl.pem", revocation_list(site.authority, [pair.serial]), mode=0o644)
    with site.broker(tmp_path, revocation_list=tmp_path / "crl.pem") as broker:
        revoked = site.settings(
            DEVICE, broker.port, certificate=tmp_path / "9.pem", key=tmp_path / "9.key", client_id="9"
        )
        assert_names_our_certificate(first_failure(revoked), tmp_path / "9.pem")
        with linked(site.settings(DEVICE, broker.port)) as (_, seen):
            seen.wait(Connected)


def test_a_client_without_a_certificate_is_refused_only_after_the_handshake(site: Site, broker: LocalBroker) -> None:
    context = ssl.create_default_context(cafile=str(site.ca))
    connect = bytes([0x10, 13, 0, 4]) + b"MQTT" + bytes([5, 2, 0, 60, 0, 0, 0])
    near = socket.create_connection((HOST, broker.port), timeout=10)
    with context.wrap_socket(near, server_hostname="localhost") as connection:
        assert connection.version() == "TLSv1.3"
        try:
            connection.sendall(connect)
            answer = connection.recv(100)
        except (ssl.SSLError, ConnectionResetError):
            answer = b""
    assert answer == b""


def assert_names_our_certificate(text: str, certificate: Path) -> None:
    """Whether the broker's alert or only its silence arrives first is up to the network."""
    assert str(certificate) in text
    assert "does not accept our certificate" in text
    assert "copy certificate and key again" in text


# Our files.


def test_files_that_are_missing_or_no_files(site: Site, tmp_path: Path) -> None:
    for name in ("ca", "certificate", "key"):
        with pytest.raises(ConfigurationError, match="does not exist; correct its path"):
            link_with(site, **{name: tmp_path / "absent"})
        with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
            link_with(site, **{name: tmp_path})


def test_files_that_hold_something_else(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text("not a certificate\n")
    with pytest.raises(ConfigurationError, match="holds no certificate in PEM form"):
        link_with(site, ca=other)
    with pytest.raises(ConfigurationError, match="are not a certificate and a private key"):
        link_with(site, certificate=other)
    with pytest.raises(ConfigurationError, match="are not a certificate and a private key"):
        link_with(site, key=other)


def test_a_key_of_another_certificate(site: Site) -> None:
    with pytest.raises(ConfigurationError, match=r"8\.key does not belong to the certificate .*7\.pem"):
        link_with(site, key=site.directory / f"{OTHER}.key")


def test_a_key_with_a_password(site: Site, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key((site.directory / f"{DEVICE}.key").read_bytes(), None)
    (tmp_path / "locked.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigurationError, match="protected by a password"):
        link_with(site, key=tmp_path / "locked.key")


def link_with(site: Site, **changes: object) -> None:
    Link(site.settings(DEVICE, 8883, **changes), print)


# Peers.


def issue_for_days(site: Site, directory: Path, name: str, start: int, end: int) -> tuple[Path, Path]:
    """A certificate of the fleet's authority for host or client `name`, valid from and to days from now."""
    ca_key = serialization.load_pem_private_key(site.authority.key_pem, None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate(site.authority.certificate_pem)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=start))
        .not_valid_after(now + timedelta(days=end))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    paths = directory / f"{name}.pem", directory / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@contextmanager
def old_server(site: Site) -> Iterator[int]:
    """A TLS server that stops at version 1.2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.directory / "broker.pem", site.directory / "broker.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_server((HOST, 0)) as listener:

        def accept() -> None:
            near, _ = listener.accept()
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(near, server_side=True)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
