"""What of the retained messages is explained, and what the broker's commands say of a fleet that cannot be used."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from nacl.utils import random

from broker.cli import broker
from broker.directory import FleetDirectory
from broker.leftovers import unexplained
from fleet.desk import Desk
from hushfleet import bundle
from hushfleet.errors import ConfigurationError
from hushfleet.wire.committee import Call
from hushfleet.wire.documents import MEMBER, PARTICIPANT
from hushfleet.wire.framing import Identity
from hushfleet.wire.round import Plan

NOW = 1_800_000_000
COORDINATOR, MEMBER_1, MEMBER_4, DEVICE, REVOKED, STRANGER = 0, 1, 4, 5, 6, 99


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("desk") / "acme"
    desk = Desk.create(home, hosts=("localhost",), port=8883, settings=None, draw=random, now=NOW)
    desk.add(["a", "b", "c", "d"], PARTICIPANT | MEMBER, "gateway-wifi", draw=random, now=NOW)
    desk.add(["e", "f"], PARTICIPANT, "gateway-wifi", draw=random, now=NOW)
    desk.sign(draw=random, now=NOW)
    desk.revoke("f", now=NOW)
    desk.sign(draw=random, now=NOW)
    return home


@pytest.fixture(scope="module")
def fleet(home: Path) -> FleetDirectory:
    return FleetDirectory.load(home)


@pytest.fixture(scope="module")
def coordinator(home: Path) -> Identity:
    return Identity(COORDINATOR, bundle.read_secret(home / "devices" / "coordinator" / bundle.IDENTITY))


def call(fleet: FleetDirectory, signer: Identity, epoch: int, not_after: int = NOW + 1000) -> bytes:
    table = Call(COORDINATOR, epoch, bytes(32), 1, 1, 32, not_after, NOW - 30, NOW - 20, NOW - 10)
    return signer.frame(table, fleet.trust.fleet).to_bytes()


def plan(fleet: FleetDirectory, signer: Identity, epoch: int) -> bytes:
    table = Plan(
        sender=COORDINATOR, round=40, kind=0, model=bytes(32), base=1, base_hash=bytes(32), roster=bytes(32),
        policy=bytes(32), epoch=epoch, transcript=bytes(32), points=bytes(32), opens=1, closes=2, until=3, sample=1,
        grouped=0, codec=0, bits=16, coords=1, keep=1.0, clip=1.0, step=1.0, seed=bytes(32), noise=0.0, tail=0,
        steps=1, batch=1, rate=0.1, momentum=0.0, proximal=0.0,
    )  # fmt: skip
    return signer.frame(table, fleet.trust.fleet).to_bytes()


def judged(fleet: FleetDirectory, found: dict[str, bytes]) -> dict[str, str]:
    return {leftover.topic: leftover.why for leftover in unexplained(found, fleet, NOW)}


def test_a_fleet_at_work_leaves_nothing_unexplained(fleet: FleetDirectory, coordinator: Identity) -> None:
    topics = fleet.topics
    manifest = fleet.trust.manifest
    assert manifest is not None
    documents = [topics.document(entry.name, entry.version, 0) for entry in manifest.docs]
    set_up = [
        part
        for epoch in (3, 4)
        for part in (
            topics.card(epoch, MEMBER_1),
            topics.key(epoch, MEMBER_1, 1),
            topics.ready(epoch, MEMBER_1),
            topics.share(epoch, MEMBER_1, MEMBER_4),
            topics.complaint(epoch, MEMBER_1),
        )
    ]
    found = dict.fromkeys(
        [
            *(topics.root(1), topics.manifest(), topics.date(), topics.certificate(DEVICE), topics.list(4)),
            *(topics.certificate(COORDINATOR), topics.state(COORDINATOR), topics.state(DEVICE)),
            *(topics.transcript(3, 0), topics.result(21), topics.result(40), topics.model(7, "delta", 0)),
            *(topics.result(9), topics.sums(9, 0)),
            *documents,
            *set_up,
        ],
        b"",
    )
    found[topics.call(4)] = call(fleet, coordinator, 4)
    found[topics.plan()] = plan(fleet, coordinator, epoch=3)
    assert judged(fleet, found) == {}


@pytest.mark.parametrize(
    ("kind", "arguments", "why"),
    [
        ("root", (2,), "no root 2"),
        ("certificate", (STRANGER,), "no device 99"),
        ("document", ("roster", 1, 0), "does not list version 1 of roster"),
        ("document", ("profile", 9, 0), "does not list version 9 of profile"),
        ("list", (4,), "epoch 4 is over"),
        ("card", (4, MEMBER_1), "device 1 (a) has left it from epoch 4"),
        ("card", (3, DEVICE), "device 5 is no candidate"),
        ("key", (3, REVOKED, 0), "device 6, revoked is no candidate"),
        ("share", (3, MEMBER_1, DEVICE), "device 1 (a) wrote to device 5, which is no candidate"),
        ("result", (20,), "older than the last 20"),
        ("sums", (8, 0), "older than the newest statistics"),
        ("up", (0, DEVICE, "upload", 1), "device 5 has retained"),
        ("down", (DEVICE, "receipt", 1), "retained for device 5"),
        ("state", (REVOKED,), "device 6, revoked"),
        ("state", (STRANGER,), "device 99, not in the roster"),
        ("call", (4,), "a call that is over"),
        ("transcript", (2, 0), "epoch 2 is over"),
    ],
)
def test_each_leftover_is_told_with_its_reason(
    fleet: FleetDirectory, coordinator: Identity, kind: str, arguments: tuple[int | str, ...], why: str
) -> None:
    topics = fleet.topics
    topic = getattr(topics, kind)(*arguments)
    found = {
        topics.plan(): plan(fleet, coordinator, epoch=3),
        topics.transcript(3, 0): b"",
        topics.result(40): b"",
        topics.sums(9, 0): b"",
        topic: call(fleet, coordinator, 4, not_after=NOW),
    }
    judgement = judged(fleet, found)
    assert list(judgement) == [topic]
    assert why in judgement[topic]


def test_a_call_that_the_coordinator_did_not_sign_explains_nothing(fleet: FleetDirectory) -> None:
    topics = fleet.topics
    found = {topics.call(4): call(fleet, Identity(COORDINATOR, bytes(32)), 4), topics.card(4, MEMBER_1): b""}
    assert set(judged(fleet, found)) == set(found)


@pytest.mark.parametrize("rest", ["nowhere", "plan/1", "up/0/5", "root/01", "state/operator"])
def test_topics_outside_the_table_are_listed(fleet: FleetDirectory, rest: str) -> None:
    assert judged(fleet, {f"hf/{fleet.topics.fleet}/{rest}": b""}) == {
        f"hf/{fleet.topics.fleet}/{rest}": "no topic of the fleet"
    }


def render(home: Path, out: Path) -> Result:
    return CliRunner().invoke(broker, ["render", "--fleet", str(home), "--out", str(out)])


def test_render_writes_both_files_and_says_how_to_go_on(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = render(home, out)
    assert result.exit_code == 0, result.output
    assert f"mosquitto -c {out / 'mosquitto.conf'}" in result.output
    assert "restart it instead" in result.output
    assert {path.name for path in out.iterdir()} == {"mosquitto.conf", "acl"}
    assert f"crlfile {home}/transport/crl.pem" in (out / "mosquitto.conf").read_text()
    assert "user 6\ntopic deny #" in (out / "acl").read_text()


def test_documents_and_transport_are_all_that_the_brokers_host_needs(home: Path, tmp_path: Path) -> None:
    for name in ("documents", "transport"):
        shutil.copytree(home / name, tmp_path / "copy" / name)
    assert render(tmp_path / "copy", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("documents/root.1", "remove", "holds no fleet"),
        ("documents/manifest", "remove", "not signed yet"),
        ("documents/roster", "remove", "roster: No such file"),
        ("documents/committee", "damage", "do not fit together"),
        ("documents/root.1", "damage", "do not fit together"),
        ("documents/committee", "swap", "do not fit together"),
        ("transport/broker.key", "remove", "broker.key; copy it"),
    ],
)
def test_a_fleet_that_cannot_be_used_is_named(home: Path, tmp_path: Path, file: str, change: str, said: str) -> None:
    copy = Path(shutil.copytree(home, tmp_path / "copy"))
    match change:
        case "remove":
            (copy / file).unlink()
        case "damage":
            (copy / file).write_bytes((copy / file).read_bytes()[:-1])
        case _:
            shutil.copy(copy / "documents" / "policy", copy / file)
    result = render(copy, tmp_path / "out")
    assert isinstance(result.exception, ConfigurationError)
    assert said in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_named(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    result = render(home, tmp_path / "file")
    assert isinstance(result.exception, ConfigurationError)
    assert "cannot write" in str(result.exception)


def test_memory_is_the_machines(fleet: FleetDirectory, tmp_path: Path) -> None:
    settings = fleet.configuration(tmp_path, 8883, "", None)
    assert settings.memory > 2**26
    assert replace(settings, system_user="x") == fleet.configuration(tmp_path, 8883, "", "x")
