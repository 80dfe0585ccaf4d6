"""The fleet of simulated homes: each with its own broker, Zigbee2MQTT and Home Assistant around a real agent."""

import re
import time
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hushfleet_demo.federation import Course, Federation, Part, Plan
from hushfleet_demo.home_assistant import UNAVAILABLE, UNKNOWN, Entity, PlayedHomeAssistant
from hushfleet_demo.home_devices import Spoken
from hushfleet_demo.home_rows import CHANNELS, SAMPLES
from hushfleet_demo.home_zigbee import BASE, SimulatedZigbee2Mqtt
from hushfleet_demo.local_fleet import HOST, free_port, run

LOOK = 4
"""Seconds that `agent discover` listens."""
_DAY = 86_400
_MODEL, _PERSONAL, _BOUNDS = "Model version", "Personalised", ("Low", "High")

_FEED = """
[[feed]]
kind = "mqtt"
broker = {{ host = "{host}", port = {port} }}
zigbee2mqtt = "{base}"
"""

_SENSORS = """
[decisions]
broker = {{ host = "{host}", port = {port} }}

[sensors]
holdout = {holdout}

{channels}
"""

_LOOKING = """\
bundle = "../fleet/devices/{name}"
vault = "../state/{name}/vault.db"
{feed}"""


@dataclass(frozen=True, slots=True)
class Home:
    """One home as it stands before the fleet.

    Attributes:
        spoken: what its Zigbee devices say.
        begin: when that begins, in seconds since 1970.
        joined: from when on it has them.
    """

    spoken: Mapping[str, Spoken] = field(repr=False)
    begin: float
    joined: float

    def addresses(self) -> list[str]:
        """What the owner keeps of what `agent discover` shows: the quantity that each channel of the schema is."""
        source = {name: one.device.name for one in self.spoken.values() for name in one.values}
        return [f"{BASE}/{source[channel.name]}#/{channel.name}" for channel in CHANNELS]


class HomeFederation(Federation):
    """A demo's fleet in which the devices listen to their homes, and tell these what the model says.

    Args:
        homes: by the name of the device.
        new: the device whose Home Assistant is looked at when all rounds are over.
    """

    def __init__(
        self,
        directory: Path,
        plan: Plan,
        rounds: int,
        changed: Callable[[Course], None],
        homes: Mapping[str, Home],
        new: str,
    ) -> None:
        super().__init__(directory, plan, rounds, changed)
        self._homes, self._new = homes, new
        self._ports: dict[str, int] = {}
        self._zigbee: dict[str, SimulatedZigbee2Mqtt] = {}
        self._assistants: dict[str, PlayedHomeAssistant] = {}
        self._found: dict[str, str] = {}
        self._step: Callable[[str], None] = lambda _: None

    def prepare(self, step: Callable[[str], None]) -> None:
        """Build the homes, let `hushfleet agent discover` look at them, and make the fleet of what it proposes."""
        self._step = step
        step("all homes are simulated, nothing in them was measured; brokers, agents and coordinator are real")
        for name, home in self._homes.items():
            self._ports[name] = port = free_port()
            self.local.start_owners_broker(f"{name}-broker", port)
            self._zigbee[name] = SimulatedZigbee2Mqtt(port, home.spoken, home.begin)
        step(f"{len(self._homes)} homes, each with its own Mosquitto and a simulated Zigbee2MQTT that tells a day")
        with ThreadPoolExecutor(len(self._homes)) as looks:
            said = {name: looks.submit(self._look, name) for name in self._homes}
            for name, home in self._homes.items():
                self._zigbee[name].wait_for_listener()
                self._zigbee[name].speak(home.joined, home.joined + _DAY)
            self._found = {name: one.result() for name, one in said.items()}
        step(f"hushfleet agent discover at {self._new}, of which the owner pastes five channels:")
        for line in _excerpt(self._found[self._new], self._homes[self._new].addresses()):
            step(f"  {line}")
        super().prepare(step)

    def _look(self, name: str) -> str:
        path = self.local.configure(f"{name}-discover", _LOOKING.format(name=name, feed=self._feed(name)))
        return run("agent", "discover", path, "--seconds", str(LOOK))

    def _feed(self, name: str) -> str:
        return _FEED.format(host=HOST, port=self._ports[name], base=BASE)

    def rows_of(self, part: Part) -> str:
        """The home's broker, what was discovered there, and where the model's scores go."""
        assert part.training is not None
        assert part.aside is not None
        # The agent makes windows, too, that share samples with those kept aside, and uses them for neither.
        windows = len(part.training) + len(part.aside) + SAMPLES - 1
        return self._feed(part.name) + _SENSORS.format(
            host=HOST,
            port=self._ports[part.name],
            holdout=(len(part.aside) + 0.5) / windows,
            channels="\n\n".join(_proposed(self._found[part.name], self._homes[part.name].addresses())),
        )

    def run(self) -> None:
        """Run every round; as `Federation.run`."""
        try:
            super().run()
        finally:
            for assistant in self._assistants.values():
                assistant.close()
            for zigbee in self._zigbee.values():
                zigbee.close()

    def start(self) -> None:
        """Start the agents, let each home tell its past, and then the coordinator."""
        for part in self.plan.parts:
            self._assistants[part.name] = PlayedHomeAssistant(self._ports[part.name])
            self.local.start_agent(part.name)
        count = 0
        for name, home in self._homes.items():
            zigbee, now = self._zigbee[name], time.time()
            zigbee.wait_for_listener()
            count += zigbee.speak(home.joined, now)
            zigbee.go_on(now)
        days = (time.time() - min(home.joined for home in self._homes.values())) / _DAY
        self._step(
            f"nobody waits for the past: each Zigbee2MQTT tells its home's days at once, {days:.0f} at most, in all "
            f"{count:,} messages, each with its time in last_seen; then it goes on as time does"
        )
        self.local.start_coordinator()

    def on_end(self) -> None:
        """What Home Assistant makes of it, above all in the new home, whose agent starts again and then dies."""
        shown = []
        for name, assistant in self._assistants.items():
            found = assistant.wait_for(f"{name} tells no score", _is_known)
            shown.append(f"{name} {_shown(found)}")
        self._remark(f"Home Assistant found each home's agent by its discovery message: {'; '.join(shown)}")
        if own := [name for name in self._homes if self._is_personalised(name)]:
            self._remark(
                f"scored by a version of its own, trained on from the fleet's and better there: {', '.join(own)}"
            )
        self._look_at(self._assistants[self._new], f"Home Assistant at {self._new}")

    def _is_personalised(self, name: str) -> bool:
        personal = self.status(name)["personal"]
        return personal is not None and personal["used"]

    def _look_at(self, assistant: PlayedHomeAssistant, where: str) -> None:
        name, version = self._new, self.course.rounds[-1]["version"]
        assistant.wait_for("bounds around its forecasts", lambda found: {*_BOUNDS} <= dict(_states(found)).keys())
        before = assistant.discoveries
        assistant.starts()
        assistant.wait_for("it says that it starts", lambda _: assistant.discoveries > before)
        self._remark(f"{where} starts again and says so: the agent announces itself again")
        agent = self.local.processes[name]
        agent.stop()
        agent.wait()
        assistant.wait_for("the agent has ended", _is_unavailable)
        told_before = assistant.states
        self.again(name)
        found = assistant.wait_for(
            f"a score by version {version}",
            lambda entities: assistant.states > told_before and (_MODEL, str(version)) in _states(entities),
        )
        self._remark(
            f"{where}: the agent starts anew, meanwhile unavailable, then {_shown(found)} by model version {version}"
        )
        self.local.processes[name].kill()
        assistant.wait_for("the agent is dead", _is_unavailable)
        self._remark(f"{where}: the agent is killed, and all its entities are {UNAVAILABLE}")

    def _remark(self, text: str) -> None:
        self.course.remarks.append(text)
        self._changed(self.course)


def _is_known(entities: list[Entity]) -> bool:
    return bool(entities) and entities[0].state not in (UNKNOWN, UNAVAILABLE)


def _is_unavailable(entities: list[Entity]) -> bool:
    return {state for _, state in _states(entities)} == {UNAVAILABLE}


def _states(entities: list[Entity]) -> set[tuple[str, str]]:
    return {(one.name, one.state) for one in entities}


def _shown(entities: list[Entity]) -> str:
    """The forecast as Home Assistant shows it to people."""
    told, states = entities[0], dict(_states(entities))
    low, high = (states.get(bound, UNKNOWN) for bound in _BOUNDS)
    bounds = "" if UNKNOWN in (low, high) else f" ({float(low):.0f} to {float(high):.0f})"
    own = ", personalised" if states[_PERSONAL] == "ON" else ""
    return f"{told.name} {float(told.state):.0f} {told.unit}{bounds}{own}"


def _proposed(said: str, addresses: list[str]) -> list[str]:
    """Those `[[sensors.channel]]` tables of a proposal that name these addresses, in their order."""
    tables = re.findall(r"^\[\[sensors\.channel\]\]\n(?:.+\n?)+", said, re.MULTILINE)
    of = {tomllib.loads(table)["sensors"]["channel"][0]["address"]: table.rstrip() for table in tables}
    return [of[address] for address in addresses]


def _excerpt(said: str, addresses: list[str]) -> list[str]:
    """Of a table of quantities the heading and the lines that name these addresses; and the last one's proposal."""
    table = [line for line in said.splitlines() if line.startswith(("address  ", *addresses))]
    return [*table, *_proposed(said, addresses)[-1].splitlines()]
