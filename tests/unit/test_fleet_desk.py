"""The owner's directory through its command line: layout, modes, what is refused, what survives."""

import json
import multiprocessing
import shutil
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from fleet_tools import Empty
from golden_fleet import Records
from nacl.utils import random

from coordinator.conductor import _take
from coordinator.documents import NAMES, read_documents
from edge_agent.agent import link_of, link_settings, make_trust
from edge_agent.settings import AgentSettings
from firmware_profiles import catalog
from fleet.cli import fleet
from fleet.desk import Desk
from hushfleet.bundle import Bundle
from hushfleet.errors import ConfigurationError
from hushfleet.trust import READY, Trust
from hushfleet.wire.documents import PARTICIPANT, CommitteeDocument, Manifest, Profiles, Roster
from hushfleet.wire.framing import Frame, indices
from hushfleet.wire.schema import Channel, Schema, Standardised

NOW = 1_800_000_000


def invoke(*arguments: object) -> Result:
    """Run `hushfleet fleet …`; an error raised on purpose is raised here too."""
    result = CliRunner().invoke(fleet, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed fleet of six devices, five of them members; tests that change it take a copy."""
    home = tmp_path_factory.mktemp("desk") / "acme"
    invoke("init", home, "--host", "broker.example", "--host", "127.0.0.1", "--port", 8884)
    invoke("add", home, "a", "b", "c", "d", "e", "--role", "both")
    invoke("add", home, "f", "--profile", "gateway-2g")
    invoke("sign", home)
    return home


@pytest.fixture
def home(signed: Path, tmp_path: Path) -> Path:
    """A copy of the signed fleet."""
    return Path(shutil.copytree(signed, tmp_path / "acme"))


def document(home: Path, name: str) -> Frame:
    return Frame.from_bytes((home / "documents" / name).read_bytes())


def test_the_directory_is_as_agreed_and_its_secrets_are_the_owners_alone(signed: Path) -> None:
    bundle = {"bundle.toml", "identity.key", "root.1", "certificate", "tls.pem", "tls.key", "ca.pem"}
    keys = {"root-1.key", "root-2.key", "root-3.key", "signer-1.key", "fresh-1.key", "ca.key"}
    documents = {"root.1", "manifest", "date", "committee", "roster", "policy", "model", "profile"}
    transport = {"ca.pem", "broker.pem", "broker.key", "broker.toml", "operator.pem", "operator.key"}
    expected = {"fleet.toml", "register.json"} | {f"transport/{name}" for name in transport}
    expected |= {f"keys/{name}" for name in keys} | {f"documents/{name}" for name in documents}
    expected |= {f"documents/cert/{index}" for index in range(7)}
    expected |= {"profiles/gateway-wifi.toml", "profiles/gateway-2g.toml"}
    expected |= {f"devices/{device}/{name}" for device in "abcdef" for name in bundle}
    expected |= {f"devices/coordinator/{name}" for name in bundle | {"seal.key"}}
    files = [file for file in signed.rglob("*") if file.is_file()]
    assert {str(file.relative_to(signed)) for file in files} == expected
    for file in files:
        if file.suffix == ".key":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_no_secret_is_printed(tmp_path: Path) -> None:
    home = tmp_path / "fleet"
    said = invoke("init", home, "--host", "localhost").output + invoke("add", home, "a").output
    said += invoke("sign", home).output + invoke("list", home).output
    for key in [*home.rglob("*.key")]:
        for line in key.read_text().splitlines():
            assert line.startswith("-----") or line not in said


def test_every_bundle_leads_its_device_into_the_fleet(signed: Path) -> None:
    for index, name in enumerate(["coordinator", *"abcdef"]):
        bundle = Bundle.load(signed / "devices" / name)
        assert (bundle.index, bundle.name) == (index, name)
        assert (bundle.broker_host, bundle.broker_port) == ("broker.example", 8884)
        trust = Trust(bundle.fleet, bundle.root_hash, ("committee", "policy", "model", "profile"), Empty(), 0)
        trust.offer_root(bundle.root)
        trust.offer_manifest(document(signed, "manifest").to_bytes())
        for kind in trust.needed:
            trust.offer_document(kind, document(signed, kind).to_bytes())
        trust.offer_date(document(signed, "date").to_bytes())
        assert trust.manifest is not None
        assert trust.state(trust.manifest.issued) == READY
        subject = x509.load_pem_x509_certificate(bundle.tls_certificate.read_bytes()).subject
        assert subject.rfc4514_string() == f"CN={index}"


def test_list_shows_every_device(home: Path) -> None:
    invoke("revoke", home, "b")
    rows = [line.split() for line in invoke("list", home).output.splitlines()]
    assert rows[0] == ["index", "name", "roles", "profile", "certificate", "TLS", "revoked"]
    assert [row[:4] for row in rows[1:4]] == [
        ["0", "coordinator", "coordinator", "-"],
        ["1", "a", "both", "gateway-wifi"],
        ["2", "b", "both", "gateway-wifi"],
    ]
    assert rows[7][:4] == ["6", "f", "participant", "gateway-2g"]
    assert [row[-1] == "-" for row in rows[1:]] == [True, True, False, True, True, True, True]


def test_a_revocation_reaches_documents_and_broker(home: Path) -> None:
    output = invoke("revoke", home, "b")
    assert "only 4 candidates for a committee of 4" in output.output
    assert indices(CommitteeDocument.from_body(document(home, "committee").body).revoked) == (2,)
    assert indices(Roster.from_body(document(home, "roster").body).revoked) == (2,)
    revoked = x509.load_pem_x509_crl((home / "transport/crl.pem").read_bytes())
    serial = x509.load_pem_x509_certificate((home / "devices/b/tls.pem").read_bytes()).serial_number
    assert [entry.serial_number for entry in revoked] == [serial]
    invoke("revoke", home, "b")
    invoke("revoke", home, "f")
    assert len(x509.load_pem_x509_crl((home / "transport/crl.pem").read_bytes())) == 2
    assert indices(CommitteeDocument.from_body(document(home, "committee").body).revoked) == (2,)
    assert indices(Roster.from_body(document(home, "roster").body).revoked) == (2, 6)


def test_a_revocation_works_after_the_bundle_left_and_before_the_first_signature(tmp_path: Path) -> None:
    home = tmp_path / "fleet"
    invoke("init", home, "--host", "localhost")
    invoke("add", home, "a", "b")
    shutil.rmtree(home / "devices" / "a")
    invoke("revoke", home, "a")
    assert not (home / "documents/manifest").exists()
    invoke("sign", home)
    assert indices(Roster.from_body(document(home, "roster").body).revoked) == (1,)


def test_names_and_indices_are_never_given_again(home: Path) -> None:
    invoke("revoke", home, "f")
    shutil.rmtree(home / "devices" / "f")
    with pytest.raises(ConfigurationError, match="the name 'f' is taken"):
        invoke("add", home, "f")
    assert "g: index 7" in invoke("add", home, "g").output


def test_an_index_whose_command_was_interrupted_is_not_given_again(home: Path) -> None:
    before = (home / "register.json").read_bytes()
    invoke("add", home, "g")
    (home / "register.json").write_bytes(before)
    with pytest.raises(ConfigurationError, match=r"devices/g exists.*interrupted; remove that directory"):
        invoke("add", home, "g")
    shutil.rmtree(home / "devices/g")
    assert "g: index 8" in invoke("add", home, "g").output
    invoke("sign", home)
    assert sorted(Roster.from_body(document(home, "roster").body).by_index()) == [1, 2, 3, 4, 5, 6, 8]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["g", "coordinator"], "the name 'coordinator' is taken"),
        (["g", "g"], "the name 'g' is taken"),
        (["g", "../x"], r"'\.\./x' cannot name a device"),
        (["g", ".hidden"], "cannot name a device"),
        (["g", "x" * 64], "cannot name a device"),
        (["g", "ü"], "cannot name a device"),
    ],
)
def test_a_bad_name_adds_nobody(home: Path, names: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        invoke("add", home, *names)
    assert len(json.loads((home / "register.json").read_text())["lines"]) == 7
    assert not (home / "devices/g").exists()


def test_an_unknown_profile_adds_nobody(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'gateway-2g'"):
        invoke("add", home, "g", "--profile", "gateway-3g")
    assert not (home / "devices/g").exists()


def test_a_mistake_in_the_rules_leaves_the_documents_as_they_were(home: Path) -> None:
    before = {file.name: file.read_bytes() for file in (home / "documents").iterdir() if file.is_file()}
    rules = (home / "fleet.toml").read_text()
    for written, instead, said in (
        ("clip = 1.0", "clip = 'a'", r"fleet\.toml: policy\.clip: expected a number"),
        ("smallest_survivor_set = 6", "smallest_survivor_set = 5", "fleet.toml cannot be signed: policy: smallest"),
        ("in = 32, out = 2", "in = 31, out = 2", "layer 1 gives 32 numbers but layer 2 takes 31"),
        ("[validity]", "[validty]", "validty: unknown key; did you mean 'validity'"),
    ):
        (home / "fleet.toml").write_text(rules.replace(written, instead))
        with pytest.raises(ConfigurationError, match=said):
            invoke("sign", home)
    assert {file.name: file.read_bytes() for file in (home / "documents").iterdir() if file.is_file()} == before


def test_a_settings_file_of_the_owners_own_can_be_brought_along(tmp_path: Path, signed: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        (signed / "fleet.toml").read_text().replace('"acme"', '"mine"').replace("manifest = 30", "manifest = 9")
    )
    home = tmp_path / "mine"
    invoke("init", home, "--host", "localhost", "--settings", file)
    invoke("sign", home)
    manifest = Manifest.from_body(document(home, "manifest").body)
    assert manifest.not_after - manifest.issued == 9 * 86_400
    assert (home / "fleet.toml").read_text() == file.read_text()


def test_init_makes_nothing_where_it_cannot_make_all(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[fleet]\nname = 3")
    for arguments, said in (
        (["--host", "localhost", "--settings", tmp_path / "bad.toml"], r"bad\.toml has 2 problems"),
        (["--host", "no host"], "'no host' is neither a DNS name nor an IP address"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            invoke("init", tmp_path / "new", *arguments)
        assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigurationError, match="is not empty; name a new directory"):
        invoke("init", tmp_path, "--host", "localhost")
    with pytest.raises(ConfigurationError, match=r"cannot make .*: Not a directory"):
        invoke("init", tmp_path / "bad.toml" / "new", "--host", "localhost")


@pytest.mark.parametrize(
    "name", ["register.json", "documents/root.1", "documents/policy", "documents/cert/3", "keys/ca.key"]
)
def test_a_damaged_file_is_named(home: Path, name: str) -> None:
    (home / name).write_bytes(b"\x00garbage")
    with pytest.raises(ConfigurationError, match=f"{Path(name).name}.*(damaged|backup)"):
        invoke("sign", home)
        invoke("add", home, "g")


def test_a_key_open_to_others_signs_nothing(home: Path) -> None:
    (home / "keys/signer-1.key").chmod(0o640)
    with pytest.raises(ConfigurationError, match=r"open to other users \(mode 0640\); run: chmod 600 .*signer-1\.key"):
        invoke("sign", home)


def test_a_missing_signer_key_is_told(home: Path) -> None:
    (home / "keys/signer-1.key").unlink()
    with pytest.raises(ConfigurationError, match="a manifest needs 1 signatures but only 0 keys are at hand"):
        invoke("sign", home)
    (home / "keys/root-3.key").unlink()


def test_signing_needs_no_root_key(home: Path) -> None:
    for key in (home / "keys").glob("root-*.key"):
        key.unlink()
    invoke("add", home, "g")
    invoke("sign", home)


def test_the_coordinator_stays(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="the coordinator cannot be revoked"):
        invoke("revoke", home, "coordinator")


def add_one(home: Path, name: str) -> None:
    with Desk.open(home) as desk:
        desk.add([name], PARTICIPANT, "gateway-wifi", draw=random, now=NOW)


def test_two_commands_at_once_lose_nobody(home: Path) -> None:
    names = [f"n{number}" for number in range(6)]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_one, args=(home, name)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    with Desk.open(home) as desk:
        lines = {line.name: line.index for line in desk.register().lines}
    assert set(names) <= set(lines)
    assert sorted(lines.values()) == list(range(13))


# Firmware profiles.

OWN_PROFILE = """
name = "own"
description = "an owner's own"
memory = 64
[link]
class = "lte-m"
chunk = {chunk}
window = 2
keepalive = 900
daily_bytes = 5000
"""


def sealed(home: Path) -> Profiles:
    return Profiles.from_body(document(home, "profile").body)


def test_the_profiles_of_all_devices_are_sealed_with_the_model_that_they_may_train(signed: Path) -> None:
    fleet = Bundle.load(signed / "devices" / "a").fleet
    model = document(signed, "model").hash(fleet)
    for one in sealed(signed).profiles:
        link = catalog.load(one.name).link
        assert (one.link, one.chunk, one.window) == (link.link_class, link.chunk, link.window)
        assert (one.keepalive, one.daily, one.models) == (link.keepalive, link.daily_bytes, (model,))
    assert [one.name for one in sealed(signed).profiles] == ["gateway-2g", "gateway-wifi"]


def test_an_owners_own_profile_is_kept_and_a_change_of_it_is_a_new_version(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN_PROFILE.format(chunk=512))
    before = sealed(home).version
    invoke("add", home, "g", "--profile", file)
    file.unlink()
    invoke("sign", home)
    first = sealed(home).named("own")
    assert first is not None
    assert (first.chunk, first.window, first.keepalive, first.daily) == (512, 2, 900, 5000)
    assert sealed(home).version == before + 1
    invoke("sign", home)
    assert sealed(home).version == before + 1
    (home / "profiles" / "own.toml").write_text(OWN_PROFILE.format(chunk=1024))
    assert "profile: version" in invoke("sign", home).output
    second = sealed(home).named("own")
    assert second is not None
    assert second.chunk == 1024
    assert sealed(home).version == before + 2


def test_another_profile_of_a_name_that_is_taken_and_one_that_is_gone_are_refused(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN_PROFILE.format(chunk=512))
    invoke("add", home, "g", "--profile", file)
    file.write_text(OWN_PROFILE.format(chunk=1024))
    with pytest.raises(ConfigurationError, match=r"own\.toml is another profile of the name 'own'; change that file"):
        invoke("add", home, "h", "--profile", file)
    (home / "profiles" / "own.toml").unlink()
    with pytest.raises(ConfigurationError, match=r"own\.toml is missing: put the file of the firmware profile 'own'"):
        invoke("sign", home)


def test_a_fleet_from_before_profiles_were_kept_seals_the_shipped_ones(home: Path) -> None:
    shutil.rmtree(home / "profiles")
    invoke("sign", home)
    assert [one.name for one in sealed(home).profiles] == ["gateway-2g", "gateway-wifi"]


def test_an_agent_takes_its_link_from_the_sealed_profile_once_it_is_verified(home: Path, tmp_path: Path) -> None:
    (home / "profiles" / "gateway-wifi.toml").write_text(
        OWN_PROFILE.format(chunk=768).replace('name = "own"', 'name = "gateway-wifi"')
    )
    invoke("sign", home)
    bundle = Bundle.load(home / "devices" / "a")
    settings, store = AgentSettings(home / "devices" / "a", tmp_path / "vault.db"), Records()
    shipped = catalog.load("gateway-wifi").link
    assert link_of(settings, bundle, store) == link_of(settings, bundle, None) == shipped
    trust = make_trust(bundle, store)
    store.write(trust.offer_root(bundle.root))
    store.write(trust.offer_manifest(document(home, "manifest").to_bytes()))
    assert link_of(settings, bundle, store) == shipped
    store.write(trust.offer_document("profile", document(home, "profile").to_bytes()))
    link = link_of(settings, bundle, store)
    assert (link.chunk, link.window, link.keepalive, link.daily_bytes) == (768, 2, 900, 5000)
    assert link_settings(settings, bundle, store).keepalive == 900
    # A device of another class than the certificate's, by its own settings, has what the owners sealed of that class.
    other = AgentSettings(home / "devices" / "a", tmp_path / "vault.db", profile=Path("gateway-2g"))
    assert link_of(other, bundle, store) == catalog.load("gateway-2g").link


# The schema.

SCHEMA = """
[schema]
rate = 0.1
samples = 4
step = 2
task = "classes"
classes = ["empty", "taken"]
channels = [
    {{ name = "co2", unit = "ppm", low = 300.0, high = {high} }},
    {{ name = "temperature", unit = "degC", low = -40.0, high = 85.0 }},
]
mask = true
"""


def with_schema(home: Path, high: float = 10_000.0, samples: int = 4) -> None:
    rules = (home / "fleet.toml").read_text().split("\n[schema]")[0]
    schema = SCHEMA.format(high=high).replace("samples = 4", f"samples = {samples}")
    (home / "fleet.toml").write_text(rules + schema)


def test_a_schema_is_signed_for_the_model_and_a_change_of_it_is_a_new_version(home: Path) -> None:
    assert not (home / "documents" / "schema").exists()
    with_schema(home)
    assert "schema: version 1" in invoke("sign", home).output
    schema, fleet = Schema.from_body(document(home, "schema").body), Bundle.load(home / "devices" / "a").fleet
    assert schema.model == document(home, "model").hash(fleet)
    assert (schema.inputs(), schema.outputs(), schema.classes) == (16, 2, ("empty", "taken"))
    assert schema.channels[0] == Channel("co2", "ppm", 300.0, 10_000.0)
    with_schema(home, high=5_000.0)
    assert "schema: version 2" in invoke("sign", home).output


def test_a_channel_is_standardised_by_both_numbers_or_none(home: Path) -> None:
    with_schema(home)
    plain = (home / "fleet.toml").read_text()
    (home / "fleet.toml").write_text(plain.replace("high = 85.0", "high = 85.0, mean = 21.0, sd = 3.5"))
    invoke("sign", home)
    channels = Schema.from_body(document(home, "schema").body).channels
    assert channels == (
        Channel("co2", "ppm", 300.0, 10_000.0),
        Standardised("temperature", "degC", -40.0, 85.0, 21.0, 3.5),
    )
    for numbers, why in (
        ("mean = 21.0", "'temperature' has only one of mean and sd"),
        ("mean = 90.0, sd = 3.5", "a mean within the range"),
        ("mean = 21.0, sd = 0.1", "at most 1000 deviations"),
    ):
        (home / "fleet.toml").write_text(plain.replace("high = 85.0", f"high = 85.0, {numbers}"))
        with pytest.raises(ConfigurationError, match=why):
            invoke("sign", home)


@pytest.mark.parametrize(
    ("was", "becomes", "why"),
    [
        ('task = "classes"', 'task = "forecast"', "set target to one of: co2, temperature"),
        ('task = "classes"', 'task = "forecast"\ntarget = "co2"', "set horizon, in samples after a window's last"),
        ('task = "classes"', 'task = "classes"\nhorizon = 3', 'target and horizon are for task = "forecast"'),
        ('task = "classes"', 'task = "anomaly"', 'classes are for task = "classes"; leave them out'),
        ('["empty", "taken"]', '["empty"]', "needs classes, two names or more"),
        ('task = "classes"', 'task = "classes"\ntarget = "heat"', "target = 'heat' is no channel"),
    ],
)
def test_a_task_without_what_it_takes_is_named(home: Path, was: str, becomes: str, why: str) -> None:
    with_schema(home)
    (home / "fleet.toml").write_text((home / "fleet.toml").read_text().replace(was, becomes))
    with pytest.raises(ConfigurationError, match=why):
        invoke("sign", home)


def test_a_schema_that_does_not_fit_the_model_is_not_signed(home: Path) -> None:
    with_schema(home, samples=5)
    with pytest.raises(ConfigurationError, match="the model takes 16 values, by the schema a window's are 20"):
        invoke("sign", home)


def test_what_the_manifest_lists_no_longer_is_not_published(home: Path) -> None:
    """The file stays, so that a later schema has a later version; nobody is offered it."""
    with_schema(home)
    invoke("sign", home)
    rules = (home / "fleet.toml").read_text().split("\n[schema]")[0]
    (home / "fleet.toml").write_text(rules)
    invoke("sign", home)
    bundle, documents = Bundle.load(home / "devices" / "coordinator"), read_documents(home / "documents")
    trust = Trust(bundle.fleet, bundle.root_hash, NAMES, Empty(), 0)
    assert "schema" in documents.documents
    _take(documents, trust)
    assert (trust.schema, trust.missing()) == (None, [])
    with_schema(home, high=5_000.0)
    assert "schema: version 2" in invoke("sign", home).output
    _take(read_documents(home / "documents"), trust)
    assert trust.schema is not None
