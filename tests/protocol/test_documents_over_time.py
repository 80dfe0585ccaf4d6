"""Documents over time, on whole devices behind a broker that lies: each attack that The Update Framework names.

However it ends, a device is in one of two states: it has what the owners signed last, or it takes part in nothing.
"""

import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from fleet_over_time import FleetOverTime, LyingWorld
from signed_fleet import YEAR, make_fleet, seeded
from witness import Witness
from world import START, RoundSettings

from fleet.owner import KeySet, Owner
from hushfleet.trust import READY, STALE, WAITING
from hushfleet.wire.documents import Root
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import MEMBERS_MISSING, Chunks

ROUNDS = RoundSettings(collect=30, answer=8, recover=20, pause=5, total=1_000)
MEMBERS, PARTICIPANTS = (1, 2, 3, 4), (5, 6, 7, 8)
VICTIM = 8
"""The participant that the broker lies to."""
DAY = 86_400
OWNERS_TOPICS = ("root", "manifest", "date", "certificate", "document")


def start(not_after: int = START + YEAR, rounds: RoundSettings = ROUNDS) -> LyingWorld:
    """Four members, four participants, one round done."""
    world = LyingWorld(FleetOverTime.of(make_fleet(4, 4), not_after), rounds=rounds)
    world.run(world.rounds_ended(1))
    world.run_for(1)
    return world


def owners(world: LyingWorld) -> FleetOverTime:
    assert isinstance(world.keys, FleetOverTime)
    return world.keys


def goes_on(world: LyingWorld, uploads: int = 4) -> None:
    """Two more rounds, with so many uploads each, and nothing happened that must not."""
    done = len(world.outcomes())
    world.run(world.rounds_ended(done + 2))
    world.run_for(1)
    last = world.outcomes()[-1]
    assert (last["outcome"], last["uploads"]) == ("applied", uploads), world.notes[-12:]
    Witness(world).check()


def by(document: Root, *key_sets: KeySet, last: tuple[tuple[bytes, bytes], ...] = ()) -> Frame:
    """`document` signed by just these keys."""
    body = document.to_body()
    identities = {identity.signer: identity for keys in key_sets for identity in keys.identities()}
    signatures = [(name, identity.sign("root", document.fleet, body)) for name, identity in identities.items()]
    return Frame("root", body, tuple(sorted([*signatures, *last])))


# ---- what honest owners do


def test_root_rotation_by_the_thresholds_of_old_and_new_comes_into_force_between_two_rounds() -> None:
    world = start()
    world.run(lambda world: world.conductor.round.plan is not None)
    epoch = world.device(VICTIM).seen.epoch
    world.put_in_force(owners(world).rotated("root", "signer", "fresh", at=world.now))
    world.run(lambda _: world.topics.root(2) in world.broker.retained)
    assert world.conductor.round.plan is None
    assert len(world.outcomes()) == 2
    world.run(world.rounds_ended(3))
    for index in (*MEMBERS, *PARTICIPANTS):
        trust = world.device(index).context.trust
        assert (trust.pair, trust.state(world.now)) == ((2, 2), READY)
        assert trust.root == owners(world).newest_root()
        assert world.counts[index, "declined"] == 0
    assert world.conductor.context.trust.pair == (2, 2)
    assert world.device(VICTIM).seen.epoch == epoch, "the committee goes on: all of its members are still certified"
    goes_on(world)
    assert all(outcome["uploads"] == 4 for outcome in world.outcomes())


def test_signer_and_freshness_keys_replaced_and_the_old_ones_sign_nothing_more() -> None:
    world = start()
    before = owners(world)
    world.put_in_force(before.rotated("signer", "fresh", at=world.now))
    goes_on(world)
    trust = world.device(VICTIM).context.trust
    old = replace(owners(world), owner=before.owner)
    stolen = old.signed_anew(world.now, version=3, interval=7)
    date = old.dated_anew(world.now, world.now + 9 * DAY)
    certificate = before.owner.certificate(replace(before.credentials[VICTIM].cert, serial=9), issued=START)
    names, held = world.topics, trust.valid_until()
    assert date.dated is not None
    world.tell(
        VICTIM,
        {
            names.manifest(): stolen.manifest.to_bytes(),
            names.certificate(VICTIM): certificate.to_bytes(),
            names.date(): date.dated.to_bytes(),
        },
    )
    assert (trust.pair, trust.valid_until(), world.state(VICTIM)) == ((2, 2), held, READY)
    assert trust.certificate is not None
    assert trust.certificate.cert.serial == 1
    assert len([why for why in world.refused(VICTIM) if "0 of 1 signatures needed" in why]) >= 3
    world.put_in_force(owners(world).dated_anew(world.now, world.now + 2 * YEAR).signed_anew(world.now))
    goes_on(world)
    assert trust.pair == (2, 3)


def test_half_a_rotation_moves_nobody() -> None:
    world = start()
    before, after = owners(world), owners(world).rotated("root", "signer", at=world.now)
    for half in (replace(before, later=after.later), replace(after, later=()), replace(after, documents={})):
        world.put_in_force(half)
        world.run_for(10)
        assert world.counts[0, "documents-refused"] == 1
        world.counts.clear()
        assert world.conductor.context.trust.pair == (1, 1)
        assert world.topics.root(2) not in world.broker.retained
    world.put_in_force(after)
    goes_on(world)
    assert world.pair(VICTIM) == (2, 2)


def test_a_coordinator_restarted_with_the_documents_before_goes_on_with_those_it_knows() -> None:
    world = start()
    before = owners(world)
    world.put_in_force(before.rotated("root", "signer", at=world.now))
    goes_on(world)
    world.crash(0)
    world.keys = before
    world.start(0)
    goes_on(world)
    assert world.counts[0, "documents-refused"] == 1
    assert {world.pair(index) for index in PARTICIPANTS} == {(2, 2)}


def test_a_root_that_expired_on_the_way_leads_a_sleeper_to_the_newest() -> None:
    world = start()
    world.crash(VICTIM)
    world.put_in_force(owners(world).rotated("root", "signer", at=world.now, root_ends=world.now + 120))
    world.run_for(300)
    assert world.state(5) == STALE
    world.put_in_force(owners(world).rotated("root", "fresh", at=world.now))
    world.run_for(10)
    world.start(VICTIM)
    goes_on(world)
    assert {world.pair(index) for index in (5, VICTIM)} == {(3, 3)}


def test_a_newcomer_whose_certificate_is_by_a_signer_three_roots_away_serves_in_the_next_committee() -> None:
    """Its bundle pins root 1; what it brings along is good only once it has come to root 4."""
    world = LyingWorld(FleetOverTime.of(make_fleet(4, 5)), rounds=ROUNDS)
    newcomer = 5
    world.crash(newcomer)
    world.records.pop(newcomer)
    world.run(world.rounds_ended(1))
    for _ in range(3):
        world.put_in_force(owners(world).rotated("root", "signer", at=world.now))
        world.run_for(120)
    world.keys = replace(owners(world), late=frozenset({newcomer}))
    world.start(newcomer)
    assert "0 of 1 signatures needed" in world.refused(newcomer)[0]
    world.run(lambda world: world.counts[newcomer, "answered"] > 0)
    assert world.pair(newcomer) == (4, 4)
    goes_on(world)


def test_a_sleeper_that_misses_the_newest_manifests_own_time_lives_by_its_date() -> None:
    """The date arrives before the root that its manifest needs: it is held until then."""
    world = start()
    world.crash(VICTIM)
    rotated = owners(world).rotated("root", "signer", "fresh", at=world.now, not_after=world.now + 60)
    world.put_in_force(rotated.dated_anew(world.now, world.now + 20 * DAY))
    world.run_for(300)
    world.start(VICTIM)
    world.run_for(10)
    assert (world.pair(VICTIM), world.state(VICTIM)) == ((2, 2), READY)
    goes_on(world)


@pytest.mark.parametrize("lost", ["root", "manifest", "certificate"])
def test_what_is_lost_once_is_asked_for_again(lost: str) -> None:
    world = start()
    missed: list[str] = []

    def lie(to: int, topic: str, payload: bytes) -> Iterable[bytes]:
        if to == VICTIM and world.topics.parse(topic).kind == lost and not missed:
            missed.append(topic)
            return []
        return [payload]

    world.lie = lie
    world.put_in_force(owners(world).rotated("root", "signer", at=world.now))
    world.run(lambda world: bool(missed))
    world.run_for(90)
    assert world.pair(VICTIM) == (2, 2)
    goes_on(world)


def test_a_rehearsal_of_thirty_devices_of_which_ten_sleep_through_three_rotations() -> None:
    keys = FleetOverTime.of(make_fleet(30, 4))
    sleepers = range(25, 35)
    world = LyingWorld(keys, rounds=ROUNDS)
    world.run(world.rounds_ended(2))
    for index in sleepers:
        world.crash(index)
    for roles in (("root", "signer", "fresh"), ("signer",), ("root", "signer", "fresh")):
        world.put_in_force(owners(world).rotated(*roles, at=world.now))
        done = len(world.outcomes())
        world.run(world.rounds_ended(done + 2))
    assert world.outcomes()[-1]["uploads"] == 20
    for index in sleepers:
        world.start(index)
    goes_on(world, uploads=30)
    assert {world.pair(index) for index in range(1, 35)} == {(4, 4)}
    assert {world.device(index).live.version for index in range(1, 35)} == {len(world.outcomes())}
    newest = {key.signer for key in owners(world).owner.signer.identities()}
    for index in sleepers:
        certificate = Frame.from_bytes(world.records[index].data["trust/certificate"])
        assert {signer for signer, _ in certificate.signatures} == newest


# ---- what a lying broker and stolen keys do


def forged_roots() -> dict[str, Callable[[Root, Owner, KeySet], Frame]]:
    """Roots 2 that lack a threshold, from the next table, the owners and the new root keys."""

    def one(keys: KeySet) -> KeySet:
        return replace(keys, seeds=keys.seeds[:1])

    def twice(table: Root, owner: Owner, new: KeySet) -> Frame:
        signer, other = one(owner.root).identities()[0], owner.root.identities()[1]
        signature = signer.sign("root", table.fleet, table.to_body())
        assert isinstance(other.signer, bytes)
        return by(table, one(owner.root), new, last=((other.signer, signature),))

    return {
        "old-threshold-missing": lambda table, owner, new: by(table, one(owner.root), new),
        "new-threshold-missing": lambda table, owner, new: by(table, owner.root, one(new)),
        "same-key-counted-twice": twice,
        "other-roles-keys": lambda table, owner, new: by(table, owner.signer, owner.fresh, new),
    }


@pytest.mark.parametrize("forged", list(forged_roots()))
def test_a_root_without_both_thresholds_changes_nobody(forged: str) -> None:
    world = start()
    keys, new = owners(world), KeySet.draw(seeded("thief"), 3, 2)
    table = replace(read(keys.rotated("root", at=world.now).later[0], Root), root=new.public_keys())
    frame = forged_roots()[forged](table, keys.owner, new)
    topic = world.topics.root(2)
    world.broker.retained[topic] = frame.to_bytes()
    for index in (*MEMBERS, *PARTICIPANTS):
        world.tell(index, {topic: frame.to_bytes()})
        assert (world.pair(index), world.state(index)) == ((1, 1), READY)
        assert "root: " in world.refused(index)[-1]
        assert "signatures needed" in world.refused(index)[-1]
    world.crash(VICTIM)
    world.start(VICTIM)
    goes_on(world)
    world.put_in_force(keys.rotated("root", at=world.now))
    goes_on(world)
    assert world.pair(VICTIM) == (2, 2)


def test_expiry_ends_uploads_and_mask_sums_for_everyone_until_a_new_date() -> None:
    world = start(not_after=START + 300)
    world.run_for(START + 301 - world.now)
    sent = len(world.broker.log)
    assert {world.state(index) for index in (*MEMBERS, *PARTICIPANTS)} == {STALE}
    world.run_for(600)
    kinds = [world.topics.parse(entry.topic) for entry in world.broker.log[sent:]]
    assert not [at for at in kinds if at.name in ("upload", "masksum", "share", "survivors")]
    assert all(world.counts[index, "state"] == 2 for index in PARTICIPANTS), "ready, then stale"
    world.put_in_force(owners(world).dated_anew(world.now, world.now + 30 * DAY))
    goes_on(world)
    assert {world.state(index) for index in (*MEMBERS, *PARTICIPANTS)} == {READY}


def test_expiry_while_a_device_trains_lets_no_upload_leave() -> None:
    world = start()
    world.training_time = lambda index, plan: 25.0
    world.put_in_force(owners(world).signed_anew(world.now, not_after=world.now + 20))
    world.run(lambda world: world.conductor.round.plan is not None)
    number = world.conductor.round.last
    assert {world.state(index) for index in PARTICIPANTS} == {READY}
    world.run_for(30)
    assert {world.state(index) for index in PARTICIPANTS} == {STALE}
    assert all(number not in world.sent_by(index, "upload") for index in PARTICIPANTS)
    assert all(number in world.sent_by(index, "decline") for index in PARTICIPANTS)
    world.put_in_force(owners(world).signed_anew(world.now))
    world.run_for(60)
    goes_on(world)


def test_expiry_before_the_survivors_arrive_lets_no_mask_sum_leave() -> None:
    world = start()
    world.put_in_force(owners(world).signed_anew(world.now, not_after=world.now + 40))
    held: list[tuple[int, str, bytes]] = []

    def lie(to: int, topic: str, payload: bytes) -> Iterable[bytes]:
        if world.topics.parse(topic).name != "survivors":
            return [payload]
        held.append((to, topic, payload))
        return []

    world.lie = lie
    world.run(lambda world: len(held) == 4)
    assert {world.state(index) for index in MEMBERS} == {READY}
    world.run(lambda _: world.state(1) == STALE)
    number = world.conductor.round.last
    for to, topic, payload in held:
        world.tell(to, {topic: payload})
        assert world.refused(to)[-1] == "documents: stale-fleet"
        assert number not in world.sent_by(to, "masksum")
    world.run(world.rounds_ended(2))
    assert world.outcomes()[-1]["reason"] == MEMBERS_MISSING
    del world.lie
    world.put_in_force(owners(world).signed_anew(world.now))
    goes_on(world)


def test_expiry_while_a_committee_is_set_up_lets_no_key_leave() -> None:
    world = LyingWorld(FleetOverTime.of(make_fleet(4, 4), START + 20), rounds=ROUNDS)
    held: list[tuple[int, str, bytes]] = []

    def lie(to: int, topic: str, payload: bytes) -> Iterable[bytes]:
        if world.topics.parse(topic).kind != "list":
            return [payload]
        held.append((to, topic, payload))
        return []

    world.lie = lie
    world.run(lambda _: len(held) == 4)
    world.run_for(25)
    for to, topic, payload in held:
        world.tell(to, {topic: payload})
    world.run_for(60)
    kinds = {world.topics.parse(entry.topic).kind for entry in world.broker.log}
    assert "card" in kinds
    assert not kinds & {"key", "share", "ready"}
    del world.lie
    world.put_in_force(owners(world).dated_anew(world.now, world.now + DAY))
    goes_on(world)


def test_freeze_of_one_device_makes_it_stale_and_the_rest_goes_on() -> None:
    """The broker hides a revocation, a rotation, everything: it can until the manifest it shows runs out."""
    world = start(not_after=START + 300)
    world.withhold(VICTIM, OWNERS_TOPICS)
    world.put_in_force(owners(world).rotated("root", "signer", at=world.now))
    goes_on(world)
    assert (world.pair(VICTIM), world.state(VICTIM)) == ((1, 1), READY)
    world.crash(VICTIM)
    world.start(VICTIM)
    world.run_for(START + 301 - world.now)
    assert world.state(VICTIM) == STALE
    uploaded = world.sent_by(VICTIM, "upload")
    goes_on(world, uploads=3)
    assert world.sent_by(VICTIM, "upload") == uploaded
    assert any(note.fields.get("state") == STALE for _, who, note in world.notes if who == VICTIM)
    del world.lie
    world.run(lambda _: world.pair(VICTIM) == (2, 2), deadline=3_700)
    goes_on(world)


def test_rollback_to_anything_older_changes_nobody_even_over_restarts() -> None:
    world = start()
    names, shown = world.topics, [owners(world)]
    for _ in range(2):
        world.put_in_force(owners(world).signed_anew(world.now, interval=len(shown)))
        goes_on(world)
        shown.append(owners(world))
    world.put_in_force(owners(world).rotated("signer", at=world.now))
    goes_on(world)
    for again in range(2):
        for old in shown:
            said = {names.root(1): old.root.to_bytes(), names.manifest(): old.manifest.to_bytes()}
            policy = {names.document("policy", old.version(), 0): old.documents["policy"].to_bytes()}
            world.tell(VICTIM, said | policy)
            policies = world.device(VICTIM).context.trust.hash_of("policy")
            assert policies == owners(world).documents["policy"].hash(world.keys.fleet)
            assert (world.pair(VICTIM), world.state(VICTIM)) == ((2, 4), READY)
        if not again:
            world.crash(VICTIM)
            world.lie = lambda to, topic, payload: [
                shown[0].manifest.to_bytes() if topic == names.manifest() else payload
            ]
            world.start(VICTIM)
            world.run_for(20)
            del world.lie
    goes_on(world)


def test_mix_and_match_leaves_a_device_waiting_for_what_its_manifest_lists() -> None:
    world = start()
    old, new = owners(world), owners(world).signed_anew(world.now, interval=1)
    topic = world.topics.document("policy", 2, 0)
    told = old.documents["policy"].to_bytes()
    world.lie = lambda to, at, payload: [told if (to, at) == (VICTIM, topic) else payload]
    world.put_in_force(new)
    goes_on(world, uploads=3)
    assert (world.pair(VICTIM), world.state(VICTIM)) == ((1, 2), WAITING)
    assert world.device(VICTIM).context.trust.policy is None
    assert any(why.startswith("policy: ") for why in world.refused(VICTIM))
    del world.lie
    world.run_for(120)
    assert world.state(VICTIM) == READY
    goes_on(world)


def test_fast_forward_by_a_stolen_signer_is_bounded_and_ends_with_the_next_root() -> None:
    world = start()
    honest, names = owners(world), world.topics
    far = honest.signed_anew(world.now, version=1_002)
    world.tell(VICTIM, {names.manifest(): far.manifest.to_bytes()})
    assert "manifest jumps from 1 to 1002" in world.refused(VICTIM)[-1]
    assert world.pair(VICTIM) == (1, 1)
    for version in (1_001, 2_001, 3_001):
        stolen = honest.signed_anew(world.now, version=version)
        world.tell(VICTIM, {names.manifest(): stolen.manifest.to_bytes()})
    serial = replace(honest.credentials[VICTIM].cert, serial=2**32 - 1, roles=2)
    world.tell(VICTIM, {names.certificate(VICTIM): honest.owner.certificate(serial, issued=START).to_bytes()})
    assert world.pair(VICTIM) == (1, 3_001)
    goes_on(world, uploads=3)
    world.put_in_force(honest.rotated("signer", at=world.now, version=1))
    goes_on(world)
    trust = world.device(VICTIM).context.trust
    assert (trust.pair, trust.state(world.now)) == ((2, 1), READY)
    assert trust.certificate is not None
    assert trust.certificate.cert == honest.credentials[VICTIM].cert


def test_fast_forward_of_the_time_by_a_stolen_freshness_key_ends_with_the_next_root() -> None:
    """A date from the year 2200 proves to every device that all documents have run out.

    Members have then erased the epoch's keys as past; a policy that the committee does not fit makes way for the next.
    """
    world = start()
    keys = owners(world)
    date = keys.dated_anew(START + 177 * YEAR, START + 178 * YEAR).dated
    assert date is not None
    for index in (*MEMBERS, *PARTICIPANTS):
        world.tell(index, {world.topics.date(): date.to_bytes()})
    world.crash(VICTIM)
    world.start(VICTIM)
    world.run_for(20)
    assert {world.state(index) for index in (*MEMBERS, *PARTICIPANTS)} == {STALE}
    world.put_in_force(keys.rotated("fresh", at=world.now, epoch_rounds=3))
    world.run(lambda _: world.counts[0, "epoch-ready"] == 2)
    goes_on(world)
    world.crash(VICTIM)
    world.start(VICTIM)
    goes_on(world)
    assert world.state(VICTIM) == READY


def test_endless_data_is_refused_at_once_and_held_nowhere() -> None:
    world = start()
    names, junk = world.topics, bytes(4 * 1024 * 1024)
    new = owners(world).signed_anew(world.now, interval=1)
    policy = names.document("policy", 2, 0)
    slices = 2**31 // 61_440 + 1
    endless = Chunks(2**31, 61_440, bytes(16 * slices))
    header = Frame(Chunks.KIND, endless.to_body()).to_bytes()
    world.lie = lambda to, topic, payload: [header if (to, topic) == (VICTIM, policy) else payload]
    world.put_in_force(new)
    world.run(lambda _: world.pair(VICTIM) == (1, 2))
    world.run_for(5)
    tracemalloc.start()
    for topic in (names.root(2), names.manifest(), names.date(), names.certificate(VICTIM), policy):
        world.tell(VICTIM, {topic: junk})
    for chunk in range(1, 10_000):
        world.deliver(VICTIM, names.document("policy", 2, chunk), junk[:61_440], True)
    world.run_for(60)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < len(junk) // 4
    assert world.state(VICTIM) == WAITING
    asked = {topic for client, topic in world.broker.asked if client == VICTIM}
    assert policy in asked
    assert names.document("policy", 2, 1) not in asked
    del world.lie
    world.run_for(120)
    goes_on(world)


def test_a_document_of_the_wrong_type_changes_nobody() -> None:
    world = start()
    keys, names = owners(world).rotated("root", at=world.now).dated_anew(world.now, world.now + DAY), world.topics
    assert keys.dated is not None
    certificate, policy = keys.certificate_now(VICTIM), keys.documents["policy"].to_bytes()
    root, manifest, date = keys.later[0].to_bytes(), keys.manifest.to_bytes(), keys.dated.to_bytes()
    topics = {
        names.root(2): root,
        names.manifest(): manifest,
        names.date(): date,
        names.certificate(VICTIM): certificate,
        names.document("policy", 1, 0): policy,
    }
    for topic, right in topics.items():
        for payload in topics.values():
            if payload != right:
                world.tell(VICTIM, {topic: payload})
                assert (world.pair(VICTIM), world.state(VICTIM)) == ((1, 1), READY)
    goes_on(world)


def test_documents_of_another_fleet_change_nobody() -> None:
    """The same owners, with the same keys, sign for two fleets."""
    world = start()
    keys, names = owners(world), world.topics
    owner = replace(keys.owner, fleet=bytes(16))
    cert, documents = keys.credentials[VICTIM].cert, list(keys.documents.values())
    with_id = read(keys.root, Root)
    other = owner.sign_next_root(replace(with_id, fleet=bytes(16)), {}, issued=START, not_after=START + YEAR)
    # Its fields say this fleet, its signatures that one, and the other way round.
    disguised = Frame(
        "root", owner.sign_next_root(with_id, {}, issued=START, not_after=START + YEAR).body, other.signatures
    )
    manifest = owner.sign_manifest(documents, version=2, issued=START, not_after=START + YEAR)
    for topic, frame in (
        (names.root(2), other),
        (names.root(2), disguised),
        (names.manifest(), manifest),
        (names.date(), owner.sign_date(manifest, issued=START, not_after=START + YEAR)),
        (names.certificate(VICTIM), owner.certificate(replace(cert, serial=2), issued=START)),
    ):
        world.tell(VICTIM, {topic: frame.to_bytes()})
        assert (world.pair(VICTIM), world.state(VICTIM)) == ((1, 1), READY)
    assert world.device(VICTIM).refusals == {"root": 2, "cert": 1}
    assert len(world.refused(VICTIM)) == 5
    goes_on(world)


def test_a_manifest_of_a_root_that_never_comes_keeps_nothing_else_from_coming() -> None:
    """Anyone who writes to the topic may claim a root 99; dates and manifests of the real root go on."""
    world = start()
    claimed = replace(owners(world), later=(owners(world).root,) * 98).owner.sign_manifest(
        owners(world).documents.values(), version=9, issued=START, not_after=START + YEAR, root_version=99
    )
    world.tell(VICTIM, {world.topics.manifest(): Frame("manifest", claimed.body).to_bytes()})
    world.put_in_force(owners(world).dated_anew(world.now, world.now + 2 * YEAR))
    world.run_for(10)
    trust = world.device(VICTIM).context.trust
    assert trust.date is not None
    world.put_in_force(owners(world).signed_anew(world.now, interval=1))
    goes_on(world)
    assert world.pair(VICTIM) == (1, 2)
