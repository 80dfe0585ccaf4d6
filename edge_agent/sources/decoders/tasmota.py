"""Tasmota's telemetry, `tele/<topic>/SENSOR`: every number that its sensors report.

Written after Tasmota's documentation, "MQTT" and "Commands" (TelePeriod). The payload's `Time` names no zone and is in
the device's own, so that the time of arrival counts; telemetry is neither kept nor delayed.
"""

from edge_agent.sources.decoders.decoder import Decoded, Message
from edge_agent.sources.payloads import at, leaves, matches, parse_json, text_of, values
from edge_agent.sources.readings import Quantity, Reading
from hushfleet.errors import MalformedError

_UNITS = {
    "Humidity": "%",
    "Power": "W",
    "ApparentPower": "VA",
    "ReactivePower": "var",
    "Voltage": "V",
    "Current": "A",
    "Frequency": "Hz",
    "Total": "kWh",
    "Today": "kWh",
    "Yesterday": "kWh",
    "Illuminance": "lx",
    "CarbonDioxide": "ppm",
    "Distance": "cm",
}
_DEGREES = ("Temperature", "DewPoint")
_PRESSURES = ("Pressure", "SeaPressure")


class Tasmota:
    """Decodes the telemetry of Tasmota devices.

    Args:
        topic: the filter of their SENSOR topics; `tele/+/SENSOR` unless their FullTopic is another.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic

    @property
    def filters(self) -> frozenset[str]:
        """See `Decoder`."""
        return frozenset({self._topic})

    def covers(self, topic: str) -> bool:
        """See `Decoder`."""
        return matches(self._topic, topic)

    def decode(self, message: Message) -> Decoded:
        """See `Decoder`."""
        document = parse_json(message.payload)
        if not isinstance(document, dict):
            raise MalformedError("telemetry that is no JSON object")
        found, refused = values(leaves(document))
        measured = [(pointer, value) for pointer, value in found if isinstance(value, float)]
        degrees, pressure = text_of(at(document, "/TempUnit")), text_of(at(document, "/PressureUnit"))
        readings = [Reading(f"{message.topic}#{pointer}", message.time, value) for pointer, value in measured]
        quantities = [
            Quantity(f"{message.topic}#{pointer}", _unit(pointer, degrees, pressure), about=_about(pointer))
            for pointer, _ in measured
        ]
        return Decoded(() if message.retained else readings, quantities, refused)


def _unit(pointer: str, degrees: str | None, pressure: str | None) -> str | None:
    name = pointer.split("/")[-1] if not pointer[-1:].isdigit() else pointer.split("/")[-2]
    if name in _DEGREES:
        return f"°{degrees}" if degrees else None
    return pressure if name in _PRESSURES else _UNITS.get(name)


def _about(pointer: str) -> str:
    """The sensor's name in the payload."""
    return pointer.split("/")[1]
