"""What the broker's host has of a fleet: the documents, verified, and the transport certificates.

Of the owner's directory only documents/ and transport/ are needed, and no key but the broker's own and the operator's.
"""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from broker.render import Access, Configuration
from hushfleet.configuration import Range, load
from hushfleet.errors import ConfigurationError, HushfleetError
from hushfleet.mqtt.topics import Topics
from hushfleet.scratch import ScratchStore
from hushfleet.trust import Trust
from hushfleet.wire.documents import LARGEST_ROOT_OR_MANIFEST, CommitteeDocument, Root, Roster
from hushfleet.wire.framing import Frame, indices, read


@dataclass(frozen=True, slots=True)
class Address:
    """`transport/broker.toml`: where the devices' bundles say that the broker is.

    Attributes:
        hosts: names and addresses in the broker's certificate; bundles carry the first.
        port: TCP.
    """

    hosts: tuple[str, ...]
    port: Annotated[int, Range(1, 65535)]

    def __post_init__(self) -> None:
        if not self.hosts:
            raise ConfigurationError("hosts is empty; copy the file again from the owner's directory")


@dataclass(frozen=True, slots=True)
class FleetDirectory:
    """A fleet's documents as its newest manifest lists them.

    Attributes:
        path: the directory.
        topics: the fleet's topics.
        trust: the verified documents; `committee` and `roster` are there.
        committee, roster: of the newest manifest.
    """

    path: Path
    topics: Topics
    trust: Trust
    committee: CommitteeDocument
    roster: Roster

    @classmethod
    def load(cls, path: Path) -> "FleetDirectory":
        """Read and verify the documents under `path`.

        Raises:
            ConfigurationError: a file is missing or damaged, or does not belong to the others.
        """
        documents = path / "documents"
        if not (documents / "root.1").is_file():
            raise ConfigurationError(
                f"{path} holds no fleet: there is no {documents / 'root.1'}; "
                "name the directory that hushfleet fleet init made, or a copy of its documents and transport"
            )
        if not (documents / "manifest").is_file():
            raise ConfigurationError(f"the fleet in {path} is not signed yet; first run: hushfleet fleet sign {path}")
        try:
            trust = _verify(documents)
        except OSError as error:
            raise ConfigurationError(f"cannot read {error.filename}: {error.strerror}") from None
        except HushfleetError as error:
            raise ConfigurationError(
                f"the documents in {documents} do not fit together: {error}; "
                "sign again, or copy all of them again from the owner"
            ) from None
        assert trust.committee is not None, "verified"
        assert trust.roster is not None, "verified"
        return cls(path, Topics(trust.fleet), trust, trust.committee, trust.roster)

    def access(self) -> Access:
        """Who stands in the access list by name."""
        return Access(
            self.topics.fleet,
            self.committee.coordinator().index,
            tuple(self.committee.candidates()),
            tuple({*indices(self.committee.revoked), *indices(self.roster.revoked)}),
        )

    def address(self) -> Address:
        """Where clients look for the broker.

        Raises:
            ConfigurationError: the file that says so is missing or damaged.
        """
        path = self.path / "transport" / "broker.toml"
        if not path.is_file():
            raise ConfigurationError(f"there is no {path}; copy transport again from the owner's directory")
        return load(path, Address)

    def configuration(self, out: Path, port: int, address: str, system_user: str | None) -> Configuration:
        """The broker's settings, with its own files in `out`; without a `system_user` it runs as who starts it.

        Raises:
            ConfigurationError: a certificate or key of the broker is missing.
        """
        transport = self.path / "transport"
        for name in ("ca.pem", "broker.pem", "broker.key"):
            if not os.access(transport / name, os.R_OK):
                raise ConfigurationError(f"cannot read {transport / name}; copy it from the owner's directory")
        revocation_list = transport / "crl.pem"
        return Configuration(
            port=port,
            address=address,
            directory=out,
            access_list=out / "acl",
            authority=transport / "ca.pem",
            certificate=transport / "broker.pem",
            key=transport / "broker.key",
            revocation_list=revocation_list if revocation_list.exists() else None,
            system_user=system_user or _starting_user(),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        )


def _verify(documents: Path) -> Trust:
    first = Frame.from_bytes((documents / "root.1").read_bytes(), LARGEST_ROOT_OR_MANIFEST)
    fleet = read(first, Root).fleet
    trust = Trust(fleet, first.hash(fleet), ("committee", "roster"), ScratchStore(), build_time=0)
    version = 1
    while (root := documents / f"root.{version}").is_file():
        trust.offer_root(root.read_bytes())
        version += 1
    trust.offer_manifest((documents / "manifest").read_bytes())
    for name in trust.needed:
        trust.offer_document(name, (documents / name).read_bytes())
    return trust


def _starting_user() -> str:
    """A user that the system does not know (as in some containers) cannot be root, for whom alone it matters."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "root"
