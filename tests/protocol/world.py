"""A whole fleet in one process: the real roles on one heap of events, a virtual clock, a broker in memory.

Every role runs against its own records (a dict) and its own seeded randomness, so that a run can be replayed from its
seed. What the network does to messages is decided by a `Faults`, where a machine dies by a `Crash`, what an adversary
does to what a device sends by `tamper`.
"""

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from memory_broker import MemoryBroker
from numpy.typing import NDArray
from signed_fleet import START, FleetKeys, make_fleet, seeded

from coordinator.conductor import Conductor
from coordinator.context import Context as CoordinatorContext
from coordinator.planning import RoundSettings
from coordinator.setup import SetupSettings
from edge_agent.context import Context as DeviceContext
from edge_agent.device import Device
from edge_agent.work import Describe, Judged, Score, Train
from hushfleet.actions import RESTORED, Erase, Note, Publish, Save, Subscribe, Unsubscribe, Wake
from hushfleet.codec import LocalReport
from hushfleet.mqtt.topics import Topics
from hushfleet.runner import SET_BACK
from hushfleet.trust import Trust
from hushfleet.wire.documents import MEMBER, PARTICIPANT
from hushfleet.wire.round import Plan

__all__ = ["START", "Crash", "Faults", "FleetKeys", "RoundSettings", "World", "height", "make_fleet", "seeded"]

TRIP = 0.01
"""Virtual seconds that a message or its confirmation takes from the broker to a machine."""
TICK = 10.0
"""Seconds between two looks at the clock."""
SETUP = SetupSettings()
ROUNDS = RoundSettings(collect=60, answer=10, recover=30, total=3)


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


def everywhere(topic: str) -> bool:
    """A fault that spares nothing."""
    return True


@dataclass(frozen=True)
class Faults:
    """What goes wrong, as probabilities per delivery; all from one seeded generator.

    Attributes:
        loss: the message never arrives.
        doubling: it arrives twice.
        delay: it arrives up to `longest_delay` seconds late, and so after later ones.
        hits: the topics that this happens to.
    """

    loss: float = 0.0
    doubling: float = 0.0
    delay: float = 0.0
    longest_delay: float = 5.0
    hits: Callable[[str], bool] = everywhere


@dataclass(frozen=True)
class Crash:
    """A machine dies in one of its events.

    Attributes:
        sent: how many of the event's actions that leave the process still do; None: it dies before its records are
            committed, and the event is lost to it.
        downtime: seconds until it starts again.
        keep_session: whether the broker still knows it then.
    """

    sent: int | None
    downtime: float = 3.0
    keep_session: bool = True


def one_hot(index: int, plan: Plan) -> NDArray[np.float32]:
    """The update of a device in a round: its own place, a height that tells the round, exact on the step of 1/256."""
    delta = np.zeros(plan.coords, np.float32)
    delta[index] = height(plan.round)
    return delta


def height(round_number: int) -> float:
    """What `one_hot` puts in at a round."""
    return 1.0 + round_number % 64 / 256


class World:
    """The fleet under way."""

    def __init__(
        self,
        keys: FleetKeys,
        *,
        seed: object = 0,
        rounds: RoundSettings = ROUNDS,
        faults: Faults | None = None,
        update: Callable[[int, Plan], NDArray[np.float32]] = one_hot,
        chunk: int = 4096,
        crashes: Mapping[tuple[int, int], Crash] | None = None,
    ) -> None:
        """`crashes`: machine and number of its event, from 1, to how it dies there."""
        self.keys, self.seed, self.now = keys, seed, float(START)
        self.rounds, self.faults, self.update, self.chunk = rounds, faults or Faults(), update, chunk
        self.chance = random.Random(repr(("faults", seed)))
        self.broker = MemoryBroker(self.deliver, lambda: self.now)
        self.records: dict[int, Records] = defaultdict(Records)
        self.nodes: dict[int, Device | Conductor] = {}
        self.notes: list[tuple[float, int, Note]] = []
        self.counts: Counter[tuple[int, str]] = Counter()
        self._ended: list[dict[str, object]] = []
        self.starts: Counter[int] = Counter()
        self.events: Counter[int] = Counter()
        self.crashes = dict(crashes or {})
        self.tamper: Callable[[int, Publish], Iterable[Publish]] = lambda sender, publish: [publish]
        """What really leaves a machine in a message's place."""
        self.training_time: Callable[[int, Plan], float] = lambda index, plan: 1.0
        self.numbers: Callable[[int, Plan], NDArray[np.float64]] = lambda index, plan: np.zeros(0)
        """What a device says of itself in a statistics round."""
        self.judged: dict[int, list[Judged]] = defaultdict(list)
        """What each device was told of how its fleet's model does."""
        self.skew: dict[int, float] = defaultdict(float)
        """Seconds by which each machine's clock is ahead."""
        self.broken_disks: set[int] = set()
        """Machines whose every commit fails: the process ends, and starts again from what is durable."""
        self.contributed: dict[tuple[int, int], NDArray[np.float32]] = {}
        """The update that a device made in a round."""
        self.started: Callable[[int], None] = lambda index: None
        self.committed: Callable[[int, Sequence[Any]], None] = lambda index, actions: None
        self.leaves: Callable[[int, Publish], None] = lambda index, publish: None
        """Called when a machine has started, when an event's records are durable, before a message of it leaves."""
        self._cut: dict[int, list[Publish | Subscribe | Unsubscribe]] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        for index in keys.credentials:
            self.start(index)

    # Machines.

    def start(self, index: int) -> None:
        """Start a machine from its records, as after a crash or for the first time."""
        if index in self.nodes:
            return
        self.starts[index] += 1
        root, certificate = self.keys.root.to_bytes(), self.keys.certificate(index)
        if index == 0:
            conductor = self._make_conductor()
            self.nodes[index] = conductor
            self.started(index)
            alive = self.perform(index, conductor.advance(self.clock(index)))
        else:
            device = self._make_device(index)
            self.nodes[index] = device
            self.started(index)
            alive = self.perform(index, device.start(root, certificate, self.clock(index)))
        if alive:
            if index not in self._cut:
                self.connect(index)
            self._tick(index, self.starts[index])

    def _make_conductor(self) -> Conductor:
        keys, credential, store = self.keys, self.keys.credentials[0], self.records[0]
        assert credential.seal_secret is not None
        context = CoordinatorContext(
            keys.fleet,
            0,
            credential.identity(),
            credential.seal_secret,
            self._trust(store, ("committee", "roster", "policy", "model", "profile", "schema")),
            Topics(keys.fleet),
            store,
            seeded((self.seed, 0, self.starts[0])),
            self.chunk,
        )
        conductor = Conductor(context, SETUP, self.rounds)
        conductor.offer(keys.signed())
        return conductor

    def _make_device(self, index: int) -> Device:
        keys, credential, store = self.keys, self.keys.credentials[index], self.records[index]
        draw = seeded((self.seed, index, self.starts[index]))
        own = [name for role, name in ((MEMBER, "roster"), (PARTICIPANT, "schema")) if credential.cert.roles & role]
        needed = ("committee", "policy", "model", "profile", *own)
        context = DeviceContext(
            keys.fleet,
            index,
            credential.identity(),
            store.data.setdefault("vault/secret", draw(32)),
            self._trust(store, needed),
            Topics(keys.fleet),
            store,
            draw,
            self.chunk,
            reads_sums=True,
        )
        return Device(context, window=4)

    def _trust(self, store: Records, needed: Sequence[str]) -> Trust:
        return Trust(self.keys.fleet, self.keys.root.hash(self.keys.fleet), needed, store, START)

    def connect(self, index: int) -> None:
        """Let a machine reach the broker."""
        present = self.broker.connect(index)
        # What waited for it is on its way before the broker can confirm anything new.
        self.broker.flush(index)
        self.perform(index, self.nodes[index].on_connected(present, self.clock(index)))

    def crash(self, index: int, *, keep_session: bool = False) -> None:
        """Take a machine's memory away."""
        self.nodes.pop(index, None)
        self.broker.disconnect(index, keep_session=keep_session)
        if index in self._cut:
            self._cut[index] = []

    def roll_back(self, version: int) -> None:
        """Stop the coordinator, say that the model is to go back, and start it again, as an operator does."""
        self.crash(0, keep_session=True)
        for action in self._make_conductor().round.want_rollback(version):
            self.records[0].data[action.key] = action.value
        self.start(0)

    def clock(self, index: int) -> float:
        """What a machine takes the time to be."""
        return self.now + self.skew[index]

    def set_clock(self, index: int, ahead: float) -> None:
        """Set a machine's clock so many seconds ahead of the right time; one set far back makes its role start anew."""
        back = self.skew[index] - ahead
        self.skew[index] = ahead
        if back > SET_BACK and index in self.nodes:
            self.nodes.pop(index)
            self.start(index)

    def cut(self, machines: Iterable[int]) -> None:
        """Part machines from the broker: what they send waits in their memory, what they should hear at the broker."""
        for index in machines:
            if index not in self._cut:
                self._cut[index] = []
                self.broker.disconnect(index, keep_session=True)

    def mend(self, machines: Iterable[int]) -> None:
        """Let them reach the broker again."""
        for index in machines:
            waiting = self._cut.pop(index, [])
            if index in self.nodes:
                for action in waiting:
                    self._send(index, action)
                self.connect(index)

    def put_back(self, index: int, copy: Mapping[str, bytes]) -> None:
        """Put a copy of a machine's records back while it is down; its store notices, as the real one does."""
        assert index not in self.nodes, "stop it first"
        self.records[index].data = {**copy, RESTORED: b""}

    def restart_broker(self) -> None:
        """The broker loses everything; every machine connects again."""
        self.broker.wipe()
        for index in list(self.nodes):
            self.at(self.now + self.chance.uniform(0, 2), lambda index=index: self._reconnect(index))  # type: ignore[misc]

    def _reconnect(self, index: int) -> None:
        if index in self.nodes and index not in self.broker.sessions and index not in self._cut:
            self.connect(index)

    def _tick(self, index: int, life: int) -> None:
        def tick() -> None:
            if self._lives(index, life):
                self.perform(index, self.nodes[index].on_wake(self.clock(index)))
                self.at(self.now + TICK, tick)

        self.at(self.now + TICK, tick)

    def _lives(self, index: int, life: int) -> bool:
        return index in self.nodes and self.starts[index] == life

    # Messages.

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Let something happen."""
        heapq.heappush(self._heap, (max(time, self.now), next(self._order), event))

    def deliver(self, receiver: int, topic: str, payload: bytes, retained: bool) -> None:
        """Put a message on its way, unless a fault takes it."""
        faults, chance = self.faults, self.chance
        copies, late = 1, 0.0
        if faults.hits(topic):
            copies = 0 if chance.random() < faults.loss else 2 if chance.random() < faults.doubling else 1
            late = faults.delay
        for _ in range(copies):
            delay = chance.uniform(0, faults.longest_delay) if chance.random() < late else TRIP
            self.at(self.now + delay, lambda: self._arrive(receiver, topic, payload, retained))

    def _arrive(self, receiver: int, topic: str, payload: bytes, retained: bool) -> None:
        node = self.nodes.get(receiver) if receiver not in self._cut else None
        if isinstance(node, Device):
            actions: Sequence[Any] = node.on_message(topic, payload, self.clock(receiver))
        elif isinstance(node, Conductor):
            actions = node.on_message(topic, payload, retained, self.clock(receiver))
        else:
            self.broker.wait(receiver, topic, payload, retained)
            return
        if not self.perform(receiver, actions):
            # The broker was never told that it arrived.
            self.broker.wait(receiver, topic, payload, retained)

    def perform(self, index: int, actions: Sequence[Any]) -> bool:
        """Execute a role's actions: all of an event's records first, then what leaves. False if the machine died."""
        self.events[index] += 1
        crash = self.crashes.get((index, self.events[index]))
        if index in self.broken_disks and any(isinstance(action, Save | Erase) for action in actions):
            crash = Crash(None)
        leaving = [action for action in actions if not isinstance(action, Save | Erase | Note)]
        if crash is None or crash.sent is not None:
            self._commit(index, actions)
        if crash is not None:
            leaving = leaving[: crash.sent or 0]
        for action in leaving:
            self._execute(index, action)
        if crash is None:
            return True
        self.crash(index, keep_session=crash.keep_session)
        self.at(self.now + crash.downtime, lambda: self.start(index))
        return False

    def _commit(self, index: int, actions: Sequence[Any]) -> None:
        """Make an event's records durable."""
        records = self.records[index].data
        for action in actions:
            match action:
                case Save(key, value):
                    records[key] = value
                case Erase(key):
                    records.pop(key, None)
                case Note(event):
                    self.notes.append((self.now, index, action))
                    self.counts[index, event] += 1
                    if event == "round" and index == 0:
                        self._ended.append(action.fields)
        self.committed(index, actions)

    def _execute(self, index: int, action: Any) -> None:
        life = self.starts[index]
        match action:
            case Publish():
                self.leaves(index, action)
                self._send(index, action)
            case Subscribe() | Unsubscribe():
                self._send(index, action)
            case Wake(time):
                self.at(time - self.skew[index], lambda: self._wake(index, life))
            case Train(plan):
                self.at(self.now + self.training_time(index, plan), lambda: self._trained(index, life, action))
            case Describe():
                self.at(self.now + 1.0, lambda: self._described(index, life, action))
            case Judged():
                self.judged[index].append(action)
            case Score():
                pass

    def _send(self, index: int, action: Publish | Subscribe | Unsubscribe) -> None:
        """Hand something to the broker, as soon as it can be reached."""
        life = self.starts[index]
        if index in self._cut:
            self._cut[index].append(action)
            return
        match action:
            case Publish():
                for publish in self.tamper(index, action):
                    self.broker.publish(index, publish.topic, publish.payload, publish.retain)
                    if not index:
                        self.at(self.now, partial(self._delivered, index, life, publish.topic))
                if index:
                    # Confirmed by the broker, whatever becomes of it; the coordinator stands beside it.
                    self.at(self.now + TRIP, partial(self._delivered, index, life, action.topic))
            case Subscribe(topic, again):
                self.broker.subscribe(index, topic, again)
            case Unsubscribe(topic):
                self.broker.unsubscribe(index, topic)

    def _delivered(self, index: int, life: int, topic: str) -> None:
        if self._lives(index, life):
            self.perform(index, self.nodes[index].on_delivered(topic, self.clock(index)))

    def _wake(self, index: int, life: int) -> None:
        if self._lives(index, life):
            self.perform(index, self.nodes[index].on_wake(self.clock(index)))

    def _trained(self, index: int, life: int, work: Train) -> None:
        node = self.nodes.get(index)
        if isinstance(node, Device) and self._lives(index, life):
            report = LocalReport(1, 0.5, 1, 0.5, 1)
            delta = self.contributed[index, work.plan.round] = self.update(index, work.plan)
            self.perform(index, node.on_trained(work.plan_hash, delta, report, self.clock(index)))

    def _described(self, index: int, life: int, work: Describe) -> None:
        node = self.nodes.get(index)
        if isinstance(node, Device) and self._lives(index, life):
            numbers = self.numbers(index, work.plan)
            self.perform(index, node.on_described(work.plan_hash, numbers, self.clock(index)))

    # Running.

    def run(self, until: Callable[["World"], bool], deadline: float = 3600.0) -> None:
        """Let time pass until something holds; an assertion fails if it does not within `deadline` virtual seconds."""
        end = self.now + deadline
        while not until(self):
            assert self._heap, f"nothing is left to happen; seed {self.seed}"
            time, _, event = heapq.heappop(self._heap)
            assert time <= end, f"not within {deadline} s, seed {self.seed}; last notes: {self.notes[-12:]}"
            self.now = max(self.now, time)
            event()

    def run_for(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, event = heapq.heappop(self._heap)
            event()
        self.now = end

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
        return self._ended

    def rounds_ended(self, number: int) -> Callable[["World"], bool]:
        """Whether so many rounds have ended."""
        return lambda world: len(world.outcomes()) >= number

    def noted(self, index: int, event: str, number: int = 1) -> Callable[["World"], bool]:
        """Whether a machine has said something so often."""
        return lambda world: world.counts[index, event] >= number

    def why(self, index: int) -> list[str]:
        """Why a machine refused what it refused."""
        return [str(note.fields.get("why")) for _, who, note in self.notes if who == index and "why" in note.fields]
