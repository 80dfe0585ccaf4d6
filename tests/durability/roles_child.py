"""One real role on its real store, fed with recorded events; what would leave is written to standard output instead.

    python roles_child.py RECORDING STORE LIFE BATCH

A line is `send SHA256 TOPIC`, `ack`, or `decided` when an event has records to be written. At most BATCH events share
a commit. Each life draws other randomness, as a process started again would.
"""

import os
import pickle
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1] / "protocol"))

from signed_fleet import FleetKeys
from world import ROUNDS, World

import hushfleet.runner as runner_module
from coordinator.conductor import Conductor
from edge_agent.device import Device
from hushfleet.actions import Erase, Save
from hushfleet.errors import StorageError
from hushfleet.journal import Journal
from hushfleet.mqtt.events import AckToken
from hushfleet.records import RecordStore
from hushfleet.runner import Event, Runner

Role = TypeVar("Role", Conductor, Device)
RECORDED = ("start", "advance", "on_connected", "on_message", "on_delivered", "on_wake", "on_trained")


class Recorder(World):
    """A world that keeps every event of one machine."""

    def __init__(self, keys: FleetKeys, index: int, rounds: int) -> None:
        self.recorded: list[tuple[str, tuple[Any, ...]]] = []
        self._recorded_index = index
        self._within = False
        super().__init__(keys, rounds=replace(ROUNDS, total=rounds))

    def _make_conductor(self) -> Conductor:
        return self._listening(super()._make_conductor(), 0)

    def _make_device(self, index: int) -> Device:
        return self._listening(super()._make_device(index), index)

    def _listening(self, role: Role, index: int) -> Role:
        if index == self._recorded_index:
            for name in RECORDED:
                if hasattr(role, name):
                    setattr(role, name, self._keeping(name, getattr(role, name)))
        return role

    def _keeping(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def keep(*arguments: Any) -> Any:
            # What a role calls on itself is no event.
            outermost, self._within = not self._within, True
            if outermost:
                self.recorded.append((name, arguments))
            try:
                return method(*arguments)
            finally:
                self._within = not outermost

        return keep


def record(keys: FleetKeys, index: int, rounds: int) -> bytes:
    """The events of one machine over its set-ups and so many rounds."""
    world = Recorder(keys, index, rounds)
    world.run(world.rounds_ended(rounds))
    return pickle.dumps((keys, index, world.recorded))


class StoredWorld(World):
    """Makes a role as a world does, on a store that is real."""

    def __init__(self, keys: FleetKeys, index: int, store: Any, life: int) -> None:
        self.keys, self.seed, self.chunk, self.rounds = keys, 0, 4096, ROUNDS
        self.records: Any = defaultdict(lambda: store)
        self.starts = Counter({index: life})
        self._index = index

    def role(self) -> Any:
        """The role, from its records."""
        return self._make_conductor() if self._index == 0 else self._make_device(self._index)


class Stdout:
    """Where messages leave: one system call a line."""

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        os.write(1, f"send {sha256(payload).hexdigest()} {topic}\n".encode())

    def subscribe(self, topic: str, again: bool = True) -> None:
        pass

    def unsubscribe(self, topic: str) -> None:
        pass

    def ack(self, token: AckToken) -> None:
        os.write(1, b"ack\n")


class VaultAsRecords:
    """A vault in the place where a world keeps a device's records."""

    def __init__(self, store: RecordStore) -> None:
        self.get, self.scan = store.get, store.scan
        self.data = {"vault/secret": store.get("vault/secret")}


def main() -> None:
    recording, path, life, batch = sys.argv[1:]
    runner_module.BATCH = int(batch)
    keys, index, events = pickle.loads(Path(recording).read_bytes())
    with closing(open_store(index, Path(path))) as store:
        world = StoredWorld(keys, index, VaultAsRecords(store), int(life))
        runner = Runner(world.role, store, Stdout(), Journal("json"), lambda action: None, clock=lambda: 0.0)
        for number, (name, arguments) in enumerate(events):
            token = AckToken(1, number) if name == "on_message" else None
            runner.post(_event(name, arguments), token)
        runner.post(_last(runner), None)
        runner.run(lambda role, _: [])


def _event(name: str, arguments: tuple[Any, ...]) -> Event:
    def handle(role: Any, now: float) -> Any:
        actions = getattr(role, name)(*arguments)
        if any(isinstance(action, Save | Erase) for action in actions):
            os.write(1, b"decided\n")
        return actions

    return handle


def _last(runner: Runner) -> Event:
    def stop(role: Any, now: float) -> list[Any]:
        runner.stop()
        return []

    return stop


def open_store(index: int, path: Path) -> RecordStore:
    if index:
        from edge_agent.vault import Vault

        return Vault(path, os.urandom)
    from coordinator.ledger import Ledger

    return Ledger(path)


if __name__ == "__main__":
    try:
        main()
    except StorageError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
