"""A simulated Zigbee2MQTT: devices, their states and their availability on MQTT, as the published program tells them.

Written after Zigbee2MQTT's documentation, "MQTT topics and messages": `bridge/state`, `bridge/info`, `bridge/devices`,
`bridge/event` and `bridge/logging`, a JSON state a device with `last_seen` in ISO 8601, and availability.
"""

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from hushfleet.errors import HushfleetError
from hushfleet_demo.home_devices import Spoken
from hushfleet_demo.home_mqtt import WITHIN, HomeClient

BASE = "zigbee2mqtt"
_ONLINE, _OFFLINE = '{"state":"online"}', '{"state":"offline"}'
_PAUSE = 0.2
_COORDINATOR: dict[str, Any] = {
    "ieee_address": "0x00124b00120144ae",
    "type": "Coordinator",
    "network_address": 0,
    "supported": True,
    "disabled": False,
    "friendly_name": "Coordinator",
    "definition": None,
    "interviewing": False,
    "interview_completed": True,
}
_INFO = {
    "version": "2.12.1",
    "commit": "simulated",
    "coordinator": {"ieee_address": _COORDINATOR["ieee_address"], "type": "EmberZNet", "meta": {}},
    "network": {"channel": 15, "pan_id": 5674, "extended_pan_id": "0x00aa11bb22cc33dd"},
    "log_level": "info",
    "permit_join": False,
    "restart_required": False,
    "config": {"advanced": {"last_seen": "ISO_8601", "output": "json"}, "mqtt": {"base_topic": BASE}},
}


def announced(spoken: Mapping[str, Spoken]) -> Iterator[tuple[str, str, bool]]:
    """Topic, payload and whether it is retained, of what it says at its start."""
    devices: list[dict[str, Any]] = [_COORDINATOR, *(one.device.entry() for one in spoken.values())]
    yield f"{BASE}/bridge/state", _ONLINE, True
    yield f"{BASE}/bridge/info", json.dumps(_INFO), True
    yield f"{BASE}/bridge/devices", json.dumps(devices), True
    for one in spoken.values():
        joined = {"friendly_name": one.device.name, "ieee_address": one.device.address}
        yield f"{BASE}/bridge/event", json.dumps({"type": "device_joined", "data": joined}), False
        yield f"{BASE}/{one.device.name}/availability", _ONLINE, True


def states(spoken: Mapping[str, Spoken], begin: float, since: float, until: float) -> Iterator[tuple[float, str, str]]:
    """When, topic and payload of what the devices say from one moment until before another, in order of time.

    Whoever was silent at the first moment says what it said last, as a device does that has just joined.

    Args:
        spoken: what the devices say.
        begin: when their life began; like `since` and `until` in seconds since 1970.
    """
    found = []
    for one in spoken.values():
        first, last = np.searchsorted(one.times + begin, (since, until)).tolist()
        if 0 < first < len(one.times):
            found.append((since, one, first - 1))
        found += [(begin + float(one.times[index]), one, index) for index in range(first, last)]
    for moment, one, index in sorted(found, key=lambda message: message[0]):
        yield moment, f"{BASE}/{one.device.name}", _state(moment, one, index)


def _state(moment: float, one: Spoken, index: int) -> str:
    state: dict[str, Any] = {name: values[index].item() for name, values in one.values.items()}
    if one.device.battery:
        state["battery"] = 97
    stamp = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({**state, "linkquality": 80 + index % 60, "last_seen": stamp})


class SimulatedZigbee2Mqtt:
    """One home's, on its broker while it is open. It has said what it says at its start; the rest it is asked for.

    Args:
        port: of the home's broker.
        spoken: what the devices say.
        begin: when their life began, in seconds since 1970.
    """

    def __init__(self, port: int, spoken: Mapping[str, Spoken], begin: float) -> None:
        self._spoken, self._begin = spoken, begin
        self._client = HomeClient(port, will=(f"{BASE}/bridge/state", _OFFLINE))
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        for topic, payload, retain in announced(spoken):
            self._client.tell(topic, payload, retain=retain)

    def wait_for_listener(self) -> None:
        """Return when somebody listens; HushfleetError if nobody comes."""
        deadline = time.monotonic() + WITHIN
        hello = json.dumps({"level": "info", "message": "z2m: connected to the MQTT server"})
        while not self._client.tell(f"{BASE}/bridge/logging", hello):
            if time.monotonic() > deadline:
                raise HushfleetError("no agent listens to a simulated home's Zigbee2MQTT")
            time.sleep(_PAUSE)

    def speak(self, since: float, until: float) -> int:
        """Tell at once what the devices say from one moment until before another; how many messages that was."""
        count = 0
        for _, topic, payload in states(self._spoken, self._begin, since, until):
            self._client.say(topic, payload)
            count += 1
        # What is acknowledged stands behind what is not: the broker has it all.
        self._client.tell(f"{BASE}/bridge/state", _ONLINE, retain=True)
        return count

    def go_on(self, since: float) -> None:
        """From now on tell everything as it happens, beginning with what has happened since a moment."""
        self._thread = threading.Thread(target=self._go_on, args=(since,), name="zigbee2mqtt", daemon=True)
        self._thread.start()

    def _go_on(self, since: float) -> None:
        for moment, topic, payload in states(self._spoken, self._begin, since, math.inf):
            if self._ended.wait(max(0.0, moment - time.time())):
                return
            self._client.say(topic, payload)

    def close(self) -> None:
        """Say nothing more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._client.close()
