"""An agent's one TOML file (docs/operations.md)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from edge_agent.budget import BudgetSettings
from edge_agent.decisions import DecisionSettings
from edge_agent.power import PowerSettings
from edge_agent.sources.csv import CsvSource
from edge_agent.sources.feeds import FeedSettings
from edge_agent.sources.sensors import SensorSettings
from hushfleet.configuration import Key, Range
from hushfleet.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker is; the bundle says so unless it is said here."""

    host: str | None = None
    port: Annotated[int, Range(1, 65535)] | None = None


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Everything an agent is told on its own device.

    Attributes:
        bundle: the directory that the owner handed over.
        vault: the device's durable memory; its directory must be private.
        profile: firmware profile, by name or by the path of a TOML file; the certificate's unless it is said here.
        head: `softmax` for classes, `mean_squared` for one number.
        trainer: what trains: `numpy`, `litert`, or the faster of the two for the model in force (`auto`).
        balanced: whether every class among this device's rows gets as many places in what it trains on.
        source: the device's own rows, from a file; a device without rows is a committee member alone.
        sensors: instead, what of the feeds' readings becomes rows.
        feeds: where sensor readings come from, and which of them are read; `[[feed]]` in the file.
        power: when it sits rounds out to spare itself.
        budget: what it spends on learning at most, and when.
        decisions: where the live model's scores are told, if they are.
        broker: where the broker is.
        log: `text` or `json` lines on standard error.
    """

    bundle: Path
    vault: Path
    profile: Path | None = None
    head: Literal["softmax", "mean_squared"] = "softmax"
    trainer: Literal["auto", "numpy", "litert"] = "auto"
    balanced: bool = False
    source: CsvSource | None = None
    sensors: SensorSettings | None = None
    feeds: Annotated[tuple[FeedSettings, ...], Key("feed")] = ()
    power: PowerSettings = field(default_factory=PowerSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    decisions: DecisionSettings | None = None
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    log: Literal["text", "json"] = "text"

    def __post_init__(self) -> None:
        if self.source and self.sensors:
            raise ConfigurationError("rows come from [source] or from [sensors], not from both; take one of them out")
        if self.decisions and not self.sensors:
            raise ConfigurationError("[decisions] needs [sensors]: what is scored are windows of readings")
        if self.sensors and not self.feeds:
            raise ConfigurationError("[sensors] needs a [[feed]]; hushfleet agent discover shows what one has")
