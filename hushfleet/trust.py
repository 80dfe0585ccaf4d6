"""What one party has verified of its fleet's documents, after The Update Framework (docs/protocol.md, section 2).

Versions never go back, steps are bounded, nothing counts that the newest manifest does not list, everything expires.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeVar

from hushfleet.actions import Action, Erase, Save, Store
from hushfleet.errors import MalformedError, RefusedError
from hushfleet.hashing import key_id
from hushfleet.wire import canonical
from hushfleet.wire.documents import (
    LARGEST_ROOT_OR_MANIFEST,
    PROTOCOL,
    Cert,
    Certificate,
    CommitteeDocument,
    Date,
    Document,
    Entry,
    Manifest,
    ModelSpec,
    Policy,
    Profiles,
    Root,
    Roster,
)
from hushfleet.wire.framing import Frame, KeyOf, read, signed_bytes, verify
from hushfleet.wire.schema import Schema

LARGEST_STEP = 1_000
_TIME = "trust/time"
READY, WAITING, STALE, UPGRADE = "ready", "waiting-for-documents", "stale-fleet", "upgrade-needed"
REMEDIES = {
    WAITING: "the fleet's documents are not on the broker; start the coordinator, which publishes them, and look into "
    "its status",
    STALE: "the owners' signatures have run out, or the coordinator's certificate has, or this clock is wrong; sign "
    "again with hushfleet fleet sign, or renew it with hushfleet fleet renew",
    UPGRADE: "the fleet speaks a newer protocol; upgrade hushfleet here",
}
"""What a person does about a state in which nothing goes on."""

DocumentType = TypeVar("DocumentType", bound=Document)
_TABLES: dict[str, type[Document]] = {
    "committee": CommitteeDocument,
    "roster": Roster,
    "policy": Policy,
    "model": ModelSpec,
    "profile": Profiles,
    "schema": Schema,
}


class UpgradeNeededError(RefusedError):
    """A verified document speaks a newer protocol than this software."""


class Trust:
    """The chain of roots, the newest manifest and its date, and the documents that it lists.

    Args:
        fleet: 16 bytes.
        root_hash: hash of root 1, from the device's bundle.
        needed: names of the documents this party works with.
        store: where the verified frames are kept, under `trust/…`, and the time that they prove.
        build_time: seconds since 1970 when this software was made; time is never before it.

    Attributes:
        committee, roster, policy, model, profiles, schema: the documents of the newest manifest, each if it is here.
    """

    def __init__(self, fleet: bytes, root_hash: bytes, needed: Iterable[str], store: Store, build_time: int) -> None:
        self.fleet = fleet
        self.needed = tuple(needed)
        self.upgrade_needed = False
        self.root: Root | None = None
        self.manifest: Manifest | None = None
        self.manifest_hash = b""
        self.date: Date | None = None
        self.certificate: Certificate | None = None
        self._certificate_frame: Frame | None = None
        self._root_hash = root_hash
        self._build_time = build_time
        self._newest = 0
        self._documents: dict[str, tuple[bytes, Document]] = {}
        self._entries: dict[str, Entry] = {}
        self._missing: list[Entry] = []
        self._restore(store)
        self._match()

    def _restore(self, store: Store) -> None:
        self._newest = int.from_bytes(store.get(_TIME) or b"", "little")
        for key, data in store.scan("trust/"):
            if key == _TIME:
                continue
            frame = Frame.from_bytes(data, limit=len(data))
            match key.removeprefix("trust/"):
                case "root":
                    self.root = read(frame, Root)
                case "manifest":
                    self.manifest, self.manifest_hash = read(frame, Manifest), frame.hash(self.fleet)
                case "date":
                    self.date = read(frame, Date)
                case "certificate":
                    self.certificate, self._certificate_frame = read(frame, Certificate), frame
                case name:
                    table = _TABLES[name.removeprefix("doc/")]
                    # What other software kept in a form that this one does not know is fetched again, or replaced.
                    with suppress(MalformedError):
                        self._documents[table.KIND] = (frame.hash(self.fleet), read(frame, table))

    def _match(self) -> None:
        """Match the documents here with the manifest's list; what holds now is asked for with every message."""
        self._entries = {entry.name: entry for entry in self.manifest.docs} if self.manifest else {}
        self.committee = self._document("committee", CommitteeDocument)
        self.roster = self._document("roster", Roster)
        self.policy = self._document("policy", Policy)
        self.model = self._document("model", ModelSpec)
        self.profiles = self._document("profile", Profiles)
        self.schema = self._document("schema", Schema)
        self._coordinator = self.committee.coordinator() if self.committee else None
        listed = [self._entries[name] for name in self.needed if name in self._entries]
        self._missing = [entry for entry in listed if self._document(entry.name, Document) is None]

    def _keep(self, name: str, data: bytes, document: Document) -> list[Action]:
        """Save what was just verified, and the time that it proves; records that are replaced take no time back."""
        self._newest = max(self._newest, document.issued)
        return [Save(f"trust/{name}", data), Save(_TIME, self._newest.to_bytes(8, "little"))]

    # What holds now.

    def time(self, now: float) -> float:
        """The clock, but never before the build or the newest verified document; the clock never raises that floor.

        Under a new root the documents' part of the floor restarts with that root.
        """
        return max(now, self._build_time, self._newest)

    @property
    def pair(self) -> tuple[int, int]:
        """(root, manifest) versions of the newest verified manifest; zeros if there is none."""
        return (self.manifest.root, self.manifest.version) if self.manifest else (0, 0)

    def valid_until(self) -> int:
        """When this manifest expires, with its date: min(root's, max(manifest's, date's))."""
        if self.root is None or self.manifest is None:
            return 0
        dated = self.date.not_after if self.date and self.date.manifest == self.manifest_hash else 0
        return min(self.root.not_after, max(self.manifest.not_after, dated))

    def state(self, now: float) -> str:
        """`ready`, or why this party takes part in nothing: waiting-for-documents, stale-fleet, upgrade-needed."""
        if self.upgrade_needed:
            return UPGRADE
        if self.root is None or self.manifest is None or self.manifest.root != self.root.version or self._missing:
            return WAITING
        if self.committee is not None and self.coordinator(now) is None:
            return STALE
        return READY if self.time(now) <= self.valid_until() else STALE

    def missing(self) -> list[Entry]:
        """The needed documents that the manifest lists and that are not here in that version."""
        return self._missing

    def hash_of(self, name: str) -> bytes | None:
        """The hash of a document in the newest manifest."""
        entry = self._entries.get(name)
        return entry.hash if entry else None

    def coordinator(self, now: float) -> Cert | None:
        """The coordinator's certificate, if it is here and valid."""
        cert = self._coordinator
        return cert if cert and cert.valid_at(self.time(now)) else None

    def candidates(self, now: float) -> dict[int, Cert]:
        """The committee candidates that are neither revoked nor out of their certificate's dates, by index."""
        candidates, time = self.committee.candidates() if self.committee else {}, self.time(now)
        return {index: cert for index, cert in candidates.items() if cert.valid_at(time)}

    def coordinator_at(self, now: float) -> KeyOf:
        """By which key a message of the coordinator is judged now."""
        cert = self.coordinator(now)
        return lambda index: cert.key if cert and cert.index == index else None

    def candidate_at(self, now: float) -> KeyOf:
        """By which key a message of a committee candidate is judged now."""
        candidates = self.candidates(now)
        return lambda index: candidates[index].key if index in candidates else None

    def coordinator_key(self, index: int) -> bytes | None:
        """The coordinator's key whatever the date, to judge what it once said."""
        cert = self._coordinator
        return cert.key if cert and cert.index == index else None

    def candidate_key(self, index: int) -> bytes | None:
        """The key of a candidate that is not revoked, whatever the date, to judge what it once said."""
        cert = self.committee.candidates().get(index) if self.committee else None
        return cert.key if cert else None

    def _document(self, name: str, table: type[DocumentType]) -> DocumentType | None:
        entry, (document_hash, document) = self._entries.get(name), self._documents.get(name, (b"", None))
        listed = entry is not None and entry.hash == document_hash
        return document if listed and isinstance(document, table) else None

    # What arrives. Each returns what to save, and raises MalformedError or RefusedError.

    def offer_root(self, data: bytes) -> list[Action]:
        """Take root 1 by its pinned hash, or the next root by the thresholds of the old and the new one."""
        frame = _frame("root", data, LARGEST_ROOT_OR_MANIFEST)
        self._check_kind(frame, Root)
        if self.root is None:
            if frame.hash(self.fleet) != self._root_hash:
                raise RefusedError("root 1 is not the one this device was given")
            root = self._read(frame, Root)
        else:
            self._check_threshold(frame, self.root.root, self.root.root_n)
            root = self._read(frame, Root)
            self._check_threshold(frame, root.root, root.root_n)
            if root.version != self.root.version + 1:
                raise RefusedError(f"root {root.version} does not follow {self.root.version}")
        self.root = root
        # Owners recover from a signer's or freshness key that ran away with the time as with the versions.
        self._newest = root.issued
        return self._keep("root", data, root)

    def offer_manifest(self, data: bytes) -> list[Action]:
        """Take a manifest that is signed by the newest root's signers and goes back in nothing."""
        frame = _frame("manifest", data, LARGEST_ROOT_OR_MANIFEST)
        if self.root is None:
            raise RefusedError("a manifest needs its root first")
        self._check_kind(frame, Manifest)
        self._check_threshold(frame, self.root.signer, self.root.signer_n)
        manifest = self._read(frame, Manifest)
        if manifest.root != self.root.version:
            raise RefusedError(f"the manifest is of root {manifest.root}, known is root {self.root.version}")
        if self.manifest and self.manifest.root == manifest.root:
            self._check_step("manifest", self.manifest.version, manifest.version)
            if manifest.version == self.manifest.version:
                if frame.hash(self.fleet) != self.manifest_hash:
                    raise RefusedError("two manifests of one version")
                return []
            self._check_entries(self.manifest, manifest)
        self.manifest, self.manifest_hash = manifest, frame.hash(self.fleet)
        self.upgrade_needed = False
        self._match()
        actions = self._keep("manifest", data, manifest)
        if self.date and self.date.manifest != self.manifest_hash:
            self.date = None
            actions.append(Erase("trust/date"))
        return actions

    def manifest_of_newer_root(self, data: bytes) -> bool:
        """Whether this manifest, which could not be taken, says that it belongs to a root still to come."""
        try:
            manifest = read(Frame.from_bytes(data, LARGEST_ROOT_OR_MANIFEST), Manifest)
        except MalformedError:
            return False
        return self.root is not None and manifest.root > self.root.version

    def _check_entries(self, old: Manifest, new: Manifest) -> None:
        for entry in new.docs:
            before = old.entry(entry.name)
            if before is None:
                continue
            self._check_step(entry.name, before.version, entry.version)
            if entry.version == before.version and (entry.hash, entry.length) != (before.hash, before.length):
                raise RefusedError(f"two documents {entry.name} of one version")

    @staticmethod
    def _check_step(what: str, old: int, new: int) -> None:
        if new < old:
            raise RefusedError(f"{what} {new} is older than {old}")
        if new - old > LARGEST_STEP:
            raise RefusedError(f"{what} jumps from {old} to {new}")

    def offer_date(self, data: bytes) -> list[Action]:
        """Take a new date for the manifest held, by the freshness key."""
        frame = _frame("date", data, LARGEST_ROOT_OR_MANIFEST)
        if self.root is None or self.manifest is None:
            raise RefusedError("a date needs its manifest first")
        self._check_kind(frame, Date)
        self._check_threshold(frame, self.root.fresh, self.root.fresh_n)
        date = self._read(frame, Date)
        if date.manifest != self.manifest_hash or date.version != self.manifest.version:
            raise RefusedError("the date is of another manifest")
        if date.issued < self.manifest.issued:
            raise RefusedError("the date was issued before its manifest")
        if self.date and date.not_after <= self.date.not_after:
            return []
        self.date = date
        return self._keep("date", data, date)

    def offer_document(self, name: str, data: bytes) -> list[Action]:
        """Take a document whose length and hash the manifest lists; it carries no signature of its own."""
        entry = self._entries.get(name)
        if entry is None or name not in self.needed:
            raise RefusedError(f"the manifest lists no {name}, or nobody here needs it")
        if len(data) != entry.length:
            raise RefusedError(f"{name}: {len(data)} bytes instead of {entry.length}")
        frame = _frame(name, data, entry.length)
        if frame.hash(self.fleet) != entry.hash or frame.signatures:
            raise RefusedError(f"{name}: not the document that the manifest lists")
        document = self._read(frame, _TABLES[name])
        if document.version != entry.version:
            raise RefusedError(f"{name}: not the version that the manifest lists")
        self._documents[name] = (entry.hash, document)
        self._match()
        return self._keep(f"doc/{name}", data, document)

    def offer_certificate(self, data: bytes, public_key: bytes) -> list[Action]:
        """Take this device's own certificate, for its own key, if it is newer than the one held.

        One that only signers of an earlier root signed stays in use, but gives way to any that the newest ones signed.
        """
        frame = Frame.from_bytes(data)
        if self.root is None:
            raise RefusedError("a certificate needs its root first")
        self._check_kind(frame, Certificate)
        self._check_threshold(frame, self.root.signer, self.root.signer_n)
        certificate = self._read(frame, Certificate)
        if certificate.cert.key != public_key:
            raise RefusedError("the certificate is for another key")
        held = self._certificate_frame
        current = held is not None and self._valid(held, self.root.signer) >= self.root.signer_n
        if current and self.certificate and certificate.version <= self.certificate.version:
            return []
        self.certificate, self._certificate_frame = certificate, frame
        return self._keep("certificate", data, certificate)

    @staticmethod
    def _check_kind(frame: Frame, table: type[Document]) -> None:
        if frame.kind != table.KIND:
            raise MalformedError(f"expected a {table.KIND}, got another type")

    def _read(self, frame: Frame, table: type[DocumentType]) -> DocumentType:
        """The document of this fleet in `frame`; a newer protocol is told apart before its fields are judged."""
        self._check_kind(frame, table)
        fields: Any = canonical.decode(frame.body)
        if isinstance(fields, dict) and type(fields.get("protocol")) is int and fields["protocol"] > PROTOCOL:
            self.upgrade_needed = True
            raise UpgradeNeededError(f"{table.KIND} speaks protocol {fields['protocol']}, this software {PROTOCOL}")
        document = read(frame, table)
        if document.fleet != self.fleet:
            raise RefusedError(f"{table.KIND}: of another fleet")
        return document

    def _check_threshold(self, frame: Frame, keys: tuple[bytes, ...], threshold: int) -> None:
        """Raise RefusedError unless `threshold` distinct keys of `keys` signed."""
        valid = self._valid(frame, keys)
        if valid < threshold:
            raise RefusedError(f"{frame.kind}: {valid} of {threshold} signatures needed")

    def _valid(self, frame: Frame, keys: tuple[bytes, ...]) -> int:
        """How many of `keys` signed; a key counts once."""
        message = signed_bytes(frame.kind, self.fleet, frame.body)
        by_id = {key_id(key): key for key in keys}
        return sum(
            isinstance(signer, bytes) and signer in by_id and verify(by_id[signer], message, signature)
            for signer, signature in frame.signatures
        )


def _frame(name: str, data: bytes, limit: int) -> Frame:
    try:
        return Frame.from_bytes(data, limit)
    except MalformedError as error:
        raise MalformedError(f"{name}: {error}") from None
