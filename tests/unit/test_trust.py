"""Trust in documents: each attack that The Update Framework names is a test, on a virtual clock."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from golden_fleet import POLICY, YEAR, Records, fixed
from hypothesis import given, settings
from hypothesis import strategies as st
from refused_vectors import signed

from fleet.owner import Credentials, KeySet, Owner, unsigned
from hushfleet.actions import Action
from hushfleet.errors import HushfleetError, MalformedError, RefusedError
from hushfleet.trust import READY, STALE, UPGRADE, WAITING, Trust, UpgradeNeededError
from hushfleet.wire import canonical
from hushfleet.wire.documents import COORDINATOR, MEMBER, PARTICIPANT, Date, Manifest, Policy, Root
from hushfleet.wire.framing import Frame, Identity
from hushfleet.wire.layers import Dense

NOW = 1_700_000_000
DAY = 86_400
OWNER = Owner.create(fixed("trust"), signer=(2, 1))
FLEET = OWNER.fleet
NAMES = ("committee", "roster", "policy", "model")
CERTS = [
    Credentials.draw(
        fixed(f"trust {index}"), index, f"device-{index}", role, profile="gateway", not_before=0, not_after=NOW + YEAR
    ).cert
    for index, role in enumerate((COORDINATOR, MEMBER, MEMBER, MEMBER, PARTICIPANT), start=1)
]
MODEL = OWNER.model_spec("model", [Dense(2, 1, "none")], bytes(32), version=1, issued=NOW)
ROOTS = OWNER.root.identities()
SIGNER, FRESH = OWNER.signer.identities()[0], OWNER.fresh.identities()[0]
ROOT = OWNER.sign_root(issued=NOW, not_after=NOW + YEAR)


class Party:
    """One who trusts, with the records of what it was told to save."""

    def __init__(self, root: Frame = ROOT, needed: Iterable[str] = NAMES, build_time: int = NOW - DAY) -> None:
        self.records, self.needed, self.build_time = Records(), tuple(needed), build_time
        self.root_hash = root.hash(FLEET)
        self.restart()

    def restart(self) -> Trust:
        self.trust = Trust(FLEET, self.root_hash, self.needed, self.records, self.build_time)
        return self.trust

    def take(self, *offers: Frame | bytes) -> None:
        """Offer frames, each by its type; what is returned is on disk before the next."""
        for offer in offers:
            frame = Frame.from_bytes(offer, len(offer)) if isinstance(offer, bytes) else offer
            self.records.write(self._offer(frame.kind, offer if isinstance(offer, bytes) else offer.to_bytes()))

    def _offer(self, kind: str, data: bytes) -> list[Action]:
        match kind:
            case "root":
                return self.trust.offer_root(data)
            case "manifest":
                return self.trust.offer_manifest(data)
            case "date":
                return self.trust.offer_date(data)
            case "certificate":
                return self.trust.offer_certificate(data, CERTS[4].key)
            case name:
                return self.trust.offer_document(name, data)

    def refuses(self, offer: Frame | bytes, match: str | None = None) -> None:
        """Refused, with nothing changed in memory or on disk."""
        before, records = self.seen(), dict(self.records.data)
        with pytest.raises((RefusedError, MalformedError), match=match):
            self.take(offer)
        assert (self.seen(), self.records.data) == (before, records)

    def seen(self) -> Any:
        """Everything that others ask a trust for."""
        trust = self.trust
        documents = [trust.committee, trust.roster, trust.policy, trust.model, trust.certificate, trust.root]
        hashes = [trust.hash_of(name) for name in NAMES]
        states = [trust.state(now) for now in (0, NOW, NOW + 40 * DAY, NOW + 10 * YEAR)]
        return documents, hashes, states, trust.pair, trust.valid_until(), trust.missing(), trust.time(0)


def documents(version: int, owner: Owner = OWNER) -> dict[str, Frame]:
    """The four documents, all of one version; only the model stays."""
    issued = NOW + version
    return {
        "committee": owner.committee_document(CERTS, version=version, issued=issued),
        "roster": owner.roster(CERTS, version=version, issued=issued),
        "policy": owner.policy(POLICY | {"interval": version}, [MODEL], version=version, issued=issued),
        "model": MODEL,
    }


def manifest(version: int, frames: dict[str, Frame] | None = None, **changes: Any) -> Frame:
    listed = (frames or documents(version)).values()
    days = changes.pop("days", 30)
    return OWNER.sign_manifest(listed, version=version, issued=NOW + version, not_after=NOW + days * DAY, **changes)


def changed_manifest(version: int, **changes: Any) -> Frame:
    """A manifest with fields replaced, signed by the signer."""
    return signed(replace(Manifest.from_body(manifest(version).body), **changes), SIGNER)


def settled(version: int = 1) -> Party:
    """A party that holds every document of a version."""
    party = Party()
    party.take(ROOT, manifest(version), *documents(version).values())
    assert party.trust.state(NOW) == READY
    return party


def next_root(version: int = 2, owner: Owner = OWNER, previous: KeySet = OWNER.root, **changes: Any) -> Frame:
    arguments = {"issued": NOW + version, "not_after": NOW + YEAR} | changes
    return owner.sign_root(version=version, previous=previous, **arguments)


def test_a_document_that_other_software_kept_in_a_form_unknown_here_is_fetched_again() -> None:
    party = settled()
    fields = canonical.decode(MODEL.body)
    del fields["personal"]
    party.records.data["trust/doc/model"] = Frame("model", canonical.encode(fields)).to_bytes()
    party.restart()
    assert (party.trust.model, [entry.name for entry in party.trust.missing()]) == (None, ["model"])
    assert party.trust.state(NOW) != READY
    party.take(MODEL)
    assert party.trust.state(NOW) == READY


# ---- the chain of roots


def test_root_1_is_pinned_by_its_hash() -> None:
    party, stranger = Party(), replace(OWNER, root=KeySet.draw(fixed("stranger"), 3, 2))
    for other in (stranger.sign_root(issued=NOW, not_after=NOW + YEAR), OWNER.sign_root(issued=NOW, not_after=NOW + 1)):
        party.refuses(other, "not the one this device was given")
    party.refuses(manifest(1), "needs its root first")
    party.take(ROOT)
    assert party.trust.state(NOW) == WAITING


def test_a_root_needs_the_thresholds_of_the_old_and_of_the_new_one() -> None:
    """Every choice of signers: two of three old keys and two of three new ones, or it is refused."""
    successor = replace(OWNER, root=KeySet.draw(fixed("successor"), 3, 2))
    root = Root.from_body(next_root(owner=successor).body)
    new = successor.root.identities()
    for chosen in product((False, True), repeat=6):
        who = [key for key, signs in zip((*ROOTS, *new), chosen, strict=True) if signs]
        party = Party()
        party.take(ROOT)
        if sum(chosen[:3]) >= 2 and sum(chosen[3:]) >= 2:
            party.take(signed(root, *who))
            assert party.trust.root == root
        else:
            party.refuses(signed(root, *who), "signatures needed")


def test_a_key_that_stays_signs_once_for_the_old_and_the_new_root() -> None:
    party = Party()
    party.take(ROOT)
    party.refuses(signed(Root.from_body(next_root().body), ROOTS[0]), "1 of 2")
    party.take(signed(Root.from_body(next_root().body), ROOTS[0], ROOTS[1]))
    assert party.trust.root is not None
    assert party.trust.root.version == 2


def test_the_same_key_twice_is_one_key() -> None:
    body = next_root().body
    once = (ROOTS[0].signer, ROOTS[0].sign("root", FLEET, body))
    party = Party()
    party.take(ROOT)
    with pytest.raises(MalformedError, match="each once"):
        Frame("root", body, (once, once)).to_bytes()
    under_another_name = (ROOTS[1].signer, once[1])
    party.refuses(Frame("root", body, tuple(sorted((once, under_another_name)))), "1 of 2")


def test_a_root_lists_no_key_twice() -> None:
    table = Root.from_body(ROOT.body)
    for changes in (
        {"root": (table.root[0], table.root[0], table.root[1])},
        {"signer": tuple(sorted((*table.signer, table.root[0])))},
        {"fresh": table.signer},
    ):
        with pytest.raises(MalformedError, match="twice"):
            replace(table, **changes).to_body()


def test_signatures_over_another_type_or_fleet_do_not_count() -> None:
    party, root = Party(), Root.from_body(next_root().body)
    party.take(ROOT)
    party.refuses(signed(root, *ROOTS, kind="manifest"), "0 of 2")
    party.refuses(signed(root, *ROOTS, fleet=bytes(16)), "0 of 2")
    party.refuses(signed(replace(root, fleet=bytes(16)), *ROOTS, fleet=FLEET), "another fleet")


def test_keys_of_one_role_do_not_sign_for_another() -> None:
    party = settled()
    for who in (*OWNER.signer.identities(), FRESH):
        party.refuses(signed(Root.from_body(next_root().body), who, *OWNER.signer.identities()), "0 of 2")
    for identity in (*ROOTS, FRESH):
        party.refuses(signed(Manifest.from_body(manifest(2).body), identity), "0 of 1")
    date = Date.from_body(OWNER.sign_date(manifest(1), issued=NOW + 9, not_after=NOW + 60 * DAY).body)
    for identity in (*ROOTS, SIGNER):
        party.refuses(signed(date, identity), "0 of 1")


def test_roots_follow_each_other_one_by_one() -> None:
    party = Party()
    party.take(ROOT)
    party.refuses(next_root(3), "does not follow")
    party.refuses(ROOT, "does not follow")
    party.take(next_root(2), next_root(3))
    party.refuses(next_root(2), "does not follow")


def test_a_root_that_expired_on_the_way_is_still_taken() -> None:
    party = Party()
    expired = next_root(2, not_after=NOW - 1)
    party.take(ROOT, expired, manifest(1, root_version=2), *documents(1).values())
    assert party.trust.state(NOW) == STALE
    party.take(next_root(3), manifest(1, root_version=3))
    assert party.trust.state(NOW) == READY


def test_a_signer_that_a_new_root_drops_signs_nothing_more() -> None:
    party, successor = settled(), replace(OWNER, signer=KeySet.draw(fixed("new signer"), 1, 1))
    party.take(next_root(owner=successor))
    assert party.trust.state(NOW) == WAITING
    party.refuses(manifest(2, root_version=2), "0 of 1")
    party.take(
        successor.sign_manifest(documents(1).values(), version=1, issued=NOW, not_after=NOW + DAY, root_version=2)
    )
    assert party.trust.state(NOW) == READY


def test_versions_may_restart_under_a_new_root() -> None:
    """So that owners recover from a signer's key that ran away with the version numbers."""
    party = Party()
    party.take(ROOT, manifest(900, documents(900)), *documents(900).values(), next_root(2))
    party.take(manifest(1, root_version=2), *documents(1).values())
    assert (party.trust.pair, party.trust.state(NOW)) == ((2, 1), READY)
    assert party.trust.policy == Policy.from_body(documents(1)["policy"].body)


def test_a_manifest_of_a_root_to_come_is_told_apart() -> None:
    party = settled()
    later = manifest(1, root_version=2)
    party.refuses(later, "of root 2, known is root 1")
    assert party.trust.manifest_of_newer_root(later.to_bytes())
    assert not party.trust.manifest_of_newer_root(manifest(2).to_bytes())
    assert not party.trust.manifest_of_newer_root(b"nothing")


# ---- the manifest


def test_rollback() -> None:
    party = settled(5)
    for version in (1, 4):
        party.refuses(manifest(version), "older")
    old = documents(5) | {"policy": documents(4)["policy"]}
    party.refuses(manifest(6, old), "policy 4 is older than 5")


def test_fast_forward() -> None:
    """A stolen signer's key must not push the versions out of the owners' reach."""
    party = settled(5)
    party.refuses(manifest(1006, documents(5)), "jumps from 5 to 1006")
    party.refuses(manifest(6, documents(5) | {"roster": documents(1006)["roster"]}), "roster jumps")
    party.refuses(manifest(2**32 - 1, documents(5)), "jumps")
    party.take(manifest(1005, documents(5) | {"roster": documents(1005)["roster"]}), documents(1005)["roster"])
    assert party.trust.state(NOW) == READY


def test_equivocation() -> None:
    """Two manifests, or two documents, of one version."""
    party = settled(5)
    party.take(manifest(5))
    party.refuses(manifest(5, days=31), "two manifests of one version")
    other = OWNER.policy(POLICY | {"interval": 99}, [MODEL], version=5, issued=NOW)
    party.refuses(manifest(6, documents(5) | {"policy": other}), "two documents policy of one version")
    party.refuses(other, "not the document")


@pytest.mark.parametrize("listed", [1, 2, 3])
def test_mix_and_match(listed: int) -> None:
    """Of all triples of three documents in three versions, only the manifest's own makes a party ready."""
    for versions in product((1, 2, 3), repeat=3):
        party = Party()
        party.take(ROOT, manifest(listed), MODEL)
        for name, version in zip(("committee", "roster", "policy"), versions, strict=True):
            if version == listed:
                party.take(documents(version)[name])
            else:
                party.refuses(documents(version)[name])
        assert party.trust.state(NOW) == (READY if versions == (listed,) * 3 else WAITING)


def test_a_document_of_the_manifest_before_counts_no_more() -> None:
    party = settled(1)
    party.take(manifest(2))
    assert party.trust.state(NOW) == WAITING
    assert party.trust.policy is None
    assert [entry.name for entry in party.trust.missing()] == ["committee", "roster", "policy"]
    assert party.trust.coordinator_key(1) is None
    party.take(*(frame for name, frame in documents(2).items() if name != "model"))
    assert party.trust.state(NOW) == READY
    assert party.trust.coordinator_key(1) == CERTS[0].key


def test_a_document_that_nobody_lists_or_needs_is_refused() -> None:
    party = Party(needed=("policy",))
    party.refuses(documents(1)["policy"], "lists no policy")
    party.take(ROOT, manifest(1))
    party.refuses(documents(1)["roster"], "nobody here needs it")
    party.take(documents(1)["policy"])
    assert party.trust.state(NOW) == READY


def test_endless_data() -> None:
    """Lengths come from the manifest; what the manifest cannot list has 16 KiB at most."""
    party = settled(1)
    party.take(manifest(2))
    longer = OWNER.policy(POLICY | {"interval": 70_000}, [MODEL], version=2, issued=NOW + 2)
    party.refuses(longer, "bytes instead of")
    for kind in ("root", "manifest", "date"):
        for offer in (party.trust.offer_root, party.trust.offer_manifest, party.trust.offer_date):
            with pytest.raises(MalformedError, match="longer than 16384"):
                offer(Frame(kind, bytes(16 * 1024)).to_bytes())
    entries = Manifest.from_body(manifest(3).body).docs
    lie = tuple(replace(e, length=e.length - 1) if e.name == "policy" else e for e in entries)
    party.take(changed_manifest(3, docs=lie))
    party.refuses(documents(3)["policy"], "bytes instead of")


def test_wrong_type() -> None:
    party, frames = settled(1), documents(2)
    party.take(manifest(2))
    for offer, data in [
        (party.trust.offer_root, manifest(2)),
        (party.trust.offer_manifest, next_root()),
        (party.trust.offer_date, manifest(2)),
        (lambda data: party.trust.offer_certificate(data, CERTS[4].key), manifest(2)),
        (lambda data: party.trust.offer_document("policy", data), frames["roster"]),
        (lambda data: party.trust.offer_document("policy", data), Frame("roster", frames["policy"].body)),
    ]:
        with pytest.raises((MalformedError, RefusedError)):
            offer(data.to_bytes())


def test_wrong_fleet() -> None:
    """Documents of another fleet of the same owners, with the same keys."""
    other = replace(OWNER, fleet=bytes(16))
    party = settled(1)
    party.refuses(other.sign_root(issued=NOW, not_after=NOW + YEAR, version=2, previous=OWNER.root))
    party.refuses(other.sign_manifest(documents(2).values(), version=2, issued=NOW, not_after=NOW + DAY))
    party.refuses(other.certificate(CERTS[4], issued=NOW))
    foreign = documents(2, other)
    party.take(
        OWNER.sign_manifest(
            (documents(2) | {"policy": foreign["policy"]}).values(), version=2, issued=NOW, not_after=NOW + DAY
        )
    )
    party.refuses(foreign["policy"], "another fleet")


@pytest.mark.parametrize("name", NAMES)
def test_a_document_with_a_signature_is_refused(name: str) -> None:
    """Even by the signer, and even if the manifest counts its bytes."""
    frames = documents(2)
    body = frames[name].body
    frames[name] = Frame(name, body, ((SIGNER.signer, SIGNER.sign(name, FLEET, body)),))
    party = Party()
    party.take(ROOT, OWNER.sign_manifest(frames.values(), version=2, issued=NOW, not_after=NOW + DAY))
    party.refuses(frames[name], "not the document")


# ---- freeze: everything expires


def test_freeze() -> None:
    """Who is shown no newer manifest stops when the one it has expires."""
    party = settled(1)
    assert [party.trust.state(NOW + 30 * DAY + late) for late in (0, 1, YEAR)] == [READY, STALE, STALE]
    party.take(manifest(2, documents(1), days=90))
    assert party.trust.state(NOW + 31 * DAY) == READY


def test_a_date_extends_an_unchanged_manifest() -> None:
    party = settled(1)
    party.take(OWNER.sign_date(manifest(1), issued=NOW + 20 * DAY, not_after=NOW + 50 * DAY))
    assert [party.trust.state(NOW + 50 * DAY + late) for late in (0, 1)] == [READY, STALE]
    party.take(OWNER.sign_date(manifest(1), issued=NOW + 21 * DAY, not_after=NOW + 40 * DAY))
    assert party.trust.valid_until() == NOW + 50 * DAY, "an older date takes nothing back"


def test_a_date_ends_no_later_than_its_root() -> None:
    party = Party(OWNER.sign_root(issued=NOW, not_after=NOW + 40 * DAY))
    party.take(OWNER.sign_root(issued=NOW, not_after=NOW + 40 * DAY), manifest(1), *documents(1).values())
    party.take(OWNER.sign_date(manifest(1), issued=NOW + DAY, not_after=NOW + YEAR))
    assert [party.trust.state(NOW + 40 * DAY + late) for late in (0, 1)] == [READY, STALE]


def test_a_date_is_of_this_manifest_by_the_freshness_key_and_not_older() -> None:
    party = Party()
    good = Date.from_body(OWNER.sign_date(manifest(1), issued=NOW + DAY, not_after=NOW + 50 * DAY).body)
    party.take(ROOT)
    party.refuses(signed(good, FRESH), "needs its manifest first")
    party.take(manifest(1), *documents(1).values())
    party.refuses(OWNER.sign_date(manifest(2), issued=NOW + DAY, not_after=NOW + 50 * DAY), "another manifest")
    party.refuses(signed(replace(good, version=2), FRESH), "another manifest")
    party.refuses(signed(good, SIGNER), "0 of 1")
    party.refuses(signed(good), "0 of 1")
    party.refuses(signed(good, FRESH, kind="manifest"), "0 of 1")
    party.refuses(signed(replace(good, issued=NOW), FRESH), "issued before its manifest")
    assert party.trust.state(NOW + 31 * DAY) == STALE
    party.take(signed(good, FRESH))
    assert party.trust.state(NOW + 31 * DAY) == READY


def test_a_date_goes_with_its_manifest() -> None:
    party = settled(1)
    party.take(OWNER.sign_date(manifest(1), issued=NOW + DAY, not_after=NOW + 60 * DAY), manifest(2, documents(1)))
    assert party.trust.state(NOW + 31 * DAY) == STALE
    party.restart()
    assert party.trust.state(NOW + 31 * DAY) == STALE


# ---- a newer protocol


def newer_policy() -> dict[str, Frame]:
    policy = Policy.from_body(documents(2)["policy"].body)
    return documents(2) | {"policy": unsigned(replace(policy, protocol=2))}


def test_a_newer_protocol_is_believed_only_when_it_is_verified() -> None:
    party = settled(1)
    newer = replace(Manifest.from_body(manifest(2).body), protocol=2)
    root = replace(Root.from_body(next_root().body), protocol=2)
    date = replace(Date.from_body(OWNER.sign_date(manifest(1), issued=NOW + 9, not_after=NOW + DAY).body), protocol=2)
    for frame in (signed(newer), signed(newer, FRESH), signed(root), signed(root, ROOTS[0]), signed(date, SIGNER)):
        party.refuses(frame, "signatures needed")
    party.refuses(newer_policy()["policy"])
    assert party.trust.state(NOW) == READY
    for frame in (signed(newer, SIGNER), signed(root, *ROOTS), signed(date, FRESH)):
        party = settled(1)
        with pytest.raises(UpgradeNeededError, match="speaks protocol 2, this software 1"):
            party.take(frame)
        assert party.trust.state(NOW) == UPGRADE


def test_a_listed_document_of_a_newer_protocol_needs_an_upgrade() -> None:
    """Whatever else it holds: fields that this software does not know are not malformed there."""
    party = settled(1)
    party.take(manifest(2, newer_policy()))
    with pytest.raises(UpgradeNeededError):
        party.take(newer_policy()["policy"])
    assert party.trust.state(NOW) == UPGRADE
    party.take(manifest(3, documents(3)), *(frame for name, frame in documents(3).items() if name != "model"))
    assert party.trust.state(NOW) == READY, "the owners went back to what this software speaks"


# ---- after a restart


def test_a_restart_forgets_nothing() -> None:
    party = settled(3)
    certificate = OWNER.certificate(CERTS[4], issued=NOW + 5)
    steps: list[Frame] = [
        OWNER.sign_date(manifest(3), issued=NOW + 20 * DAY, not_after=NOW + 50 * DAY),
        certificate,
        manifest(4),
        *(frame for name, frame in documents(4).items() if name != "model"),
        next_root(2),
        manifest(1, root_version=2),
        *(frame for name, frame in documents(1).items() if name != "model"),
    ]
    for step in steps:
        party.take(step)
        before = party.seen()
        party.restart()
        assert party.seen() == before
    party.refuses(manifest(4))
    party.refuses(next_root(2))


pool = [
    ROOT, next_root(2), next_root(3), *(manifest(version) for version in (1, 2, 3)), manifest(1, root_version=2),
    manifest(2, documents(1)), manifest(3, documents(2)), *(d for v in (1, 2, 3) for d in documents(v).values()),
    OWNER.sign_date(manifest(1), issued=NOW + DAY, not_after=NOW + 60 * DAY),
    OWNER.sign_date(manifest(2), issued=NOW + DAY, not_after=NOW + 60 * DAY),
    OWNER.certificate(CERTS[4], issued=NOW),
]  # fmt: skip


@settings(max_examples=40)
@given(offers=st.lists(st.sampled_from(pool), max_size=30))
def test_in_whatever_order_a_broker_shows_them_nothing_goes_back(offers: list[Frame]) -> None:
    party = Party()
    for offer in offers:
        before = party.trust.root.version if party.trust.root else 0, party.trust.pair, party.trust.time(0)
        with suppress(HushfleetError):
            party.take(offer)
        after = party.trust.root.version if party.trust.root else 0, party.trust.pair, party.trust.time(0)
        assert all(new >= old for new, old in zip(after, before, strict=True))  # type: ignore[operator]
        seen = party.seen()
        party.restart()
        assert party.seen() == seen


# ---- clocks


@pytest.mark.parametrize("clock", [0, NOW - 20 * YEAR, NOW - 1])
def test_a_clock_in_the_past_does_not_lock_a_device_out(clock: float) -> None:
    """A gateway without a battery starts in 1970; time is never before the newest verified document."""
    party = settled(7)
    assert party.trust.time(clock) == NOW + 7
    assert party.trust.state(clock) == READY
    party.take(OWNER.sign_date(manifest(7), issued=NOW + 29 * DAY, not_after=NOW + 59 * DAY))
    assert party.trust.time(clock) == NOW + 29 * DAY


def test_a_clock_in_the_past_does_not_keep_an_expired_manifest_alive() -> None:
    party = settled(1)
    late = manifest(2, documents(1), days=1)
    party.take(signed(replace(Manifest.from_body(late.body), issued=NOW + 2 * DAY), SIGNER))
    assert party.trust.state(0) == STALE


def test_a_jump_of_the_clock_never_raises_the_floor() -> None:
    """Ten years ahead it is stale; back again it goes on, also after a restart."""
    party = settled(1)
    assert party.trust.state(NOW + 10 * YEAR) == STALE
    party.refuses(manifest(1, days=31))
    party.take(manifest(1))
    assert party.trust.time(NOW - 5) == NOW + 1
    assert party.trust.state(NOW) == READY
    party.restart()
    assert party.trust.time(0) == NOW + 1
    assert party.trust.state(NOW) == READY


def test_time_is_never_before_the_build() -> None:
    assert Party(build_time=NOW + 3).trust.time(0) == NOW + 3


def test_what_is_refused_does_not_raise_the_floor() -> None:
    party = settled(1)
    party.refuses(signed(replace(Manifest.from_body(manifest(2).body), issued=NOW + YEAR), FRESH))
    party.refuses(changed_manifest(1, issued=NOW + YEAR))
    date = Date.from_body(OWNER.sign_date(manifest(1), issued=NOW + YEAR, not_after=NOW + 2 * YEAR).body)
    party.refuses(signed(date, SIGNER))
    assert party.trust.time(0) == NOW + 1


# ---- a device's own certificate


def test_a_certificate_is_for_this_key_by_the_signer_and_newer() -> None:
    party, cert = Party(), CERTS[4]
    second = replace(cert, serial=2, profile="other")
    party.refuses(OWNER.certificate(cert, issued=NOW), "needs its root first")
    party.take(ROOT)
    party.refuses(OWNER.certificate(CERTS[3], issued=NOW), "another key")
    certificate = OWNER.certificate(second, issued=NOW)
    body = certificate.body
    for who in (FRESH, ROOTS[0], Identity(SIGNER.signer, bytes(32))):
        party.refuses(Frame("certificate", body, ((who.signer, who.sign("certificate", FLEET, body)),)), "0 of 1")
    party.take(certificate)
    held = dict(party.records.data)
    party.take(OWNER.certificate(cert, issued=NOW), OWNER.certificate(replace(second, profile="forged"), issued=NOW))
    assert party.records.data == held, "an older or equal serial changes nothing"
    party.take(OWNER.certificate(replace(cert, serial=3), issued=NOW))
    assert party.trust.certificate is not None
    assert party.trust.certificate.cert.serial == 3


def test_either_of_two_signer_keys_suffices_for_a_threshold_of_one() -> None:
    party = Party()
    party.take(ROOT, signed(Manifest.from_body(manifest(1).body), OWNER.signer.identities()[1]))
    assert party.trust.pair == (1, 1)


# ---- who is whom


def test_a_revoked_candidate_is_none() -> None:
    frames = documents(2) | {"committee": OWNER.committee_document(CERTS, version=2, issued=NOW, revoked=[3])}
    party = settled(1)
    assert party.trust.candidate_key(3) == CERTS[2].key
    party.take(OWNER.sign_manifest(frames.values(), version=2, issued=NOW, not_after=NOW + DAY), frames["committee"])
    assert party.trust.candidate_key(3) is None
    assert party.trust.candidate_key(2) == CERTS[1].key
    assert party.trust.candidate_key(1) is None, "the coordinator is no candidate"
    assert party.trust.coordinator_key(2) is None


# ---- certificates' dates


def dated(first: int, last: int, index: int = 1) -> Party:
    """A party whose committee document certifies one of them from `first` to `last`, issued at NOW."""
    certs = [replace(cert, not_before=first, not_after=last) if cert.index == index else cert for cert in CERTS]
    frames = documents(1) | {"committee": OWNER.committee_document(certs, version=1, issued=NOW)}
    party = Party()
    listed = OWNER.sign_manifest(frames.values(), version=1, issued=NOW, not_after=NOW + 30 * DAY)
    party.take(ROOT, listed, *frames.values())
    return party


@pytest.mark.parametrize(
    ("at", "valid"), [(99, False), (100, True), (101, True), (199, True), (200, True), (201, False)]
)
def test_coordinator_and_candidates_are_heard_within_their_dates(at: int, valid: bool) -> None:
    trust = dated(NOW + 100, NOW + 200).trust
    assert trust.coordinator_at(NOW + at)(1) == (CERTS[0].key if valid else None)
    assert (trust.coordinator(NOW + at) is not None) == valid
    assert trust.state(NOW + at) == (READY if valid else STALE)
    trust = dated(NOW + 100, NOW + 200, index=3).trust
    assert trust.candidate_at(NOW + at)(3) == (CERTS[2].key if valid else None)
    assert set(trust.candidates(NOW + at)) == ({2, 3, 4} if valid else {2, 4})
    # A candidate that is out of its dates is no reason to stop.
    assert (trust.state(NOW + at), trust.candidate_at(NOW + at)(2)) == (READY, CERTS[1].key)


def test_only_the_coordinator_speaks_as_one_and_only_candidates_as_candidates() -> None:
    trust = settled(1).trust
    assert [trust.coordinator_at(NOW)(index) for index in (1, 2, 5, 9)] == [CERTS[0].key, None, None, None]
    assert [trust.candidate_at(NOW)(index) is None for index in (1, 2, 5, 9)] == [True, False, True, True]
    assert Party().trust.coordinator_at(NOW)(1) is None
    assert Party().trust.candidate_at(NOW)(2) is None


def test_a_clock_that_is_behind_sees_no_certificate_as_still_to_come() -> None:
    """Whoever signed the document at that time had a clock that was there already."""
    party = dated(NOW, NOW + 200)
    for clock in (0, NOW - YEAR, NOW - 1):
        assert party.trust.state(clock) == READY
        assert party.trust.coordinator_at(clock)(1) == CERTS[0].key


def test_a_clock_that_jumps_ahead_and_back_changes_nothing() -> None:
    party = dated(NOW, NOW + 200)
    records = dict(party.records.data)
    for _ in range(2):
        assert party.trust.state(NOW + 10 * YEAR) == STALE
        assert party.trust.coordinator_at(NOW + 10 * YEAR)(1) is None
        assert party.trust.state(NOW) == READY
        assert party.trust.coordinator_at(NOW)(1) == CERTS[0].key
        assert party.records.data == records
        party.restart()
