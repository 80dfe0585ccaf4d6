"""A whole fleet in one process: the real roles on one heap of events, a virtual clock, a broker in memory.

Every role runs against its own records (a dict) and its own seeded randomness, so that a run can be replayed from its
seed. What the network and the machines do to the messages is decided by a `Faults`.
"""

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.conductor import Conductor, Signed
from coordinator.context import Context as CoordinatorContext
from coordinator.round import RoundSettings
from coordinator.setup import SetupSettings
from edge_agent.context import Context as DeviceContext
from edge_agent.device import Device
from edge_agent.work import Score, Train
from fleet.owner import Credentials, Owner
from hushfleet.actions import Action, Draw, Erase, Note, Publish, Save, Subscribe, Unsubscribe, Wake
from hushfleet.codec import LocalReport
from hushfleet.mqtt.topics import Topics
from hushfleet.trust import Trust
from hushfleet.wire.documents import COORDINATOR, MEMBER, PARTICIPANT, Layer
from hushfleet.wire.framing import Frame

START = 1_700_000_000
YEAR = 365 * 86_400
TICK = 5.0
"""Seconds between two looks at the clock."""

POLICY: dict[str, Any] = {
    "assumed_colluders": 0,
    "audit_rate": 0.0,
    "clip": 4.0,
    "committee_min": 3,
    "committee_trusted": 1,
    "delta": 0.0,
    "epoch_age": 7 * 86_400,
    "epoch_rounds": 4,
    "epsilon": 0.0,
    "interval": 0,
    "largest_survivor_set": 64,
    "largest_weight": 1.0,
    "noise_floor": 0.0,
    "noiseless_statistics": 0,
    "recoveries": 1,
    "rollback_versions": 3,
    "shards": 1,
    "smallest_group": 5,
    "smallest_survivor_set": 2,
    "tiny_fleet": 1,
    "uploads_per_base": 8,
}


def seeded(seed: object) -> Draw:
    """Bytes that a test can draw again; nothing here is a secret."""
    generator = random.Random(repr(seed))
    return generator.randbytes


class Records:
    """Durable records in memory."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        """The record, or None."""
        return self.data.get(key)

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """All records below `prefix`, ascending."""
        for key in sorted(key for key in self.data if key.startswith(prefix)):
            yield key, self.data[key]


@dataclass
class FleetKeys:
    """A signed fleet: owner, credentials by index (0 is the coordinator), frames."""

    owner: Owner
    credentials: dict[int, Credentials]
    root: Frame
    manifest: Frame
    documents: dict[str, Frame]

    @property
    def fleet(self) -> bytes:
        """The fleet's id."""
        return self.owner.fleet

    def signed(self) -> Signed:
        """What the owners' desk hands to the coordinator."""
        return Signed(
            {1: self.root.to_bytes()},
            self.manifest.to_bytes(),
            b"",
            {name: frame.to_bytes() for name, frame in self.documents.items()},
            {index: self.certificate(index) for index in self.credentials},
        )

    def certificate(self, index: int) -> bytes:
        """A device's own certificate."""
        return self.owner.certificate(self.credentials[index].cert, issued=START).to_bytes()


def make_fleet(
    participants: int, members: int, seed: object = 0, layers: tuple[Layer, ...] = (), **policy: Any
) -> FleetKeys:
    """Devices 1 … `members` are members, the last `participants` of all are participants; they overlap if asked to."""
    draw = seeded(("fleet", seed))
    owner = Owner.create(draw)
    roles: dict[int, int] = {0: COORDINATOR}
    for index in range(1, members + 1):
        roles[index] = MEMBER
    for index in range(members + 1, members + participants + 1):
        roles[index] = PARTICIPANT
    credentials = {
        index: Credentials.draw(
            draw, index, f"device-{index}", role, profile="test", not_before=0, not_after=START + YEAR
        )
        for index, role in roles.items()
    }
    certs = [credential.cert for credential in credentials.values()]
    model = owner.model_spec("tiny", layers or (Layer("dense", 4, 3, "none"),), draw(32), version=1, issued=START)
    documents = {
        "committee": owner.committee_document(certs, version=1, issued=START),
        "roster": owner.roster(certs, version=1, issued=START),
        "policy": owner.policy(POLICY | policy, [model], version=1, issued=START),
        "model": model,
    }
    return FleetKeys(
        owner,
        credentials,
        owner.sign_root(issued=START, not_after=START + YEAR),
        owner.sign_manifest(documents.values(), version=1, issued=START, not_after=START + YEAR),
        documents,
    )


@dataclass
class Faults:
    """What goes wrong, as probabilities per message; all from one seeded generator."""

    loss: float = 0.0
    doubling: float = 0.0
    delay: float = 0.0
    longest_delay: float = 5.0


class MemoryBroker:
    """Topics, wildcards, retained messages; delivery order holds per receiver unless a fault delays a message."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.retained: dict[str, bytes] = {}
        self.subscriptions: dict[int, set[str]] = defaultdict(set)
        self.log: list[tuple[int, str, bytes]] = []

    def publish(self, sender: int, topic: str, payload: bytes, retain: bool) -> None:
        """Hand a message to everyone who listens."""
        self.log.append((sender, topic, payload))
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        for receiver, filters in self.subscriptions.items():
            if any(matches(pattern, topic) for pattern in filters):
                self._world.deliver(receiver, topic, payload)

    def subscribe(self, receiver: int, pattern: str) -> None:
        """Listen; retained messages arrive at once."""
        self.subscriptions[receiver].add(pattern)
        for topic, payload in sorted(self.retained.items()):
            if matches(pattern, topic):
                self._world.deliver(receiver, topic, payload)

    def wipe(self) -> None:
        """Restart empty: sessions and retained messages are gone."""
        self.retained.clear()
        self.subscriptions.clear()


def matches(pattern: str, topic: str) -> bool:
    """MQTT's topic filters."""
    parts, names = pattern.split("/"), topic.split("/")
    for position, part in enumerate(parts):
        if part == "#":
            return True
        if position >= len(names) or part not in ("+", names[position]):
            return False
    return len(parts) == len(names)


def one_hot(index: int, parameters: int) -> NDArray[np.float32]:
    """The update of device `index`: a one at its own place, so that the sum tells who is in it."""
    delta = np.zeros(parameters, np.float32)
    delta[index % parameters] = 1.0
    return delta


class World:
    """The fleet under way."""

    def __init__(
        self,
        keys: FleetKeys,
        *,
        seed: object = 0,
        rounds: RoundSettings | None = None,
        faults: Faults | None = None,
        update: Callable[[int, int], NDArray[np.float32]] = one_hot,
        chunk: int = 4096,
    ) -> None:
        self.keys, self.seed, self.now = keys, seed, float(START)
        self.rounds = rounds or RoundSettings(collect=60, answer=10, recover=30, total=3)
        self.faults, self.update, self.chunk = faults or Faults(), update, chunk
        self.chance = random.Random(repr(("faults", seed)))
        self.broker = MemoryBroker(self)
        self.records: dict[int, Records] = defaultdict(Records)
        self.nodes: dict[int, Device | Conductor] = {}
        self.notes: list[tuple[int, Note]] = []
        self.counts: Counter[tuple[int, str]] = Counter()
        self.starts: Counter[int] = Counter()
        self.untouched: set[int] = set()
        self.before_publish: Callable[[int, Publish], bool] = lambda sender, publish: True
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        for index in keys.credentials:
            self.start(index)

    # Machines.

    def start(self, index: int) -> None:
        """Start a node from its records, as after a crash or for the first time."""
        keys, credential = self.keys, self.keys.credentials[index]
        self.starts[index] += 1
        draw = seeded((self.seed, index, self.starts[index]))
        coordinator = index == 0
        needed = ("committee", "policy", "model", "roster")
        records = self.records[index]
        trust = Trust(keys.fleet, keys.root.hash(keys.fleet), needed, records, START)
        topics = Topics(keys.fleet)
        node: Device | Conductor
        if coordinator:
            assert credential.seal_secret is not None
            node = Conductor(
                CoordinatorContext(
                    keys.fleet,
                    0,
                    credential.identity(),
                    credential.seal_secret,
                    trust,
                    topics,
                    records,
                    draw,
                    self.chunk,
                ),
                SetupSettings(5, 10, 20),
                self.rounds,
            )
            node.offer(keys.signed())
            self.nodes[index] = node
        else:
            secret = records.data.setdefault("vault/secret", draw(32))
            context = DeviceContext(
                keys.fleet, index, credential.identity(), secret, trust, topics, records, draw, self.chunk
            )
            node = Device(context, window=4)
            self.nodes[index] = node
            self.perform(index, node.start(keys.root.to_bytes(), keys.certificate(index)))
        self.connect(index)
        self._tick(index, self.starts[index])

    def connect(self, index: int, session_present: bool = False) -> None:
        """Tell a node that it is connected."""
        node = self.nodes[index]
        self.perform(index, node.on_connected(session_present, self.now))

    def crash(self, index: int) -> None:
        """Take a node's memory away."""
        self.nodes.pop(index, None)
        self.broker.subscriptions.pop(index, None)

    def _tick(self, index: int, life: int) -> None:
        def tick() -> None:
            if index in self.nodes and self.starts[index] == life:
                self.perform(index, self.nodes[index].on_wake(self.now))
                self.at(self.now + TICK, tick)

        self.at(self.now + TICK, tick)

    # Events.

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Let something happen."""
        heapq.heappush(self._heap, (time, next(self._order), event))

    def deliver(self, receiver: int, topic: str, payload: bytes) -> None:
        """Put a message on its way, unless a fault takes it."""
        faults, chance = self.faults, self.chance
        copies = 1
        if receiver not in self.untouched:
            copies = 0 if chance.random() < faults.loss else 2 if chance.random() < faults.doubling else 1
        for _ in range(copies):
            late = chance.random() < faults.delay and receiver not in self.untouched
            delay = chance.uniform(0, faults.longest_delay) if late else 0.01
            self.at(self.now + delay, lambda: self._arrive(receiver, topic, payload))

    def _arrive(self, receiver: int, topic: str, payload: bytes) -> None:
        node = self.nodes.get(receiver)
        if isinstance(node, Device):
            self.perform(receiver, node.on_message(topic, payload, self.now))
        elif isinstance(node, Conductor):
            self.perform(receiver, node.on_message(topic, payload, False, self.now))

    def perform(self, index: int, actions: "list[Action] | list[Any]") -> None:
        """Execute a role's actions: all of an event's records first, then what leaves."""
        records = self.records[index].data
        for action in actions:
            if isinstance(action, Save):
                records[action.key] = action.value
            elif isinstance(action, Erase):
                records.pop(action.key, None)
        for action in actions:
            self._execute(index, action)

    def _execute(self, index: int, action: Any) -> None:
        match action:
            case Publish(topic, payload, retain):
                if self.before_publish(index, action):
                    self.broker.publish(index, topic, payload, retain)
                    node = self.nodes.get(index)
                    if isinstance(node, Conductor) and retain:
                        self.at(self.now, lambda: self._delivered(node, topic))
            case Subscribe(topic):
                self.broker.subscribe(index, topic)
            case Unsubscribe(topic):
                self.broker.subscriptions[index].discard(topic)
            case Wake(time):
                self.at(max(time, self.now), lambda: self._wake(index))
            case Note(event):
                self.notes.append((index, action))
                self.counts[index, event] += 1
            case Train():
                self.at(self.now + 1.0, lambda: self._trained(index, action))
            case Score():
                pass

    def _delivered(self, node: Conductor, topic: str) -> None:
        if self.nodes.get(0) is node:
            self.perform(0, node.on_delivered(topic, self.now))

    def _wake(self, index: int) -> None:
        if index in self.nodes:
            self.perform(index, self.nodes[index].on_wake(self.now))

    def _trained(self, index: int, work: Train) -> None:
        node = self.nodes.get(index)
        if isinstance(node, Device):
            delta = self.update(index, work.plan.coords)
            self.perform(index, node.on_trained(work.plan_hash, delta, LocalReport(1, 0.5, 1, 0.5, 1), self.now))

    # Running.

    def run(self, until: Callable[["World"], bool], deadline: float = 3600.0) -> None:
        """Let time pass until something holds; an assertion fails if it does not within `deadline` virtual seconds."""
        end = self.now + deadline
        while not until(self):
            assert self._heap, "nothing is left to happen"
            time, _, event = heapq.heappop(self._heap)
            assert time <= end, f"not within {deadline} s; last notes: {self.notes[-12:]}"
            self.now = max(self.now, time)
            event()

    @property
    def conductor(self) -> Conductor:
        """The coordinator."""
        node = self.nodes[0]
        assert isinstance(node, Conductor)
        return node

    def device(self, index: int) -> Device:
        """One device."""
        node = self.nodes[index]
        assert isinstance(node, Device)
        return node

    def outcomes(self) -> list[dict[str, object]]:
        """How the rounds ended, in order."""
        return [note.fields for index, note in self.notes if index == 0 and note.event == "round"]

    def rounds_ended(self, number: int) -> Callable[["World"], bool]:
        """Whether so many rounds have ended."""
        return lambda world: len(world.outcomes()) >= number


@dataclass
class Seen:
    """A list of what an adversary saw; used by attack tests."""

    messages: list[tuple[int, str, bytes]] = field(default_factory=list)
