"""A coordinator's one TOML file (docs/operations.md)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from coordinator.planning import RoundSettings
from coordinator.setup import SetupSettings
from hushfleet.configuration import Range


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker is; the bundle says so unless it is said here.

    Attributes:
        chunk: bytes of a chunk of what the coordinator sends, 256 to 61,440.
        window: messages in flight to the broker.
        keepalive: seconds between pings on an idle connection.
    """

    host: str | None = None
    port: Annotated[int, Range(1, 65535)] | None = None
    chunk: Annotated[int, Range(256, 61_440)] = 16_384
    window: Annotated[int, Range(1, 64)] = 32
    keepalive: Annotated[int, Range(5, 3600)] = 60


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """Everything a coordinator is told on its own host.

    Attributes:
        bundle: the directory that the owner handed over.
        documents: the directory of the owners' signed documents; read at the start and on SIGHUP.
        ledger: the coordinator's durable memory; its directory must be private.
        rounds, setup, broker: see there.
        log: `text` or `json` lines on standard error.
    """

    bundle: Path
    documents: Path
    ledger: Path
    rounds: RoundSettings = field(default_factory=RoundSettings)
    setup: SetupSettings = field(default_factory=SetupSettings)
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    log: Literal["text", "json"] = "text"
