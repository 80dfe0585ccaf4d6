"""Members and participants that lie about sums: found, named with evidence, and never blamed falsely (section 4)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nacl.bindings import randombytes_buf_deterministic
from signed_fleet import FleetKeys, make_fleet, seeded
from world import Crash, World

from coordinator.audit import BLAME
from coordinator.planning import RoundSettings
from edge_agent.sheets import Sheets
from hushfleet.actions import Export, Publish
from hushfleet.codec import PLAIN_BITS, lanes
from hushfleet.errors import HushfleetError, RefusedError
from hushfleet.evidence import Evidence, judge_evidence
from hushfleet.hashing import digest
from hushfleet.secagg.residues import Vector
from hushfleet.secagg.sealing import seal, unseal
from hushfleet.wire.framing import Frame, Table
from hushfleet.wire.round import CHECKSUM, Blame, MaskSum

ROUNDS = RoundSettings(collect=60, answer=10, recover=40, total=6)
LIAR = 2


def world_with(seed: object = 0, rounds: RoundSettings = ROUNDS, **policy: Any) -> World:
    return World(make_fleet(5, 5, **({"audit_rate": 0.0} | policy)), seed=seed, rounds=rounds)


def alter_sum(world: World, member: int, change: Callable[[Vector, bytes], None]) -> None:
    """From now on this member's mask sums are something else; it signs them all the same."""
    role = world.device(member).member
    honest = role._mask_sum

    def lie(verified: Any, *arguments: Any) -> MaskSum:
        answer = honest(verified, *arguments)
        vector = Vector.from_bytes(answer.sum, PLAIN_BITS, verified.plan.coords, lanes(0))
        change(vector, verified.hash)
        return replace(answer, sum=vector.to_bytes(PLAIN_BITS))

    setattr(role, "_mask_sum", lie)  # noqa: B010  (a liar is made of an honest role)


def steer(vector: Vector, plan_hash: bytes) -> None:
    """Shift coordinate 0 of the opened sum by 5 and the checksum lane to match: no check can see it."""
    seed = digest("chks", plan_hash)
    words = randombytes_buf_deterministic(8 * (len(vector.body) + len(vector.tail) - 1), seed)
    first = np.frombuffer(words, "<u8", 1)[0] | np.uint64(1)
    vector.body[0] -= np.uint16(5)
    with np.errstate(over="ignore"):
        vector.tail[-1] -= first * np.uint64(5)


def spoil(vector: Vector, plan_hash: bytes) -> None:
    """Shift coordinate 0 alone: the checksum fails."""
    vector.body[0] -= np.uint16(5)


def spoil_checksum_lane(world: World, participant: int) -> None:
    """From now on this participant's checksum lane is off by one, under its masks."""
    role = world.device(participant).participant
    honest = role._masked

    def lie(*arguments: Any) -> tuple[bytes, bytes]:
        y_point, data = honest(*arguments)
        lane = int.from_bytes(data[-8:], "little")
        return y_point, data[:-8] + ((lane + 1) % 2**64).to_bytes(8, "little")

    setattr(role, "_masked", lie)  # noqa: B010


def opened(world: World, payload: bytes) -> Frame:
    """What a device sealed to the coordinator."""
    secret = world.keys.credentials[0].seal_secret
    assert secret is not None
    return Frame.from_bytes(unseal(payload, secret), 100_000)


def sealed(world: World, member: int, message: Table) -> bytes:
    """Another message of a member, signed and sealed as its own are."""
    frame = world.keys.credentials[member].identity().frame(message, world.keys.fleet)
    return seal(frame.to_bytes(), world.keys.credentials[0].cert.seal, seeded("another"))


def run(world: World, rounds: int) -> list[dict[str, object]]:
    world.run(world.rounds_ended(rounds))
    return world.outcomes()


def evidence_of(world: World) -> list[bytes]:
    return [value for key, value in sorted(world.records[0].data.items()) if key.startswith(BLAME)]


def judge(data: bytes, keys: FleetKeys) -> tuple[int, int]:
    verdict = judge_evidence(data, keys.fleet, keys.root.hash(keys.fleet))
    return verdict.member, verdict.round


def notes(world: World, event: str) -> list[dict[str, object]]:
    return [note.fields for _, index, note in world.notes if index == 0 and note.event == event]


def test_a_member_that_spoils_the_sum_is_named_and_the_round_still_opens() -> None:
    world = world_with(recoveries=2, committee_min=5)
    alter_sum(world, 1, spoil)
    (first, *_) = run(world, 1)
    assert first["outcome"] == "applied"
    assert first["blamed"] == [1]
    (data,) = evidence_of(world)
    assert judge(data, world.keys) == (1, 1)
    # The honest members judge it too, each for itself.
    world.run_for(1)
    words = {index: note.fields for _, index, note in world.notes if note.event == "blame"}
    assert set(words) >= {2, 3, 4, 5}
    verdict = judge_evidence(data, world.keys.fleet, world.keys.root.hash(world.keys.fleet))
    assert words[2] == {"round": 1, "member": 1, "why": verdict.why}


def test_without_a_spare_recovery_the_suspects_of_the_next_round_go_on_where_this_one_ended() -> None:
    world = world_with()
    alter_sum(world, 3, spoil)
    outcomes = run(world, 3)
    assert [outcome["outcome"] for outcome in outcomes] == ["void", "void", "applied"]
    assert [note["member"] for note in notes(world, "cleared")] == [1, 2]
    assert outcomes[2]["blamed"] == [3]


def test_a_member_that_steers_the_sum_past_the_checksum_is_found_by_audit() -> None:
    unaudited = world_with()
    alter_sum(unaudited, LIAR, steer)
    assert {outcome["outcome"] for outcome in run(unaudited, 6)} == {"applied"}
    assert evidence_of(unaudited) == []

    world = world_with(audit_rate=1.0, rounds=replace(ROUNDS, total=40), epoch_rounds=8)
    alter_sum(world, LIAR, steer)
    world.run(lambda world: bool(evidence_of(world)))
    data = evidence_of(world)[0]
    member, number = judge(data, world.keys)
    assert member == LIAR
    assert world.outcomes()[number - 1]["outcome"] == "applied"


def test_audits_come_as_often_as_the_policy_says_and_spare_nobody() -> None:
    world = world_with(audit_rate=0.5, rounds=replace(ROUNDS, total=60), epoch_rounds=30)
    run(world, 60)
    examined = [note["member"] for note in notes(world, "examining")]
    assert 15 < len(examined) < 45
    assert set(examined) == {1, 2, 3, 4, 5}
    assert len(notes(world, "cleared")) == len(examined)


def test_a_participant_that_spoils_its_checksum_lane_makes_void_rounds_and_blames_nobody() -> None:
    world = world_with()
    spoil_checksum_lane(world, 7)
    outcomes = run(world, 6)
    assert {(outcome["outcome"], outcome["reason"]) for outcome in outcomes} == {("void", CHECKSUM)}
    assert evidence_of(world) == []
    # One suspect a round, those cleared longest ago first.
    assert [note["member"] for note in notes(world, "cleared")] == [1, 2, 3, 4, 5, 1]


def test_a_lying_member_and_a_lying_participant_at_once() -> None:
    world = world_with(recoveries=2, committee_min=5)
    spoil_checksum_lane(world, 7)
    alter_sum(world, LIAR, spoil)
    outcomes = run(world, 2)
    assert [outcome["outcome"] for outcome in outcomes] == ["void", "void"]
    assert {judge(data, world.keys)[0] for data in evidence_of(world)} == {LIAR}


def test_a_member_that_signs_two_sums_for_one_set_is_blamed_by_them_alone() -> None:
    world = world_with(audit_rate=1.0)

    def answer_twice(sender: int, publish: Publish) -> list[Publish]:
        sent = [publish]
        if sender == LIAR and "/masksum/" in publish.topic:
            frame = opened(world, publish.payload)
            other = replace(MaskSum.from_body(frame.body), sum=bytes(len(MaskSum.from_body(frame.body).sum)))
            sent.append(replace(publish, payload=sealed(world, LIAR, other)))
        return sent

    world.tamper = answer_twice
    run(world, 1)
    (data,) = evidence_of(world)
    verdict = judge_evidence(data, world.keys.fleet, world.keys.root.hash(world.keys.fleet))
    assert (verdict.member, verdict.why) == (LIAR, "signed two different mask sums for one set")


class TestFalseBlame:
    """The coordinator holds every share and key of its own, and still cannot make a member a liar."""

    @pytest.fixture
    def keys(self) -> FleetKeys:
        return make_fleet(5, 5, audit_rate=0.0, recoveries=2, committee_min=5)

    @pytest.fixture
    def evidence(self, keys: FleetKeys) -> Evidence:
        world = World(keys, rounds=ROUNDS)
        alter_sum(world, 1, spoil)
        run(world, 1)
        (data,) = evidence_of(world)
        return Evidence.from_body(data)

    def accuse(self, keys: FleetKeys, evidence: Evidence, **change: Any) -> bytes:
        """The evidence with another accusation, signed by the coordinator as it likes."""
        blame = replace(Blame.from_body(Frame.from_bytes(evidence.blame).body), **change)
        frame = keys.credentials[0].identity().frame(blame, keys.fleet)
        return replace(evidence, blame=frame.to_bytes()).to_body()

    def test_the_evidence_itself_holds(self, keys: FleetKeys, evidence: Evidence) -> None:
        assert judge(evidence.to_body(), keys) == (1, 1)

    def test_another_scalar_proves_nothing(self, keys: FleetKeys, evidence: Evidence) -> None:
        with pytest.raises(RefusedError, match="not the one behind"):
            judge(self.accuse(keys, evidence, scalar=(7).to_bytes(32, "little")), keys)

    def test_another_member_cannot_be_named(self, keys: FleetKeys, evidence: Evidence) -> None:
        with pytest.raises(HushfleetError):
            judge(self.accuse(keys, evidence, lost=2), keys)

    def test_a_sum_that_the_member_did_not_sign_proves_nothing(self, keys: FleetKeys, evidence: Evidence) -> None:
        blame = Blame.from_body(Frame.from_bytes(evidence.blame).body)
        frame = Frame.from_bytes(blame.sums[0])
        changed = replace(MaskSum.from_body(frame.body), root=9)
        forged = replace(frame, body=changed.to_body()).to_bytes()
        with pytest.raises(HushfleetError):
            judge(self.accuse(keys, evidence, sums=(forged,)), keys)

    def test_another_set_proves_nothing(self, keys: FleetKeys, evidence: Evidence) -> None:
        blame = Blame.from_body(Frame.from_bytes(evidence.blame).body)
        survivors = Frame.from_bytes(blame.set)
        cut = replace(survivors, body=survivors.body[:-132])
        with pytest.raises(HushfleetError):
            judge(self.accuse(keys, evidence, set=cut.to_bytes()), keys)

    def test_no_sum_or_a_stranger_s_root_proves_nothing(self, keys: FleetKeys, evidence: Evidence) -> None:
        with pytest.raises(RefusedError, match="no mask sum"):
            judge(self.accuse(keys, evidence, sums=()), keys)
        with pytest.raises(RefusedError):
            judge_evidence(evidence.to_body(), keys.fleet, bytes(32))

    def test_a_member_whose_sum_is_right_is_never_blamed(self, keys: FleetKeys) -> None:
        """The coordinator accuses an honest member with that one's own true sum and its true secret."""
        world = World(keys, rounds=ROUNDS)
        alter_sum(world, 1, spoil)
        honest: list[tuple[bytes, bytes]] = []

        def watch(sender: int, publish: Publish) -> list[Publish]:
            if sender == 2 and "/masksum/" in publish.topic:
                sheet = Sheets(world.records[2]).of_round(1, 1)
                assert sheet is not None
                honest.append((opened(world, publish.payload).to_bytes(), sheet.secret))
            return [publish]

        world.tamper = watch
        run(world, 1)
        (data,), (signed, secret) = evidence_of(world), honest[0]
        with pytest.raises(RefusedError, match="the blame is false"):
            judge(self.accuse(keys, Evidence.from_body(data), lost=2, sums=(signed,), scalar=secret), keys)


def test_evidence_goes_to_its_place_again_after_a_crash() -> None:
    world = world_with(recoveries=2, committee_min=5)
    alter_sum(world, 1, spoil)
    run(world, 1)
    world.crash(0)
    world.start(0)
    (export,) = world.conductor.round.audit.kept()
    assert isinstance(export, Export)
    assert judge(export.content, world.keys) == (1, 1)


def test_a_crash_during_an_examination_neither_clears_nor_doubles() -> None:
    for event in range(30, 120, 3):
        world = world_with(seed=event, recoveries=2, committee_min=5)
        alter_sum(world, 1, spoil)
        world.crashes[0, event] = Crash(sent=event % 3)
        first = run(world, 1)[0]
        assert first["outcome"] in ("applied", "aborted"), (event, first)
        if first["outcome"] == "applied":
            assert first["blamed"] == [1], event
