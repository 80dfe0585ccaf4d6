"""An honest fleet whose messages an adversary reads, holds back, brings again and makes up."""

from collections.abc import Iterable

from memory_broker import Sent
from world import RoundSettings, World, make_fleet

from hushfleet.actions import Publish
from hushfleet.mqtt.inbox import publishes
from hushfleet.mqtt.topics import Topics
from hushfleet.secagg.sealing import seal
from hushfleet.wire.framing import Frame, Table, read
from hushfleet.wire.round import Receipt, Result

SETTINGS = RoundSettings(collect=30, answer=8, recover=30, total=2)
VICTIM, LIAR = 5, 7


class Fleet:
    """An honest fleet, and what the adversary has of it."""

    def __init__(self, rounds: RoundSettings = SETTINGS, chunk: int = 256) -> None:
        self.keys = make_fleet(3, 4)
        self.topics = Topics(self.keys.fleet)
        self.world = World(self.keys, rounds=rounds, seed="replay", chunk=chunk)

    def sent(self, name: str, device: int, round_number: int | None = None) -> list[Sent]:
        """What passed on a device's own topics under a name."""
        return [
            entry
            for entry in self.world.broker.log
            for at in [self.topics.parse(entry.topic)]
            if (at.name, at.device) == (name, device) and round_number in (None, at.round_number)
        ]

    def signed(self, message: Table, signer: int = LIAR) -> bytes:
        return self.keys.credentials[signer].identity().frame(message, self.keys.fleet).to_bytes()

    def inject(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """The broker makes a message up."""
        self.world.broker.publish(-1, topic, payload, retain)

    def receipts(self, device: int, since: int = 0) -> list[Receipt]:
        found = [entry for entry in self.world.broker.log[since:] if entry.sender == 0]
        return [
            read(Frame.from_bytes(entry.payload), Receipt)
            for entry in found
            for at in [self.topics.parse(entry.topic)]
            if (at.name, at.device) == ("receipt", device)
        ]

    def keep_from_coordinator(self, device: int, name: str = "upload") -> list[Publish]:
        """Hold a device's messages back; they are collected in the list."""
        held: list[Publish] = []

        def tamper(sender: int, publish: Publish) -> Iterable[Publish]:
            if sender == device and self.topics.parse(publish.topic).name == name:
                held.append(publish)
                return []
            return [publish]

        self.world.tamper = tamper
        return held

    def result(self, number: int) -> Result:
        """A round's result as it is retained."""
        return read(Frame.from_bytes(self.world.broker.retained[self.topics.result(number)]), Result)

    def sealed(self, frame: bytes) -> list[bytes]:
        """Anyone can seal to the coordinator: chunk 0 and its slices."""
        box = seal(frame, self.keys.credentials[0].cert.seal, lambda size: bytes(range(size)))
        return [publish.payload for publish in publishes(lambda number: "", box, 256)]
