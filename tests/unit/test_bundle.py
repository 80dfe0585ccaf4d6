"""A device's bundle: read whole, or refused with the file and the remedy."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet.cli import fleet
from hushfleet.bundle import Bundle
from hushfleet.errors import ConfigurationError
from hushfleet.wire.documents import Certificate, Root
from hushfleet.wire.framing import Frame, Identity, read


def make_fleet(home: Path) -> Path:
    for arguments in (["init", str(home), "--host", "localhost"], ["add", str(home), "one", "two"]):
        assert CliRunner().invoke(fleet, arguments).exit_code == 0
    return home / "devices"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The devices' bundles of two fleets."""
    return make_fleet(tmp_path_factory.mktemp("a") / "fleet"), make_fleet(tmp_path_factory.mktemp("b") / "fleet")


@pytest.fixture
def devices(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the first fleet's bundles."""
    return Path(shutil.copytree(made[0], tmp_path / "devices"))


def test_a_bundle_is_read_whole(devices: Path) -> None:
    bundle = Bundle.load(devices / "two")
    frame = Frame.from_bytes(bundle.root)
    assert frame.hash(bundle.fleet) == bundle.root_hash
    assert read(frame, Root).fleet == bundle.fleet
    cert = read(Frame.from_bytes(bundle.certificate), Certificate).cert
    assert (cert.index, cert.device) == (bundle.index, bundle.name) == (2, "two")
    assert Identity(2, bundle.identity_seed).public_key == cert.key
    assert bundle.seal_secret is None
    assert [path.name for path in (bundle.tls_certificate, bundle.tls_key, bundle.authority)] == [
        "tls.pem",
        "tls.key",
        "ca.pem",
    ]
    assert (bundle.broker_host, bundle.broker_port) == ("localhost", 8883)


def test_the_coordinators_bundle_has_a_key_to_open_what_is_sealed_to_it(devices: Path) -> None:
    bundle = Bundle.load(devices / "coordinator")
    assert bundle.index == 0
    assert bundle.seal_secret is not None
    assert len(bundle.seal_secret) == 32


def test_no_secret_shows_in_its_repr(devices: Path) -> None:
    bundle = Bundle.load(devices / "coordinator")
    assert bundle.seal_secret is not None
    for secret in (bundle.identity_seed, bundle.seal_secret):
        assert repr(secret)[2:-1] not in repr(bundle)
        assert secret.hex() not in repr(bundle)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_text(path: Path, written: str, instead: str) -> None:
    assert written in path.read_text()
    path.write_text(path.read_text().replace(written, instead))


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: shutil.rmtree(d), "there is no bundle at"),
        *[(lambda d, n=name: (d / n).unlink(), name) for name in ("identity.key", "seal.key", "root.1", "certificate")],
        *[(lambda d, n=name: (d / n).unlink(), name) for name in ("tls.pem", "tls.key", "ca.pem", "bundle.toml")],
        (lambda d: (d / "identity.key").chmod(0o644), r"mode 0644\); run: chmod 600 .*identity\.key"),
        (lambda d: (d / "seal.key").chmod(0o604), r"mode 0604\); run: chmod 600 .*seal\.key"),
        (lambda d: (d / "tls.key").chmod(0o660), r"mode 0660\); run: chmod 600 .*tls\.key"),
        (lambda d: (d / "identity.key").write_text("12"), r"identity\.key is damaged.*copy the bundle again"),
        (lambda d: (d / "identity.key").write_bytes(b"\xff" * 64), r"identity\.key is damaged"),
        (lambda d: (d / "identity.key").write_text("00" * 32), r"identity\.key is not the key that the certificate"),
        (lambda d: (d / "seal.key").write_text("00" * 32), r"seal\.key is not the key that the certificate names"),
        (lambda d: flip(d / "root.1"), r"root\.1 is (damaged|not the fleet root)"),
        (lambda d: (d / "root.1").write_bytes(bytes(20_000)), r"root\.1 is damaged: longer than 16384 bytes"),
        (lambda d: (d / "certificate").write_bytes(b""), "certificate is damaged"),
        (lambda d: shutil.copy(d.parent / "one/certificate", d), r"is of device 'one', index 1, but bundle\.toml"),
        (lambda d: shutil.copy(d.parent / "one/identity.key", d), r"identity\.key is not the key"),
        (
            lambda d: replace_text(d / "bundle.toml", "index = 0", "index = 1"),
            "is of device 'coordinator', index 0, but",
        ),
        (
            lambda d: replace_text(d / "bundle.toml", 'root_hash = "', 'root_hash = "g'),
            "root_hash is not 64 hexadecimal",
        ),
        (lambda d: replace_text(d / "bundle.toml", 'fleet = "', 'fleet = "00'), "fleet is not 32 hexadecimal digits"),
        (lambda d: replace_text(d / "bundle.toml", "broker_port", "broker_prt"), "did you mean 'broker_port'"),
    ],
)
def test_damage_is_named_with_its_remedy(devices: Path, damage: Damage, said: str) -> None:
    Bundle.load(devices / "coordinator")
    damage(devices / "coordinator")
    with pytest.raises(ConfigurationError, match=said):
        Bundle.load(devices / "coordinator")


@pytest.mark.parametrize("name", ["root.1", "certificate"])
def test_parts_of_another_fleet_are_refused(devices: Path, made: tuple[Path, Path], name: str) -> None:
    shutil.copy(made[1] / "one" / name, devices / "one" / name)
    with pytest.raises(ConfigurationError, match=f"{name}.*copy the bundle again"):
        Bundle.load(devices / "one")
