"""The owners' signatures and the composition of documents, judged by what a device takes and refuses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fleet_tools import Empty, Seeded
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.composition import DAY, Composition, compose
from fleet.layer_rows import DenseRow
from fleet.owner import Credentials, KeySet, Owner, sign
from fleet.settings import ChannelRow, FleetName, FleetSettings, Model, PolicyRules, SchemaRules
from hushfleet.errors import ConfigurationError, RefusedError
from hushfleet.hashing import key_id
from hushfleet.learning.layers import initial_flat
from hushfleet.learning.server import model_hash
from hushfleet.trust import READY, STALE, Trust
from hushfleet.wire import canonical
from hushfleet.wire.documents import (
    COORDINATOR,
    MEMBER,
    PARTICIPANT,
    Certificate,
    CommitteeDocument,
    Manifest,
    ModelSpec,
    Policy,
    Root,
    Roster,
)
from hushfleet.wire.framing import Frame, indices, read
from hushfleet.wire.layers import Conv1d, Dense, GlobalAverage
from hushfleet.wire.schema import Channel, Schema

NOW = 1_800_000_000
YEARS = 3_653 * DAY
RULES = FleetSettings(FleetName("test"), Model("m", (DenseRow(3, 4, "relu"), DenseRow(4, 2, "none"))))


def draw_devices(draw: Seeded, members: int = 5, participants: int = 7) -> list[Credentials]:
    """The coordinator, then members that also take part, then participants alone."""
    roles = [COORDINATOR, *[MEMBER | PARTICIPANT] * members, *[PARTICIPANT] * (participants - members)]
    return [
        Credentials.draw(draw, i, f"d{i}", role, profile=f"p{i % 3}", not_before=NOW, not_after=NOW + YEARS)
        for i, role in enumerate(roles)
    ]


def a_device_of(owner: Owner) -> Trust:
    root = owner.sign_root(issued=NOW, not_after=NOW + YEARS)
    trust = Trust(owner.fleet, root.hash(owner.fleet), ("committee", "roster", "policy", "model"), Empty(), 0)
    trust.offer_root(root.to_bytes())
    return trust


def give(trust: Trust, frames: dict[str, Frame]) -> None:
    trust.offer_manifest(frames["manifest"].to_bytes())
    for name in ("committee", "roster", "policy", "model"):
        trust.offer_document(name, frames[name].to_bytes())
    trust.offer_date(frames["date"].to_bytes())


def versions(frames: dict[str, Frame]) -> dict[str, int]:
    tables: dict[str, Any] = {
        "committee": CommitteeDocument,
        "roster": Roster,
        "policy": Policy,
        "model": ModelSpec,
        "manifest": Manifest,
    }
    return {name: table.from_body(frames[name].body).version for name, table in tables.items()}


# Keys and signatures.


def test_the_same_draws_make_the_same_fleet() -> None:
    def everything(seed: int) -> list[bytes]:
        owner, draw = Owner.create(Seeded(seed)), Seeded(seed + 1)
        certs = [device.cert for device in draw_devices(draw)]
        frames = compose(owner, RULES, certs, now=NOW, draw=draw).frames
        return [owner.sign_root(issued=NOW, not_after=NOW + 1).to_bytes(), *(f.to_bytes() for f in frames.values())]

    assert everything(1) == everything(1)
    assert everything(1) != everything(2)


def test_no_secret_shows_in_a_repr() -> None:
    owner = Owner.create(Seeded())
    device = draw_devices(Seeded())[0]
    assert device.seal_secret is not None
    secrets = [*owner.root.seeds, *owner.signer.seeds, *owner.fresh.seeds, device.identity_seed, device.seal_secret]
    for secret in secrets:
        for shown in (repr(owner), repr(device), repr(owner.root)):
            assert repr(secret)[2:-1] not in shown
            assert secret.hex() not in shown


def test_a_root_names_every_key_and_carries_its_threshold() -> None:
    owner = Owner.create(Seeded(), root=(3, 2), signer=(2, 2), fresh=(2, 1))
    frame = owner.sign_root(issued=NOW, not_after=NOW + 1)
    root = Root.from_body(frame.body)
    assert (root.root_n, root.signer_n, root.fresh_n, root.version) == (2, 2, 1, 1)
    assert (root.root, root.signer, root.fresh) == tuple(s.public_keys() for s in owner.key_sets().values())
    for public_key in root.root:
        assert frame.signed_by(key_id(public_key), public_key, owner.fleet)
    assert not frame.signed_by(key_id(root.signer[0]), root.signer[0], owner.fleet)


def test_too_few_keys_at_hand_sign_nothing() -> None:
    owner = Owner.create(Seeded())
    one_of_two = replace(owner, root=KeySet(owner.root.seeds[:1] * 2, 2))
    with pytest.raises(ConfigurationError, match="a root needs 2 signatures but only 1 keys are at hand"):
        one_of_two.sign_root(issued=NOW, not_after=NOW + 1)


def test_a_new_root_is_signed_by_old_and_new_owners() -> None:
    old = Owner.create(Seeded(1))
    new = replace(Owner.create(Seeded(2)), fleet=old.fleet)
    trust = a_device_of(old)
    alone = new.sign_root(version=2, issued=NOW, not_after=NOW + YEARS)
    with pytest.raises(RefusedError, match="0 of 2 signatures needed"):
        trust.offer_root(alone.to_bytes())
    both = new.sign_root(version=2, issued=NOW, not_after=NOW + YEARS, previous=old.root)
    assert len(both.signatures) == 6
    trust.offer_root(both.to_bytes())
    assert trust.root is not None
    assert trust.root.root == new.root.public_keys()


def test_a_key_that_stays_signs_once() -> None:
    old = Owner.create(Seeded(1))
    new = replace(old, root=KeySet((*old.root.seeds[:2], Seeded(3)(32)), 2))
    frame = new.sign_root(version=2, issued=NOW, not_after=NOW + YEARS, previous=old.root)
    assert len(frame.signatures) == 4
    trust = a_device_of(old)
    trust.offer_root(Frame.from_bytes(frame.to_bytes()).to_bytes())


def test_a_certificate_is_taken_by_its_device_alone() -> None:
    owner = Owner.create(Seeded())
    first, second = draw_devices(Seeded())[1:3]
    frame = owner.certificate(first.cert, issued=NOW)
    trust = a_device_of(owner)
    with pytest.raises(RefusedError, match="for another key"):
        trust.offer_certificate(frame.to_bytes(), second.cert.key)
    trust.offer_certificate(frame.to_bytes(), first.identity().public_key)
    by_roots = sign(Certificate.from_body(frame.body), owner.root)
    with pytest.raises(RefusedError, match="0 of 1 signatures needed"):
        a_device_of(owner).offer_certificate(by_roots.to_bytes(), first.cert.key)


# Documents.


def test_a_device_takes_a_composed_fleet_and_is_ready_until_it_expires() -> None:
    owner, draw = Owner.create(Seeded()), Seeded(1)
    trust = a_device_of(owner)
    devices = draw_devices(draw)
    give(trust, compose(owner, RULES, [device.cert for device in devices], now=NOW, draw=draw).frames)
    assert trust.state(NOW + 30 * DAY) == READY
    assert trust.state(NOW + 30 * DAY + 1) == STALE
    assert trust.coordinator_key(0) == devices[0].cert.key
    assert trust.committee is not None
    assert sorted(trust.committee.candidates()) == [1, 2, 3, 4, 5]


def test_the_roster_holds_every_device_but_not_the_coordinator() -> None:
    owner = Owner.create(Seeded())
    devices = draw_devices(Seeded(1))
    certs = [device.cert for device in devices]
    roster = Roster.from_body(owner.roster(reversed(certs), version=1, issued=NOW, revoked=[0, 3, 7]).body)
    assert sorted(roster.by_index()) == [1, 2, 3, 4, 5, 6, 7]
    assert indices(roster.revoked) == (3, 7)
    for device in devices[1:]:
        line = roster.by_index()[device.cert.index]
        assert (line.key, line.roles, line.not_after) == (device.cert.key, device.cert.roles, device.cert.not_after)
        assert roster.profiles[line.profile] == device.cert.profile


def test_more_profiles_than_a_line_can_name_are_refused() -> None:
    cert = draw_devices(Seeded())[1].cert
    certs = [replace(cert, index=i, profile=f"p{i}") for i in range(257)]
    with pytest.raises(ConfigurationError, match="257 profiles; at most 256 fit"):
        Owner.create(Seeded()).roster(certs, version=1, issued=NOW)


def test_version_0_is_what_the_seed_makes() -> None:
    owner, layers = Owner.create(Seeded()), RULES.model.layer_list()
    spec = ModelSpec.from_body(owner.model_spec("m", layers, bytes(32), version=1, issued=NOW).body)
    assert spec.zero == model_hash(initial_flat(layers, bytes(32)))
    frame = owner.model_spec("m", layers, bytes(32), version=1, issued=NOW, personal=1)
    # What is shared begins as it would without layers of one's own.
    shared = initial_flat(layers[:-1], bytes(32))
    assert ModelSpec.from_body(frame.body).zero == model_hash(shared)
    np.testing.assert_array_equal(shared, initial_flat(layers, bytes(32))[: len(shared)])
    with pytest.raises(ConfigurationError, match="layer 1 gives 4 numbers but layer 2 takes 3"):
        owner.model_spec("m", layers[:1] * 2, bytes(32), version=1, issued=NOW)


# Composition.


def composed(rules: FleetSettings, before: Composition | None = None, **changes: Any) -> Composition:
    """Compose for one fleet, the same in every call."""
    certs = [device.cert for device in draw_devices(Seeded(1), **changes.pop("fleet", {}))]
    given: dict[str, Any] = {"now": NOW, "draw": Seeded(2), "previous": before.frames if before else None, **changes}
    return compose(Owner.create(Seeded()), rules, certs, **given)


def test_nothing_changed_gets_only_a_new_date() -> None:
    first = composed(RULES)
    again = composed(RULES, first, now=NOW + 20 * DAY, draw=Seeded(9))
    assert {name for name in first.frames if again.frames[name] != first.frames[name]} == {"date"}
    assert len(again.changes) == 1
    trust = a_device_of(Owner.create(Seeded()))
    give(trust, first.frames)
    trust.offer_date(again.frames["date"].to_bytes())
    assert trust.state(NOW + 50 * DAY) == READY


def test_a_document_of_a_form_that_is_no_more_is_made_anew_after_the_version_that_is_listed() -> None:
    first = composed(RULES)
    fields = canonical.decode(first.frames["model"].body)
    del fields["personal"]
    older = replace(first, frames=first.frames | {"model": Frame("model", canonical.encode(fields))})
    second = composed(RULES, older, now=NOW + 5, draw=Seeded(9))
    before, after = (read(one.frames["model"], ModelSpec) for one in (first, second))
    assert (after.version, after.layers) == (before.version + 1, before.layers)
    assert after.init != before.init


STEPS: dict[str, dict[str, Any]] = {
    "policy": {"policy": PolicyRules(clip=2.0)},
    "layers": {"model": Model("m", (DenseRow(3, 5, "tanh"), DenseRow(5, 2, "none")))},
    "name": {"model": replace(RULES.model, name="other")},
}


@settings(max_examples=15)
@given(st.sets(st.sampled_from([*STEPS, "revoke member", "revoke participant", "add"])))
def test_exactly_what_changed_moves_by_one_and_a_device_follows(changed: set[str]) -> None:
    first = composed(RULES)
    rules = replace(
        RULES, **{key: value for name in sorted(changed & set(STEPS)) for key, value in STEPS[name].items()}
    )
    revoked = [index for name, index in (("revoke member", 1), ("revoke participant", 7)) if name in changed]
    fleet = {"participants": 8} if "add" in changed else {}
    second = composed(rules, first, revoked=revoked, fleet=fleet, now=NOW + 5, draw=Seeded(9))
    moved = {name for name, version in versions(second.frames).items() if version == 2}
    assert moved == {
        *(["committee"] if "revoke member" in changed else []),
        *(["roster"] if changed & {"revoke member", "revoke participant", "add"} else []),
        *(["policy"] if changed & {"policy", "layers", "name"} else []),
        *(["model"] if changed & {"layers", "name"} else []),
        *(["manifest"] if changed else []),
    }
    assert {line.split(":")[0] for line in second.changes} == moved | {"date"}
    trust = a_device_of(Owner.create(Seeded()))
    give(trust, first.frames)
    give(trust, second.frames)
    assert trust.state(NOW) == READY


def test_a_new_model_starts_anew_and_an_old_one_keeps_its_seed() -> None:
    def seed(composition: Composition) -> bytes:
        return ModelSpec.from_body(composition.frames["model"].body).init

    first = composed(RULES)
    kept = composed(replace(RULES, policy=PolicyRules(clip=2.0)), first, draw=Seeded(9))
    renamed = composed(replace(RULES, model=replace(RULES.model, name="other")), first, draw=Seeded(9))
    assert seed(kept) == seed(first)
    assert seed(renamed) != seed(first)


def test_a_document_that_was_lost_or_set_back_does_not_repeat_a_version() -> None:
    first = composed(RULES)
    second = composed(replace(RULES, policy=PolicyRules(clip=2.0)), first)
    lost = {name: frame for name, frame in second.frames.items() if name != "policy"}
    set_back = {**second.frames, "policy": first.frames["policy"]}
    for previous in (lost, set_back):
        third = composed(RULES, previous=previous)
        assert versions(third.frames)["policy"] == 3


def test_a_clock_before_the_last_signature_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"the clock of this machine says 2027-01-14.* set the clock"):
        composed(RULES, composed(RULES), now=NOW - DAY)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"smallest_survivor_set": 5}, "smallest_survivor_set is below assumed_colluders"),
        ({"assumed_colluders": 2}, "smallest_survivor_set is below assumed_colluders"),
        ({"committee_min": 3}, "committee_trusted is not signed"),
        ({"committee_min": 2, "recoveries": 2}, "above recoveries"),
        ({"largest_survivor_set": 5}, "smallest_survivor_set is not from 1 to largest_survivor_set"),
        ({"clip": 0.0}, "clip above 0"),
    ],
)
def test_a_policy_against_the_protocol_is_refused(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        composed(replace(RULES, policy=PolicyRules(**rules)))


def test_exceptions_can_be_signed_and_are_named() -> None:
    rules = PolicyRules(smallest_survivor_set=2, committee_min=3, tiny_fleet=True, committee_trusted=True)
    warnings = "\n".join(composed(replace(RULES, policy=rules)).warnings)
    assert "gives up a rule of safety: tiny_fleet = true" in warnings
    assert "gives up a rule of safety: committee_trusted = true" in warnings


@pytest.mark.parametrize(
    ("fleet", "revoked", "said"),
    [
        ({"members": 5}, [], None),
        ({"members": 4}, [], "there are only 4 candidates for a committee of 4"),
        ({"members": 5}, [2], "there are only 4 candidates for a committee of 4"),
        ({"members": 3}, [], "no committee can be formed: 3 candidates, committee_min is 4"),
        ({"participants": 5}, [], "no round can be opened: 5 participants, smallest_survivor_set is 6"),
        ({"participants": 7}, [6, 7], "no round can be opened: 5 participants"),
    ],
)
def test_a_fleet_that_is_too_small_is_warned_of(fleet: dict[str, int], revoked: list[int], said: str | None) -> None:
    warnings = composed(RULES, fleet=fleet, revoked=revoked).warnings
    assert (said is None and warnings == ()) or (said is not None and said in "\n".join(warnings))


def test_a_certificate_that_ends_before_the_manifest_is_warned_of() -> None:
    later = NOW + YEARS - DAY
    assert "the certificate of d7 runs out" in "\n".join(composed(RULES, now=later).warnings)


@pytest.mark.parametrize(("unit", "signed", "warned"), [("°C", "degC", False), ("celsius", "celsius", True)])
def test_a_unit_that_is_written_otherwise_is_understood_and_one_that_is_not_known_is_warned_of(
    unit: str, signed: str, warned: bool
) -> None:
    row = ChannelRow("temperature", unit, -40.0, 85.0)
    rules = SchemaRules((row,), rate=1.0, samples=3, step=1, task="classes", classes=("cold", "hot"))
    composition = composed(replace(RULES, schema=rules))
    (channel,) = Schema.from_body(composition.frames["schema"].body).channels
    assert channel.unit == signed
    said = f"channel 'temperature' of the schema is in {unit!r}, which devices convert from no other unit"
    assert (said in "\n".join(composition.warnings)) == warned


def test_more_candidates_than_a_committee_can_have_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="33 members stand as candidates; a committee has at most 32"):
        composed(RULES, fleet={"members": 33, "participants": 33})
    assert composed(RULES, fleet={"members": 33, "participants": 33}, revoked=[5]).warnings == ()


def test_a_schema_has_the_steps_and_channels_of_a_first_layer_along_time() -> None:
    owner = Owner.create(Seeded())
    channels = [Channel(name, "1", 0.0, 1.0) for name in ("a", "b")]
    rules: dict[str, Any] = {"rate": 1.0, "samples": 6, "step": 3, "missing": 0.0, "classes": (), "target": 0}
    spec = owner.model_spec("m", (Conv1d(6, 4, 3, 2), GlobalAverage(5, 3), Dense(3, 1)), bytes(32), version=1, issued=1)
    windows = {**rules, "task": "value", "mask": 1, "horizon": 0}
    assert read(owner.schema(spec, channels, windows, version=1, issued=1), Schema).inputs() == 24
    with pytest.raises(ConfigurationError, match="6 steps of 4 channels, by the schema a window has 12 of 2"):
        owner.schema(spec, channels, {**windows, "mask": 0, "samples": 12}, version=1, issued=1)
