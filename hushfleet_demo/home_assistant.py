"""What Home Assistant does with an agent's messages: finds its entities by device discovery, and keeps their states.

Written after home-assistant.io/integrations/mqtt, "MQTT discovery": a device's message holds its components, which
inherit its topics. Of the templates those are understood that pick a value, `{{ value_json.key }}`, or choose between
two words by it, `{{ 'ON' if value_json.key else 'OFF' }}`.
"""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hushfleet.errors import HushfleetError
from hushfleet_demo.home_mqtt import WITHIN, HomeClient

PREFIX = "homeassistant"
UNKNOWN, UNAVAILABLE = "unknown", "unavailable"
_PICKS = re.compile(r"\{\{ value_json\.(\w+) \}\}")
_CHOOSES = re.compile(r"\{\{ '(\w+)' if value_json\.(\w+) else '(\w+)' \}\}")


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity as Home Assistant shows it.

    Attributes:
        device, name: as the discovery message calls them.
        state: what its template makes of the newest message; or `unknown`, or `unavailable`.
        unit: of measurement; empty if there is none.
    """

    device: str
    name: str
    state: str
    unit: str


def rendered(template: str, value: dict[str, Any]) -> str:
    """What a template makes of a JSON payload; HushfleetError if it is none of those that are understood here."""
    if picks := _PICKS.fullmatch(template):
        return str(value.get(picks[1], UNKNOWN))
    if chooses := _CHOOSES.fullmatch(template):
        return chooses[1] if value.get(chooses[2]) else chooses[3]
    raise HushfleetError(f"a template that the demo does not understand: {template}")


class PlayedHomeAssistant:
    """Connected to one home's broker while it is open.

    Args:
        port: of the broker.
    """

    def __init__(self, port: int) -> None:
        self._changed = threading.Condition()
        self._configs: dict[str, dict[str, Any]] = {}
        self._newest: dict[str, bytes] = {}
        self._topics: set[str] = set()
        self.discoveries = 0
        """Discovery messages so far."""
        self.states = 0
        """Messages on a topic that discovery named as one of states."""
        self._client = HomeClient(port, self._heard)
        self._client.listen([f"{PREFIX}/device/+/config"])

    def _heard(self, topic: str, payload: bytes) -> None:
        with self._changed:
            if topic.startswith(f"{PREFIX}/device/"):
                config = self._configs[topic] = json.loads(payload)
                self.discoveries += 1
                self._subscribe({config["availability_topic"], config["state_topic"]})
            else:
                self._newest[topic] = payload
                self.states += any(topic == config["state_topic"] for config in self._configs.values())
            self._changed.notify_all()

    def _subscribe(self, topics: set[str]) -> None:
        if wanted := topics - self._topics:
            self._client.listen(sorted(wanted))
            self._topics |= wanted

    def _entities(self) -> list[Entity]:
        return [
            self._entity(config["device"]["name"], {**config, **component})
            for config in self._configs.values()
            for component in config["components"].values()
        ]

    def _entity(self, device: str, component: dict[str, Any]) -> Entity:
        state = UNAVAILABLE
        if self._newest.get(component["availability_topic"]) == component.get("payload_available", "online").encode():
            newest = self._newest.get(component["state_topic"])
            state = UNKNOWN if newest is None else rendered(component["value_template"], json.loads(newest))
        return Entity(device, component["name"], state, component.get("unit_of_measurement", ""))

    def starts(self) -> None:
        """Say what Home Assistant says at its start."""
        self._client.tell(f"{PREFIX}/status", "online")

    def wait_for(self, what: str, happened: Callable[[list[Entity]], bool]) -> list[Entity]:
        """The entities once something has happened; HushfleetError with `what` if it does not."""
        with self._changed:
            if not self._changed.wait_for(lambda: happened(self._entities()), WITHIN):
                raise HushfleetError(f"Home Assistant waits in vain: {what}")
            return self._entities()

    def close(self) -> None:
        """Disconnect."""
        self._client.close()
