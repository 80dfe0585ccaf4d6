"""A client on a simulated home's own broker: what a Zigbee2MQTT or a Home Assistant has of MQTT."""

import threading
from collections.abc import Callable, Iterable

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hushfleet.errors import HushfleetError
from hushfleet_demo.local_fleet import HOST

WITHIN = 40.0
"""Seconds for what takes a moment on a machine that is not busy."""
_NOBODY_LISTENS = 0x10


class HomeClient:
    """Connected while it is open.

    Args:
        port: of the broker on this machine.
        heard: called with topic and payload of what arrives, on another thread.
        will: topic and payload that the broker is to retain when this program dies.
    """

    def __init__(
        self, port: int, heard: Callable[[str, bytes], None] | None = None, will: tuple[str, str] | None = None
    ) -> None:
        self._answers: dict[int, ReasonCode] = {}
        self._answered = threading.Condition()
        self._client = client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        if heard is not None:
            client.on_message = lambda _, __, message: heard(message.topic, bytes(message.payload))
        if will is not None:
            client.will_set(*will, qos=1, retain=True)
        client.on_publish = self._on_publish
        client.connect(HOST, port)
        client.loop_start()

    def _on_publish(self, _: mqtt.Client, __: object, number: int, reason: ReasonCode, ___: Properties | None) -> None:
        with self._answered:
            self._answers[number] = reason
            self._answered.notify_all()

    def listen(self, topics: Iterable[str]) -> None:
        """Subscribe to these."""
        self._client.subscribe([(topic, 0) for topic in topics])

    def say(self, topic: str, payload: str) -> None:
        """Publish, and wait for nothing."""
        self._client.publish(topic, payload)

    def tell(self, topic: str, payload: str, *, retain: bool = False) -> bool:
        """Publish, and wait until the broker has it and all that was said before; whether somebody listens."""
        with self._answered:
            self._answers.clear()
            number = self._client.publish(topic, payload, qos=1, retain=retain).mid
            if not self._answered.wait_for(lambda: number in self._answers, WITHIN):
                raise HushfleetError("the broker of a simulated home does not answer")
            return self._answers[number].value != _NOBODY_LISTENS

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()
