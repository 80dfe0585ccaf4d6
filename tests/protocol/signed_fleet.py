"""A small fleet with every document signed, from one seed, for tests that play whole rounds."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from coordinator.conductor import Signed
from fleet.owner import Credentials, Owner
from hushfleet.actions import Draw
from hushfleet.wire.documents import COORDINATOR, MEMBER, PARTICIPANT, Cert
from hushfleet.wire.framing import Frame
from hushfleet.wire.layers import Dense, Layer
from hushfleet.wire.schema import Channel

START = 1_700_000_000
YEAR = 365 * 86_400

LARGEST_SET, CLIP = 31, 4.125
"""31 divides 2^15 - 1, so that with this norm the plain codec's step is exactly 1/256 and test updates are exact."""

POLICY: dict[str, Any] = {
    "assumed_colluders": 0,
    "audit_rate": 0.0,
    "clip": CLIP,
    "committee_min": 3,
    "committee_trusted": 1,
    "delta": 0.0,
    "epoch_age": 7 * 86_400,
    "epoch_rounds": 4,
    "epsilon": 0.0,
    "interval": 0,
    "largest_survivor_set": LARGEST_SET,
    "largest_weight": 1.0,
    "noise_floor": 0.0,
    "noiseless_statistics": 0,
    "recoveries": 1,
    "rollback_versions": 3,
    "shards": 1,
    "smallest_group": 5,
    "smallest_survivor_set": 2,
    "tiny_fleet": 1,
    "uploads_per_base": 8,
}
LAYERS = (Dense(16, 16, "none"),)
CHANNELS = (Channel("co2", "ppm", 0.0, 5000.0), Channel("temperature", "degC", -40.0, 85.0))
WINDOWS: dict[str, Any] = {
    "rate": 1.0,
    "samples": 8,
    "step": 4,
    "missing": 0.1,
    "mask": 0,
    "task": "classes",
    "classes": tuple(f"class {number}" for number in range(16)),
    "target": 0,
    "horizon": 0,
}


def seeded(seed: object) -> Draw:
    """Bytes that a test can draw again; nothing here is a secret."""
    return random.Random(repr(seed)).randbytes


@dataclass(frozen=True)
class FleetKeys:
    """A signed fleet: owner, credentials by index (0 is the coordinator), frames."""

    owner: Owner
    credentials: dict[int, Credentials]
    root: Frame
    manifest: Frame
    documents: dict[str, Frame]

    @property
    def fleet(self) -> bytes:
        """The fleet's id."""
        return self.owner.fleet

    def signed(self) -> Signed:
        """What the owners' desk hands to the coordinator."""
        return Signed(
            {1: self.root.to_bytes()},
            self.manifest.to_bytes(),
            b"",
            {name: frame.to_bytes() for name, frame in self.documents.items()},
            {index: self.certificate(index) for index in self.credentials},
        )

    def certificate(self, index: int) -> bytes:
        """A device's own certificate."""
        return self.owner.certificate(self.credentials[index].cert, issued=START).to_bytes()

    def certs(self) -> list[Cert]:
        """What the owners certify, by index."""
        return [credential.cert for credential in self.credentials.values()]

    def members(self) -> list[int]:
        """The candidates, ascending."""
        return [cert.index for cert in self.certs() if cert.roles & MEMBER]

    def participants(self) -> list[int]:
        """The participants, ascending."""
        return [cert.index for cert in self.certs() if cert.roles & PARTICIPANT]

    def next_version(
        self, version: int, revoked: Iterable[int] = (), model: Frame | None = None, **policy: Any
    ) -> "FleetKeys":
        """The same fleet under a newer manifest: other rules, another model, devices revoked."""
        owner, model = self.owner, model or self.documents["model"]
        documents = self.documents | {
            "committee": owner.committee_document(self.certs(), version=version, issued=START, revoked=revoked),
            "roster": owner.roster(self.certs(), version=version, issued=START, revoked=revoked),
            "policy": owner.policy(POLICY | policy, [model], version=version, issued=START),
            "model": model,
        }
        manifest = owner.sign_manifest(documents.values(), version=version, issued=START, not_after=START + YEAR)
        return replace(self, documents=documents, manifest=manifest)

    def with_schema(self, **windows: Any) -> "FleetKeys":
        """The same fleet under a manifest of the version 1 that lists a schema for its model."""
        schema = self.owner.schema(self.documents["model"], CHANNELS, WINDOWS | windows, version=1, issued=START)
        documents = self.documents | {"schema": schema}
        manifest = self.owner.sign_manifest(documents.values(), version=1, issued=START, not_after=START + YEAR)
        return replace(self, documents=documents, manifest=manifest)


def make_fleet(
    participants: int,
    members: int,
    seed: object = 0,
    layers: tuple[Layer, ...] = LAYERS,
    both: int = 0,
    personal: int = 0,
    **policy: Any,
) -> FleetKeys:
    """Devices 1 … `members` are members, the next `participants` are participants, the first `both` members as well."""
    draw = seeded(("fleet", seed))
    owner = Owner.create(draw)
    roles: dict[int, int] = {0: COORDINATOR}
    for index in range(1, members + 1):
        roles[index] = MEMBER + (PARTICIPANT if index <= both else 0)
    for index in range(members + 1, members + participants + 1):
        roles[index] = PARTICIPANT
    credentials = {
        index: Credentials.draw(
            draw, index, f"device-{index}", role, profile="test", not_before=0, not_after=START + YEAR
        )
        for index, role in roles.items()
    }
    certs = [credential.cert for credential in credentials.values()]
    model = owner.model_spec("tiny", layers, draw(32), version=1, issued=START, personal=personal)
    documents = {
        "committee": owner.committee_document(certs, version=1, issued=START),
        "roster": owner.roster(certs, version=1, issued=START),
        "policy": owner.policy(POLICY | policy, [model], version=1, issued=START),
        "model": model,
    }
    return FleetKeys(
        owner,
        credentials,
        owner.sign_root(issued=START, not_after=START + YEAR),
        owner.sign_manifest(documents.values(), version=1, issued=START, not_after=START + YEAR),
        documents,
    )
