"""A candidate that lies in a set-up: the attempt fails and says whose fault it is, and the honest reveal nothing.

Everyone here is the real role; the liar's messages are replaced, under its own signature, on their way to the broker.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from nacl import bindings
from world import FleetKeys, World, make_fleet, seeded

from edge_agent.sheets import Attempt
from hushfleet import ceremony
from hushfleet.actions import Publish
from hushfleet.errors import MalformedError
from hushfleet.mqtt.topics import Parsed, Topics
from hushfleet.secagg import group
from hushfleet.secagg.committee import Sheet, commitments, deal, recover
from hushfleet.secagg.sealing import seal, unseal
from hushfleet.wire.committee import Box, Card, CommitteeKey, Complaint, Transcript
from hushfleet.wire.framing import Frame, Table, read

LIAR, HONEST = 2, (1, 3, 4)
Lie = Callable[[Parsed, Publish], Iterable[Publish]]


class SetUp:
    """A fleet whose first set-up has a liar in it."""

    def __init__(self, keys: FleetKeys | None = None) -> None:
        self.keys = keys or make_fleet(3, 4)
        self.topics = Topics(self.keys.fleet)
        self.lies: dict[str, Lie] = {}
        self.world = World(self.keys, seed="set-up")
        self.world.tamper = self._tamper

    def _tamper(self, sender: int, publish: Publish) -> Iterable[Publish]:
        at = self.topics.parse(publish.topic)
        lie = self.lies.get(at.kind)
        return lie(at, publish) if lie and sender == LIAR and at.epoch == 1 and publish.payload else [publish]

    def signed(self, message: Table, signer: int = LIAR) -> bytes:
        return self.keys.credentials[signer].identity().frame(message, self.keys.fleet).to_bytes()

    def alter(self, kind: str, change: Callable[[Any], Table]) -> None:
        """The liar signs something else in place of its message of that kind."""
        tables = {"card": Card, "key": CommitteeKey, "share": Box, "ready": Transcript}

        def lie(at: Parsed, publish: Publish) -> Iterable[Publish]:
            return [
                replace(publish, payload=self.signed(change(read(Frame.from_bytes(publish.payload), tables[kind]))))
            ]

        self.lies[kind] = lie

    def sent(self, kind: str, epoch: int = 1) -> dict[int, list[bytes]]:
        """What was sent of a kind in an epoch, by sender."""
        found: dict[int, list[bytes]] = {}
        for entry in self.world.broker.log:
            at = self.topics.parse(entry.topic)
            if (at.kind, at.epoch) == (kind, epoch) and entry.payload:
                found.setdefault(entry.sender, []).append(entry.payload)
        return found

    def failure(self) -> str:
        """Let the first attempt fail; why."""
        self.world.run(self.world.noted(0, "setup-failed"), 300.0)
        return str(next(note for _, _, note in self.world.notes if note.event == "setup-failed").fields["why"])

    def check_the_next_attempt_goes_without_the_liar(self) -> None:
        self.world.run(self.world.noted(0, "epoch-ready"), 300.0)
        ready = next(note for _, _, note in self.world.notes if note.event == "epoch-ready")
        assert ready.fields["members"] == list(HONEST)
        self.world.run(self.world.rounds_ended(1))
        assert self.world.outcomes()[0]["outcome"] == "applied"

    def check_nothing_was_revealed(self) -> None:
        """Of the honest, no secret but one that opens a box of the liar's, and no readiness for the failed attempt."""
        boxes = [read(Frame.from_bytes(data), Box) for sender in HONEST for data in self.sent("share").get(sender, [])]
        for member in HONEST:
            assert member not in self.sent("ready")
            for data in self.sent("complaint").get(member, []):
                complaint = read(Frame.from_bytes(data), Complaint)
                assert read(Frame.from_bytes(complaint.box), Box).sender == LIAR
                for box in boxes:
                    with pytest.raises(MalformedError):
                        unseal(box.box, complaint.secret)


# Commitments.


def with_first_point(point: bytes) -> Callable[[SetUp, CommitteeKey], CommitteeKey]:
    return lambda fleet, key: replace(key, points=point + key.points[32:])


def copied(fleet: SetUp, key: CommitteeKey) -> CommitteeKey:
    """Another dealer's points, under the liar's name."""
    (frame,) = fleet.sent("key")[1]
    return replace(key, points=read(Frame.from_bytes(frame), CommitteeKey).points)


def one_copied(fleet: SetUp, key: CommitteeKey) -> CommitteeKey:
    (frame,) = fleet.sent("key")[1]
    return replace(key, points=key.points[:-32] + read(Frame.from_bytes(frame), CommitteeKey).points[-32:])


SMALL = ((1 << 255) - 20).to_bytes(32, "little")
MIXED = bindings.crypto_core_ed25519_add(group.base_multiply(group.scalar(7)), SMALL)
BAD_KEYS: dict[str, tuple[Callable[[SetUp, CommitteeKey], CommitteeKey], str]] = {
    "identity": (with_first_point((1).to_bytes(32, "little")), "not a valid point"),
    "small order": (with_first_point(SMALL), "not a valid point"),
    "a small-order part": (with_first_point(MIXED), "not a valid point"),
    "non-canonical": (with_first_point(((1 << 255) - 18).to_bytes(32, "little")), "not a valid point"),
    "two equal points": (
        lambda fleet, key: replace(key, points=key.points[32:64] + key.points[32:]),
        "two equal points",
    ),
    "a copied key": (copied, "copied points of another's key"),
    "one copied point": (one_copied, "copied points of another's key"),
    "too few commitments": (lambda fleet, key: replace(key, points=key.points[:-32]), "not exactly 3 commitments"),
    "too many commitments": (
        lambda fleet, key: replace(key, points=key.points + group.base_multiply(group.scalar(5))),
        "not exactly 3 commitments",
    ),
    "another list": (lambda fleet, key: replace(key, list=bytes(32)), "a key of another attempt"),
    "another first round": (lambda fleet, key: replace(key, first=key.first + 1), "a key of another attempt"),
    "another end": (lambda fleet, key: replace(key, not_after=key.not_after + 1), "a key of another attempt"),
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_bad_key_is_named_and_nobody_gets_ready_over_it(name: str) -> None:
    fleet, (change, why) = SetUp(), BAD_KEYS[name]
    fleet.alter("key", lambda key: change(fleet, key))
    assert fleet.failure().startswith(f"member {LIAR}")
    assert why in fleet.failure()
    fleet.world.run_for(5)
    # The members saw it for themselves: none is ready, whatever the coordinator says.
    for member in HONEST:
        assert fleet.world.counts[member, "not-ready"]
    fleet.check_nothing_was_revealed()
    fleet.check_the_next_attempt_goes_without_the_liar()


@pytest.mark.parametrize("kind", ["card", "key"])
def test_two_words_of_one_candidate_are_named(kind: str) -> None:
    fleet = SetUp()

    def twice(at: Parsed, publish: Publish) -> Iterable[Publish]:
        frame = Frame.from_bytes(publish.payload)
        if kind == "card":
            second: Table = replace(read(frame, Card), anchor=bytes(32))
        else:
            key = read(frame, CommitteeKey)
            second = replace(key, points=key.points[:-32] + group.base_multiply(group.scalar(5)))
        return [publish, replace(publish, payload=fleet.signed(second))]

    fleet.lies[kind] = twice
    assert f"{LIAR} signed two {kind}s" in fleet.failure()
    fleet.check_nothing_was_revealed()
    fleet.check_the_next_attempt_goes_without_the_liar()


# Shares.


def contents(sheet: Sheet, header: bytes, position: int) -> dict[str, bytes]:
    """What a lying dealer may seal for a member, by name."""
    shares = sheet.shares(position)
    wrong = group.scalar_add(shares[2], group.scalar(1))
    # The right value mod L, in a form that no honest dealer writes.
    beyond = (int.from_bytes(shares[2], "little") + group.ORDER).to_bytes(32, "little")
    return {
        "a share of 0": header + b"".join([*shares[:2], bytes(32), *shares[3:]]),
        "a share not below L": header + b"".join([*shares[:2], beyond, *shares[3:]]),
        "one wrong share": header + b"".join([*shares[:2], wrong, *shares[3:]]),
        "two shares exchanged": header + b"".join([shares[1], shares[0], *shares[2:]]),
        "another member's shares": header + b"".join(sheet.shares(position % 4 + 1)),
        "a round less": header + b"".join(shares[:-1]),
        "a round more": header + b"".join([*shares, shares[0]]),
        "another header": bytes(40) + b"".join(shares),
        "nothing": b"",
    }


@pytest.mark.parametrize("name", [*contents(Sheet(((group.scalar(1), group.scalar(2)),) * 4), b"", 1), "noise"])
def test_a_signed_box_with_wrong_content_is_opened_and_its_dealer_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, sheets = SetUp(), {}

    def dealing(vault_secret: bytes, *arguments: Any) -> Sheet:
        sheets[vault_secret] = deal(vault_secret, *arguments)
        return sheets[vault_secret]

    monkeypatch.setattr("edge_agent.dealer.arithmetic.deal", dealing)

    def lie(box: Box) -> Box:
        if box.to != 3:
            return box
        (frame,) = fleet.sent("card")[box.to]
        public = ceremony.seal_key_for(read(Frame.from_bytes(frame), Card), LIAR, [1, 2, 3, 4])
        sheet = sheets[fleet.world.records[LIAR].data["vault/secret"]]
        content = contents(sheet, ceremony.box_header(box.key, LIAR, box.to), position=3).get(name)
        sealed = seal(content, public, seeded(name)) if content is not None else bytes(200)
        return replace(box, box=sealed)

    fleet.alter("share", lie)
    assert fleet.failure() == f"member 3 complained, member {LIAR} lied"
    assert list(fleet.sent("complaint")) == [3]
    fleet.world.run_for(5)
    # The two others may be ready over it; without the third nobody's readiness is worth anything.
    assert not fleet.world.counts[0, "epoch-ready"]
    assert 3 not in fleet.sent("ready")
    fleet.check_the_next_attempt_goes_without_the_liar()
    # The complaint is taken back with the attempt.
    assert not fleet.world.broker.retained.get(fleet.topics.complaint(1, 3))


def own_secret(fleet: SetUp, member: int, dealer_index: int) -> bytes:
    """The liar's own sealing secret for a dealer, from its vault."""
    return Attempt.from_body(fleet.world.records[member].data[f"setup/{1:010}"]).secret_for(dealer_index)


def complain(fleet: SetUp, choose: Callable[[dict[int, bytes]], tuple[bytes, bytes]]) -> None:
    """Just before it would be ready, the liar complains of an honest dealer instead."""

    def lie(at: Parsed, publish: Publish) -> Iterable[Publish]:
        boxes = {
            sender: data
            for sender, sent in fleet.sent("share").items()
            for data in sent
            if read(Frame.from_bytes(data), Box).to == LIAR
        }
        box, secret = choose(boxes)
        return [Publish(fleet.topics.complaint(1, LIAR), fleet.signed(Complaint(LIAR, 1, box, secret)), retain=True)]

    fleet.lies["ready"] = lie


@pytest.mark.parametrize("name", ["the right secret", "another secret", "another member's box"])
def test_a_false_complaint_names_its_author(name: str) -> None:
    fleet, secrets = SetUp(), {}

    def keep(at: Parsed, publish: Publish) -> Iterable[Publish]:
        # The vault forgets its sealing secrets when it is ready; the liar noted them with its first box.
        secrets.update({honest: own_secret(fleet, LIAR, honest) for honest in HONEST})
        return [publish]

    fleet.lies["share"] = keep

    def choose(boxes: dict[int, bytes]) -> tuple[bytes, bytes]:
        if name == "another member's box":
            return next(data for data in fleet.sent("share")[1] if read(Frame.from_bytes(data), Box).to == 3), secrets[
                1
            ]
        return boxes[1], secrets[1] if name == "the right secret" else bytes(range(32))

    complain(fleet, choose)
    assert fleet.failure() == f"member {LIAR} complained, member {LIAR} lied"
    fleet.check_the_next_attempt_goes_without_the_liar()


@pytest.mark.parametrize("name", ["unsigned", "signed by the liar", "another attempt's"])
def test_a_complaint_about_no_signed_box_of_the_attempt_does_not_count(name: str) -> None:
    fleet = SetUp()

    def choose(boxes: dict[int, bytes]) -> tuple[bytes, bytes]:
        frame = Frame.from_bytes(boxes[1])
        box = read(frame, Box)
        if name == "unsigned":
            return Frame(Box.KIND, frame.body).to_bytes(), bytes(32)
        if name == "signed by the liar":
            return Frame(Box.KIND, frame.body, read_signature(fleet, box)).to_bytes(), bytes(32)
        return Frame(Box.KIND, replace(box, list=bytes(32)).to_body(), frame.signatures).to_bytes(), bytes(32)

    complain(fleet, choose)
    # It ends at the deadline, and whoever did not get ready is left out.
    assert fleet.failure() == f"members [{LIAR}] are not ready"
    fleet.check_the_next_attempt_goes_without_the_liar()


def read_signature(fleet: SetUp, box: Box) -> tuple[tuple[int, bytes], ...]:
    identity = fleet.keys.credentials[LIAR].identity()
    return ((1, identity.sign(Box.KIND, fleet.keys.fleet, box.to_body())),)


# Boxes that are no ground for a complaint.


def unsigned(fleet: SetUp, publish: Publish) -> Iterable[Publish]:
    return [replace(publish, payload=Frame(Box.KIND, Frame.from_bytes(publish.payload).body).to_bytes())]


def of_another_list(fleet: SetUp, publish: Publish) -> Iterable[Publish]:
    box = read(Frame.from_bytes(publish.payload), Box)
    return [replace(publish, payload=fleet.signed(replace(box, list=bytes(32))))]


def for_another_key(fleet: SetUp, publish: Publish) -> Iterable[Publish]:
    box = read(Frame.from_bytes(publish.payload), Box)
    return [replace(publish, payload=fleet.signed(replace(box, key=bytes(32))))]


def missing(fleet: SetUp, publish: Publish) -> Iterable[Publish]:
    return []


@pytest.mark.parametrize("lie", [unsigned, of_another_list, for_another_key, missing])
def test_a_box_that_is_not_there_is_named_with_its_pair_and_nothing_is_opened(
    lie: Callable[[SetUp, Publish], Iterable[Publish]],
) -> None:
    fleet = SetUp()
    fleet.lies["share"] = lambda at, publish: lie(fleet, publish) if at.to == 3 else [publish]
    assert fleet.failure() == f"no box of this attempt from one member to another: [({LIAR}, 3)]"
    assert not fleet.sent("complaint")
    assert 3 not in fleet.sent("ready")
    fleet.check_the_next_attempt_goes_without_the_liar()


# Cards, readiness, silence.


def test_an_invented_manifest_in_a_card_is_named_and_followed_by_nobody() -> None:
    fleet = SetUp()

    def lie(at: Parsed, publish: Publish) -> Iterable[Publish]:
        forged = fleet.signed(replace(read(Frame.from_bytes(publish.payload), Card), manifest=99))
        # The liar's vault plays along, so that it deals as everyone does.
        attempts = fleet.world.device(LIAR).dealer._sheets.attempts
        attempts[1] = replace(attempts[1], card=forged)
        return [replace(publish, payload=forged)]

    fleet.lies["card"] = lie
    assert fleet.failure() == f"the cards of members [{LIAR}] name a manifest that nobody else has"
    for member in HONEST:
        assert member not in fleet.sent("ready")
        assert any("newer manifest" in why for why in fleet.world.why(member))
    fleet.check_the_next_attempt_goes_without_the_liar()


@pytest.mark.parametrize("kind", ["key", "ready"])
def test_a_member_that_falls_silent_is_named_and_left_out(kind: str) -> None:
    fleet = SetUp()
    fleet.lies[kind] = lambda at, publish: []
    expected = {"key": f"no key from members [{LIAR}]", "ready": f"members [{LIAR}] are not ready"}
    assert fleet.failure() == expected[kind]
    fleet.check_the_next_attempt_goes_without_the_liar()


def test_a_candidate_without_a_card_is_no_member() -> None:
    fleet = SetUp()
    fleet.lies["card"] = lambda at, publish: []
    fleet.check_the_next_attempt_goes_without_the_liar()
    assert not fleet.world.counts[0, "setup-failed"]


def test_a_transcript_of_the_liars_own_is_named() -> None:
    fleet = SetUp()
    fleet.alter("ready", lambda transcript: replace(transcript, not_after=transcript.not_after + 1))
    assert fleet.failure() == f"members [{LIAR}] signed another transcript"
    fleet.check_the_next_attempt_goes_without_the_liar()


def test_the_weaker_variant_falls_missing_boxes_answered_in_public_open_an_honest_dealers_secret() -> None:
    """(9, 3) with nobody corrupt: the broker hides the dealer's boxes, each member complains, the dealer shows it its
    share for all to see. Six of them are the secret. Above, a box that never came opens nothing.
    """
    members, threshold = 9, 6
    sheet = deal(bytes(32), seeded("public"), bytes(32), 1, threshold)
    shown = [(position, sheet.shares(position)[0]) for position in range(2, members + 1)][:threshold]
    assert recover(shown, commitments(sheet.points(), threshold)[0]) == sheet.secrets()[0]
