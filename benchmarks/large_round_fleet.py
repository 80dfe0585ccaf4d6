"""A fleet of thousands for one large round: real documents, a real committee, and all participants in one process.

The owners' desk makes broker, coordinator and members as it makes any fleet. Participants have certificates of the same
owners, but no bundles: a load generator speaks for all of them, every message as the bytes that a device sends.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from nacl.utils import random
from numpy.typing import NDArray

from fleet.desk import Desk
from fleet.owner import Credentials
from fleet.register import Line
from fleet.transport import write_file
from hushfleet.actions import Publish
from hushfleet.codec import LocalReport, encode_plain, expanded, pack_opened
from hushfleet.hashing import digest
from hushfleet.mqtt.chunks import chunk_hashes, cut
from hushfleet.mqtt.events import LinkEvent, LinkSettings, Message
from hushfleet.mqtt.inbox import Inbox
from hushfleet.mqtt.link import Link
from hushfleet.mqtt.topics import Topics
from hushfleet.secagg.masks import MaskContext, add_masks, round_key
from hushfleet.secagg.residues import padded, signed
from hushfleet.wire.documents import MEMBER, PARTICIPANT
from hushfleet.wire.framing import Frame, entries, read, signed_bytes
from hushfleet.wire.round import ACCEPTED, Claim, Delta, Header, Plan, Receipt
from hushfleet_demo.local_fleet import HOST, LocalFleet

MEMBERS = 4
CLIP = 2.0
"""Twice the norm of an update: nothing is clipped."""
PROFILE = "gateway-wifi"
REPORT = LocalReport(examples=32, training_loss_sum=16.0, evaluated=8, evaluation_loss_sum=4.0, correct=6)
LARGEST_DELTA = 2**30
DEADLINE = 600.0
"""Seconds for any one step, on a busy machine."""

_RULES = """\
[fleet]
name = "large"

[model]
name = "large"
layers = [{{ in = {inputs}, out = 1, act = "none" }}]

[policy]
clip = {clip}
committee_min = {members}
recoveries = 1
largest_survivor_set = {devices}
interval = 0
audit_rate = 0.0
"""
_COORDINATOR = """\
bundle = "{fleet}/devices/coordinator"
documents = "{fleet}/documents"
ledger = "{state}/ledger.db"
log = "json"

[rounds]
collect = 3600
answer = 600
pause = 86400
"""
_MEMBER = """\
bundle = "{fleet}/devices/{name}"
vault = "{state}/vault.db"
log = "json"
"""


def make_fleet(local: LocalFleet, devices: int, parameters: int) -> dict[int, Credentials]:
    """Let the owners make and sign everything below `local`; the participants by roster index."""
    now, members = int(time.time()), [f"member-{number}" for number in range(1, MEMBERS + 1)]
    rules = local.configure(
        "fleet", _RULES.format(inputs=parameters - 1, clip=CLIP, members=MEMBERS, devices=max(devices, 6))
    )
    desk = Desk.create(local.fleet, hosts=[HOST], port=local.port, settings=rules, draw=random, now=now)
    desk.add(members, MEMBER, PROFILE, draw=random, now=now)
    participants = _certify(desk, devices, now)
    desk.sign(draw=random, now=now)
    state = local.directory / "state"
    local.configure("coordinator", _COORDINATOR.format(fleet=local.fleet, state=state / "coordinator"))
    for name in members:
        local.configure(name, _MEMBER.format(fleet=local.fleet, state=state / name, name=name))
    return participants


def _certify(desk: Desk, devices: int, now: int) -> dict[int, Credentials]:
    """Certificates and lines in the register for all participants at once, without bundles and TLS certificates."""
    owner, register = desk.keyring.owner(desk.newest_root()), desk.register()
    later = now + 365 * 86_400
    participants = {}
    for index in range(MEMBERS + 1, MEMBERS + 1 + devices):
        credentials = Credentials.draw(
            random,
            index,
            f"device-{index}",
            PARTICIPANT,
            profile=PROFILE,
            not_before=now,
            not_after=later,
        )
        certificate = owner.certificate(credentials.cert, issued=now).to_bytes()
        (desk.documents / "cert" / str(index)).write_bytes(certificate)
        participants[index] = credentials
    lines = (Line(index, credentials.cert.device, (index,), later) for index, credentials in participants.items())
    register = replace(register, lines=(*register.lines, *lines))
    write_file(desk.directory / "register.json", register.to_json().encode(), 0o644)
    return participants


class Load:
    """All participants and the operator's eyes, on one connection to the broker.

    Args:
        size: bytes of an upload's slice.
    """

    def __init__(self, local: LocalFleet, participants: dict[int, Credentials], parameters: int, size: int) -> None:
        self._participants, self._parameters, self._size = participants, parameters, size
        with Desk.open(local.fleet) as desk:
            self.fleet = desk.fleet()
        self.topics = Topics(self.fleet)
        self._sum = np.zeros(padded(parameters), np.uint16)
        self._heard = threading.Condition()
        self._accepted: set[int] = set()
        self._plan: Frame | None = None
        self._inbox, self._delta = Inbox(), b""
        transport = local.fleet / "transport"
        settings = LinkSettings(
            host=HOST,
            port=local.port,
            ca=transport / "ca.pem",
            certificate=transport / "operator.pem",
            key=transport / "operator.key",
            client_id="operator",
            window=64,
        )
        self._link = Link(settings, self._on_link)
        base = f"hf/{self.topics.fleet}"
        for topic in (self.topics.plan(), f"{base}/model/1/delta/+", f"{base}/down/+/receipt/#"):
            self._link.subscribe(topic)
        self._link.start()

    def close(self) -> None:
        """Disconnect."""
        self._link.stop()

    def _on_link(self, event: LinkEvent) -> None:
        if not isinstance(event, Message):
            return
        at = self.topics.parse(event.topic)
        with self._heard:
            match at.kind:
                case "plan":
                    self._plan = Frame.from_bytes(event.payload)
                case "model":
                    whole = self._inbox.offer("delta", at.chunk, event.payload, LARGEST_DELTA)
                    self._delta = whole or self._delta
                case "down":
                    receipt = read(Frame.from_bytes(event.payload), Receipt)
                    if receipt.state == ACCEPTED:
                        self._accepted.add(at.device)
            self._heard.notify_all()
        if event.token is not None:
            self._link.ack(event.token)

    def _wait(self, happened: Callable[[], bool], what: str) -> None:
        with self._heard:
            if not self._heard.wait_for(happened, DEADLINE):
                raise TimeoutError(f"{what} did not come within {DEADLINE:.0f} s")

    def prepare(self) -> list[Publish]:
        """Wait for the plan; every participant's masked and signed upload for it, as messages."""
        self._wait(lambda: self._plan is not None, "a plan")
        assert self._plan is not None
        plan, plan_hash = read(self._plan, Plan), self._plan.hash(self.fleet)
        committee = list(zip(range(1, MEMBERS + 1), entries(plan.points, 32), strict=True))
        pattern = np.random.default_rng(0).standard_normal(self._parameters).astype(np.float32)
        pattern /= np.linalg.norm(pattern)
        messages = []
        for index, credentials in self._participants.items():
            update = np.roll(pattern, index)
            messages += self._upload(plan, plan_hash, committee, credentials, update)
        return messages

    def _upload(
        self,
        plan: Plan,
        plan_hash: bytes,
        committee: list[tuple[int, bytes]],
        credentials: Credentials,
        update: NDArray[np.float32],
    ) -> list[Publish]:
        index = credentials.cert.index
        vector = encode_plain(
            update,
            1.0,
            REPORT,
            clip=plan.clip,
            step=plan.step,
            largest_survivor_set=max(len(self._participants), 6),
            checksum_seed=digest("chks", plan_hash),
            draw=expanded(random),
        )
        self._sum += vector.body
        key = round_key(random(32), random, plan_hash, bytes(32))
        add_masks(vector, key, MaskContext(self.fleet, plan_hash, plan.round), index, committee)
        slices = cut(vector.to_bytes(plan.bits), self._size)
        length, hashes = sum(map(len, slices)), chunk_hashes(slices)
        bare = Header(plan.round, key.point, length, self._size, hashes, bytes(64))
        claim = Claim(plan.roster, plan_hash, plan.round, index, key.point, bare.upload_hash())
        signature = credentials.identity().sign("upload", self.fleet, claim.to_bytes())
        header = replace(bare, sig=signature)
        payloads = [Frame(Header.KIND, header.to_body()).to_bytes(), *slices]
        return [
            Publish(self.topics.up(0, index, "upload", plan.round, chunk), payload)
            for chunk, payload in enumerate(payloads)
        ]

    def facts(self) -> dict[str, object]:
        """What the floor's receiver must know to verify these uploads."""
        assert self._plan is not None
        plan = read(self._plan, Plan)
        head = Claim(plan.roster, self._plan.hash(self.fleet), plan.round, 0, b"", b"").to_bytes()[:-4]
        keys = {index: credentials.cert.key.hex() for index, credentials in self._participants.items()}
        return {
            "filter": self.topics.ups(0),
            "devices": keys,
            "claim": signed_bytes("upload", self.fleet, head).hex(),
            "parameters": self._parameters,
        }

    def send(self, messages: Iterable[Publish]) -> None:
        """Hand over the messages; they leave as fast as the broker takes them."""
        for message in messages:
            self._link.publish(message.topic, message.payload)

    def await_receipts(self) -> None:
        """Return when every participant's upload is durable and accepted."""
        self._wait(lambda: len(self._accepted) == len(self._participants), "some receipts")

    def check_model(self) -> None:
        """Wait for the first model version; it must be exactly the sum of all updates.

        Raises:
            RuntimeError: it is another.
        """
        self._wait(lambda: bool(self._delta), "the next model")
        opened = read(Frame.from_bytes(self._delta, LARGEST_DELTA), Delta).body
        if opened != pack_opened(signed(self._sum, 16)[: self._parameters], 16):
            raise RuntimeError("the opened sum is not the sum of the updates")
