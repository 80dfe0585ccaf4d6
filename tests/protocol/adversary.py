"""The coordinator and the broker in one evil hand, with the vaults of corrupt devices: what attacks are written with.

It reads every message there was, signs as the coordinator and as every corrupt device, speaks to whom it likes, and
knows all records of the corrupt. Honest devices are the real roles.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from memory_broker import Sent
from numpy.typing import NDArray
from world import FleetKeys, RoundSettings, World

from coordinator.epochs import Epoch
from edge_agent.sheets import RoundSheet, Sheets
from hushfleet.actions import Publish
from hushfleet.codec import Opened, lanes, open_plain
from hushfleet.hashing import digest
from hushfleet.mqtt.inbox import publishes
from hushfleet.mqtt.topics import Topics
from hushfleet.secagg import group, sharing
from hushfleet.secagg.masks import MaskContext, mask_sum
from hushfleet.secagg.residues import Vector, subtract_from
from hushfleet.secagg.sealing import unseal
from hushfleet.wire.framing import Frame, Table, read
from hushfleet.wire.round import Claim, Header, MaskSum, Plan, Request, Share, Survivor, Survivors

ROUNDS = RoundSettings(collect=60, answer=10, recover=60, total=0)


@dataclass(frozen=True)
class Upload:
    """What the broker saw of one device in one round."""

    header: Header
    data: bytes

    def survivor(self, index: int) -> Survivor:
        """Its line in a survivor set."""
        return Survivor(index, self.header.y, self.header.upload_hash(), self.header.sig)


@dataclass(frozen=True)
class Announced:
    """A plan of the adversary's."""

    plan: Plan
    hash: bytes


class Adversary:
    """Takes the coordinator's place in a fleet whose first round has ended.

    Args:
        world: under way.
        corrupt: devices whose keys and records it holds; they still run as real roles unless it crashes them.
    """

    def __init__(self, world: World, corrupt: Iterable[int] = ()) -> None:
        self.world, self.corrupt = world, set(corrupt)
        self.topics = Topics(world.keys.fleet)
        conductor = world.conductor
        self._epochs, self._models = conductor.epochs, conductor.round.models
        self._documents = conductor.context.documents()
        self.newest = conductor.round.last
        self.first_plan = self._seen_plan()
        world.crash(0)

    @classmethod
    def in_fleet(cls, keys: FleetKeys, corrupt: Iterable[int] = (), rounds: RoundSettings = ROUNDS) -> "Adversary":
        """Let an honest coordinator run one round, then take over."""
        world = World(keys, rounds=rounds, seed="attack")
        world.run(world.rounds_ended(1))
        return cls(world, corrupt)

    def _seen_plan(self) -> Plan:
        plans = [sent for sent in self.world.broker.log if self.topics.parse(sent.topic).kind == "plan"]
        return read(Frame.from_bytes(plans[0].payload), Plan)

    # Speaking.

    def frame(self, message: Table, signer: int = 0) -> bytes:
        """A message signed by the coordinator, or by a corrupt device."""
        assert signer == 0 or signer in self.corrupt, "the adversary does not hold this key"
        return self.world.keys.credentials[signer].identity().frame(message, self.world.keys.fleet).to_bytes()

    def epoch(self, number: int) -> Epoch:
        """A usable committee of the coordinator's."""
        epoch = self._epochs.numbered(number)
        assert epoch is not None
        return epoch

    def plan(self, round_number: int, epoch: int = 0, **changes: Any) -> Announced:
        """A plan as the coordinator would write it now, but for the changes."""
        serving = self.epoch(epoch or self.first_plan.epoch)
        documents, start = self._documents, int(self.world.now)
        base, base_hash = self._models.current(documents.model, documents.model_hash)
        honest = replace(
            self.first_plan,
            round=round_number,
            base=base,
            base_hash=base_hash,
            epoch=serving.transcript.epoch,
            transcript=serving.hash,
            points=serving.round_points(round_number),
            opens=start,
            closes=start + 60,
            until=start + 600,
        )
        plan = replace(honest, **changes)
        return Announced(plan, Frame(plan.KIND, plan.to_body()).hash(self.world.keys.fleet))

    def announce(self, announced: Announced, only_to: Sequence[int] | None = None) -> Announced:
        """Publish a plan, or show it to some devices alone."""
        data = self.frame(announced.plan)
        if only_to is None:
            self.world.broker.publish(0, self.topics.plan(), data, True)
        else:
            for device in only_to:
                self.deliver(device, self.topics.plan(), data)
        return announced

    def open_round(self, round_number: int, **changes: Any) -> Announced:
        """Announce a plan and wait until every participant has uploaded for it."""
        announced = self.announce(self.plan(round_number, **changes))
        everyone = set(self.world.keys.participants())
        self.world.run(lambda world: set(self.uploads(announced)) >= everyone, 120.0)
        return announced

    def deliver(self, device: int, topic: str, payload: bytes) -> list[Publish]:
        """Bring one message to a device, and see what it sends in answer."""
        sent: list[Publish] = []
        tamper = self.world.tamper

        def listening(sender: int, publish: Publish) -> Iterable[Publish]:
            sent.append(publish)
            return tamper(sender, publish)

        self.world.tamper = listening
        self.world.perform(device, self.world.device(device).on_message(topic, payload, self.world.now))
        self.world.tamper = tamper
        return sent

    def tell(self, device: int, kind: str, data: bytes, round_number: int, part: int | None = None) -> list[bytes]:
        """Say something to a device on its own topic; what it sends up in answer, unsealed where it is sealed."""
        answers: list[bytes] = []
        for chunk in publishes(
            lambda number: self.topics.down(device, kind, round_number, number, part=part), data, 61_440
        ):
            answers += [self._unsealed(publish) for publish in self.deliver(device, chunk.topic, chunk.payload)]
        return answers

    def _unsealed(self, publish: Publish) -> bytes:
        secret = self.world.keys.credentials[0].seal_secret
        assert secret is not None
        sealed = self.topics.parse(publish.topic).name in ("masksum", "share", "decline")
        return unseal(publish.payload, secret) if sealed else publish.payload

    def set_of(self, announced: Announced, entries: Iterable[Survivor]) -> bytes:
        """A signed survivor set."""
        packed = b"".join(entry.to_bytes() for entry in sorted(entries, key=lambda entry: entry.index))
        return self.frame(Survivors(0, announced.hash, packed))

    def set_hash(self, frame: bytes) -> bytes:
        """The hash by which requests name a set."""
        return Frame.from_bytes(frame, len(frame)).hash(self.world.keys.fleet)

    def ask_sum(self, member: int, announced: Announced, survivors: bytes) -> MaskSum | None:
        """Show a member a set; its mask sum, if it gives one."""
        answers = self.tell(member, "survivors", survivors, announced.plan.round)
        return read(Frame.from_bytes(answers[0]), MaskSum) if answers else None

    def ask_share(self, member: int, announced: Announced, survivors: bytes, lost: int) -> bytes | None:
        """Tell a member that another one failed; its share, if it gives one."""
        request = Request(0, announced.hash, self.set_hash(survivors), lost)
        answers = self.tell(member, "request", self.frame(request), announced.plan.round, part=lost)
        return read(Frame.from_bytes(answers[0]), Share).share if answers else None

    # Knowing.

    def uploads(self, announced: Announced) -> dict[int, Upload]:
        """Every complete upload for a plan, from the broker's log."""
        inboxes: dict[int, dict[int, bytes]] = {}
        for sent in self.world.broker.log:
            at = self.topics.parse(sent.topic)
            if (at.kind, at.name, at.round_number) == ("up", "upload", announced.plan.round):
                inboxes.setdefault(at.device, {})[at.chunk] = sent.payload
        found = {}
        for device, chunks in inboxes.items():
            header = read(Frame.from_bytes(chunks[0]), Header)
            wanted = range(1, len(header.hashes) // 16 + 1)
            survivor = Survivor(device, header.y, header.upload_hash(), header.sig)
            key = self.world.keys.credentials[device].cert.key
            ours = survivor.claim(announced.plan, announced.hash).verify(key, self.world.keys.fleet, header.sig)
            if ours and set(wanted) <= set(chunks):
                found[device] = Upload(header, b"".join(chunks[number] for number in wanted))
        return found

    def sheet(self, member: int, announced: Announced) -> RoundSheet:
        """What a corrupt member holds for a round."""
        assert member in self.corrupt, "the adversary does not hold this vault"
        return self.look_into(member, announced)

    def look_into(self, member: int, announced: Announced) -> RoundSheet:
        """The truth that only the test knows, to show that an attack which fails is written right."""
        sheet = Sheets(self.world.records[member]).of_round(announced.plan.epoch, announced.plan.round)
        assert sheet is not None
        return sheet

    def recovered(self, lost: int, shares: Mapping[int, bytes], announced: Announced) -> bytes | None:
        """A member's round secret from shares by member, if there are enough of them."""
        epoch = self.epoch(announced.plan.epoch)
        members = epoch.members()
        if len(shares) < epoch.threshold:
            return None
        points = [(members.index(member) + 1, share) for member, share in shares.items()]
        secret = sharing.interpolate(points[: epoch.threshold])
        assert group.base_multiply(secret) == epoch.commitments(lost, announced.plan.round)[0]
        return secret

    def masks(self, member: int, secret: bytes, announced: Announced, entries: Iterable[Survivor]) -> Vector:
        """A member's mask sum over any entries, by one who knows its secret."""
        plan = announced.plan
        return mask_sum(
            Vector.zeros(plan.coords, plan.bits, lanes(plan.tail)),
            secret,
            member,
            MaskContext(self.world.keys.fleet, announced.hash, plan.round),
            [(entry.index, entry.y) for entry in entries],
        )

    def vector(self, data: bytes, announced: Announced) -> Vector:
        """An upload or mask sum as residues."""
        plan = announced.plan
        return Vector.from_bytes(data, plan.bits, plan.coords, lanes(plan.tail))

    def open(self, vector: Vector, number: int, announced: Announced) -> Opened:
        """Read a vector as the sum of so many updates; OpeningError if it is none."""
        plan = announced.plan
        return open_plain(
            vector,
            number,
            coords=plan.coords,
            clip=plan.clip,
            step=plan.step,
            largest_weight=1.0,
            checksum_seed=digest("chks", announced.hash),
        )

    def open_single(self, index: int, secrets: Mapping[int, bytes], announced: Announced) -> NDArray[np.int64]:
        """One device's update, all of its masks taken away with these members' secrets; OpeningError if some stay."""
        upload = self.uploads(announced)[index]
        vector = self.vector(upload.data, announced)
        for member, secret in secrets.items():
            subtract_from(vector, self.masks(member, secret, announced, [upload.survivor(index)]))
        return self.open(vector, 1, announced).residues

    def sign_claim(self, index: int, announced: Announced, y_point: bytes, data: bytes) -> Upload:
        """An upload in a corrupt participant's name, with any Y."""
        assert index in self.corrupt, "the adversary does not hold this key"
        plan, identity = announced.plan, self.world.keys.credentials[index].identity()
        hashes = digest("chnk", data, size=16)
        header = Header(plan.round, y_point, len(data), 4096, hashes, bytes(64))
        claim = Claim(plan.roster, announced.hash, plan.round, index, y_point, header.upload_hash())
        return Upload(replace(header, sig=identity.sign("upload", self.world.keys.fleet, claim.to_bytes())), data)

    def refusals(self, device: int) -> list[str]:
        """Why a device refused what it refused, in order."""
        return [
            str(note.fields["why"])
            for _, index, note in self.world.notes
            if index == device and note.event == "refused"
        ]

    def said(self, device: int) -> list[Sent]:
        """Everything that a device ever sent."""
        return [sent for sent in self.world.broker.log if sent.sender == device]
