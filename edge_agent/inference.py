"""What the live model says of the newest window, and how Home Assistant learns of it. No I/O, no clock.

A score is one JSON object on `{topic}/{device}/state`; availability is a word on `{topic}/{device}/availability`. Both
are announced by Home Assistant's device discovery, one retained message on
`{discovery}/device/hushfleet_{fleet}_{index}/config` (home-assistant.io/integrations/mqtt, "device discovery").
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from hushfleet import __version__
from hushfleet.wire.layers import Layer
from hushfleet.wire.schema import ANOMALY, CLASSES, FORECAST, Schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hushfleet.judgement import Judgement

ONLINE, OFFLINE = "online", "offline"
SILENT, SILENT_WINDOWS = 60, 3
"""Seconds, and windows, without a score after which Home Assistant is to show none; the longer of the two."""
WORSE = 2.0
"""A new version whose loss on the device's own rows is so many times the one before is not put to work."""


@dataclass(frozen=True, slots=True)
class Model:
    """One version of the live model, as it is put to work.

    Attributes:
        version: its number.
        flat: float32[d]; not to be changed.
        layers: the model spec's.
        personalised: whether this device has trained on from that version, for itself.
    """

    version: int
    flat: "NDArray[np.float32]" = field(repr=False)
    layers: Sequence[Layer]
    personalised: bool = False


def is_better_left(loss: float, before: float) -> bool:
    """Whether a version with this mean loss on the device's own rows is better left for the one before it.

    The fleet's model is other devices' work too: what it says here is judged here.
    """
    return not loss <= max(WORSE * before, before + 0.1)


def score(schema: Schema, model: Model, window: "NDArray[np.float32]") -> dict[str, Any] | None:
    """What the model says of one window, float32[inputs]; None if that is no number.

    `value` is the class's name, the number or the forecast in the channel's unit, or how unlike the window is what the
    model makes of it (mean squared difference, on the scale of the channels' ranges). Classes have a `confidence`.
    """
    import numpy as np

    from hushfleet.learning.layers import forward

    with np.errstate(over="ignore", invalid="ignore"):
        out = forward(model.flat, model.layers, window[None, :])[0].astype(np.float64)
        if not np.isfinite(out).all():
            return None
        if schema.task == CLASSES:
            shares = np.exp(out - out.max())
            shares /= shares.sum()
            best = int(out.argmax())
            said: dict[str, Any] = {"value": schema.classes[best], "confidence": round(float(shares[best]), 4)}
        elif schema.task == ANOMALY:
            said = {"value": _rounded(float(np.mean((out - window) ** 2)))}
        elif schema.task == FORECAST:
            channel = schema.channels[schema.target]
            said = {"value": _rounded(float(channel.value(out[0]))), "ahead": round(schema.horizon / schema.rate, 3)}
        else:
            said = {"value": _rounded(float(out[0]))}
    return {**said, "model": model.version, "personalised": model.personalised}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What most rows that the fleet keeps aside stay within, by a statistics round.

    Attributes:
        schema: under which; under another, errors are of something else.
        version: the version that was judged.
        low, high: what to add to a number that is told, in its unit; for anomalies 0, and what is an alarm above.
    """

    schema: Schema
    version: int
    low: float
    high: float

    @classmethod
    def of(cls, schema: Schema, version: int, sums: "Judgement", alarm: float, band: float) -> Self:
        """From a round's sums; `alarm` and `band` as in `DecisionSettings`. For all tasks but classes."""
        if schema.task == ANOMALY:
            return cls(schema, version, 0.0, sums.quantile(alarm))
        channel = schema.channels[schema.target] if schema.task == FORECAST else None
        unit = channel.value(1.0) - channel.value(0.0) if channel else 1.0
        low, high = (unit * sums.quantile((1 + side * band) / 2) for side in (-1, 1))
        return cls(schema, version, low, high)

    def beside(self, value: float) -> dict[str, Any]:
        """What is told beside a score."""
        if self.schema.task == ANOMALY:
            said: dict[str, Any] = {"alarm": value > self.high, "threshold": _rounded(self.high)}
        else:
            said = {"low": _rounded(value + self.low), "high": _rounded(value + self.high)}
        return {**said, "judged": self.version}


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


@dataclass(frozen=True, slots=True)
class Topics:
    """Where this device speaks on the owner's broker.

    Args:
        base: what all its topics begin with.
        discovery: the prefix of Home Assistant's discovery; empty for none.
        device: its name.
        unique: what no other device of any fleet has.
    """

    base: str
    discovery: str
    device: str
    unique: str

    @property
    def state(self) -> str:
        """Of scores."""
        return f"{self.base}/{self.device}/state"

    @property
    def availability(self) -> str:
        """Of `online` and `offline`."""
        return f"{self.base}/{self.device}/availability"

    @property
    def birth(self) -> str:
        """Where Home Assistant says that it has started; empty without discovery."""
        return f"{self.discovery}/status" if self.discovery else ""

    @property
    def config(self) -> str:
        """Of the discovery message."""
        return f"{self.discovery}/device/{self.unique}/config"


def discovery(schema: Schema, topics: Topics, judged: bool = False) -> bytes:
    """The discovery message: sensors for what is told, the confidence of classes, and the model: version, whose own.

    With `judged` also for alarms, or for the bounds of a number.
    """
    # What stands there is of now, or Home Assistant shows nothing: a sensor that fell silent has no score.
    fresh = {"expire_after": max(SILENT, math.ceil(SILENT_WINDOWS * schema.step / schema.rate))}
    told: dict[str, Any] = {"value_template": "{{ value_json.value }}", **fresh}
    if schema.task == CLASSES:
        told |= {"name": "Class", "device_class": "enum", "options": list(schema.classes)}
    elif schema.task == FORECAST:
        channel = schema.channels[schema.target]
        told |= {"name": f"{channel.name} ahead", "unit_of_measurement": _shown(channel.unit)}
    else:
        # Without a unit it takes a class of state to be drawn as a number.
        told |= {"name": "Unlikeness" if schema.task == ANOMALY else "Value", "state_class": "measurement"}
    components = {"told": told}
    if schema.task == CLASSES:
        template = "{{ (value_json.confidence * 100) | round(1) }}"
        components["confidence"] = {"name": "Confidence", "unit_of_measurement": "%", "value_template": template}
        components["confidence"] |= {"entity_category": "diagnostic", **fresh}
    if judged and schema.task == ANOMALY:
        template = "{{ 'ON' if value_json.alarm else 'OFF' }}"
        components["alarm"] = {"platform": "binary_sensor", "name": "Alarm", "device_class": "problem"}
        components["alarm"] |= {"value_template": template, **fresh}
    elif judged:
        for bound in ("low", "high"):
            components[bound] = told | {"name": bound.title(), "value_template": f"{{{{ value_json.{bound} }}}}"}
    components["model"] = {"name": "Model version", "value_template": "{{ value_json.model }}"}
    components["model"] |= {"entity_category": "diagnostic"}
    template = "{{ 'ON' if value_json.personalised else 'OFF' }}"
    components["personalised"] = {"platform": "binary_sensor", "name": "Personalised", "value_template": template}
    components["personalised"] |= {"entity_category": "diagnostic"}
    return json.dumps(
        {
            # This device's identity alone: one that is shared would make two devices one.
            "device": {"identifiers": [topics.unique], "name": topics.device, "manufacturer": "hushfleet"},
            "origin": {"name": "hushfleet", "sw_version": __version__},
            "components": {
                key: {"platform": "sensor", "unique_id": f"{topics.unique}_{key}", **component}
                for key, component in components.items()
            },
            "state_topic": topics.state,
            "availability_topic": topics.availability,
            "qos": 1,
        },
        separators=(",", ":"),
    ).encode()


def _shown(unit: str) -> str:
    """A schema's ASCII unit as Home Assistant writes it."""
    return {"degC": "°C", "degF": "°F", "m/s2": "m/s²", "ug/m3": "µg/m³", "deg": "°", "1": ""}.get(unit, unit)
