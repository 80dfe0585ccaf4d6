"""The fleet's transport authority: what its certificates say, and that TLS stacks agree."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet.transport import (
    Authority,
    KeyPair,
    create_authority,
    issue_broker,
    issue_client,
    revocation_list,
    write_key_pair,
)
from hushfleet.errors import ConfigurationError

AUTHORITY = create_authority("orchard")


def handshake(server_pair: KeyPair, client_pair: KeyPair, directory: Path, host: str, crl: bytes | None = None) -> str:
    """Run mutual TLS 1.3 in memory; the client's common name as the server saw it."""
    for stem, pair in (("server", server_pair), ("client", client_pair)):
        write_key_pair(directory, stem, pair)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=AUTHORITY.certificate_pem.decode())
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(directory / "server.pem", directory / "server.key")
    if crl is not None:
        (directory / "crl.pem").write_bytes(crl)
        server.load_verify_locations(directory / "crl.pem")
        server.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=AUTHORITY.certificate_pem.decode())
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    client.load_cert_chain(directory / "client.pem", directory / "client.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client.wrap_bio(to_client, to_server, server_hostname=host)
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (client_side, server_side, client_side):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    server_side.do_handshake()
    presented = server_side.getpeercert(binary_form=True)
    assert presented is not None
    return common_name(x509.load_der_x509_certificate(presented))


def common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def extended_usages(pair: KeyPair) -> list[x509.ObjectIdentifier]:
    certificate = x509.load_pem_x509_certificate(pair.certificate_pem)
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "broker.example.org"])
def test_mutual_tls_accepts_the_fleets_own_certificates(tmp_path: Path, host: str) -> None:
    broker = issue_broker(AUTHORITY, ["localhost", "127.0.0.1", "broker.example.org"])
    assert handshake(broker, issue_client(AUTHORITY, "4294967295"), tmp_path, host) == "4294967295"


def test_a_name_outside_the_brokers_certificate_is_refused(tmp_path: Path) -> None:
    broker = issue_broker(AUTHORITY, ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(broker, issue_client(AUTHORITY, "1"), tmp_path, "broker.example.org")


def test_a_foreign_authority_of_the_same_name_is_refused(tmp_path: Path) -> None:
    foreign = create_authority("orchard")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(issue_broker(AUTHORITY, ["localhost"]), issue_client(foreign, "1"), tmp_path, "localhost")


def test_a_client_cannot_pose_as_the_broker_nor_the_broker_as_a_client(tmp_path: Path) -> None:
    client, broker = issue_client(AUTHORITY, "1"), issue_broker(AUTHORITY, ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(client, client, tmp_path, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(broker, broker, tmp_path, "localhost")
    assert extended_usages(client) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert extended_usages(broker) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_a_revocation_list_refuses_the_revoked_alone(tmp_path: Path) -> None:
    broker = issue_broker(AUTHORITY, ["localhost"])
    lost, kept = issue_client(AUTHORITY, "1"), issue_client(AUTHORITY, "2")
    crl = revocation_list(AUTHORITY, [lost.serial])
    assert handshake(broker, kept, tmp_path, "localhost", crl) == "2"
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        handshake(broker, lost, tmp_path, "localhost", crl)


def test_validity_starts_in_1970_and_ends_in_ten_years() -> None:
    issued = [AUTHORITY, issue_broker(AUTHORITY, ["localhost"]), issue_client(AUTHORITY, "1")]
    crl = x509.load_pem_x509_crl(revocation_list(AUTHORITY, []))
    ends = [x509.load_pem_x509_certificate(pair.certificate_pem).not_valid_after_utc for pair in issued]
    for end in [*ends, crl.next_update_utc]:
        assert end is not None
        assert timedelta(days=3652) < end - datetime.now(UTC) < timedelta(days=3654)
    for pair in issued:
        certificate = x509.load_pem_x509_certificate(pair.certificate_pem)
        assert certificate.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
        public_key = certificate.public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        assert isinstance(public_key.curve, ec.SECP256R1)


def test_the_common_name_is_the_roster_index() -> None:
    assert common_name(x509.load_pem_x509_certificate(issue_client(AUTHORITY, "17").certificate_pem)) == "17"


@pytest.mark.parametrize("name", ["", "+", "#", "1/2", "a b", "Ünal", "x" * 65, "1\n"])
def test_a_common_name_that_could_widen_a_topic_pattern_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="common name"):
        issue_client(AUTHORITY, name)


@pytest.mark.parametrize("hosts", [[], [""], ["two words"], ["localhost", "bröker"], ["-x"], ["https://broker"]])
def test_a_host_that_is_no_name_or_address_is_refused(hosts: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="--host"):
        issue_broker(AUTHORITY, hosts)


def test_a_damaged_or_mismatched_authority_is_named() -> None:
    with pytest.raises(ConfigurationError, match="damaged"):
        issue_client(Authority(b"nonsense", AUTHORITY.certificate_pem), "1")
    with pytest.raises(ConfigurationError, match="does not belong"):
        issue_client(Authority(AUTHORITY.key_pem, create_authority("other").certificate_pem), "1")


def test_keys_are_written_private_and_never_shown(tmp_path: Path) -> None:
    pair = issue_client(AUTHORITY, "3")
    (tmp_path / "3.key").write_text("readable by all until now")
    write_key_pair(tmp_path, "3", pair)
    assert stat.S_IMODE((tmp_path / "3.key").stat().st_mode) == 0o600
    assert (tmp_path / "3.key").read_bytes() == pair.key_pem
    assert (tmp_path / "3.pem").read_bytes() == pair.certificate_pem
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.key", "3.pem"]
    assert "PRIVATE" not in repr(pair) + repr(AUTHORITY)
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_key_pair(tmp_path / "missing", "3", pair)
