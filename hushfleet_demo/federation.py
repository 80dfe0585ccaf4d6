"""A demo's federation: agents with their rows, one coordinator, a real broker, and what they tell of it."""

import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hushfleet.errors import HushfleetError
from hushfleet_demo.configurations import AGENT, COORDINATOR, FLEET, PROFILE, ROWS, RULES, lines
from hushfleet_demo.local_fleet import HOST, LocalFleet, run
from hushfleet_demo.task import Rows, Task, together

NO_NEWS = 90.0
"""Seconds without any event after which something has gone wrong."""


@dataclass(frozen=True, slots=True)
class Part:
    """One device of the federation.

    Attributes:
        name: of the device.
        role: as `fleet add` takes it: participant, member or both.
        training: what it learns from; None for one that only follows the model.
        aside: what it scores the model on and never learns from; None for one that does not.
        judge: whether its score is the demo's.
        measured: whether its traffic is the demo's.
    """

    name: str
    role: str
    training: Rows | None
    aside: Rows | None = None
    judge: bool = False
    measured: bool = False

    def rows(self) -> Rows:
        """All its rows, those kept aside last."""
        return together([rows for rows in (self.training, self.aside) if rows is not None])

    def holdout(self) -> float:
        """The part of all its rows that is kept aside; half a row more, so that rounding down gives just these."""
        if self.aside is None:
            return 0.0
        return min(1.0, (len(self.aside) + 0.5) / len(self.rows()))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a demo federates.

    Attributes:
        name, model: of the fleet and of the model.
        task: what is learned.
        parts: the devices, those of one role side by side.
        policy: what it has other than `RULES`.
        schema: the `[schema]` of what devices make of their sensors' readings, or of what their files hold; or empty.
        described: whether the fleet is described before the first round of training and after the last.
    """

    name: str
    model: str
    task: Task
    parts: tuple[Part, ...]
    policy: dict[str, int] = field(default_factory=dict)
    schema: str = ""
    described: bool = False


@dataclass(slots=True)
class Course:
    """What happened so far, as the processes told it.

    Attributes:
        rounds: the coordinator's line for each round of training that ended.
        scores: for each judge, by version: accuracy (or mean absolute error) and over how many rows.
        traffic: by round, bytes sent and received of each measured device, at its socket.
        sent, received: bytes of each agent over all its lives.
        dropped: rounds in which a participant was killed while its upload was incomplete.
        recoveries: rounds in which a member's mask sum was recovered.
        epochs: committees that got ready.
        remarks: what befell the fleet, in words.
        described: what the sums tell of the finished model, as `hushfleet coordinator statistics` has it.
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
    described: dict[str, Any] = field(default_factory=dict)

    def score(self, version: int) -> float | None:
        """The score of a model version over all rows of the judges; None until each has scored it."""
        scored = [of_judge[version] for of_judge in self.scores.values() if version in of_judge]
        if not scored or len(scored) < len(self.scores):
            return None
        return sum(value * rows for value, rows in scored) / sum(rows for _, rows in scored)

    def curve(self) -> list[tuple[int, float]]:
        """(version, score) for every version that all judges have scored."""
        scored = set.intersection(*(set(of_judge) for of_judge in self.scores.values()))
        found = ((version, self.score(version)) for version in sorted(scored))
        return [(version, value) for version, value in found if value is not None]


class Federation:
    """The fleet of a demo. A demo in which something befalls it overrides what begins with `on_`.

    Args:
        directory: everything it writes is below it.
        plan: what it federates.
        rounds: how many rounds to run.
        changed: called after every event worth showing, on any thread.
    """

    def __init__(self, directory: Path, plan: Plan, rounds: int, changed: Callable[[Course], None]) -> None:
        self.plan = plan
        self._rounds, self._changed = rounds, changed
        self.course = Course(scores={part.name: {} for part in plan.parts if part.judge})
        self.measured = [part.name for part in plan.parts if part.measured]
        self.index = {part.name: index for index, part in enumerate(plan.parts, start=1)}
        self.local = LocalFleet(directory, self._told)
        self._lock = threading.Lock()
        self._last_news = time.monotonic()
        self._carried: dict[str, tuple[int, int]] = {}

    # Making it.

    def prepare(self, step: Callable[[str], None]) -> None:
        """Make the fleet's keys and documents, and everyone's rows and configuration."""
        local, fleet, plan = self.local, self.local.fleet, self.plan
        profile = local.configure("demo-gateway", PROFILE)
        step("the owners make the fleet's keys")
        run("fleet", "init", fleet, "--host", HOST, "--port", str(local.port), "--settings", self._rules())
        for role, group in itertools.groupby(plan.parts, lambda part: part.role):
            names = [part.name for part in group]
            step(f"the owners certify {len(names)} device{'s' if len(names) > 1 else ''} as {role}")
            run("fleet", "add", fleet, *names, "--role", role, "--profile", profile)
        step("the owners sign roster, policy, model and manifest")
        for line in run("fleet", "sign", fleet).splitlines():
            if line.startswith("warning: "):
                step(line)
        self._configure()

    def _rules(self) -> Path:
        task = self.plan.task
        limits = {"clip": task.clip, "largest_survivor_set": task.largest_survivor_set}
        policy = RULES | self.plan.policy | limits
        layers = (
            f'    {{ in = {layer.inputs}, out = {layer.outputs}, act = "{layer.act}" }},' for layer in task.layers
        )
        return self.local.configure(
            "fleet",
            FLEET.format(
                name=self.plan.name,
                model=self.plan.model,
                layers="\n".join(layers),
                policy=lines(policy),
                schema=self.plan.schema,
            ),
        )

    def _configure(self) -> None:
        local, task = self.local, self.plan.task
        for part in self.plan.parts:
            agent = AGENT.format(name=part.name, head=task.head, port=self.port_of(part.name), rows=self.rows_of(part))
            local.configure(part.name, agent)
        local.configure(
            "coordinator",
            COORDINATOR.format(
                rounds=self._rounds,
                steps=task.steps,
                batch=task.batch,
                rate=task.rate,
                momentum=task.momentum,
                codec=task.codec,
                statistics_every=self._rounds if self.plan.described else 0,
            ),
        )

    def rows_of(self, part: Part) -> str:
        """The tables of a device's configuration that say where its rows come from: here a file, which is written."""
        rows = self.local.directory / "rows"
        rows.mkdir(exist_ok=True)
        self.plan.task.write_csv(part.rows(), rows / f"{part.name}.csv")
        return ROWS.format(name=part.name, holdout=part.holdout())

    def port_of(self, name: str) -> int:
        """Where a device finds the broker."""
        return self.local.port

    def form(self) -> tuple[int, int]:
        """How many coordinates an upload has, and bits of each."""
        return self.plan.task.form(sum(part.role != "member" for part in self.plan.parts))

    def run(self) -> None:
        """Run every round; ends when the coordinator has, and every judge has scored the last model.

        Raises:
            HushfleetError: a process ended with an error, or nothing happens any more.
        """
        local = self.local
        local.start_broker()
        self.start()
        coordinator = local.processes["coordinator"]
        while coordinator.running:
            self._check()
            time.sleep(0.1)
        if coordinator.wait():
            raise HushfleetError(f"the coordinator failed: {' '.join(coordinator.last_lines)}")
        if len(self.course.rounds) < self._rounds:
            raise HushfleetError(f"the coordinator was ended after {len(self.course.rounds)} of {self._rounds} rounds")
        if self.plan.described:
            configuration = local.directory / "configuration" / "coordinator.toml"
            self.course.described = json.loads(run("coordinator", "statistics", configuration, "--json"))[-1]["model"]
        last = self.course.rounds[-1]["version"]
        while not all(last in of_judge for of_judge in self.course.scores.values()):
            self._check()
            time.sleep(0.05)

        self.on_end()

    def start(self) -> None:
        """Start the coordinator and the agents."""
        self.local.start_coordinator()
        for part in self.plan.parts:
            self.local.start_agent(part.name)

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
                    self.on_coordinator(str(what), event)
                case _, "uploading":
                    self.on_uploading(name, event["round"])
                case _, "score" if name in self.course.scores:
                    unit = self.plan.task.unit
                    score = event["accuracy"] if "accuracy" in event else unit * event["error"]
                    self.course.scores[name][event["version"]] = (score, event["rows"])
                case _, "round" if name in self.measured:
                    traffic = self.course.traffic.setdefault(event["round"], [])
                    traffic.append((event["bytes_sent"], event["bytes_received"]))
                case _, "stopped":
                    sent, received = self._carried.get(name, (0, 0))
                    self.course.sent[name] = sent + event["bytes_sent"]
                    self.course.received[name] = received + event["bytes_received"]
            self._changed(self.course)

    def on_coordinator(self, what: str, event: dict[str, Any]) -> None:
        """Take note of a line of the coordinator's journal."""
        match what:
            case "epoch-ready":
                self.course.epochs += 1
            case "round" if "statistics" not in event:
                self.course.rounds.append(event)
                if event["recovered"]:
                    self.course.recoveries.append(event["round"])

    def on_uploading(self, name: str, number: int) -> None:
        """A device's upload of this round is about to leave."""

    def on_end(self) -> None:
        """The last model is scored; coordinator aside, everything still runs."""

    def status(self, name: str) -> dict[str, Any]:
        """What an agent last wrote of itself."""
        found: dict[str, Any] = json.loads((self.local.directory / "state" / name / "status.json").read_bytes())
        return found

    def again(self, name: str) -> None:
        """Start a killed agent again; what its first life sent is in the status it left."""
        if not self.local.processes[name].running:
            status = self.status(name)
            self._carried[name] = (status["bytes_sent"], status["bytes_received"])
            self.local.start_agent(name)
