"""Uploads, receipts and answers brought back, moved to another place, or made by someone else."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from wiretap import LIAR, VICTIM, Fleet
from witness import Witness

from hushfleet.actions import Publish
from hushfleet.secagg.sealing import unseal
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import ACCEPTED, ANOTHER_HELD, REFUSED, Claim, Decline, Header, MaskSum, Plan, Receipt

# Uploads.


def test_another_devices_upload_under_ones_own_name_is_refused() -> None:
    fleet = Fleet()
    fleet.keep_from_coordinator(LIAR)
    fleet.world.run(fleet.world.noted(VICTIM, "uploading"))
    fleet.world.run_for(0.005)
    for entry in fleet.sent("upload", VICTIM, 1):
        at = fleet.topics.parse(entry.topic)
        fleet.inject(fleet.topics.up(0, LIAR, "upload", 1, at.chunk), entry.payload)
    fleet.world.run_for(1)
    assert [(receipt.state, receipt.reason) for receipt in fleet.receipts(LIAR)] == [(REFUSED, 3)]
    fleet.world.run(fleet.world.rounds_ended(1))
    assert not Witness(fleet.world).results[1].includes(LIAR)
    Witness(fleet.world).check_sums("replay")


def test_last_rounds_upload_brought_back_is_closed_and_in_no_sum() -> None:
    fleet = Fleet()
    fleet.world.run(fleet.world.rounds_ended(1))
    fleet.keep_from_coordinator(VICTIM)
    fleet.world.run(lambda world: world.counts[0, "plan"] == 2)
    before = len(fleet.world.broker.log)
    old = fleet.sent("upload", VICTIM, 1)
    assert len(old) >= 4
    for entry in old:
        at = fleet.topics.parse(entry.topic)
        for number in (1, 2):
            fleet.inject(fleet.topics.up(0, VICTIM, "upload", number, at.chunk), entry.payload)
    fleet.world.run_for(1)
    assert {(receipt.round, receipt.state) for receipt in fleet.receipts(VICTIM, before)} == {(1, REFUSED)}
    fleet.world.run(fleet.world.rounds_ended(2))
    assert not Witness(fleet.world).results[2].includes(VICTIM)
    Witness(fleet.world).check_sums("replay")


def test_an_upload_sent_ten_times_counts_once() -> None:
    fleet = Fleet()

    def tamper(sender: int, publish: Publish) -> Iterable[Publish]:
        return [publish] * (10 if fleet.topics.parse(publish.topic).name == "upload" else 1)

    fleet.world.tamper = tamper
    fleet.world.run(fleet.world.rounds_ended(2))
    assert [(outcome["outcome"], outcome["uploads"]) for outcome in fleet.world.outcomes()] == [("applied", 3)] * 2
    Witness(fleet.world).check()


def test_a_second_upload_of_one_device_is_refused_and_the_first_one_counts() -> None:
    """The liar signs two different uploads for one plan; the second would take the accepted one's place."""
    fleet = Fleet()
    fleet.keep_from_coordinator(VICTIM)
    fleet.world.run(fleet.world.noted(0, "accepted", 2))
    plan_frame = Frame.from_bytes(fleet.world.broker.retained[fleet.topics.plan()])
    plan, plan_hash = read(plan_frame, Plan), plan_frame.hash(fleet.keys.fleet)
    first = read(Frame.from_bytes(fleet.sent("upload", LIAR, 1)[0].payload), Header)
    other = replace(first, hashes=bytes(len(first.hashes)))
    claim = Claim(plan.roster, plan_hash, 1, LIAR, other.y, other.upload_hash())
    signature = fleet.keys.credentials[LIAR].identity().sign("upload", fleet.keys.fleet, claim.to_bytes())
    fleet.world.run_for(2)
    second = Frame(Header.KIND, replace(other, sig=signature).to_body()).to_bytes()
    fleet.inject(fleet.topics.up(0, LIAR, "upload", 1, 0), second)
    fleet.world.run_for(1)
    assert (fleet.receipts(LIAR)[-1].state, fleet.receipts(LIAR)[-1].reason) == (REFUSED, ANOTHER_HELD)
    fleet.world.crash(0)
    fleet.world.start(0)
    fleet.world.tamper = lambda sender, publish: [publish]
    fleet.world.run(fleet.world.rounds_ended(1))
    assert (fleet.world.outcomes()[0]["outcome"], fleet.world.outcomes()[0]["uploads"]) == ("applied", 3)
    Witness(fleet.world).check_sums("replay")


# Receipts.


def owing() -> tuple[Fleet, bytes]:
    """A fleet whose victim waits for its receipt, with that upload's hash."""
    fleet = Fleet()
    held = fleet.keep_from_coordinator(VICTIM)
    fleet.world.run(fleet.world.noted(VICTIM, "uploading"))
    return fleet, read(Frame.from_bytes(held[0].payload), Header).upload_hash()


FORGED: dict[str, Callable[[Fleet, bytes], bytes]] = {
    "signed by another device": lambda fleet, upload: fleet.signed(Receipt(LIAR, 1, upload, ACCEPTED, 0, b"")),
    "the coordinator's name, another's key": lambda fleet, upload: Frame(
        Receipt.KIND,
        Receipt(0, 1, upload, ACCEPTED, 0, b"").to_body(),
        ((0, bytes(64)),),
    ).to_bytes(),
    "unsigned": lambda fleet, upload: Frame(Receipt.KIND, Receipt(0, 1, upload, ACCEPTED, 0, b"").to_body()).to_bytes(),
    "for another upload": lambda fleet, upload: fleet.signed(Receipt(0, 1, bytes(32), ACCEPTED, 0, b""), signer=0),
    "for another round": lambda fleet, upload: fleet.signed(Receipt(0, 9, upload, ACCEPTED, 0, b""), signer=0),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_receipt_makes_nobody_forget_its_upload(name: str) -> None:
    fleet, upload = owing()
    fleet.inject(fleet.topics.down(VICTIM, "receipt", 1), FORGED[name](fleet, upload))
    fleet.world.run_for(0.1)
    assert "participant/upload" in fleet.world.records[VICTIM].data
    # It asks on, and once its messages pass the upload is accepted.
    fleet.world.tamper = lambda sender, publish: [publish]
    fleet.world.run(fleet.world.rounds_ended(1))
    assert Witness(fleet.world).results[1].includes(VICTIM)
    Witness(fleet.world).check()


# Answers of members, declines.


def test_mask_sums_of_others_and_of_other_rounds_are_not_subtracted() -> None:
    fleet = Fleet()
    fleet.world.run(fleet.world.rounds_ended(1))
    old = fleet.sent("masksum", 2, 1)
    held = fleet.keep_from_coordinator(2, "masksum")
    fleet.world.run(fleet.world.noted(2, "answered", 2))
    secret = fleet.keys.credentials[0].seal_secret
    assert secret
    whole = b"".join(publish.payload for publish in held[1:])
    honest = read(Frame.from_bytes(unseal(whole, secret)), MaskSum)
    before = fleet.world.counts[0, "refused"]
    for entry in old:
        # Last round's answer under this round's name.
        at = fleet.topics.parse(entry.topic)
        fleet.inject(fleet.topics.up(0, 2, "masksum", 2, at.chunk), entry.payload)
    for frame in (
        fleet.signed(replace(honest, sender=LIAR)),
        fleet.signed(honest, signer=3),
        fleet.signed(replace(honest, set=bytes(32)), signer=2),
        fleet.signed(replace(honest, plan=bytes(32)), signer=2),
        fleet.signed(replace(honest, sum=honest.sum[:-8]), signer=2),
        fleet.signed(replace(honest, group=1), signer=2),
    ):
        fleet.world.run_for(0.1)
        for number, piece in enumerate(fleet.sealed(frame)):
            fleet.inject(fleet.topics.up(0, 2, "masksum", 2, number), piece)
    fleet.world.run_for(0.1)
    assert fleet.world.counts[0, "refused"] >= before + 7
    assert fleet.world.conductor.round.plan
    fleet.world.tamper = lambda sender, publish: [publish]
    fleet.world.run(fleet.world.rounds_ended(2))
    assert fleet.world.outcomes()[1]["outcome"] == "applied"
    Witness(fleet.world).check_sums("replay")


def test_nobody_declines_for_another_or_without_being_a_participant() -> None:
    fleet = Fleet()
    fleet.keep_from_coordinator(VICTIM)
    fleet.world.run(fleet.world.noted(VICTIM, "uploading"))
    plan_hash = Frame.from_bytes(fleet.world.broker.retained[fleet.topics.plan()]).hash(fleet.keys.fleet)
    for device, frame in (
        (VICTIM, fleet.signed(Decline(LIAR, plan_hash, 1))),
        (VICTIM, fleet.signed(Decline(VICTIM, bytes(32), 1), signer=VICTIM)),
        (2, fleet.signed(Decline(2, plan_hash, 1), signer=2)),
        (3, fleet.signed(Decline(3, plan_hash, 1), signer=3)),
    ):
        for number, piece in enumerate(fleet.sealed(frame)):
            fleet.inject(fleet.topics.up(0, device, "decline", 1, number), piece)
    fleet.world.run_for(1)
    # Two of three are in; had the victim been believed to decline, or two others with it, the round would be frozen.
    assert fleet.world.counts[0, "accepted"] == 2
    assert not fleet.world.counts[0, "declined"]
    assert not fleet.world.counts[0, "frozen"]
    fleet.world.tamper = lambda sender, publish: [publish]
    fleet.world.run(fleet.world.rounds_ended(1))
    assert fleet.world.outcomes()[0]["uploads"] == 3
