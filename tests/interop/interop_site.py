"""A fleet of the project's own processes for the second writing to meet: owners' desk, broker, coordinator, agents."""

from pathlib import Path
from types import TracebackType
from typing import Self

from second_link import Journal

from hushfleet_demo.local_fleet import HOST, LocalFleet, run

PROFILE = """\
name = "gateway"
description = "A gateway on this machine, with chunks of a size that the test wants"
memory = 512

[link]
class = "ethernet"
chunk = {chunk}
window = 2
keepalive = 60
"""
FLEET = """\
[fleet]
name = "interop"

[model]
name = "tiny"
layers = [
    {{ kind = "conv1d", length = 5, channels = 2, filters = 4, kernel = 3, act = "relu" }},
    {{ kind = "layer_norm", act = "none" }},
    {{ in = 12, out = {hidden}, act = "relu" }},
    {{ in = {hidden}, out = 3, act = "none" }},
]

[policy]
assumed_colluders = 0
smallest_survivor_set = 5
largest_survivor_set = 16
interval = 0
committee_trusted = true
"""
COORDINATOR = """\
bundle = "../fleet/devices/coordinator"
documents = "../fleet/documents"
ledger = "../state/coordinator/ledger.db"
log = "json"

[rounds]
collect = 40
answer = 3
recover = 20
enough = 1.0
patience = 0.4
steps = 3
batch = 8
rate = 0.1
momentum = 0.0
evidence = true
"""
SETUP = """\

[setup]
cards = 15
keys = 25
ready = 35
first = 1
"""
AGENT = """\
bundle = "../fleet/devices/{name}"
vault = "../state/{name}/vault.db"
profile = "gateway.toml"
head = "softmax"
log = "json"

[source]
path = "../rows/{name}.csv"
label = "label"
holdout = 0.25
"""
INPUTS, CLASSES, ROWS = 10, 3, 48


def rows(number: int) -> str:
    """A few rows that can be learnt from: the class is the column that stands out."""
    lines = [",".join([*(f"x{column}" for column in range(INPUTS)), "label"])]
    for row in range(ROWS):
        label = (row * 7 + number) % CLASSES
        values = [((row * 31 + column * 17 + number * 5) % 13) / 13 for column in range(INPUTS)]
        values[label] += 2.0
        lines.append(",".join([*(f"{value:.4f}" for value in values), str(label)]))
    return "\n".join(lines) + "\n"


class Site:
    """A signed fleet with a running broker, below one directory.

    Args:
        members, both, participants: names of the devices by role, which get the indices 1, 2, … in this order.
        policy: lines added to the policy.
        hidden: units of the model's hidden dense layer.
        chunk: bytes a slice of what the project's devices cut.
    """

    def __init__(
        self,
        directory: Path,
        policy: str,
        members: tuple[str, ...] = (),
        both: tuple[str, ...] = (),
        participants: tuple[str, ...] = (),
        hidden: int = 40,
        chunk: int = 256,
    ) -> None:
        self.journal = Journal()
        self.local = LocalFleet(directory, self.journal.say)
        self.fleet = self.local.fleet
        settings = self.local.configure("fleet", FLEET.format(hidden=hidden) + policy)
        profile = self.local.configure("gateway", PROFILE.format(chunk=chunk))
        run("fleet", "init", self.fleet, "--host", HOST, "--port", str(self.local.port), "--settings", settings)
        for role, names in (("member", members), ("both", both), ("participant", participants)):
            if names:
                run("fleet", "add", self.fleet, *names, "--role", role, "--profile", profile)
        run("fleet", "sign", self.fleet)
        (directory / "rows").mkdir()
        self._profile = profile
        self.index: dict[str, int] = {}
        for name in (*members, *both, *participants):
            self._give_rows(name)

    def _give_rows(self, name: str) -> None:
        number = self.index[name] = len(self.index) + 1
        (self.local.directory / "rows" / f"{name}.csv").write_text(rows(number))
        self.local.configure(name, AGENT.format(name=name))

    def add_participant(self, name: str) -> None:
        """The owners certify one more, and sign."""
        run("fleet", "add", self.fleet, name, "--role", "participant", "--profile", self._profile)
        run("fleet", "sign", self.fleet)
        self._give_rows(name)

    def __enter__(self) -> Self:
        self.local.start_broker()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.local.stop()

    def bundle(self, name: str) -> Path:
        return self.fleet / "devices" / name

    def start_coordinator(self, rounds: int, server_optimizer: str = "profile") -> None:
        """Start the project's coordinator for so many rounds."""
        lines = f'[rounds]\ntotal = {rounds}\nserver_optimizer = "{server_optimizer}"'
        text = COORDINATOR.replace("[rounds]", lines) + SETUP
        self.local.configure("coordinator", text)
        self.local.start_coordinator()

    def start_agents(self, *names: str) -> None:
        for name in names:
            self.local.start_agent(name)
