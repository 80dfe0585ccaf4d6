"""A fleet whose owners sign again and again, and a broker that says to devices what it likes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from signed_fleet import POLICY, START, YEAR, FleetKeys, seeded
from world import World

from coordinator.conductor import Signed
from fleet.owner import KeySet, Owner
from hushfleet.mqtt.topics import Topics
from hushfleet.wire.documents import Manifest, Root
from hushfleet.wire.framing import Frame, read


@dataclass(frozen=True)
class FleetOverTime(FleetKeys):
    """A fleet at one moment; `root` stays the first one, which bundles pin.

    Attributes:
        first: the owners' keys when the bundles were made.
        later: roots 2, 3, …
        dated: the newest date; none until there is one.
        late: devices whose bundles are made only now.
    """

    first: Owner
    later: tuple[Frame, ...] = ()
    dated: Frame | None = None
    late: frozenset[int] = frozenset()

    @classmethod
    def of(cls, keys: FleetKeys, not_after: int = START + YEAR) -> "FleetOverTime":
        """The fleet of `make_fleet`, its manifest valid until then."""
        owner, documents = keys.owner, keys.documents
        manifest = owner.sign_manifest(documents.values(), version=1, issued=START, not_after=not_after)
        return cls(owner, keys.credentials, keys.root, manifest, documents, owner)

    def signed(self) -> Signed:
        """What the owners' desk hands to the coordinator now."""
        return Signed(
            {version: root.to_bytes() for version, root in enumerate((self.root, *self.later), start=1)},
            self.manifest.to_bytes(),
            self.dated.to_bytes() if self.dated else b"",
            {name: frame.to_bytes() for name, frame in self.documents.items()},
            {index: self.certificate_now(index) for index in self.credentials},
        )

    def certificate(self, index: int) -> bytes:
        """The certificate in a device's bundle."""
        owner = self.owner if index in self.late else self.first
        return owner.certificate(self.credentials[index].cert, issued=START).to_bytes()

    def certificate_now(self, index: int) -> bytes:
        """The certificate that the newest signers signed."""
        return self.owner.certificate(self.credentials[index].cert, issued=START).to_bytes()

    def newest_root(self) -> Root:
        """The root in force."""
        return read((self.root, *self.later)[-1], Root)

    def version(self) -> int:
        """The manifest's."""
        return read(self.manifest, Manifest).version

    def signed_anew(
        self, at: float, *, version: int | None = None, not_after: float = START + YEAR, **policy: Any
    ) -> "FleetOverTime":
        """A newer manifest under the same root; with other rules, a policy of that version too."""
        number, documents = version or self.version() + 1, dict(self.documents)
        if policy:
            rules, model = POLICY | policy, documents["model"]
            documents["policy"] = self.owner.policy(rules, [model], version=number, issued=int(at))
        manifest = self.owner.sign_manifest(
            documents.values(),
            version=number,
            issued=int(at),
            not_after=int(not_after),
            root_version=self.newest_root().version,
        )
        return replace(self, documents=documents, manifest=manifest, dated=None)

    def dated_anew(self, at: float, not_after: float) -> "FleetOverTime":
        """The same manifest with a new date."""
        return replace(self, dated=self.owner.sign_date(self.manifest, issued=int(at), not_after=int(not_after)))

    def rotated(
        self, *roles: str, at: float, version: int | None = None, root_ends: float = START + YEAR, **manifest: Any
    ) -> "FleetOverTime":
        """New keys for these roles under a new root, everything signed anew."""
        root = self.newest_root()
        draw = seeded(("rotation", root.version))
        renewed = {role: KeySet.draw(draw, *((3, 2) if role == "root" else (1, 1))) for role in roles}
        frame = self.owner.sign_next_root(root, renewed, issued=int(at), not_after=int(root_ends))
        owner = Owner(self.fleet, **(self.owner.key_sets() | renewed))
        return replace(self, owner=owner, later=(*self.later, frame)).signed_anew(at, version=version, **manifest)


Lie = Callable[[int, str, bytes], Iterable[bytes]]
"""What really arrives for (receiver, topic, payload)."""


def honest(receiver: int, topic: str, payload: bytes) -> Iterable[bytes]:
    """Just what was sent."""
    return [payload]


class LyingWorld(World):
    """A fleet whose broker may say what it likes."""

    lie: Lie = staticmethod(honest)

    def deliver(self, receiver: int, topic: str, payload: bytes, retained: bool) -> None:
        """Put on its way what the broker makes of a message."""
        for told in self.lie(receiver, topic, payload):
            super().deliver(receiver, topic, told, retained)

    @property
    def topics(self) -> Topics:
        """The fleet's topics."""
        return Topics(self.keys.fleet)

    def tell(self, receiver: int, said: Mapping[str, bytes]) -> None:
        """The broker sends something of its own, and it arrives."""
        for topic, payload in said.items():
            super().deliver(receiver, topic, payload, True)
        self.run_for(1)

    def withhold(self, receiver: int, kinds: Iterable[str]) -> None:
        """From now on nothing of these kinds of topic arrives there."""
        hidden = frozenset(kinds)

        def lie(to: int, topic: str, payload: bytes) -> Iterable[bytes]:
            return [] if to == receiver and self.topics.parse(topic).kind in hidden else [payload]

        self.lie = lie

    def put_in_force(self, keys: FleetKeys) -> None:
        """The coordinator reads newer documents, as on SIGHUP."""
        self.keys = keys
        self.conductor.offer(keys.signed())

    def pair(self, index: int) -> tuple[int, int]:
        """The newest (root, manifest) that a device has verified."""
        return self.device(index).context.trust.pair

    def state(self, index: int) -> str:
        """What a device says of its documents."""
        return self.device(index).context.trust.state(self.now)

    def refused(self, index: int) -> list[str]:
        """Why a device refused what it refused, in order."""
        notes = (note for _, who, note in self.notes if who == index and note.event == "refused")
        return [str(note.fields["why"]) for note in notes]

    def sent_by(self, index: int, name: str) -> list[int]:
        """The rounds of which a device sent an upload, mask sum, share or decline, each once."""
        parsed = (self.topics.parse(entry.topic) for entry in self.broker.log if entry.sender == index)
        return sorted({at.round_number for at in parsed if at.kind == "up" and at.name == name})
