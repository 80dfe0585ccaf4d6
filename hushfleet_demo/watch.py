"""The demo's federation: ten people's smartwatch recordings, ten agents, one coordinator, a real broker.

Eight people's agents train; the two others' follow the model and score it on their own people, whom it never saw. The
committee are those two and three participants. On the way one participant is killed while its upload is under way, and
one member when a plan appears.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hushfleet.errors import HushfleetError
from hushfleet_demo import watch_task as task
from hushfleet_demo.data import Person, write_csv
from hushfleet_demo.local_fleet import HOST, LocalFleet, run

UNSEEN = (3, 10)
"""The people whom the model never sees, by their number: of all 45 choices the one closest to the mean of all."""
MEMBER_PARTICIPANTS = 3
DROPPED_AT, DROPPED_FOR = 8, 3
"""The round in which a participant is killed, and for how many rounds it stays away."""
LOST_AT = 20
"""The round in which a member is killed."""
NO_NEWS = 90.0
"""Seconds without any event after which something has gone wrong."""

PROFILE = """\
name = "demo-gateway"
description = "A gateway on this machine, with chunks so small that an upload can be cut"
memory = 512

[link]
class = "ethernet"
chunk = 256
window = 1
keepalive = 60
"""

FLEET = """\
[fleet]
name = "watch-demo"

[model]
name = "shoulder-exercises"
layers = [
{layers}
]

[policy]
committee_min = 4
recoveries = 1
smallest_survivor_set = 6
largest_survivor_set = {largest}
assumed_colluders = 1
clip = {clip}
interval = 0
epoch_rounds = 16
"""

COORDINATOR = """\
bundle = "../fleet/devices/coordinator"
documents = "../fleet/documents"
ledger = "../state/coordinator/ledger.db"
log = "json"

[rounds]
total = {rounds}
collect = 20
answer = 2
recover = 10
enough = 0.85
patience = 0.4
steps = {steps}
batch = {batch}
rate = {rate}
momentum = {momentum}
evidence = true

[setup]
cards = 6
keys = 12
ready = 20
"""

AGENT = """\
bundle = "../fleet/devices/{name}"
vault = "../state/{name}/vault.db"
profile = "demo-gateway.toml"
head = "{head}"
log = "json"

[source]
path = "../rows/{name}.csv"
label = "label"
holdout = {holdout}
"""


@dataclass(slots=True)
class Course:
    """What happened so far, as the processes told it.

    Attributes:
        rounds: the coordinator's line for each round that ended.
        scores: for each unseen person, (version, accuracy, rows) in order.
        traffic: by round, bytes sent and received of each plain participant, at its socket.
        sent, received: bytes of each agent over all its lives.
        dropped: whether the participant was killed while its upload was incomplete.
        recoveries: rounds in which a member's mask sum was recovered.
        epochs: committees that got ready.
        remarks: what befell the fleet, in words.
    """

    rounds: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, dict[int, tuple[float, int]]] = field(default_factory=dict)
    traffic: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)
    recoveries: list[int] = field(default_factory=list)
    epochs: int = 0
    remarks: list[str] = field(default_factory=list)

    def unseen_accuracy(self, version: int) -> float | None:
        """Accuracy of a model version over all windows of the unseen people; None until each has scored it."""
        scored = [of_person[version] for of_person in self.scores.values() if version in of_person]
        if not scored or len(scored) < len(self.scores):
            return None
        return sum(accuracy * rows for accuracy, rows in scored) / sum(rows for _, rows in scored)

    def curve(self) -> list[tuple[int, float]]:
        """(version, accuracy) for every version that all unseen people have scored."""
        scored = set.intersection(*(set(of_person) for of_person in self.scores.values()))
        found = ((version, self.unseen_accuracy(version)) for version in sorted(scored))
        return [(version, accuracy) for version, accuracy in found if accuracy is not None]


class Federation:
    """The demo's fleet and the two accidents that befall it.

    Args:
        directory: everything it writes is below it.
        people: the ten people.
        rounds: how many rounds to run.
        changed: called after every event worth showing, on any thread.
    """

    def __init__(self, directory: Path, people: list[Person], rounds: int, changed: Callable[[Course], None]) -> None:
        self._people = {f"watch-{person.number}": person for person in people}
        self.unseen = [f"watch-{number}" for number in UNSEEN]
        self.participants = [name for name in self._people if name not in self.unseen]
        self._rounds, self._changed = rounds, changed
        self.course = Course(scores={name: {} for name in self.unseen})
        self.local = LocalFleet(directory, self._told)
        self._index = {name: index for index, name in enumerate([*self.unseen, *self.participants], start=1)}
        # The last participant is no member; the first one is.
        self._victim, self._lost_member = self.participants[-1], self.participants[0]
        self._under_attack = 0
        self._member_killed = False
        self._lock = threading.Lock()
        self._last_news = time.monotonic()
        self._carried: dict[str, tuple[int, int]] = {}

    def plain_participants(self) -> list[str]:
        """Participants that are neither members nor killed on the way: theirs is the traffic of a participant."""
        return [name for name in self.participants[MEMBER_PARTICIPANTS:] if name != self._victim]

    # Making it.

    def prepare(self, step: Callable[[str], None]) -> None:
        """Make the fleet's keys and documents, and everyone's rows and configuration."""
        local, fleet = self.local, self.local.fleet
        profile = local.configure("demo-gateway", PROFILE)
        layers = "\n".join(
            f'    {{ in = {layer.inputs}, out = {layer.outputs}, act = "{layer.act}" }},' for layer in task.LAYERS
        )
        rules = local.configure("fleet", FLEET.format(layers=layers, clip=task.CLIP, largest=task.LARGEST_SURVIVOR_SET))
        step("the owners make the fleet's keys")
        run("fleet", "init", fleet, "--host", HOST, "--port", str(local.port), "--settings", rules)
        members = self.participants[:MEMBER_PARTICIPANTS]
        for role, names in (
            ("member", self.unseen),
            ("both", members),
            ("participant", self.participants[MEMBER_PARTICIPANTS:]),
        ):
            step(f"the owners certify {len(names)} devices as {role}")
            run("fleet", "add", fleet, *names, "--role", role, "--profile", profile)
        step("the owners sign roster, policy, model and manifest")
        run("fleet", "sign", fleet)
        rows = local.directory / "rows"
        rows.mkdir(exist_ok=True)
        for name, person in self._people.items():
            write_csv(person, rows / f"{name}.csv")
            holdout = 1.0 if name in self.unseen else 0.0
            local.configure(name, AGENT.format(name=name, head=task.HEAD, holdout=holdout))
        local.configure(
            "coordinator",
            COORDINATOR.format(
                rounds=self._rounds, steps=task.STEPS, batch=task.BATCH, rate=task.RATE, momentum=task.MOMENTUM
            ),
        )

    def run(self) -> None:
        """Run every round; ends when the coordinator has, and everyone has the last model.

        Raises:
            HushfleetError: a process ended with an error, or nothing happens any more.
        """
        local = self.local
        local.start_broker()
        local.start_coordinator()
        for name in self._people:
            local.start_agent(name)
        coordinator = local.processes["coordinator"]
        while coordinator.running:
            self._check()
            time.sleep(0.1)
        if coordinator.wait():
            raise HushfleetError(f"the coordinator failed: {' '.join(coordinator.last_lines)}")
        if len(self.course.rounds) < self._rounds:
            raise HushfleetError(f"the coordinator was ended after {len(self.course.rounds)} of {self._rounds} rounds")
        last = self.course.rounds[-1]["version"]
        while not all(last in of_person for of_person in self.course.scores.values()):
            self._check()
            time.sleep(0.05)

    def _check(self) -> None:
        for process in self.local.failed():
            raise HushfleetError(f"{process.name} failed: {' '.join(process.last_lines)}")
        if time.monotonic() - self._last_news > NO_NEWS:
            raise HushfleetError(f"nothing has happened for {NO_NEWS:.0f} s; see {self.local.directory / 'logs'}")

    # What the processes tell.

    def _told(self, name: str, event: dict[str, Any]) -> None:
        with self._lock:
            self._last_news = time.monotonic()
            match name, event.get("event"):
                case "coordinator", what:
                    self._on_coordinator(str(what), event)
                case _, "score" if name in self.unseen and event.get("accuracy") is not None:
                    self.course.scores[name][event["version"]] = (event["accuracy"], event["rows"])
                case _, "round" if name in self.plain_participants():
                    traffic = self.course.traffic.setdefault(event["round"], [])
                    traffic.append((event["bytes_sent"], event["bytes_received"]))
                case _, "stopped":
                    sent, received = self._carried.get(name, (0, 0))
                    self.course.sent[name] = sent + event["bytes_sent"]
                    self.course.received[name] = received + event["bytes_received"]
            self._changed(self.course)

    def _on_coordinator(self, what: str, event: dict[str, Any]) -> None:
        course = self.course
        match what:
            case "first-chunk" if event["device"] == self._index[self._victim]:
                if event["round"] >= DROPPED_AT and not course.dropped and not self._under_attack:
                    self.local.processes[self._victim].kill()
                    self._under_attack = event["round"]
                    course.remarks.append(
                        f"round {event['round']}: {self._victim} killed while its upload was under way"
                    )
            case "accepted" if event["device"] == self._index[self._victim] and event["round"] == self._under_attack:
                # It was quicker than the kill: this one does not count, and another round will do.
                self._under_attack = 0
                course.remarks.append(f"round {event['round']}: its upload had arrived whole after all")
                self._again(self._victim)
            case "plan" if event["round"] >= LOST_AT and not self._member_killed:
                self.local.processes[self._lost_member].kill()
                self._member_killed = True
                course.remarks.append(f"round {event['round']}: committee member {self._lost_member} killed")
            case "epoch-ready":
                course.epochs += 1
            case "round":
                self._on_round(event)

    def _on_round(self, event: dict[str, Any]) -> None:
        course, number = self.course, event["round"]
        course.rounds.append(event)
        if event["recovered"]:
            course.recoveries.append(number)
            course.remarks.append(f"round {number}: its masks recovered by the other members")
            self._again(self._lost_member)
        if self._under_attack == number:
            course.dropped.append(number)
            course.remarks.append(f"round {number}: its upload was incomplete; nothing of it is in the sum")
        if course.dropped and number == course.dropped[0] + DROPPED_FOR:
            course.remarks.append(f"round {number}: {self._victim} comes back")
            self._again(self._victim)

    def _again(self, name: str) -> None:
        """Start a killed agent again; what its first life sent is in the status it left."""
        if not self.local.processes[name].running:
            status = json.loads((self.local.directory / "state" / name / "status.json").read_bytes())
            self._carried[name] = (status["bytes_sent"], status["bytes_received"])
            self.local.start_agent(name)
