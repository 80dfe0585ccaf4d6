"""Certificates that run out: new ones in time, and everybody told before."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fleet_tools import Empty

from broker.directory import FleetDirectory
from fleet.cli import fleet
from fleet.desk import Desk
from fleet.renewal import warnings
from hushfleet.bundle import Bundle
from hushfleet.errors import ConfigurationError
from hushfleet.mqtt.validity import NOTICE, expiring, not_after
from hushfleet.trust import Trust
from hushfleet.wire.documents import Certificate, Roster
from hushfleet.wire.framing import Frame

DAY = 86_400


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(fleet, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A signed fleet of five members and one participant."""
    home = tmp_path / "acme"
    invoke("init", home, "--host", "broker.example", "--port", 8884)
    invoke("add", home, "a", "b", "c", "d", "e", "--role", "both")
    invoke("add", home, "f")
    invoke("sign", home)
    return home


def certificate(home: Path, index: int) -> Certificate:
    return Certificate.from_body(Frame.from_bytes((home / f"documents/cert/{index}").read_bytes()).body)


def understand_each_other(transport: Path, client: Path, host: str) -> bool:
    """Whether TLS 1.3 with certificates on both sides succeeds between these files."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.verify_mode = ssl.CERT_REQUIRED
    server_side.load_verify_locations(transport / "ca.pem")
    server_side.load_cert_chain(transport / "broker.pem", transport / "broker.key")
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.load_verify_locations(client / "ca.pem")
    client_side.load_cert_chain(client / "tls.pem", client / "tls.key")
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client_side.wrap_bio(down, up, server_hostname=host)
    far = server_side.wrap_bio(up, down, server_side=True)
    for end in (near, far, near, far):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:
            return False
    return True


def copied(directory: Path, place: Path) -> Path:
    place.mkdir()
    for file in directory.iterdir():
        if file.is_file():
            (place / file.name).write_bytes(file.read_bytes())
    return place


def test_broker_and_devices_are_renewed_one_after_the_other(home: Path, tmp_path: Path) -> None:
    old_broker, old_device = copied(home / "transport", tmp_path / "t"), copied(home / "devices/a", tmp_path / "d")
    said = invoke("renew", home).output
    assert f"copy {home / 'transport'} to the broker" in said
    invoke("renew", home, "a")
    assert (home / "transport/ca.pem").read_bytes() != (old_broker / "ca.pem").read_bytes()
    assert (home / "devices/a/ca.pem").read_bytes() == (home / "transport/ca.pem").read_bytes()
    for transport in (old_broker, home / "transport"):
        for device in (old_device, home / "devices/a"):
            assert understand_each_other(transport, device, "broker.example")


def test_the_broker_may_move_to_other_names(home: Path) -> None:
    invoke("renew", home, "--host", "new.example", "--host", "broker.example")
    for host, fits in (("new.example", True), ("broker.example", True), ("other.example", False)):
        assert understand_each_other(home / "transport", home / "devices/a", host) == fits
    assert FleetDirectory.load(home).address().hosts == ("new.example", "broker.example")
    invoke("add", home, "g")
    assert Bundle.load(home / "devices/g").broker_host == "new.example"


def test_a_renewed_device_gets_its_certificate_over_the_broker(home: Path) -> None:
    bundle = Bundle.load(home / "devices/f")
    trust = Trust(bundle.fleet, bundle.root_hash, (), Empty(), 0)
    trust.offer_root(bundle.root)
    before = certificate(home, 6)
    trust.offer_certificate(bundle.certificate, before.cert.key)
    text = (home / "fleet.toml").read_text()
    (home / "fleet.toml").write_text(text.replace("certificates = 3653", "certificates = 4000"))
    invoke("renew", home, "f")
    after = certificate(home, 6)
    assert after.cert.not_after >= before.cert.not_after + 347 * DAY
    assert (after.cert.index, after.cert.key, after.cert.roles) == (6, before.cert.key, before.cert.roles)
    trust.offer_certificate((home / "documents/cert/6").read_bytes(), before.cert.key)
    assert trust.certificate == after
    roster = Roster.from_body(Frame.from_bytes((home / "documents/roster").read_bytes()).body)
    assert roster.by_index()[6].not_after == after.cert.not_after
    Bundle.load(home / "devices/f")


def test_what_is_to_be_copied_is_there_after_the_bundle_has_left(home: Path) -> None:
    for file in (home / "devices/f").iterdir():
        file.unlink()
    (home / "devices/f").rmdir()
    said = invoke("renew", home, "f").output
    assert f"copy tls.pem, tls.key and ca.pem from {home / 'devices/f'} into its bundle" in said
    assert {file.name for file in (home / "devices/f").iterdir()} == {"tls.pem", "tls.key", "ca.pem", "certificate"}
    assert (home / "devices/f/tls.key").stat().st_mode & 0o777 == 0o600


def test_a_revocation_covers_every_certificate_of_the_device(home: Path) -> None:
    pems = [(home / "devices/f/tls.pem").read_bytes()]
    for _ in range(2):
        invoke("renew", home, "f")
        pems.append((home / "devices/f/tls.pem").read_bytes())
    invoke("revoke", home, "f")
    revoked = {entry.serial_number for entry in x509.load_pem_x509_crl((home / "transport/crl.pem").read_bytes())}
    assert revoked == {x509.load_pem_x509_certificate(pem).serial_number for pem in pems}
    with pytest.raises(ConfigurationError, match="f is revoked, which is for ever"):
        invoke("renew", home, "f")


def test_the_owner_is_told_what_runs_out_and_what_renews_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Desk.open(home) as desk:
        ends = not_after(home / "transport/ca.pem")
        assert warnings(desk, ends - NOTICE) == []
        broker, devices = warnings(desk, ends - NOTICE + 7 * DAY)
    assert "the broker's certificates run out on 20" in broker
    assert broker.endswith(f"hushfleet fleet renew {home}")
    assert devices.startswith("the certificates of coordinator, a, b, c, d and 2 more run out, the first on 20")
    assert devices.endswith(f"hushfleet fleet renew {home} NAME…")
    monkeypatch.setattr("fleet.cli._now", lambda: ends - 30 * DAY)
    listed = invoke("list", home).output
    assert broker in listed
    assert "the documents run out on" in listed


def test_what_was_renewed_is_not_warned_of(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (home / "fleet.toml").read_text()
    (home / "fleet.toml").write_text(text.replace("certificates = 3653", "certificates = 5000"))
    monkeypatch.setattr("fleet.transport.LIFETIME", timedelta(days=5000))
    invoke("renew", home)
    invoke("renew", home, "coordinator", *"abcdef")
    with Desk.open(home) as desk:
        assert warnings(desk, int(datetime.now(UTC).timestamp()) + 4000 * DAY) == []


def test_a_new_certificate_beside_an_old_authority_lasts_no_longer_than_that(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.transport.LIFETIME", timedelta(days=5000))
    invoke("renew", home, "f")
    with Desk.open(home) as desk:
        assert desk.register().line("f").tls_until == not_after(home / "transport/ca.pem")
        assert desk.register().line("f").tls_until < not_after(home / "devices/f/tls.pem")


@pytest.mark.parametrize("year", [1999, 2049, 2050, 2999])
def test_the_end_of_a_certificate_is_read_as_it_stands_there(tmp_path: Path, year: int) -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 60)])
    end = datetime(year, 12, 31, 23, 59, 58, tzinfo=UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "x.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    assert not_after(file) == int(end.timestamp())
    assert expiring([file], end.timestamp() - NOTICE - 1) == []
    assert f"runs out on {year}-12-31; the owner makes a new one with" in expiring([file], end.timestamp())[0]
    assert "has run out" in expiring([file], end.timestamp() + 1)[0]


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff", b"-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----"]
)
def test_what_is_no_certificate_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pem").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"x\.pem holds no certificate"):
        not_after(tmp_path / "x.pem")
