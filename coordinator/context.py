"""What the coordinator's roles share: who it is, what it trusts, how it speaks to devices."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hushfleet.actions import Draw, Publish, Store
from hushfleet.errors import RefusedError
from hushfleet.mqtt.inbox import publishes
from hushfleet.mqtt.topics import Topics
from hushfleet.secagg.sealing import unseal
from hushfleet.trust import Trust
from hushfleet.wire.documents import CommitteeDocument, ModelSpec, Policy, Roster
from hushfleet.wire.framing import Frame, Identity, Table


@dataclass(frozen=True, slots=True)
class Documents:
    """The newest documents, all of one manifest, with the hashes that a plan names."""

    committee: CommitteeDocument
    roster: Roster
    policy: Policy
    model: ModelSpec
    committee_hash: bytes
    roster_hash: bytes
    policy_hash: bytes
    model_hash: bytes


@dataclass(frozen=True, slots=True)
class Context:
    """The coordinator.

    Attributes:
        fleet: 16 bytes.
        index: its roster index.
        identity: its Ed25519 key.
        seal_secret: its X25519 secret, for what devices seal to it.
        trust: the documents it has verified.
        topics: the fleet's topics.
        store: its durable records.
        draw: its randomness.
        chunk: bytes a chunk of what it sends.
    """

    fleet: bytes
    index: int
    identity: Identity = field(repr=False)
    seal_secret: bytes = field(repr=False)
    trust: Trust
    topics: Topics
    store: Store
    draw: Draw
    chunk: int

    def documents(self) -> Documents:
        """The newest documents; RefusedError if one is missing."""
        trust = self.trust
        committee, roster, policy, model = trust.committee, trust.roster, trust.policy, trust.model
        if committee is None or roster is None or policy is None or model is None:
            raise RefusedError("documents are missing: sign the fleet's documents and publish them")
        hashes = [trust.hash_of(name) or b"" for name in ("committee", "roster", "policy", "model")]
        return Documents(committee, roster, policy, model, *hashes)

    def frame(self, message: Table) -> Frame:
        """`message` signed by the coordinator."""
        return self.identity.frame(message, self.fleet)

    def unseal(self, data: bytes, limit: int) -> Frame:
        """The frame that a device sealed to the coordinator; its signature is still to be checked."""
        return Frame.from_bytes(unseal(data, self.seal_secret), limit)

    def down(
        self, device: int, kind: str, round_number: int, data: bytes, part: int | None = None
    ) -> Iterator[Publish]:
        """`data` on its way to one device."""
        return publishes(lambda chunk: self.topics.down(device, kind, round_number, chunk, part=part), data, self.chunk)
