"""register.json: every device ever added to a fleet, and where its broker is."""

import json
from dataclasses import asdict, dataclass, replace

from hushfleet.configuration import did_you_mean
from hushfleet.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Line:
    """One device.

    Attributes:
        index: the roster index; 0 is the coordinator.
        name: unique for ever.
        tls_serials: of every TLS certificate it ever got, the newest last; the broker's revocation list names them.
        tls_until: when its newest TLS files run out, its own certificate or the authority's beside it; seconds since
            1970 UTC.
        revoked: seconds since 1970 UTC, 0 if not revoked.
    """

    index: int
    name: str
    tls_serials: tuple[int, ...]
    tls_until: int
    revoked: int = 0


@dataclass(frozen=True, slots=True)
class Register:
    """What the owner has handed out. Lines are never removed, so that names and indices are never given again.

    Attributes:
        hosts: names and addresses of the broker, at least one.
        port: its TLS port.
        lines: ascending by index.
    """

    hosts: tuple[str, ...]
    port: int
    lines: tuple[Line, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> "Register":
        """Read what `to_json` wrote; ValueError, KeyError or TypeError if it is damaged."""
        value = json.loads(text)
        lines = (Line(**(line | {"tls_serials": tuple(line["tls_serials"])})) for line in value["lines"])
        return cls(tuple(value["hosts"]), int(value["port"]), tuple(lines))

    def to_json(self) -> str:
        """The text of register.json."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def line(self, name: str) -> Line:
        """The line of that device; ConfigurationError if there is none."""
        for line in self.lines:
            if line.name == name:
                return line
        raise ConfigurationError(
            f"there is no device {name!r} in this fleet; {did_you_mean(name, (line.name for line in self.lines))}"
        )

    def with_line(self, line: Line) -> "Register":
        """The register with one more device."""
        return replace(self, lines=(*self.lines, line))

    def with_tls(self, name: str, serial: int, until: int) -> "Register":
        """The register with one more TLS certificate of that device."""
        lines = (
            replace(line, tls_serials=(*line.tls_serials, serial), tls_until=until) if line.name == name else line
            for line in self.lines
        )
        return replace(self, lines=tuple(lines))

    def with_revoked(self, name: str, now: int) -> "Register":
        """The register with that device revoked; the time of a first revocation stays."""
        lines = (replace(line, revoked=line.revoked or now) if line.name == name else line for line in self.lines)
        return replace(self, lines=tuple(lines))
