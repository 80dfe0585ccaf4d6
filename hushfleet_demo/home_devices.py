"""What the simulated households' Zigbee devices are and say, in the form in which Zigbee2MQTT describes and tells it.

Written after Zigbee2MQTT's documentation, "MQTT topics and messages", "Exposes" and the pages of the devices named.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hushfleet_demo.home_life import Household, Life

AIR, CLIMATE, MOTION, WINDOW = "air", "climate", "motion", "window"
_REPORT = 5
"""Minutes between two reports of the sensor of carbon dioxide."""
_CHECK_IN = 50
"""Minutes after which a battery's sensor speaks even if nothing has changed."""
_LEAST = 0.3
"""°C that the climate sensor waits for."""


@dataclass(frozen=True, slots=True)
class Device:
    """One Zigbee device as its network knows it.

    Attributes:
        name: the friendly name.
        address: IEEE address.
        vendor, model, description: of its definition.
        battery: whether it runs on one.
        exposes: of its definition.
    """

    name: str
    address: str
    vendor: str
    model: str
    description: str
    battery: bool
    exposes: tuple[dict[str, Any], ...]

    def entry(self) -> dict[str, Any]:
        """Its entry in `bridge/devices`."""
        return {
            "ieee_address": self.address,
            "type": "EndDevice" if self.battery else "Router",
            "network_address": int(self.address[-4:], 16),
            "supported": True,
            "disabled": False,
            "friendly_name": self.name,
            "definition": {
                "model": self.model,
                "vendor": self.vendor,
                "description": self.description,
                "exposes": list(self.exposes),
                "options": [],
            },
            "power_source": "Battery" if self.battery else "Mains (single phase)",
            "interviewing": False,
            "interview_completed": True,
        }


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a device says.

    Attributes:
        device: who.
        times: float64[n], seconds since the life began.
        values: by property, one for each time.
    """

    device: Device
    times: NDArray[np.float64] = field(repr=False)
    values: Mapping[str, NDArray[Any]] = field(repr=False)


def speech(home: Household, life: Life) -> dict[str, Spoken]:
    """What the household's devices say of its life, by what they are."""
    found: dict[str, Spoken] = {}

    def say(what: str, at: NDArray[np.int64], values: Mapping[str, NDArray[Any]]) -> None:
        name, seconds = home.called.format(what), 7.0 + 9 * len(found)
        device = Device(name, f"0x00158d00{_number(home.name)}{len(found) + 1:02x}a1", *_KINDS[what, home.apart])
        told = {one: column[at] for one, column in values.items()}
        # Some seconds into the minute: devices do not speak all at once.
        found[what] = Spoken(device, at.astype(np.float64) * 60 + seconds, told)

    climate = {"temperature": life.temperature.round(1), "humidity": life.humidity.round(1)}
    minutes = np.arange(len(life.co2))
    say(AIR, minutes[::_REPORT], {"co2": life.co2.round().clip(0, 2000).astype(int), **({} if home.apart else climate)})
    if home.apart:
        say(CLIMATE, _moments(np.floor(life.temperature / _LEAST)), climate)
    # Movement is told for another minute after it has ended.
    occupancy = life.moved | np.concatenate(([False], life.moved[:-1]))
    say(MOTION, _moments(occupancy), {"occupancy": occupancy, "illuminance": life.light.round().astype(int)})
    say(WINDOW, _moments(life.opened), {"contact": ~life.opened})
    return found


def _moments(values: NDArray[Any]) -> NDArray[np.int64]:
    """The minutes in which a sensor speaks: what it shows is another, or it has been silent for so long."""
    changed = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    return np.union1d(changed, np.arange(0, len(values), _CHECK_IN))


def _number(name: str) -> str:
    return f"{sum(name.encode()) % 0x10000:04x}"


def _numeric(name: str, unit: str = "", low: float | None = None, high: float | None = None) -> dict[str, Any]:
    label = name.replace("_", " ").capitalize()
    bounds = {"value_min": low, "value_max": high} if low is not None else {}
    found = {"type": "numeric", "name": name, "label": label, "property": name, "access": 1, **bounds}
    return {**found, "unit": unit} if unit else found


def _binary(name: str, on: bool, off: bool) -> dict[str, Any]:
    found = {"type": "binary", "name": name, "label": name.capitalize(), "property": name, "access": 1}
    return {**found, "value_on": on, "value_off": off}


_LINK, _BATTERY = _numeric("linkquality", "lqi", 0, 255), _numeric("battery", "%", 0, 100)
_WARMTH = (_numeric("temperature", "°C"), _numeric("humidity", "%"))
_CO2 = _numeric("co2", "ppm")
_OCCUPANCY, _LIGHT = _binary("occupancy", True, False), _numeric("illuminance", "lx")
_CONTACT = _binary("contact", False, True)
_MOTION = ("Aqara", "RTCGQ11LM", "Motion sensor", True, (_BATTERY, _OCCUPANCY, _LIGHT, _LINK))
_WINDOW = ("Aqara", "MCCGQ11LM", "Door and window sensor", True, (_BATTERY, _CONTACT, _LINK))
_KINDS: dict[tuple[str, bool], tuple[str, str, str, bool, tuple[dict[str, Any], ...]]] = {
    (AIR, False): ("Tuya", "TS0601_air_quality_sensor", "Air quality sensor", False, (*_WARMTH, _CO2, _LINK)),
    (AIR, True): ("LifeControl", "MCLH-08", "Air quality sensor", False, (_CO2, _LINK)),
    (CLIMATE, True): ("Aqara", "WSDCGQ11LM", "Temperature and humidity sensor", True, (_BATTERY, *_WARMTH, _LINK)),
    (MOTION, False): _MOTION,
    (MOTION, True): _MOTION,
    (WINDOW, False): _WINDOW,
    (WINDOW, True): _WINDOW,
}
