"""A second writing of a device's trust in its fleet's documents (section 2)."""

from dataclasses import dataclass
from itertools import pairwise

from second_wire import Fields, Frame, key_id, parse, require, slices

PARTICIPANT, MEMBER, COORDINATOR = 1, 2, 4


@dataclass(frozen=True)
class Person:
    """One row of the roster."""

    index: int
    key: bytes
    roles: int
    not_after: int


def roster_rows(frame: Frame) -> dict[int, Person]:
    """Devices of a roster that are not revoked, by index."""
    rows = [
        Person(int.from_bytes(row[:4], "little"), row[4:36], row[36], int.from_bytes(row[38:], "little"))
        for row in slices(frame.fields["devices"], 46)
    ]
    require(all(a.index < b.index for a, b in pairwise(rows)), "a roster does not ascend")
    gone = set(numbers(frame.fields["revoked"]))
    return {row.index: row for row in rows if row.index not in gone}


def numbers(raw: bytes) -> list[int]:
    """The u32 of a `b4*`."""
    return [int.from_bytes(one, "little") for one in slices(raw, 4)]


def signers_of(frame: Frame, keys: list[bytes]) -> int:
    """How many of these keys signed."""
    return sum(frame.holds(key_id(key), key) for key in keys)


class Documents:
    """The newest documents that verified: root, manifest, date, and what the manifest names."""

    def __init__(self, fleet: bytes, root: bytes, root_hash: bytes) -> None:
        self.fleet = fleet
        self.root = parse(root, fleet, "root")
        require(self.root.hash == root_hash, "not the pinned root")
        self.manifest: Frame | None = None
        self.date: Frame | None = None
        self.named: dict[str, Frame] = {}

    def take_root(self, payload: bytes) -> None:
        """The next root: signed by the thresholds of the old one and its own."""
        new, old = parse(payload, self.fleet, "root"), self.root
        if new.fields["version"] <= old.fields["version"]:
            return
        require(new.fields["version"] == old.fields["version"] + 1, "a root was left out")
        for one in (old, new):
            require(signers_of(new, one.fields["root"]) >= one.fields["root_n"], "too few root signatures")
        self.root, self.manifest, self.date, self.named = new, None, None, {}

    def take_manifest(self, payload: bytes) -> None:
        """A newer manifest by the root's signers; what it names anew has to come again."""
        new = parse(payload, self.fleet, "manifest")
        require(new.fields["root"] == self.root.fields["version"], "a manifest of another root")
        if self.manifest is not None and new.fields["version"] <= self.manifest.fields["version"]:
            return
        root = self.root.fields
        require(signers_of(new, root["signer"]) >= root["signer_n"], "too few manifest signatures")
        names = [doc["name"] for doc in new.fields["docs"]]
        require(names == sorted(set(names)), "documents of a manifest do not ascend")
        self.manifest = new
        wanted = {doc["name"]: doc["hash"] for doc in new.fields["docs"]}
        self.named = {name: frame for name, frame in self.named.items() if wanted.get(name) == frame.hash}

    def take_date(self, payload: bytes) -> None:
        new, root = parse(payload, self.fleet, "date"), self.root.fields
        require(signers_of(new, root["fresh"]) >= root["fresh_n"], "too few date signatures")
        self.date = new

    def missing(self, names: set[str]) -> list[Fields]:
        """Entries of the manifest, of these names, whose documents are not there yet."""
        docs: list[Fields] = [] if self.manifest is None else self.manifest.fields["docs"]
        return [doc for doc in docs if doc["name"] in names and doc["name"] not in self.named]

    def take(self, doc: Fields, payload: bytes) -> None:
        """A document that the manifest names."""
        require(len(payload) == doc["length"], "a document of another length")
        frame = parse(payload, self.fleet, doc["name"])
        require(frame.hash == doc["hash"] and frame.fields["version"] == doc["version"], "not the named document")
        self.named[doc["name"]] = frame

    def complete(self, names: set[str]) -> bool:
        return self.manifest is not None and names <= set(self.named)

    @property
    def pair(self) -> tuple[int, int]:
        """(root, manifest) known."""
        assert self.manifest is not None
        return self.root.fields["version"], self.manifest.fields["version"]

    def valid_at(self, now: int) -> bool:
        """Whether the manifest, as re-dated, and the root hold at that time."""
        assert self.manifest is not None
        until = self.manifest.fields["not_after"]
        if self.date is not None and self.date.fields["manifest"] == self.manifest.hash:
            until = max(until, self.date.fields["not_after"])
        return now <= min(int(until), int(self.root.fields["not_after"]))

    # What the committee document says.

    @property
    def coordinator(self) -> Fields:
        """The one certificate with role 4."""
        found = [cert for cert in self.named["committee"].fields["certs"] if cert["roles"] & COORDINATOR]
        require(len(found) == 1, "not one coordinator")
        return dict(found[0])

    @property
    def candidates(self) -> dict[int, Fields]:
        """Certificates with role 2 that are not revoked, ascending."""
        committee = self.named["committee"].fields
        gone = set(numbers(committee["revoked"]))
        return {c["index"]: c for c in committee["certs"] if c["roles"] & MEMBER and c["index"] not in gone}

    def from_coordinator(self, payload: bytes, *kinds: str) -> Frame:
        """A message with the coordinator's signature."""
        frame, cert = parse(payload, self.fleet, *kinds), self.coordinator
        require(frame.holds(cert["index"], cert["key"]), f"a {frame.kind} not by the coordinator")
        return frame

    def from_candidate(self, payload: bytes, kind: str, index: int) -> Frame:
        """A message with that candidate's signature."""
        frame = parse(payload, self.fleet, kind)
        require(index in self.candidates, f"{index} is no candidate")
        require(frame.holds(index, self.candidates[index]["key"]), f"a {kind} not by {index}")
        return frame
