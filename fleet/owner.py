"""The owners of a fleet: their keys, and every document they sign (docs/protocol.md, sections 2 and 11.2).

Pure: keys and facts in, frames out. Nothing here touches a disk or a clock, and all randomness is passed in, so that
the same draws make the same fleet, byte for byte.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nacl import bindings

from hushfleet.actions import Draw
from hushfleet.errors import ConfigurationError
from hushfleet.hashing import key_id
from hushfleet.learning.layers import check_layers, initial_flat
from hushfleet.learning.server import model_hash
from hushfleet.wire.documents import (
    COORDINATOR,
    MEMBER,
    PARTICIPANT,
    PROTOCOL,
    Cert,
    Certificate,
    CommitteeDocument,
    Date,
    Device,
    Document,
    Entry,
    Firmware,
    Manifest,
    ModelSpec,
    Policy,
    Profiles,
    Root,
    Roster,
)
from hushfleet.wire.framing import Frame, Identity, pack_indices
from hushfleet.wire.layers import Layer
from hushfleet.wire.schema import Channel, Schema

LARGEST_PROFILE_COUNT = 256
"""A roster line names its profile by a u8."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The key pairs of one role, root, signer or freshness, and how many of them a document needs.

    Attributes:
        seeds: Ed25519 seeds, 32 bytes each; keys that are kept elsewhere are absent.
        threshold: how many distinct keys must sign.
    """

    seeds: tuple[bytes, ...] = field(repr=False)
    threshold: int

    @classmethod
    def draw(cls, draw: Draw, number: int, threshold: int) -> "KeySet":
        """Make `number` new key pairs."""
        return cls(tuple(draw(32) for _ in range(number)), threshold)

    def identities(self) -> tuple[Identity, ...]:
        """The key pairs, each signing under its key id."""
        pairs = ((seed, bindings.crypto_sign_seed_keypair(seed)[0]) for seed in self.seeds)
        return tuple(Identity(key_id(public_key), seed) for seed, public_key in pairs)

    def public_keys(self) -> tuple[bytes, ...]:
        """The public keys in the root's order."""
        return tuple(sorted(identity.public_key for identity in self.identities()))


def sign(document: Document, *key_sets: KeySet) -> Frame:
    """`document` signed by every key at hand of each set; a key that stands in two sets signs once.

    Raises:
        ConfigurationError: fewer keys are at hand than a threshold asks for.
        MalformedError: the document breaks a rule of its own.
    """
    for key_set in key_sets:
        if len(set(key_set.seeds)) < key_set.threshold:
            raise ConfigurationError(
                f"a {document.KIND} needs {key_set.threshold} signatures but only {len(set(key_set.seeds))} keys are "
                "at hand; bring the others back to the owner's keys"
            )
    body = document.to_body()
    signers = {identity.signer: identity for key_set in key_sets for identity in key_set.identities()}
    signatures = [(name, signers[name].sign(document.KIND, document.fleet, body)) for name in sorted(signers)]
    return Frame(document.KIND, body, tuple(signatures))


def unsigned(document: Document) -> Frame:
    """`document` as one of the four that the manifest alone vouches for."""
    return Frame(document.KIND, document.to_body())


@dataclass(frozen=True, slots=True)
class Credentials:
    """A device's certificate entry together with the secrets that belong to it.

    Attributes:
        cert: what the owners certify.
        identity_seed: Ed25519 seed, 32 bytes.
        seal_secret: X25519 secret, 32 bytes; the coordinator's alone.
    """

    cert: Cert
    identity_seed: bytes = field(repr=False)
    seal_secret: bytes | None = field(default=None, repr=False)

    @classmethod
    def draw(
        cls,
        draw: Draw,
        index: int,
        name: str,
        roles: int,
        *,
        profile: str,
        not_before: int,
        not_after: int,
        serial: int = 1,
    ) -> "Credentials":
        """Make the keys of one device; `roles` is the sum of PARTICIPANT, MEMBER, COORDINATOR."""
        seed = draw(32)
        public_key, _ = bindings.crypto_sign_seed_keypair(seed)
        seal_secret = draw(32) if roles & COORDINATOR else None
        seal = bindings.crypto_scalarmult_base(seal_secret) if seal_secret else b""
        return cls(
            Cert(name, index, public_key, roles, profile, not_before, not_after, serial, seal), seed, seal_secret
        )

    def identity(self) -> Identity:
        """The key pair, signing under the roster index."""
        return Identity(self.cert.index, self.identity_seed)


@dataclass(frozen=True, slots=True)
class Owner:
    """The owners' keys of one fleet, and what they sign. Times are seconds since 1970 UTC, versions start at 1.

    Attributes:
        fleet: the fleet's id, 16 bytes.
        root, signer, fresh: the keys of each role.
    """

    fleet: bytes
    root: KeySet
    signer: KeySet
    fresh: KeySet

    @classmethod
    def create(
        cls,
        draw: Draw,
        *,
        root: tuple[int, int] = (3, 2),
        signer: tuple[int, int] = (1, 1),
        fresh: tuple[int, int] = (1, 1),
    ) -> "Owner":
        """Make a new fleet's id and keys; each role is (number of keys, threshold)."""
        return cls(draw(16), KeySet.draw(draw, *root), KeySet.draw(draw, *signer), KeySet.draw(draw, *fresh))

    def key_sets(self) -> dict[str, KeySet]:
        """The keys by role."""
        return {"root": self.root, "signer": self.signer, "fresh": self.fresh}

    def sign_root(self, *, issued: int, not_after: int, version: int = 1, previous: KeySet | None = None) -> Frame:
        """The fleet root that names this owner's keys.

        Args:
            previous: the root keys of the version before, whose threshold signs too; none for version 1.
        """
        table = Root(
            fleet=self.fleet,
            issued=issued,
            protocol=PROTOCOL,
            version=version,
            root=self.root.public_keys(),
            root_n=self.root.threshold,
            signer=self.signer.public_keys(),
            signer_n=self.signer.threshold,
            fresh=self.fresh.public_keys(),
            fresh_n=self.fresh.threshold,
            not_after=not_after,
        )
        return sign(table, self.root, *([previous] if previous else []))

    def sign_next_root(self, root: Root, renewed: Mapping[str, KeySet], *, issued: int, not_after: int) -> Frame:
        """The root after `root`, with new keys for some roles, signed by the thresholds of the old and of the new one.

        Args:
            root: the newest one; its other keys stay, those that are not at hand among them.
            renewed: the new keys by role, `root`, `signer` or `fresh`.

        Raises:
            ConfigurationError: too few of the root keys are at hand.
        """
        fields: dict[str, Any] = {}
        for role, key_set in renewed.items():
            fields |= {role: key_set.public_keys(), f"{role}_n": key_set.threshold}
        table = replace(root, version=root.version + 1, issued=issued, not_after=not_after, **fields)
        return sign(table, self.root, renewed.get("root", self.root))

    def sign_manifest(
        self, documents: Iterable[Frame], *, version: int, issued: int, not_after: int, root_version: int = 1
    ) -> Frame:
        """The manifest that vouches for exactly `documents`."""
        entries = sorted((self._entry(frame) for frame in documents), key=lambda entry: entry.name)
        return sign(
            Manifest(self.fleet, issued, PROTOCOL, version, root_version, tuple(entries), not_after), self.signer
        )

    def sign_date(self, manifest: Frame, *, issued: int, not_after: int) -> Frame:
        """A new date for `manifest`, which stays as it is."""
        version = Manifest.from_body(manifest.body).version
        return sign(Date(self.fleet, issued, PROTOCOL, version, manifest.hash(self.fleet), not_after), self.fresh)

    def certificate(self, cert: Cert, *, issued: int) -> Frame:
        """A device's own certificate."""
        return sign(Certificate(self.fleet, issued, PROTOCOL, cert.serial, cert), self.signer)

    def committee_document(
        self, certs: Iterable[Cert], *, version: int, issued: int, revoked: Iterable[int] = ()
    ) -> Frame:
        """Coordinator and candidates out of `certs`, in any order, and which of those are revoked."""
        listed = sorted((cert for cert in certs if cert.roles & (COORDINATOR | MEMBER)), key=lambda cert: cert.index)
        gone = sorted({cert.index for cert in listed} & set(revoked))
        return unsigned(CommitteeDocument(self.fleet, issued, PROTOCOL, version, tuple(listed), pack_indices(gone)))

    def roster(self, certs: Iterable[Cert], *, version: int, issued: int, revoked: Iterable[int] = ()) -> Frame:
        """Every device out of `certs`, in any order, and which are revoked. The coordinator is no device."""
        listed = sorted((c for c in certs if c.roles & (PARTICIPANT | MEMBER)), key=lambda cert: cert.index)
        profiles = sorted({cert.profile for cert in listed})
        if len(profiles) > LARGEST_PROFILE_COUNT:
            raise ConfigurationError(f"the roster names {len(profiles)} profiles; at most {LARGEST_PROFILE_COUNT} fit")
        lines = (
            Device(cert.index, cert.key, cert.roles, profiles.index(cert.profile), cert.not_after) for cert in listed
        )
        gone = sorted({cert.index for cert in listed} & set(revoked))
        return unsigned(
            Roster(
                fleet=self.fleet,
                issued=issued,
                protocol=PROTOCOL,
                version=version,
                devices=b"".join(line.to_bytes() for line in lines),
                profiles=tuple(profiles),
                revoked=pack_indices(gone),
            )
        )

    def policy(self, rules: Mapping[str, Any], models: Iterable[Frame], *, version: int, issued: int) -> Frame:
        """What devices enforce.

        Args:
            rules: every field of the policy's table but `models`, by its protocol name.
            models: the model specs allowed.

        Raises:
            MalformedError: a rule that section 2 refuses at signing.
        """
        hashes = tuple(sorted(model.hash(self.fleet) for model in models))
        return unsigned(
            Policy(fleet=self.fleet, issued=issued, protocol=PROTOCOL, version=version, models=hashes, **rules)
        )

    def model_spec(
        self, name: str, layers: Sequence[Layer], init: bytes, *, version: int, issued: int, personal: int = 0
    ) -> Frame:
        """A model and its version 0, which `init` (32 bytes) determines; the last `personal` layers are each device's.

        Raises:
            ConfigurationError: the layers are no model.
            MalformedError: so many of them cannot be personal.
        """
        check_layers(layers)
        zero = model_hash(initial_flat(layers[: len(layers) - personal], init))
        return unsigned(ModelSpec(self.fleet, issued, PROTOCOL, version, name, tuple(layers), init, zero, personal))

    def profiles(self, firmware: Iterable[Firmware], *, version: int, issued: int) -> Frame:
        """The firmware profiles, in any order."""
        listed = tuple(sorted(firmware, key=lambda one: one.name))
        return unsigned(Profiles(self.fleet, issued, PROTOCOL, version, listed))

    def schema(
        self, spec: Frame, channels: Iterable[Channel], windows: Mapping[str, Any], *, version: int, issued: int
    ) -> Frame:
        """What a model takes in; `windows` are the document's other fields by name.

        Raises:
            ConfigurationError: the model has other inputs or outputs.
        """
        schema = Schema(
            self.fleet, issued, PROTOCOL, version, spec.hash(self.fleet), channels=tuple(channels), **windows
        )
        layers = ModelSpec.from_body(spec.body).layers
        for what, needed, there in (
            ("takes", schema.inputs(), layers[0].inputs),
            ("gives", schema.outputs(), layers[-1].outputs),
        ):
            if needed != there:
                raise ConfigurationError(f"the model {what} {there} values, by the schema a window's are {needed}")
        window = schema.samples, len(schema.channels) * (1 + schema.mask)
        if (sequence := layers[0].sequence_in) and sequence != window:
            raise ConfigurationError(
                f"the model takes {sequence[0]} steps of {sequence[1]} channels, by the schema a window has "
                f"{window[0]} of {window[1]}, masks included: write length = {window[0]}, channels = {window[1]} "
                "in its first layer"
            )
        return unsigned(schema)

    def _entry(self, frame: Frame) -> Entry:
        version = _TABLES[frame.kind].from_body(frame.body).version
        return Entry(frame.kind, version, len(frame.to_bytes()), frame.hash(self.fleet))


_TABLES: dict[str, type[Document]] = {
    table.KIND: table for table in (CommitteeDocument, Roster, Policy, ModelSpec, Profiles, Schema)
}
