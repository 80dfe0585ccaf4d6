"""A whole fleet in one process: the real conductor and devices, every message as the bytes it is sent in.

A broker in memory hands the messages on, records lie in memory, the clock stands still. What is left is what the roles
themselves do, and a meter reads the processor time of every call into them.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from time import process_time
from typing import Any

import numpy as np
from nacl.utils import random
from numpy.typing import NDArray

from coordinator.conductor import Conductor, Signed
from coordinator.context import Context as CoordinatorContext
from coordinator.planning import RoundSettings
from coordinator.setup import SetupSettings
from edge_agent.context import Context as DeviceContext
from edge_agent.device import Device
from edge_agent.work import Train
from fleet.owner import Credentials, Owner
from hushfleet.actions import Erase, Note, Publish, Save, Subscribe, Unsubscribe
from hushfleet.codec import LocalReport
from hushfleet.mqtt.topics import Topics
from hushfleet.scratch import ScratchStore
from hushfleet.trust import Trust
from hushfleet.wire.documents import COORDINATOR, MEMBER, PARTICIPANT
from hushfleet.wire.layers import Dense

NOW = 1_700_000_000
YEAR = 365 * 86_400
MEMBERS, RECOVERIES = 7, 1
CLIP = 2.0
"""Twice the norm of the updates: nothing is clipped, and the sum can be checked."""
REPORT = LocalReport(examples=32, training_loss_sum=16.0, evaluated=8, evaluation_loss_sum=4.0, correct=6)


class SignedFleet:
    """What the owners sign: devices 1 to 7 are members, the next `devices` participants, 0 is the coordinator."""

    def __init__(self, devices: int, parameters: int) -> None:
        owner = Owner.create(random)
        self.members, self.participants = range(1, MEMBERS + 1), range(MEMBERS + 1, MEMBERS + devices + 1)
        roles = {0: COORDINATOR} | dict.fromkeys(self.members, MEMBER) | dict.fromkeys(self.participants, PARTICIPANT)
        self.fleet, self.clip = owner.fleet, CLIP
        self.credentials = {
            index: Credentials.draw(
                random, index, f"device-{index}", role, profile="bench", not_before=0, not_after=NOW + YEAR
            )
            for index, role in roles.items()
        }
        certs = [credentials.cert for credentials in self.credentials.values()]
        model = owner.model_spec("bench", (Dense(parameters - 1, 1, "none"),), random(32), version=1, issued=NOW)
        self.root = owner.sign_root(issued=NOW, not_after=NOW + YEAR)
        self.certificates = {
            index: owner.certificate(credentials.cert, issued=NOW).to_bytes()
            for index, credentials in self.credentials.items()
        }
        documents = {
            "committee": owner.committee_document(certs, version=1, issued=NOW),
            "roster": owner.roster(certs, version=1, issued=NOW),
            "policy": owner.policy(_rules(devices), [model], version=1, issued=NOW),
            "model": model,
        }
        manifest = owner.sign_manifest(documents.values(), version=1, issued=NOW, not_after=NOW + YEAR)
        self.signed = Signed(
            {1: self.root.to_bytes()},
            manifest.to_bytes(),
            b"",
            {name: frame.to_bytes() for name, frame in documents.items()},
            self.certificates,
        )

    def trust(self, store: ScratchStore, *needed: str) -> Trust:
        """What a party that starts with nothing but root 1's hash can verify."""
        return Trust(self.fleet, self.root.hash(self.fleet), needed, store, NOW)


def _rules(devices: int) -> dict[str, Any]:
    return {
        "assumed_colluders": 0,
        "audit_rate": 0.0,
        "clip": CLIP,
        "committee_min": MEMBERS,
        "committee_trusted": 1,
        "delta": 0.0,
        "epoch_age": 7 * 86_400,
        "epoch_rounds": 16,
        "epsilon": 0.0,
        "interval": 0,
        "largest_survivor_set": devices,
        "largest_weight": 1.0,
        "noise_floor": 0.0,
        "noiseless_statistics": 0,
        "recoveries": RECOVERIES,
        "rollback_versions": 3,
        "shards": 1,
        "smallest_group": 5,
        "smallest_survivor_set": 2,
        "tiny_fleet": 1,
        "uploads_per_base": 8,
    }


class Meter:
    """Processor seconds of the calls into each party, and bytes of the messages, by what they were about."""

    def __init__(self) -> None:
        self.seconds: defaultdict[tuple[int, str], float] = defaultdict(float)
        self.bytes_up: Counter[int] = Counter()
        self.bytes_down: Counter[int] = Counter()

    def spent(self, index: int, *about: str) -> float:
        """Seconds of one party, about some things or, with none named, all in all."""
        return sum(
            seconds for (who, what), seconds in self.seconds.items() if who == index and (not about or what in about)
        )


class World:
    """The fleet under way. Everything happens at one moment, in the order in which it was sent, and nothing is lost.

    Args:
        settings: the coordinator's, of rounds.
        update: what a device's training gives; it is not metered.
        chunk: bytes of a message's slice.

    Attributes:
        work: what training was asked for last.
    """

    def __init__(
        self, signed: SignedFleet, settings: RoundSettings, update: Callable[[int], NDArray[np.float32]], chunk: int
    ) -> None:
        self.signed, self.update, self.chunk = signed, update, chunk
        self.work: Train
        self.topics, self.meter = Topics(signed.fleet), Meter()
        self.notes: list[Note] = []
        self._stores: dict[int, ScratchStore] = defaultdict(ScratchStore)
        self._filters: dict[int, set[str]] = defaultdict(set)
        self._retained: dict[str, bytes] = {}
        self._on_the_way: deque[tuple[int, str, bytes]] = deque()
        self._training: deque[tuple[int, Train]] = deque()
        self._unconfirmed: list[str] = []
        self.conductor = self._make_conductor(settings)
        self.devices = {index: self._make_device(index) for index in (*signed.members, *signed.participants)}

    def _make_conductor(self, settings: RoundSettings) -> Conductor:
        signed, store, credentials = self.signed, self._stores[0], self.signed.credentials[0]
        assert credentials.seal_secret is not None
        context = CoordinatorContext(
            signed.fleet,
            0,
            credentials.identity(),
            credentials.seal_secret,
            signed.trust(store, "committee", "roster", "policy", "model"),
            self.topics,
            store,
            random,
            self.chunk,
        )
        conductor = Conductor(context, SetupSettings(), settings)
        conductor.offer(signed.signed)
        return conductor

    def _make_device(self, index: int) -> Device:
        signed, store, credentials = self.signed, self._stores[index], self.signed.credentials[index]
        needed = ("committee", "policy", "model", *(("roster",) if index in signed.members else ()))
        context = DeviceContext(
            signed.fleet,
            index,
            credentials.identity(),
            random(32),
            signed.trust(store, *needed),
            self.topics,
            store,
            random,
            self.chunk,
        )
        return Device(context, window=4)

    # Running.

    def set_up(self) -> None:
        """Everyone starts and connects; documents spread, a committee forms, the first plan is out."""
        self._perform(0, self.conductor.advance(NOW))
        self._perform(0, self.conductor.on_connected(False, NOW))
        for index, device in self.devices.items():
            self._perform(index, device.start(self.signed.root.to_bytes(), self.signed.certificates[index], NOW))
            self._perform(index, device.on_connected(False, NOW))
        self._deliver_all()

    def play_round(self) -> None:
        """One round: plan, training, uploads, survivor set, mask sums, result, and the devices' newest model."""
        confirmed, self._unconfirmed = self._unconfirmed, []
        for topic in confirmed:
            self._call(0, "confirmed", self.conductor.on_delivered, topic, NOW)
        self._deliver_all()
        while self._training:
            index, self.work = self._training.popleft()
            delta = self.update(index)
            self._call(index, "trained", self.devices[index].on_trained, self.work.plan_hash, delta, REPORT, NOW)
        self._deliver_all()

    def model(self) -> NDArray[np.float32]:
        """The coordinator's newest model, float32[d]."""
        documents, models = self.conductor.context.documents(), self.conductor.round.models
        models.current(documents.model, documents.model_hash)
        return models.flat(documents.model)

    def _deliver_all(self) -> None:
        while self._on_the_way:
            receiver, topic, payload = self._on_the_way.popleft()
            at = self.topics.parse(topic)
            about = at.name if at.kind in ("up", "down") else at.kind
            self.meter.bytes_down[receiver] += len(payload)
            if receiver == 0:
                self._call(0, about, self.conductor.on_message, topic, payload, False, NOW)
            else:
                self._call(receiver, about, self.devices[receiver].on_message, topic, payload, NOW)

    def _call(self, index: int, about: str, event: Callable[..., Sequence[Any]], *arguments: Any) -> None:
        """Let something happen to one party, and meter it."""
        before = process_time()
        actions = event(*arguments)
        self.meter.seconds[index, about] += process_time() - before
        self._perform(index, actions)

    def _perform(self, index: int, actions: Sequence[Any]) -> None:
        """Execute a role's actions: all of an event's records first, then what leaves."""
        store = self._stores[index]
        for action in actions:
            match action:
                case Save(key, value):
                    store.save(key, value)
                case Erase(key):
                    store.erase(key)
        for action in actions:
            match action:
                case Publish():
                    self._publish(index, action)
                case Subscribe(pattern):
                    self._filters[index].add(pattern)
                    self._on_the_way += [
                        (index, topic, payload) for topic, payload in self._retained.items() if _matches(pattern, topic)
                    ]
                case Unsubscribe(pattern):
                    self._filters[index].discard(pattern)
                case Train():
                    self._training.append((index, action))
                case Note():
                    self.notes.append(action)

    def _publish(self, sender: int, message: Publish) -> None:
        self.meter.bytes_up[sender] += len(message.payload)
        if message.retain and message.payload:
            self._retained[message.topic] = message.payload
        elif message.retain:
            self._retained.pop(message.topic, None)
        self._on_the_way += [
            (receiver, message.topic, message.payload)
            for receiver, filters in self._filters.items()
            if any(_matches(pattern, message.topic) for pattern in filters)
        ]
        if sender == 0:
            self._unconfirmed.append(message.topic)


def _matches(pattern: str, topic: str) -> bool:
    """MQTT's topic filters."""
    if pattern.endswith("/#"):
        return topic.startswith(pattern[:-1])
    if "+" not in pattern:
        return pattern == topic
    parts, names = pattern.split("/"), topic.split("/")
    return len(parts) == len(names) and all(part in ("+", name) for part, name in zip(parts, names, strict=True))
