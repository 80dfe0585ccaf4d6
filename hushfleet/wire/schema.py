"""What a model takes in: channels, rate and windows, the same on every device; a document of the owners (11.2)."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from hushfleet.errors import MalformedError
from hushfleet.wire.documents import Document
from hushfleet.wire.framing import B32, F64, U8, U32, Array, Flag, OneOf, Str, Table, Text
from hushfleet.wire.layers import LARGEST_VALUE_COUNT

CLASSES, VALUE, FORECAST, ANOMALY = "classes", "value", "forecast", "anomaly"
"""What a window's target is: one of some classes, a number, a channel's value later on, or the window itself."""
LARGEST_RANGE = 1_000
"""Standard deviations in a channel's range, at most: no value that the model sees is so far out that it upsets it."""


@dataclass(frozen=True, slots=True)
class Channel(Table):
    """One quantity: what it is called, its unit, and the values that a working sensor can give."""

    KIND: ClassVar[str] = "channel"
    name: Str
    unit: Str
    low: F64
    high: F64

    def check(self) -> None:
        if not self.name or not self.low < self.high:
            raise MalformedError("channel: a name, and low below high")

    @property
    def middle(self) -> float:
        """What stands for a value that nobody knows."""
        return (self.low + self.high) / 2

    def scaled(self, value: Any) -> Any:
        """A value, or an array of them, as the model sees it: -1 at `low`, 1 at `high`."""
        return (value - self.low) / (self.high - self.low) * 2 - 1

    def value(self, scaled: Any) -> Any:
        """The way back, in the channel's unit."""
        return (scaled + 1) / 2 * (self.high - self.low) + self.low

    def share(self, scaled: Any) -> Any:
        """How far up the range that is: 0 at `low`, 1 at `high`."""
        return (self.value(scaled) - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Standardised(Channel):
    """A channel that the model sees by its mean and standard deviation over the fleet."""

    KIND: ClassVar[str] = "standardised"
    mean: F64
    sd: F64
    kind: Str = KIND

    def check(self) -> None:
        Channel.check(self)
        if self.kind != self.KIND:
            raise MalformedError("standardised: its kind is another")
        if not self.low <= self.mean <= self.high or not (self.high - self.low) / LARGEST_RANGE <= self.sd:
            raise MalformedError(f"standardised: a mean within the range, of at most {LARGEST_RANGE} deviations")

    @property
    def middle(self) -> float:
        """What stands for a value that nobody knows."""
        return self.mean

    def scaled(self, value: Any) -> Any:
        """A value, or an array of them, as the model sees it: 0 at `mean`, 1 at one `sd` above."""
        return (value - self.mean) / self.sd

    def value(self, scaled: Any) -> Any:
        """The way back, in the channel's unit."""
        return scaled * self.sd + self.mean


@dataclass(frozen=True, slots=True)
class Schema(Document):
    """One model's input: `samples` of every channel, `rate` a second; windows begin `step` samples apart.

    A window of which more than the part `missing` had to be imputed is not used. With `mask`, each sample is followed
    by whether it was measured. `target` is the channel that a forecast is about, `horizon` how many samples later.
    """

    KIND: ClassVar[str] = "schema"
    model: B32
    channels: Annotated[tuple[Channel, ...], Array(OneOf("channel", (Channel, Standardised)))]
    rate: F64
    samples: U32
    step: U32
    missing: F64
    mask: Flag
    task: Str
    classes: Annotated[tuple[str, ...], Array(Text())]
    target: U8
    horizon: U32

    def check(self) -> None:
        Document.check(self)
        names = [channel.name for channel in self.channels]
        if not names or len(names) > 64 or len(set(names)) < len(names):
            raise MalformedError("schema: from 1 to 64 channels, each with its own name")
        if not self.rate > 0 or not self.samples or not self.step or not 0 <= self.missing < 1:
            raise MalformedError("schema: rate, samples and step are above 0, missing from 0 to below 1")
        if self.inputs() > LARGEST_VALUE_COUNT:
            raise MalformedError(f"schema: a window has more than {LARGEST_VALUE_COUNT} values")
        if self.task not in (CLASSES, VALUE, FORECAST, ANOMALY):
            raise MalformedError("schema: unknown task")
        if (len(self.classes) > 1) != (self.task == CLASSES) or len(set(self.classes)) < len(self.classes):
            raise MalformedError("schema: two classes or more, each with its own name, for that task alone")
        if bool(self.horizon) != (self.task == FORECAST) or self.target >= len(names):
            raise MalformedError("schema: a horizon for a forecast alone, the target one of the channels")

    def inputs(self) -> int:
        """Values that the model takes for one window."""
        return len(self.channels) * self.samples * (1 + self.mask)

    def outputs(self) -> int:
        """Values that the model gives for one window."""
        return {CLASSES: len(self.classes), ANOMALY: self.inputs()}.get(self.task, 1)
