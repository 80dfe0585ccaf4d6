"""A whole small fleet as real processes: broker with TLS, coordinator and agents, started, killed and followed.

The owners' desk makes it in a directory; every service is `python -m hushfleet … run`, its journal is read line by
line. A witness with the operator's certificate reads everything that passes the broker.
"""

import getpass
import json
import os
import resource
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import paho.mqtt.client as mqtt
from nacl.utils import random
from paho.mqtt.enums import CallbackAPIVersion

from broker.directory import FleetDirectory
from broker.local import HOST, LocalBroker, free_port
from broker.render import access_list, configuration
from coordinator.ledger import Ledger
from edge_agent.vault import Vault
from fleet.desk import Desk
from hushfleet.mqtt.topics import Parsed, Topics
from hushfleet.records import RecordStore
from hushfleet.wire import canonical
from hushfleet.wire.documents import MEMBER, PARTICIPANT

DEADLINE = 40.0
"""Seconds for anything that a healthy fleet does at once, on a busy machine."""
COORDINATOR = "coordinator"
INPUTS, HIDDEN, CLASSES = 16, 128, 4
PARAMETERS = (INPUTS + 1) * HIDDEN + (HIDDEN + 1) * CLASSES
CHUNK = 256
"""Bytes: an upload takes several, so that it can be cut."""

Event = dict[str, Any]

_RULES = """\
[fleet]
name = "small"

[model]
name = "small"
layers = [LAYERS]
personal = PERSONAL

[policy]
"""

_POLICY: dict[str, object] = {
    "committee_min": 4,
    "recoveries": 1,
    "smallest_survivor_set": 3,
    "largest_survivor_set": 20,
    "assumed_colluders": 0,
    "tiny_fleet": True,
    "interval": 0,
    "uploads_per_base": 100,
    "epoch_rounds": 64,
}

_PROFILE = f"""\
name = "small"
description = "A gateway on this machine, with chunks so small that an upload can be cut"
memory = 512

[link]
class = "ethernet"
chunk = {CHUNK}
window = 1
keepalive = 60
"""

_ROUNDS: dict[str, object] = {
    "collect": 30,
    "answer": 1,
    "recover": 20,
    "enough": 1.0,
    "patience": 0.2,
    "steps": 5,
    "batch": 8,
}


class Process:
    """A service under way; what it writes to standard error, line by line, goes to `told`."""

    def __init__(self, name: str, command: Iterable[str | Path], told: Callable[[str, str], None]) -> None:
        self.name = name
        self._told = told
        self._popen = subprocess.Popen(
            [*map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self._popen.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stderr is not None
        for line in self._popen.stderr:
            self._told(self.name, line.rstrip())

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, deadline: float = DEADLINE) -> int:
        """Its exit code, once everything it said has been read."""
        code = self._popen.wait(deadline)
        self._reader.join(deadline)
        return code

    def limit_files(self, size: int) -> None:
        """From now on it cannot make a file longer than `size` bytes, as if the disk were full there."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, size))


class Fleet:
    """A fleet below one directory. Devices `both-1`… are participants and candidates, `part-1`… participants alone.

    Args:
        both, participants: how many of each.
        policy, rounds: changes to the small fleet's own.
        signed: when the owners signed, in seconds since 1970; now by default.
    """

    layers: tuple[str, ...] = (
        f'{{ in = {INPUTS}, out = {HIDDEN}, act = "relu" }}',
        f'{{ in = {HIDDEN}, out = {CLASSES}, act = "none" }}',
    )
    personal = 0
    head = "softmax"
    schema = ""
    profile = _PROFILE
    setup: Mapping[str, object] = MappingProxyType({"cards": 20, "keys": 30, "ready": 40})

    def __init__(
        self,
        directory: Path,
        *,
        both: int = 4,
        participants: int = 2,
        policy: Mapping[str, object] | None = None,
        rounds: Mapping[str, object] | None = None,
        signed: float | None = None,
    ) -> None:
        self.directory, self.owner = directory, directory / "fleet"
        self.members = [f"both-{number}" for number in range(1, both + 1)]
        self.participants = [f"part-{number}" for number in range(1, participants + 1)]
        self.devices = [*self.members, *self.participants]
        self.everyone = [COORDINATOR, *self.devices]
        self.port = free_port()
        self.processes: dict[str, Process] = {}
        self._lines: list[tuple[str, str, Event]] = []
        self._heard = threading.Condition()
        self._make(policy or {}, int(signed or time.time()))
        self.topics = Topics(FleetDirectory.load(self.owner).trust.fleet)
        self.broker = self._make_broker()
        self.configure_coordinator(**(rounds or {}))

    # Making it.

    def _make(self, policy: Mapping[str, object], now: int) -> None:
        for name in ("configuration", "rows"):
            (self.directory / name).mkdir(parents=True)
        rules, profile = self.configuration("fleet"), self.configuration("profile")
        model = _RULES.replace("LAYERS", ", ".join(self.layers)).replace("PERSONAL", str(self.personal))
        rules.write_text(model + _toml({**_POLICY, **policy}) + self.schema)
        profile.write_text(self.profile)
        desk = Desk.create(self.owner, hosts=[HOST], port=self.port, settings=rules, draw=random, now=now)
        desk.add(self.members, PARTICIPANT | MEMBER, str(profile), draw=random, now=now)
        desk.add(self.participants, PARTICIPANT, str(profile), draw=random, now=now)
        desk.sign(draw=random, now=now)
        for number, name in enumerate(self.devices):
            self.rows(name).write_text(self.data(number))
            self.configure_agent(name)

    def _make_broker(self) -> LocalBroker:
        place = self.directory / "broker"
        place.mkdir()
        fleet = FleetDirectory.load(self.owner)
        settings = fleet.configuration(place, self.port, HOST, getpass.getuser())
        settings.access_list.write_text(access_list(fleet.access()))
        return LocalBroker(place, self.port, configuration(settings))

    def configuration(self, name: str) -> Path:
        """The path of a configuration file."""
        return self.directory / "configuration" / f"{name}.toml"

    def rows(self, name: str) -> Path:
        """A device's data."""
        return self.directory / "rows" / f"{name}.csv"

    @staticmethod
    def data(number: int) -> str:
        """What stands in the file of the device of this number, from 0."""
        return rows(number)

    def state(self, name: str) -> Path:
        """Where a service keeps its memory."""
        return self.directory / f"state-{name}"

    def store_path(self, name: str) -> Path:
        """A service's vault or ledger."""
        return self.state(name) / ("ledger.db" if name == COORDINATOR else "vault.db")

    def bundle(self, name: str) -> Path:
        """The bundle as the owner handed it over."""
        return self.owner / "devices" / name

    def configure_agent(self, name: str, *, port: int | None = None) -> Path:
        """Write an agent's configuration; `port` of the broker if it is another than the bundle's."""
        path = self.configuration(name)
        path.write_text(
            _toml(
                {
                    "bundle": str(self.bundle(name)),
                    "vault": str(self.store_path(name)),
                    "profile": "profile.toml",
                    "head": self.head,
                    # LiteRT, where it is installed, says a line of its own on standard error.
                    "trainer": "numpy",
                    "log": "json",
                }
            )
            + self.source(name)
            + ("" if port is None else f"[broker]\nport = {port}\n")
        )
        return path

    def source(self, name: str) -> str:
        """Where a device's rows come from, as its configuration says it."""
        return "[source]\n" + _toml({"path": str(self.rows(name)), "label": "label", "holdout": 0.25})

    def configure_coordinator(self, **rounds: object) -> Path:
        """Write the coordinator's configuration, with these changes to the small fleet's `[rounds]`."""
        path = self.configuration(COORDINATOR)
        path.write_text(
            _toml(
                {
                    "bundle": str(self.bundle(COORDINATOR)),
                    "documents": str(self.owner / "documents"),
                    "ledger": str(self.store_path(COORDINATOR)),
                    "log": "json",
                }
            )
            + "[rounds]\n"
            + _toml({**_ROUNDS, **rounds})
            + "[setup]\n"
            + _toml(self.setup)
            + "[broker]\nchunk = 1024\nwindow = 2\n"
        )
        return path

    def index(self, name: str) -> int:
        """A device's roster index."""
        with Desk.open(self.owner) as desk:
            return desk.register().line(name).index

    # Running it.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.running:
                process.signal(signal.SIGCONT)
                process.signal(signal.SIGKILL)
            process.wait()
        self.broker.stop()

    def start(self, *names: str, options: Iterable[str] = ()) -> None:
        """Start services, for the first time or again; `options` go to their command."""
        for name in names:
            assert name not in self.processes or not self.processes[name].running, f"{name} is running"
            self.processes[name] = Process(name, [*self.command(name), *options], self._told)

    def command(self, name: str) -> list[str | Path]:
        """The command that runs a service."""
        kind = "coordinator" if name == COORDINATOR else "agent"
        return [sys.executable, "-m", "hushfleet", kind, "run", self.configuration(name)]

    def bring_back(self, *names: str) -> None:
        """Have the broker and these services run, whatever befell them."""
        if not self.broker.running():
            self.broker.start()
        for name in names:
            if name in self.processes and self.processes[name].running:
                self.processes[name].signal(signal.SIGCONT)
            else:
                self.start(name)

    def kill(self, *names: str) -> None:
        """End services as a power cut would; everything they said until then has been read."""
        for name in names:
            self.processes[name].signal(signal.SIGKILL)
        for name in names:
            self.processes[name].wait()

    def stop(self, *names: str) -> list[int]:
        """End services as an operator would; their exit codes."""
        for name in names:
            self.processes[name].signal(signal.SIGTERM)
        return [self.processes[name].wait() for name in names]

    def wait_for_end(self, *names: str, deadline: float = DEADLINE) -> str:
        """The first of these services that ends, or has ended."""
        until = time.monotonic() + deadline
        while time.monotonic() < until:
            for name in names:
                if not self.processes[name].running:
                    return name
            time.sleep(0.02)
        raise AssertionError(f"none of {names} ended within {deadline:g} s")

    # What they tell.

    def _told(self, name: str, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = {}
        with self._heard:
            self._lines.append((name, line, event if isinstance(event, dict) else {}))
            self._heard.notify_all()

    def mark(self) -> int:
        """Now, as a place in everything that was told."""
        with self._heard:
            return len(self._lines)

    def listen(self, lines: int, deadline: float) -> None:
        """Return once so many more lines have been told, or after `deadline` seconds."""
        with self._heard:
            goal = len(self._lines) + lines
            self._heard.wait_for(lambda: len(self._lines) >= goal, deadline)

    def take(self) -> list[tuple[str, str, Event]]:
        """Teller, line and event of all that was told since the last time. It is forgotten; earlier marks are void."""
        with self._heard:
            told, self._lines = self._lines, []
            return told

    def lines(self, name: str | None = None, since: int = 0) -> list[str]:
        """What was written, event or not."""
        with self._heard:
            return [line for teller, line, _ in self._lines[since:] if name in (None, teller)]

    def events(self, name: str, event: str, since: int = 0, **fields: object) -> list[Event]:
        """A service's events of this sort with these fields, in order."""
        with self._heard:
            return [told for teller, _, told in self._lines[since:] if teller == name and _fits(told, event, fields)]

    def wait_for(
        self,
        name: str,
        event: str,
        since: int = 0,
        *,
        that: Callable[[Event], bool] = lambda _: True,
        deadline: float = DEADLINE,
        **fields: object,
    ) -> Event:
        """The first event of this sort with these fields, told after the mark `since`; it must come in time."""
        until = time.monotonic() + deadline
        with self._heard:
            at = since
            while True:
                for teller, _, told in self._lines[at:]:
                    if teller == name and _fits(told, event, fields) and that(told):
                        return told
                at = len(self._lines)
                left = until - time.monotonic()
                if not self._heard.wait(min(max(left, 0.0), 0.2)) and left <= 0:
                    raise AssertionError(self._missed(name, event, fields, deadline, since))

    def _missed(self, name: str, event: str, fields: object, deadline: float, since: int) -> str:
        process = self.processes.get(name)
        state = "running" if process is not None and process.running else "not running"
        heard = "\n".join(f"{teller}: {line[:300]}" for teller, line, _ in self._lines[since:][-60:])
        return f"no {event} {fields} of {name} ({state}) within {deadline:g} s; since then:\n{heard}"

    # What they keep.

    @contextmanager
    def store(self, name: str) -> Iterator[RecordStore]:
        """The records of a stopped service."""
        path = self.store_path(name)
        opened = Ledger(path) if name == COORDINATOR else Vault(path, random)
        try:
            yield opened
        finally:
            opened.close()

    def model(self, name: str) -> tuple[int, str]:
        """Version and hash of the newest model that a stopped service keeps."""
        with self.store(name) as store:
            record = canonical.decode(store.get("model/live") or b"")
        return record["version"], record["hash"].hex()

    def secrets(self, name: str) -> dict[str, bytes]:
        """Everything that a stopped service must never say, by what it is."""
        found = {
            file: bytes.fromhex((self.bundle(name) / file).read_text().strip())
            for file in ("identity.key", "seal.key")
            if (self.bundle(name) / file).exists()
        }
        with self.store(name) as store:
            found |= dict(store.scan("vault/"))
            for key, value in [*store.scan("sheet/"), *store.scan("setup/")]:
                record = canonical.decode(value)
                for part in ("secret", "secrets", "shares", "nonce", "own"):
                    content = record.get(part, b"")
                    found |= {f"{key} {part} {at}": content[at : at + 32] for at in range(0, len(content), 32)}
        return {what: secret for what, secret in found.items() if any(secret)}


class Witness:
    """Reads everything that passes the broker, with the operator's certificate. Lost connections are made again."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._payloads: dict[str, set[bytes]] = defaultdict(set)
        self._listening = threading.Event()
        self._heard = threading.Condition()
        transport = fleet.owner / "transport"
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=transport / "ca.pem")
        context.load_cert_chain(transport / "operator.pem", transport / "operator.key")
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.tls_set_context(context)
        # Not whole seconds: the witness is to miss as little as possible.
        self._client.reconnect_delay_set(0.05, 0.2)  # type: ignore[arg-type]
        self._client.on_connect = lambda client, *_: client.subscribe(f"hf/{fleet.topics.fleet}/#", qos=1)
        self._client.on_subscribe = lambda *_: self._listening.set()
        self._client.on_message = lambda _, __, message: self._keep(message.topic, bytes(message.payload))

    def __enter__(self) -> "Witness":
        self._client.connect(HOST, self._fleet.port)
        self._client.loop_start()
        assert self._listening.wait(DEADLINE)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _keep(self, topic: str, payload: bytes) -> None:
        with self._heard:
            self._payloads[topic].add(payload)
            self._heard.notify_all()

    def wait_for(self, topic: str) -> None:
        """Return once something has passed on this topic."""
        with self._heard:
            assert self._heard.wait_for(lambda: topic in self._payloads, DEADLINE), f"nothing on {topic}"

    def seen(self, kind: str, name: str = "") -> dict[str, tuple[Parsed, set[bytes]]]:
        """Topic, what it means and every payload that passed on it, of the topics of this kind and name."""
        with self._heard:
            held = {topic: set(payloads) for topic, payloads in self._payloads.items()}
        parsed = {topic: self._fleet.topics.parse(topic) for topic in held if "/state/" not in topic}
        return {
            topic: (at, held[topic])
            for topic, at in parsed.items()
            if at.kind == kind and (not name or at.name == name)
        }

    def check(self) -> None:
        """What must never happen: two different uploads, mask sums or survivor sets for one round."""
        sets: dict[tuple[int, int], set[bytes]] = defaultdict(set)
        for kind, name in (("up", "upload"), ("up", "masksum"), ("down", "survivors")):
            for topic, (at, payloads) in self.seen(kind, name).items():
                assert len(payloads) == 1, f"{len(payloads)} different messages on {topic}"
                if name == "survivors":
                    sets[at.round_number, at.chunk] |= payloads
        for (number, chunk), payloads in sets.items():
            assert len(payloads) == 1, f"{len(payloads)} survivor sets for round {number}, chunk {chunk}"


def rows(seed: int, count: int = 40) -> str:
    """A device's data: CSV of 16 features and a label of 4 classes, learnable."""
    lines = [",".join([*(f"x{number}" for number in range(INPUTS)), "label"])]
    for row in range(count):
        label = (row + seed) % CLASSES
        cells = [f"{(row * 7 + number * 3 + seed) % 11 / 11 + (number % CLASSES == label):.4f}" for number in range(16)]
        lines.append(",".join([*cells, str(label)]))
    return "\n".join(lines) + "\n"


def command(*arguments: str | Path, timeout: float = 100.0) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "hushfleet", *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
        check=False,
        env={**os.environ, "COLUMNS": "120"},
    )


def _fits(told: Event, event: str, fields: Mapping[str, object]) -> bool:
    return told.get("event") == event and all(told.get(key) == value for key, value in fields.items())


def _toml(table: Mapping[str, object]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
