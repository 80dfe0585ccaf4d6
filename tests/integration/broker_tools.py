"""A real Mosquitto with TLS and the fleet's access list, and certificates on demand."""

from dataclasses import dataclass, replace
from pathlib import Path

from broker.local import LocalBroker
from broker.render import Access, Configuration, access_list
from fleet.transport import Authority, issue_client, write_file, write_key_pair
from hushfleet.mqtt.topics import Topics


@dataclass
class TlsBroker:
    """A running broker of one fleet. Index 0 is the coordinator, 1 and 2 are the committee's candidates."""

    process: LocalBroker
    authority: Authority
    topics: Topics
    access: Access
    settings: Configuration
    directory: Path

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self.settings.port

    def identity(self, name: int | str) -> Path:
        """A directory with tls.pem, tls.key and ca.pem of this client; issued when first asked for."""
        place = self.directory / f"client-{name}"
        if not place.exists():
            place.mkdir()
            write_key_pair(place, "tls", issue_client(self.authority, str(name)))
            write_file(place / "ca.pem", self.authority.certificate_pem, mode=0o644)
        return place

    def grant(self, access: Access) -> None:
        """Put another access list in force."""
        self.access = access
        self.settings.access_list.write_text(access_list(access))
        self.process.reload()

    def revoke(self, *indices: int) -> None:
        """Deny everything to these indices."""
        self.grant(replace(self.access, revoked=indices))
