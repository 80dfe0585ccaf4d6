"""An upload's header at the coordinator: what it signs for is taken, everything else gets a receipt with its reason."""

from dataclasses import replace

import golden_fleet
import golden_round
import pytest
from golden_fleet import COORDINATOR_INDEX, SIZE, Records, fixed, verified
from second_writing import BAD_POINTS

from coordinator.context import Context
from coordinator.uploads import Uploads
from hushfleet.actions import Publish, Wake
from hushfleet.errors import MalformedError
from hushfleet.mqtt.topics import Topics
from hushfleet.wire import round as wire
from hushfleet.wire.documents import Policy, Roster
from hushfleet.wire.framing import Frame
from hushfleet.wire.round import Claim, Header, Plan, Receipt

OWNED, PLAYED = golden_fleet.documents(), golden_round.played()
FLEET, UPLOAD = OWNED.fleet, PLAYED.uploads[9]
PLAN = Plan.from_body(PLAYED.plan.body)
HEADER = Header.from_body(UPLOAD.header.body)


def uploads(records: Records | None = None) -> Uploads:
    coordinator = OWNED.credentials[COORDINATOR_INDEX]
    assert coordinator.seal_secret is not None
    context = Context(
        FLEET,
        COORDINATOR_INDEX,
        coordinator.identity(),
        coordinator.seal_secret,
        verified(),
        Topics(FLEET),
        records or Records(),
        fixed("coordinator"),
        4096,
    )
    policy = Policy.from_body(OWNED.documents["policy"].body)
    roster = Roster.from_body(OWNED.documents["roster"].body)
    return Uploads(context, PLAN, PLAYED.plan_hash(), policy, roster, evidence=False)


def answered(taking: Uploads, header: Header, device: int = 9, open_now: bool = True, now: float = 10.0) -> Receipt:
    """The one receipt that a header gets."""
    actions = taking.on_header(device, Frame("header", header.to_body()).to_bytes(), open_now, now)
    (sent,) = [action for action in actions if isinstance(action, Publish)]
    frame = Frame.from_bytes(sent.payload)
    assert frame.signed_by(COORDINATOR_INDEX, OWNED.credentials[COORDINATOR_INDEX].cert.key, FLEET)
    return Receipt.from_body(frame.body)


def resigned(header: Header, index: int = 9) -> Header:
    """The header with the signature that its sender gives for just these bytes."""
    claim = Claim(PLAN.roster, PLAYED.plan_hash(), header.round, index, header.y, header.upload_hash())
    return replace(header, sig=OWNED.identity(index).sign("upload", FLEET, claim.to_bytes()))


def test_the_golden_upload_is_taken_slice_by_slice() -> None:
    records = Records()
    taking = uploads(records)
    receipt = answered(taking, HEADER)
    assert (receipt.state, receipt.missing) == (wire.MISSING, b"\3")
    records.write(taking.on_chunk(9, 2, UPLOAD.data[SIZE:], 11.0))
    assert answered(taking, HEADER, now=12.0).missing == b"\1"
    records.write(taking.on_chunk(9, 1, UPLOAD.data[:SIZE], 13.0))
    assert answered(taking, HEADER, now=14.0).state == wire.ACCEPTED
    assert taking.total.to_bytes(PLAN.bits) == UPLOAD.data
    assert taking.accepted[9].to_bytes() == wire.Survivors.from_body(PLAYED.survivors.body).entries[:132]


@pytest.mark.parametrize("name", [name for name, point in BAD_POINTS.items() if len(point) == 32])
def test_a_signed_y_that_is_no_point_is_refused(name: str) -> None:
    """One in the survivor set, and every member would refuse the set: a participant could stop every round."""
    taking = uploads()
    receipt = answered(taking, resigned(replace(HEADER, y=BAD_POINTS[name])))
    assert (receipt.state, receipt.reason) == (wire.REFUSED, wire.BAD_FORM)
    assert not taking.accepted
    assert answered(taking, HEADER, now=12.0).state == wire.MISSING, "a right one is still taken"


def test_a_header_gets_the_reason_for_its_refusal() -> None:
    longer = replace(HEADER, length=HEADER.length + 8)
    for header, device, reason in [
        (resigned(longer), 9, wire.BAD_FORM),
        (longer, 9, wire.BAD_FORM),
        (replace(HEADER, sig=bytes(64)), 9, wire.BAD_SIGNATURE),
        (replace(HEADER, y=PLAYED.uploads[300].key.point), 9, wire.BAD_SIGNATURE),
        (HEADER, 300, wire.BAD_SIGNATURE),
        (resigned(HEADER, 10), 10, wire.NOT_CERTIFIED),
        (resigned(HEADER, 2), 2, wire.NOT_CERTIFIED),
        (HEADER, 12345, wire.NOT_CERTIFIED),
        (resigned(replace(HEADER, round=HEADER.round - 1)), 9, wire.CLOSED),
    ]:
        receipt = answered(uploads(), header, device)
        assert (receipt.state, receipt.reason) == (wire.REFUSED, reason)
    assert answered(uploads(), HEADER, open_now=False).reason == wire.CLOSED


def test_another_upload_of_the_round_is_refused() -> None:
    taking = uploads()
    answered(taking, HEADER)
    other = resigned(replace(HEADER, hashes=bytes(32)))
    assert answered(taking, other, now=12.0).reason == wire.ANOTHER_HELD


def test_headers_within_a_second_are_answered_once_at_its_end_by_what_holds_then() -> None:
    records = Records()
    taking = uploads(records)
    answered(taking, HEADER)
    header = Frame("header", HEADER.to_body()).to_bytes()
    for now in (10.2, 10.4, 10.9):
        assert taking.on_header(9, header, True, now) == [Wake(11.0)]
    records.write(taking.on_chunk(9, 2, UPLOAD.data[SIZE:], 10.95))
    assert taking.answer_late(True, 10.99) == []
    (sent,) = taking.answer_late(True, 11.0)
    assert isinstance(sent, Publish)
    assert Receipt.from_body(Frame.from_bytes(sent.payload).body).missing == b"\1"
    assert taking.answer_late(True, 13.0) == []
    # A round that has closed meanwhile asks for nothing more.
    answered(taking, HEADER, now=14.0)
    taking.on_header(9, header, True, 14.5)
    late = [action for action in taking.answer_late(False, 15.0) if isinstance(action, Publish)]
    assert [Receipt.from_body(Frame.from_bytes(sent.payload).body).reason for sent in late] == [wire.CLOSED]


def test_the_last_chunk_is_answered_at_once_and_leaves_no_late_answer() -> None:
    records = Records()
    taking = uploads(records)
    answered(taking, HEADER)
    taking.on_header(9, Frame("header", HEADER.to_body()).to_bytes(), True, 10.2)
    records.write(taking.on_chunk(9, 2, UPLOAD.data[SIZE:], 10.3))
    actions = taking.on_chunk(9, 1, UPLOAD.data[:SIZE], 10.4)
    assert [type(action) for action in actions if isinstance(action, Publish)] == [Publish]
    assert taking.answer_late(True, 20.0) == []


def test_a_header_with_a_signature_of_its_own_is_no_header() -> None:
    signed = Frame("header", UPLOAD.header.body, ((9, UPLOAD.signature),))
    with pytest.raises(MalformedError, match="no signature"):
        uploads().on_header(9, signed.to_bytes(), True, 10.0)
