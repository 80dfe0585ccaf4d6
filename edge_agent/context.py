"""What every role of one device shares: who it is, what it trusts, and how it speaks to the coordinator."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hushfleet.actions import Draw, Publish, Store
from hushfleet.errors import RefusedError
from hushfleet.mqtt.inbox import publishes
from hushfleet.mqtt.topics import Topics
from hushfleet.secagg.sealing import seal
from hushfleet.trust import Trust
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.framing import Identity, Table
from hushfleet.wire.round import Plan


@dataclass(frozen=True, slots=True)
class Context:
    """One device.

    Attributes:
        fleet: 16 bytes.
        index: the device's roster index.
        identity: its Ed25519 key.
        vault_secret: 32 bytes of their own that hedge every secret drawn.
        trust: the documents it has verified.
        topics: the fleet's topics.
        store: its durable records.
        draw: its randomness.
        chunk: bytes a chunk, from the firmware profile's link.
        unfit: why this device had better not train for an upload of so many bytes now: the reason of its decline, and
            in words for its owner; None if nothing speaks against it.
        steps: how many of a plan's local steps this device trains, for a model, a number of members and the bytes of an
            upload; or why it sits the round out, as `unfit`.
        spread: seconds over which the beginning of a round's work is drawn at random.
        reads_sums: whether the sums of statistics rounds are of use here.
    """

    fleet: bytes
    index: int
    identity: Identity = field(repr=False)
    vault_secret: bytes = field(repr=False)
    trust: Trust
    topics: Topics
    store: Store
    draw: Draw
    chunk: int
    unfit: Callable[[int], tuple[int, str] | None] = lambda _: None
    steps: Callable[[Plan, ModelSpec, int, int], int | tuple[int, str]] = lambda plan, *_: plan.steps
    spread: int = 0
    reads_sums: bool = False

    def frame(self, message: Table) -> bytes:
        """`message` signed by this device."""
        return self.identity.frame(message, self.fleet).to_bytes()

    def sealed(self, message: Table) -> bytes:
        """`message` signed by this device and sealed to the coordinator.

        Raises:
            RefusedError: the committee document with the coordinator's key is not here.
        """
        if self.trust.committee is None:
            raise RefusedError("the coordinator's sealing key is not known yet")
        return seal(self.frame(message), self.trust.committee.coordinator().seal, self.draw)

    def shard(self) -> int:
        """The shard this device writes to."""
        return self.index % self.trust.policy.shards if self.trust.policy else 0

    def up(self, kind: str, round_number: int, data: bytes, part: int | None = None) -> Iterator[Publish]:
        """`data` on its way to the coordinator."""
        shard = self.shard()

        def topic(chunk: int) -> str:
            return self.topics.up(shard, self.index, kind, round_number, chunk, part=part)

        return publishes(topic, data, self.chunk)
