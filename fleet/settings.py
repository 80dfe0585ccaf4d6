"""fleet.toml: the rules of a fleet as the owner edits them, before they are signed."""

import json
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from fleet.layer_rows import LayerRow, layer_list
from hushfleet.configuration import Range, did_you_mean
from hushfleet.errors import ConfigurationError, MalformedError
from hushfleet.units import canonical
from hushfleet.wire.documents import LARGEST_SURVIVOR_SET
from hushfleet.wire.layers import Layer, check_personal
from hushfleet.wire.schema import Channel, Standardised

_U8, _U16, _U32 = Range(0, 2**8 - 1), Range(0, 2**16 - 1), Range(0, 2**32 - 1)


@dataclass(frozen=True, slots=True)
class FleetName:
    """`[fleet]`: what people call it."""

    name: str

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 40:
            raise ConfigurationError("name must have 1 to 40 characters")


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """`[policy]`: the fields of the policy document by their protocol names (docs/protocol.md, section 11.2)."""

    committee_min: Annotated[int, _U8] = 4
    recoveries: Annotated[int, _U8] = 1
    smallest_survivor_set: Annotated[int, _U32] = 6
    largest_survivor_set: Annotated[int, Range(1, LARGEST_SURVIVOR_SET)] = 100
    assumed_colluders: Annotated[int, _U32] = 1
    smallest_group: Annotated[int, _U32] = 6
    clip: Annotated[float, Range(0)] = 1.0
    largest_weight: Annotated[float, Range(1, 4)] = 1.0
    interval: Annotated[int, _U32] = 60
    uploads_per_base: Annotated[int, _U16] = 8
    epoch_rounds: Annotated[int, Range(1, 1024)] = 32
    epoch_age: Annotated[int, _U32] = 604_800
    audit_rate: Annotated[float, Range(0, 1)] = 0.25
    rollback_versions: Annotated[int, _U16] = 0
    shards: Annotated[int, _U16] = 1
    noise_floor: Annotated[float, Range(0)] = 0.0
    epsilon: Annotated[float, Range(0)] = 0.0
    delta: Annotated[float, Range(0, 1)] = 0.0
    committee_trusted: bool = False
    tiny_fleet: bool = False
    noiseless_statistics: bool = False

    def fields(self) -> dict[str, int | float]:
        """The document's fields, flags as 0 or 1."""
        values = {column.name: getattr(self, column.name) for column in fields(self)}
        return {name: int(value) if type(value) is bool else value for name, value in values.items()}

    def exceptions(self) -> tuple[str, ...]:
        """The rules of safety that this policy gives up, by name."""
        flags = ("committee_trusted", "tiny_fleet", "noiseless_statistics")
        return tuple(flag for flag in flags if getattr(self, flag))


@dataclass(frozen=True, slots=True)
class Model:
    """`[model]`: what is trained.

    Attributes:
        personal: how many of the last layers each device has to itself.
    """

    name: str
    layers: tuple[LayerRow, ...]
    personal: Annotated[int, Range(0, 2**16 - 1)] = 0

    def __post_init__(self) -> None:
        if not self.name.isascii() or not 1 <= len(self.name) <= 64:
            raise ConfigurationError("name must have 1 to 64 ASCII characters")
        layers = self.layer_list()
        try:
            if self.personal:
                check_personal(layers, self.personal)
        except MalformedError as error:
            raise ConfigurationError(str(error)) from None

    def layer_list(self) -> tuple[Layer, ...]:
        """The layers as the model spec holds them."""
        return layer_list(self.layers)


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """One channel of the schema.

    Attributes:
        mean, sd: over the fleet; with them the model sees how many deviations a value is off, and not its place in the
            range from low to high.
    """

    name: str
    unit: str
    low: float
    high: float
    mean: float | None = None
    sd: float | None = None

    def channel(self) -> Channel:
        """The channel as the document holds it."""
        if self.mean is None or self.sd is None:
            if (self.mean, self.sd) != (None, None):
                raise ConfigurationError(f"channel {self.name!r} has only one of mean and sd; give both or none")
            return Channel(self.name, canonical(self.unit), self.low, self.high)
        return Standardised(self.name, canonical(self.unit), self.low, self.high, self.mean, self.sd)


@dataclass(frozen=True, slots=True)
class SchemaRules:
    """`[schema]`: what the model takes in, where devices make their rows out of sensor readings.

    Attributes:
        target: name of the channel that a forecast is about.
    """

    channels: tuple[ChannelRow, ...]
    rate: Annotated[float, Range(0)]
    samples: Annotated[int, Range(1, 2**32 - 1)]
    step: Annotated[int, Range(1, 2**32 - 1)]
    task: Literal["classes", "value", "forecast", "anomaly"]
    missing: Annotated[float, Range(0, 1)] = 0.1
    mask: bool = False
    classes: tuple[str, ...] = ()
    target: str = ""
    horizon: Annotated[int, _U32] = 0

    def __post_init__(self) -> None:
        names = [row.name for row in self.channels]
        if self.target and self.target not in names:
            raise ConfigurationError(f"target = {self.target!r} is no channel; {did_you_mean(self.target, names)}")
        if self.task == "forecast" and not self.target:
            raise ConfigurationError(f"a forecast is about one channel; set target to one of: {', '.join(names)}")
        if self.task == "forecast" and not self.horizon:
            raise ConfigurationError("a forecast is about later; set horizon, in samples after a window's last")
        if self.task != "forecast" and (self.target or self.horizon):
            raise ConfigurationError('target and horizon are for task = "forecast"; leave them out')
        if self.task == "classes" and len(self.classes) < 2:
            raise ConfigurationError('task = "classes" needs classes, two names or more')
        if self.task != "classes" and self.classes:
            raise ConfigurationError('classes are for task = "classes"; leave them out')

    def channel_list(self) -> tuple[Channel, ...]:
        """The channels as the document holds them."""
        return tuple(row.channel() for row in self.channels)

    def windows(self) -> dict[str, Any]:
        """The document's other fields."""
        names = [row.name for row in self.channels]
        return {
            "rate": self.rate,
            "samples": self.samples,
            "step": self.step,
            "missing": self.missing,
            "mask": int(self.mask),
            "task": self.task,
            "classes": self.classes,
            "target": names.index(self.target) if self.target else 0,
            "horizon": self.horizon,
        }


@dataclass(frozen=True, slots=True)
class Validity:
    """`[validity]`: days that a signature counts."""

    certificates: Annotated[int, Range(1, 36_525)] = 3_653
    manifest: Annotated[int, Range(1, 3_653)] = 30


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The whole of fleet.toml."""

    fleet: FleetName
    model: Model
    schema: SchemaRules | None = None
    policy: PolicyRules = PolicyRules()
    validity: Validity = Validity()


def template(fleet_name: str) -> str:
    """fleet.toml as `fleet init` writes it: every setting with its default and its meaning."""
    return _TEMPLATE.replace("FLEET_NAME", json.dumps(fleet_name))


_TEMPLATE = """\
# The rules of this fleet. Edit them, then run: hushfleet fleet sign DIRECTORY
# Devices take a new policy or model only through the manifest which that signs.

[fleet]
name = FLEET_NAME

[model]                         # another name or other layers start training anew, from a new version 0
name = "model"
layers = [
    { in = 16, out = 32, act = "relu" },        # act: none, relu, tanh, sigmoid; other kinds of
    { in = 32, out = 2, act = "none" },         # layers: docs/operations.md, Layers
]
personal = 0                    # how many of the last layers every device has to itself, trained there and never sent

# [schema]                      # what the model takes in, where devices make their rows out of sensor readings;
# rate = 0.1                    # samples a second of every channel
# samples = 8                   # in a window; the first layer takes channels x samples, twice that with mask
# step = 4                      # samples from the beginning of one window to that of the next
# missing = 0.1                 # the largest part of a window's samples that may be imputed
# mask = false                  # whether each sample is followed by 1 if it was measured, 0 if it was imputed
# task = "classes"              # classes, value, forecast (with target and horizon) or anomaly
# classes = ["empty", "taken"]  # numbered from 0 in this order
# channels = [
#     { name = "co2", unit = "ppm", low = 300.0, high = 10000.0 },
#     { name = "temperature", unit = "degC", low = -40.0, high = 85.0, mean = 21.0, sd = 3.5 },    # mean, sd: if known
# ]

[policy]                        # what every device enforces by itself, whatever the coordinator says
committee_min = 4               # smallest committee; up to committee_min - 2 * recoveries - 1 members may be corrupt
recoveries = 1                  # failed members that the others can stand in for, each round
smallest_survivor_set = 6       # fewer uploads than this are never summed; at least assumed_colluders + 5
largest_survivor_set = 100      # at most 16383; a smaller number leaves each device finer steps
assumed_colluders = 1           # participants that may pool what they know against the others
smallest_group = 6              # where rounds are opened in groups; not in this version
clip = 1.0                      # largest norm of one device's update
largest_weight = 1.0            # 1 to 4: how much more one device may count than another; all count 1 in this version
interval = 60                   # seconds between two rounds, at least
uploads_per_base = 8            # uploads of one device from the same model version
epoch_rounds = 32               # rounds for which a committee's keys are made, 1 to 1024
epoch_age = 604800              # seconds after which they expire
audit_rate = 0.25               # share of rounds in which a member's answer is recomputed
rollback_versions = 0           # how many versions behind the highest there was the model may be taken back; 0: never
shards = 1                      # parts of the uploads, by device index; one coordinator takes them all in this version
noise_floor = 0.0               # differential privacy: smallest noise multiplier, and what one device may spend in all;
epsilon = 0.0                   # not in this version: leave all three at 0
delta = 0.0
committee_trusted = false       # exceptions that only an owner can sign: a committee too small to bear one corrupt
tiny_fleet = false              # member; fewer than assumed_colluders + 5 uploads in a sum;
noiseless_statistics = false    # sums of what devices say of their readings and of the model, without noise

[validity]                      # days
certificates = 3653
manifest = 30                   # devices stop when it runs out: sign again before
"""
